//! What a probe found.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One attempt to get out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    /// Whether the boundary held.
    pub held: bool,
    pub detail: String,
}

/// All attempts; there is none of these with a check that failed.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    checks: Vec<Check>,
}

impl Proof {
    /// Takes exactly the checks that were `expected`, all of which must have held: a probe that was cut short proves
    /// nothing. What failed, otherwise.
    pub fn new(checks: Vec<Check>, expected: &[&str]) -> Result<Self, String> {
        let failed: Vec<_> = checks
            .iter()
            .filter(|check| !check.held)
            .map(ToString::to_string)
            .collect();
        if !failed.is_empty() {
            return Err(failed.join("; "));
        }
        for name in expected {
            if !checks.iter().any(|check| check.name == *name) {
                return Err(format!("the probe did not report on `{name}`"));
            }
        }
        Ok(Self { checks })
    }

    pub fn checks(&self) -> &[Check] {
        &self.checks
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, held: bool) -> Check {
        Check {
            name: name.into(),
            held,
            detail: "detail".into(),
        }
    }

    #[test]
    fn one_that_failed_or_is_missing_is_no_proof() {
        assert!(Proof::new(vec![check("a", true), check("b", true)], &["a", "b"]).is_ok());
        assert_eq!(
            Proof::new(vec![check("a", true), check("b", false)], &["a", "b"]).unwrap_err(),
            "b: detail"
        );
        assert!(Proof::new(vec![check("a", true)], &["a", "b"]).is_err());
        assert!(Proof::new(vec![], &["a"]).is_err());
    }
}
