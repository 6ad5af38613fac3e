//! Machines that are made of packs (`machine create --from`). Before 1.8.0 smolvm loses the list of such a machine, with
//! its network and its filter of names: it is written into the row, or no machine starts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use serde_json::{Map, Value, json};

use crate::common::{Host, Running, eventually};
use crate::{BIN, demo, host, left, machines, step};

/// What is lost with the list.
const LOST: [&str; 3] = ["allowed_cidrs", "dns_filter_hosts", "network"];

/// A host whose smolvm tells what its rows were.
struct Spied {
    host: Host,
    spy: PathBuf,
    version: [u32; 3],
}

impl Spied {
    fn new() -> Option<Self> {
        let mut host = host()?;
        let bin = PathBuf::from(std::env::var_os(BIN).unwrap());
        let spy = host.home.join("spy");
        fs::create_dir(&spy).unwrap();
        fs::write(spy.join("fault"), "").unwrap();
        let program = spy.join("smolvm");
        let script = include_str!("spy.sh")
            .replace("@REAL@", &bin.join("smolvm").display().to_string())
            .replace("@SPY@", &spy.display().to_string());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        host.give(&spy);
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", spy.display());
        host.env.push(("PATH".into(), path));
        let said = Command::new(bin.join("smolvm"))
            .arg("--version")
            .output()
            .unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        let numbers: Vec<u32> = said
            .trim()
            .trim_start_matches("smolvm ")
            .split('.')
            .map(|number| number.parse().unwrap())
            .collect();
        Some(Self {
            host,
            spy,
            version: numbers.try_into().unwrap(),
        })
    }

    fn has_a_list(&self) -> bool {
        let channel = std::env::var("BOT_BOTTLE_SMOLVM_CHANNEL").unwrap_or_default();
        ["cidr", "interceptor"].contains(&channel.as_str())
    }

    fn loses_lists(&self) -> bool {
        self.has_a_list() && self.version < [1, 8, 0]
    }

    /// The one row of a state that was kept.
    fn row(&self, when: &str) -> Map<String, Value> {
        let state = Connection::open_with_flags(
            self.spy.join(when).join("smolvm.db"),
            OpenFlags::SQLITE_OPEN_READ_WRITE,
        )
        .unwrap();
        let (kind, data): (String, Vec<u8>) = state
            .query_row("SELECT typeof(data), data FROM vms", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(kind, "blob");
        serde_json::from_slice(&data).unwrap()
    }

    fn has(&self, what: &str) -> bool {
        self.spy.join(what).exists()
    }

    fn forget(&self) {
        for what in ["created", "started"] {
            let path = self.spy.join(what);
            if path.exists() {
                fs::remove_dir_all(path).unwrap();
            }
        }
        for what in ["is-created", "is-locked", "is-over"] {
            let path = self.spy.join(what);
            if path.exists() {
                fs::remove_file(path).unwrap();
            }
        }
    }

    /// What a start made of the row that `create` wrote.
    fn check_rows(&self) {
        let (created, started) = (self.row("created"), self.row("started"));
        let of = |row: &Map<String, Value>| {
            let shown: Map<String, Value> = LOST
                .iter()
                .map(|key| {
                    (
                        (*key).to_owned(),
                        row.get(*key).cloned().unwrap_or_default(),
                    )
                })
                .collect();
            Value::Object(shown)
        };
        fixtures::tell!("the row as it was created: {}", of(&created));
        fixtures::tell!("the row as it was started: {}", of(&started));
        let list = match self.has_a_list() {
            true => started["allowed_cidrs"].as_array().unwrap().len(),
            false => 0,
        };
        assert_eq!(started["network"], json!(self.has_a_list()));
        assert_eq!(list, usize::from(self.has_a_list()));
        if self.loses_lists() {
            let nothing =
                json!({"allowed_cidrs": null, "dns_filter_hosts": null, "network": false});
            assert_eq!(of(&created), nothing);
        }
        let others = |row: &Map<String, Value>| -> Map<String, Value> {
            row.clone()
                .into_iter()
                .filter(|(key, _)| !LOST.contains(&key.as_str()))
                .collect()
        };
        assert_eq!(others(&created), others(&started));
        assert!(
            started["source_smolmachine"]
                .as_str()
                .unwrap()
                .ends_with("/image.smolmachine")
        );
        // Nothing of the pack's runs, and none of its variables is in the row.
        assert_eq!(started["entrypoint"], json!([]));
        assert_eq!(
            started["cmd"].as_array().unwrap().last(),
            Some(&json!("__machine-idle"))
        );
        assert_eq!(started["env"], json!([]));
    }
}

#[test]
fn the_demo_on_a_machine_of_a_pack() {
    let Some(spied) = Spied::new() else { return };
    let mut since = Instant::now();
    demo(&spied.host, &["--bottle", "packed"]);
    spied.check_rows();
    step("the demo on a machine of a pack", &mut since);
}

#[test]
fn an_agent_on_a_machine_of_a_pack() {
    let Some(spied) = Spied::new() else { return };
    let mut since = Instant::now();
    let script = "id -u; echo $FROM_THE_IMAGE; echo hello > made; exit 42";
    let ran = spied
        .host
        .run(&["start", "packed", "--headless", "--prompt", script]);
    assert_eq!(ran.code, 42, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.ends_with("\nyes\n"), "{}", ran.stdout);
    assert!(spied.host.workspace.join("made").exists());
    spied.check_rows();
    eventually("something is left", || left(&spied.host).is_empty());
    step("an agent on a machine of a pack", &mut since);
}

/// On the real file of the real program. Nothing is booted here.
#[test]
fn no_machine_starts_whose_list_cannot_be_written() {
    let Some(spied) = Spied::new() else { return };
    if !spied.loses_lists() {
        fixtures::tell!(
            "nothing to write: smolvm {:?} in this channel loses no list",
            spied.version
        );
        return;
    }
    for fault in ["read-only", "locked"] {
        spied.forget();
        fs::write(spied.spy.join("fault"), fault).unwrap();
        let child = spied
            .host
            .command(&[
                "start",
                "packed",
                "--headless",
                "--prompt",
                "echo the agent ran",
            ])
            .spawn()
            .unwrap();
        let running = Running::of(child);
        if fault == "locked" {
            hold(&spied);
        }
        let ran = running.finish();
        println!("{fault}: exit code {}\n{}", ran.code, ran.stderr);
        assert_eq!(ran.code, 4, "{fault}");
        assert!(ran.stderr.contains("could not be confirmed"), "{fault}");
        assert!(!ran.stdout.contains("the agent ran"));
        let created = spied.row("created");
        assert_eq!(created["allowed_cidrs"], Value::Null);
        assert!(!spied.has("started"), "{fault}: a machine was started");
        assert!(machines(&spied.host).is_empty());
        eventually("something is left", || left(&spied.host).is_empty());
    }
}

/// Another program's transaction, from after the creation until the machine is removed.
fn hold(spied: &Spied) {
    eventually("nothing was created", || spied.has("is-created"));
    let path = state(&spied.host);
    let mut other = Connection::open(&path).unwrap();
    other.busy_timeout(Duration::from_secs(5)).unwrap();
    let held = other
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .unwrap();
    fs::write(spied.spy.join("is-locked"), "").unwrap();
    eventually("nothing was removed", || spied.has("is-over"));
    drop(held);
}

fn state(host: &Host) -> PathBuf {
    Path::new(&host.home).join(".local/share/smolvm/server/smolvm.db")
}
