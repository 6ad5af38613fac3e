//! The exit codes: a promise to scripts, listed in `launcher --help` and in the documentation.

use std::process::ExitCode;

/// How the launcher ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Ok,
    /// Something broke that is not one of the following.
    Failed,
    /// The command line or a manifest is wrong; nothing was started.
    Usage,
    /// This host lacks something that the backend needs; nothing was started.
    Preflight,
    /// The boundary could not be confirmed; the agent did not run.
    NotLocked,
    /// The agent has ended, and something of its bottle could not be removed.
    TeardownIncomplete,
    /// `check` and `scan` found something.
    Findings,
    /// The agent's own: its code, or 128 and the number of the signal that ended it.
    Agent(u8),
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Preflight => 3,
            Self::NotLocked => 4,
            Self::TeardownIncomplete => 5,
            Self::Findings => 10,
            Self::Agent(code) => code,
        }
    }

    /// A process that was ended by `signal`, as shells report it.
    pub fn signalled(signal: i32) -> Self {
        Self::Agent(u8::try_from(128 + signal.clamp(0, 127)).unwrap_or(u8::MAX))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_a_promise() {
        let codes = [
            Exit::Ok,
            Exit::Failed,
            Exit::Usage,
            Exit::Preflight,
            Exit::NotLocked,
            Exit::TeardownIncomplete,
            Exit::Findings,
            Exit::Agent(42),
            Exit::signalled(9),
        ]
        .map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 10, 42, 137]);
    }
}
