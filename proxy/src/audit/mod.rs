//! The audit log: append-only JSON Lines, one record a verdict, each carrying the hash of the one before it.
//!
//! Whoever has a record writes it, where the log is a file and nobody else writes; else a bounded channel leads to one
//! writing thread, which writes all that waits at once ([`chain`] is the file, [`verify`] reads it back). While a record cannot be written the log is *broken* and nothing is let through, for what is not
//! recorded must not happen; the next record that can be written says how many are missing, and mends it.

mod chain;
pub mod verify;

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use chain::Chain;

/// Records that wait for the disk; a full queue holds requests back.
const QUEUE: usize = 1024;
/// A write that takes longer than this shows a disk that is overburdened: for a while all records go to the thread,
/// which may wait, where a connection's task must not.
const SLOW: Duration = Duration::from_millis(20);
const SLOW_FOR: Duration = Duration::from_secs(1);
/// A log's head may be behind by what was written in this time: to write it with every record would double the work.
const NOTED_AFTER: Duration = Duration::from_millis(50);
/// What the agent wrote and we repeat is cut at this many characters.
const MAX_TEXT: usize = 512;

/// One verdict. Every string is free of what was found, and escaped for a terminal.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Record {
    pub time: String,
    pub event: Arc<str>,
    pub bottle: Arc<str>,
    /// Of a request: `allow`, `approved`, `redact`, `block`, `refuse`, `error`, `warn`. Of an operator: `approve`,
    /// `reject`, `revoke`. Of the sidecar: `start`, `reload`, `stop`, `gap`.
    pub verdict: &'static str,
    pub code: &'static str,
    pub reason: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    #[serde(skip_serializing_if = "is_empty")]
    pub host: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<&'static str>,
    #[serde(skip_serializing_if = "is_empty")]
    pub method: Arc<str>,
    #[serde(skip_serializing_if = "is_empty")]
    pub path: Arc<str>,
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
    pub policy: Arc<str>,
}

impl Record {
    /// What is not about a request: the sidecar's own life, and the log's.
    pub fn of_sidecar(bottle: &str, verdict: &'static str, reason: &str, policy: &str) -> Self {
        Self {
            time: now(),
            event: event_id(),
            bottle: bottle.into(),
            verdict,
            code: verdict,
            reason: printable(reason.as_bytes()).into(),
            policy: policy.into(),
            ..Self::default()
        }
    }
}

fn is_empty(text: &Arc<str>) -> bool {
    text.is_empty()
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

#[derive(Debug)]
struct Shared {
    writer: Mutex<Writer>,
    /// Notes the head of what was written at once.
    notary: OnceLock<Thread>,
    /// Messages in the queue, or on their way out of it: they come first.
    queued: AtomicUsize,
    broken: AtomicBool,
    written: AtomicU64,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Writer {
    chain: Chain,
    /// Records that could not be written.
    gap: u64,
    /// Until then the disk is given time.
    slow_until: Option<Instant>,
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
        let writer = Writer {
            chain: Chain::open(path)?,
            gap: 0,
            slow_until: None,
        };
        let (queue, records) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            writer: Mutex::new(writer),
            notary: OnceLock::new(),
            queued: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            written: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let own = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write_all(records, &own))?;
        let own = Arc::downgrade(&shared);
        let notary = std::thread::Builder::new()
            .name("audit-head".into())
            .spawn(move || note_later(&own))?;
        let _only_once = shared.notary.set(notary.thread().clone());
        Ok(Self { queue, shared })
    }

    /// Writes a record, or queues it. Also while the log is broken: the attempt shows whether it still is.
    pub async fn record(&self, record: Record) -> Result<(), Broken> {
        let records = vec![record];
        if self.shared.write_now(&records).is_some() {
            return Ok(());
        }
        self.queue(records, None).await
    }

    /// As `record`, where nothing can be waited for: at the start, when the queue is empty.
    pub fn note(&self, record: Record) -> Result<(), Broken> {
        let message = Message {
            records: vec![record],
            done: None,
        };
        self.shared.queued.fetch_add(1, Ordering::AcqRel);
        self.queue.try_send(message).map_err(|_| {
            self.shared.queued.fetch_sub(1, Ordering::AcqRel);
            Broken
        })
    }

    /// Returns once the records, and all before them, are written.
    pub async fn write(&self, records: Vec<Record>) -> Result<(), Broken> {
        let good = match self.shared.write_now(&records) {
            Some(good) => good,
            None => {
                let (done, wait) = oneshot::channel();
                self.queue(records, Some(done)).await?;
                wait.await.unwrap_or(false)
            }
        };
        if good { Ok(()) } else { Err(Broken) }
    }

    async fn queue(
        &self,
        records: Vec<Record>,
        done: Option<oneshot::Sender<bool>>,
    ) -> Result<(), Broken> {
        let room = self.queue.reserve().await.map_err(|_| Broken)?;
        // From here on nothing is waited for, so that what is counted is sent.
        self.shared.queued.fetch_add(1, Ordering::AcqRel);
        room.send(Message { records, done });
        Ok(())
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

    /// Returns once everything recorded before is written, and its head noted. A log that broke has said so already.
    pub async fn flush(&self) {
        let _broken = self.write(Vec::new()).await;
        self.shared.note(&mut self.shared.writer());
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.wake_notary();
    }
}

impl Shared {
    /// A thread that is awake is not woken up again.
    fn wake_notary(&self) {
        if let Some(notary) = self.notary.get() {
            notary.unpark();
        }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes at once, where that holds nobody up; says whether the log is good. To wake a thread costs more than
    /// a record.
    fn write_now(&self, records: &[Record]) -> Option<bool> {
        let mut writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if !writer.chain.is_file() || self.queued.load(Ordering::Acquire) > 0 {
            return None;
        }
        let begun = Instant::now();
        if writer.slow_until.is_some_and(|until| begun < until) {
            return None;
        }
        let good = self.append(&mut writer, records);
        writer.slow_until = (begun.elapsed() > SLOW).then(|| begun + SLOW_FOR);
        self.wake_notary();
        Some(good)
    }

    /// Writes the records in one call, so that all of their lines are in the file or none. Says whether the log is
    /// good.
    fn append(&self, writer: &mut Writer, records: &[Record]) -> bool {
        let gap = (writer.gap > 0 && !records.is_empty()).then(|| {
            let words = format!(
                "{} records before this one could not be written",
                writer.gap
            );
            let first = records.first();
            let (bottle, policy) = first.map_or(("", ""), |own| (&*own.bottle, &*own.policy));
            Record::of_sidecar(bottle, "gap", &words, policy)
        });
        let written = writer.chain.append(gap.iter().chain(records));
        let count = records.len() as u64;
        match &written {
            Ok(()) => {
                let count = count + u64::from(gap.is_some());
                self.written.fetch_add(count, Ordering::Relaxed);
                // An empty batch proves nothing.
                if count > 0 {
                    writer.gap = 0;
                    if self.broken.swap(false, Ordering::Relaxed) {
                        tracing::warn!("the audit log can be written again");
                    }
                }
                !self.broken.load(Ordering::Relaxed)
            }
            Err(error) => {
                writer.gap += count;
                self.lost.fetch_add(count, Ordering::Relaxed);
                if !self.broken.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "the audit log cannot be written; nothing is let through until it can be");
                }
                false
            }
        }
    }
}

impl Shared {
    fn note(&self, writer: &mut Writer) {
        if let Err(error) = writer.chain.note()
            && !self.broken.swap(true, Ordering::Relaxed)
        {
            tracing::error!(%error, "the audit log's head cannot be written; nothing is let through until it can be");
        }
    }
}

/// Woken by whoever wrote; ends with the log.
#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own, on which nothing else runs"
)]
fn note_later(shared: &Weak<Shared>) {
    loop {
        std::thread::park();
        std::thread::sleep(NOTED_AFTER);
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut writer = shared.writer();
        if !writer.chain.is_noted() {
            shared.note(&mut writer);
        }
    }
}

fn write_all(mut records: mpsc::Receiver<Message>, shared: &Shared) {
    while let Some(first) = records.blocking_recv() {
        let mut batch = Vec::new();
        let mut waiting = Vec::new();
        let mut messages = 0;
        let mut next = Some(first);
        while let Some(message) = next {
            messages += 1;
            batch.extend(message.records);
            waiting.extend(message.done);
            next = (batch.len() < QUEUE)
                .then(|| records.try_recv().ok())
                .flatten();
        }
        let good = {
            let mut writer = shared.writer();
            let good = shared.append(&mut writer, &batch);
            shared.note(&mut writer);
            shared.queued.fetch_sub(messages, Ordering::AcqRel);
            good
        };
        for done in waiting {
            // Nobody may be waiting any more.
            let _unheard = done.send(good);
        }
    }
}

const ID: usize = 10;

thread_local! {
    /// Randomness for some identifiers, and what of it is left: the system is asked once for all of them.
    static RANDOM: RefCell<([u8; ID * 32], usize)> = const { RefCell::new(([0; ID * 32], 0)) };
}

/// Of a field that is not known: one for all, since a record of each request has some.
pub fn no_text() -> Arc<str> {
    static NONE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));
    Arc::clone(&NONE)
}

/// An identifier such as `evt_5f0c…`, 80 random bits.
pub fn event_id() -> Arc<str> {
    let random: [u8; ID] = RANDOM.with_borrow_mut(|(random, left)| {
        if *left < ID {
            if getrandom::fill(random).is_err() {
                tracing::error!("the system has no randomness; event ids will repeat");
            }
            *left = random.len();
        }
        *left -= ID;
        let rest = random.get(*left..).unwrap_or_default();
        rest.first_chunk().copied().unwrap_or_default()
    });
    let mut id = *b"evt_....................";
    let digits: [u8; 2 * ID] = chain::digits(&random);
    if let Some(place) = id.last_chunk_mut() {
        *place = digits;
    }
    std::str::from_utf8(&id).unwrap_or_default().into()
}

thread_local! {
    /// A second since the epoch, and its text up to there: `2026-11-26T02:22:07`.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// In UTC, with nine digits of the second, so that texts of two times sort as the times do.
pub fn now() -> String {
    let now = jiff::Timestamp::now();
    let (second, fraction) = (now.as_second(), now.subsec_nanosecond().unsigned_abs());
    SECOND.with_borrow_mut(|(last, text)| {
        if *last != second {
            *last = second;
            *text = now.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        let mut digits = *b".000000000Z";
        let mut left = fraction;
        for digit in digits.iter_mut().skip(1).take(9).rev() {
            *digit += (left % 10) as u8;
            left /= 10;
        }
        let mut time = String::with_capacity(text.len() + digits.len());
        time.push_str(text);
        time.push_str(std::str::from_utf8(&digits).unwrap_or_default());
        time
    })
}

/// Makes text of the agent's fit for a log or a terminal: control and direction characters escaped, cut to size.
pub fn printable(raw: &[u8]) -> String {
    if raw.len() <= MAX_TEXT
        && raw.iter().all(|byte| (0x20..0x7f).contains(byte))
        && let Ok(plain) = std::str::from_utf8(raw)
    {
        return plain.to_owned();
    }
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

    #[test]
    fn times_are_those_of_a_clock() {
        let mut last = String::new();
        for _ in 0..1000 {
            let text = now();
            let time: jiff::Timestamp = text.parse().unwrap();
            let late = jiff::Timestamp::now().duration_since(time);
            assert!(late.as_secs() == 0 && !late.is_negative(), "{text}");
            assert_eq!(text.len(), 30, "{text}");
            assert!(text >= last, "{last}, then {text}");
            last = text;
        }
    }

    #[test]
    fn identifiers_are_of_their_shape_and_differ() {
        let ids: std::collections::BTreeSet<_> = (0..1000).map(|_| event_id()).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            let digits = id.strip_prefix("evt_").unwrap();
            assert!(digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        }
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
