//! Programs in a machine, through an engine's client (`smolvm machine exec`, `container exec`), which dies with us.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Door;
use super::inside::First;
use crate::escape::Escaped;
use crate::exit::Exit;
use crate::guest::machine::{Briefing, Ended, Order, Program};
use crate::guest::{self, InitReport};

const MAX_LINE: u64 = 64 * 1024;
const MAX_REPORT: u64 = 1024 * 1024;
/// Between two tries: a machine that has just started is now and then said not to run.
const AGAIN: Duration = Duration::from_millis(500);
/// For the last of a program's output.
const LAST: Duration = Duration::from_secs(5);

/// How programs ended, by number; the sender goes when the guest's first process does.
type Ends = watch::Receiver<HashMap<u32, Exit>>;

/// The guest's first process of ours, and its lifeline.
#[derive(Debug)]
pub struct Init {
    lifeline: Arc<Mutex<Option<ChildStdin>>>,
    ends: Ends,
    pid: Option<u32>,
    /// Killed when it is dropped.
    _child: Child,
}

impl Init {
    /// Starts it in a machine that is about to answer.
    pub async fn start(door: &Door, first: &First, briefing: &Briefing) -> Result<Self, String> {
        let briefing = guest::frame(briefing).map_err(|error| error.to_string())?;
        let until = Instant::now() + first.patience;
        let mut last = String::from("it did not answer");
        while Instant::now() < until {
            match Self::attempt(door, &first.line, &briefing, until).await {
                Ok(init) => return Ok(init),
                Err(Attempt::Failed(why)) => return Err(why),
                Err(Attempt::NotYet(why)) if !first.again => return Err(why),
                Err(Attempt::NotYet(why)) => last = why,
            }
            sleep(AGAIN).await;
        }
        Err(format!(
            "it was not ready after {} s: {last}",
            first.patience.as_secs()
        ))
    }

    async fn attempt(
        door: &Door,
        line: &[String],
        briefing: &[u8],
        until: Instant,
    ) -> Result<Self, Attempt> {
        let mut child = spawn(door, line, false, Io::piped())?;
        let mut stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let said = tokio::spawn(async move {
            let mut text = Vec::new();
            // An error is the end of what it says.
            let _ended = stderr.take(MAX_LINE).read_to_end(&mut text).await;
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        let told = async {
            stdin.write_all(briefing).await?;
            stdin.flush().await?;
            (&mut lines).take(MAX_LINE).read_line(&mut line).await
        };
        let told = timeout_at(until, told).await;
        let not_yet = |why: String| Attempt::NotYet(Escaped(why.trim()).to_string());
        match told {
            Err(_) => return Err(not_yet("its first process says nothing".into())),
            Ok(Ok(0) | Err(_)) => {
                let said = timeout(LAST, said).await.ok().and_then(Result::ok);
                return Err(not_yet(said.unwrap_or_default()));
            }
            Ok(Ok(_)) => {}
        }
        match serde_json::from_str::<InitReport>(&line) {
            Ok(InitReport { ready: true, .. }) => {}
            Ok(InitReport { error, .. }) => {
                return Err(Attempt::Failed(
                    Escaped(&error.unwrap_or_default()).to_string(),
                ));
            }
            Err(_) => return Err(not_yet(format!("its first process says {line}"))),
        }
        let (send, ends) = watch::channel(HashMap::new());
        tokio::spawn(listen(lines, send));
        Ok(Self {
            lifeline: Arc::new(Mutex::new(Some(stdin))),
            ends,
            pid: child.id(),
            _child: child,
        })
    }

    pub fn process(&self) -> Option<u32> {
        self.pid
    }

    async fn order<M: Serialize>(&self, order: &M) -> io::Result<()> {
        let frame = guest::frame(order)?;
        let mut lifeline = self.lifeline.lock().await;
        let lifeline = lifeline
            .as_mut()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        lifeline.write_all(&frame).await?;
        lifeline.flush().await
    }

    pub fn signal(&self, number: u32, signal: Signal) -> io::Result<()> {
        let frame = guest::frame(&Order::Signal {
            number,
            signal: signal.as_raw(),
        })?;
        let lifeline = Arc::clone(&self.lifeline);
        // It is there before the grace time ends, or the machine goes with it.
        tokio::spawn(async move {
            match lifeline.lock().await.as_mut() {
                Some(lifeline) => {
                    lifeline.write_all(&frame).await?;
                    lifeline.flush().await
                }
                None => Ok(()),
            }
        });
        Ok(())
    }

    /// Cuts the lifeline: everything that runs in the image ends.
    pub fn cut(&self) {
        if let Ok(mut lifeline) = self.lifeline.try_lock() {
            lifeline.take();
        }
    }

    /// Starts a program of the agent's with these streams.
    pub async fn run(
        &self,
        door: &Door,
        command: &[String],
        number: u32,
        program: Program,
        streams: Io,
    ) -> io::Result<Running> {
        self.order(&Order::Program { number, program }).await?;
        let terminal = streams.terminal;
        let number_text = number.to_string();
        let arguments = ["__machine-run", number_text.as_str()];
        let line = door.exec(terminal, command, &arguments);
        let child = spawn(door, &line, terminal, streams)?;
        Ok(Running {
            engine: door.engine,
            number,
            ends: self.ends.clone(),
            child,
        })
    }
}

enum Attempt {
    NotYet(String),
    Failed(String),
}

impl<E: Into<io::Error>> From<E> for Attempt {
    fn from(error: E) -> Self {
        Self::Failed(error.into().to_string())
    }
}

async fn listen(mut lines: BufReader<ChildStdout>, ends: watch::Sender<HashMap<u32, Exit>>) {
    loop {
        let mut line = String::new();
        match (&mut lines).take(MAX_LINE).read_line(&mut line).await {
            Ok(1..) => {}
            _ => return,
        }
        let Ok(ended) = serde_json::from_str::<Ended>(&line) else {
            continue;
        };
        let exit = match (ended.code, ended.signal) {
            (Some(0), _) => Exit::Ok,
            (Some(code), _) => Exit::Agent(u8::try_from(code).unwrap_or(u8::MAX)),
            (None, Some(signal)) => Exit::signalled(signal),
            (None, None) => Exit::Failed,
        };
        ends.send_modify(|ends| {
            // Two programs are started in a machine, whatever a guest says.
            if ends.len() < 8 {
                ends.insert(ended.ended, exit);
            }
        });
    }
}

/// A program's standard streams.
#[derive(Debug)]
pub struct Io {
    stdin: Stdio,
    stdout: Stdio,
    stderr: Stdio,
    terminal: bool,
}

impl Io {
    pub fn piped() -> Self {
        Self {
            stdin: Stdio::piped(),
            stdout: Stdio::piped(),
            stderr: Stdio::piped(),
            terminal: false,
        }
    }

    pub fn of(stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd) -> Self {
        Self {
            stdin: stdin.into(),
            stdout: stdout.into(),
            stderr: stderr.into(),
            terminal: false,
        }
    }

    /// The bottle's end of a terminal.
    pub fn terminal(end: &OwnedFd) -> io::Result<Self> {
        Ok(Self {
            terminal: true,
            ..Self::of(end.try_clone()?, end.try_clone()?, end.try_clone()?)
        })
    }
}

/// A program that was started.
#[derive(Debug)]
pub struct Running {
    engine: &'static str,
    number: u32,
    ends: Ends,
    child: Child,
}

impl Running {
    /// How the program ended. May be dropped and called again.
    pub async fn ended(&mut self) -> Result<Exit, String> {
        let number = self.number;
        let known = |ends: &HashMap<u32, Exit>| ends.contains_key(&number);
        let mut client = None;
        tokio::select! {
            // Biased: what the guest has said counts more.
            biased;
            said = self.ends.wait_for(known) => {
                if said.is_err() {
                    return Err("its first process has ended".into());
                }
            }
            status = self.child.wait() => {
                client = Some(status.map_err(|error| error.to_string())?);
            }
        }
        if client.is_some() {
            // The client may be faster than the guest's word; without one nobody knows how it ended.
            let _late = timeout(LAST, self.ends.wait_for(known)).await;
        }
        let exit = self.ends.borrow().get(&number).copied();
        let Some(exit) = exit else {
            return Err(match client.and_then(|status| status.code()) {
                Some(code) => format!(
                    "{}'s exec ended with {code}, and the guest did not say how the program did",
                    self.engine
                ),
                None => format!("{}'s exec was ended by a signal", self.engine),
            });
        };
        // Its output comes to an end with the client; what a child of the program's holds open is not waited for.
        if timeout(LAST, self.child.wait()).await.is_err() {
            self.child.start_kill().map_err(|error| error.to_string())?;
        }
        Ok(exit)
    }

    /// Says `input` to it and takes what it says, to its end.
    pub async fn converse(mut self, input: &[u8], patience: Duration) -> Result<Vec<u8>, String> {
        let text = |error: io::Error| error.to_string();
        let gone = || String::from("its streams are gone");
        let mut stdin = self.child.stdin.take().ok_or_else(gone)?;
        let stdout = self.child.stdout.take().ok_or_else(gone)?;
        let stderr = self.child.stderr.take().ok_or_else(gone)?;
        let mut said = Vec::new();
        let mut complaint = Vec::new();
        let conversation = async {
            stdin.write_all(input).await?;
            drop(stdin);
            let (mut stdout, mut stderr) = (stdout.take(MAX_REPORT), stderr.take(MAX_LINE));
            let (out, err) = tokio::join!(
                stdout.read_to_end(&mut said),
                stderr.read_to_end(&mut complaint)
            );
            out.and(err)
        };
        timeout(patience, conversation)
            .await
            .map_err(|_| format!("it was not done after {} s", patience.as_secs()))?
            .map_err(text)?;
        match self.ended().await? {
            Exit::Ok => Ok(said),
            other => Err(format!(
                "it ended with {}: {}",
                other.code(),
                Escaped(String::from_utf8_lossy(&complaint).trim())
            )),
        }
    }
}

/// Must be called from the main thread: the client dies with the thread that started it.
fn spawn(door: &Door, line: &[String], terminal: bool, streams: Io) -> io::Result<Child> {
    let mut command = door.attached(line, terminal);
    command
        .stdin(streams.stdin)
        .stdout(streams.stdout)
        .stderr(streams.stderr);
    // Its end is ours: of a machine that goes away nothing more is heard.
    Command::from(command).kill_on_drop(true).spawn()
}
