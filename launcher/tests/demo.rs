//! The README's first command, as whoever runs the tests and as an ordinary user.

mod common;

use common::Host;

#[test]
fn every_attack_fails_and_every_control_passes() {
    for host in Host::all() {
        let ran = host.run(&["start", "demo"]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        assert!(
            ran.stdout.contains("attacks failed, all 3 controls passed"),
            "{}",
            ran.stdout
        );
        for row in ["works", "stopped"] {
            assert!(ran.stdout.contains(row), "{}", ran.stdout);
        }
        for bad in ["LEAKED", "BROKEN", "MISSING"] {
            assert!(!ran.stdout.contains(bad), "{}", ran.stdout);
        }
        assert_eq!(
            host.run(&["cleanup", "--dry-run"]).stdout,
            "",
            "something was left"
        );
    }
}

#[test]
fn the_dry_run_names_what_it_would_do_and_starts_nothing() {
    let host = Host::new();
    let ran = host.run(&["start", "demo", "--dry-run"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("demo-origin.test"), "{}", ran.stdout);
    assert!(!host.state.join("bottles").exists());
}
