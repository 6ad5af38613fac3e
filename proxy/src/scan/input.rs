//! One input: opened so that nothing else is read in its place, and streamed through the detectors.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use detectors::{Finding, Location, Scanner, Stream, redact};
use memchr::memmem;
use rustix::fs::OFlags;

use super::entry::{Entry, Fingerprints, Gathered, Name, Scanned};
use super::lines::{Lines, Position, REACH};
use super::talk::Talk;

/// Bytes read at once; what is kept of an input is a few times as much, whatever its size.
const CHUNK: usize = 64 * 1024;

/// What one writes into a line whose findings are meant to be there; the first for those who come from gitleaks.
const MARKS: [&[u8]; 2] = [b"gitleaks:allow", b"bot-bottle:allow"];

/// What the arguments name.
#[derive(Debug, Default)]
pub(super) struct Roots {
    /// Those that can be read only from start to end, and only once.
    pub(super) pipes: Vec<Pipe>,
    /// Files and directories.
    pub(super) walked: Vec<PathBuf>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pipe {
    Stdin,
    /// A shell's `<(command)`.
    Fifo(PathBuf),
}

/// How a file came to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    /// The user named it, and means what a link points to.
    Named,
    /// It was met in a directory: a link that took its place since must not lead out of the tree.
    Met,
}

/// The rule of what the detectors could not look into. The proxy lets nothing pass that it cannot judge; a tree is full of
/// archives and images, so that here it is said and is no finding.
const UNDECODABLE: &str = "undecodable";

/// What holds for every input.
#[derive(Debug)]
pub(super) struct Reading<'s> {
    pub(super) scanner: &'s Scanner,
    pub(super) allow_comments: bool,
    pub(super) max_file_size: Option<u64>,
    pub(super) talk: &'s Talk,
}

impl Reading<'_> {
    /// Sorts out what is there to be read; the rest is a problem.
    pub(super) fn roots(&self, paths: &[PathBuf]) -> Roots {
        let mut roots = Roots::default();
        for path in paths {
            let pipe = if path.as_os_str() == "-" {
                Pipe::Stdin
            } else {
                match path.metadata().map(|metadata| metadata.file_type()) {
                    Ok(kind) if kind.is_dir() || kind.is_file() => {
                        roots.walked.push(path.clone());
                        continue;
                    }
                    Ok(kind) if kind.is_fifo() => Pipe::Fifo(path.clone()),
                    Ok(_) => {
                        self.talk
                            .problem(&self.name(path), "is a device or a socket, not a file");
                        continue;
                    }
                    Err(error) => {
                        self.talk.problem(&self.name(path), error);
                        continue;
                    }
                }
            };
            if !roots.pipes.contains(&pipe) {
                roots.pipes.push(pipe);
            }
        }
        roots
    }

    pub(super) fn pipe(&self, pipe: &Pipe, gathered: &Gathered) {
        let mut buffer = buffer();
        match pipe {
            Pipe::Stdin => {
                let name = Arc::new(Name {
                    order: Box::default(),
                    shown: (*b"<stdin>").into(),
                });
                self.read(&mut io::stdin().lock(), &name, &mut buffer, gathered);
            }
            Pipe::Fifo(path) => {
                let name = Arc::new(self.name(path));
                match File::open(path) {
                    Ok(mut file) => self.read(&mut file, &name, &mut buffer, gathered),
                    Err(error) => self.talk.problem(&name, error),
                }
            }
        }
    }

    pub(super) fn file(&self, path: &Path, chosen: Chosen, buffer: &mut [u8], gathered: &Gathered) {
        let name = Arc::new(self.name(path));
        let opened = open(path, chosen).and_then(|file| {
            let metadata = file.metadata()?;
            Ok((file, metadata))
        });
        let (mut file, metadata) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.talk.problem(&name, error),
        };
        if !metadata.is_file() {
            return self.talk.note(&name, "skipped: not a regular file");
        }
        if let Some(limit) = self.max_file_size
            && metadata.len() > limit
        {
            return self.talk.note(
                &name,
                format!(
                    "skipped: {} bytes, more than --max-file-size",
                    metadata.len()
                ),
            );
        }
        self.read(&mut file, &name, buffer, gathered);
    }

    fn read(&self, input: &mut dyn Read, name: &Arc<Name>, buffer: &mut [u8], gathered: &Gathered) {
        let mut pass = Pass::new(self, Arc::clone(name));
        loop {
            match input.read(buffer) {
                Ok(0) => break,
                Ok(count) => {
                    let chunk = buffer.get(..count).unwrap_or_default();
                    pass.push(chunk);
                    self.talk.progress(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // What was found up to here still counts.
                    self.talk.problem(name, error);
                    break;
                }
            }
        }
        let scanned = pass.finish();
        let opaque = if scanned.opaque {
            "; some of it is compressed or nested and was not looked into"
        } else {
            ""
        };
        self.talk
            .detail(name, format!("scanned, {} bytes{opaque}", scanned.bytes));
        gathered.add(scanned);
    }

    /// A path without its `.` components, and with credentials in it masked.
    pub(super) fn name(&self, path: &Path) -> Name {
        let clean: PathBuf = path
            .components()
            .filter(|component| *component != Component::CurDir)
            .collect();
        let bytes = match clean.as_os_str().as_bytes() {
            b"" => b".",
            bytes => bytes,
        };
        let findings = self.scanner.scan(&Location::Path, bytes);
        Name {
            order: bytes.into(),
            shown: redact(bytes, &findings).into(),
        }
    }
}

pub(super) fn buffer() -> Vec<u8> {
    vec![0; CHUNK]
}

fn open(path: &Path, chosen: Chosen) -> io::Result<File> {
    // A pipe that took the file's place must not make us wait for somebody who writes to it.
    let mut flags = OFlags::NONBLOCK;
    if chosen == Chosen::Met {
        flags |= OFlags::NOFOLLOW;
    }
    OpenOptions::new()
        .read(true)
        .custom_flags(i32::from_ne_bytes(flags.bits().to_ne_bytes()))
        .open(path)
}

/// One input on its way through the detectors.
///
/// A finding waits until the detectors are done with the lines around it: only then is it known what else in them has
/// to be masked.
struct Pass<'r> {
    reading: &'r Reading<'r>,
    name: Arc<Name>,
    stream: Stream,
    lines: Lines,
    waiting: VecDeque<(Finding, Range<Position>)>,
    /// All that was found; the detectors bound their number.
    spans: Vec<Range<u64>>,
    fingerprints: Fingerprints,
    scanned: Scanned,
}

impl<'r> Pass<'r> {
    fn new(reading: &'r Reading<'r>, name: Arc<Name>) -> Self {
        Self {
            reading,
            name,
            stream: reading.scanner.stream(Location::Body),
            lines: Lines::default(),
            waiting: VecDeque::new(),
            spans: Vec::new(),
            fingerprints: Fingerprints::default(),
            scanned: Scanned::default(),
        }
    }

    fn push(&mut self, chunk: &[u8]) {
        self.scanned.bytes += chunk.len() as u64;
        self.lines.push(chunk);
        let findings = self.stream.push(chunk);
        self.take(findings);
        // No finding reported later begins before this.
        let released = self.stream.released();
        self.settle(released);
        self.lines.advance(released);
        let needed = self
            .waiting
            .front()
            .map_or(released, |(finding, _)| finding.span.start);
        self.lines.forget(needed);
    }

    fn finish(mut self) -> Scanned {
        let findings = self.stream.finish();
        self.take(findings);
        self.settle(u64::MAX);
        self.scanned
    }

    fn take(&mut self, mut findings: Vec<Finding>) {
        findings.sort_by_key(|finding| (finding.span.start, finding.span.end));
        for finding in findings {
            if finding.rule.to_string() == UNDECODABLE {
                self.scanned.opaque = true;
                continue;
            }
            let start = self.lines.advance(finding.span.start);
            let end = self.lines.position(finding.span.end);
            self.spans.push(finding.span.clone());
            self.waiting.push_back((finding, start..end));
        }
    }

    fn settle(&mut self, released: u64) {
        while let Some((finding, _)) = self.waiting.front()
            && (released == u64::MAX || finding.span.end.saturating_add(REACH) <= released)
            && let Some((finding, places)) = self.waiting.pop_front()
        {
            let around = self.lines.around(&finding.span);
            let masked = masked(self.lines.bytes(around.clone()), &around, &self.spans);
            let rule = finding.rule.to_string();
            // Before it is allowed, so that the numbers of those that look the same do not depend on that.
            let fingerprint = self.fingerprints.next(&rule, &self.name, &masked);
            // A structural finding says something about the whole input.
            let allowed = self.reading.allow_comments
                && !finding.structural
                && MARKS
                    .iter()
                    .any(|mark| memmem::find(self.lines.bytes(around.clone()), mark).is_some());
            if allowed {
                self.scanned.allowed += 1;
            } else {
                let entry = Entry::new(finding, Arc::clone(&self.name), places, fingerprint);
                self.scanned.entries.push(entry);
            }
        }
    }
}

/// `text`, which stands at `around`, without what is in any of the spans.
fn masked(text: &[u8], around: &Range<u64>, spans: &[Range<u64>]) -> Vec<u8> {
    let mut inside: Vec<Range<u64>> = spans
        .iter()
        .filter(|span| span.start < around.end && around.start < span.end)
        .cloned()
        .collect();
    inside.sort_by_key(|span| (span.start, span.end));
    let local = |at: u64| {
        usize::try_from(at.saturating_sub(around.start))
            .unwrap_or(usize::MAX)
            .min(text.len())
    };
    let mut kept = Vec::with_capacity(text.len());
    let mut from = 0;
    for span in inside {
        let (start, end) = (local(span.start), local(span.end));
        kept.extend_from_slice(text.get(from..start).unwrap_or_default());
        if start >= from {
            kept.extend_from_slice(b"********");
        }
        from = from.max(end);
    }
    kept.extend_from_slice(text.get(from..).unwrap_or_default());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masking() {
        let masked = |spans: &[Range<u64>]| {
            String::from_utf8(masked(b"0123456789", &(100..110), spans)).unwrap()
        };
        assert_eq!(masked(&[]), "0123456789");
        assert_eq!(masked(&[90..95, 120..130, 95..100]), "0123456789");
        assert_eq!(masked(&[102..104, 100..100]), "01********456789");
        assert_eq!(masked(&[90..102, 108..900]), "********234567********");
        assert_eq!(masked(&[102..106, 103..104, 105..107]), "01********789");
    }

    #[test]
    fn how_it_arrives_changes_nothing() {
        const KEY: &str = "AKIAIOSFODNN7EXAMPLE"; // gitleaks:allow
        let mut text = String::new();
        for at in 0..300 {
            text.push_str(&"x ".repeat(at * 3));
            text.push_str(&format!(
                "é key = {KEY} # {}",
                ["", "gitleaks:allow"][at % 2]
            ));
            text.push_str(["\n", " ", "\r\n"][at % 3]);
        }
        let scanner = Scanner::builder().token_patterns(true).build().unwrap();
        let talk = Talk::new(true, false);
        let reading = Reading {
            scanner: &scanner,
            allow_comments: true,
            max_file_size: None,
            talk: &talk,
        };
        let scan = |size: usize| {
            let name = Arc::new(reading.name(Path::new("a")));
            let mut pass = Pass::new(&reading, name);
            text.as_bytes()
                .chunks(size)
                .for_each(|chunk| pass.push(chunk));
            let scanned = pass.finish();
            assert_eq!(scanned.bytes, text.len() as u64);
            (
                scanned.allowed,
                serde_json::to_string(&scanned.entries).unwrap(),
            )
        };
        let whole = scan(usize::MAX);
        assert!(whole.0 > 100, "{}", whole.0);
        assert!(!whole.1.contains(KEY));
        for size in [1, 7, 1000, CHUNK, CHUNK + 1] {
            assert_eq!(scan(size), whole, "{size}");
        }
    }

    #[test]
    fn a_credential_in_a_name_is_masked() {
        let scanner = Scanner::builder().token_patterns(true).build().unwrap();
        let talk = Talk::new(true, false);
        let reading = Reading {
            scanner: &scanner,
            allow_comments: true,
            max_file_size: None,
            talk: &talk,
        };
        let shown =
            |path: &str| String::from_utf8(reading.name(Path::new(path)).shown.into()).unwrap();
        assert_eq!(shown("./a/./AKIAIOSFODNN7EXAMPLE.txt"), "a/********.txt"); // gitleaks:allow
        assert_eq!(shown("./."), ".");
        assert_eq!(shown("/a/../b"), "/a/../b");
    }
}
