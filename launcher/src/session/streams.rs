//! The agent's standard streams where it has no terminal.
//!
//! It never gets ours: a file that our output goes to could be cut or read through it, and a terminal could be typed into.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use super::Attach;
use crate::backend::Streams;

/// Copies that run until the bottle's end of a pipe is closed.
#[derive(Debug, Default)]
pub struct Joined {
    copies: Vec<JoinHandle<()>>,
}

pub fn open(attach: Attach) -> io::Result<(Streams, Joined)> {
    match attach {
        Attach::Terminal => Ok((Streams::Terminal, Joined::default())),
        Attach::Pipes {
            stdin,
            stdout,
            stderr,
        } => Ok((
            Streams::Pipes {
                stdin,
                stdout,
                stderr,
            },
            Joined::default(),
        )),
        Attach::Headless => {
            let stdin = std::fs::File::open("/dev/null")?;
            let (out, stdout) = io::pipe()?;
            let (err, stderr) = io::pipe()?;
            let copies = vec![copy(out, io::stdout())?, copy(err, io::stderr())?];
            let streams = Streams::Pipes {
                stdin: stdin.into(),
                stdout: OwnedFd::from(stdout),
                stderr: stderr.into(),
            };
            Ok((streams, Joined { copies }))
        }
    }
}

impl Joined {
    /// Waits for the last of the output.
    pub fn finish(self) {
        for copy in self.copies {
            // A copy that panicked has nothing more to write.
            let _panicked = copy.join();
        }
    }
}

fn copy(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("output".into())
        .spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            // Where nobody reads our output the agent must see that too, as a closed pipe.
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                let Some(part) = buffer.get(..length) else {
                    return;
                };
                if to.write_all(part).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
        })
}
