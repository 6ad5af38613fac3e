//! The terminal that the launcher runs in, joined to the one that the agent has.
//!
//! The agent's is a terminal of the bottle's own (PTY), so that it has a session, job control and ^C like everywhere, and
//! no descriptor of ours: what it does to its terminal it does to that one. Ours is raw meanwhile.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use rustix::termios::{OptionalActions, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::undo::UndoStack;

/// Whether there is a terminal to attach to.
pub fn is_there() -> bool {
    isatty(io::stdin()) && isatty(io::stdout())
}

#[derive(Debug)]
pub struct Attached {
    master: OwnedFd,
    output: Option<JoinHandle<()>>,
}

impl Attached {
    pub fn new(master: OwnedFd, undo: &mut UndoStack) -> io::Result<Self> {
        let saved = tcgetattr(io::stdin())?;
        let mut raw = saved.clone();
        raw.make_raw();
        undo.push("the terminal's raw mode", move || {
            Ok(tcsetattr(io::stdin(), OptionalActions::Flush, &saved)?)
        });
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;

        let mut output = std::fs::File::from(master.try_clone()?);
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
        let mut input = std::fs::File::from(master.try_clone()?);
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
            master,
            output: Some(output),
        };
        attached.resize();
        Ok(attached)
    }

    /// Gives the agent's terminal the size of ours; the kernel tells the agent.
    pub fn resize(&self) {
        if let Ok(size) = tcgetwinsize(io::stdout()) {
            // A wrong size is no reason to end a session.
            let _unchanged = tcsetwinsize(self.master.as_fd(), size);
        }
    }

    /// Waits for the last of the output; the bottle's processes must have ended.
    pub fn finish(mut self) {
        if let Some(output) = self.output.take() {
            let _panicked = output.join();
        }
    }
}
