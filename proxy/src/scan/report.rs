//! The report: for people, for scripts, and for what shows findings beside the code.

mod sarif;

use std::io;

use serde::Serialize;

use super::entry::Entry;
use super::escape;
use super::rules::Listed;

#[derive(Debug)]
pub(super) struct Report<'r> {
    pub(super) entries: &'r [Entry],
    /// What could not be read.
    pub(super) problems: &'r [String],
    pub(super) rules: &'r [Listed],
}

impl Report<'_> {
    /// One line a finding.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for entry in self.entries {
            let via = if entry.via.is_empty() {
                String::new()
            } else {
                format!(" via {}", entry.via.join(", "))
            };
            text.push_str(&format!(
                "{}:{}:{}: {}: {}{via}: {}\n",
                escape::bytes(&entry.path.shown),
                entry.line,
                entry.column,
                escape::text(&entry.rule),
                escape::text(&entry.credential),
                escape::text(entry.context.trim()),
            ));
        }
        text
    }

    pub(super) fn json(&self) -> io::Result<String> {
        pretty(self.entries)
    }

    pub(super) fn sarif(&self) -> io::Result<String> {
        pretty(&sarif::log(self))
    }
}

pub(super) fn pretty(value: &(impl Serialize + ?Sized)) -> io::Result<String> {
    let mut text = escape::json(&serde_json::to_string_pretty(value)?);
    text.push('\n');
    Ok(text)
}
