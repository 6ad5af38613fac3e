//! SARIF 2.1.0 (OASIS standard, 27 March 2020), as far as code scanning reads it.

use serde_json::{Value, json};

use super::Report;
use crate::scan::entry::Entry;
use crate::scan::escape;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

pub(super) fn log(report: &Report<'_>) -> Value {
    let mut rules: Vec<(&str, &str)> = Vec::new();
    let listed = report
        .rules
        .iter()
        .map(|rule| (rule.id.as_str(), rule.credential.as_str()));
    let found = report
        .entries
        .iter()
        .map(|entry| (entry.rule.as_str(), entry.credential.as_str()));
    for (id, credential) in listed.chain(found) {
        if !rules.iter().any(|(known, _)| *known == id) {
            rules.push((id, credential));
        }
    }
    let results: Vec<Value> = report
        .entries
        .iter()
        .map(|entry| {
            let index = rules.iter().position(|(id, _)| *id == entry.rule);
            result(entry, index)
        })
        .collect();
    let rules: Vec<Value> = rules
        .iter()
        .map(|(id, credential)| json!({"id": id, "shortDescription": {"text": credential}}))
        .collect();
    let notifications: Vec<Value> = report
        .problems
        .iter()
        .map(|problem| json!({"level": "error", "message": {"text": problem}}))
        .collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "bot-bottle",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "invocations": [{
                "executionSuccessful": report.problems.is_empty(),
                "toolExecutionNotifications": notifications,
            }],
            "results": results,
        }],
    })
}

fn result(entry: &Entry, rule: Option<usize>) -> Value {
    let via = if entry.via.is_empty() {
        String::new()
    } else {
        format!(" (via {})", entry.via.join(", "))
    };
    let mut result = json!({
        "ruleId": entry.rule,
        "level": if entry.severity == "warn" { "warning" } else { "error" },
        "message": {"text": escape::text(&format!("{}{via}: {}", entry.credential, entry.context))},
        "locations": [{"physicalLocation": {
            "artifactLocation": {"uri": uri(&entry.path.shown)},
            "region": {
                "startLine": entry.line,
                "startColumn": entry.column,
                "endLine": entry.end_line,
                "endColumn": entry.end_column,
                "byteOffset": entry.offset,
                "byteLength": entry.length,
            },
        }}],
        "partialFingerprints": {"redactedLine/v1": entry.fingerprint},
    });
    if let (Some(index), Some(result)) = (rule, result.as_object_mut()) {
        result.insert("ruleIndex".into(), index.into());
    }
    result
}

/// A path as a reference of RFC 3986: relative to where the scan ran, or absolute.
fn uri(path: &[u8]) -> String {
    let mut uri = String::with_capacity(path.len());
    if path.starts_with(b"/") {
        uri.push_str("file://");
    }
    for byte in path {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_is_a_uri() {
        assert_eq!(uri(b"a b/c:d\xff.rs"), "a%20b/c%3Ad%FF.rs");
        assert_eq!(uri("/tmp/ü\n".as_bytes()), "file:///tmp/%C3%BC%0A");
    }
}
