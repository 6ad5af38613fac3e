//! Machines that are not started, and starts that are refused before there is one.

use serde_json::json;

use crate::fake::Fake;

fn refuses(fake: &Fake, code: i32, says: &str) {
    let ran = fake.host.sh("echo the agent ran");
    assert_eq!(ran.code, code, "{says}: {}", ran.stderr);
    assert!(ran.stderr.contains(says), "{says}: {}", ran.stderr);
    assert!(!ran.stdout.contains("the agent ran"));
    fake.is_clean();
}

#[test]
fn versions_that_cannot_be_locked_are_refused_with_what_to_install() {
    let old = [
        "label",
        "mount-socket",
        "allow-host-pattern",
        "egress-interceptor",
    ];
    let table: [(&str, &[&str], &str); 9] = [
        ("0.5.20", &["name", "label", "mount-socket"], "redb"),
        ("0.8.0", &["name", "label", "mount-socket"], "TSI"),
        ("1.1.2", &old, "TSI"),
        ("1.1.3", &old, "no socket for every machine"),
        ("1.4.0", &old, "no socket for every machine"),
        ("1.6.13", &["label"], "no socket for every machine"),
        ("1.7.7", &["label"], "no socket for every machine"),
        ("1.32.2", &["mount-socket"], "has no --mount-socket"),
        ("1.32.2", &["image"], "has no --image"),
    ];
    for (version, without, why) in table {
        let mut fake = Fake::new();
        fake.version(version, without);
        refuses(&fake, 3, why);
        let ran = fake.host.sh("true");
        assert!(
            ran.stderr.contains("install smolvm 1.8.0 or newer"),
            "{}",
            ran.stderr
        );
        assert_eq!(fake.calls(), Vec::<String>::new(), "{version}");
    }
}

#[test]
fn versions_that_can_be_locked_are_used() {
    for (version, without) in [
        ("1.8.0", &["allow-host-pattern", "egress-interceptor"][..]),
        ("1.9.1", &["allow-host-pattern", "egress-interceptor"]),
        ("1.32.2", &[]),
    ] {
        let mut fake = Fake::new();
        fake.version(version, without);
        let ran = fake.host.sh("exit 9");
        assert_eq!(ran.code, 9, "{version}: {}", ran.stderr);
        fake.is_clean();
    }
}

#[test]
fn a_pack_is_used_where_there_is_a_way_to() {
    let mut fake = Fake::new();
    fake.pack();
    let ran = fake.host.sh("exit 9");
    assert_eq!(ran.code, 9, "{}", ran.stderr);
    fake.is_clean();

    let mut fake = Fake::new();
    fake.pack().version("1.32.2", &["from"]);
    refuses(&fake, 1, "has no --from");
    assert_eq!(fake.calls(), Vec::<String>::new());

    let mut fake = Fake::new();
    fake.pack();
    std::fs::write(fake.host.home.join("image.smolmachine"), "rubbish").unwrap();
    refuses(&fake, 1, "it is too short for a pack");
    assert_eq!(fake.calls(), Vec::<String>::new());
}

#[test]
fn rubbish_is_no_version() {
    for said in [
        "",
        "smolvm",
        "hello\n",
        "smolvm 1.32.2\nsmolvm 0.1.0\n",
        "smolvm 1.32.2-dirty\n",
    ] {
        let mut fake = Fake::new();
        fake.wish("says", json!(said));
        refuses(&fake, 3, "which is not the version of a smolvm");
        assert_eq!(fake.calls(), Vec::<String>::new());
    }
}

#[test]
fn channels_that_are_not_there_are_named() {
    for (channel, why) in [
        ("tsi", "the channel `tsi` is not available"),
        ("wormhole", "there are: socket, interceptor, cidr"),
        ("cidr", "BOT_BOTTLE_SMOLVM_ADDRESS is not set"),
    ] {
        let mut fake = Fake::new();
        fake.env("BOT_BOTTLE_SMOLVM_CHANNEL", channel);
        refuses(&fake, 3, why);
    }
}

#[test]
fn what_is_missing_is_said_with_its_remedy() {
    let mut fake = Fake::new();
    fake.env("PATH", "/usr/bin:/bin");
    refuses(&fake, 3, "there is no `smolvm` on PATH");

    let mut fake = Fake::new();
    fake.env("BOT_BOTTLE_SKIP_KVM_CHECK", "");
    let ran = fake.host.run(&["doctor"]);
    // Whatever this machine has of KVM, an ordinary user is told what to do about it, or it is fine.
    let line = ran
        .stdout
        .lines()
        .find(|line| line.contains("backend smolmachines"))
        .unwrap();
    if line.starts_with("missing") {
        assert!(line.contains("/dev/kvm"), "{line}");
        assert!(ran.stdout.contains("hint: "), "{}", ran.stdout);
    }

    let fake = Fake::new();
    fake.host.bottle(
        "sh",
        "agent_provider: {template: command, command: [sh, -c, \"{prompt}\"]}",
    );
    refuses(&fake, 3, "the bottle names no image for a machine");
}

/// Whatever smolvm makes of a request, a machine that is not as it was asked for does not start.
#[test]
fn a_row_that_differs_starts_no_machine() {
    for row in [
        json!({"network": true}),
        json!({"network_backend": "tsi"}),
        json!({"ports": [[8080, 80]]}),
        json!({"published_sockets": []}),
        json!({"mounts": []}),
        json!({"env": [["A", "b"]]}),
        json!({"allowed_cidrs": []}),
        json!({"egress_rules": ["0.0.0.0/0"]}),
        json!({"state": "running", "pid": 1}),
        json!({"ssh_agent": true}),
    ] {
        let mut fake = Fake::new();
        fake.wish("row", row.clone());
        refuses(&fake, 4, "smolvm's row of bot-bottle-sh-");
        assert!(fake.started().is_empty(), "{row}");
    }
}

/// What changes when the machine starts is seen before anything of the agent's is in it.
#[test]
fn a_row_that_changes_with_the_start_runs_no_agent() {
    for row in [
        json!({"network": true}),
        json!({"allowed_cidrs": ["0.0.0.0/0"]}),
    ] {
        let mut fake = Fake::new();
        fake.wish("running_row", row);
        refuses(&fake, 4, "smolvm's row of bot-bottle-sh-");
    }
}

/// The host's listener has heard something, whatever the guest says about it.
#[test]
fn what_the_host_hears_counts_and_not_what_the_guest_says() {
    let mut fake = Fake::new();
    fake.wish("leak", json!(true));
    refuses(&fake, 4, "heard the probe");
}

#[test]
fn a_check_that_fails_or_is_left_out_is_a_refusal() {
    for check in ["outside", "resolver", "identity"] {
        let mut fake = Fake::new();
        fake.wish("failed_check", json!(check));
        refuses(&fake, 4, &format!("{check}: as told"));
    }
    let mut fake = Fake::new();
    fake.wish("checks", json!(["sidecar"]));
    refuses(&fake, 4, "the probe did not report on `password`");
}

#[test]
fn a_guest_that_cannot_be_furnished_is_no_bottle() {
    let mut fake = Fake::new();
    fake.wish(
        "init_error",
        json!("prepare the image: /etc is on fire\u{1b}[2J"),
    );
    refuses(&fake, 1, "/etc is on fire");
    let ran = fake.host.sh("true");
    assert!(!ran.stderr.contains('\u{1b}'), "{:?}", ran.stderr);
}
