//! `launcher scan` is `sidecar scan`; its tests are in `proxy/tests/scan.rs`. Here is what the launcher adds: that it
//! is there, needs no manifest and leaves no state behind.

mod common;

use std::fs;

use common::Host;

const KEY: &str = "AKIAIOSFODNN7EXAMPLE"; // gitleaks:allow

#[test]
fn it_scans_the_workspace() {
    let host = Host::new();
    let before = fs::read_dir(&host.state).unwrap().count();
    fs::write(host.workspace.join("clean.txt"), "nothing").unwrap();
    let ran = host.run(&["scan"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{ran:?}");
    assert_eq!(ran.stderr, "0 findings in 1 file, 7 B\n");

    fs::write(host.workspace.join("a.env"), format!("\nKEY={KEY}")).unwrap();
    let ran = host.run(&["scan", "--format", "json", "."]);
    assert_eq!(ran.code, 10, "{ran:?}");
    assert!(!ran.stdout.contains(KEY) && !ran.stderr.contains(KEY));
    let entries: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(entries[0]["path"], "a.env");
    assert_eq!(entries[0]["line"], 2);
    assert_eq!(host.run(&["scan", "--exit-code", "3"]).code, 3);
    assert_eq!(host.run(&["scan", "missing"]).code, 1);
    assert_eq!(host.run(&["scan", "--no-such-option"]).code, 2);
    assert_eq!(fs::read_dir(&host.state).unwrap().count(), before);
}

#[test]
fn help_names_it() {
    let host = Host::new();
    assert!(host.run(&["--help"]).stdout.contains("\n  scan "));
    let help = host.run(&["scan", "--help"]).stdout;
    for word in ["--baseline", "gitleaks:allow", "sarif", "10 findings"] {
        assert!(help.contains(word), "{word}");
    }
}
