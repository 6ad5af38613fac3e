//! States of smolvm's file and rows that are not as they should be, each on a real SQLite file and each a refusal; and
//! what a patch leaves as it was.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};

use super::demand::{Demand, Lost, Moment, Way, check_cidr};
use super::lock::{Done, force_allowlist};
use super::row::{Database, RowError};
use crate::vm::share::Share;

const MACHINE: &str = "bot-bottle-x-000001";
const SCHEMA: &str = "CREATE TABLE vms (name TEXT PRIMARY KEY NOT NULL, data BLOB NOT NULL);
    CREATE TABLE config (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL);";

struct State {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl State {
    /// In WAL, as smolvm has it.
    fn empty(schema: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("smolvm.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .unwrap();
        connection.execute_batch(schema).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        Self {
            _directory: directory,
            path,
        }
    }

    fn of(row: &Value) -> Self {
        let state = Self::empty(SCHEMA);
        state.put(row);
        state
    }

    fn put(&self, row: &Value) {
        self.put_bytes(serde_json::to_vec(row).unwrap());
    }

    fn put_bytes(&self, bytes: Vec<u8>) {
        self.open()
            .execute(
                "INSERT OR REPLACE INTO vms (name, data) VALUES (?1, ?2)",
                params![MACHINE, bytes],
            )
            .unwrap();
    }

    fn open(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    fn database(&self) -> Database {
        Database::impatient(self.path.clone())
    }

    fn raw(&self) -> (String, Vec<u8>) {
        self.open()
            .query_row(
                "SELECT typeof(data), data FROM vms WHERE name = ?1",
                [MACHINE],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap()
    }
}

/// As smolvm 1.32.2 writes it for `--mount-socket`.
fn socket_row() -> Value {
    json!({
        "name": MACHINE, "created_at": 1795635471, "state": "created", "pid": null, "pid_start_time": null,
        "cpus": 1, "mem": 512, "mounts": [["/work", "/work", false]], "staged_mounts": [], "ports": [],
        "published_sockets": [{"direction": "mount", "guest_path": "/run/s.sock", "host_path": "/host/s.sock"}],
        "network": false, "gpu": null, "init": [], "remote_volumes": [], "env": [], "allowed_cidrs": null,
        "image": "local:f3", "labels": {"bot-bottle.slug": "x-000001"}, "ssh_agent": false, "cuda": false,
        "entrypoint": [], "cmd": ["/bot-bottle/launcher", "__machine-idle"],
        "docker_socket": false, "restart": {"policy": "never", "max_retries": 0},
    })
}

/// As it writes it for `--allow-cidr`.
fn list_row(list: Value) -> Value {
    let mut row = socket_row();
    row["published_sockets"] = json!([]);
    row["network"] = json!(true);
    row["dns_filter_hosts"] = json!(["=nothing.invalid"]);
    row["allowed_cidrs"] = list;
    row
}

fn demand(way: Way) -> Demand {
    Demand {
        machine: MACHINE.into(),
        way,
        shares: vec![Share {
            host: "/work".into(),
            guest: "/work".into(),
            read_only: false,
        }],
        host_filter: "=nothing.invalid".into(),
        workload: vec!["/bot-bottle/launcher".into(), "__machine-idle".into()],
        lost: Lost::default(),
    }
}

fn by_socket() -> Demand {
    demand(Way::Socket {
        host: "/host/s.sock".into(),
        guest: "/run/s.sock",
    })
}

fn by_list() -> Demand {
    demand(Way::Address(SocketAddrV4::new(
        Ipv4Addr::new(10, 99, 0, 16),
        9115,
    )))
}

fn list() -> Vec<String> {
    vec!["10.99.0.16/32".into()]
}

fn force(state: &State) -> Result<Done, RowError> {
    force_allowlist(&state.database(), MACHINE, &list(), &[])
}

/// What a start does with it.
fn locked(state: &State) -> Result<(), RowError> {
    force(state)?;
    by_list().check(&state.database().read(MACHINE)?, Moment::BeforeStart)
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn what_is_right_passes_and_is_not_written() {
    let state = State::of(&list_row(json!(list())));
    let before = state.raw();
    assert_eq!(force(&state).unwrap(), Done::WasEqual);
    assert_eq!(state.raw(), before);
    locked(&state).unwrap();
    by_socket()
        .check(&object(&socket_row()), Moment::BeforeStart)
        .unwrap();
}

#[test]
fn a_lost_list_is_written_as_a_blob_and_every_other_key_is_kept() {
    for lost in [
        json!(null),
        json!([]),
        json!(["0.0.0.0/0"]),
        json!(["10.99.0.16/32", "10.99.0.17/32"]),
    ] {
        let mut row = list_row(lost);
        row["a_key_of_tomorrow"] = json!({"deep": [1, 2.5, "ü", null]});
        let state = State::of(&row);
        assert_eq!(force(&state).unwrap(), Done::Patched);
        let (kind, bytes) = state.raw();
        assert_eq!(kind, "blob");
        let now: Value = serde_json::from_slice(&bytes).unwrap();
        row["allowed_cidrs"] = json!(list());
        assert_eq!(now, row);
        assert_eq!(force(&state).unwrap(), Done::WasEqual);
    }
}

/// As 1.7.7 and older write it for `--from PACK --allow-cidr`: nothing of a network is left.
#[test]
fn what_is_lost_with_the_list_is_written_with_it() {
    let mut row = list_row(json!(null));
    row["network"] = json!(false);
    row["source_smolmachine"] = json!("/host/image.smolmachine");
    let row_keys = row.as_object_mut().unwrap();
    row_keys.remove("dns_filter_hosts");
    let state = State::of(&row);

    // Where it is not known that a version loses it, nothing but the list is written.
    force(&state).unwrap();
    let error = locked(&state).unwrap_err().to_string();
    assert!(error.contains("`network` is false"), "{error}");

    let state = State::of(&row);
    let mut demand = by_list();
    demand.lost = Lost {
        network: true,
        host_filter: true,
    };
    let force = || force_allowlist(&state.database(), MACHINE, &list(), &demand.beside());
    assert_eq!(force().unwrap(), Done::Patched);
    let (kind, bytes) = state.raw();
    assert_eq!(kind, "blob");
    row["network"] = json!(true);
    row["allowed_cidrs"] = json!(list());
    row["dns_filter_hosts"] = json!(["=nothing.invalid"]);
    assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), row);
    demand
        .check(
            &state.database().read(MACHINE).unwrap(),
            Moment::BeforeStart,
        )
        .unwrap();
    assert_eq!(force().unwrap(), Done::WasEqual);
    // One of them alone is a difference too.
    row["dns_filter_hosts"] = json!(["=another.invalid"]);
    state.put(&row);
    assert_eq!(force().unwrap(), Done::Patched);
}

/// The twelve, and some more.
#[test]
fn twelve_wrong_states_are_twelve_refusals() {
    let mut refused = Vec::new();
    let mut refuse = |what: &str, result: Result<(), RowError>| {
        let error = result.expect_err(what).to_string();
        assert!(error.contains("smolvm's"), "{what}: {error}");
        println!("{what}: {error}");
        refused.push(what.to_owned());
    };
    let right = || list_row(json!(list()));

    let state = State::of(&right());
    fs::remove_file(&state.path).unwrap();
    refuse("no file", locked(&state));
    assert!(!state.path.exists(), "a file was made");

    let state = State::of(&right());
    let real = state.path.with_extension("real");
    fs::rename(&state.path, &real).unwrap();
    std::os::unix::fs::symlink(&real, &state.path).unwrap();
    refuse("a link", locked(&state));

    let state = State::of(&right());
    fs::set_permissions(&state.path, fs::Permissions::from_mode(0o666)).unwrap();
    refuse("others may write", locked(&state));

    let state = State::of(&right());
    fs::write(
        &state.path,
        "this is redb, or anything else but SQLite, and it is long enough",
    )
    .unwrap();
    refuse("no database", locked(&state));

    let state = State::empty("CREATE TABLE config (key TEXT, value TEXT);");
    refuse("no table", locked(&state));

    let state = State::empty(
        "CREATE TABLE vms (name TEXT PRIMARY KEY NOT NULL, data BLOB NOT NULL, more TEXT);",
    );
    refuse("another schema", locked(&state));

    let state = State::empty(&format!(
        "{SCHEMA} CREATE TRIGGER t AFTER UPDATE ON vms BEGIN SELECT 1; END;"
    ));
    state.put(&right());
    refuse("a trigger", locked(&state));

    let state = State::empty(SCHEMA);
    refuse("no row", locked(&state));

    let state = State::of(&right());
    state
        .open()
        .execute("UPDATE vms SET data = ?1", [right().to_string()])
        .unwrap();
    refuse("text instead of a BLOB", locked(&state));

    let state = State::empty(SCHEMA);
    state.put_bytes(b"{\"name\":".to_vec());
    refuse("half a row", locked(&state));

    let mut other = right();
    other["name"] = json!("another");
    refuse("another machine's row", locked(&State::of(&other)));

    // The patch itself is silently undone, as by a program that knows better.
    let state = State::empty(SCHEMA);
    state.put(&list_row(json!(null)));
    let path = state.path.clone();
    let undone = rewritten_behind(&path, || force(&state));
    refuse("a list that is rewritten", undone);

    let state = State::of(&list_row(json!(null)));
    let mut writer = state.open();
    let held = writer
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .unwrap();
    refuse("locked by another writer", locked(&state));
    drop(held);

    let mut running = list_row(json!(null));
    running["state"] = json!("running");
    running["pid"] = json!(7);
    refuse("it runs already", locked(&State::of(&running)));

    let mut off = right();
    off["network"] = json!(false);
    refuse("a list without a network", locked(&State::of(&off)));

    let mut tsi = right();
    tsi["network_backend"] = json!("tsi");
    refuse(
        "a backend that does not enforce it",
        locked(&State::of(&tsi)),
    );

    let mut open = right();
    open.as_object_mut().unwrap().remove("dns_filter_hosts");
    refuse("names are resolved", locked(&State::of(&open)));

    assert!(refused.len() >= 12, "{refused:?}");
}

/// Runs `force` with a writer beside it that puts the old list back as soon as there is a new one.
fn rewritten_behind(
    path: &Path,
    force: impl FnOnce() -> Result<Done, RowError>,
) -> Result<(), RowError> {
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stopped, file) = (stop.clone(), path.to_owned());
    let writer = std::thread::spawn(move || {
        let connection = Connection::open(file).unwrap();
        connection
            .busy_timeout(std::time::Duration::from_secs(5))
            .unwrap();
        while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
            // Whoever holds the lock goes first.
            let _busy = connection.execute(
                "UPDATE vms SET data = ?1 WHERE name = ?2",
                params![serde_json::to_vec(&list_row(json!(null))).unwrap(), MACHINE],
            );
        }
    });
    let mut result = force();
    // The other writer may come a moment later than the check; then the next one sees it, as the check before a start
    // does.
    for _ in 0..1000 {
        if result.is_err() {
            break;
        }
        let row = Database::at(path.to_owned()).read(MACHINE)?;
        result = by_list()
            .check(&row, Moment::BeforeStart)
            .map(|()| Done::WasEqual);
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    writer.join().unwrap();
    result.map(|_| ())
}

#[test]
fn only_one_address_of_one_host_is_a_list() {
    assert_eq!(
        check_cidr("10.99.0.16/32"),
        Ok(Ipv4Addr::new(10, 99, 0, 16))
    );
    let state = State::of(&list_row(json!(null)));
    for bad in [
        "10.99.0.17/24",
        "10.99.0.16",
        "0.0.0.0/0",
        "0.0.0.0/32",
        "127.0.0.1/32",
        "100.96.0.1/32",
        "::1/128",
        "example.com/32",
        "10.99.0.16/032",
        "255.255.255.255/32",
        "",
    ] {
        assert!(check_cidr(bad).is_err(), "{bad}");
        let result = force_allowlist(&state.database(), MACHINE, &[bad.to_owned()], &[]);
        assert!(result.is_err(), "{bad}");
    }
    assert!(force_allowlist(&state.database(), MACHINE, &[], &[]).is_err());
    let (_, bytes) = state.raw();
    assert_eq!(
        serde_json::from_slice::<Value>(&bytes).unwrap(),
        list_row(json!(null))
    );
}

#[test]
fn a_socket_machine_has_no_network_and_our_socket_alone() {
    let changes: [(&str, Value); 19] = [
        ("network", json!(true)),
        ("network", Value::Null),
        ("allowed_cidrs", json!([])),
        ("allowed_cidrs", json!(["0.0.0.0/0"])),
        ("network_backend", json!("tsi")),
        ("ports", json!([[8080, 80]])),
        ("published_sockets", json!([])),
        (
            "published_sockets",
            json!([
                {"direction": "mount", "guest_path": "/run/s.sock", "host_path": "/host/s.sock"},
                {"direction": "mount", "guest_path": "/run/d.sock", "host_path": "/run/docker.sock"},
            ]),
        ),
        (
            "mounts",
            json!([["/work", "/work", false], ["/home/me", "/home/me", true]]),
        ),
        ("env", json!([["A", "b"]])),
        ("entrypoint", json!(["/evil"])),
        ("cmd", json!([])),
        ("cmd", json!(["/evil"])),
        ("ssh_agent", json!(true)),
        ("state", json!("running")),
        ("pid", json!(1)),
        ("external_interceptor_required", json!(true)),
        ("egress_udp", json!(["0.0.0.0/0"])),
        ("guest_subnet", json!("10.0.0.0/30")),
    ];
    for (key, value) in changes {
        let mut row = socket_row();
        row[key] = value.clone();
        let checked = by_socket().check(&object(&row), Moment::BeforeStart);
        assert!(checked.is_err(), "{key} {value}");
    }
    let mut row = socket_row();
    row["labels"]["allow"] = json!("x");
    row["egress_rules"] = json!([]);
    by_socket()
        .check(&object(&row), Moment::BeforeStart)
        .unwrap();
    row["state"] = json!("running");
    row["pid"] = json!(7);
    by_socket().check(&object(&row), Moment::Running).unwrap();
}

/// Before a start and after it; the second is what a start has written.
#[test]
fn a_machine_with_an_interceptor_has_one_and_a_list_that_is_nobodys() {
    let right = list_row(json!(["192.0.2.1/32"]));
    let mut running = right.clone();
    running["state"] = json!("running");
    running["pid"] = json!(17);
    running["external_interceptor_required"] = json!(true);
    let demand = demand(Way::Interceptor);
    demand.check(&object(&right), Moment::BeforeStart).unwrap();
    demand.check(&object(&running), Moment::Running).unwrap();
    let differences = [
        ("network", json!(false)),
        ("network_backend", json!("tsi")),
        ("allowed_cidrs", json!(null)),
        ("allowed_cidrs", json!([])),
        ("allowed_cidrs", json!(["0.0.0.0/0"])),
        ("allowed_cidrs", json!(["192.0.2.1/24"])),
        ("allowed_cidrs", json!(["192.0.2.1/32", "10.0.0.1/32"])),
        ("dns_filter_hosts", json!(null)),
        ("dns_filter_hosts", json!([])),
        ("dns_filter_hosts", json!(["=another.invalid"])),
        ("dns_filter_hosts", json!(["=nothing.invalid", "=x.test"])),
        (
            "published_sockets",
            socket_row()["published_sockets"].clone(),
        ),
        ("ports", json!([[1, 2]])),
        ("external_interceptor_required", json!("yes")),
        ("external_interceptor_required", json!(1)),
        ("mediated_egress", json!(true)),
        ("egress_udp", json!(["0.0.0.0/0"])),
    ];
    for (key, value) in differences {
        for (row, moment) in [(&right, Moment::BeforeStart), (&running, Moment::Running)] {
            let mut row = row.clone();
            row[key] = value.clone();
            let error = demand.check(&object(&row), moment).unwrap_err();
            assert!(error.to_string().contains(key), "{key} {value}: {error}");
        }
    }
    for without in [json!(null), json!(false)] {
        let mut row = running.clone();
        row["external_interceptor_required"] = without;
        assert!(demand.check(&object(&row), Moment::Running).is_err());
    }
    // And where none was asked for, there is none.
    let mut row = socket_row();
    row["external_interceptor_required"] = json!(true);
    let error = by_socket()
        .check(&object(&row), Moment::BeforeStart)
        .unwrap_err();
    assert!(
        error.to_string().contains("external_interceptor"),
        "{error}"
    );
}
