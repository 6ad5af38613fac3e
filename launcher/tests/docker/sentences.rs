//! What a user reads when something is missing or wrong. Nothing is started by these.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;

use crate::common::Host;
use crate::engine;

const IMAGE: &str = "agent_provider: {template: command, command: [sh], image: no-such-image}";

fn start(host: &Host) -> (i32, String) {
    let ran = host.run(&[
        "start",
        "sh",
        "--headless",
        "--prompt",
        "x",
        "--backend",
        "docker",
    ]);
    assert_eq!(ran.stdout, "");
    assert_eq!(host.bottles(), Vec::<String>::new());
    (ran.code, ran.stderr)
}

#[test]
fn without_an_engine_the_remedy_is_said_and_nothing_weaker_is_used() {
    let mut host = Host::new();
    host.bottle("sh", IMAGE);
    let missing = host.home.join("no.sock");
    let cases = [
        (
            format!("unix://{}", missing.display()),
            "Docker is not running: there is no socket",
            "sudo systemctl start docker",
        ),
        (
            "tcp://127.0.0.1:1".to_owned(),
            "only an engine of this host can mount the workspace",
            "unix:///path/to/docker.sock",
        ),
        (
            format!("unix://{}", host.home.display()),
            "is not a socket",
            "set DOCKER_HOST",
        ),
    ];
    for (value, what, remedy) in cases {
        host.env = vec![("DOCKER_HOST".into(), value)];
        let (code, said) = start(&host);
        assert_eq!(code, 3, "{said}");
        assert!(
            said.contains("backend `docker` cannot run here") && said.contains(what),
            "{said}"
        );
        assert!(said.contains(remedy), "{said}");
    }
}

/// A socket that takes connections and says nothing.
#[test]
fn an_engine_that_hangs_is_said_in_time() {
    let mut host = Host::new();
    host.bottle("sh", IMAGE);
    let path = host.home.join("deaf.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    host.env = vec![
        ("DOCKER_HOST".into(), format!("unix://{}", path.display())),
        ("BOT_BOTTLE_DOCKER_TIMEOUT".into(), "1".into()),
    ];
    let (code, said) = start(&host);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("did not answer within 1 s"), "{said}");
}

#[test]
fn a_socket_that_one_may_not_use_names_the_group() {
    let mut host = Host::unprivileged();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    host.bottle("sh", IMAGE);
    let path = host.home.join("closed.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&path, Some(0), Some(0)).unwrap();
    host.env = vec![("DOCKER_HOST".into(), format!("unix://{}", path.display()))];
    let (code, said) = start(&host);
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains("you may not use the engine's socket")
            && said.contains("sudo usermod -aG docker $USER"),
        "{said}"
    );
}

#[test]
fn a_bottle_without_an_image_is_told_where_to_name_one() {
    let host = Host::new();
    let (code, said) = start(&host);
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains("the bottle names no image") && said.contains("`dockerfile: PATH`"),
        "{said}"
    );
    // Not asked for, it is no error: the weaker one is chosen, and the start says why.
    let mut host = Host::new();
    host.env.push(("BOT_BOTTLE_BACKEND".into(), "local".into()));
    let ran = host.run(&["start", "sh", "--headless", "--prompt", "true"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("backend local: namespaces"),
        "{}",
        ran.stderr
    );
}

#[test]
fn names_that_are_none_are_refused_in_a_sentence() {
    let host = Host::new();
    let long = "a".repeat(65);
    for name in ["a/b", "..", "a b", "ä", "A", "a\u{202e}b", "-a", &long] {
        let ran = host.run(&["start", "--backend", "docker", "--headless", "--", name]);
        assert_eq!(ran.code, 2, "{name}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("is not a name: use 1 to 40"),
            "{name}: {}",
            ran.stderr
        );
        assert!(!ran.stderr.contains('\u{202e}'));
    }
    for image in ["--privileged", "../x", "a b", "/etc", "ä"] {
        host.bottle(
            "sh",
            &format!("agent_provider: {{template: command, command: [sh], image: \"{image}\"}}"),
        );
        let (code, said) = start(&host);
        assert_eq!(code, 2, "{image}: {said}");
        assert!(
            said.contains("is not the name of an image"),
            "{image}: {said}"
        );
    }
    host.bottle(
        "sh",
        "agent_provider: {template: command, command: [sh], image: a, dockerfile: b}",
    );
    let (code, said) = start(&host);
    assert_eq!(code, 2);
    assert!(said.contains("exclude each other"), "{said}");
}

#[test]
fn what_the_engine_lacks_is_named() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    host.bottle("sh", IMAGE);
    let (code, said) = start(&host);
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains("the engine has no image `no-such-image`")
            && said.contains("docker pull no-such-image"),
        "{said}"
    );
    fs::create_dir_all(host.home.join(".bot-bottle/images/bad")).unwrap();
    fs::write(
        host.home.join(".bot-bottle/images/bad/Dockerfile"),
        "FROM scratch\nCOPY missing /\n",
    )
    .unwrap();
    host.bottle(
        "sh",
        "agent_provider: {template: command, command: [sh], dockerfile: ../images/bad/Dockerfile}",
    );
    let (code, said) = start(&host);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("was not built") && said.contains("missing"),
        "{said}"
    );
    engine::is_clean(&host, &engine::slugs(&host));
}

#[test]
fn a_missing_program_is_said() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    host.bottle(
        "sh",
        "agent_provider: {template: command, command: [no-such-agent], dockerfile: ../images/sh/Dockerfile}",
    );
    let ran = host.sh("x");
    assert_eq!(ran.code, 127);
    assert!(
        ran.stderr
            .contains("the program `no-such-agent` cannot be run")
            && ran.stderr.contains("put it into the image"),
        "{}",
        ran.stderr
    );
}

#[test]
fn an_agent_is_not_root() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    chown(&host.workspace, Some(0), Some(0)).unwrap();
    let (code, said) = start(&host);
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains("belongs to root") && said.contains("chown -R USER"),
        "{said}"
    );
}

#[test]
fn the_plan_shows_image_engine_and_reason() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    let plan = host.run(&["start", "sh", "--dry-run", "--headless", "--prompt", "x"]);
    for text in [
        "backend    docker: a container without network",
        "chosen     it was asked for",
        "image      built from ",
        "engine     Docker ",
        "runtime the engine's own",
    ] {
        assert!(plan.stdout.contains(text), "{text}: {}", plan.stdout);
    }
    let mut host = host;
    host.env.retain(|(name, _)| name != "BOT_BOTTLE_BACKEND");
    host.env.push(("BOT_BOTTLE_BACKEND".into(), String::new()));
    let plan = host.run(&["start", "sh", "--dry-run", "--headless", "--prompt", "x"]);
    assert!(
        plan.stdout
            .contains("chosen     the strongest that this host can run; an engine answers"),
        "{}{}",
        plan.stdout,
        plan.stderr
    );
}
