//! What a bottle holds against code that wants out. Each attack runs in a real bottle, as root and as an ordinary user.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use common::Host;

/// Runs the script and returns its output; the launcher must have confirmed the boundary first.
fn inside(host: &Host, script: &str) -> String {
    let ran = host.sh(script);
    assert!(
        ran.stderr
            .contains("locked: no route but the alias (probe passed"),
        "{}",
        ran.stderr
    );
    ran.stdout
}

#[test]
fn the_host_is_not_there() {
    for host in Host::all() {
        fs::write(host.home.join("secret"), "the secret").unwrap();
        let home = host.home.display();
        let state = host.state.display();
        let out = inside(
            &host,
            &format!(
                "ls -d {home} {state} /root/.bashrc /etc/shadow /etc/ssh /var/lib /boot /sys/kernel /dev/mem /dev/kvm /run/user 2>/dev/null; ls /home /root /run"
            ),
        );
        assert_eq!(out, "/home:\nagent\n\n/root:\n\n/run:\n");
    }
}

#[test]
fn the_agent_is_nobody() {
    for host in Host::all() {
        let out = inside(
            &host,
            "id -u; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | cut -f 2",
        );
        let mut lines = out.lines();
        assert_ne!(lines.next(), Some("0"));
        let zero = "0000000000000000";
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [zero, zero, zero, zero, zero, "1", "2"]
        );
    }
}

#[test]
fn only_its_own_processes() {
    for host in Host::all() {
        let out = inside(
            &host,
            "for p in /proc/[0-9]*; do cat $p/comm; done | sort -u | tr '\\n' ' '; ls /proc/1 2>&1",
        );
        let (names, first) = out.split_once("ls: ").unwrap();
        assert!(
            names
                .split(' ')
                .all(|name| ["", "cat", "sh", "sort", "tr"].contains(&name)),
            "{out}"
        );
        assert!(first.contains("No such file"), "{out}");
    }
}

#[test]
fn the_workspace_is_writable_and_nothing_else() {
    for host in Host::all() {
        let out = inside(
            &host,
            "echo from inside > file; mkdir d; for p in / /usr /opt /etc /dev /sys /proc/sys/kernel /root; do touch $p/x 2>/dev/null && echo wrote $p; done; for p in /proc/sys/kernel/core_pattern /etc/passwd /etc/bot-bottle/ca.pem /usr/bin/env; do (echo x >> $p) 2>/dev/null && echo wrote $p; chmod 777 $p 2>/dev/null && echo changed $p; done; touch ~/x /tmp/x && echo scratch",
        );
        assert_eq!(out, "scratch\n");
        assert_eq!(
            fs::read_to_string(host.workspace.join("file")).unwrap(),
            "from inside\n"
        );
        assert!(host.workspace.join("d").is_dir());
    }
}

/// A set-user-id program of the workspace or of the system gives nothing.
#[test]
fn set_user_id_has_no_effect() {
    let host = Host::new();
    let copy = host.workspace.join("id");
    fs::copy("/usr/bin/id", &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).unwrap();
    assert_ne!(inside(&host, "./id -u"), "0\n");
}

#[test]
fn there_is_no_network_but_the_alias() {
    for host in Host::all() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let out = inside(
            &host,
            &format!(
                "wc -l < /proc/net/route; grep -c : /proc/net/dev; bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' 2>/dev/null && echo reached; bash -c 'exec 3<>/dev/tcp/192.0.2.1/80' 2>/dev/null && echo out; bash -c 'echo x > /dev/udp/8.8.8.8/53' 2>/dev/null && echo sent; bash -c 'exec 3<>/dev/tcp/127.0.0.16/9099 && echo alias'"
            ),
        );
        assert!(out.starts_with("1\n") && out.ends_with("alias\n"), "{out}");
        for word in ["reached", "out", "sent"] {
            assert!(!out.contains(word), "{out}");
        }
        assert!(
            listener.accept().is_err(),
            "the host's listener was reached"
        );
    }
}

/// Files that whoever started the launcher had open are not the agent's.
#[test]
fn inherited_descriptors_are_closed() {
    let host = Host::new();
    fs::write(host.home.join("secret"), "the secret").unwrap();
    let kept = fs::File::open(host.home.join("secret")).unwrap();
    rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::empty()).unwrap();
    let out = inside(&host, "ls -l /proc/self/fd | grep -c -e secret -e socket");
    assert_eq!(out, "0\n");
}

/// System calls that are no namespace's business, by number: needs a language that can make them.
#[test]
fn dangerous_system_calls_are_refused() {
    if !fixtures::require::require("perl", fixtures::require::program("perl").is_some())
        || !cfg!(target_arch = "x86_64")
    {
        return;
    }
    const ATTACKS: &str = r#"
use strict; use Socket;
sub attack { my ($name, $worked) = @_; print "$name\n" if $worked; }
sub call { my ($name, @arguments) = @_; my $r = syscall($arguments[0], @arguments[1..$#arguments]); attack($name, defined $r && $r >= 0); }
for my $flag (0x10000000, 0x40000000, 0x20000, 0x20000000, 0x08000000, 0x04000000, 0x02000000, 0x80) { call("unshare $flag", 272, $flag); }
for my $flag (0x10000000, 0x40000000, 0x20000) { my $r = syscall(56, $flag | 17, 0, 0, 0, 0); exit if defined $r && $r == 0; attack("clone $flag", $r > 0); }
call("clone3", 435, 0, 0); print "clone3 must look missing, not forbidden\n" if $! != 38;
call("x32", 0x40000000 | 39);
call("mount", 165, "none", "/tmp", "tmpfs", 0, 0); call("umount", 166, "/proc/sys", 2); call("pivot_root", 155, "/", "/");
call("open_tree", 428, -100, "/", 1); call("fsopen", 430, "proc", 0); call("mount_setattr", 442, -100, "/", 0, "\0" x 32, 32);
call("io_uring", 425, 1, "\0" x 120); call("bpf", 321, 0, "\0" x 64, 64); call("keyctl", 250, 0, -3, 0);
call("add_key", 248, "user", "x", "y", 1, -3); call("userfaultfd", 323, 0); call("perf", 298, "\0" x 128, 0, -1, -1, 0);
call("name_to_handle_at", 303, -100, "/usr", pack("II", 64, 0) . "\0" x 64, "\0" x 8, 0);
call("ptrace init", 101, 16, 1, 0, 0); call("setuid", 105, 0);
call("core limit", 302, 0, 4, pack("QQ", 0, 0), 0);
call("device", 133, "./device", 0060666, 0xfe00); call("device in tmp", 133, "/tmp/device", 0020666, 0x0101);
my ($s, $t);
for my $family (40, 17, 38, 31, 29, 44, 9) { for my $type (1, 2, 3, 5) { attack("family $family", socket($s, $family, $type, 0)); } }
attack("vsock pair", socketpair($s, $t, 40, 1, 0));
for my $protocol (4, 9, 12, 15, 16) { attack("netlink $protocol", socket($s, 16, 3, $protocol)); }
attack("sctp", socket($s, 2, 1, 132)); attack("raw", socket($s, 2, 3, 1));
my $b = "x"; attack("TIOCSTI", ioctl(STDIN, 0x5412, $b)); print "TIOCSTI must be filtered\n" if $! != 1;
$b = "\6"; attack("TIOCLINUX", ioctl(STDIN, 0x541c, $b)); print "TIOCLINUX must be filtered\n" if $! != 1;
my $high = "x"; syscall(16, 0, 0x100005412, $high); print "TIOCSTI with high bits must be filtered\n" if $! != 1;
print "done\n";
"#;
    for host in Host::all() {
        fs::write(host.workspace.join("attacks.pl"), ATTACKS).unwrap();
        assert_eq!(inside(&host, "perl attacks.pl 2>/dev/null"), "done\n");
    }
}

/// The demo's agent, and a helper before it becomes the agent, run the launcher's own file: it must not be writable
/// through `/proc/PID/exe` (CVE-2019-5736).
#[test]
fn the_launchers_file_cannot_be_overwritten() {
    let host = Host::new();
    let script = host.workspace.join("agent");
    fs::write(&script, "#!/proc/self/exe __demo-agent\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let before = fs::metadata(env!("CARGO_BIN_EXE_launcher"))
        .unwrap()
        .modified()
        .unwrap();
    host.bottle(
        "sh",
        "agent_provider: {template: command, command: [./agent]}",
    );
    let ran = host.sh("x");
    assert_ne!(ran.code, 0);
    assert_eq!(
        fs::metadata(env!("CARGO_BIN_EXE_launcher"))
            .unwrap()
            .modified()
            .unwrap(),
        before
    );
}

#[test]
fn secrets_are_where_they_belong() {
    let mut host = Host::new();
    host.env
        .push(("REAL_TOKEN".into(), "real-token-value-0123456789".into()));
    host.env
        .push(("UNRELATED".into(), "unrelated-value".into()));
    host.bottle(
        "sh",
        "agent_provider: {template: command, command: [sh, -c, \"{prompt}\"]}\nenv: {PLAIN: text}\negress:\n  routes:\n    - host: a.example\n      auth: {scheme: Bearer, token_ref: REAL_TOKEN}",
    );
    let out = inside(&host, "env; cat /proc/self/cmdline | tr '\\0' ' '");
    assert!(
        out.contains("PLAIN=text\n") && out.contains("HOME=/home/agent\n"),
        "{out}"
    );
    assert!(
        out.contains("HTTPS_PROXY=http://bottle:") && out.contains("@127.0.0.16:9099\n"),
        "{out}"
    );
    for hidden in [
        "real-token",
        "REAL_TOKEN",
        "UNRELATED",
        "EGRESS_TOKEN",
        "BOT_BOTTLE",
    ] {
        assert!(!out.contains(hidden), "{hidden} is in {out}");
    }
}

#[test]
fn mounts_are_shown_read_only() {
    for host in Host::all() {
        let tools = host.home.join("tools");
        fs::create_dir(&tools).unwrap();
        fs::write(tools.join("tool"), "#!/bin/sh\necho the tool\n").unwrap();
        fs::set_permissions(tools.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(host.home.join("secret"), "the secret").unwrap();
        host.bottle(
            "sh",
            &format!(
                "agent_provider: {{template: command, command: [sh, -c, \"{{prompt}}\"]}}\nmounts: [~/tools]\nenv: {{PATH: \"{}:/usr/bin:/bin\"}}",
                tools.display()
            ),
        );
        let out = inside(
            &host,
            &format!(
                "tool; ls {}; touch {}/x 2>/dev/null && echo wrote",
                host.home.display(),
                tools.display()
            ),
        );
        assert_eq!(out, "the tool\ntools\n");
    }
}

#[test]
fn certificates_and_identity_are_in_place() {
    let host = Host::new();
    host.agent(
        "sh",
        "bottle: sh\ngit: {user: {name: \"A \\\"B\\\"\", email: a@example.com}}",
        "",
    );
    let out = inside(
        &host,
        "grep -c BEGIN /etc/bot-bottle/ca.pem; cat $SSL_CERT_FILE | tail -n 3 | grep -c END; hostname; cat /etc/resolv.conf; grep -A2 user /etc/gitconfig",
    );
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("1"));
    assert_eq!(lines.next(), Some("1"));
    assert!(lines.next().unwrap().starts_with("sh-"));
    assert_eq!(
        lines.collect::<Vec<_>>(),
        [
            "[user]",
            "\tname = \"A \\\"B\\\"\"",
            "\temail = \"a@example.com\""
        ]
    );
}

#[test]
fn what_is_refused_is_recorded_and_explained() {
    if !fixtures::require::require("curl", fixtures::require::program("curl").is_some()) {
        return;
    }
    let host = Host::new();
    let out = inside(
        &host,
        "curl -s -o /dev/null -w '%{http_connect}' https://blocked.example/ ; true",
    );
    assert_eq!(out, "403");
    let log = host.run(&["log", "--blocked", "sh"]);
    let line = log
        .stdout
        .lines()
        .find(|line| line.contains("blocked.example"))
        .unwrap();
    let event = line
        .split_ascii_whitespace()
        .find(|word| word.starts_with("evt_"))
        .unwrap();
    let why = host.run(&["why", event]);
    assert_eq!(why.code, 0, "{}", why.stderr);
    assert!(
        why.stdout.contains("host-not-allowed")
            && why.stdout.contains("- host: \"blocked.example\""),
        "{}",
        why.stdout
    );
}

#[test]
fn a_file_cannot_be_given_its_owners_rights() {
    for host in Host::all() {
        let said = inside(
            &host,
            "cp /bin/sh s; chmod 4755 s; chmod g+s s; python3 -c 'import os; os.open(\"t\", os.O_CREAT | os.O_WRONLY, 0o4755)'; touch plain && chmod 700 plain && echo plain works; true",
        );
        assert!(said.contains("plain works"), "{said}");
        for name in ["s", "t"] {
            let mode =
                fs::metadata(host.workspace.join(name)).map_or(0, |meta| meta.permissions().mode());
            assert_eq!(mode & 0o6000, 0, "{name}: {mode:o}");
        }
    }
}

#[test]
fn a_workspace_is_what_it_is_called() {
    let host = Host::new();
    let keys = host.home.join(".ssh");
    fs::create_dir(&keys).unwrap();
    symlink(&keys, host.workspace.join("pkg")).unwrap();
    let start = |workspace: &str| {
        host.run(&[
            "start",
            "sh",
            "--headless",
            "--prompt",
            "ls",
            "--workspace",
            workspace,
        ])
    };
    for workspace in ["pkg", keys.to_str().unwrap()] {
        let ran = start(workspace);
        assert_eq!(ran.code, 2, "{workspace}: {}{}", ran.stdout, ran.stderr);
    }
    let _listener = std::os::unix::net::UnixListener::bind(host.workspace.join("d.sock")).unwrap();
    let ran = start(".");
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("d.sock"), "{}", ran.stderr);
}

#[test]
fn a_repositorys_agent_is_not_a_link() {
    let host = Host::new();
    let diary = host.home.join("diary.md");
    fs::write(&diary, "---\n---\nprivate\n").unwrap();
    let agents = host.workspace.join(".bot-bottle/agents");
    fs::create_dir_all(&agents).unwrap();
    symlink(&diary, agents.join("dev.md")).unwrap();
    let ran = host.run(&[
        "start",
        "dev",
        "--bottle",
        "sh",
        "--headless",
        "--prompt",
        "id",
    ]);
    assert_eq!(ran.code, 2, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("symbolic link"), "{}", ran.stderr);
}
