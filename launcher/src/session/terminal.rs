//! The terminal that the launcher runs in, joined to the one that the agent has.
//!
//! The agent's is a terminal of the bottle's own (PTY), so that it has a session, job control and ^C like everywhere, and
//! no descriptor of ours: what it does to its terminal it does to that one. Ours is raw meanwhile.

use std::io::{self, Read, Write};
use std::thread::JoinHandle;

use rustix::termios::{OptionalActions, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use crate::backend::Terminal;
use crate::undo::UndoStack;

/// Whether there is a terminal to attach to.
pub fn is_there() -> bool {
    isatty(io::stdin()) && isatty(io::stdout())
}

pub struct Attached {
    resize: Box<dyn Fn(Winsize) + Send>,
    output: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached").finish_non_exhaustive()
    }
}

impl Attached {
    pub fn new(terminal: Terminal, undo: &mut UndoStack) -> io::Result<Self> {
        let saved = tcgetattr(io::stdin())?;
        let mut raw = saved.clone();
        raw.make_raw();
        undo.push("the terminal's raw mode", move || {
            Ok(tcsetattr(io::stdin(), OptionalActions::Flush, &saved)?)
        });
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;

        let mut output = std::fs::File::from(terminal.output);
        let output = std::thread::Builder::new()
            .name("terminal".into())
            .spawn(move || {
                let mut buffer = vec![0; 64 * 1024];
                // Linux says EIO when the last process has closed the other side.
                while let Ok(length @ 1..) = output.read(&mut buffer) {
                    let Some(part) = buffer.get(..length) else {
                        return;
                    };
                    let mut out = io::stdout().lock();
                    if out.write_all(part).and_then(|()| out.flush()).is_err() {
                        return;
                    }
                }
            })?;
        let mut input = std::fs::File::from(terminal.input);
        // Never joined: it sleeps in a read of our terminal until the process ends.
        std::thread::Builder::new()
            .name("keyboard".into())
            .spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = io::stdin().read(&mut buffer) {
                    let Some(part) = buffer.get(..length) else {
                        return;
                    };
                    if input.write_all(part).is_err() {
                        return;
                    }
                }
            })?;
        let attached = Self {
            resize: terminal.resize,
            output: Some(output),
        };
        attached.resize();
        Ok(attached)
    }

    /// Gives the agent's terminal the size of ours; the kernel tells the agent.
    pub fn resize(&self) {
        if let Ok(size) = tcgetwinsize(io::stdout()) {
            (self.resize)(size);
        }
    }

    /// Waits for the last of the output; the bottle's processes must have ended.
    pub fn finish(mut self) {
        if let Some(output) = self.output.take() {
            let _panicked = output.join();
        }
    }
}
