//! What goes to stderr: what could not be read, what was left out, how far it has come, and the sum.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::entry::{Name, Totals};
use super::escape;

/// Lines are kept until the end: threads would mix them, and a progress bar would be torn by them.
#[derive(Debug)]
pub(super) struct Talk {
    quiet: bool,
    verbose: bool,
    lines: Mutex<Vec<Line>>,
    bar: Option<ProgressBar>,
    files: AtomicU64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    order: Box<[u8]>,
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Problem,
    Note,
    Detail,
}

impl Talk {
    pub(super) fn new(quiet: bool, verbose: bool) -> Self {
        let bar = (!quiet && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_message("0 files");
            match ProgressStyle::with_template("{spinner} {bytes} in {msg}, {bytes_per_sec}") {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self {
            quiet,
            verbose,
            lines: Mutex::default(),
            bar,
            files: AtomicU64::new(0),
        }
    }

    /// Something was to be read and could not be: the result is not complete.
    pub(super) fn problem(&self, name: &Name, reason: impl Display) {
        self.add(Kind::Problem, name, &reason);
    }

    /// Something was left out that the user may have meant.
    pub(super) fn note(&self, name: &Name, reason: impl Display) {
        if !self.quiet {
            self.add(Kind::Note, name, &reason);
        }
    }

    pub(super) fn detail(&self, name: &Name, what: impl Display) {
        if let Some(bar) = &self.bar {
            let files = self.files.fetch_add(1, Ordering::Relaxed) + 1;
            bar.set_message(format!("{files} files"));
        }
        if self.verbose {
            self.add(Kind::Detail, name, &what);
        }
    }

    /// A note about no file.
    pub(super) fn remark(&self, text: &str) {
        if !self.quiet {
            say(&format!("note: {}", escape::text(text)));
        }
    }

    pub(super) fn progress(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// Prints what was said about files, in their order. Returns the problems.
    pub(super) fn end_of_files(&self) -> Vec<String> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let mut lines =
            std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner));
        lines.sort();
        lines.dedup();
        let mut problems = Vec::new();
        for line in lines {
            match line.kind {
                Kind::Problem => {
                    say(&format!("error: {}", line.text));
                    problems.push(line.text);
                }
                Kind::Note => say(&format!("note: {}", line.text)),
                Kind::Detail => say(&line.text),
            }
        }
        problems
    }

    pub(super) fn sum(&self, totals: &Totals, problems: usize) {
        let count = |number: u64, one: &str, many: &str| {
            format!("{number} {}", if number == 1 { one } else { many })
        };
        let mut text = format!(
            "{} in {}, {}",
            count(totals.entries.len() as u64, "finding", "findings"),
            count(totals.files, "file", "files"),
            HumanBytes(totals.bytes),
        );
        for (number, what) in [
            (totals.allowed, "allowed by a comment"),
            (totals.known, "in the baseline"),
            (problems as u64, "not read"),
        ] {
            if number > 0 {
                text.push_str(&format!("; {number} {what}"));
            }
        }
        if !self.quiet {
            say(&text);
        }
    }

    fn add(&self, kind: Kind, name: &Name, what: &dyn Display) {
        let line = Line {
            order: name.order.clone(),
            kind,
            text: format!(
                "{}: {}",
                escape::bytes(&name.shown),
                escape::text(&what.to_string())
            ),
        };
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }
}

fn say(line: &str) {
    // With stderr closed the exit code has to do.
    let _closed = writeln!(io::stderr(), "{line}");
}
