//! What a container holds against code that wants out.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::common::{Host, eventually};
use crate::engine::{self, docker, is_clean, slugs, things};

/// Runs the script and returns its output; the launcher must have confirmed the boundary first.
fn inside(host: &Host, script: &str) -> String {
    let ran = host.sh(script);
    assert!(
        ran.stderr
            .contains("locked: no route but the alias (probe passed 11/11)"),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    ran.stdout
}

#[test]
fn every_attack_of_the_demo_fails() {
    let (hosts, _turn) = engine::hosts();
    for host in hosts {
        let ran = host.run(&["start", "demo", "--backend", "docker"]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        assert!(
            ran.stdout.contains("attacks failed, all 3 controls passed"),
            "{}",
            ran.stdout
        );
        for bad in ["LEAKED", "BROKEN", "MISSING"] {
            assert!(!ran.stdout.contains(bad), "{}", ran.stdout);
        }
        is_clean(&host, &slugs(&host));
    }
}

#[test]
fn there_is_no_network_and_no_resolver() {
    let (hosts, _turn) = engine::hosts();
    for host in hosts {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let udp = UdpSocket::bind(("127.0.0.1", port)).unwrap();
        let lan = TcpListener::bind(("10.99.0.1", port));
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        let out = inside(
            &host,
            &format!(
                "ls /sys/class/net; wc -l < /proc/net/route; cat /etc/resolv.conf; \
                 for a in 127.0.0.1 127.0.0.17 10.99.0.1 192.168.0.1 172.17.0.1 169.254.169.254 192.0.2.1; do \
                   nc -w 1 $a {port} < /dev/null && echo reached $a; echo x | nc -u -w 1 $a {port}; done; \
                 nslookup example.com 127.0.0.11 > /dev/null 2>&1 && echo resolved; \
                 nc -w 1 127.0.0.16 9099 < /dev/null && echo the alias answers"
            ),
        );
        assert_eq!(out, "lo\n1\nthe alias answers\n");
        assert!(tcp.accept().is_err(), "the host's listener was reached");
        assert!(
            udp.recv_from(&mut [0; 8]).is_err(),
            "the host's socket was reached"
        );
        if let Ok(lan) = lan {
            lan.set_nonblocking(true).unwrap();
            assert!(lan.accept().is_err(), "the host's address was reached");
        }
    }
}

#[test]
fn the_agent_is_nobody_and_its_image_is_read_only() {
    let (hosts, _turn) = engine::hosts();
    for host in hosts {
        let out = inside(
            &host,
            "id -u; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | cut -f 2; \
             for p in / /bin /etc /dev /bot-bottle /sys /proc/sys/kernel /run/bot-bottle; do touch $p/x 2>/dev/null && echo wrote $p; done; \
             for p in /etc/passwd /etc/bot-bottle/ca.pem /bot-bottle/launcher /proc/sys/kernel/core_pattern; do (echo x >> $p) 2>/dev/null && echo wrote $p; done; \
             ls /var/run/docker.sock /run/docker.sock 2>/dev/null; \
             touch ~/x /tmp/x && echo scratch; whoami; echo from inside > file; ulimit -c",
        );
        let mut lines = out.lines();
        assert_ne!(lines.next(), Some("0"));
        let zero = "0000000000000000";
        let rest: Vec<_> = lines.collect();
        assert_eq!(rest[..7], [zero, zero, zero, zero, zero, "1", "2"], "{out}");
        assert_eq!(rest[7..9], ["scratch", "agent"], "{out}");
        assert_eq!(
            fs::read_to_string(host.workspace.join("file")).unwrap(),
            "from inside\n"
        );
    }
}

/// vsock leads to whoever runs this host as a VM, and no namespace fences it.
#[test]
fn our_filter_is_on_top_of_the_engines() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    // busybox has no way to ask; the demo's probe is one, and this is its detail.
    let running = host.start();
    let slug = host.bottles().remove(0);
    let info = host.run(&["info", &slug]);
    assert_eq!(info.code, 0, "{}", info.stderr);
    assert!(
        info.stdout.contains("probe      system calls: filtered"),
        "{}",
        info.stdout
    );
    assert_eq!(
        info.stdout.matches("\nprobe ").count(),
        11,
        "{}",
        info.stdout
    );
    running.signal(Signal::TERM);
    running.finish();
}

#[test]
fn only_the_proxy_is_published_and_on_the_alias_only() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    let running = host.start();
    let slug = host.bottles().remove(0);
    let ports = docker(&[
        "ps",
        "--filter",
        &format!("label=bot-bottle.slug={slug}"),
        "--format",
        "{{.Ports}}",
    ]);
    let ports: Vec<_> = ports.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(ports, ["127.0.0.16:9099->9099/tcp"]);
    let mut stream =
        TcpStream::connect_timeout(&"127.0.0.16:9099".parse().unwrap(), Duration::from_secs(5))
            .unwrap();
    stream
        .write_all(b"GET http://_egress.local/allowlist HTTP/1.1\r\nHost: _egress.local\r\n\r\n")
        .unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 407");
    running.signal(Signal::TERM);
    running.finish();
    is_clean(&host, &[slug]);
}

/// The sidecar's container has the same confinement, and a network of its own.
#[test]
fn both_containers_are_confined() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    let running = host.start();
    let slug = host.bottles().remove(0);
    for name in ["sidecar", "agent"] {
        let text = docker(&["inspect", &format!("bot-bottle-{slug}-{name}")]);
        let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
        let config = &shown[0]["HostConfig"];
        assert_eq!(config["ReadonlyRootfs"], true, "{name}");
        assert_eq!(config["Privileged"], false, "{name}");
        assert_eq!(config["CapDrop"], serde_json::json!(["ALL"]), "{name}");
        assert_eq!(config["CapAdd"], serde_json::Value::Null, "{name}");
        assert_eq!(
            config["SecurityOpt"],
            serde_json::json!(["no-new-privileges:true"]),
            "{name}"
        );
        assert!(config["Memory"].as_i64().unwrap() > 0, "{name}");
        assert!(config["PidsLimit"].as_i64().unwrap() > 0, "{name}");
        assert_ne!(shown[0]["Config"]["User"], "", "{name}");
        assert!(
            !shown[0]["Config"]["User"]
                .as_str()
                .unwrap()
                .starts_with("0:")
        );
        assert!(
            shown[0]["Image"].as_str().unwrap().starts_with("sha256:"),
            "{name}"
        );
        let mode = config["NetworkMode"].as_str().unwrap();
        if name == "agent" {
            assert_eq!(mode, "none");
        } else {
            assert_eq!(mode, format!("bot-bottle-{slug}"));
        }
        assert!(!text.contains("docker.sock"), "{name}");
    }
    let subnet = docker(&[
        "network",
        "inspect",
        &format!("bot-bottle-{slug}"),
        "--format",
        "{{(index .IPAM.Config 0).Subnet}}",
    ]);
    assert!(
        subnet.starts_with("192.168.") && subnet.trim().ends_with(".0/24"),
        "{subnet}"
    );
    running.signal(Signal::TERM);
    running.finish();
}

/// Not in what the engine shows, not in what it keeps on disk, not in a command line, not in our own files.
#[test]
fn secrets_are_nowhere_to_be_read() {
    let Some((mut host, _turn)) = engine::host() else {
        return;
    };
    const SECRET: &str = "real-token-value-0123456789"; // gitleaks:allow
    host.env.push(("REAL_TOKEN".into(), SECRET.into()));
    host.bottle(
        "sh",
        &engine::bottle(
            "egress:\n  routes:\n    - host: a.example\n      auth: {scheme: Bearer, token_ref: REAL_TOKEN}",
        ),
    );
    let running = host.start();
    let slug = host.bottles().remove(0);
    let own = things(&slug);
    assert_eq!(own.len(), 3, "{own:?}");
    for name in &own {
        assert!(!docker(&["inspect", name]).contains(SECRET), "{name}");
    }
    let sidecar = format!("bot-bottle-{slug}-sidecar");
    assert!(!docker(&["top", &sidecar, "-o", "pid,args"]).contains(SECRET));
    for place in [
        host.state.display().to_string(),
        docker(&["info", "--format", "{{.DockerRootDir}}"])
            .trim()
            .to_owned(),
    ] {
        let found = Command::new("grep")
            .args(["-rlsF", "--", SECRET, &place])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "in {place}");
    }
    let lines = Command::new("ps").args(["-eo", "args"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&lines.stdout).contains(SECRET));
    running.signal(Signal::TERM);
    running.finish();
    is_clean(&host, &[slug]);
}

#[test]
fn the_environment_is_the_images_and_ours() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    let out = inside(
        &host,
        "env; grep -c BEGIN /etc/bot-bottle/ca.pem; tail -n 1 $SSL_CERT_FILE; cmp $SSL_CERT_FILE /etc/ssl/certs/ca-certificates.crt && echo same; grep -c BEGIN $SSL_CERT_FILE",
    );
    for expected in [
        "FROM_THE_IMAGE=yes\n",
        "PATH=/image/bin:/bin\n",
        "HOME=/home/agent\n",
        "@127.0.0.16:9099\n",
        "NODE_EXTRA_CA_CERTS=/etc/bot-bottle/ca.pem\n",
        "\nsame\n",
        "-----END CERTIFICATE-----\n",
    ] {
        assert!(out.contains(expected), "{expected} is not in {out}");
    }
    for hidden in ["BOT_BOTTLE", "EGRESS_TOKEN", "DOCKER_HOST"] {
        assert!(!out.contains(hidden), "{hidden} is in {out}");
    }
}

/// The sidecar dies: the agent is offline, not free.
#[test]
fn without_its_sidecar_the_agent_is_offline() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    let script = "mktemp up.XXXXXX; while [ ! -e stop ]; do sleep 0.05; done; nc -w 1 127.0.0.16 9099 < /dev/null; \
                  printf 'GET http://_egress.local/allowlist HTTP/1.1\\r\\nHost: _egress.local\\r\\n\\r\\n' | nc -w 2 127.0.0.16 9099 > answer; wc -c < answer; ls /sys/class/net";
    let child = host
        .command(&["start", "sh", "--headless", "--prompt", script])
        .spawn()
        .unwrap();
    let running = crate::common::Running::of(child);
    let up = || {
        fs::read_dir(&host.workspace)
            .unwrap()
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("up."))
    };
    eventually("the bottle is not up", up);
    let slug = host.bottles().remove(0);
    docker(&["kill", &format!("bot-bottle-{slug}-sidecar")]);
    eventually("the sidecar lives", || things(&slug).len() < 3);
    fs::write(host.workspace.join("stop"), "").unwrap();
    let ran = running.finish();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.ends_with("0\nlo\n"), "{}", ran.stdout);
    assert!(
        ran.stderr
            .contains("the sidecar has ended: the agent is offline"),
        "{}",
        ran.stderr
    );
    is_clean(&host, &[slug]);
}
