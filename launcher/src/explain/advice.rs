//! What to do about an event.

use std::fmt::Write;
use std::path::Path;

use super::AuditRecord;
use crate::escape::Escaped;

/// All records of one event, of which there is at least one.
pub fn explain(records: &[AuditRecord], log: &Path) -> String {
    let mut text = String::new();
    let Some(last) = records.last() else {
        return text;
    };
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            // Writing to a String cannot fail.
            let _infallible = writeln!(text, "{label:9} {}", Escaped(value));
        }
    };
    line("event", &last.event);
    line("time", &last.time);
    line("bottle", &last.bottle);
    line("request", &format!("{} {}", last.method, last.url()));
    for record in records {
        line("verdict", &format!("{} ({})", record.verdict, record.code));
        line("reason", &record.reason);
        line("rule", record.rule.as_deref().unwrap_or_default());
        line("location", record.location.as_deref().unwrap_or_default());
        line("decoded", &record.via.join(", then "));
        line("context", record.context.as_deref().unwrap_or_default());
        line("by", record.by.as_deref().unwrap_or_default());
        line("until", record.until.as_deref().unwrap_or_default());
    }
    line("policy", &last.policy);
    line("log", &log.display().to_string());
    text.push_str(&advice(last));
    text
}

fn advice(record: &AuditRecord) -> String {
    let bottle = "~/.bot-bottle/bottles/NAME.md";
    match record.code.as_str() {
        "host-not-allowed" | "request-not-allowed" => {
            let scheme = record.scheme.as_deref().unwrap_or("https");
            let default = if scheme == "http" { 80 } else { 443 };
            let port = record.port.filter(|port| *port != default).map(|port| format!(":{port}")).unwrap_or_default();
            routes(&format!("{}{port}", record.host), scheme, &record.method, &record.path)
        }
        "git-fetch" => format!(
            "\nTo allow clones and fetches, write in the route of {} in {bottle}:\n\n    git: {{fetch: true}}\n",
            Escaped(&record.host)
        ),
        "websocket-not-allowed" => format!(
            "\nTo let the agent open WebSockets, write in the route of {} in {bottle}:\n\n    websocket: true\n\nTheir messages are scanned as request bodies are.\n",
            Escaped(&record.host)
        ),
        "git-push" => "\nA push over HTTPS is always refused: let the agent commit, look at it, and push yourself.\n".into(),
        "deny-rule" => format!(
            "\nA rule with `deny: true` in {bottle} forbids it, and wins over every route that allows it. Take that rule out, or make it narrower.\n"
        ),
        "supervise-timeout" | "supervise-full" | "supervise-gone" | "supervise-stopping" => {
            let commands: String = record
                .asks
                .iter()
                .map(|id| format!("    launcher approve {id}\n", id = Escaped(id)))
                .collect();
            format!(
                "\nNobody approved it in time. While its bottle runs this lets the next try through, the same value on the same route and in the same place, for ten minutes:\n\n{commands}\n`launcher supervise` shows what waits as it comes; `launcher reject ID --reason TEXT` refuses it. If the destination needs the credential, let the sidecar put it in: `auth: {{scheme: Bearer, token_ref: VARIABLE}}` in its route in {bottle}.\n"
            )
        }
        "supervise-rejected" | "reject" => "\nAn operator rejected it; the reason is above. `launcher supervise --decisions` shows what holds, `launcher revoke ID` takes it back.\n".into(),
        "supervise-streamed" => "\nThe body was too long to be held while somebody is asked. A shorter request can be approved with `launcher approve`.\n".into(),
        "supervise-place" | "supervise-too-many" => "\nNo approval covers this. It may stand in a path, a query, the value of a header, or a body that is not compressed; not in a name, a trailer, or across several fields.\n".into(),
        "supervise-policy-changed" => "\nThe policy was replaced while it waited. The agent has to send it again.\n".into(),
        "approve" | "approved" => "\nAn operator approved it. `launcher supervise --decisions` shows what holds, `launcher revoke ID` takes it back.\n".into(),
        "credential" | "credential-unsupervised" | "credential-unredactable" => format!(
            "\nThis is a credential on its way out. If the agent should not have it, look at where it got it from, and replace it.\nIf the destination needs it, do not give it to the agent: name it in the route's `auth: {{scheme: Bearer, token_ref: VARIABLE}}` in {bottle}, and the sidecar puts it in.\nIf it is no credential, `dlp: {{outbound_on_match: redact}}` in the route sends such requests on with it replaced.\n"
        ),
        "structural" => "\nA request line or a header holds what would split it in two. There is no setting that lets it through; the agent has to send it in the body.\n".into(),
        "ambiguous-path" => "\nA route with rules on paths takes only paths that every server reads in the same way. Have the agent write it plainly, or allow the host without `paths`.\n".into(),
        "oversize" => format!(
            "\nThe body is larger than the route's `dlp.max_request_bytes`. Raise it in {bottle}, or send larger bodies on without a look beyond the limit with `on_oversize: noscan`.\n"
        ),
        "upstream-private-address" => format!(
            "\nThe name leads to an address of a private network. If that is meant, write `allow_private: true` in its route in {bottle}.\n"
        ),
        code if code.starts_with("upstream-") => {
            "\nThis is not a decision of the policy: the request was allowed, and the origin could not be reached as it must be.\n".into()
        }
        "allow" => "\nIt was let through.\n".into(),
        "redact" => "\nIt was let through with the credential replaced by asterisks.\n".into(),
        "warn" => "\nIt was let through; the finding is a warning.\n".into(),
        _ => "\nThe sidecar does not forward what it does not understand completely. There is no setting for it; the agent has to ask in another way.\n".into(),
    }
}

/// The lines that would allow a request, the narrowest first.
pub fn routes(host: &str, scheme: &str, method: &str, path: &str) -> String {
    let scheme = if scheme == "https" {
        String::new()
    } else {
        format!("\n          scheme: {scheme}")
    };
    // What JSON quotes YAML reads, whatever the agent put into it.
    let quoted = |text: &str| serde_json::to_string(&Escaped(text).to_string()).unwrap_or_default();
    let host = quoted(host);
    let mut text = String::from(
        "\nIf this is meant, allow it in ~/.bot-bottle/bottles/NAME.md; the next start reads it.\n",
    );
    if method != "CONNECT" && !method.is_empty() && !path.is_empty() {
        text.push_str(&format!(
            "\nOnly this method and path:\n\n    egress:\n      routes:\n        - host: {host}{scheme}\n          matches:\n            - methods: [{}]\n              paths: [{{exact: {}}}]\n",
            quoted(method),
            quoted(path)
        ));
    }
    text.push_str(&format!(
        "\nEverything on this host:\n\n    egress:\n      routes:\n        - host: {host}{scheme}\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy::config::Egress;
    use proxy::policy::Policy;

    #[derive(serde::Deserialize)]
    struct Section {
        egress: Egress,
    }

    /// A hint that does not do what it says is worse than none.
    #[test]
    fn what_is_advised_compiles() {
        for (host, path) in [
            ("api.example.com:8443", "/v1/a b\"c"),
            ("x.example", "/\u{202e}\\n"),
        ] {
            let text = routes(host, "https", "POST", path);
            let blocks: Vec<_> = text
                .split("\n\n")
                .filter(|block| block.starts_with("    egress:"))
                .collect();
            assert_eq!(blocks.len(), 2);
            for block in blocks {
                let section: Section = serde_saphyr::from_str(block).unwrap();
                Policy::compile(&section.egress).unwrap();
            }
        }
    }

    #[test]
    fn nothing_of_the_agents_reaches_the_terminal_raw() {
        let record = AuditRecord {
            event: "evt_1".into(),
            code: "host-not-allowed".into(),
            host: "evil.example".into(),
            method: "GET".into(),
            path: "/\x1b]0;title\x07\u{202e}".into(),
            reason: "no route\x1b[2J".into(),
            ..AuditRecord::default()
        };
        let text = explain(&[record], Path::new("/log"));
        assert!(
            !text.contains('\x1b') && !text.contains('\u{202e}') && !text.contains('\x07'),
            "{text}"
        );
    }
}
