//! The encodings in which a known secret is looked for.
//!
//! Percent-encoding, escapes, entities, quoted-printable, UTF-16/32, look-alikes and binary digits are not here: a
//! [view](crate::view) takes those off, whole or partial, and these variants are then found beneath it.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::encode::{self, Encoded};
use crate::finding::Via;

/// Encodings that grow a value much, or cost much to compute, are for values up to this many bytes.
const SHORT: usize = 512;

/// Fewer characters would match by chance, and the index needs as many.
pub(super) const MIN_VARIANT: usize = 8;

/// One encoding of one value. Its bytes are matched without regard to ASCII case.
pub(super) struct Variant {
    pub(super) bytes: Encoded,
    /// Outermost first.
    pub(super) via: Vec<Via>,
}

/// All variants of `value`, the plainest first.
pub(super) fn of(value: &[u8]) -> Vec<Variant> {
    let mut all = Variants::default();
    all.add(&[], value.to_vec().into());
    all.add(&[Via::JsonEscape], encode::json(value));
    all.in_base64(&[], value);
    for before in 0..5 {
        all.add(&[Via::Base32], encode::radix(value, before, encode::BASE32));
        all.add(
            &[Via::Base32],
            encode::radix(value, before, encode::BASE32_HEX),
        );
    }
    for before in 0..4 {
        for alphabet in [encode::ASCII85, encode::BASE85, encode::Z85] {
            all.add(&[Via::Base85], encode::base85(value, before, alphabet));
        }
    }
    for separator in ["", ":", " ", "-", ",", ", ", ".", "_", "\n"] {
        all.add(&[Via::Hex], encode::joined(value, separator, encode::hex));
    }
    for separator in ["", ",", ", ", " "] {
        all.add(
            &[Via::Hex],
            encode::joined(value, separator, encode::prefixed_hex),
        );
    }
    for separator in [",", ", ", " ", "\n"] {
        all.add(
            &[Via::Decimal],
            encode::joined(value, separator, encode::decimal),
        );
    }
    all.add(&[Via::Octal], encode::joined(value, " ", encode::octal));
    all.add(&[Via::Reversed], encode::reversed(value));
    all.add(&[Via::Rot13], encode::rot13(value));
    all.add(&[Via::Atbash], encode::atbash(value));
    all.add(&[Via::Rot47], encode::rot47(value));
    all.add(
        &[Via::Rot13, Via::Reversed],
        encode::rot13(&encode::reversed(value)),
    );
    // As they stand, too: a view takes the NULs out, but a value with bytes above 0x7F is changed by it.
    for (width, via) in [(2, Via::Utf16), (4, Via::Utf32)] {
        all.add(&[via], encode::wide(value, width, true));
        all.add(&[via], encode::wide(value, width, false));
    }
    if value.len() <= SHORT {
        all.add(&[Via::Base58], encode::base58(value));
        all.nested(value);
    }
    all.list
}

#[derive(Default)]
struct Variants {
    list: Vec<Variant>,
    /// Hashes of those in lower case, since matching ignores case; the bytes themselves would be secrets.
    seen: HashSet<u64>,
    state: RandomState,
}

impl Variants {
    fn add(&mut self, via: &[Via], bytes: Encoded) {
        if bytes.len() >= MIN_VARIANT
            && self.seen.insert(
                self.state
                    .hash_one(&*Encoded::new(bytes.to_ascii_lowercase())),
            )
        {
            self.list.push(Variant {
                bytes,
                via: via.to_vec(),
            });
        }
    }

    /// Both alphabets at the three alignments, forwards and backwards; `inside` is what `inner` already is.
    fn in_base64(&mut self, inside: &[Via], inner: &[u8]) {
        for before in 0..3 {
            for alphabet in [encode::BASE64, encode::BASE64_URL] {
                let encoded = encode::radix(inner, before, alphabet);
                self.add(
                    &[&[Via::Reversed, Via::Base64], inside].concat(),
                    encode::reversed(&encoded),
                );
                self.add(&[&[Via::Base64], inside].concat(), encoded);
            }
        }
    }

    /// The pairs of encodings that one shell pipeline makes, for pieces too short to be decoded. Deeper nestings, and all others,
    /// are for the decoders.
    fn nested(&mut self, value: &[u8]) {
        let mut inner: Vec<(Via, Encoded)> =
            vec![(Via::Hex, encode::joined(value, "", encode::hex))];
        // A view takes out the zeros of UTF-16, and with them those of the value.
        if value.iter().any(|byte| *byte == 0 || *byte >= 0x80) {
            inner.push((Via::Utf16, encode::wide(value, 2, true)));
            inner.push((Via::Utf16, encode::wide(value, 2, false)));
        }
        for before in 0..3 {
            inner.push((Via::Base64, encode::radix(value, before, encode::BASE64)));
        }
        for (via, encoded) in inner {
            for before in 0..3 {
                self.add(
                    &[Via::Base64, via],
                    encode::radix(&encoded, before, encode::BASE64),
                );
            }
            self.add(&[Via::Hex, via], encode::joined(&encoded, "", encode::hex));
            self.add(&[Via::Reversed, via], encode::reversed(&encoded));
        }
    }
}
