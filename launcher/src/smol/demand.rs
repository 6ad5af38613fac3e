//! What a machine's row must say, and must not, before the machine is started and after.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::row::RowError;
use crate::state::PROXY_PORT;
use crate::vm::share::Share;

/// What means "the sidecar" when the guest of a machine with an interceptor dials it: a documentation address (RFC
/// 5737). It is nobody's, so that even without the interceptor it leads nowhere.
pub const SIDECAR: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), PROXY_PORT);
/// The guest's view of the host's 127.0.0.1, every port of it (smolvm 1.7.2 and newer).
const GATEWAY: Ipv4Addr = Ipv4Addr::new(100, 96, 0, 1);

/// Of a row: no start without an interceptor.
const INTERCEPTOR: &str = "external_interceptor_required";

/// The one way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// No network; the sidecar's socket at a path of the guest's.
    Socket { host: PathBuf, guest: &'static str },
    /// virtio-net, and this address alone.
    Address(SocketAddrV4),
    /// virtio-net, [`SIDECAR`] alone, and not even that but through an interceptor.
    Interceptor,
}

/// Everything that the row is held against.
#[derive(Clone, Debug)]
pub struct Demand {
    pub machine: String,
    pub way: Way,
    pub shares: Vec<Share>,
    /// The filter of names as the row has it, by what the create command was given.
    pub host_filter: String,
    /// What the machine runs by itself, which is ours.
    pub workload: Vec<String>,
    /// What this version loses, or cannot be told, and is written into the row with the list.
    pub lost: Lost,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    pub network: bool,
    pub host_filter: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It must not run.
    BeforeStart,
    /// It must run.
    Running,
}

/// Which an allowlist may hold: one address, of one host, and not one that stands for others.
pub fn check_cidr(text: &str) -> Result<Ipv4Addr, String> {
    let bad = |why: &str| Err(format!("{text:?} {why}"));
    let Some((address, prefix)) = text.split_once('/') else {
        return bad("has no prefix");
    };
    if prefix != "32" {
        return bad("is more than one address");
    }
    let Ok(address) = address.parse::<Ipv4Addr>() else {
        return bad("is no IPv4 address");
    };
    if address == GATEWAY {
        return bad("is the guest's gateway, which is all of the host's 127.0.0.1");
    }
    if address == Ipv4Addr::LOCALHOST || address.is_unspecified() || address.is_broadcast() {
        return bad("stands for more than the sidecar");
    }
    Ok(address)
}

impl Demand {
    /// The list that the row must have; `None` where there is no network.
    pub fn list(&self) -> Option<Vec<String>> {
        match &self.way {
            Way::Socket { .. } => None,
            Way::Address(address) => Some(vec![format!("{}/32", address.ip())]),
            Way::Interceptor => Some(vec![format!("{}/32", SIDECAR.ip())]),
        }
    }

    /// What is written into the row with the list.
    pub fn beside(&self) -> Vec<(&'static str, Value)> {
        let mut beside = Vec::new();
        if self.lost.network {
            beside.push(("network", json!(true)));
        }
        if self.lost.host_filter {
            beside.push(("dns_filter_hosts", json!([self.host_filter])));
        }
        beside
    }

    /// Holds the row against it; the first difference is the error.
    pub fn check(&self, row: &Map<String, Value>, moment: Moment) -> Result<(), RowError> {
        let machine = &self.machine;
        let is = |key: &str, wanted: &Value| -> Result<(), RowError> {
            let found = row.get(key).unwrap_or(&Value::Null);
            if found == wanted {
                return Ok(());
            }
            Err(differs(machine, key, found, &wanted.to_string()))
        };
        let one_of = |key: &str, wanted: &[Value]| -> Result<(), RowError> {
            let found = row.get(key).unwrap_or(&Value::Null);
            if wanted.contains(found) {
                return Ok(());
            }
            let wanted: Vec<String> = wanted.iter().map(Value::to_string).collect();
            Err(differs(machine, key, found, &wanted.join(" or ")))
        };
        let pid = row.get("pid").unwrap_or(&Value::Null);
        match moment {
            Moment::BeforeStart => {
                one_of("state", &[json!("created"), json!("stopped")])?;
                is("pid", &Value::Null)?;
            }
            Moment::Running => {
                is("state", &json!("running"))?;
                if !pid.is_u64() {
                    return Err(differs(machine, "pid", pid, "a process"));
                }
            }
        }
        let none = [Value::Null, json!([])];
        match &self.way {
            Way::Socket { host, guest } => {
                is("network", &json!(false))?;
                is("allowed_cidrs", &Value::Null)?;
                is("network_backend", &Value::Null)?;
                one_of("dns_filter_hosts", &none)?;
                let socket = json!([{
                    "direction": "mount",
                    "guest_path": guest,
                    "host_path": host.to_string_lossy(),
                }]);
                is("published_sockets", &socket)?;
            }
            Way::Address(_) | Way::Interceptor => {
                is("network", &json!(true))?;
                let list = self.list().unwrap_or_default();
                for entry in &list {
                    check_cidr(entry)
                        .map_err(|why| differs(machine, "allowed_cidrs", &json!(entry), &why))?;
                }
                is("allowed_cidrs", &json!(list))?;
                one_of("network_backend", &[Value::Null, json!("virtio-net")])?;
                is("dns_filter_hosts", &json!([self.host_filter]))?;
                one_of("published_sockets", &none)?;
            }
        }
        let required = json!(true);
        match (&self.way, moment) {
            // Said by a start, and kept from then on.
            (Way::Interceptor, Moment::Running) => is(INTERCEPTOR, &required)?,
            (Way::Interceptor, Moment::BeforeStart) => {
                one_of(INTERCEPTOR, &[Value::Null, json!(false), required])?;
            }
            _ => one_of(INTERCEPTOR, &[Value::Null, json!(false)])?,
        }
        is("ports", &json!([]))?;
        is("mounts", &self.mounts())?;
        is("cmd", &json!(self.workload))?;
        for key in [
            "entrypoint",
            "env",
            "init",
            "secrets",
            "disks",
            "remote_volumes",
            "staged_mounts",
        ] {
            one_of(key, &none)?;
        }
        for key in ["ssh_agent", "cuda", "docker_socket", "gpu", "nested_virt"] {
            one_of(key, &[Value::Null, json!(false)])?;
        }
        self.check_unknown(row)
    }

    fn mounts(&self) -> Value {
        self.shares
            .iter()
            .map(|share| json!([share.host.to_string_lossy(), share.guest, share.read_only]))
            .collect()
    }

    /// What a later version has beside: if it sounds like a network, it must say nothing.
    fn check_unknown(&self, row: &Map<String, Value>) -> Result<(), RowError> {
        const KNOWN: [&str; 7] = [
            INTERCEPTOR,
            "network",
            "network_backend",
            "allowed_cidrs",
            "dns_filter_hosts",
            "published_sockets",
            "ports",
        ];
        const SMELLS: [&str; 14] = [
            "egress",
            "allow",
            "deny",
            "udp",
            "network",
            "interceptor",
            "proxy",
            "dns",
            "private",
            "credential",
            "socket",
            "port",
            "subnet",
            "trust",
        ];
        for (key, value) in row {
            let empty = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(items) => items.is_empty(),
                Value::String(text) => text.is_empty(),
                Value::Bool(true) | Value::Number(_) => false,
            };
            if !empty
                && !KNOWN.contains(&key.as_str())
                && SMELLS.iter().any(|word| key.contains(word))
            {
                return Err(differs(&self.machine, key, value, "absent"));
            }
        }
        Ok(())
    }
}

pub(super) fn differs(machine: &str, key: &str, found: &Value, wanted: &str) -> RowError {
    let text: String = found.to_string().chars().take(200).collect();
    RowError::Differs {
        machine: machine.to_owned(),
        key: crate::escape::Escaped(key).to_string(),
        found: crate::escape::Escaped(&text).to_string(),
        wanted: wanted.to_owned(),
    }
}
