//! Containers that are not started or not used, and starts that are refused before there is one.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fake::Fake;

fn refuses(fake: &Fake, code: i32, says: &str) -> String {
    let ran = fake.host.sh("echo the agent ran");
    assert_eq!(ran.code, code, "{says}: {}", ran.stderr);
    assert!(ran.stderr.contains(says), "{says}: {}", ran.stderr);
    assert!(!ran.stdout.contains("the agent ran"));
    fake.is_clean();
    ran.stderr
}

#[test]
fn on_another_system_it_says_what_to_use() {
    let mut fake = Fake::new();
    fake.env("BOT_BOTTLE_SKIP_MACOS_CHECK", "");
    let said = refuses(&fake, 3, "which is for macOS, and this is linux");
    assert!(said.contains("hint: use --backend local"), "{said}");
    let doctor = fake.host.run(&["doctor"]).stdout;
    assert!(
        doctor.contains("note     backend macos-container: it is Apple's `container`"),
        "{doctor}"
    );
    // Nothing of the program that happens to be there was called.
    assert_eq!(fake.verbs(), Vec::<String>::new());
}

#[test]
fn versions_that_nobody_knows_are_refused_with_what_to_install() {
    let release = |version: &str| {
        format!("container CLI version {version} (build: release, commit: 0190097)\n")
    };
    for (said, why) in [
        (release("0.12.3"), "version 0.12.3 is older than 1.1.0"),
        (release("1.0.0"), "version 1.0.0 is older than 1.1.0"),
        (
            release("2.0.0"),
            "version 2.0.0 is newer than this launcher knows",
        ),
        (release("1.2"), "not the version of a release"),
        (release("1.2.2-dev"), "not the version of a release"),
        (
            "container CLI version 1.2.2 (build: debug, commit: 0190097)\n".into(),
            "not the version of a release",
        ),
        (String::new(), "not the version of a release"),
        ("hello\u{1b}[2J\n".into(), "not the version of a release"),
        (
            "podman version 5.0.0\n".into(),
            "not the version of a release",
        ),
    ] {
        let mut fake = Fake::new();
        fake.wish("says", json!(said));
        let stderr = refuses(&fake, 3, why);
        assert!(
            stderr.contains("hint: install `container` 1.1.0 or a newer 1.x"),
            "{stderr}"
        );
        assert!(!stderr.contains('\u{1b}'), "{stderr:?}");
        assert_eq!(fake.verbs(), Vec::<String>::new(), "{said}");
    }
    for version in ["1.1.0", "1.2.2", "1.30.0"] {
        let mut fake = Fake::new();
        fake.wish("version", json!(version));
        assert_eq!(fake.host.sh("exit 9").code, 9, "{version}");
        fake.is_clean();
    }
}

#[test]
fn what_is_missing_is_said_with_its_remedy() {
    let mut fake = Fake::new();
    fake.env("PATH", "/usr/bin:/bin");
    refuses(&fake, 3, "there is no `container` on PATH");

    for (key, value, says) in [
        ("services", json!("unregistered"), "status \"unregistered\""),
        ("services", json!("not running"), "status \"not running\""),
    ] {
        let mut fake = Fake::new();
        fake.wish(key, value);
        let said = refuses(&fake, 3, says);
        assert!(said.contains("hint: `container system start`"), "{said}");
    }
    for (service, says) in [
        (
            "container-apiserver version 1.1.0 (build: release, commit: 0190097)",
            "its services are of version 1.1.0, and it is 1.2.2",
        ),
        ("who knows", "its services: it says \"who knows\""),
    ] {
        let mut fake = Fake::new();
        fake.wish("service", json!(service));
        let said = refuses(&fake, 3, says);
        assert!(said.contains("`container system stop`"), "{said}");
    }

    let fake = Fake::new();
    fake.host.bottle(
        "sh",
        "agent_provider: {template: command, command: [sh, -c, \"{prompt}\"]}",
    );
    refuses(&fake, 3, "the bottle names no image for a machine");
}

/// A program that answers nothing, or nonsense, or is killed.
#[test]
fn a_program_that_is_not_what_it_should_be_is_refused() {
    for script in [
        "#!/bin/sh\nexit 3\n",
        "#!/bin/sh\nkill -9 $$\n",
        "#!/bin/sh\nyes\n",
        "#!/bin/sh\necho 'container CLI version 1.2.2 (build: release, commit: 0190097)'\n",
        "not even a script",
    ] {
        let fake = Fake::new();
        fs::write(fake.program(), script).unwrap();
        let ran = fake.host.sh("echo the agent ran");
        assert_eq!(ran.code, 3, "{script}: {}", ran.stderr);
        assert!(ran.stderr.contains("hint: "), "{script}: {}", ran.stderr);
        fake.is_clean();
    }
}

/// Whatever is made of a request, a container that is not as it was asked for does not start.
#[test]
fn a_description_that_differs_starts_no_container() {
    let attachment = json!([{"network": "default", "options": {"hostname": "x"}}]);
    let mount =
        json!([{"type": {"virtiofs": {}}, "source": "/", "destination": "/host", "options": []}]);
    for configuration in [
        json!({"networks": attachment}),
        json!({"networks": "nothing"}),
        json!({"dns": {"nameservers": ["1.1.1.1"], "searchDomains": [], "options": []}}),
        json!({"ssh": true}),
        json!({"mounts": mount}),
        json!({"mounts": []}),
        json!({"publishedPorts": [{"hostPort": 80}]}),
        json!({"publishedSockets": [{"hostPath": "/s"}]}),
        json!({"image": {"reference": "docker.io/library/alpine:latest"}}),
        json!({"image": {"descriptor": {"digest": "sha256:00"}}}),
        json!({"capAdd": ["ALL"]}),
        json!({"virtualization": true}),
        json!({"egress": "open"}),
    ] {
        let mut fake = Fake::new();
        fake.wish("configuration", configuration.clone());
        let said = refuses(&fake, 4, "the container bot-bottle-sh-");
        assert!(said.contains(", and not "), "{said}");
        assert!(fake.started().is_empty(), "{configuration}");
    }
    for said in ["", "[]", "{}", "rubbish\u{1b}[2J", "[{}, {}]"] {
        let mut fake = Fake::new();
        fake.wish("inspect", json!(said));
        let stderr = refuses(&fake, 4, "what `container inspect` says");
        assert!(!stderr.contains('\u{1b}'), "{stderr:?}");
        assert!(fake.started().is_empty(), "{said}");
    }
}

/// What changes when it starts is seen before anything of the agent's is in it.
#[test]
fn a_description_that_changes_with_the_start_runs_no_agent() {
    let attachment = json!([{"network": "default", "ipv4Address": "192.168.64.3/24"}]);
    for running in [
        json!({"status": {"networks": attachment}}),
        json!({"status": {"state": "stopping"}}),
        json!({"configuration": {"ssh": true}}),
        json!({"configuration": {"networks": attachment}}),
    ] {
        let mut fake = Fake::new();
        fake.wish("running", running.clone());
        refuses(&fake, 4, "the container bot-bottle-sh-");
        let execs = fake.verbs().iter().filter(|verb| *verb == "exec").count();
        assert_eq!(execs, 0, "{running}");
    }
}

/// One that is never listed as running, whatever its guest says.
#[test]
fn a_container_that_does_not_run_is_no_bottle() {
    let mut fake = Fake::new();
    fake.env("BOT_BOTTLE_CONTAINER_TIMEOUT", "3")
        .wish("late", json!(60));
    refuses(&fake, 4, "it does not run yet");
}

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
    let why = "prepare the image: hide processes: Operation not permitted\u{1b}[2J";
    fake.wish("init_error", json!(why));
    let said = refuses(&fake, 1, "hide processes: Operation not permitted");
    assert!(!said.contains('\u{1b}'), "{said:?}");
}

/// Each call has a deadline; a lock that cannot be read back is none.
#[test]
fn calls_that_hang_end_the_start() {
    for (verb, code, says) in [
        (
            "image load",
            1,
            "could not load the image: it was not done after 5 s",
        ),
        (
            "create",
            1,
            "could not create the container: it was not done after 5 s",
        ),
        (
            "inspect",
            4,
            "could not describe its container: it was not done after 5 s",
        ),
        ("start", 1, "its first process says nothing"),
    ] {
        let mut fake = Fake::new();
        fake.env("BOT_BOTTLE_CONTAINER_TIMEOUT", "5")
            .wish("hangs", json!(verb));
        let since = Instant::now();
        let ran = fake.host.sh("echo the agent ran");
        assert_eq!(ran.code, code, "{verb}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{verb}: {}", ran.stderr);
        assert!(since.elapsed() < Duration::from_secs(120), "{verb}");
        fake.wish("hangs", Value::Null);
        fake.is_clean();
    }
}

#[test]
fn an_image_that_no_machine_can_be_made_of_is_refused() {
    let fake = Fake::new();
    fs::write(fake.host.home.join("image.tar"), "no archive").unwrap();
    refuses(&fake, 1, "the image's archive");
    fake.image("s390x");
    refuses(&fake, 1, "the image is for s390x, and machines here are ");
    assert_eq!(fake.verbs(), Vec::<String>::new());
}
