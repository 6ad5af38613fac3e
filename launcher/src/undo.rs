//! What has to be undone, registered before it is done.

use std::fmt;
use std::io::{self, Write};

/// Whether a step is about files alone, which `--keep` leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Files,
    Rest,
}

type Undo = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Steps are undone in reverse order. One that fails does not keep the others from being undone, and whatever ends
/// the session, an error, a signal or a panic, runs them: at the latest when the stack is dropped.
#[derive(Default)]
pub struct UndoStack {
    steps: Vec<(String, About, Undo)>,
}

/// A step that could not be undone.
#[derive(Debug, thiserror::Error)]
#[error("{what} is left behind: {source}")]
pub struct Leftover {
    what: String,
    source: io::Error,
}

impl UndoStack {
    /// `what` names the thing that is there until `undo` has run.
    pub fn push(
        &mut self,
        what: impl Into<String>,
        undo: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) {
        self.steps.push((what.into(), About::Rest, Box::new(undo)));
    }

    /// As `push`, for files and directories that are of use to somebody who looks for a mistake.
    pub fn push_files(
        &mut self,
        what: impl Into<String>,
        undo: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) {
        self.steps.push((what.into(), About::Files, Box::new(undo)));
    }

    /// Undoes everything but files.
    pub fn unwind_but_files(mut self) -> Vec<Leftover> {
        self.steps.retain(|(_, about, _)| *about == About::Rest);
        self.run()
    }

    /// Undoes everything; what is left behind, in the order in which it failed.
    pub fn unwind(mut self) -> Vec<Leftover> {
        self.run()
    }

    fn run(&mut self) -> Vec<Leftover> {
        let mut left = Vec::new();
        while let Some((what, _, undo)) = self.steps.pop() {
            match undo() {
                Ok(()) => tracing::debug!(what, "undone"),
                // It never came to be, or somebody was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => left.push(Leftover { what, source }),
            }
        }
        left
    }
}

impl Drop for UndoStack {
    fn drop(&mut self) {
        for leftover in self.run() {
            // With stderr closed there is nobody to tell.
            let _closed = writeln!(
                io::stderr(),
                "error: {leftover}\nhint: `launcher cleanup` removes it"
            );
        }
    }
}

impl fmt::Debug for UndoStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.steps.iter().map(|(what, ..)| what))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn in_reverse_and_all_of_them() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut undo = UndoStack::default();
        for name in ["first", "second", "third"] {
            let log = Arc::clone(&log);
            undo.push(name, move || {
                log.lock().unwrap().push(name);
                if name == "second" {
                    Err(io::Error::other("it is stuck"))
                } else {
                    Ok(())
                }
            });
        }
        let left = undo.unwind();
        assert_eq!(*log.lock().unwrap(), ["third", "second", "first"]);
        assert_eq!(
            left.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["second is left behind: it is stuck"]
        );
    }

    #[test]
    fn a_dropped_stack_is_unwound() {
        let ran = Arc::new(Mutex::new(false));
        let seen = Arc::clone(&ran);
        let mut undo = UndoStack::default();
        undo.push("thing", move || {
            *seen.lock().unwrap() = true;
            Ok(())
        });
        drop(undo);
        assert!(*ran.lock().unwrap());
    }
}
