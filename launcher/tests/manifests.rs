//! What a user reads when a manifest, a command line or the environment is wrong. Nothing is started by these.

#![expect(clippy::unwrap_used, reason = "a failed expectation ends the test")]

mod common;

use common::Host;

/// What `check` says about a bottle with this front matter, without the path in front.
fn check(front_matter: &str) -> String {
    let host = Host::new();
    let file = host.bottle("b", front_matter);
    let ran = host.run(&["check", file.to_str().unwrap()]);
    assert_eq!(
        ran.code,
        if ran.stdout.starts_with("ok") { 0 } else { 2 },
        "{ran:?}"
    );
    ran.stdout.replace(file.to_str().unwrap(), "b.md")
}

const AGENT: &str = "agent_provider: {template: command, command: [true]}\n";

#[test]
fn mistakes_have_a_place_and_a_remedy() {
    let table = [
        (
            "egres:\n  routes: []",
            "error  b.md:3: unknown key `egres`\nhint: did you mean `egress`?\n",
        ),
        (
            "egress:\n  routes:\n    - hots: a.example",
            "error  b.md:5: unknown key `hots`\nhint: did you mean `host`?\n",
        ),
        (
            "egress:\n  routes:\n    - host: a.example\n      dlp: {outbound_on_match: reddact}",
            "error  b.md:6: unknown value `reddact`\nhint: did you mean `redact`?\n",
        ),
        (
            "egress:\n  routes:\n    - host: a.example\n    - host: b.example\n      matches: [{methods: [GET], paths: [{exact: v1}]}]",
            "error  b.md:6: egress.routes[1] (b.example): paths: \"v1\" does not start with a slash\n",
        ),
        (
            "extends: other",
            "error  b.md:3: `extends` is known but not available in this version; take it out\n",
        ),
        (
            "git-gate: {}",
            "error  b.md:3: `git-gate` is known but not available in this version; take it out\n",
        ),
        (
            "supervise: true",
            "error  b.md:3: `supervise` is known but not available in this version; take it out\n",
        ),
        (
            "env: {A-B: x}",
            "error  b.md:3: env.A-B: is not the name of a variable (letters, digits and _)\n",
        ),
        (
            "env: {https_proxy: x}",
            "error  b.md:3: env.https_proxy: the launcher sets this variable; take it out\n",
        ),
        (
            "env:\n  A: 1.10",
            "error  b.md:4: write a number with a point in quotes: an environment holds text\n",
        ),
        (
            "env:\n  A: {form_host: X}",
            "error  b.md:4: unknown key `form_host`\nhint: did you mean `from_host`?\n",
        ),
    ];
    for (front_matter, expected) in table {
        assert_eq!(
            check(&format!("{AGENT}{front_matter}")),
            expected,
            "{front_matter}"
        );
    }
}

#[test]
fn providers() {
    assert!(
        check("agent_provider: {template: codex}")
            .contains("the templates are claude, command, demo")
    );
    assert!(
        check("agent_provider: {template: claude, dockerfile: x}")
            .contains("dockerfile: x is not there")
    );
    assert!(
        check("agent_provider: {template: claude, forward_host_credentials: true}")
            .contains("not available")
    );
    assert!(check("env: {A: b}").contains("names no agent_provider"));
    assert_eq!(
        check("agent_provider: {template: claude}"),
        "ok     bottle b.md\n"
    );
}

/// A token that was pasted where a name belongs must not be repeated.
#[test]
fn a_pasted_secret_is_not_printed() {
    let text = check(&format!(
        "{AGENT}egress:\n  routes:\n    - host: a.example\n      auth: {{scheme: Bearer, token_ref: sk-not/a/name}}"
    ));
    assert!(
        text.contains("b.md:5: egress.routes[0] (a.example): auth.token_ref"),
        "{text}"
    );
    assert!(!text.contains("sk-not"), "{text}");
}

#[test]
fn every_missing_secret_is_named_before_anything_starts() {
    let mut host = Host::new();
    host.bottle(
        "sh",
        "agent_provider: {template: command, command: [true]}\nenv: {A: {from_host: MISSING_ONE}, B: {from_host: PRESENT}}\negress:\n  routes:\n    - host: a.example\n      auth: {scheme: Bearer, token_ref: MISSING_TWO}",
    );
    host.env.push(("PRESENT".into(), "here".into()));
    let ran = host.sh("true");
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr
            .contains("are not set in your environment: MISSING_ONE, MISSING_TWO;"),
        "{}",
        ran.stderr
    );
    assert!(host.bottles().is_empty());
}

#[test]
fn unknown_agents_bottles_and_backends() {
    let host = Host::new();
    let ran = host.run(&["start", "sg", "--headless"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("there is no agent `sg`"),
        "{}",
        ran.stderr
    );
    let ran = host.run(&["start", "sh", "--headless", "--bottle", "shh"]);
    assert!(
        ran.stderr.contains("there is no bottle `shh`")
            && ran.stderr.contains("did you mean `sh`?"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.code, 2);
    let ran = host.run(&["start", "../sh", "--headless"]);
    assert_eq!(ran.code, 2);
    let ran = host.run(&["start", "sh", "--headless", "--backend", "vm"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains(
            "unknown backend `vm`; there are: smolmachines, docker, macos-container, local"
        ),
        "{}",
        ran.stderr
    );
    for (backend, why) in [
        ("macos-container", "which is for macOS, and this is linux"),
        ("smolmachines", "the bottle names no image for a machine"),
        ("docker", "the bottle names no image for a container"),
    ] {
        let ran = host.run(&["start", "sh", "--headless", "--backend", backend]);
        assert_eq!(ran.code, 3, "{backend}");
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    }
    assert!(host.bottles().is_empty());
}

#[test]
fn a_repository_names_a_bottle_and_changes_none() {
    let host = Host::new();
    let agents = host.workspace.join(".bot-bottle/agents");
    std::fs::create_dir_all(&agents).unwrap();
    std::fs::create_dir_all(host.workspace.join(".bot-bottle/bottles")).unwrap();
    std::fs::write(agents.join("theirs.md"), "---\nbottle: sh\n---\nBe theirs.").unwrap();
    std::fs::write(
        agents.join("evil.md"),
        "---\nbottle: sh\negress: {routes: [{host: evil.example}]}\n---\n",
    )
    .unwrap();
    std::fs::write(agents.join("sh.md"), "---\nbottle: other\n---\n").unwrap();
    std::fs::write(agents.join("own.md"), "---\nbottle: own\n---\n").unwrap();
    std::fs::write(
        host.workspace.join(".bot-bottle/bottles/own.md"),
        "---\nagent_provider: {template: command, command: [true]}\n---\n",
    )
    .unwrap();

    let dry = |agent: &str| host.run(&["start", agent, "--headless", "--prompt", "x", "--dry-run"]);
    assert_eq!(dry("theirs").code, 0);
    let evil = dry("evil");
    assert_eq!(evil.code, 2);
    assert!(
        evil.stderr.contains("evil.md:3: unknown key `egress`"),
        "{}",
        evil.stderr
    );
    let own = dry("own");
    assert_eq!(own.code, 2);
    assert!(
        own.stderr.contains("there is no bottle `own`"),
        "{}",
        own.stderr
    );
    let sh = dry("sh");
    assert_eq!(sh.code, 0, "{}", sh.stderr);
    assert!(sh.stdout.contains("note       your own"), "{}", sh.stdout);
}

#[test]
fn a_dry_run_shows_everything_and_starts_nothing() {
    let mut host = Host::new();
    host.env
        .push(("THE_TOKEN".into(), "s3cret-value-of-the-token".into()));
    host.bottle(
        "full",
        "agent_provider: {template: claude, auth_token: THE_TOKEN}\nenv: {PLAIN: text, HOST: {from_host: THE_TOKEN}}\negress:\n  routes:\n    - host: api.example.com\n      auth: {scheme: Bearer, token_ref: THE_TOKEN}",
    );
    host.agent(
        "full",
        "bottle: full\ngit: {user: {name: A, email: a@example.com}}",
        "Be brief.",
    );
    let arguments = [
        "start",
        "full",
        "--headless",
        "--prompt",
        "fix it",
        "--dry-run",
        "--format",
    ];
    let ran = host.run(&[&arguments[..], &["json"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let plan: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(plan["backend"], "local");
    assert_eq!(plan["workspace"], host.workspace.to_str().unwrap());
    assert_eq!(plan["program"]["command"][2], "fix it");
    assert_eq!(plan["program"]["command"][5], "Be brief.");
    assert_eq!(plan["credentials"]["EGRESS_TOKEN_THE_TOKEN"], "THE_TOKEN");
    assert_eq!(plan["routes"][0]["host"], "api.anthropic.com");
    assert_eq!(plan["routes"][1]["credential"], "EGRESS_TOKEN_THE_TOKEN");
    assert_eq!(
        plan["sidecar"]["egress"]["routes"][1]["auth"]["token_ref"],
        "EGRESS_TOKEN_THE_TOKEN"
    );
    let text = host.run(&[&arguments[..], &["text"]].concat());
    for output in [&ran.stdout, &text.stdout] {
        assert!(!output.contains("s3cret"), "a value is in {output}");
    }
    assert!(
        text.stdout
            .contains("env        HOST (the value of your THE_TOKEN)"),
        "{}",
        text.stdout
    );
    assert_eq!(std::fs::read_dir(&host.state).unwrap().count(), 0);
}

#[test]
fn workspaces_and_mounts_that_would_show_too_much() {
    let host = Host::new();
    let start = |arguments: &[&str]| {
        host.run(&[&["start", "sh", "--headless", "--prompt", "x"], arguments].concat())
    };
    for (workspace, reason) in [
        ("/", "is the root of the host"),
        (host.home.to_str().unwrap(), "is your home directory"),
    ] {
        let ran = start(&["--workspace", workspace]);
        assert_eq!(ran.code, 2);
        assert!(ran.stderr.contains(reason), "{}", ran.stderr);
    }
    let file = host.bottle(
        "sh",
        "agent_provider: {template: command, command: [true]}\nmounts:\n  - ~/.bot-bottle",
    );
    let ran = start(&[]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains(&format!("({}:4)", file.display())),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("holds your manifests"),
        "{}",
        ran.stderr
    );
}

#[test]
fn without_a_terminal_headless_is_asked_for() {
    let host = Host::new();
    let ran = host.run(&["start", "sh", "--prompt", "x"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("add --headless"), "{}", ran.stderr);
    let ran = host.run(&["start", "sh", "--headless"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("add --prompt TEXT"), "{}", ran.stderr);
}

#[test]
fn why_gives_lines_that_then_allow_it() {
    let host = Host::new();
    let why = || {
        host.run(&[
            "why",
            "post",
            "https://api.example.com/v1/items?x=1",
            "--bottle",
            "sh",
        ])
    };
    let ran = why();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("denied by"), "{}", ran.stdout);
    let advised: Vec<_> = ran
        .stdout
        .split("\n\n")
        .filter(|block| block.starts_with("    egress:"))
        .collect();
    assert_eq!(advised.len(), 2);
    for advice in advised {
        let lines: Vec<_> = advice
            .lines()
            .map(|line| line.strip_prefix("    ").unwrap_or(line))
            .collect();
        host.bottle("sh", &format!("{AGENT}{}", lines.join("\n")));
        let ran = why();
        assert!(
            ran.stdout.starts_with("allowed by"),
            "{advice}\n{}",
            ran.stdout
        );
    }
    assert_eq!(host.run(&["why", "evt_0"]).code, 1);
    assert_eq!(host.run(&["why", "GET", "https://a.example"]).code, 2);
}

/// The documentation's examples are what `check` accepts.
#[test]
fn documented_manifests_are_valid() {
    let text =
        std::fs::read_to_string(fixtures::require::workspace().join("docs/MANIFESTS.md")).unwrap();
    let host = Host::new();
    let mut seen = 0;
    for part in text.split("<!-- ").skip(1) {
        let (name, rest) = part.split_once(".md -->").unwrap();
        let body = rest
            .split("```")
            .nth(1)
            .unwrap()
            .strip_prefix("markdown\n")
            .unwrap();
        let (kind, name) = name.split_once('/').unwrap();
        let file = host.manifest(kind, name, body);
        let ran = host.run(&["check", file.to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{}", ran.stdout);
        seen += 1;
    }
    assert_eq!(seen, 3);
}
