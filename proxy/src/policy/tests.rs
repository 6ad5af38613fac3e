use super::*;
use crate::config::Egress;

fn policy(yaml: &str) -> Policy {
    let egress: Egress = serde_saphyr::from_str(yaml).unwrap();
    Policy::compile(&egress).unwrap()
}

fn ask(policy: &Policy, method: &str, url: &str) -> String {
    let (scheme, rest) = match url.strip_prefix("http://") {
        Some(rest) => (Scheme::Http, rest),
        None => (Scheme::Https, url.strip_prefix("https://").unwrap()),
    };
    let cut = rest.find('/').unwrap();
    let authority = Authority::parse(rest.split_at(cut).0, scheme.default_port()).unwrap();
    let headers = Headers::default();
    let question = Question {
        scheme,
        authority: &authority,
        method,
        target: &rest.as_bytes()[cut..],
        headers: &headers,
    };
    match policy.decide(&question) {
        Decision::Allow(route) => format!("allow {}", route.index),
        Decision::Deny(Denial::Host) => "host".into(),
        Decision::Deny(Denial::Request) => "request".into(),
        Decision::Deny(Denial::Rule(route)) => format!("rule {}", route.index),
        Decision::Deny(Denial::AmbiguousPath(_)) => "ambiguous".into(),
        Decision::Deny(Denial::GitPush) => "push".into(),
        Decision::Deny(Denial::GitFetch) => "fetch".into(),
    }
}

#[test]
fn an_empty_list_denies_everything() {
    assert_eq!(ask(&policy("routes: []"), "GET", "https://a.test/"), "host");
    assert_eq!(ask(&Policy::deny_all(), "GET", "https://a.test/"), "host");
}

#[test]
fn host_port_and_scheme_are_one_identity() {
    let policy = policy(
        "routes:\n- host: a.test\n- host: b.test:8443\n- {host: c.test, scheme: http}\n- host: '*.d.test'\n",
    );
    for (url, expected) in [
        ("https://a.test/", "allow 0"),
        ("https://A.TEST./", "allow 0"),
        ("https://a.test:8443/", "host"),
        ("http://a.test/", "host"),
        ("http://a.test:443/", "host"),
        ("https://b.test:8443/", "allow 1"),
        ("https://b.test/", "host"),
        ("http://c.test/", "allow 2"),
        ("https://c.test/", "host"),
        ("https://x.d.test/", "allow 3"),
        ("https://d.test/", "host"),
        ("https://evil.a.test/", "host"),
    ] {
        assert_eq!(ask(&policy, "GET", url), expected, "{url}");
    }
}

#[test]
fn matches_are_alternatives_of_conjunctions() {
    let policy = policy(
        "routes:\n- host: a.test\n  matches:\n  - {methods: [get, head], paths: [{prefix: /v1}, {exact: /health}]}\n  - {methods: [POST], paths: [{regex: '/v2/[0-9]+'}]}\n",
    );
    for (method, path, expected) in [
        ("GET", "/v1", "allow 0"),
        ("GET", "/v1/x?y=%2f", "allow 0"),
        ("GET", "/v10", "request"),
        ("POST", "/v1", "request"),
        ("GET", "/health", "allow 0"),
        ("GET", "/health/", "request"),
        ("POST", "/v2/12", "allow 0"),
        ("POST", "/v2/12/x", "request"),
        ("POST", "/x/v2/12", "request"),
        ("GET", "/v1/../admin", "ambiguous"),
        ("GET", "/v1/%2e%2e/admin", "ambiguous"),
        ("GET", "/v1%2fadmin", "ambiguous"),
        ("GET", "//v1", "ambiguous"),
        ("GET", "/%761", "allow 0"),
    ] {
        assert_eq!(
            ask(&policy, method, &format!("https://a.test{path}")),
            expected,
            "{method} {path}"
        );
    }
}

#[test]
fn deny_wins_wherever_it_stands() {
    let policy = policy(
        "routes:\n- host: '*.a.test'\n- host: secret.a.test\n  deny: true\n- host: x.a.test\n  deny: true\n  matches: [{paths: [{prefix: /admin}]}]\n",
    );
    assert_eq!(ask(&policy, "GET", "https://secret.a.test/"), "rule 1");
    assert_eq!(ask(&policy, "GET", "https://x.a.test/admin/y"), "rule 2");
    assert_eq!(ask(&policy, "GET", "https://x.a.test/%61dmin"), "rule 2");
    assert_eq!(ask(&policy, "GET", "https://x.a.test//admin"), "ambiguous");
    assert_eq!(ask(&policy, "GET", "https://x.a.test/ok"), "allow 0");
}

#[test]
fn git_over_https() {
    let policy = policy("routes:\n- host: a.test\n- host: b.test\n  git: {fetch: true}\n");
    let refs = "/o/r/info/refs?service=git-";
    assert_eq!(
        ask(&policy, "GET", &format!("https://a.test{refs}upload-pack")),
        "fetch"
    );
    assert_eq!(
        ask(&policy, "GET", &format!("https://b.test{refs}upload-pack")),
        "allow 1"
    );
    assert_eq!(
        ask(&policy, "GET", &format!("https://b.test{refs}receive-pack")),
        "push"
    );
    assert_eq!(
        ask(&policy, "POST", "https://b.test/o/r/git-receive-pack"),
        "push"
    );
}

#[test]
fn header_rules_hold_for_every_field_of_the_name() {
    let policy =
        policy("routes:\n- host: a.test\n  matches: [{headers: [{name: X-Kind, exact: good}]}]\n");
    let authority = Authority::parse("a.test", 443).unwrap();
    let decide = |values: &[&'static str]| {
        let mut headers = Headers::default();
        for value in values {
            headers.push("x-kind".as_bytes(), value.as_bytes());
        }
        let question = Question {
            scheme: Scheme::Https,
            authority: &authority,
            method: "GET",
            target: b"/",
            headers: &headers,
        };
        matches!(policy.decide(&question), Decision::Allow(_))
    };
    assert!(decide(&["good"]));
    assert!(!decide(&[]));
    assert!(!decide(&["bad"]));
    assert!(!decide(&["good", "bad"]));
}

#[test]
fn what_cannot_be_understood_is_an_error_that_names_it() {
    for (yaml, part) in [
        ("routes: [{host: 'a b'}]", "character"),
        ("routes: [{host: '*'}]", "character"),
        ("routes: [{host: a.test, matches: [{}]}]", "empty entry"),
        (
            "routes: [{host: a.test, matches: [{paths: [{prefix: v1}]}]}]",
            "slash",
        ),
        (
            "routes: [{host: a.test, matches: [{paths: [{regex: '('}]}]}]",
            "compile",
        ),
        (
            "routes: [{host: a.test, matches: [{methods: ['G T']}]}]",
            "not a method",
        ),
        (
            "routes: [{host: a.test, dlp: {outbound_detectors: [token_pattern]}}]",
            "did you mean \"token_patterns\"",
        ),
        (
            "routes: [{host: a.test, dlp: {outbound_detectors: true}}]",
            "not `true`",
        ),
        (
            "routes: [{host: a.test, dlp: {inbound_detectors: [injection]}}]",
            "is not \"naive_injection_detection\"",
        ),
        (
            "routes: [{host: a.test, dlp: {inbound_detectors: true}}]",
            "not `true`",
        ),
        (
            "routes: [{host: a.test, auth: {scheme: header, token_ref: X}}]",
            "needs `name`",
        ),
        (
            "routes: [{host: a.test, scheme: http, auth: {scheme: Bearer, token_ref: X}}]",
            "https only",
        ),
        (
            "routes: [{host: a.test, deny: true, allow_private: true}]",
            "deny",
        ),
    ] {
        let egress: Egress = serde_saphyr::from_str(yaml).unwrap();
        let error = Policy::compile(&egress).unwrap_err().to_string();
        assert!(error.contains(part), "{yaml}: {error}");
        assert!(error.starts_with("egress.routes[0]"), "{error}");
    }
}
