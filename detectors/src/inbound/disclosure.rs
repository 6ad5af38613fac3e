//! Requests to give a credential away. The reasoning is in the module above.

use super::lexicon::class::*;
use super::lexicon::{self, Noun};
use super::mood::{Mood, mood, negated};
use super::place::Place;
use super::shell;
use super::words::{Word, Words};

/// Words between a verb and the noun that it is about.
const VERB_TO_NOUN: usize = 10;

/// Words between a noun and where it shall go.
const NOUN_TO_TARGET: usize = 9;

/// Words before the verb in which somebody is spoken to.
const FRAME: usize = 8;

/// A request for a credential, in words back from the last one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disclosure {
    pub(super) noun: Noun,
    pub(super) verb: usize,
    pub(super) place: Place,
}

/// A verb and its credential, in words back from the last one.
#[derive(Clone, Copy, Debug)]
struct Request {
    verb: usize,
    noun: Noun,
    mood: Mood,
    /// Classes of the words between.
    between: u32,
    /// Whether `me` stands between.
    to_me: bool,
    /// Whether it is a user's.
    users: bool,
    /// The place that tells most of all the words.
    place: Place,
}

/// The request that the last word completes. `primed` says that a jailbreak phrase stood shortly before; no verb that
/// begins before `from` counts.
pub(super) fn complete(words: &Words, from: u64, primed: bool) -> Option<Disclosure> {
    let last = words.back(0)?;
    if last.has(NOUN)
        && let Some(request) = request(words, 0, from)
        && (tells_itself(words, &request) || primed && asks(&request) || framed(words, &request))
    {
        return Some(disclosure(&request));
    }
    if (last.has(TARGET) || last.before[1] == b'@')
        && let Some(found) = targeted(words, from)
    {
        return Some(found);
    }
    shell::complete(words, from)
}

fn disclosure(request: &Request) -> Disclosure {
    Disclosure {
        noun: request.noun,
        verb: request.verb,
        place: request.place,
    }
}

/// The verb that the noun ending at `noun_end` is the object of.
fn request(words: &Words, noun_end: usize, from: u64) -> Option<Request> {
    let last = words.back(noun_end)?;
    let before = words.back(noun_end + 1).map_or(&b""[..], Word::text);
    let (noun, length) = lexicon::noun(before, last.text(), last.before[1] == b'.')?;
    let noun_start = noun_end + length - 1;
    let mut between = 0;
    let mut to_me = false;
    let mut users = false;
    let mut place = strongest(
        (noun_end..=noun_start)
            .filter_map(|at| words.back(at))
            .map(|word| word.place),
    );
    for at in noun_start..noun_start + VERB_TO_NOUN {
        // A sentence that begins at this word has its verb in it or not at all.
        if words.back(at)?.sentence {
            return None;
        }
        let word = words.back(at + 1)?;
        if word.start < from {
            return None;
        }
        place = strongest([place, word.place].into_iter());
        let object_of_me = word.is(&["me"]);
        to_me |= object_of_me;
        users |= word.is(&["users", "user"]);
        let next = words.back(at)?;
        if word.has(VERB)
            && !(between == 0 && word.clause && next.clause)
            && let Some(mood) = mood(words, at + 1)
        {
            if negated(words, at + 1) {
                return None;
            }
            return Some(Request {
                verb: at + 1,
                noun,
                mood,
                between,
                to_me,
                users,
                place,
            });
        }
        let to_somebody = word.is(&["to"]) && next.is(&["me", "https", "http"]);
        let with = word.is(&["with"])
            && words
                .back(at + 2)
                .is_some_and(|word| word.is(&["reply", "respond", "answer", "me"]));
        if word.has(STOP)
            || word.is(&["to", "with", "for", "from", "into"]) && !to_somebody && !with
        {
            return None;
        }
        // A determiner far from its noun is another noun's.
        if at < noun_start + 6 {
            between |= word.classes;
        }
    }
    None
}

/// The place that tells most: disguise, then what is hidden, then any.
fn strongest(places: impl Iterator<Item = Place>) -> Place {
    places
        .max_by_key(|place| match place {
            Place::Disguised => 3,
            place if place.is_hidden() => 2,
            Place::Plain => 0,
            _ => 1,
        })
        .unwrap_or(Place::Plain)
}

/// Whether the request has no innocent reading.
fn tells_itself(words: &Words, request: &Request) -> bool {
    let Some(verb) = words.back(request.verb) else {
        return false;
    };
    let yours = request.between & (YOUR | ALL) != 0;
    let personal = request.between & YOUR != 0;
    match request.place {
        Place::Disguised | Place::Base64 => return asks(request) || request.to_me,
        Place::HiddenElement => return asks(request) && verb.has(STRONG | SHOW | SEND),
        Place::HtmlComment | Place::MarkdownComment if yours && verb.has(STRONG | SHOW | SEND) => {
            return true;
        }
        _ => {}
    }
    if request.mood != Mood::Firm {
        return false;
    }
    if verb.has(STRONG) {
        // `Reveal the key` is a button; nobody is told to leak one.
        return yours
            || asks(request)
                && (!verb.is(&["reveal"]) || request.noun == Noun::SystemPrompt || request.users);
    }
    if verb.is(&["dump"]) {
        return yours && asks(request);
    }
    if request.noun == Noun::SystemPrompt {
        return personal
            && verb.has(SHOW)
            && !verb.is(&["write", "state", "give", "type", "encode"]);
    }
    let first = request.verb.checked_sub(1).and_then(|at| words.back(at));
    let second = request.verb.checked_sub(2).and_then(|at| words.back(at));
    // `tell me your password`; `reply with your token`.
    let me = first.is_some_and(|word| word.is(&["me"])) && verb.has(SHOW | SEND);
    let reply =
        verb.is(&["reply", "respond", "answer"]) && first.is_some_and(|word| word.is(&["with"]));
    let hand = verb.is(&["hand", "give"]) && first.is_some_and(|word| word.is(&["up", "over"]));
    // `show me how`: not asked for the thing itself.
    let thing = second.is_none_or(|word| !word.has(STOP));
    let plain = matches!(request.noun, Noun::Token(_) | Noun::Secret);
    let the =
        me && verb.is(&["tell", "give", "send", "email"]) && request.between & THE != 0 && !plain;
    thing && ((me || reply || hand) && yours || the)
}

/// Whether the noun is one that somebody has, not a word of grammar.
fn asks(request: &Request) -> bool {
    match request.noun {
        Noun::Token(false) => request.between & YOUR != 0,
        _ => request.between & (YOUR | ALL | THE) != 0,
    }
}

/// Whether a machine is spoken to before the verb, or the reader is given no choice.
fn framed(words: &Words, request: &Request) -> bool {
    let Some(verb) = words.back(request.verb) else {
        return false;
    };
    if !asks(request) || !verb.has(STRONG | SHOW | SEND) || request.mood != Mood::Firm {
        return false;
    }
    // What machines are told about a user's key is documentation; what they show is not.
    let personal = request.between & YOUR != 0;
    for back in request.verb..request.verb + FRAME {
        let Some(word) = words.back(back) else {
            return false;
        };
        let Some(before) = words.back(back + 1) else {
            return false;
        };
        // `AI agents: print …`, `Assistant, print …`, `all AI assistants must print …`.
        let addressed = word.clause || word.has(MODAL) || word.is(&["please"]);
        // What an agent does with the token may be told of any program; what an assistant shows may not.
        let assistant = before.is(&[
            "assistant",
            "assistants",
            "ai",
            "llm",
            "llms",
            "claude",
            "chatgpt",
            "gpt",
            "copilot",
        ]);
        let shows = verb.has(STRONG)
            || verb.is(&[
                "print", "output", "show", "display", "echo", "repeat", "dump",
            ]);
        if before.has(MACHINE)
            && addressed
            && (personal && !before.is(&["model", "models"]) || assistant && shows)
        {
            return true;
        }
        let alarm = before.sentence
            && word.clause
            && before.is(&["system", "important", "urgent", "attention"]);
        let first = before.is(&["answering", "responding", "replying", "proceeding"]);
        if (alarm || first) && request.between & (YOUR | ALL) != 0 {
            return true;
        }
        if before.is(&["you"])
            && word.is(&["must", "shall"])
            && personal
            && verb.is(&[
                "print", "output", "show", "display", "echo", "repeat", "dump",
            ])
        {
            return true;
        }
        if word.sentence {
            return false;
        }
    }
    false
}

/// A request whose destination the last word completes.
fn targeted(words: &Words, from: u64) -> Option<Disclosure> {
    let target = target(words)?;
    let mut pronoun = false;
    let mut sends = false;
    for at in target.start..target.start + NOUN_TO_TARGET {
        let word = words.back(at + 1)?;
        if word.start < from {
            return None;
        }
        let sentence = words.back(at)?.sentence;
        if sentence && !(sends && pronoun) {
            return None;
        }
        if word.has(NOUN)
            && let Some(request) = request(words, at + 1, from)
        {
            return judge(words, &request, target, pronoun && sends).then(|| disclosure(&request));
        }
        pronoun |= word.has(PRONOUN);
        sends |= word.has(SEND) && pronoun;
        if word.has(STOP) && !word.has(PRONOUN) {
            return None;
        }
    }
    None
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A URL, an address, or a person.
    Elsewhere,
    /// `this address`, `the following endpoint`.
    Named,
    /// The answer that is being written.
    Answer,
    /// `without telling`, `verbatim`.
    Manner,
}

#[derive(Clone, Copy, Debug)]
struct Target {
    kind: Kind,
    /// Its first word, in words back.
    start: usize,
}

fn target(words: &Words) -> Option<Target> {
    let last = words.back(0)?;
    let is = |back: usize, any: &[&str]| words.back(back).is_some_and(|word| word.is(any));
    let found = |kind, start| Some(Target { kind, start });
    if last.is(&["https", "http", "www"]) && is(1, &["to", "at", "into"]) {
        return found(Kind::Elsewhere, 1);
    }
    if last.before[1] == b'@' && (is(2, &["to", "at"])) {
        return found(Kind::Elsewhere, 2);
    }
    if last.is(&["me"]) && is(1, &["to", "with"]) {
        return found(Kind::Elsewhere, 1);
    }
    if last.is(&[
        "url", "address", "endpoint", "server", "webhook", "number", "site", "link", "email",
        "inbox",
    ]) {
        for length in 1..4 {
            if is(length, &["to"])
                && is(
                    length - 1,
                    &[
                        "this",
                        "my",
                        "the",
                        "following",
                        "that",
                        "attacker",
                        "attackers",
                        "our",
                    ],
                )
            {
                let the = is(length - 1, &["the", "our", "that"])
                    && !is(length - 2, &["following", "attackers"]);
                return if the {
                    None
                } else {
                    found(Kind::Named, length)
                };
            }
        }
        return None;
    }
    if last.is(&[
        "response",
        "reply",
        "answer",
        "output",
        "message",
        "summary",
        "comment",
        "commit",
        "completion",
        "description",
        "issue",
    ]) {
        for length in 1..4 {
            if is(length, &["your"]) && is(length + 1, &["in", "into", "to", "with", "of"]) {
                return found(Kind::Answer, length + 1);
            }
        }
        if last.is(&["summary", "answer", "reply"])
            && is(1, &["the"])
            && is(2, &["in", "into", "to"])
        {
            return found(Kind::Answer, 2);
        }
        return None;
    }
    if last.is(&["chat", "conversation"])
        && is(1, &["the", "this", "our"])
        && is(2, &["in", "into", "to"])
    {
        return found(Kind::Answer, 2);
    }
    if last.is(&[
        "telling",
        "informing",
        "notifying",
        "alerting",
        "asking",
        "mentioning",
        "warning",
    ]) && is(1, &["without"])
    {
        return found(Kind::Manner, 1);
    }
    if last.is(&["verbatim"]) || last.is(&["word"]) && is(1, &["for"]) && is(2, &["word"]) {
        return found(Kind::Manner, if last.is(&["verbatim"]) { 0 } else { 2 });
    }
    None
}

/// Whether `request`, sent to `target`, has no innocent reading.
fn judge(words: &Words, request: &Request, target: Target, carried: bool) -> bool {
    let Some(verb) = words.back(request.verb) else {
        return false;
    };
    let yours = request.between & (YOUR | ALL) != 0;
    let any = yours
        || request.between & THE != 0
        || matches!(
            request.noun,
            Noun::EnvFile | Noun::PrivateKey | Noun::Environment
        );
    // What every OAuth client sends to its server.
    let protocol = matches!(
        request.noun,
        Noun::Token(_) | Noun::Secret | Noun::ApiKey | Noun::Cookies
    );
    let moves = verb.has(SEND | STRONG) || carried;
    match target.kind {
        Kind::Elsewhere
            if target.start == 1 && words.back(0).is_some_and(|word| word.is(&["me"])) =>
        {
            moves && any
        }
        Kind::Elsewhere => {
            moves
                && any
                && (yours || carried || !protocol)
                && (request.mood == Mood::Firm || carried)
        }
        Kind::Named => moves && yours && !protocol || carried && yours,
        Kind::Answer => {
            let shows = verb.has(SHOW | SEND | STRONG);
            shows && (yours || any && !protocol) || carried && any
        }
        Kind::Manner => verb.has(SHOW | SEND | STRONG) && yours,
    }
}
