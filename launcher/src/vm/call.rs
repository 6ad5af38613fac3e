//! A call of an engine's program: it has a deadline and the whole of its environment from us, and its output is read to
//! the end (some programs panic when a pipe is closed).

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::escape::Escaped;
use crate::state::process::has_ended;

/// For a question that changes nothing.
pub const QUESTION: Duration = Duration::from_secs(20);
const MAX_OUTPUT: usize = 4 * 1024 * 1024;
/// For the last of a program's output, once it has ended.
const LAST: Duration = Duration::from_secs(1);
/// Of an error's text, for people.
const MAX_SAID: usize = 600;

/// What a call said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Nothing where a signal ended it.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Its complaint, in one line.
    pub fn shown(&self) -> String {
        let text = if self.err.trim().is_empty() {
            &self.out
        } else {
            &self.err
        };
        let short: String = text.trim().chars().take(MAX_SAID).collect();
        let short = short.replace('\n', "; ");
        if short.is_empty() {
            return match self.code {
                Some(code) => format!("it ended with {code} and said nothing"),
                None => "a signal ended it".into(),
            };
        }
        Escaped(&short).to_string()
    }
}

/// An error of kind `TimedOut` where it was not done in time; it is killed then.
pub fn run<'a>(
    program: &Path,
    environment: impl IntoIterator<Item = (&'a str, OsString)>,
    arguments: &[&str],
    patience: Duration,
) -> io::Result<Said> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // The terminal's ^C is for the launcher.
        .process_group(0)
        .spawn()?;
    let out = Drain::of(child.stdout.take())?;
    let err = Drain::of(child.stderr.take())?;
    let ended = wait(&mut child, patience)?;
    if !ended {
        child.kill()?;
    }
    let status = child.wait()?;
    if !ended {
        // Its readers end when what it started closes the pipes; nobody waits for that.
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("it was not done after {} s", patience.as_secs()),
        ));
    }
    Ok(Said {
        code: status.code(),
        out: out.said(),
        err: err.said(),
    })
}

/// Seconds of the variable of this name, where they are a number from 1 to 3600.
pub fn patience(variable: &str, otherwise: Duration) -> Duration {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|seconds| (1..=3600).contains(seconds))
        .map_or(otherwise, Duration::from_secs)
}

/// The program of that name in the first of these directories that has it.
pub fn find(name: &str, path: &std::ffi::OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

fn wait(child: &mut Child, patience: Duration) -> io::Result<bool> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::NotFound)?;
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    has_ended(&handle, patience)
}

/// Reads a stream to its end, on a thread of its own.
struct Drain {
    kept: Arc<Mutex<Vec<u8>>>,
    ended: mpsc::Receiver<()>,
}

impl Drain {
    fn of(from: Option<impl Read + Send + 'static>) -> io::Result<Self> {
        let mut from = from.ok_or(io::ErrorKind::BrokenPipe)?;
        let kept: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (end, ended) = mpsc::sync_channel(1);
        let shared = Arc::clone(&kept);
        std::thread::Builder::new()
            .name("call".into())
            .spawn(move || {
                let mut piece = [0; 8192];
                while let Ok(length @ 1..) = from.read(&mut piece) {
                    let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    let room = MAX_OUTPUT.saturating_sub(kept.len());
                    kept.extend_from_slice(piece.get(..length.min(room)).unwrap_or_default());
                }
                let _unheard = end.send(());
            })?;
        Ok(Self { kept, ended })
    }

    /// What came until the end, or until a moment after the program's: what it has started may keep the stream open.
    fn said(self) -> String {
        let _either = self.ended.recv_timeout(LAST);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_a_deadline_and_only_our_environment() {
        let env = Path::new("/usr/bin/env");
        let own = || [("PATH", OsString::from("/usr/bin:/bin"))];
        let said = run(env, own(), &[], QUESTION).unwrap();
        assert_eq!(
            (said.code, said.out.as_str()),
            (Some(0), "PATH=/usr/bin:/bin\n")
        );
        let sleep = ["sleep", "30"];
        let late = run(env, own(), &sleep, Duration::from_millis(200)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let complains = ["sh", "-c", "echo no >&2; exit 3"];
        let said = run(env, own(), &complains, QUESTION).unwrap();
        assert_eq!((said.code, said.shown().as_str()), (Some(3), "no"));
        let killed = run(env, own(), &["sh", "-c", "kill -9 $$"], QUESTION).unwrap();
        assert_eq!(
            (killed.code, killed.shown().as_str()),
            (None, "a signal ended it")
        );
    }
}
