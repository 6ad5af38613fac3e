//! `sidecar verify-audit`: whether a log is whole, and what is wrong where it is not.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::chain::{GENESIS, Hash, Head, Link, MAX_LINE, hash, hex};

/// A log in which every line follows from the one before it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Whole {
    pub records: u64,
    pub verdicts: Vec<(String, u64)>,
    /// The last record says that the sidecar stopped in order.
    pub closed: bool,
    /// `NAME.head` is there and agrees, so that no line is missing at the end.
    pub anchored: bool,
}

/// The first thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    #[error("line {line}: {why}")]
    Line { line: u64, why: Why },
    #[error("the end: {0}")]
    End(Why),
    #[error(transparent)]
    Read(#[from] io::Error),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is not a record, or not the one that the next line carries the hash of.
    Edited(&'static str),
    /// Records with these numbers are missing before it.
    Removed(u64, u64),
    /// It stands before or after its place.
    Reordered { expected: u64, found: u64 },
    /// It has a number that another line has already.
    Inserted(u64),
    /// The file ends in the midst of it, or before what its head says.
    Truncated(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edited(how) => write!(f, "edited: {how}"),
            Self::Removed(first, last) if first == last => {
                write!(f, "removed: record {first} is missing before it")
            }
            Self::Removed(first, last) => {
                write!(
                    f,
                    "removed: records {first} to {last} are missing before it"
                )
            }
            Self::Reordered { expected, found } => write!(
                f,
                "reordered: record {found} stands where record {expected} belongs"
            ),
            Self::Inserted(number) => {
                write!(f, "inserted: record {number} was there before")
            }
            Self::Truncated(how) => write!(f, "truncated: {how}"),
        }
    }
}

/// What is looked at beside the link.
#[derive(Debug, serde::Deserialize)]
struct Verdict {
    #[serde(default)]
    verdict: String,
}

/// Reads a log to its end or to its first flaw.
pub fn verify(path: &Path) -> Result<Whole, Flaw> {
    // Read first: a log that is written to meanwhile only gets longer.
    let head = Head::read(path)?;
    let places = places(path)?;
    let mut lines = Lines::open(path)?;
    let mut verdicts: HashMap<String, u64> = HashMap::new();
    let mut last = String::new();
    let mut before: Hash = GENESIS;
    let mut expected = 1u64;
    let mut number = 0u64;
    while let Some((line, ended)) = lines.next()? {
        number += 1;
        let flaw = |line, why| Flaw::Line { line, why };
        if !ended {
            let how = "the file ends in the midst of this line".to_owned();
            return Err(flaw(number, Why::Truncated(how)));
        }
        let Ok(link) = serde_json::from_slice::<Link>(&line) else {
            return Err(flaw(number, Why::Edited("it is not a record of this log")));
        };
        if link.seq != expected {
            let later = places.get(&expected).copied();
            let why = if link.seq < expected {
                Why::Inserted(link.seq)
            } else if later.is_some_and(|place| place > number) {
                Why::Reordered {
                    expected,
                    found: link.seq,
                }
            } else {
                Why::Removed(expected, link.seq - 1)
            };
            return Err(flaw(number, why));
        }
        if link.prev != hex(&before) {
            // A line cannot hash itself: what was changed is the one before, whose hash this one carries.
            return Err(if number == 1 {
                flaw(
                    1,
                    Why::Edited("it follows another record, and is the first"),
                )
            } else {
                let how = "the next line carries the hash of another text";
                flaw(number - 1, Why::Edited(how))
            });
        }
        if let Ok(parsed) = serde_json::from_slice::<Verdict>(&line) {
            last.clone_from(&parsed.verdict);
            *verdicts.entry(parsed.verdict).or_default() += 1;
        }
        before = hash(&line);
        if head.is_some_and(|head| head.seq == expected && head.hash != before) {
            let how = "its hash is not the one that was noted when it was written";
            return Err(flaw(number, Why::Edited(how)));
        }
        expected += 1;
    }
    if let Some(head) = head
        && head.seq >= expected
    {
        let how = format!(
            "records {expected} to {} were written and are not there",
            head.seq
        );
        return Err(Flaw::End(Why::Truncated(how)));
    }
    let mut verdicts: Vec<_> = verdicts.into_iter().collect();
    verdicts.sort();
    Ok(Whole {
        records: number,
        verdicts,
        closed: last == "stop",
        anchored: head.is_some(),
    })
}

/// In which line each number stands first; only to tell a removed record from a moved one.
fn places(path: &Path) -> io::Result<HashMap<u64, u64>> {
    let mut lines = Lines::open(path)?;
    let mut places = HashMap::new();
    let mut number = 0;
    while let Some((line, _)) = lines.next()? {
        number += 1;
        if let Ok(link) = serde_json::from_slice::<Link>(&line) {
            places.entry(link.seq).or_insert(number);
        }
    }
    Ok(places)
}

struct Lines(BufReader<File>);

impl Lines {
    fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(BufReader::new).map(Self)
    }

    /// A line without its end, and whether it had one.
    fn next(&mut self) -> io::Result<Option<(Vec<u8>, bool)>> {
        let mut line = Vec::new();
        let limit = MAX_LINE as u64 + 1;
        if (&mut self.0).take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let ended = line.pop_if(|byte| *byte == b'\n').is_some();
        if !ended && line.len() as u64 == limit {
            return Err(io::Error::other("a line is longer than any record"));
        }
        Ok(Some((line, ended)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Record;
    use super::super::chain::{Chain, head_path};
    use super::*;

    /// A log of seven records in its own directory, changed by `change`, and what is found.
    fn after(change: impl FnOnce(&mut Vec<String>)) -> Result<Whole, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        for part in ["one", "two"] {
            let mut chain = Chain::open(&path).unwrap();
            for at in 0..3 {
                let words = format!("{part} {at}");
                chain
                    .append(&[Record::of_sidecar("b", "allow", &words, "p")])
                    .unwrap();
            }
        }
        let mut chain = Chain::open(&path).unwrap();
        chain
            .append(&[Record::of_sidecar("b", "stop", "", "p")])
            .unwrap();
        chain.note().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines: Vec<String> = text.lines().map(|line| format!("{line}\n")).collect();
        change(&mut lines);
        std::fs::write(&path, lines.concat()).unwrap();
        verify(&path).map_err(|flaw| flaw.to_string())
    }

    #[test]
    fn a_log_that_nobody_touched() {
        let whole = after(|_| ()).unwrap();
        assert_eq!(
            (whole.records, whole.closed, whole.anchored),
            (7, true, true)
        );
        assert_eq!(
            whole.verdicts,
            [("allow".to_owned(), 6), ("stop".to_owned(), 1)]
        );
    }

    #[test]
    fn every_edit_of_every_line_is_named() {
        for at in 0..7 {
            let flaw = after(|lines| {
                lines[at] = lines[at].replace("\"bottle\":\"b\"", "\"bottle\":\"c\"");
            })
            .unwrap_err();
            assert!(
                flaw.starts_with(&format!("line {}: edited", at + 1)),
                "{flaw}"
            );
            let flaw = after(|lines| lines[at] = "{}\n".into()).unwrap_err();
            assert!(
                flaw.starts_with(&format!("line {}: edited", at + 1)),
                "{flaw}"
            );
        }
    }

    #[test]
    fn removed_reordered_inserted_truncated() {
        for at in 0..6 {
            let flaw = after(|lines| drop(lines.remove(at))).unwrap_err();
            let words = format!("line {}: removed: record {} is missing", at + 1, at + 1);
            assert!(flaw.starts_with(&words), "{flaw}");
            let flaw = after(|lines| lines.swap(at, at + 1)).unwrap_err();
            let words = format!("line {}: reordered: record {}", at + 1, at + 2);
            assert!(flaw.starts_with(&words), "{flaw}");
            let flaw = after(|lines| lines.insert(at + 1, lines[at].clone())).unwrap_err();
            let words = format!("line {}: inserted: record {}", at + 2, at + 1);
            assert!(flaw.starts_with(&words), "{flaw}");
        }
        for left in 0..7 {
            let flaw = after(|lines| lines.truncate(left)).unwrap_err();
            let words = format!("the end: truncated: records {} to 7", left + 1);
            assert!(flaw.starts_with(&words), "{flaw}");
        }
        let flaw = after(|lines| {
            let half = lines[6].len() / 2;
            lines[6].truncate(half);
        })
        .unwrap_err();
        assert!(flaw.starts_with("line 7: truncated"), "{flaw}");
    }

    /// Half a line, or fewer lines than there were: set aside, never written over, and said.
    #[test]
    fn a_damaged_log_is_set_aside() {
        for cut in [1, 40] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("audit.jsonl");
            let mut chain = Chain::open(&path).unwrap();
            chain
                .append(&[Record::of_sidecar("b", "allow", "", "p")])
                .unwrap();
            drop(chain);
            let text = std::fs::read(&path).unwrap();
            std::fs::write(&path, &text[..text.len() - cut]).unwrap();
            drop(Chain::open(&path).unwrap());
            let aside = dir.path().join("audit.jsonl.damaged-1");
            assert_eq!(std::fs::read(&aside).unwrap().len(), text.len() - cut);
            assert!(head_path(&aside).exists());
            assert_eq!(verify(&path).unwrap().verdicts, [("gap".to_owned(), 1)]);
            assert!(verify(&aside).is_err());
        }
    }

    #[test]
    fn two_writers_would_tear_the_chain() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let one = Chain::open(&path).unwrap();
        assert!(Chain::open(&path).is_err());
        drop(one);
        assert!(Chain::open(&path).is_ok());
    }
}
