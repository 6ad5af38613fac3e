//! Files as `uuencode` writes them: after `begin 644 name`, lines of a length and groups of four characters.

use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::map::Rewriter;
use crate::finding::Via;
use crate::kernel::BLOCK;

/// What a file begins with.
pub(crate) const BEGIN: &[u8] = b"begin ";

/// What a full line, of 45 bytes, begins with.
static LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\nM"));

/// The regions that a `begin` line opens, or that have full lines. `begins` is where [`BEGIN`] stands in either case, and `blocks`
/// are those of [`BLOCK`] bytes in which hardly a small letter is.
pub(super) fn regions(
    text: &[u8],
    swept: usize,
    begins: &[usize],
    blocks: impl Iterator<Item = usize>,
) -> Vec<Range<usize>> {
    let mut regions = Vec::new();
    let mut done = 0;
    let near = text.get(..swept).unwrap_or(text);
    for at in begins.iter().copied() {
        let rest = text.get(at..).and_then(|rest| rest.strip_prefix(BEGIN));
        let Some([a, b, c, b' ', ..]) = rest else {
            continue;
        };
        if at < done || ![a, b, c].iter().all(|digit| matches!(digit, b'0'..=b'7')) {
            continue;
        }
        let mut end = at + line_length(&text[at..]);
        while line(&text[end..]).is_some() {
            end += line_length(&text[end..]);
        }
        done = end;
        regions.push(at..end);
    }
    // Whole lines in the midst of a file, whose beginning an earlier window saw.
    let lines = blocks.flat_map(|number| {
        let begin = (number * BLOCK).saturating_sub(BLOCK);
        let end = near.len().min((number + 2) * BLOCK);
        let here = near.get(begin..end).unwrap_or_default();
        LINE.find_iter(here).map(move |at| begin + at + 1)
    });
    for at in lines {
        if at < done
            || line(&text[at..]).is_none_or(|(count, digits)| count != 45 || digits.len() < 60)
        {
            continue;
        }
        let mut end = at;
        while line(&text[end..]).is_some() {
            end += line_length(&text[end..]);
        }
        done = end;
        // The first line is passed over like that of `begin`.
        let before = text[..at - 1]
            .iter()
            .rev()
            .take(80)
            .take_while(|byte| **byte != b'\n')
            .count();
        regions.push(at - 1 - before..end);
    }
    regions
}

pub(super) fn decode(rewriter: &mut Rewriter<'_>) {
    let text = rewriter.source();
    let mut at = line_length(text);
    let mut from = at;
    while let Some((count, digits)) = text.get(at..).and_then(line) {
        let mut bytes = Vec::with_capacity(digits.len());
        for four in digits.chunks(4) {
            let number = (0..4).fold(0_u32, |number, at| {
                number << 6 | u32::from(four.get(at).map_or(0, |digit| value(*digit)))
            });
            bytes.extend_from_slice(&number.to_be_bytes()[1..]);
        }
        bytes.truncate(count);
        let end = at + line_length(&text[at..]);
        rewriter.replace(from..end, &bytes, Via::Uuencode);
        at = end;
        from = end;
    }
}

fn value(digit: u8) -> u8 {
    digit.wrapping_sub(0x20) & 0x3F
}

/// Its length with its end.
fn line_length(text: &[u8]) -> usize {
    memchr::memchr(b'\n', text).map_or(text.len(), |end| end + 1)
}

/// How many bytes a line of digits stands for, and the digits.
fn line(text: &[u8]) -> Option<(usize, &[u8])> {
    let line = text.get(..line_length(text))?.trim_ascii_end();
    let (first, digits) = line.split_first()?;
    let count = usize::from(value(*first));
    let right = (1..=45).contains(&count)
        && (b'!'..=b'M').contains(first)
        // Blanks at the end may be lost; a checksum may follow.
        && digits.len() <= count.div_ceil(3) * 4 + 2
        && digits.len() + 4 >= count.div_ceil(3) * 4
        && digits.iter().all(|digit| (0x20..=0x60).contains(digit));
    right.then_some((count, digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read() {
        // From Wikipedia's article on uuencoding.
        let text = b"x\nbegin 644 cat.txt\n#0V%T\n`\nend\n";
        let region = regions(text, text.len(), &[2], std::iter::empty()).remove(0);
        assert_eq!(region, 2..26);
        let mut rewriter = Rewriter::new(&text[region]);
        decode(&mut rewriter);
        assert!(rewriter.finish().unwrap().text.ends_with(b"Cat"));
        assert!(regions(b"begin the work", 14, &[0], 0..1).is_empty());
    }
}
