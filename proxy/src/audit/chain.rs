//! The file of an audit log: each line carries its number and the SHA-256 of the line before it.
//!
//! Beside the log stands `NAME.head`, the number and the hash of its last line: without it nobody could tell a log
//! from one whose last lines were taken away. It is written a twentieth of a second later at most, and at an orderly stop.
//! Neither is signed. Who can write both can write another history; the
//! chain shows accidents, editors, and whoever does not know of it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Record;

/// A record is bounded where it is made; no line is longer than this.
pub(super) const MAX_LINE: usize = 256 * 1024;

/// Room for lines that is kept between two calls.
const BATCH_ROOM: usize = 16 * 1024;

pub(super) type Hash = [u8; 32];

/// What stands before the first line.
pub(super) const GENESIS: Hash = [0; 32];

pub(super) fn hash(line: &[u8]) -> Hash {
    Sha256::digest(line).into()
}

/// In lower case.
pub(super) fn hex(hash: &Hash) -> String {
    let digits: [u8; 64] = digits(hash);
    digits.iter().copied().map(char::from).collect()
}

/// Two for each byte. A record has three of these, so it is no format string.
pub(super) fn digits<const N: usize, const D: usize>(bytes: &[u8; N]) -> [u8; D] {
    const { assert!(D == 2 * N) };
    let digit = |half: u8| half + if half < 10 { b'0' } else { b'a' - 10 };
    let mut digits = [0; D];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    digits
}

pub(super) fn head_path(log: &Path) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(".head");
    path.into()
}

/// What a line says of its place.
#[derive(Debug, Deserialize)]
pub(super) struct Link {
    pub(super) seq: u64,
    pub(super) prev: String,
}

/// Begins the line that follows `last`.
fn link(line: &mut Vec<u8>, last: Head) -> io::Result<()> {
    write!(line, "{{\"seq\":{},\"prev\":\"", last.seq + 1)?;
    let prev: [u8; 64] = digits(&last.hash);
    line.extend_from_slice(&prev);
    line.push(b'"');
    Ok(())
}

/// The number and the hash of a log's last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) hash: Hash,
}

impl Head {
    const EMPTY: Self = Self {
        seq: 0,
        hash: GENESIS,
    };

    /// Of the same length always, so that it is written over in one call.
    fn text(&self) -> String {
        format!("{:020} {}\n", self.seq, hex(&self.hash))
    }

    /// `None` where there is no such file.
    pub(super) fn read(log: &Path) -> io::Result<Option<Self>> {
        let text = match std::fs::read_to_string(head_path(log)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let parsed = (|| {
            let (seq, digits) = text.trim_end().split_once(' ')?;
            let mut hash = GENESIS;
            if digits.len() != 64 {
                return None;
            }
            for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
                *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
            }
            let seq = seq.parse().ok()?;
            Some(Self { seq, hash })
        })();
        parsed
            .map(Some)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the head is not one"))
    }
}

/// A log that is written to.
#[derive(Debug)]
pub(super) struct Chain {
    log: File,
    /// `None` for what is no file (a pipe, a device), which has no end to take away.
    head: Option<File>,
    last: Head,
    /// What the head's file says.
    noted: Head,
    /// The lines of one call.
    batch: Vec<u8>,
    /// Bytes of the log up to the end of its last whole record.
    length: u64,
}

impl Chain {
    /// Takes up the chain where it ended. A log whose end is not what its head says is set aside under another name,
    /// and the new one's first record says so.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut log = open(path)?;
        let meta = log.metadata()?;
        if !meta.is_file() {
            return Ok(Self {
                log,
                head: None,
                last: Head::EMPTY,
                noted: Head::EMPTY,
                batch: Vec::new(),
                length: 0,
            });
        }
        if let Err(TryLockError::WouldBlock) = log.try_lock() {
            return Err(io::Error::other("another sidecar writes to it"));
        }
        let mut damage = None;
        let last = match tail(&mut log, meta.len()).and_then(|last| agree(path, last)) {
            Ok(last) => last,
            Err(error) => {
                let aside = aside(path)?;
                std::fs::rename(path, &aside)?;
                let _absent = std::fs::rename(head_path(path), head_path(&aside));
                log = open(path)?;
                // Nobody else has it yet.
                let _locked = log.try_lock();
                damage = Some(format!(
                    "the log that was here is damaged ({error}) and is now {}",
                    aside.display()
                ));
                Head::EMPTY
            }
        };
        let head = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(head_path(path))?;
        head.write_all_at(last.text().as_bytes(), 0)?;
        let mut chain = Self {
            length: log.metadata()?.len(),
            log,
            head: Some(head),
            last,
            noted: last,
            batch: Vec::new(),
        };
        if let Some(words) = damage {
            tracing::error!(reason = words, "the audit log begins anew");
            chain.append(&[Record::of_sidecar("", "gap", &words, "")])?;
            chain.note()?;
        }
        Ok(chain)
    }

    /// It is a file on a disk: a write to it takes no longer than a copy, but for a disk that is overburdened.
    pub(super) fn is_file(&self) -> bool {
        self.head.is_some()
    }

    /// All of the records or none. Their head is still to be noted.
    pub(super) fn append<'r>(
        &mut self,
        records: impl IntoIterator<Item = &'r Record>,
    ) -> io::Result<()> {
        self.batch.clear();
        let batch = &mut self.batch;
        let mut last = self.last;
        for record in records {
            let start = batch.len();
            link(batch, last)?;
            // One object: the record's first brace gives way to the comma.
            let brace = batch.len();
            serde_json::to_writer(&mut *batch, record)?;
            if let Some(byte) = batch.get_mut(brace) {
                *byte = b',';
            }
            last = Head {
                seq: last.seq + 1,
                hash: hash(batch.get(start..).unwrap_or_default()),
            };
            batch.push(b'\n');
        }
        if batch.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.log.write_all(batch) {
            if self.head.is_some() {
                // Half a record at the end would make every later one unreadable.
                self.log.set_len(self.length)?;
            }
            return Err(error);
        }
        self.length += batch.len() as u64;
        self.last = last;
        self.batch.clear();
        self.batch.shrink_to(BATCH_ROOM);
        Ok(())
    }

    pub(super) fn is_noted(&self) -> bool {
        self.head.is_none() || self.noted == self.last
    }

    /// Writes the head's file, where it is behind.
    pub(super) fn note(&mut self) -> io::Result<()> {
        if let Some(head) = &self.head
            && self.noted != self.last
        {
            head.write_all_at(self.last.text().as_bytes(), 0)?;
            self.noted = self.last;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    // A pipe or a device may be for writing only.
    if path.is_file() || !path.exists() {
        options.read(true);
    }
    options.open(path)
}

/// The last line of a log.
fn tail(log: &mut File, length: u64) -> io::Result<Head> {
    if length == 0 {
        return Ok(Head::EMPTY);
    }
    log.seek(SeekFrom::Start(length.saturating_sub(MAX_LINE as u64)))?;
    let mut end = Vec::new();
    log.take(MAX_LINE as u64).read_to_end(&mut end)?;
    let wrong = |words: &str| io::Error::new(io::ErrorKind::InvalidData, words.to_owned());
    let whole = end
        .strip_suffix(b"\n")
        .ok_or_else(|| wrong("its last line is cut"))?;
    let line = whole
        .rsplit(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let link: Link =
        serde_json::from_slice(line).map_err(|_| wrong("its last line is not a record"))?;
    Ok(Head {
        seq: link.seq,
        hash: hash(line),
    })
}

/// The head may lag by what was written when the sidecar was killed, never lead.
fn agree(path: &Path, last: Head) -> io::Result<Head> {
    let wrong = |words: String| Err(io::Error::new(io::ErrorKind::InvalidData, words));
    match Head::read(path)? {
        Some(head) if head.seq > last.seq => wrong(format!(
            "it ends at record {} and had {}",
            last.seq, head.seq
        )),
        Some(head) if head.seq == last.seq && head.hash != last.hash => {
            wrong(format!("its last record, {}, was edited", last.seq))
        }
        _ => Ok(last),
    }
}

fn aside(path: &Path) -> io::Result<PathBuf> {
    for number in 1..1000 {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        let name = PathBuf::from(name);
        if !name.exists() {
            return Ok(name);
        }
    }
    Err(io::Error::other(
        "there are too many damaged logs beside it",
    ))
}
