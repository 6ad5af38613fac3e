//! What an engine is, as far as a bottle depends on it.

use super::engine::{Engine, EngineError};
use crate::backend::Missing;

/// gVisor's runtime, by the name that its own installer registers.
const GVISOR: &str = "runsc";

#[derive(Clone, Debug)]
pub struct Facts {
    pub version: String,
    /// gVisor, where it is registered and can be used.
    pub runtime: Option<String>,
    /// Why gVisor is not used, where it is registered.
    pub gvisor: Option<String>,
    /// In bytes.
    pub memory: i64,
    /// It maps a container's user ids, which we ask it not to do: the workspace is the caller's.
    pub maps_users: bool,
}

impl Facts {
    pub async fn ask(engine: &Engine) -> Result<Result<Self, Vec<Missing>>, EngineError> {
        let info = engine
            .ask(
                "say what it is",
                |docker| async move { docker.info().await },
            )
            .await?;
        let mut missing = Vec::new();
        if info.os_type.as_deref() != Some("linux") {
            missing.push(Missing {
                what: "the engine does not run Linux containers".into(),
                remedy: "switch Docker to Linux containers".into(),
            });
        }
        let architecture = info.architecture.unwrap_or_default();
        if architecture != std::env::consts::ARCH {
            missing.push(Missing {
                what: format!(
                    "the engine runs {architecture}, and the launcher is for {}",
                    std::env::consts::ARCH
                ),
                remedy: format!("use a launcher that was built for {architecture}"),
            });
        }
        let security = info.security_options.unwrap_or_default();
        let has = |name: &str| {
            security
                .iter()
                .any(|option| option.split(',').any(|part| part == format!("name={name}")))
        };
        if has("rootless") {
            missing.push(Missing {
                what: "the engine is rootless, where the workspace's owner would be root in the container".into(),
                remedy: "use --backend local, which needs no root either, or a system-wide engine".into(),
            });
        }
        let (runtime, gvisor) = match info
            .runtimes
            .unwrap_or_default()
            .get(GVISOR)
            .map(|runtime| runtime.runtime_args.clone().unwrap_or_default())
        {
            None => (None, None),
            // The agent's one way out is a Unix socket of the host's.
            Some(arguments) if opens_sockets(&arguments) => (Some(GVISOR.to_owned()), None),
            Some(_) => (
                None,
                Some(
                    "gVisor (runsc) is registered and not used: its runtimeArgs in /etc/docker/daemon.json lack --host-uds=open"
                        .to_owned(),
                ),
            ),
        };
        if !missing.is_empty() {
            return Ok(Err(missing));
        }
        Ok(Ok(Self {
            version: info.server_version.unwrap_or_default(),
            runtime,
            gvisor,
            memory: info.mem_total.unwrap_or(4 << 30),
            maps_users: has("userns"),
        }))
    }
}

/// `--host-uds=open` or `all`; `--fsgofer-host-uds` before 2023.
fn opens_sockets(arguments: &[String]) -> bool {
    arguments.iter().any(|argument| {
        let argument = argument.trim_start_matches('-');
        matches!(
            argument,
            "host-uds=open" | "host-uds=all" | "fsgofer-host-uds" | "fsgofer-host-uds=true"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gvisor_needs_to_open_sockets() {
        let opens = |argument: &str| opens_sockets(&[argument.to_owned()]);
        assert!(opens("--host-uds=open") && opens("-fsgofer-host-uds"));
        assert!(!opens("--host-uds=none") && !opens("--platform=kvm"));
    }
}
