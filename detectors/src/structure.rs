//! Which field of a document a finding stands in, and how to take it out so that the document stays one.
//!
//! Always beside the scan of the raw bytes, never instead of it: what is found is found without knowing what the text
//! claims to be, so that no claim can hide anything. Only *after* a finding is the text read as JSON, as a form or as
//! multipart, hence clean input pays nothing. The reading is strict and all or nothing: a text that is not wholly what
//! it seems is plain, no field of it is named, and what was found is cut out of it as it stands.
//!
//! One pass in the order of the bytes serves all findings of a text, whatever their number; what it remembers is the
//! containers that are open, at most 512 of them, and the findings.
//!
//! A name is the sender's text, and so may carry what must not be shown. It is shown only if
//!
//! - no finding touches it, and it has nothing in common with what was found, else it is `********`;
//! - it is short, else it is `…` as a whole: a piece of it could be one that no detector knows;
//! - a scan of all names of the place, with and without what is between them, finds nothing, else no place is named.

mod form;
mod json;
mod multipart;
mod names;
mod rewrite;

use std::ops::Range;

use crate::finding::{Field, Finding, Location};
use crate::redact::{self, union};
use crate::scanner::Scanner;
use names::{Judge, Named};
use rewrite::Rewriter;

/// What the sender says a text is, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Nothing that must be told by the sender. JSON is known by what it is.
    #[default]
    Unknown,
    /// `application/x-www-form-urlencoded`, or a query.
    Form,
    /// `multipart/…` with this boundary.
    Multipart(Box<[u8]>),
}

impl Format {
    /// Of the value of a `Content-Type` field. What cannot be understood is [`Format::Unknown`].
    pub fn of(content_type: &[u8]) -> Self {
        let (kind, parameters) = match memchr::memchr(b';', content_type) {
            Some(at) => content_type.split_at(at),
            None => (content_type, &[][..]),
        };
        let kind = kind.trim_ascii().to_ascii_lowercase();
        if kind == b"application/x-www-form-urlencoded" {
            Self::Form
        } else if kind.starts_with(b"multipart/") {
            multipart::boundary(parameters).map_or(Self::Unknown, Self::Multipart)
        } else {
            Self::Unknown
        }
    }
}

/// A text and what it was found to be.
#[derive(Debug)]
pub struct Document<'a> {
    input: &'a [u8],
    shape: Shape<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape<'a> {
    Plain,
    /// One value, or several as in JSON Lines.
    Json {
        documents: u64,
    },
    Form,
    Multipart(&'a [u8]),
}

impl<'a> Document<'a> {
    /// Reads `input` once to see what it is.
    pub fn new(format: &'a Format, input: &'a [u8]) -> Self {
        // What clients say of JSON is often untrue (`curl -d` calls it a form), and what is JSON from end to end is no
        // form and no multipart that anybody meant.
        let shape = match (json::documents(input), format) {
            (Some(documents), _) => Shape::Json { documents },
            (None, Format::Form) if form::is_form(input) => Shape::Form,
            (None, Format::Multipart(boundary)) if multipart::is_whole(input, boundary) => {
                Shape::Multipart(boundary)
            }
            (None, _) => Shape::Plain,
        };
        Self { input, shape }
    }

    /// Gives the findings that have [`Location::Body`] the field that encloses them, if they are in one; at most the first
    /// 64, since nobody reads more.
    ///
    /// The spans of `findings`, which is all that was found, count from the start of the document. `judge` should know
    /// every credential: what it finds is not shown in a name.
    pub fn locate(&self, judge: &Scanner, findings: &mut [Finding]) {
        if self.shape == Shape::Plain || findings.is_empty() {
            return;
        }
        // A route may have switched off what would have found a name.
        let more = judge.scan(&Location::Body, self.input);
        let touched: Vec<_> = more
            .iter()
            .chain(&*findings)
            .map(|finding| redact::clamp(self.input, &finding.span))
            .collect();
        let judges: Vec<_> = findings
            .iter()
            .take(MAX_LOCATED)
            .map(|finding| Judge::new(judge, finding))
            .collect();
        let spans: Vec<_> = findings
            .iter()
            .take(MAX_LOCATED)
            .map(|finding| redact::clamp(self.input, &finding.span))
            .collect();
        let mut places = Places::new(self.input, &spans, union(&touched), judges);
        match self.shape {
            Shape::Plain => {}
            Shape::Json { documents } => json::locate(&mut places, documents),
            Shape::Form => form::locate(&mut places),
            Shape::Multipart(boundary) => multipart::locate(&mut places, boundary),
        }
        for (finding, field) in findings.iter_mut().zip(places.fields) {
            if let Some(field) = field
                && finding.location == Location::Body
            {
                finding.location = Location::BodyField(Box::new(field));
            }
        }
    }

    /// The document without what lies in `spans`, of which each is replaced by `********`; numbers of JSON become `0`.
    ///
    /// The result is what the document was: quotes, separators, escapes and boundaries stay whole. `None` if that cannot
    /// be: parts that state their own length.
    pub fn redact(&self, spans: &[Range<usize>]) -> Option<Vec<u8>> {
        let spans = union(spans);
        let mut rewriter = Rewriter::new(self.input, &spans);
        match self.shape {
            Shape::Plain => return Some(redact::cut(self.input, &spans)),
            Shape::Json { .. } => json::redact(&mut rewriter),
            Shape::Form => form::redact(&mut rewriter),
            Shape::Multipart(boundary) => multipart::redact(&mut rewriter, boundary)?,
        }
        Some(rewriter.finish())
    }
}

/// Findings of one document that are located.
const MAX_LOCATED: usize = 64;

/// Bytes between fields that are taken off a finding, on either end. A bound, so that many long findings cost no more than
/// one.
const MAX_SPARE: usize = 256;

/// The findings of a document in the order of its bytes, and the field of each once it is known.
struct Places<'a> {
    input: &'a [u8],
    spans: &'a [Range<usize>],
    /// Numbers of spans, by their start.
    order: Vec<usize>,
    /// What any finding touches.
    touched: Vec<Range<usize>>,
    judges: Vec<Judge<'a>>,
    fields: Vec<Option<Field>>,
}

impl<'a> Places<'a> {
    fn new(
        input: &'a [u8],
        spans: &'a [Range<usize>],
        touched: Vec<Range<usize>>,
        judges: Vec<Judge<'a>>,
    ) -> Self {
        let mut order: Vec<usize> = (0..spans.len()).collect();
        order.sort_by_key(|number| spans.get(*number).map(|span| (span.start, span.end)));
        Self {
            input,
            spans,
            order,
            touched,
            judges,
            fields: spans.iter().map(|_| None).collect(),
        }
    }

    /// Whether a finding touches any of these bytes.
    fn touches(&self, range: &Range<usize>) -> bool {
        let at = self.touched.partition_point(|span| span.end <= range.start);
        self.touched
            .get(at)
            .is_some_and(|span| span.start < range.end)
    }

    /// The span that is number `at` in the order of the bytes.
    fn at(&self, at: usize) -> Option<&Range<usize>> {
        self.spans.get(*self.order.get(at)?)
    }

    /// Names the place of the finding that is number `at` in the order of the bytes, if it may be shown.
    fn name(&mut self, at: usize, name: impl FnOnce(&Self, &Judge<'_>) -> Option<Named>) {
        let Some(number) = self.order.get(at).copied() else {
            return;
        };
        let Some(judge) = self.judges.get(number) else {
            return;
        };
        let field = name(self, judge)
            .filter(|named| judge.allows(named))
            .map(|named| named.field);
        if let Some(place) = self.fields.get_mut(number) {
            *place = field;
        }
    }

    /// For fields that follow one another without nesting: names the findings that begin in this one and do not go on
    /// behind it. `passed` is how many have been asked about; of the fields of a document each goes on from the last one's.
    /// What is `between` fields, on either end of a finding, does not count.
    fn name_flat(
        &mut self,
        passed: &mut usize,
        field: &Range<usize>,
        between: impl Fn(&u8) -> bool,
        name: impl Fn(&Self, &Judge<'_>) -> Option<Named>,
    ) {
        while let Some(span) = self.at(*passed)
            && span.start < field.end
        {
            let bytes = self.input.get(span.clone()).unwrap_or_default();
            let is_spare = |byte: &&u8| between(byte);
            let leading = bytes.iter().take(MAX_SPARE).take_while(is_spare).count();
            let trailing = bytes
                .iter()
                .rev()
                .take(MAX_SPARE)
                .take_while(is_spare)
                .count();
            let start = span.start + leading;
            let end = span.end - trailing;
            if start < end && start >= field.end {
                break;
            }
            if start < end && field.start <= start && end <= field.end {
                self.name(*passed, &name);
            }
            *passed += 1;
        }
    }
}

#[cfg(test)]
mod tests;
