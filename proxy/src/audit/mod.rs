//! The audit log: append-only JSON Lines, one record a verdict, each carrying the hash of the one before it.
//!
//! A bounded channel and one writing thread, which writes all that waits at once ([`chain`] is the file, [`verify`]
//! reads it back). While a record cannot be written the log is *broken* and nothing is let through, for what is not
//! recorded must not happen; the next record that can be written says how many are missing, and mends it.

mod chain;
pub mod verify;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use chain::Chain;

/// Records that wait for the disk; a full queue holds requests back.
const QUEUE: usize = 1024;
/// What the agent wrote and we repeat is cut at this many characters.
const MAX_TEXT: usize = 512;

/// One verdict. Every string is free of what was found, and escaped for a terminal.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Record {
    pub time: String,
    pub event: String,
    pub bottle: String,
    /// Of a request: `allow`, `approved`, `redact`, `block`, `refuse`, `error`, `warn`. Of an operator: `approve`,
    /// `reject`, `revoke`. Of the sidecar: `start`, `reload`, `stop`, `gap`.
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
    /// What an operator was asked about, or has decided: identifiers such as `evt_….1`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<String>,
    /// Who decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What the decision holds for beyond the request that waited, and until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    pub policy: String,
}

impl Record {
    /// What is not about a request: the sidecar's own life, and the log's.
    pub fn of_sidecar(bottle: &str, verdict: &'static str, reason: &str, policy: &str) -> Self {
        Self {
            time: now(),
            event: event_id(),
            bottle: bottle.to_owned(),
            verdict,
            code: verdict,
            reason: printable(reason.as_bytes()),
            policy: policy.to_owned(),
            ..Self::default()
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(status: &u16) -> bool {
    *status == 0
}

#[derive(Clone, Debug)]
pub struct Audit {
    queue: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    broken: AtomicBool,
    written: AtomicU64,
    lost: AtomicU64,
}

struct Message {
    records: Vec<Record>,
    /// Told once they, and all before them, are written, or cannot be.
    done: Option<oneshot::Sender<bool>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the audit log is broken")]
pub struct Broken;

impl Audit {
    /// Opens (0600, appending), takes up the chain where it ended, and starts the writer.
    pub fn open(path: &Path) -> io::Result<Self> {
        let chain = Chain::open(path)?;
        let (queue, records) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write_all(chain, records, &own))?;
        Ok(Self { queue, shared })
    }

    /// Queues a record. Also while the log is broken: the attempt shows whether it still is.
    pub async fn record(&self, record: Record) -> Result<(), Broken> {
        let message = Message {
            records: vec![record],
            done: None,
        };
        self.queue.send(message).await.map_err(|_| Broken)
    }

    /// As `record`, where nothing can be waited for: at the start, when the queue is empty.
    pub fn note(&self, record: Record) -> Result<(), Broken> {
        let message = Message {
            records: vec![record],
            done: None,
        };
        self.queue.try_send(message).map_err(|_| Broken)
    }

    /// Returns once the records, and all before them, are written.
    pub async fn write(&self, records: Vec<Record>) -> Result<(), Broken> {
        let (done, wait) = oneshot::channel();
        let message = Message {
            records,
            done: Some(done),
        };
        self.queue.send(message).await.map_err(|_| Broken)?;
        match wait.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Broken),
        }
    }

    pub fn is_broken(&self) -> bool {
        self.shared.broken.load(Ordering::Relaxed)
    }

    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Records that could not be written. Each stands for something that was denied.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Returns once everything recorded before is written. A log that broke has said so already.
    pub async fn flush(&self) {
        let _broken = self.write(Vec::new()).await;
    }
}

fn write_all(mut chain: Chain, mut records: mpsc::Receiver<Message>, shared: &Shared) {
    let mut gap = 0u64;
    while let Some(first) = records.blocking_recv() {
        let mut batch = Vec::new();
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            batch.extend(message.records);
            waiting.extend(message.done);
            next = (batch.len() < QUEUE)
                .then(|| records.try_recv().ok())
                .flatten();
        }
        if gap > 0 && !batch.is_empty() {
            let words = format!("{gap} records before this one could not be written");
            let first = batch.first();
            let (bottle, policy) = first.map_or(("", ""), |own| (&own.bottle, &own.policy));
            batch.insert(0, Record::of_sidecar(bottle, "gap", &words, policy));
        }
        // One write for the batch: all of its lines are in the file, or none.
        let written = chain.append(&batch);
        let count = batch.len() as u64;
        let good = match &written {
            Ok(()) => {
                shared.written.fetch_add(count, Ordering::Relaxed);
                // An empty batch proves nothing.
                if count > 0 {
                    gap = 0;
                    if shared.broken.swap(false, Ordering::Relaxed) {
                        tracing::warn!("the audit log can be written again");
                    }
                }
                !shared.broken.load(Ordering::Relaxed)
            }
            Err(error) => {
                let lost = count - u64::from(gap > 0);
                gap += lost;
                shared.lost.fetch_add(lost, Ordering::Relaxed);
                if !shared.broken.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "the audit log cannot be written; nothing is let through until it can be");
                }
                false
            }
        };
        for done in waiting {
            // Nobody may be waiting any more.
            let _unheard = done.send(good);
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
        let record = Record::of_sidecar("", "allow", "", "");
        audit.record(record.clone()).await.unwrap();
        audit.flush().await;
        assert!(audit.is_broken());
        assert!(audit.write(vec![record]).await.is_err());
        assert_eq!(audit.lost(), 2);
    }
}
