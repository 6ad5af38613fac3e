//! Finds any fifteen characters in a row of any variant, whatever stands between them.
//!
//! Text and variants are *squeezed*: letters and digits alone, in lower case. So separators, line breaks, quotes, NULs and
//! invisible characters do not matter, nor does case, and many encodings become one: percent, quoted-printable, colons, `\x`
//! are all hex then. Of any eight places in a row of a variant the gram of eight characters that begins at the place of the least
//! [rank](crate::kernel::Samples) is indexed, and the text is looked up at places that are picked in the same way: fifteen characters
//! in a row hold eight whole grams, hence one that both sides pick. A hit is then extended to either side.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use zeroize::Zeroizing;

use super::variants::Variant;
use crate::kernel::{self, AT_ONCE, BLOCK, Filter, GRAM, Level, Samples, WIDTH, gram_at};

/// Characters in a row that are a finding.
pub(crate) const ENOUGH: usize = GRAM + WIDTH - 1;

/// Bytes of a secret that are a finding, where an encoding needs so many characters for one that [`ENOUGH`] hold less.
const BYTES: usize = 6;

/// Places that one gram is kept for; a value of one repeated letter has the same gram everywhere.
const MAX_SAME: usize = 4;

/// Words that stand in many a secret and in many an innocent text. Characters of a match that lie in one do not count.
const BOILERPLATE: &[&str] = &[
    "-----BEGIN RSA PRIVATE KEY-----",
    "-----END RSA PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY-----",
    "-----END OPENSSH PRIVATE KEY-----",
    "-----BEGIN ENCRYPTED PRIVATE KEY-----",
    "-----END ENCRYPTED PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----",
    "-----END EC PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----",
    "-----END PRIVATE KEY-----",
    "-----BEGIN CERTIFICATE-----",
    "-----END CERTIFICATE-----",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----",
    "-----END PGP PRIVATE KEY BLOCK-----",
    "\"type\": \"service_account\", \"project_id\": ",
    "\"private_key_id\": ",
    "\"private_key\": ",
    "\"client_email\": ",
    "\"client_id\": ",
    ".iam.gserviceaccount.com",
    "\"auth_uri\": \"https://accounts.google.com/o/oauth2/auth\"",
    "\"token_uri\": \"https://oauth2.googleapis.com/token\"",
    "\"auth_provider_x509_cert_url\": \"https://www.googleapis.com/oauth2/v1/certs\"",
    "\"client_x509_cert_url\": \"https://www.googleapis.com/robot/v1/metadata/x509/\"",
    "\"universe_domain\": \"googleapis.com\"",
    "https://hooks.slack.com/services/",
    "https://discord.com/api/webhooks/",
    "postgresql://postgres@localhost:5432/postgres",
    "mysql://root@localhost:3306/",
    "mongodb+srv://",
    "redis://localhost:6379",
    "amqp://guest:guest@localhost:5672/",
    "DefaultEndpointsProtocol=https;AccountName=",
    "EndpointSuffix=core.windows.net",
    ".servicebus.windows.net/;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=",
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
    "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9",
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9",
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9",
];

/// The variants of all known secrets that are long enough.
pub(crate) struct GramIndex {
    variants: Vec<Indexed>,
    /// Nearly all look-ups end here.
    filter: Filter,
    /// Open addressing; a free slot has variant [`FREE`].
    slots: Vec<Slot>,
    slot_shift: u32,
    /// Tells the ranks by which places are picked: random, so that nobody can prepare texts of which all are.
    key: u32,
}

struct Indexed {
    secret: u32,
    variant: Variant,
    squeezed: Zeroizing<Vec<u8>>,
    /// Characters in a row that are a finding.
    enough: usize,
    /// One byte a character: whether it stands in boilerplate.
    common: Vec<bool>,
}

#[derive(Clone, Copy)]
struct Slot {
    gram: u64,
    variant: u32,
    offset: u32,
}

const FREE: u32 = u32::MAX;

/// A place where a variant, or part of one, stands.
pub(crate) struct Hit<'a> {
    pub(crate) secret: u32,
    pub(crate) variant: &'a Variant,
    /// In squeezed characters.
    pub(crate) span: Range<usize>,
    /// Whether the variant's first and last character are in it.
    pub(crate) begins: bool,
    pub(crate) ends: bool,
}

impl fmt::Debug for GramIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GramIndex")
            .field("variants", &self.variants.len())
            .finish_non_exhaustive()
    }
}

/// The letters and digits of `bytes`, in lower case.
pub(crate) fn squeeze(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut squeezed = Zeroizing::new(Vec::with_capacity(bytes.len()));
    squeezed.extend(
        bytes
            .iter()
            .filter(|byte| byte.is_ascii_alphanumeric())
            .map(u8::to_ascii_lowercase),
    );
    squeezed
}

impl GramIndex {
    /// `None` if no variant is long enough. `lengths` are the secrets' own.
    pub(crate) fn new(variants: Vec<(u32, Variant)>, lengths: &[usize]) -> Option<Self> {
        let common: Vec<Zeroizing<Vec<u8>>> = BOILERPLATE
            .iter()
            .map(|text| squeeze(text.as_bytes()))
            .collect();
        let state = RandomState::new();
        let mut seen = HashSet::new();
        let mut indexed = Vec::with_capacity(variants.len());
        for (secret, variant) in variants {
            let squeezed = squeeze(&variant.bytes);
            if squeezed.len() < ENOUGH || !seen.insert(state.hash_one((secret, &*squeezed))) {
                continue;
            }
            let common = if variant.via.is_empty() {
                boilerplate(&squeezed, &common)
            } else {
                Vec::new()
            };
            let length = lengths.get(secret as usize).copied().unwrap_or(1).max(1);
            let enough = ENOUGH.max(BYTES * squeezed.len() / length);
            indexed.push(Indexed {
                secret,
                variant,
                squeezed,
                enough,
                common,
            });
        }
        if indexed.is_empty() {
            return None;
        }
        let multiplier = state.hash_one(()) | 1;
        let key = (multiplier >> 32) as u32 | 1;
        let mut samples = Samples::default();
        let mut picked: Vec<(u64, u32, u32)> = Vec::new();
        for (number, variant) in (0_u32..).zip(&indexed) {
            let places = variant.squeezed.len() - GRAM + 1;
            kernel::samples(
                kernel::level(),
                &variant.squeezed,
                places,
                key,
                &mut samples,
            );
            for (offset, gram) in variant.squeezed.windows(GRAM).enumerate() {
                if samples.picked[offset / BLOCK] >> (offset % BLOCK) & 1 == 1 {
                    picked.push((gram_at(gram, 0), number, offset as u32));
                }
            }
        }
        let grams = picked.len();
        let slot_bits = (grams * 3 / 2).next_power_of_two().trailing_zeros().max(8);
        let mut index = Self {
            variants: Vec::new(),
            filter: Filter::new(grams, multiplier),
            slots: vec![
                Slot {
                    gram: 0,
                    variant: FREE,
                    offset: 0
                };
                1 << slot_bits
            ],
            slot_shift: 64 - slot_bits,
            key,
        };
        for (gram, variant, offset) in picked {
            index.insert(gram, variant, offset);
        }
        index.variants = indexed;
        Some(index)
    }

    fn insert(&mut self, gram: u64, variant: u32, offset: u32) {
        self.filter.insert(gram);
        let hash = self.filter.hash(gram);
        let mask = self.slots.len() - 1;
        let mut at = (hash >> self.slot_shift) as usize;
        let mut same = 0;
        loop {
            let slot = &mut self.slots[at & mask];
            if slot.variant == FREE {
                *slot = Slot {
                    gram,
                    variant,
                    offset,
                };
                return;
            }
            same += usize::from(slot.gram == gram && slot.variant == variant);
            if same == MAX_SAME {
                return;
            }
            at += 1;
        }
    }

    /// Every place where [`ENOUGH`] characters of a variant stand in a row in `squeezed`.
    pub(crate) fn find<'a>(
        &'a self,
        level: Level,
        squeezed: &[u8],
        samples: &mut Samples,
        mut report: impl FnMut(Hit<'a>),
    ) {
        // The last match of each secret: what lies in it need not be looked at again.
        let mut done: Vec<(u32, Range<usize>)> = Vec::new();
        let places = (squeezed.len() + 1).saturating_sub(GRAM);
        kernel::samples(level, squeezed, places, self.key, samples);
        let picked = samples.picked.get(..places.div_ceil(BLOCK));
        kernel::with_places(|list| {
            for (number, picked) in picked.unwrap_or_default().chunks(AT_ONCE).enumerate() {
                let begin = number * AT_ONCE * BLOCK;
                let count = kernel::places(level, picked, list);
                let rest = squeezed.get(begin..).unwrap_or_default();
                let kept = kernel::sift(level, rest, list, count, &self.filter);
                for place in &list[..kept] {
                    let at = begin + usize::from(*place);
                    self.verify(squeezed, at, gram_at(squeezed, at), &mut done, &mut report);
                }
            }
        });
    }

    #[cold]
    fn verify<'a>(
        &'a self,
        squeezed: &[u8],
        at: usize,
        gram: u64,
        done: &mut Vec<(u32, Range<usize>)>,
        report: &mut impl FnMut(Hit<'a>),
    ) {
        let mask = self.slots.len() - 1;
        let mut slot = (self.filter.hash(gram) >> self.slot_shift) as usize;
        loop {
            let Slot {
                gram: here,
                variant,
                offset,
            } = self.slots[slot & mask];
            if variant == FREE {
                return;
            }
            slot += 1;
            if here != gram {
                continue;
            }
            let indexed = &self.variants[variant as usize];
            let covered = done.iter().any(|(secret, span)| {
                *secret == indexed.secret && span.start <= at && at + GRAM <= span.end
            });
            if covered {
                continue;
            }
            let offset = offset as usize;
            let before = common_suffix(&squeezed[..at], &indexed.squeezed[..offset]);
            let after = common_prefix(&squeezed[at..], &indexed.squeezed[offset..]);
            let (from, to) = (offset - before, offset + after);
            let boilerplate = indexed
                .common
                .get(from..to)
                .unwrap_or_default()
                .iter()
                .filter(|common| **common)
                .count();
            // All of a variant is a finding, boilerplate or not.
            let whole = from == 0 && to == indexed.squeezed.len();
            let part = &indexed.squeezed[from..to];
            if !whole && (before + after < indexed.enough + boilerplate || is_common(part)) {
                continue;
            }
            let span = at - before..at + after;
            done.retain(|(_, earlier)| earlier.end > span.start);
            done.push((indexed.secret, span.clone()));
            report(Hit {
                secret: indexed.secret,
                variant: &indexed.variant,
                span,
                begins: from == 0,
                ends: to == indexed.squeezed.len(),
            });
        }
    }
}

/// Whether a part of a secret is nothing that only it can have: a few different characters, or digits alone of which a list
/// of numbers may have as many.
fn is_common(part: &[u8]) -> bool {
    const DIGITS: usize = 24;
    const DIFFERENT: u32 = 5;
    let different = part
        .iter()
        .fold(0_u128, |seen, byte| seen | 1 << (byte & 127))
        .count_ones();
    different < DIFFERENT || part.len() < DIGITS && part.iter().all(u8::is_ascii_digit)
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    a.iter()
        .rev()
        .zip(b.iter().rev())
        .take_while(|(a, b)| a == b)
        .count()
}

/// Marks the characters of `squeezed` that stand in a row of [`ENOUGH`] out of some boilerplate.
fn boilerplate(squeezed: &[u8], common: &[Zeroizing<Vec<u8>>]) -> Vec<bool> {
    let mut marks = vec![false; squeezed.len()];
    for text in common {
        let length = text.len().min(GRAM + 2);
        for (at, window) in squeezed.windows(length).enumerate() {
            if let Some(start) = memchr::memmem::find(text, window) {
                let more = common_prefix(&squeezed[at..], &text[start..]);
                marks[at..at + more].fill(true);
            }
        }
    }
    marks
}
