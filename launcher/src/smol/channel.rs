//! How a machine's guest reaches the sidecar, chosen by what this smolvm has; the strongest first.
//!
//! * `socket`, from 1.8.0 on with `--mount-socket`: no network; a relay on the alias, to the sidecar's socket, which is
//!   mounted. Locked: no network, no port, our socket alone.
//! * `interceptor`, from 1.32.2 on, where it is asked for: virtio-net, whose every TCP connection smolvm hands to the
//!   sidecar; a relay on the alias, to an address that means the sidecar. Locked: the list is that address, which is
//!   nobody's, no name is resolved, and the machine starts with an interceptor alone.
//! * `cidr`, from 1.7.0 on, where it is asked for: virtio-net; a relay on the alias, to the sidecar's address. Locked:
//!   the list is that address, no name is resolved. Before 1.8.0 a machine that is made from a pack loses network, list
//!   and filter; where there is no `--allow-host-pattern` the filter cannot be asked for. What is lost is written into
//!   the row.
//!
//! What else smolvm has is refused in words: before 1.1.3 whether a list is enforced depends on the libkrun that is
//! loaded.

use std::fmt;
use std::str::FromStr;

use super::version::{INSTALL, INTERCEPTS, LISTS, Offers, SOCKETS, SQLITE, VIRTIO, Version};

/// Asks for a channel by name, where it is not the strongest that is wanted.
pub const VARIABLE: &str = "BOT_BOTTLE_SMOLVM_CHANNEL";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Socket,
    Cidr,
    Interceptor,
    Tsi,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    #[error(
        "smolvm {0} keeps its state in redb, which its own process locks; install {INSTALL} or newer"
    )]
    Redb(Version),
    #[error(
        "smolvm {0} leaves the allowlist to libkrun's TSI, and whether that enforces it depends on the library that is loaded; install {INSTALL} or newer"
    )]
    Tsi(Version),
    #[error(
        "smolvm {0} has an allowlist whose guest cannot reach the sidecar's alias, and no socket for every machine; install {INSTALL} or newer"
    )]
    Between(Version),
    #[error(
        "this smolvm {version} has no {option}, which its version should have; install smolvm {INSTALL} or newer from its own releases"
    )]
    Lacks {
        version: Version,
        option: &'static str,
    },
    #[error(
        "the channel `interceptor` needs smolvm {INTERCEPTS} or newer, and this is {0}; unset {VARIABLE} for `socket`"
    )]
    Interceptor(Version),
    #[error(
        "the channel `tsi` is not available: in smolvm {0} no list is enforced there; unset {VARIABLE} for `socket`"
    )]
    NoTsi(Version),
    #[error("{VARIABLE} is {0:?}; there are: socket, interceptor, cidr (tsi is not available)")]
    Unknown(String),
}

/// The channel that is used, or why there is none. `asked` is what the user wants instead of the strongest.
pub fn choose(version: Version, offers: Offers, asked: Option<Kind>) -> Result<Kind, ChannelError> {
    if version < SQLITE {
        return Err(ChannelError::Redb(version));
    }
    if version < VIRTIO {
        return Err(ChannelError::Tsi(version));
    }
    let oldest = match asked {
        Some(Kind::Cidr) => LISTS,
        _ => SOCKETS,
    };
    if version < oldest {
        return Err(ChannelError::Between(version));
    }
    let lacks = |option| ChannelError::Lacks { version, option };
    for (there, option) in [(offers.name, "--name"), (offers.image, "--image")] {
        if !there {
            return Err(lacks(option));
        }
    }
    match asked {
        None if offers.mount_socket => Ok(Kind::Socket),
        // The weaker one only where it was asked for: it needs an address of the host's.
        None => Err(lacks("--mount-socket")),
        Some(Kind::Socket) if offers.mount_socket => Ok(Kind::Socket),
        Some(Kind::Socket) => Err(lacks("--mount-socket")),
        Some(Kind::Cidr) if offers.allow_cidr => Ok(Kind::Cidr),
        Some(Kind::Cidr) => Err(lacks("--allow-cidr")),
        Some(Kind::Interceptor) if version < INTERCEPTS => Err(ChannelError::Interceptor(version)),
        Some(Kind::Interceptor)
            if offers.interceptor && offers.allow_cidr && offers.allow_host_pattern =>
        {
            Ok(Kind::Interceptor)
        }
        Some(Kind::Interceptor) => Err(lacks(
            "--egress-interceptor with --allow-cidr and --allow-host-pattern",
        )),
        Some(Kind::Tsi) => Err(ChannelError::NoTsi(version)),
    }
}

/// What [`VARIABLE`] asks for; nothing where it is empty.
pub fn asked(value: Option<&str>) -> Result<Option<Kind>, ChannelError> {
    value
        .filter(|text| !text.is_empty())
        .map(str::parse)
        .transpose()
}

impl FromStr for Kind {
    type Err = ChannelError;

    fn from_str(text: &str) -> Result<Self, ChannelError> {
        match text {
            "socket" => Ok(Self::Socket),
            "cidr" => Ok(Self::Cidr),
            "interceptor" => Ok(Self::Interceptor),
            "tsi" => Ok(Self::Tsi),
            other => Err(ChannelError::Unknown(
                crate::escape::Escaped(other).to_string(),
            )),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Socket => "socket",
            Self::Cidr => "cidr",
            Self::Interceptor => "interceptor",
            Self::Tsi => "tsi",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As each of them has it, measured on the programs themselves.
    fn offers(version: Version) -> Offers {
        let from = |major, minor, patch| version >= Version::new(major, minor, patch);
        Offers {
            name: from(1, 0, 2),
            label: from(1, 8, 0),
            image: true,
            from: true,
            mount_socket: from(1, 6, 4),
            allow_cidr: true,
            allow_host_pattern: from(1, 20, 0),
            interceptor: from(1, 32, 2),
        }
    }

    #[test]
    fn the_table_of_versions() {
        use ChannelError::{Between, Redb, Tsi};
        let v = Version::new;
        type Refusal = fn(Version) -> ChannelError;
        let refused: [(Version, Refusal); 11] = [
            (v(0, 1, 0), Redb),
            (v(0, 5, 20), Redb),
            (v(0, 6, 0), Tsi),
            (v(0, 8, 0), Tsi),
            (v(1, 1, 2), Tsi),
            (v(1, 1, 3), Between),
            (v(1, 4, 0), Between),
            (v(1, 6, 4), Between),
            (v(1, 6, 13), Between),
            (v(1, 7, 0), Between),
            (v(1, 7, 7), Between),
        ];
        for (version, why) in refused {
            let error = choose(version, offers(version), None).unwrap_err();
            assert_eq!(error, why(version));
            assert!(
                error.to_string().contains("install 1.8.0 or newer"),
                "{error}"
            );
        }
        for version in [v(1, 8, 0), v(1, 9, 1), v(1, 32, 2)] {
            assert_eq!(choose(version, offers(version), None), Ok(Kind::Socket));
        }
        let cidr = |version| choose(version, offers(version), Some(Kind::Cidr));
        assert_eq!(cidr(v(1, 6, 13)), Err(Between(v(1, 6, 13))));
        assert_eq!(cidr(v(1, 7, 0)), Ok(Kind::Cidr));
        assert_eq!(cidr(v(1, 8, 0)), Ok(Kind::Cidr));
        assert_eq!(cidr(v(1, 32, 2)), Ok(Kind::Cidr));
        let interceptor = |version| choose(version, offers(version), Some(Kind::Interceptor));
        assert_eq!(interceptor(v(1, 32, 2)), Ok(Kind::Interceptor));
        for version in [v(1, 9, 1), v(1, 32, 1)] {
            let error = interceptor(version).unwrap_err();
            assert!(error.to_string().contains("1.32.2 or newer"), "{error}");
        }
        let error = choose(v(1, 32, 2), offers(v(1, 32, 2)), Some(Kind::Tsi)).unwrap_err();
        assert!(error.to_string().contains("not available"), "{error}");
    }

    #[test]
    fn a_build_without_what_its_version_has_is_refused() {
        let version = Version::new(1, 32, 2);
        let full = offers(version);
        let without = [
            Offers {
                mount_socket: false,
                ..full
            },
            Offers {
                name: false,
                ..full
            },
            Offers {
                image: false,
                ..full
            },
        ];
        for offers in without {
            let error = choose(version, offers, None).unwrap_err();
            assert!(matches!(error, ChannelError::Lacks { .. }), "{error}");
        }
        let listless = Offers {
            allow_cidr: false,
            ..full
        };
        assert!(choose(version, listless, Some(Kind::Cidr)).is_err());
        let blind = Offers {
            allow_host_pattern: false,
            ..full
        };
        assert_eq!(choose(version, blind, Some(Kind::Cidr)), Ok(Kind::Cidr));
        let uninterrupted = Offers {
            interceptor: false,
            ..full
        };
        for offers in [blind, uninterrupted] {
            let error = choose(version, offers, Some(Kind::Interceptor)).unwrap_err();
            assert!(matches!(error, ChannelError::Lacks { .. }), "{error}");
        }
    }

    #[test]
    fn what_is_asked_for() {
        assert_eq!(asked(None), Ok(None));
        assert_eq!(asked(Some("")), Ok(None));
        assert_eq!(asked(Some("cidr")), Ok(Some(Kind::Cidr)));
        assert!(asked(Some("Socket")).is_err());
    }
}
