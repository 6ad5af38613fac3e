//! Whether a verb is an order to whoever reads it.

use super::lexicon::class::*;
use super::words::Words;

/// How surely a verb is an order to the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mood {
    /// `and print`: an order if the words before were.
    Loose,
    Firm,
}

/// Whether the verb `at` is an order, and how surely.
pub(super) fn mood(words: &Words, at: usize) -> Option<Mood> {
    let verb = words.back(at)?;
    if verb.sentence || verb.clause {
        return Some(Mood::Firm);
    }
    let one = words.back(at + 1)?;
    let is = |back: usize, any: &[&str]| words.back(at + back).is_some_and(|word| word.is(any));
    let has =
        |back: usize, classes: u32| words.back(at + back).is_some_and(|word| word.has(classes));
    let firm = |yes: bool| yes.then_some(Mood::Firm);
    match one.text() {
        b"and" | b"or" | b"also" | b"always" | b"just" | b"then" | b"simply" => {
            if one.sentence || one.clause && !one.is(&["and", "or"]) {
                Some(Mood::Firm)
            } else {
                Some(Mood::Loose)
            }
        }
        b"you" => firm(is(2, &["can", "could", "would", "will", "must"])),
        b"will" | b"must" | b"should" | b"shall" => {
            firm(is(2, &["you"]) && !has(3, STOP) || has(2, MACHINE) && !is(3, &["a", "an", "the"]))
        }
        b"now" if is(2, &["will", "must", "should"]) => firm(is(3, &["you"]) || has(3, MACHINE)),
        b"to" => {
            let subject = is(3, &["you"]) && !has(4, STOP);
            firm(
                is(2, &["need", "have"]) && subject
                    || is(2, &["you"])
                        && is(
                            3,
                            &[
                                "want", "need", "like", "ask", "instruct", "require", "expect",
                            ],
                        )
                    || is(2, &["is"])
                        && is(
                            3,
                            &[
                                "task",
                                "goal",
                                "job",
                                "objective",
                                "purpose",
                                "instruction",
                                "step",
                            ],
                        )
                    || is(
                        2,
                        &["asked", "instructed", "required", "commanded", "ordered"],
                    ) && (subject || is(3, &["are"]) && is(4, &["you"]))
                    || is(2, &["sure", "forget", "hesitate", "fail"]),
            )
        }
        text if one.has(LEAD) || text.ends_with(b"ly") => firm(
            one.sentence
                || one.clause
                || one.is(&["please", "now", "kindly", "immediately"])
                || has(2, LEAD) && !is(2, &["you"])
                || is(2, &["must", "should", "will", "shall"]) && is(3, &["you"]),
        ),
        _ if one.has(MACHINE) => firm(one.sentence),
        _ => None,
    }
}

/// Whether the clause of the verb `at` says not to.
pub(super) fn negated(words: &Words, at: usize) -> bool {
    // A clause that begins with the verb itself begins anew.
    for back in at..at + 7 {
        let Some(word) = words.back(back) else {
            return false;
        };
        let joined = words
            .back(back + 1)
            .is_some_and(|word| word.is(&["or", "nor"]));
        if word.sentence || back == at && word.clause && !joined {
            return false;
        }
        let Some(word) = words.back(back + 1) else {
            return false;
        };
        if word.is(&["hesitate", "forget", "fail", "but"]) {
            return false;
        }
        if word.has(NEGATION) {
            return true;
        }
    }
    false
}
