//! The audit log: append-only JSON Lines, one record a verdict.
//!
//! A bounded channel and one writing thread. When a record cannot be written the log is *broken*: from then on
//! nothing is let through, for what is not recorded must not happen.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

/// Records that wait for the disk; a full queue holds requests back.
const QUEUE: usize = 1024;
/// What the agent wrote and we repeat is cut at this many characters.
const MAX_TEXT: usize = 512;

/// One verdict. Every string is free of what was found, and escaped for a terminal.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    pub time: String,
    pub event: String,
    pub bottle: String,
    /// `allow`, `redact`, `block`, `refuse`, `error`, `warn`.
    pub verdict: &'static str,
    pub code: &'static str,
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<&'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Of our own answer; 0, and not written, where the origin answers.
    #[serde(skip_serializing_if = "is_zero")]
    pub status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
    pub policy: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(status: &u16) -> bool {
    *status == 0
}

#[derive(Clone, Debug)]
pub struct Audit {
    queue: mpsc::Sender<Message>,
    broken: Arc<AtomicBool>,
}

struct Message {
    records: Vec<Record>,
    /// Told once they, and all before them, are written.
    done: Option<oneshot::Sender<()>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the audit log is broken")]
pub struct Broken;

impl Audit {
    /// Opens (0600, appending) and starts the writer.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        let (queue, records) = mpsc::channel(QUEUE);
        let broken = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&broken);
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write_all(file, records, &flag))?;
        Ok(Self { queue, broken })
    }

    /// Queues a record.
    pub async fn record(&self, record: Record) -> Result<(), Broken> {
        let message = Message {
            records: vec![record],
            done: None,
        };
        if self.is_broken() || self.queue.send(message).await.is_err() {
            return Err(Broken);
        }
        Ok(())
    }

    /// Returns once the records, and all before them, are written.
    pub async fn write(&self, records: Vec<Record>) -> Result<(), Broken> {
        let (done, wait) = oneshot::channel();
        let message = Message {
            records,
            done: Some(done),
        };
        if self.is_broken() || self.queue.send(message).await.is_err() {
            return Err(Broken);
        }
        wait.await.map_err(|_| Broken)?;
        if self.is_broken() {
            Err(Broken)
        } else {
            Ok(())
        }
    }

    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Returns once everything recorded before is written. A log that broke has said so already.
    pub async fn flush(&self) {
        let _broken = self.write(Vec::new()).await;
    }
}

fn write_all(mut file: File, mut records: mpsc::Receiver<Message>, broken: &AtomicBool) {
    let mut batch = Vec::new();
    let mut flushes = Vec::new();
    while let Some(first) = records.blocking_recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            for record in &message.records {
                if serde_json::to_writer(&mut batch, record).is_err() {
                    broken.store(true, Ordering::Relaxed);
                }
                batch.push(b'\n');
            }
            flushes.extend(message.done);
            next = records.try_recv().ok();
        }
        // One write for the batch: a line is on disk whole or the log is broken.
        if let Err(error) = file.write_all(&batch)
            && !broken.swap(true, Ordering::Relaxed)
        {
            tracing::error!(%error, "the audit log cannot be written; nothing is let through any more");
        }
        batch.clear();
        for done in flushes.drain(..) {
            // Nobody may be waiting any more.
            let _unheard = done.send(());
        }
    }
}

/// An identifier such as `evt_5f0c…`, 80 random bits.
pub fn event_id() -> String {
    let mut random = [0u8; 10];
    if getrandom::fill(&mut random).is_err() {
        tracing::error!("the system has no randomness; event ids will repeat");
    }
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("evt_{digits}")
}

pub fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// Makes text of the agent's fit for a log or a terminal: control and direction characters escaped, cut to size.
pub fn printable(raw: &[u8]) -> String {
    let mut text = String::new();
    for (at, character) in String::from_utf8_lossy(raw).chars().enumerate() {
        if at == MAX_TEXT {
            text.push('…');
            break;
        }
        let hidden = character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}');
        if hidden {
            text.extend(character.escape_unicode());
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_cannot_move_a_terminal() {
        assert_eq!(printable(b"a\x1b[31m\r\nb"), "a\\u{1b}[31m\\u{d}\\u{a}b");
        assert_eq!(printable("a\u{202e}b".as_bytes()), "a\\u{202e}b");
        assert_eq!(printable(&vec![b'a'; 600]).chars().count(), MAX_TEXT + 1);
    }

    #[tokio::test]
    async fn a_full_disk_breaks_the_log() {
        if !Path::new("/dev/full").exists() {
            return;
        }
        let audit = Audit::open(Path::new("/dev/full")).unwrap();
        let record = Record {
            time: now(),
            event: event_id(),
            bottle: String::new(),
            verdict: "allow",
            code: "allow",
            reason: String::new(),
            rule: None,
            location: None,
            via: Vec::new(),
            context: None,
            host: String::new(),
            port: None,
            scheme: None,
            method: String::new(),
            path: String::new(),
            status: 200,
            request_bytes: None,
            policy: String::new(),
        };
        audit.record(record.clone()).await.unwrap();
        audit.flush().await;
        assert!(audit.is_broken());
        assert!(audit.record(record).await.is_err());
    }
}
