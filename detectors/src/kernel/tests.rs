//! The vector paths, held equal to the portable one.

use proptest::prelude::*;

use super::columns::Masks;
use super::*;

fn luts() -> Luts {
    let set = |seed: u8| {
        let mut luts = [[0_u8; 64]; POSITIONS];
        for (position, lut) in luts.iter_mut().enumerate() {
            for (symbol, buckets) in lut.iter_mut().enumerate() {
                *buckets = (symbol as u8)
                    .wrapping_mul(37)
                    .wrapping_add(seed)
                    .rotate_left(position as u32)
                    | (symbol as u8 & seed);
            }
        }
        luts
    };
    Luts::new([1, 77, 150, 201, 99].map(|seed| vec![set(seed)]))
}

/// All that a sweep tells.
type Swept = (Vec<Masks>, Vec<u8>, Vec<u32>, Vec<u64>, [Vec<u64>; 9]);

fn swept(level: Level, text: &[u8], luts: &Luts, with: &mut Sweep) -> Swept {
    let length = sweep(level, text, luts, with);
    let blocks = text.len().div_ceil(BLOCK);
    (
        (0..blocks)
            .map(|number| with.blocks(text.len()).at(number))
            .collect(),
        with.squeezed[..length].to_vec(),
        with.squeezed_before[..blocks].to_vec(),
        with.candidates[..blocks].to_vec(),
        [
            &with.gates.rows,
            &with.gates.blobs,
            &with.gates.covers,
            &with.gates.edges,
            &with.gates.words,
            &with.gates.texts,
            &with.gates.begins,
            &with.gates.escapes,
            &with.gates.open,
        ]
        .map(|column| column[..blocks].to_vec()),
    )
}

fn assert_equal(text: &[u8]) {
    let luts = luts();
    let expected = swept(Level::Portable, text, &luts, &mut Sweep::default());
    let mut dirty = Sweep::default();
    for level in levels() {
        sweep(level, &[b'z'; 500], &luts, &mut dirty);
        assert_eq!(swept(level, text, &luts, &mut dirty), expected, "{level:?}");
        assert_eq!(
            summary(level, text),
            summary(Level::Portable, text),
            "{level:?}"
        );
        assert_eq!(
            is_readable(level, text),
            is_readable(Level::Portable, text),
            "{level:?}"
        );
        let block = &text[..text.len().min(BLOCK)];
        assert_eq!(
            base85_bits(level, block),
            base85_bits(Level::Portable, block),
            "{level:?}"
        );
        let decoded = |level| {
            let mut output = b"before".to_vec();
            base64(level, text, &mut output);
            output
        };
        assert_eq!(decoded(level), decoded(Level::Portable), "{level:?}");
    }
}

#[test]
fn every_byte_at_every_length() {
    for byte in 0..=255 {
        assert_equal(&[byte; 65]);
    }
    let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    for length in 0..all.len() {
        assert_equal(&all[..length]);
    }
    println!("levels compared: {:?}", levels());
}

#[test]
fn base64_is_what_others_write() {
    use ::base64::Engine as _;
    use ::base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
    for length in 0..300 {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 89 + 7) as u8).collect();
        for written in [
            BASE64_STANDARD_NO_PAD.encode(&bytes),
            BASE64_URL_SAFE_NO_PAD.encode(&bytes),
        ] {
            for level in levels() {
                let mut output = Vec::new();
                base64(level, written.as_bytes(), &mut output);
                assert_eq!(output, bytes, "{level:?}");
            }
        }
    }
}

#[test]
fn fourteen_in_a_row_are_readable() {
    for at in 0..150 {
        for length in [13, 14] {
            let mut text = [0xFF; 200];
            text[at..at + length].fill(b'a');
            for level in levels() {
                assert_eq!(
                    is_readable(level, &text),
                    length == 14,
                    "{level:?}, {length} at {at}"
                );
            }
        }
    }
}

/// The places of `text` that are picked, and those of them that a filter of `grams` keeps.
fn picked(level: Level, text: &[u8], key: u32, filter: &Filter) -> (Vec<u64>, Vec<u16>, Vec<u16>) {
    let places = (text.len() + 1).saturating_sub(GRAM);
    // As an earlier text leaves it.
    let mut with = Samples::default();
    samples(level, &[b'x'; 900], 893, key, &mut with);
    samples(level, text, places, key, &mut with);
    let masks = with.picked[..places.div_ceil(BLOCK)].to_vec();
    with_places(|list| {
        let count = super::places(level, &masks, list);
        let all = list[..count].to_vec();
        let kept = sift(level, text, list, count, filter);
        (masks, all, list[..kept].to_vec())
    })
}

/// What `picked` must tell, by the words of its definition.
fn picked_plainly(text: &[u8], key: u32) -> Vec<u16> {
    let rank = |at: usize| {
        let four = u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]);
        four.wrapping_mul(key) >> 24
    };
    let places = (text.len() + 1).saturating_sub(GRAM);
    (0..places)
        .filter(|at| {
            (at.saturating_sub(WIDTH - 1)..=*at).any(|first| {
                (first..places.min(first + WIDTH)).all(|other| rank(*at) <= rank(other))
            })
        })
        .map(|at| at as u16)
        .collect()
}

/// Nothing of an earlier text is there to lean on.
#[test]
fn samples_of_a_first_text_of_any_length() {
    for length in 0..200 {
        let text = vec![b'q'; length];
        let places = (length + 1).saturating_sub(GRAM);
        for level in levels() {
            let mut with = Samples::default();
            samples(level, &text, places, 1, &mut with);
            let picked: u32 = with.picked.iter().map(|mask| mask.count_ones()).sum();
            assert_eq!(picked as usize, places, "{level:?}: all are alike");
        }
    }
}

fn assert_picked(text: &[u8], key: u32) {
    let mut filter = Filter::new(text.len(), u64::from(key) << 32 | 0x9E37_79B1);
    for at in (0..text.len()).step_by(3) {
        filter.insert(gram_at(text, at));
    }
    let expected = picked(Level::Portable, text, key, &filter);
    assert_eq!(expected.1, picked_plainly(text, key));
    for level in levels() {
        assert_eq!(picked(level, text, key, &filter), expected, "{level:?}");
    }
    for place in &expected.1 {
        let at = usize::from(*place);
        assert!(
            at % 3 != 0 || expected.2.contains(place),
            "what was put in is kept"
        );
    }
}

#[test]
fn a_part_of_a_text_has_a_place_in_common_with_it() {
    let text: Vec<u8> = (0..2000_u32)
        .map(|at| b"abcdefghijklmnopqrstuvwxyz0123456789"[(at.wrapping_mul(at) >> 3) as usize % 36])
        .collect();
    for key in [1, 0x9E37_79B1, 0xDEAD_BEEF] {
        let of = |text: &[u8]| picked(level(), text, key, &Filter::new(1, 1)).1;
        let all = of(&text);
        for from in 0..text.len() - 15 {
            let part = &text[from..from + 15];
            let common = of(part)
                .into_iter()
                .any(|at| all.contains(&(at + from as u16)));
            assert!(common, "key {key:x}, from {from}");
        }
    }
}

proptest! {
    #[test]
    fn any_squeezed(text in "[a-f0-3]{0,400}|[a-z0-9]{0,700}|a{0,300}", key in any::<u32>()) {
        assert_picked(text.as_bytes(), key | 1);
    }

    #[test]
    fn any_bytes(text in prop::collection::vec(any::<u8>(), 0..700)) {
        assert_equal(&text);
    }

    #[test]
    fn any_ascii(text in prop::collection::vec(0_u8..128, 0..700)) {
        assert_equal(&text);
    }
}
