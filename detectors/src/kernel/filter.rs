//! Which places of a squeezed text may begin a gram of a known secret: a filter of two bits a hash.

/// Characters of a gram.
pub(crate) const GRAM: usize = 8;

/// Two bits in one word for each hash: one look into memory tells nearly all grams that are not in it.
pub(crate) struct Filter {
    /// Two to the power of `log`.
    words: Box<[u64]>,
    log: u32,
    /// Odd and random, so that nobody can prepare texts that hit the filter everywhere.
    pub(crate) multiplier: u64,
}

impl Filter {
    /// For so many grams. About a tenth of all bits will be set.
    pub(crate) fn new(grams: usize, multiplier: u64) -> Self {
        let log = (grams / 2).max(4).next_power_of_two().trailing_zeros();
        Self {
            words: vec![0; 1 << log].into_boxed_slice(),
            log,
            multiplier: multiplier | 1,
        }
    }

    /// Of a hash, what is left is an index of [`Filter::words`].
    #[inline]
    pub(super) fn shift(&self) -> u32 {
        64 - self.log
    }

    /// Two to the power of 64 less [`Filter::shift`]; the type does not say so, hence the check.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(super) fn words(&self) -> &[u64] {
        assert!(
            self.words.len() == 1 << self.log && self.log > 0,
            "as it was made"
        );
        &self.words
    }

    #[inline]
    pub(crate) fn hash(&self, gram: u64) -> u64 {
        gram.wrapping_mul(self.multiplier)
    }

    #[inline]
    fn bits(&self, hash: u64) -> (usize, [u64; 2]) {
        (
            (hash >> self.shift()) as usize,
            [hash >> 32 & 63, hash >> 26 & 63],
        )
    }

    pub(crate) fn insert(&mut self, gram: u64) {
        let (word, bits) = self.bits(self.hash(gram));
        self.words[word] |= 1 << bits[0] | 1 << bits[1];
    }

    #[inline]
    pub(super) fn may_hold(&self, gram: u64) -> bool {
        let (word, bits) = self.bits(self.hash(gram));
        let word = self.words.get(word).copied().unwrap_or(0);
        word >> bits[0] & word >> bits[1] & 1 == 1
    }
}

/// The eight characters at `at`, or zero if there are not as many.
#[inline]
pub(crate) fn gram_at(squeezed: &[u8], at: usize) -> u64 {
    squeezed
        .get(at..)
        .and_then(|rest| rest.first_chunk::<GRAM>())
        .map_or(0, |eight| u64::from_le_bytes(*eight))
}
