//! The sidecar's own cage, put on after everything it needs is open.
//!
//! No new privileges, Landlock (it may read its configuration, roots and the resolver's files, and write its log),
//! and a seccomp filter without the calls that run programs or reach into other processes. Should a parser be broken,
//! what was broken into holds two sockets and nothing else.

use std::path::Path;

use crate::config::File;

#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    #[cfg(target_os = "linux")]
    #[error("landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    #[cfg(target_os = "linux")]
    #[error("seccomp: {0}")]
    Seccomp(#[from] seccompiler::Error),
    #[cfg(target_os = "linux")]
    #[error("seccomp: {0}")]
    Backend(#[from] seccompiler::BackendError),
}

#[cfg(not(target_os = "linux"))]
pub fn apply(_: &Path, _: &File) -> Result<(), ConfineError> {
    tracing::warn!("there is no self-confinement on this system");
    Ok(())
}

#[cfg(target_os = "linux")]
pub use linux::apply;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::PathBuf;

    use landlock::{
        ABI, Access, AccessFs, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
        RulesetStatus, path_beneath_rules,
    };
    use seccompiler::{
        SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, TargetArch,
    };

    use super::{ConfineError, File, Path};

    /// Before any other thread is there: Landlock holds for the calling thread and those that it starts.
    pub fn apply(config: &Path, file: &File) -> Result<(), ConfineError> {
        match filesystem(config, file)?.ruleset {
            RulesetStatus::FullyEnforced => {}
            RulesetStatus::PartiallyEnforced => {
                tracing::warn!(
                    "this kernel knows an older Landlock; the sidecar is confined as far as it goes"
                );
            }
            RulesetStatus::NotEnforced => {
                tracing::warn!("this kernel has no Landlock; the sidecar's files are not confined");
            }
        }
        system_calls()
    }

    fn filesystem(config: &Path, file: &File) -> Result<RestrictionStatus, ConfineError> {
        let abi = ABI::V5;
        let parent = |path: &Path| {
            path.parent()
                .map(Path::to_owned)
                .filter(|dir| !dir.as_os_str().is_empty())
        };
        let here = || PathBuf::from(".");
        // The directory and not the file: editors and orchestrators replace a configuration by renaming.
        let mut read: BTreeSet<PathBuf> = [
            "/etc",
            "/usr/share/ca-certificates",
            "/usr/local/share/ca-certificates",
            "/usr/lib/ssl",
            "/run/systemd/resolve",
        ]
        .iter()
        .map(PathBuf::from)
        .collect();
        read.insert(parent(config).unwrap_or_else(here));
        read.extend(file.upstream.ca_files.iter().cloned());
        let sockets = file
            .listen
            .iter()
            .chain(file.control.as_ref().map(|control| &control.listen))
            .filter_map(|listen| listen.strip_prefix("unix:"))
            .map(Path::new);
        let written = [file.audit.as_path(), file.ca.certificate.as_path()]
            .into_iter()
            .chain(file.ca.key.as_deref());
        let write: BTreeSet<PathBuf> = written
            .chain(sockets)
            .map(|path| parent(path).unwrap_or_else(here))
            .collect();
        // No devices, no links between directories, no execution.
        let change = AccessFs::ReadFile
            | AccessFs::ReadDir
            | AccessFs::WriteFile
            | AccessFs::Truncate
            | AccessFs::MakeReg
            | AccessFs::MakeSock
            | AccessFs::RemoveFile;
        let status = Ruleset::default()
            .handle_access(AccessFs::from_all(abi))?
            .create()?
            .add_rules(path_beneath_rules(
                read,
                AccessFs::ReadFile | AccessFs::ReadDir,
            ))?
            .add_rules(path_beneath_rules(write, change))?
            .restrict_self()?;
        Ok(status)
    }

    /// What a proxy never calls and what one that was broken into would.
    fn system_calls() -> Result<(), ConfineError> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_process_madvise,
            libc::SYS_pidfd_getfd,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_keyctl,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_open_by_handle_at,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_kexec_load,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_setuid,
            libc::SYS_setgid,
        ]
        .into_iter()
        .map(|call| (call, Vec::new()))
        .collect();
        let families = [
            libc::AF_UNIX,
            libc::AF_INET,
            libc::AF_INET6,
            libc::AF_NETLINK,
        ];
        let other = families
            .into_iter()
            .map(|family| {
                let family = u64::try_from(family).unwrap_or(u64::MAX);
                SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
            })
            .collect::<Result<Vec<_>, _>>()?;
        rules.insert(libc::SYS_socket, vec![SeccompRule::new(other)?]);
        let deny = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, deny, architecture)?;
        let program: seccompiler::BpfProgram = filter.try_into()?;
        // Sets no_new_privs as well; the threads of the runtime inherit both.
        seccompiler::apply_filter(&program)?;
        Ok(())
    }
}
