//! Which smolvm it is, and what it can do.
//!
//! The version says what is known of its behaviour, its help what this build has: forks and distributions differ. Both
//! are asked, and neither alone is believed.

use std::fmt;

/// As smolvm numbers its releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`smolvm --version` says {0:?}, which is not the version of a smolvm; install {INSTALL} or newer"
)]
pub struct VersionError(pub String);

/// The first that mounts sockets where an image's programs see them: in 1.7.7 they are the guest's own system's.
pub const SOCKETS: Version = Version::new(1, 8, 0);
/// The oldest whose list is used.
pub const LISTS: Version = Version::new(1, 7, 0);
/// The first whose machines keep their list whatever they are created from; before, one made from a pack loses it.
pub const KEEPS_LISTS: Version = Version::new(1, 8, 0);
/// The first that keeps its state in SQLite.
pub const SQLITE: Version = Version::new(0, 6, 0);
/// The first that puts a machine with a list on virtio-net, where the guest owns 127/8.
pub const VIRTIO: Version = Version::new(1, 1, 3);
/// The first that was seen to hand every connection of a guest's to an interceptor.
pub const INTERCEPTS: Version = Version::new(1, 32, 2);
/// What refusals tell to install.
pub const INSTALL: Version = KEEPS_LISTS;

impl Version {
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// `smolvm X.Y.Z`, one line and nothing else. Notes of packed builds go to standard error.
    pub fn parse(said: &str) -> Result<Self, VersionError> {
        let bad = || {
            let short: String = said.chars().take(80).collect();
            VersionError(crate::escape::Escaped(&short).to_string())
        };
        let line = said.strip_suffix('\n').unwrap_or(said);
        let text = line.strip_prefix("smolvm ").ok_or_else(bad)?;
        Self::numbers(text).ok_or_else(bad)
    }

    /// `X.Y.Z` and nothing else.
    pub fn numbers(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(number);
        match (
            numbers.next(),
            numbers.next(),
            numbers.next(),
            numbers.next(),
        ) {
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => {
                Some(Self::new(major, minor, patch))
            }
            _ => None,
        }
    }
}

/// Digits alone, without a sign or a leading zero.
fn number(text: &str) -> Option<u32> {
    let plain = !text.is_empty()
        && text.len() <= 6
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok())?
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What `machine create --help` and `machine start --help` offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// A machine is named by an option, not by its place.
    pub name: bool,
    pub label: bool,
    pub image: bool,
    /// A machine can be made from a pack.
    pub from: bool,
    pub mount_socket: bool,
    pub allow_cidr: bool,
    /// A filter of host names that takes a pattern. `--allow-host` takes only what the host can resolve.
    pub allow_host_pattern: bool,
    pub interceptor: bool,
}

impl Offers {
    pub fn parse(create: &str, start: &str) -> Self {
        let options = |help: &str| -> Vec<String> {
            help.lines()
                .map(str::trim_start)
                .filter(|line| line.starts_with('-'))
                .flat_map(|line| {
                    line.split([' ', ',', '='])
                        .filter(|word| word.starts_with("--"))
                        .map(str::to_owned)
                        .collect::<Vec<_>>()
                })
                .collect()
        };
        let (create, start) = (options(create), options(start));
        let has = |name: &str| create.iter().any(|option| option == name);
        Self {
            name: has("--name"),
            label: has("--label"),
            image: has("--image"),
            from: has("--from"),
            mount_socket: has("--mount-socket"),
            allow_cidr: has("--allow-cidr"),
            allow_host_pattern: has("--allow-host-pattern"),
            interceptor: start.iter().any(|option| option == "--egress-interceptor"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_strictly() {
        assert_eq!(
            Version::parse("smolvm 1.32.2\n"),
            Ok(Version::new(1, 32, 2))
        );
        assert_eq!(Version::parse("smolvm 0.8.0"), Ok(Version::new(0, 8, 0)));
        for rubbish in [
            "",
            "smolvm",
            "smolvm 1.2",
            "smolvm 1.2.3.4",
            "smolvm 1.2.x",
            "smolvm 1.2.-3",
            "smolvm 1.2.+3",
            "smolvm 01.2.3",
            "smolvm 1.2.3-rc1",
            "smolvm 1.2.3 (abc)",
            "Smolvm 1.2.3",
            "smolvm  1.2.3",
            "note\nsmolvm 1.2.3",
            "smolvm 1.2.3\n\n",
            "smolvm 1.2.99999999999",
            "docker 1.2.3",
            "smolvm \u{661}.2.3",
        ] {
            assert!(Version::parse(rubbish).is_err(), "{rubbish:?}");
        }
        let said = Version::parse("\x1b[2Jhello").unwrap_err().to_string();
        assert!(!said.contains('\x1b'), "{said:?}");
        assert!(Version::new(1, 10, 0) > Version::new(1, 9, 9));
    }

    #[test]
    fn help_is_read_by_its_options() {
        // As 1.32.2 prints them; a text that only mentions an option does not offer it.
        let create = "Options:\n  -n, --name <NAME>\n          Name\n      --label <KEY=VALUE>\n          e.g. `--label owner=exo`, not --mount-socket\n  -I, --image <IMAGE>\n      --allow-cidr <CIDR>\n      --allow-host-pattern <PATTERN>\n";
        let offers = Offers::parse(create, "      --egress-interceptor <ADDR>  Route");
        assert!(offers.name && offers.label && offers.image && offers.allow_cidr);
        assert!(offers.allow_host_pattern && offers.interceptor);
        assert!(!offers.mount_socket && !offers.from);
        assert_eq!(Offers::parse("", ""), Offers::default());
    }
}
