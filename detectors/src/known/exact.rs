//! Looks for variants too short for the [grams](super::grams), as they stand.
//!
//! An Aho-Corasick automaton over this many literals runs at 0.1 to 0.3 GB/s and takes megabytes a secret,
//! so this is a gram index instead: only every fourth position of the text is probed, with the five bytes
//! that stand there. Any [`MIN_VARIANT`] = 8 bytes in a row hold such a gram whatever their position, so for
//! each variant and each of the four phases *one* gram is indexed: the one that fewest other variants share.
//! A hit is compared whole, so there is neither a false nor a lost match.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use super::variants::{MIN_VARIANT, Variant};
use crate::finding::RuleId;
use crate::window::Match;

/// Positions of the text that are probed.
const STRIDE: usize = 4;

/// Bytes of a gram.
const GRAM: usize = 5;

const _: () = assert!(
    STRIDE + GRAM - 1 <= MIN_VARIANT,
    "a variant must hold a gram at each phase"
);

/// The bytes of a `u64` read from the text that belong to the gram.
const GRAM_MASK: u64 = (1 << (8 * GRAM)) - 1;

/// Sets the bit by which ASCII letters differ in case. Other bytes fall together too, which costs a
/// comparison and no more.
const FOLD: u64 = 0x2020_2020_2020_2020;

/// The variants of all known secrets.
pub(crate) struct ExactIndex {
    names: Vec<(RuleId, Box<str>)>,
    variants: Vec<(u32, Variant)>,
    /// One bit for each hash: most probes end here.
    filter: Vec<u64>,
    /// For each bucket, where in `entries` it begins.
    buckets: Vec<u32>,
    entries: Vec<Entry>,
    /// 64 minus the logarithm of the filter's bits, and of the buckets.
    filter_shift: u32,
    bucket_shift: u32,
    /// Odd and random, so that nobody can prepare texts that hit the filter everywhere.
    multiplier: u64,
}

/// The gram `gram` stands at `offset` in variant number `variant`.
#[derive(Clone, Copy)]
struct Entry {
    gram: u64,
    variant: u32,
    offset: u32,
}

impl fmt::Debug for ExactIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExactIndex")
            .field("names", &self.names)
            .field("variants", &self.variants.len())
            .finish_non_exhaustive()
    }
}

impl ExactIndex {
    /// `variants` with the number of their secret; `names` by that number.
    pub(crate) fn new(names: Vec<(RuleId, Box<str>)>, variants: Vec<(u32, Variant)>) -> Self {
        let multiplier = RandomState::new().hash_one(()) | 1;
        let mut entries = choose_grams(&variants, multiplier);
        let bucket_bits = (entries.len() * 2)
            .next_power_of_two()
            .trailing_zeros()
            .max(8);
        let filter_bits = bucket_bits + 4;
        let (bucket_shift, filter_shift) = (64 - bucket_bits, 64 - filter_bits);
        let hash = |gram: u64| gram.wrapping_mul(multiplier);
        entries.sort_by_key(|entry| (hash(entry.gram) >> bucket_shift, entry.gram, entry.variant));

        let mut filter = vec![0_u64; 1 << (filter_bits - 6)];
        let mut buckets = vec![0_u32; (1 << bucket_bits) + 1];
        for entry in &entries {
            let bit = (hash(entry.gram) >> filter_shift) as usize;
            if let Some(word) = filter.get_mut(bit / 64) {
                *word |= 1 << (bit % 64);
            }
            if let Some(count) = buckets.get_mut((hash(entry.gram) >> bucket_shift) as usize + 1) {
                *count += 1;
            }
        }
        let mut begin = 0;
        for bucket in &mut buckets {
            begin += *bucket;
            *bucket = begin;
        }
        Self {
            names,
            variants,
            filter,
            buckets,
            entries,
            filter_shift,
            bucket_shift,
            multiplier,
        }
    }

    pub(crate) fn find(&self, text: &[u8], matches: &mut Vec<Match>) {
        // Where in `matches` the last match of each secret is; only made when there is one.
        let mut last: Vec<Option<usize>> = Vec::new();
        let mut at = 0;
        // Eight bytes are read at each probe though five count; the rest of the text is copied out for that.
        while let Some(eight) = text
            .get(at..at + 8)
            .and_then(|bytes| bytes.first_chunk::<8>())
        {
            let hash = gram(*eight).wrapping_mul(self.multiplier);
            if self.may_hold(hash) {
                self.verify(text, at, gram(*eight), &mut last, matches);
            }
            at += STRIDE;
        }
        let rest = text.get(at..).unwrap_or_default();
        if rest.len() >= GRAM {
            let mut eight = [0; 8];
            eight
                .iter_mut()
                .zip(rest)
                .for_each(|(to, from)| *to = *from);
            self.verify(text, at, gram(eight), &mut last, matches);
        }
    }

    fn may_hold(&self, hash: u64) -> bool {
        let bit = (hash >> self.filter_shift) as usize;
        self.filter
            .get(bit / 64)
            .is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    #[cold]
    fn verify(
        &self,
        text: &[u8],
        at: usize,
        gram: u64,
        last: &mut Vec<Option<usize>>,
        matches: &mut Vec<Match>,
    ) {
        let bucket = (gram.wrapping_mul(self.multiplier) >> self.bucket_shift) as usize;
        let (Some(begin), Some(end)) = (self.buckets.get(bucket), self.buckets.get(bucket + 1))
        else {
            return;
        };
        for entry in self
            .entries
            .get(*begin as usize..*end as usize)
            .unwrap_or_default()
        {
            if entry.gram != gram {
                continue;
            }
            let Some((number, variant)) = self.variants.get(entry.variant as usize) else {
                continue;
            };
            let Some(start) = at.checked_sub(entry.offset as usize) else {
                continue;
            };
            let span = start..start + variant.bytes.len();
            if !text
                .get(span.clone())
                .is_some_and(|bytes| bytes.eq_ignore_ascii_case(&variant.bytes))
            {
                continue;
            }
            last.resize(self.names.len(), None);
            let Some(last) = last.get_mut(*number as usize) else {
                continue;
            };
            match last.and_then(|index| matches.get_mut(index)) {
                // A value of one repeated letter matches at every position of a run of it.
                Some(earlier)
                    if earlier.span.start <= span.start && span.start < earlier.span.end =>
                {
                    earlier.span.end = earlier.span.end.max(span.end);
                }
                _ => {
                    let Some((rule, name)) = self.names.get(*number as usize) else {
                        continue;
                    };
                    *last = Some(matches.len());
                    matches.push(super::found(*rule, name.clone(), span, variant.via.clone()));
                }
            }
        }
    }
}

fn gram(eight: [u8; 8]) -> u64 {
    (u64::from_le_bytes(eight) | FOLD) & GRAM_MASK
}

/// For each variant and phase the gram that is rarest among all variants.
fn choose_grams(variants: &[(u32, Variant)], multiplier: u64) -> Vec<Entry> {
    let grams = |variant: &Variant| -> Vec<u64> {
        variant
            .bytes
            .windows(GRAM)
            .map(|five| gram([five[0], five[1], five[2], five[3], five[4], 0, 0, 0]))
            .collect()
    };
    // A sketch will do: two grams that share a counter only look more common than they are.
    let counter = |gram: u64| (gram.wrapping_mul(multiplier) >> 48) as usize;
    let mut counts = vec![0_u32; 1 << 16];
    let all: Vec<Vec<u64>> = variants.iter().map(|(_, variant)| grams(variant)).collect();
    for gram in all.iter().flatten() {
        if let Some(count) = counts.get_mut(counter(*gram)) {
            *count += 1;
        }
    }
    let mut entries = Vec::with_capacity(variants.len() * STRIDE);
    for (number, grams) in (0_u32..).zip(&all) {
        for phase in 0..STRIDE {
            let candidates = (phase as u32..)
                .step_by(STRIDE)
                .zip(grams.iter().skip(phase).step_by(STRIDE));
            let rarest = candidates
                .min_by_key(|(_, gram)| counts.get(counter(**gram)).copied().unwrap_or(u32::MAX));
            if let Some((offset, gram)) = rarest {
                entries.push(Entry {
                    gram: *gram,
                    variant: number,
                    offset,
                });
            }
        }
    }
    entries
}
