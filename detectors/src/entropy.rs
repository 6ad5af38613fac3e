//! Opt-in: warns of stretches that look random. It names no credential, so it never blocks.

use crate::finding::{Confidence, RuleId, Severity};
use crate::window::{Match, Window};

/// Bytes over which the entropy is taken; 6 bits each at most.
const SPAN: usize = 64;

/// Bits per byte above which a stretch is reported, as an integer over [`ONE`].
const THRESHOLD: u64 = 11 * ONE / 2;

/// Fixed point, so that adding and taking away a million times leaves no error.
const ONE: u64 = 1 << 24;

/// Warnings for one input; more would say nothing new.
const MAX_WARNINGS: usize = 16;

/// What one window must know of those before it.
#[derive(Debug, Default)]
pub(crate) struct History {
    warned: usize,
    /// Where the last reported stretch ends.
    end: u64,
}

/// A sliding histogram. With counts `c` of a span of `n` bytes, the entropy is `log2 n - sum(c log2 c) / n`.
struct Histogram {
    counts: [u8; 256],
    /// `sum(c log2 c)`.
    sum: u64,
    /// `c log2 c` for each `c` up to the span.
    weights: [u64; SPAN + 1],
}

impl Histogram {
    fn new() -> Self {
        let mut weights = [0; SPAN + 1];
        for (count, weight) in weights.iter_mut().enumerate().skip(1) {
            *weight = (count as f64 * (count as f64).log2() * ONE as f64) as u64;
        }
        Self {
            counts: [0; 256],
            sum: 0,
            weights,
        }
    }

    fn change(&mut self, byte: u8, by: impl Fn(u8) -> u8) {
        let Some(count) = self.counts.get_mut(usize::from(byte)) else {
            return;
        };
        let weight = |count: u8| self.weights.get(usize::from(count)).copied().unwrap_or(0);
        let before = weight(*count);
        *count = by(*count);
        self.sum = self.sum - before + weight(*count);
    }

    fn is_high(&self) -> bool {
        6 * ONE - self.sum / SPAN as u64 > THRESHOLD
    }
}

/// Adds a warning for each stretch of `window`, apart from each other, that begins in what it owns.
pub(crate) fn find(window: &Window<'_>, history: &mut History, matches: &mut Vec<Match>) {
    let mut histogram = Histogram::new();
    let text = window.bytes.get(window.own.start..).unwrap_or_default();
    for (at, byte) in text.iter().enumerate() {
        histogram.change(*byte, |count| count + 1);
        let Some(start) = (at + 1).checked_sub(SPAN) else {
            continue;
        };
        if start >= window.own.len() || history.warned == MAX_WARNINGS {
            return;
        }
        let span = window.own.start + start..window.own.start + at + 1;
        if histogram.is_high() && window.base + span.start as u64 >= history.end {
            history.end = window.base + span.end as u64;
            history.warned += 1;
            matches.push(Match {
                rule: RuleId("entropy"),
                severity: Severity::Warn,
                credential: "A high-entropy string".into(),
                span,
                via: Vec::new(),
                rank: 0,
                structural: false,
                confidence: Confidence::Shape,
                shadow: false,
            });
        }
        if let Some(oldest) = text.get(start) {
            histogram.change(*oldest, |count| count - 1);
        }
    }
}
