//! The network that a bottle's sidecar goes out by: a bridge of its own, which the agent is not on.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use sha2::{Digest, Sha256};

use super::engine::{Engine, EngineError, Kind};
use super::names::{Owner, Role};
use crate::state::Slug;
use crate::undo::UndoStack;

#[derive(Clone, Debug)]
pub struct Network {
    pub name: String,
    pub third: u8,
}

impl Network {
    /// The host's address on it.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, self.third, 1)
    }

    /// 192.168.X.0/24, X from the slug; the next one where that is taken.
    pub async fn create(
        engine: &Engine,
        slug: &Slug,
        owner: &Owner,
        undo: &mut UndoStack,
    ) -> Result<Self, EngineError> {
        let name = Role::Network.name(slug);
        undo.push(format!("network {name}"), {
            let (engine, name) = (engine.clone(), name.clone());
            move || remove(&engine, &name)
        });
        // An engine does not mind a subnet that is the host's own network; the host's connections would.
        let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        let of_the_host = on_the_host(&routes);
        let mut refusal = None;
        for third in candidates(slug).filter(|third| !of_the_host.contains(third)) {
            let request = request(&name, third, Role::Network.labels(slug, owner));
            let created = engine
                .change(format!("make the network {name}"), |docker| async move {
                    docker.create_network(request).await
                })
                .await;
            match created {
                Ok(_) => return Ok(Self { name, third }),
                Err(error) if error.why.contains("overlaps") => refusal = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(refusal.unwrap_or_else(|| EngineError {
            what: format!("make the network {name}"),
            why: "every network 192.168.X.0/24 is in use on this host".into(),
            kind: Kind::Other,
        }))
    }
}

fn request(
    name: &str,
    third: u8,
    labels: std::collections::HashMap<String, String>,
) -> NetworkCreateRequest {
    let config = IpamConfig {
        subnet: Some(format!("192.168.{third}.0/24")),
        gateway: Some(format!("192.168.{third}.1")),
        ..IpamConfig::default()
    };
    NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".into()),
        enable_ipv6: Some(false),
        ipam: Some(Ipam {
            config: Some(vec![config]),
            ..Ipam::default()
        }),
        options: Some(std::collections::HashMap::from([(
            "com.docker.network.bridge.enable_icc".to_owned(),
            "false".to_owned(),
        )])),
        labels: Some(labels),
        ..NetworkCreateRequest::default()
    }
}

/// Every X once, beginning with the slug's own.
fn candidates(slug: &Slug) -> impl Iterator<Item = u8> {
    let first = Sha256::digest(slug.as_str().as_bytes())
        .first()
        .copied()
        .unwrap_or_default();
    (0..=u8::MAX).map(move |offset| first.wrapping_add(offset))
}

/// The X of all 192.168.X.0/24 that overlap a route of the host's (`/proc/net/route`, addresses in network order).
fn on_the_host(routes: &str) -> BTreeSet<u8> {
    let mut taken = BTreeSet::new();
    for line in routes.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let hex = |at: usize| {
            let text = fields.get(at)?;
            Some(u32::from_be(u32::from_str_radix(text, 16).ok()?))
        };
        let (Some(destination), Some(mask)) = (hex(1), hex(7)) else {
            continue;
        };
        // A default route overlaps everything and says nothing.
        if mask == 0 {
            continue;
        }
        for third in 0..=u8::MAX {
            let own = u32::from(Ipv4Addr::new(192, 168, third, 0));
            let common = mask & 0xffff_ff00;
            if own & common == destination & common {
                taken.insert(third);
            }
        }
    }
    taken
}

pub fn remove(engine: &Engine, name: &str) -> std::io::Result<()> {
    let (caller, name) = (engine.clone(), name.to_owned());
    engine
        .blocking(async move { remove_async(&caller, &name).await })?
        .map_err(Into::into)
}

/// It may have endpoints for a moment after its containers are gone.
pub async fn remove_async(engine: &Engine, name: &str) -> Result<(), EngineError> {
    let mut tries = 0;
    loop {
        let gone = name.to_owned();
        let removed = engine
            .change(format!("remove the network {name}"), |docker| async move {
                docker.remove_network(&gone).await
            })
            .await;
        match removed {
            Err(error) if error.why.contains("active endpoints") && tries < 50 => {
                tries += 1;
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_third_octet_once_and_by_the_slug() {
        let slug: Slug = "a-000001".parse().unwrap();
        let all: Vec<u8> = candidates(&slug).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 256);
        assert_eq!(all, candidates(&slug).collect::<Vec<_>>());
        let other: Slug = "a-000002".parse().unwrap();
        assert_ne!(all.first(), candidates(&other).collect::<Vec<_>>().first());
    }

    #[test]
    fn the_hosts_own_networks_are_left_alone() {
        let head =
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
        let default = "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        let lan = "eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let host = "eth0\t4D07A8C0\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n";
        let vpn = "tun0\t0080A8C0\t00000000\t0001\t0\t0\t0\t0080FFFF\t0\t0\t0\n";
        assert!(on_the_host(&format!("{head}{default}")).is_empty());
        assert_eq!(on_the_host(&format!("{head}{lan}")), BTreeSet::from([1]));
        assert_eq!(on_the_host(&format!("{head}{host}")), BTreeSet::from([7]));
        assert_eq!(
            on_the_host(&format!("{head}{vpn}")),
            (128..=255).collect::<BTreeSet<u8>>()
        );
    }
}
