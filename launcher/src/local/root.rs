//! The bottle's own file tree. What is not put here is not there.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};
use rustix::process::{chdir, pivot_root};

use super::etc;
use super::mounts::bind;
use super::step::{Step, StepError};
use super::wire::Setup;
use crate::environment::AGENT_HOME;

/// What programs are made of. A directory is shown read-only, a symbolic link (`/bin` to `usr/bin`) stays one.
const SYSTEM: [&str; 8] = [
    "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt",
];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Memory that the agent can fill: path, options.
const SCRATCH: [(&str, &str); 5] = [
    ("tmp", "mode=1777,size=2g,nr_inodes=1m"),
    ("var/tmp", "mode=1777,size=1g,nr_inodes=256k"),
    ("run", "mode=755,size=64m,nr_inodes=16k"),
    ("home", "mode=755,size=4g,nr_inodes=1m"),
    ("dev/shm", "mode=1777,size=1g,nr_inodes=64k"),
];
/// Without capabilities, but under the uid that the host knows as root when root started the launcher, a process may
/// still write to these.
const PROC_READ_ONLY: [&str; 6] = ["sys", "bus", "fs", "irq", "acpi", "scsi"];
const PROC_HIDDEN: [&str; 8] = [
    "kcore",
    "keys",
    "key-users",
    "kmsg",
    "latency_stats",
    "sched_debug",
    "sysrq-trigger",
    "timer_list",
];

const READ_ONLY: MountFlags = MountFlags::RDONLY
    .union(MountFlags::NOSUID)
    .union(MountFlags::NODEV);
const READ_WRITE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// What the first process keeps of the outside.
#[derive(Debug)]
pub struct Kept {
    /// The launcher's executable through a read-only mount that nobody can reach: an agent that gets hold of
    /// `/proc/PID/exe` of a helper cannot write to the host's file by it (CVE-2019-5736).
    pub executable: OwnedFd,
    /// `/proc/sys` as it was before it became read-only; for the limit of namespaces.
    pub sysctl: OwnedFd,
}

/// Builds the tree and moves this process, and the whole mount namespace, into it.
pub fn enter(setup: &Setup) -> Result<Kept, StepError> {
    // Nothing that is mounted from here on is seen by the host, and the other way round.
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .step("make the mounts private")?;
    let base = ["/tmp", "/mnt", "/var"]
        .iter()
        .find(|path| Path::new(path).is_dir())
        .copied()
        .unwrap_or("/");
    mount("tmpfs", base, "tmpfs", READ_WRITE, c"mode=755,size=64m")
        .step(format!("mount a tmpfs on {base}"))?;
    chdir(base).step("enter the new root")?;
    for name in ["old", "new"] {
        fs::create_dir(name).step(format!("make {name}"))?;
    }
    pivot_root(".", "old").step("leave the host's root")?;
    chdir("/").step("enter the new root")?;

    let old = Path::new("/old");
    let new = Path::new("/new");
    mount("tmpfs", new, "tmpfs", READ_WRITE, c"mode=755,size=64m")
        .step("mount the bottle's root")?;
    for name in SYSTEM {
        system(&old.join(name), &new.join(name), name)?;
    }
    for name in ["proc", "dev", "etc", "root", "sys", "var"] {
        fs::create_dir(new.join(name)).step(format!("make /{name}"))?;
    }
    devices(old, new)?;
    for (name, options) in SCRATCH {
        scratch(&new.join(name), options)?;
    }
    terminals(new)?;
    nixos(old, new)?;
    let home = new.join(AGENT_HOME.trim_start_matches('/'));
    fs::create_dir(&home).step("make the agent's home")?;
    let sysctl = proc(new)?;
    etc::build(&old.join("etc"), &new.join("etc"), setup)?;
    for path in &setup.mounts {
        expose(path, old, new, READ_ONLY)?;
    }
    expose(&setup.workspace, old, new, READ_WRITE)?;
    let executable = executable(&setup.executable)?;
    mount_remount(new, MountFlags::BIND | READ_ONLY, c"").step("make the root read-only")?;

    // Both names are the same directory: the old root ends up on top of the new one, and is taken off.
    chdir(new).step("enter the bottle")?;
    pivot_root(".", ".").step("move into the bottle")?;
    unmount(".", UnmountFlags::DETACH).step("let go of the host's files")?;
    chdir("/").step("enter the bottle")?;
    Ok(Kept { executable, sysctl })
}

fn system(source: &Path, target: &Path, name: &str) -> Result<(), StepError> {
    match fs::symlink_metadata(source) {
        Ok(meta) if meta.is_symlink() => {
            let to = fs::read_link(source).step(format!("read the link /{name}"))?;
            symlink(to, target).step(format!("make the link /{name}"))
        }
        Ok(meta) if meta.is_dir() => {
            fs::create_dir(target).step(format!("make /{name}"))?;
            bind(source, target, READ_ONLY).step(format!("mount /{name}"))
        }
        _ => Ok(()),
    }
}

/// There, programs are below `/run/current-system`, a link into `/nix`; `/run` is a tmpfs of ours.
///
/// Of `/nix` only the store: below `/nix/var` the daemon listens, and it fetches from the network for anyone.
fn nixos(old: &Path, new: &Path) -> Result<(), StepError> {
    let store = new.join("nix/store");
    if old.join("nix/store").is_dir() {
        fs::create_dir_all(&store).step("make /nix/store")?;
        bind(&old.join("nix/store"), &store, READ_ONLY).step("mount /nix/store")?;
    }
    let Ok(system) = fs::read_link(old.join("run/current-system")) else {
        return Ok(());
    };
    symlink(system, new.join("run/current-system")).step("make the link /run/current-system")
}

fn devices(old: &Path, new: &Path) -> Result<(), StepError> {
    let dev = new.join("dev");
    mount(
        "tmpfs",
        &dev,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        c"mode=755,size=64k",
    )
    .step("mount /dev")?;
    for name in DEVICES {
        let target = dev.join(name);
        File::create(&target).step(format!("make /dev/{name}"))?;
        // Read-only keeps the node's owner and mode as they are; it does not keep a device from being written to.
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC;
        bind(&old.join("dev").join(name), &target, flags).step(format!("mount /dev/{name}"))?;
    }
    let links = [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
    ];
    for (to, name) in links {
        symlink(to, dev.join(name)).step(format!("make /dev/{name}"))?;
    }
    Ok(())
}

/// Terminals of the bottle's own: those of the host are in another instance.
fn terminals(new: &Path) -> Result<(), StepError> {
    let target = new.join("dev/pts");
    fs::create_dir(&target).step("make /dev/pts")?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount(
        "devpts",
        &target,
        "devpts",
        flags,
        c"newinstance,ptmxmode=0666,mode=620",
    )
    .step("mount /dev/pts")?;
    mount_remount(
        new.join("dev"),
        MountFlags::BIND | MountFlags::RDONLY | flags,
        c"",
    )
    .step("make /dev read-only")
}

fn scratch(target: &Path, options: &str) -> Result<(), StepError> {
    let name = target.display();
    fs::create_dir_all(target).step(format!("make {name}"))?;
    let options = std::ffi::CString::new(options).step(format!("mount {name}"))?;
    mount("tmpfs", target, "tmpfs", READ_WRITE, &*options).step(format!("mount {name}"))
}

fn proc(new: &Path) -> Result<OwnedFd, StepError> {
    let target = new.join("proc");
    let flags = READ_WRITE | MountFlags::NOEXEC;
    // Shows only what could be traced, so the first process is hidden too. `2` does so but for members of group 0, which
    // is what root's is. Old kernels know neither in a namespace; what they show then cannot be opened either.
    mount("proc", &target, "proc", flags, c"hidepid=4")
        .or_else(|_| mount("proc", &target, "proc", flags, c"hidepid=2"))
        .or_else(|_| mount("proc", &target, "proc", flags, c""))
        .step("mount a new /proc")
        .map_err(|error| {
            error.remedy(
                "the kernel refuses a new /proc where parts of the old one are covered, as in a container; in Docker start the container with --security-opt systempaths=unconfined, or run the launcher outside of it",
            )
        })?;
    let sysctl = rustix::fs::open(
        target.join("sys"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open /proc/sys")?;
    for name in PROC_READ_ONLY {
        let path = target.join(name);
        if path.exists() {
            bind(&path, &path, READ_ONLY | MountFlags::NOEXEC)
                .step(format!("make /proc/{name} read-only"))?;
        }
    }
    for name in PROC_HIDDEN {
        let path = target.join(name);
        if path.exists() {
            bind(
                &new.join("dev/null"),
                &path,
                MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC,
            )
            .step(format!("cover /proc/{name}"))?;
        }
    }
    Ok(sysctl)
}

/// Shows a path of the host's at the same path. It is absolute and free of links: the launcher resolved it.
fn expose(path: &Path, old: &Path, new: &Path, flags: MountFlags) -> Result<(), StepError> {
    let name = path.display();
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::RootDir => {}
            Component::Normal(part) => inside.push(part),
            _ => return Err(std::io::ErrorKind::InvalidInput).step(format!("show {name}")),
        }
    }
    let (source, target) = (old.join(&inside), new.join(&inside));
    // A link here was made after the launcher looked, by somebody who wants it to be followed. Opened once, and what
    // was opened is mounted: nobody can put a link in its place in between.
    let opened = openat2(
        rustix::fs::CWD,
        &source,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
    .step(format!(
        "show {name}, in whose path no symbolic link may stand by now"
    ))?;
    let meta = File::from(opened.try_clone().step("look at it")?)
        .metadata()
        .step(format!("look at {name}"))?;
    let source = PathBuf::from(format!("/old/proc/self/fd/{}", opened.as_raw_fd()));
    if meta.is_dir() {
        fs::create_dir_all(&target).step(format!("make {name}"))?;
    } else {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).step(format!("make the directory of {name}"))?;
        }
        if !target.exists() {
            File::create(&target).step(format!("make {name}"))?;
        }
    }
    bind(&source, &target, flags).step(format!("mount {name}"))
}

fn executable(path: &Path) -> Result<OwnedFd, StepError> {
    let step = || format!("open the launcher's executable {}", path.display());
    let place = Path::new("/executable");
    let inside = Path::new("/old").join(path.strip_prefix("/").unwrap_or(path));
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    if identity(&inside).step(step())? != identity(Path::new("/old/proc/self/exe")).step(step())? {
        let error =
            std::io::Error::other("it was replaced while the launcher started; start again");
        return Err(error).step(step());
    }
    File::create(place).step(step())?;
    bind(&inside, place, READ_ONLY).step(step())?;
    let kept =
        rustix::fs::open(place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(step())?;
    unmount(place, UnmountFlags::DETACH).step(step())?;
    Ok(kept)
}
