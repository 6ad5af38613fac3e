//! What was typed.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

const AFTER_HELP: &str = "\
Reports:
  text   one line a finding: PATH:LINE:COLUMN: RULE: CREDENTIAL [via DECODINGS]: CONTEXT
  json   one array of objects: path, line, column, end_line, end_column, offset, length, rule, credential, severity,
         confidence, via, context, structural, fingerprint
  sarif  SARIF 2.1.0
  Lines and columns count from 1, columns in characters; the end is the place after the last character; offset and
  length are bytes. A credential itself is in no report. A fingerprint is made of rule, path and the redacted line, so
  a baseline also covers another credential of the same kind that later stands in the same line.

A line that holds `gitleaks:allow` or `bot-bottle:allow` allows the findings in it. The proxy knows no such mark.

Exit codes: 0 clean, 1 something could not be read, 2 usage, 10 findings.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Files and directories; `-` is standard input
    #[arg(value_name = "PATH|-", default_value = ".")]
    pub paths: Vec<PathBuf>,
    /// How the report is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Write the report there; `-`, the default, is stdout
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Also look for what this file describes
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Also look, in any encoding, for the values of EGRESS_TOKEN_* and of BOT_BOTTLE_SENSITIVE_PREFIXES
    #[arg(long)]
    pub known_from_env: bool,
    /// Leave out what this report (of --format json) lists
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Report findings whose line says `gitleaks:allow` or `bot-bottle:allow` too
    #[arg(long)]
    pub no_allow_comments: bool,
    /// Scan what .gitignore, .ignore and git's excludes name too
    #[arg(long)]
    pub no_ignore: bool,
    /// Scan hidden files and directories too, but never .git
    #[arg(long)]
    pub hidden: bool,
    /// Skip larger files, such as 10M; default: none is too large
    #[arg(long, value_name = "SIZE")]
    pub max_file_size: Option<ByteSize>,
    /// Exit code when something was found
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub exit_code: u8,
    /// Print the rules and scan nothing
    #[arg(long)]
    pub list_rules: bool,
    /// Say which files were scanned and which were skipped
    #[arg(long, short, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Say nothing on stderr but errors
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
    Sarif,
}

/// A number of bytes, written as `4096`, `64K`, `10MiB` (powers of 1024) or `10MB` (powers of 1000).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(u64);

impl ByteSize {
    pub fn bytes(self) -> u64 {
        self.0
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a size is a whole number of bytes, or one with a unit such as 64K, 10M, 2GiB or 10MB")]
pub struct ByteSizeError;

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or(ByteSizeError)?;
        let number: u64 = number.parse().map_err(|_| ByteSizeError)?;
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            _ => return Err(ByteSizeError),
        };
        number.checked_mul(factor).map(Self).ok_or(ByteSizeError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let bytes = |text: &str| text.parse().ok().map(ByteSize::bytes);
        assert_eq!(bytes("0"), Some(0));
        assert_eq!(bytes("64K"), Some(65536));
        assert_eq!(bytes("10mib"), Some(10 << 20));
        assert_eq!(bytes("10MB"), Some(10_000_000));
        for wrong in ["", "M", "-1", "1.5M", "1 M", "1T", "99999999999G", "é"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
