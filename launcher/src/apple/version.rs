//! Which `container` it is. The version says what is known of its behaviour; what it makes of a request is read back.

use std::fmt;

use crate::smol::version::Version;

/// The first whose containers can do without a network and still have a socket of the host's (seen by others:
/// provos/ironcurtain#371; before it both were refused or did not work).
pub const FIRST: Version = Version::new(1, 1, 0);
/// The first that nobody has looked at.
pub const NEXT: Version = Version::new(2, 0, 0);
/// What the program calls itself, and its service.
pub const PROGRAM: &str = "container CLI";
pub const SERVICE: &str = "container-apiserver";

/// A release, from before [`NEXT`] and not before [`FIRST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release(Version);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    #[error("it says {0:?}, which is not the version of a release of Apple's `container`")]
    Unknown(String),
    #[error(
        "version {0} is older than {FIRST}: its containers have a network, or no socket of the host's"
    )]
    Old(Version),
    #[error("version {0} is newer than this launcher knows; it knows 1.x")]
    New(Version),
}

impl Release {
    /// `NAME version X.Y.Z (build: release, commit: HEX)`, one line and nothing else.
    pub fn parse(name: &str, said: &str) -> Result<Self, ReleaseError> {
        let line = said.strip_suffix('\n').unwrap_or(said);
        let version = line
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(" version "))
            .and_then(|rest| rest.strip_suffix(')'))
            .and_then(|rest| rest.split_once(" (build: release, commit: "))
            .filter(|(_, commit)| is_commit(commit))
            .and_then(|(version, _)| Version::numbers(version));
        let Some(version) = version else {
            let short: String = said.chars().take(80).collect();
            return Err(ReleaseError::Unknown(
                crate::escape::Escaped(&short).to_string(),
            ));
        };
        if version < FIRST {
            return Err(ReleaseError::Old(version));
        }
        if version >= NEXT {
            return Err(ReleaseError::New(version));
        }
        Ok(Self(version))
    }
}

fn is_commit(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text == "unspecified" || ((7..=40).contains(&text.len()) && text.bytes().all(hex))
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_strictly() {
        let parse = |said: &str| Release::parse(PROGRAM, said);
        for (said, version) in [
            (
                "container CLI version 1.2.2 (build: release, commit: 0190097)\n",
                "1.2.2",
            ),
            (
                "container CLI version 1.1.0 (build: release, commit: unspecified)",
                "1.1.0",
            ),
        ] {
            assert_eq!(parse(said).unwrap().to_string(), version);
        }
        for rubbish in [
            "",
            "container",
            "container CLI version 1.2 (build: release, commit: 0190097)",
            "container CLI version 1.2.2",
            "container CLI version 1.2.2 (build: debug, commit: 0190097)",
            "container CLI version 1.2.2-rc1 (build: release, commit: 0190097)",
            "container CLI version 01.2.2 (build: release, commit: 0190097)",
            "container CLI version 1.2.2 (build: release, commit: )",
            "container CLI version 1.2.2 (build: release, commit: 0190097) x",
            "container CLI version 1.2.2 (build: release, commit: xyzxyzx)",
            "container-apiserver version 1.2.2 (build: release, commit: 0190097)",
            "Docker version 28.0.1, build 068a01e",
            "warning\ncontainer CLI version 1.2.2 (build: release, commit: 0190097)",
            "container CLI version 1.2.2 (build: release, commit: 0190097)\n\n",
        ] {
            assert!(
                matches!(parse(rubbish), Err(ReleaseError::Unknown(_))),
                "{rubbish:?}"
            );
        }
        let old = |version: &str| {
            parse(&format!(
                "container CLI version {version} (build: release, commit: 0190097)"
            ))
            .unwrap_err()
        };
        for version in ["0.12.3", "1.0.0"] {
            assert!(matches!(old(version), ReleaseError::Old(_)), "{version}");
        }
        assert!(matches!(old("2.0.0"), ReleaseError::New(_)));
        let said = parse("\x1b[2Jhello").unwrap_err().to_string();
        assert!(!said.contains('\x1b'), "{said:?}");
    }
}
