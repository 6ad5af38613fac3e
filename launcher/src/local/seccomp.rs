//! The filter of system calls that a bottle's programs run under.
//!
//! A deny-list: an allow-list would break a toolchain a week. It takes away what is not fenced by a namespace (vsock, the
//! keyrings, the terminal's input queue), what makes new namespaces and mounts, and large, rarely needed parts of the
//! kernel that have been ways out before (io_uring, bpf, userfaultfd, perf).
//!
//! What it forbids answers EPERM, so that a program can do without. Another architecture's calls end the process.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Is,
    SeccompCondition as Condition, SeccompFilter, SeccompRule, TargetArch, apply_filter,
    sock_filter,
};

#[cfg(target_arch = "aarch64")]
use super::syscalls::aarch64 as number;
#[cfg(target_arch = "x86_64")]
use super::syscalls::x86_64 as number;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Flags of clone(2) that make a namespace. `CLONE_NEWTIME` shares its bit with the exit signal and is unshare's alone.
const NAMESPACES: [u64; 7] = [
    0x0002_0000,
    0x0200_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
];

const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;
/// Of the internet families: none given, ICMP, TCP, UDP, ICMPv6. Others load kernel modules that nothing here needs.
const PROTOCOLS: [u64; 5] = [0, 1, 6, 17, 58];

/// `TIOCSTI` types into a terminal, `TIOCLINUX` pastes into a console, `TIOCSETD` loads line disciplines, `TIOCCONS`
/// takes the console's output. The kernel looks at 32 bits of the request only, and so do we.
const IOCTLS: [u64; 4] = [0x5412, 0x541c, 0x5423, 0x541d];

const RLIMIT_CORE: u64 = 4;

/// Puts this thread, and what it becomes, under the filter. Sets no_new_privs.
pub fn apply() -> io::Result<()> {
    for program in programs()? {
        apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

fn programs() -> io::Result<Vec<BpfProgram>> {
    let denied = compile(denied()?, EPERM)?;
    // The C library asks with clone3, whose flags are in memory that a filter cannot read; told that there is none, it
    // asks with clone.
    // openat2 has its mode there as well; who is told that there is none asks with openat.
    let unknown = BTreeMap::from([(number::CLONE3, Vec::new()), (number::OPENAT2, Vec::new())]);
    let unknown = compile(unknown, ENOSYS)?;
    let mut programs = vec![unknown, denied];
    if cfg!(target_arch = "x86_64") {
        programs.insert(0, no_x32());
    }
    Ok(programs)
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: u32) -> io::Result<BpfProgram> {
    let arch = if cfg!(target_arch = "x86_64") {
        TargetArch::x86_64
    } else {
        TargetArch::aarch64
    };
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(errno),
        arch,
    )
    .and_then(BpfProgram::try_from)
    .map_err(io::Error::other)
}

fn denied() -> io::Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = number::ALWAYS
        .iter()
        .map(|number| (*number, Vec::new()))
        .collect();
    rules.insert(
        number::CLONE,
        NAMESPACES
            .iter()
            .map(|flag| rule(&[(0, Width::Qword, Is::MaskedEq(*flag), *flag)]))
            .collect::<Result<_, _>>()?,
    );
    rules.insert(
        number::IOCTL,
        IOCTLS
            .iter()
            .map(|request| rule(&[(1, Width::Dword, Is::Eq, *request)]))
            .collect::<Result<_, _>>()?,
    );
    for (call, mode, flags) in number::MODES {
        rules.insert(call, privileged_modes(mode, flags)?);
    }
    rules.insert(number::SOCKET, sockets()?);
    rules.insert(number::SOCKETPAIR, sockets()?);
    // The limit that keeps the host's core handler from running for the agent's crashes.
    rules.insert(
        number::SETRLIMIT,
        vec![rule(&[(0, Width::Dword, Is::Eq, RLIMIT_CORE)])?],
    );
    rules.insert(
        number::PRLIMIT64,
        vec![rule(&[
            (1, Width::Dword, Is::Eq, RLIMIT_CORE),
            (2, Width::Qword, Is::Ne, 0),
        ])?],
    );
    Ok(rules)
}

/// Set-user-id and set-group-id bits: they mean nothing in the bottle, and on the host they would give whoever runs the
/// file the rights of the launcher's user.
fn privileged_modes(mode: u8, flags: Option<u8>) -> io::Result<Vec<SeccompRule>> {
    const BITS: [u64; 2] = [0o4000, 0o2000];
    // Without these two the argument is not read, and may be anything.
    const CREATES: [u64; 2] = [0o100, 0o20_000_000];
    let mut rules = Vec::new();
    for bit in BITS {
        let set = (mode, Width::Dword, Is::MaskedEq(bit), bit);
        match flags {
            None => rules.push(rule(&[set])?),
            Some(flags) => {
                for flag in CREATES {
                    let creates = (flags, Width::Dword, Is::MaskedEq(flag), flag);
                    rules.push(rule(&[set.clone(), creates])?);
                }
            }
        }
    }
    Ok(rules)
}

fn sockets() -> io::Result<Vec<SeccompRule>> {
    let not = |argument: u8, value: u64| (argument, Width::Dword, Is::Ne, value);
    let is = |argument: u8, value: u64| (argument, Width::Dword, Is::Eq, value);
    let protocols = PROTOCOLS.map(|protocol| not(2, protocol));
    Ok(vec![
        // vsock, packet, Bluetooth, CAN, AF_ALG and the like: some of these are not in a namespace at all.
        rule(&[
            not(0, AF_UNIX),
            not(0, AF_INET),
            not(0, AF_INET6),
            not(0, AF_NETLINK),
        ])?,
        // Only rtnetlink, by which programs list their interfaces.
        rule(&[is(0, AF_NETLINK), not(2, 0)])?,
        rule(&[&[is(0, AF_INET)], &protocols[..]].concat())?,
        rule(&[&[is(0, AF_INET6)], &protocols[..]].concat())?,
    ])
}

fn rule(conditions: &[(u8, Width, Is, u64)]) -> io::Result<SeccompRule> {
    let conditions = conditions
        .iter()
        .map(|(argument, width, operator, value)| {
            Condition::new(*argument, width.clone(), operator.clone(), *value)
        })
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;
    SeccompRule::new(conditions).map_err(io::Error::other)
}

/// x32 calls pass as x86-64 with bit 30 of their number set, beside every rule that names a number.
fn no_x32() -> BpfProgram {
    const LOAD_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS, of `struct seccomp_data` at 0
    const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        instruction(LOAD_NUMBER, 0, 0, 0),
        instruction(JUMP_IF_GREATER_OR_EQUAL, 0, 1, 0x4000_0000),
        instruction(RETURN, 0, 0, ERRNO | ENOSYS),
        instruction(RETURN, 0, 0, ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile() {
        let programs = programs().unwrap();
        assert!(
            programs
                .iter()
                .all(|program| !program.is_empty() && program.len() < 4096)
        );
    }
}
