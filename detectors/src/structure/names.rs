//! Names of fields as they may be shown.

use std::collections::HashSet;

use crate::finding::{Field, Finding, Location};
use crate::redact::MASK;
use crate::scanner::Scanner;

/// Characters, escaped for a terminal, of a name that is shown. A longer one is left out, not cut: what a cut leaves of a
/// credential no detector knows.
const MAX_NAME: usize = 96;

/// Characters of the names on either end of a place; what is between is left out.
const MAX_SIDE: usize = 256;

/// What stands for names that are left out.
const LEFT_OUT: &str = "…";

/// Letters and digits in a row that a name has in common with what was found, from which on it is a piece of that.
const PIECE: usize = 5;

/// Bytes of what was found that names are compared with.
const MAX_MATCHED: usize = 16 * 1024;

/// A place.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) field: Field,
    /// Names as the sender's reader reads them, without numbers of elements between.
    pub(super) names: Vec<String>,
}

/// Decides which names may be shown beside one finding.
pub(super) struct Judge<'a> {
    scanner: &'a Scanner,
    pieces: HashSet<[u8; PIECE]>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(scanner: &'a Scanner, finding: &Finding) -> Self {
        let matched = finding.matched.expose();
        let matched = matched.get(..MAX_MATCHED).unwrap_or(matched);
        Self {
            scanner,
            pieces: pieces(matched).collect(),
        }
    }

    /// `name`, if it may be shown. `touched` is whether a finding lies in it.
    pub(super) fn shown<'n>(&self, name: &'n str, touched: bool) -> &'n str {
        if touched {
            MASK
        } else if name.len() > 4 * MAX_NAME || escaped(name) > MAX_NAME {
            LEFT_OUT
        } else if self.is_piece(name) {
            MASK
        } else {
            name
        }
    }

    /// Whether the names put together are nothing that must not be shown.
    pub(super) fn allows(&self, place: &Named) -> bool {
        let joined = place.names.concat();
        !self.is_piece(&joined)
            && [joined, place.names.join("\n"), place.field.to_string()]
                .iter()
                .all(|text| {
                    self.scanner
                        .scan(&Location::Body, text.as_bytes())
                        .is_empty()
                })
    }

    fn is_piece(&self, text: &str) -> bool {
        pieces(text.as_bytes()).any(|piece| self.pieces.contains(&piece))
    }
}

/// All that stands in a row in the letters and digits of `text`, forwards.
fn pieces(text: &[u8]) -> impl Iterator<Item = [u8; PIECE]> {
    let mut last = [0; PIECE];
    text.iter()
        .filter(|byte| byte.is_ascii_alphanumeric())
        .map(move |byte| {
            last.rotate_left(1);
            last[PIECE - 1] = byte.to_ascii_lowercase();
            last
        })
        .skip(PIECE - 1)
}

/// A JSON Pointer (RFC 6901) of names, `segment(0)` the outermost of `count`. Some in the middle of a long one are left out.
pub(super) fn pointer(count: usize, segment: impl Fn(usize) -> String) -> String {
    let take = |order: &mut dyn Iterator<Item = usize>| {
        let mut room = MAX_SIDE;
        let mut taken = Vec::new();
        for at in order {
            let name = segment(at);
            let size = escaped(&name) + 1;
            if size > room {
                break;
            }
            room -= size;
            taken.push(name);
        }
        taken
    };
    let mut names = take(&mut (0..count));
    let mut last = take(&mut (names.len()..count).rev());
    if names.len() + last.len() < count {
        names.push(LEFT_OUT.to_owned());
    }
    last.reverse();
    names.append(&mut last);
    names
        .iter()
        .map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1")))
        .collect()
}

fn escaped(name: &str) -> usize {
    name.escape_debug().count()
}
