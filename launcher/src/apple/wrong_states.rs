//! Descriptions of containers that are not as they were asked for: each is refused, and says why.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::demand::{CAPABILITIES, Demand, Image, Moment, Refusal};
use crate::vm::share::Share;

fn demand() -> Demand {
    let share = |host: &str, guest: &str, read_only| Share {
        host: PathBuf::from(host),
        guest: guest.into(),
        read_only,
    };
    Demand {
        name: "bot-bottle-dev-00000a".into(),
        image: Image {
            reference: "bot-bottle.invalid/machine:dev-00000a".into(),
            digest: format!("sha256:{}", "1".repeat(64)),
            architecture: "arm64".into(),
        },
        shares: vec![
            share("/Users/me/state/parts", "/bot-bottle", true),
            share("/Users/me/work", "/Users/me/work", false),
        ],
        socket: (
            PathBuf::from("/Users/me/state/run/egress.sock"),
            "/run/bot-bottle/egress.sock",
        ),
        labels: BTreeMap::from([
            ("bot-bottle.owner".into(), "1:2:3:4".into()),
            ("bot-bottle.slug".into(), "dev-00000a".into()),
            ("bot-bottle.uid".into(), "501".into()),
        ]),
        command: vec!["/bot-bottle/launcher".into(), "__machine-init".into()],
        cpus: 4,
        memory: 4096,
    }
}

/// As `container inspect` of 1.2.2 prints it (`ManagedContainer`, and Swift's way with enums).
fn described(state: &str) -> Value {
    let mount = |source: &str, destination: &str, options: Value| {
        json!({
            "type": {"virtiofs": {}}, "source": source, "destination": destination, "options": options,
        })
    };
    json!([{
        "id": "bot-bottle-dev-00000a",
        "configuration": {
            "id": "bot-bottle-dev-00000a",
            "image": {
                "reference": "bot-bottle.invalid/machine:dev-00000a",
                "descriptor": {
                    "mediaType": "application/vnd.oci.image.index.v1+json",
                    "digest": format!("sha256:{}", "1".repeat(64)),
                    "size": 300,
                    "annotations": {"io.containerd.image.name": "bot-bottle.invalid/machine:dev-00000a"},
                },
            },
            "mounts": [
                mount("/Users/me/state/parts", "/bot-bottle", json!(["ro"])),
                mount("/Users/me/work", "/Users/me/work", json!([])),
                mount("/Users/me/state/run/egress.sock", "/run/bot-bottle/egress.sock", json!([])),
            ],
            "publishedPorts": [],
            "publishedSockets": [],
            "labels": {
                "bot-bottle.owner": "1:2:3:4", "bot-bottle.slug": "dev-00000a", "bot-bottle.uid": "501",
            },
            "sysctls": {},
            "networks": [],
            "rosetta": false,
            "initProcess": {
                "executable": "/bot-bottle/launcher", "arguments": ["__machine-init"], "environment": [],
                "workingDirectory": "/", "terminal": false, "user": {"id": {"uid": 0, "gid": 0}},
                "supplementalGroups": [], "rlimits": [],
            },
            "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"},
            "resources": {"cpus": 4, "memoryInBytes": 4_294_967_296_u64, "cpuOverhead": 1},
            "runtimeHandler": "container-runtime-linux",
            "virtualization": false,
            "ssh": false,
            "readOnly": false,
            "useInit": true,
            "capAdd": CAPABILITIES,
            "capDrop": ["ALL"],
            "creationDate": "2026-11-26T03:00:00Z",
        },
        "status": {"state": state, "networks": []},
    }])
}

/// `described`, but for what the pointer leads to; nothing there takes it away.
fn changed(state: &str, pointer: &str, value: &Value) -> String {
    let mut said = described(state);
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = said.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(items) => items.push(value.clone()),
        parent => {
            let parent = parent.as_object_mut().unwrap();
            if value == "nothing" {
                parent.remove(key).unwrap();
            } else {
                parent.insert(key.to_owned(), value.clone());
            }
        }
    }
    said.to_string()
}

#[test]
fn what_was_asked_for_is_taken() {
    let demand = demand();
    let check = |said: &str, moment| demand.check(said, moment);
    let stopped = described("stopped").to_string();
    let running = described("running").to_string();
    assert_eq!(check(&stopped, Moment::BeforeStart), Ok(()));
    assert_eq!(check(&running, Moment::Running), Ok(()));
    // Answered by the guest sooner than listed.
    assert_eq!(check(&stopped, Moment::Running), Err(Refusal::NotYet));
    assert!(check(&running, Moment::BeforeStart).is_err());
    let started = changed(
        "running",
        "/0/status/startedDate",
        &json!("2026-11-26T03:00:01Z"),
    );
    assert_eq!(check(&started, Moment::Running), Ok(()));
    // As an older one says that there is none.
    let silent = changed("stopped", "/0/configuration/dns", &Value::Null);
    assert_eq!(check(&silent, Moment::BeforeStart), Ok(()));
}

#[test]
fn each_difference_is_refused() {
    let network = json!({"network": "default", "options": {"hostname": "bot-bottle-dev-00000a"}});
    let attachment =
        json!({"network": "default", "hostname": "x", "ipv4Address": "192.168.64.3/24"});
    let mount = json!({"type": {"virtiofs": {}}, "source": "/Users/me", "destination": "/me", "options": []});
    let port = json!({"hostAddress": "0.0.0.0", "hostPort": 80, "containerPort": 80, "proto": "tcp", "count": 1});
    let table: Vec<(&str, Value)> = vec![
        ("/0/id", json!("another")),
        ("/0/more", json!(1)),
        ("/0/status", json!("running")),
        ("/0/status/networks", json!([attachment])),
        ("/0/status/networks", json!("nothing")),
        ("/0/status/state", json!("stopping")),
        ("/0/status/state", json!("unknown")),
        ("/0/status/more", json!(true)),
        ("/0/configuration", json!("nothing")),
        ("/0/configuration/id", json!("another")),
        ("/0/configuration/networks", json!([network])),
        ("/0/configuration/networks", json!("nothing")),
        ("/0/configuration/networks", Value::Null),
        (
            "/0/configuration/dns",
            json!({"nameservers": ["1.1.1.1"], "searchDomains": [], "options": []}),
        ),
        ("/0/configuration/publishedPorts", json!([port])),
        (
            "/0/configuration/publishedSockets",
            json!([{"containerPath": "/s", "hostPath": "/s"}]),
        ),
        ("/0/configuration/ssh", json!(true)),
        ("/0/configuration/ssh", json!("nothing")),
        ("/0/configuration/mounts/-", mount),
        ("/0/configuration/mounts", json!([])),
        ("/0/configuration/labels", json!({})),
        (
            "/0/configuration/sysctls",
            json!({"net.ipv4.ip_forward": "1"}),
        ),
        ("/0/configuration/virtualization", json!(true)),
        ("/0/configuration/rosetta", json!(true)),
        (
            "/0/configuration/runtimeHandler",
            json!("container-runtime-other"),
        ),
        ("/0/configuration/useInit", json!(false)),
        ("/0/configuration/capAdd", json!(["ALL"])),
        ("/0/configuration/capDrop", json!([])),
        ("/0/configuration/maskedPaths", json!([])),
        ("/0/configuration/readonlyPaths", json!([])),
        ("/0/configuration/egress", json!("open")),
        ("/0/configuration/image", json!("alpine")),
        (
            "/0/configuration/image/reference",
            json!("docker.io/library/alpine:latest"),
        ),
        (
            "/0/configuration/image/descriptor/digest",
            json!(format!("sha256:{}", "2".repeat(64))),
        ),
        (
            "/0/configuration/initProcess/environment",
            json!(["LD_PRELOAD=/evil.so"]),
        ),
        ("/0/configuration/initProcess/executable", json!("/evil")),
        (
            "/0/configuration/initProcess/user",
            json!({"raw": {"userString": "0"}}),
        ),
        ("/0/configuration/platform/architecture", json!("amd64")),
        ("/0/configuration/resources/memoryInBytes", json!(4096)),
        ("/0/configuration/resources/cpus", json!(64)),
    ];
    for (pointer, value) in table {
        let said = changed("running", pointer, &value);
        let refusal = demand().check(&said, Moment::Running);
        assert!(
            matches!(refusal, Err(Refusal::Differs(_))),
            "{pointer} {value}: {refusal:?}"
        );
    }
}

#[test]
fn rubbish_is_refused_and_shown_harmlessly() {
    let mut two = described("running");
    let one = two[0].clone();
    two.as_array_mut().unwrap().push(one);
    for said in [
        "",
        "[]",
        "{}",
        "null",
        "[1]",
        "Error: notFound",
        "\u{1b}[2J[",
        &two.to_string(),
        // As versions before 1.0 print it.
        r#"[{"status":"running","networks":[],"configuration":{"id":"bot-bottle-dev-00000a"}}]"#,
    ] {
        let refusal = demand()
            .check(said, Moment::Running)
            .unwrap_err()
            .to_string();
        assert!(!refusal.contains('\u{1b}'), "{refusal:?}");
        assert!(refusal.contains(", and not "), "{refusal}");
        assert!(refusal.len() < 700, "{refusal}");
    }
}

#[test]
fn the_command_line_is_whole() {
    let line = demand().create().join(" ");
    assert_eq!(
        line,
        "create --name bot-bottle-dev-00000a --label bot-bottle.owner=1:2:3:4 --label bot-bottle.slug=dev-00000a \
         --label bot-bottle.uid=501 --platform linux/arm64 --cpus 4 --memory 4096M --network none --uid 0 --gid 0 \
         --workdir / --cap-drop ALL --cap-add CAP_CHOWN --cap-add CAP_DAC_OVERRIDE --cap-add CAP_FOWNER \
         --cap-add CAP_KILL --cap-add CAP_SETGID --cap-add CAP_SETPCAP --cap-add CAP_SETUID --cap-add CAP_SYS_ADMIN \
         --volume /Users/me/state/parts:/bot-bottle:ro --volume /Users/me/work:/Users/me/work \
         --volume /Users/me/state/run/egress.sock:/run/bot-bottle/egress.sock --no-dns --init \
         bot-bottle.invalid/machine:dev-00000a /bot-bottle/launcher __machine-init"
    );
}
