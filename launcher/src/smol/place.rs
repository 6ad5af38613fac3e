//! Where smolvm keeps its state, and the environment that every call of it gets: one truth for both, so that the file
//! that we read is the file that it writes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::platform;
use crate::vm::call;

/// smolvm's own variables that say where its parts lie. All others decide about networks and machines, and are not
/// passed.
const PARTS: [&str; 2] = ["SMOLVM_LIB_DIR", "SMOLVM_AGENT_ROOTFS"];
/// What any program needs.
const PLAIN: [&str; 6] = ["PATH", "LANG", "TERM", "TMPDIR", "USER", "LOGNAME"];
/// Absolute ones alone count for smolvm; they are pinned to what the first call saw.
const DIRECTORIES: [&str; 2] = ["XDG_CACHE_HOME", "XDG_RUNTIME_DIR"];
const DATA: &str = "XDG_DATA_HOME";
/// smolvm 1.2.5 and newer takes it for `HOME` and forgets `XDG_DATA_HOME`. So do we, and pass the result.
const DATA_DIR: &str = "SMOLVM_DATA_DIR";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    home: PathBuf,
    data: Option<PathBuf>,
    passed: Vec<(&'static str, OsString)>,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "HOME is not set to an absolute path, so nobody knows where smolvm keeps its state; set it"
)]
pub struct NoHome;

impl Place {
    pub fn locate() -> Result<Self, NoHome> {
        Self::from(|name| std::env::var_os(name))
    }

    fn from(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, NoHome> {
        let absolute = |name: &str| {
            variable(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let moved = platform::HAS_DATA_DIR.then(|| absolute(DATA_DIR)).flatten();
        let data = match &moved {
            Some(_) => None,
            None => absolute(DATA),
        };
        let home = moved.or_else(|| absolute("HOME")).ok_or(NoHome)?;
        let plain = PARTS
            .iter()
            .chain(&PLAIN)
            .filter_map(|name| Some((*name, variable(name)?)));
        let directories = DIRECTORIES
            .iter()
            .filter_map(|name| Some((*name, absolute(name)?.into())));
        let passed = plain.chain(directories).collect();
        Ok(Self { home, data, passed })
    }

    /// As it is now, with the state where it was when a note was written.
    pub fn at(self, home: PathBuf, data: Option<PathBuf>) -> Self {
        Self { home, data, ..self }
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    pub fn data(&self) -> Option<&Path> {
        self.data.as_deref()
    }

    /// The whole environment of a call.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut all = self.passed.clone();
        all.push(("HOME", self.home.clone().into()));
        if let Some(data) = &self.data {
            all.push((DATA, data.clone().into()));
        }
        all
    }

    /// The state: `dirs::data_local_dir()/smolvm/server/smolvm.db` (smolvm `src/db.rs`, 0.6.0 and newer).
    pub fn database(&self) -> PathBuf {
        platform::data_directory(&self.home, self.data.as_deref())
            .join("smolvm")
            .join("server")
            .join("smolvm.db")
    }

    /// Machines have sockets below it, whose paths are limited.
    pub fn cache(&self) -> PathBuf {
        self.passed
            .iter()
            .find(|(name, _)| *name == "XDG_CACHE_HOME")
            .map_or_else(
                || platform::cache_directory(&self.home),
                |(_, path)| PathBuf::from(path),
            )
    }

    /// The program that would be run.
    pub fn program(&self) -> Option<PathBuf> {
        let path = self
            .passed
            .iter()
            .find(|(name, _)| *name == "PATH")
            .map(|(_, path)| path)?;
        call::find("smolvm", path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(variables: &[(&str, &str)]) -> Result<Place, NoHome> {
        Place::from(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).into())
        })
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_state_is_where_smolvm_has_it() {
        let database = |variables: &[(&str, &str)]| place(variables).unwrap().database();
        let home = Path::new("/home/me/.local/share/smolvm/server/smolvm.db");
        assert_eq!(database(&[("HOME", "/home/me")]), home);
        assert_eq!(
            database(&[("HOME", "/home/me"), ("XDG_DATA_HOME", "/data")]),
            Path::new("/data/smolvm/server/smolvm.db")
        );
        // A relative one is none, as the XDG specification says.
        assert_eq!(
            database(&[("HOME", "/home/me"), ("XDG_DATA_HOME", "data")]),
            home
        );
        assert_eq!(
            database(&[
                ("HOME", "/home/me"),
                ("XDG_DATA_HOME", "/data"),
                ("SMOLVM_DATA_DIR", "/big")
            ]),
            Path::new("/big/.local/share/smolvm/server/smolvm.db")
        );
        assert!(place(&[("HOME", "me")]).is_err());
        assert!(place(&[]).is_err());
    }

    #[test]
    fn nothing_that_opens_a_machine_is_passed() {
        let all = [
            ("HOME", "/home/me"),
            ("PATH", "/bin"),
            ("SMOLVM_LIB_DIR", "/opt/smolvm"),
            ("SMOLVM_MACHINE_NAME", "other"),
            ("SMOLVM_EGRESS_FLOOR", "off"),
            ("SMOLVM_EGRESS_ALLOW_PRIVATE", "1"),
            ("SMOLVM_ALLOW_HOST_LOOPBACK", "1"),
            ("SMOLVM_PUBLISH_ADDR", "0.0.0.0"),
            ("SMOLVM_NETWORK_BACKEND", "tsi"),
            ("SMOLVM_DATA_DIR", "/big"),
            ("SMOLVM_VM_UID_DROP", "off"),
            ("SMOLVM_INTERCEPTOR_TOKEN", "00"),
            ("LD_PRELOAD", "/tmp/x.so"),
            ("GITHUB_TOKEN", "secret"),
        ];
        let place = place(&all).unwrap();
        let names: Vec<_> = place
            .environment()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["SMOLVM_LIB_DIR", "PATH", "HOME"]);
        assert_eq!(place.environment()[2].1, "/big");
    }
}
