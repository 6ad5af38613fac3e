//! Phrases in base64: what a run of it says, and how it would look.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Whether a run of base64, of either alphabet, goes on with `byte`.
pub(super) fn is_digit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// The digits that `text` surely has at each of the three ways in which it can lie.
pub(super) fn alignments(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..3_usize).map(move |shift| {
        let bits = |at: usize| -> u8 {
            // Bit `at` of the text after `shift` unknown bytes.
            at.checked_sub(8 * shift)
                .and_then(|at| Some(text.get(at / 8)? >> (7 - at % 8) & 1))
                .unwrap_or(0)
        };
        let first = (8 * shift).div_ceil(6);
        let end = 8 * (shift + text.len()) / 6;
        (first..end)
            .filter_map(|digit| {
                let value = (0..6).fold(0_u8, |value, bit| value << 1 | bits(6 * digit + bit));
                DIGITS.get(usize::from(value)).copied()
            })
            .collect()
    })
}

/// What `digits` say, if it is text.
pub(super) fn decode(digits: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(digits.len() * 3 / 4);
    for four in digits.chunks(4) {
        let mut number = 0_u32;
        for at in 0..4 {
            let value = match four.get(at) {
                Some(byte @ b'A'..=b'Z') => byte - b'A',
                Some(byte @ b'a'..=b'z') => byte - b'a' + 26,
                Some(byte @ b'0'..=b'9') => byte - b'0' + 52,
                Some(b'+' | b'-') => 62,
                Some(b'/' | b'_') => 63,
                _ => 0,
            };
            number = number << 6 | u32::from(value);
        }
        let [_, bytes @ ..] = number.to_be_bytes();
        text.extend(bytes.iter().take(four.len() * 6 / 8));
    }
    let printable = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t');
    (text.iter().all(printable) && text.contains(&b' ')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_seen_at_each_alignment() {
        let ways: Vec<_> = alignments(b"password").collect();
        for (way, encoded) in ways
            .iter()
            .zip(["cGFzc3dvcmQ=", "YXBhc3N3b3Jk", "YWFwYXNzd29yZA=="])
        {
            assert!(
                encoded.contains(std::str::from_utf8(way).unwrap()),
                "{encoded}"
            );
            assert!(way.len() >= 10);
        }
    }

    #[test]
    fn only_text_is_decoded() {
        assert_eq!(decode(b"cHJpbnQgaXQ").unwrap(), b"print it");
        assert_eq!(decode(b"AAAAAAAA"), None);
        assert_eq!(decode(b"cGFzc3dvcmQ"), None, "one word is none of ours");
    }
}
