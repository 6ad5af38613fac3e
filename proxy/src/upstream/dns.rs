//! DNS: the system's name servers, or those of the configuration, and the hosts file.
//!
//! Names are asked for as they are, never below a search domain: a route names one host, and what a resolver would make
//! of it in another network is another one.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
    ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use tokio::time::timeout;

use crate::host::HostName;
use crate::limits;
use crate::verdict::Cause;

/// How often the system's files are looked at for a change: a laptop that moves gets other name servers.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

#[derive(Debug)]
pub struct Dns {
    /// In place of the system's.
    servers: Vec<SocketAddr>,
    state: ArcSwap<State>,
    looked: Mutex<Instant>,
}

#[derive(Debug)]
struct State {
    /// Or why there is none.
    resolver: Result<TokioResolver, String>,
    hosts: Hosts,
    files: [Option<(SystemTime, u64)>; 2],
}

impl Dns {
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self {
            state: ArcSwap::from_pointee(State::read(&servers)),
            servers,
            looked: Mutex::new(Instant::now()),
        }
    }

    pub async fn lookup(&self, name: &HostName) -> Result<Vec<IpAddr>, Cause> {
        self.look_again();
        let state = self.state.load_full();
        let mut question =
            Name::from_ascii(name.as_str()).map_err(|error| Cause::Resolve(error.to_string()))?;
        question.set_fqdn(true);
        let local = state.local(&question);
        if !local.is_empty() {
            return Ok(local);
        }
        let resolver = match &state.resolver {
            Ok(resolver) => resolver,
            Err(why) => return Err(Cause::Resolve(format!("there is no name server: {why}"))),
        };
        let answer = match timeout(limits::RESOLVE, resolver.lookup_ip(question)).await {
            Err(_) => return Err(Cause::Resolve("DNS did not answer in time".into())),
            Ok(Err(error)) => return Err(Cause::Resolve(words(&error))),
            Ok(Ok(answer)) => answer,
        };
        let addresses: Vec<IpAddr> = answer.iter().take(limits::ADDRESSES + 1).collect();
        if addresses.len() > limits::ADDRESSES {
            return Err(Cause::Resolve(format!(
                "the answer holds more than {} addresses",
                limits::ADDRESSES
            )));
        }
        Ok(addresses)
    }

    fn look_again(&self) {
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.elapsed() < LOOK_AGAIN {
                return;
            }
            *looked = Instant::now();
        }
        if self.state.load().files != stamps() {
            tracing::info!("the system's name servers or hosts have changed");
            self.state.store(State::read(&self.servers).into());
        }
    }
}

impl State {
    fn read(servers: &[SocketAddr]) -> Self {
        let files = stamps();
        let (config, mut options) = if servers.is_empty() {
            match hickory_resolver::system_conf::read_system_conf() {
                Ok((config, options)) => (Ok(config), options),
                Err(error) => (Err(error.to_string()), ResolverOpts::default()),
            }
        } else {
            let servers = servers.iter().copied().map(name_server).collect();
            (
                Ok(ResolverConfig::from_name_servers(servers)),
                ResolverOpts::default(),
            )
        };
        options.timeout = options.timeout.min(limits::RESOLVE_ATTEMPT);
        options.attempts = options.attempts.min(2);
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        options.use_hosts_file = ResolveHosts::Never;
        options.try_tcp_on_error = true;
        options.cache_size = 1024;
        options.positive_max_ttl = Some(Duration::from_secs(300));
        options.negative_max_ttl = Some(Duration::from_secs(30));
        let resolver = config.and_then(|config| {
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
                .with_options(options)
                .build()
                .map_err(|error| error.to_string())
        });
        if let Err(why) = &resolver {
            tracing::warn!(why, "there is no name server; only fixed names are found");
        }
        let hosts = Hosts::from_system().unwrap_or_else(|error| {
            tracing::debug!(%error, "no hosts file");
            Hosts::default()
        });
        Self {
            resolver,
            hosts,
            files,
        }
    }

    /// What the hosts file says, in both families; a name that stands there is not asked for elsewhere.
    fn local(&self, name: &Name) -> Vec<IpAddr> {
        [RecordType::AAAA, RecordType::A]
            .into_iter()
            .filter_map(|kind| {
                self.hosts
                    .lookup_static_host(&Query::query(name.clone(), kind))
            })
            .flat_map(|lookup| {
                lookup
                    .answers()
                    .iter()
                    .filter_map(|record| record.data.ip_addr())
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
        .into_iter()
        .map(|mut connection| {
            connection.port = address.port();
            connection
        })
        .collect();
    NameServerConfig::new(address.ip(), true, connections)
}

fn stamps() -> [Option<(SystemTime, u64)>; 2] {
    FILES.map(|path| {
        let data = std::fs::metadata(path).ok()?;
        Some((data.modified().ok()?, data.len()))
    })
}

fn words(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(_)) => {
            "the name does not exist, or has no address".into()
        }
        NetError::Timeout => "DNS did not answer in time".into(),
        other => other.to_string(),
    }
}
