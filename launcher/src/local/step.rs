//! An error of a bottle's own processes: which step, what the kernel said, what would mend it.

use std::fmt;
use std::io;

use super::wire::Report;

#[derive(Debug)]
pub struct StepError {
    step: String,
    source: io::Error,
    remedy: Option<String>,
}

impl StepError {
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub fn os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    pub fn into_report(self) -> Report {
        Report::Failed {
            step: self.step,
            error: self.source.to_string(),
            remedy: self.remedy,
        }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.source)
    }
}

impl std::error::Error for StepError {}

pub trait Step<T> {
    /// Names what was tried.
    fn step(self, step: impl Into<String>) -> Result<T, StepError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: impl Into<String>) -> Result<T, StepError> {
        self.map_err(|error| StepError {
            step: step.into(),
            source: error.into(),
            remedy: None,
        })
    }
}
