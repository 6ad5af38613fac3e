//! Apple's `container`, each of whose containers is a micro-VM: no backend, and why.
//!
//! Read in its documents, source and issues in November 2026, not run:
//!
//! * A host-only network (`container network create --internal`) is no boundary: it lets TCP out to any address that is not
//!   asked for by name (apple/container#2062, seen on 1.2.0), and its gateway is the host, all of it (#1320).
//! * `--network none` attaches no interface (the reserved name, in the source of 1.1.0; no document names it). That is what a
//!   bottle needs. A socket of the host's gets in by `--ssh` alone, as that of `SSH_AUTH_SOCK`; `--publish-socket` leads
//!   the other way.
//! * What the launcher runs in a guest is itself, and a guest is Linux: on a Mac there would have to be two of it.
//!
//! A bottle that was never seen to hold is not offered, however well its command line reads.

/// What a user is told who asks for it, for the system `os` (`std::env::consts::OS`).
pub fn refusal(os: &str) -> String {
    match os {
        "macos" => "its host-only networks let TCP out (apple/container#2062), and a bottle on `--network none` was never \
            seen to hold; use --backend smolmachines, or a Linux machine"
            .into(),
        _ => format!("it is for macOS, and this is {os}; use --backend local"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_system_is_told_what_to_use() {
        let linux = refusal("linux");
        assert!(
            linux.contains("this is linux") && linux.contains("--backend local"),
            "{linux}"
        );
        let mac = refusal("macos");
        assert!(
            mac.contains("#2062") && mac.contains("--backend smolmachines"),
            "{mac}"
        );
        assert!(!mac.contains("  "), "{mac}");
    }
}
