//! Phrases that try to take an agent over.

use super::words::Words;

/// A kind of phrase; two of one kind are one voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phrase {
    IgnoreInstructions,
    NewRole,
    SpecialMode,
    KeepFromUser,
    /// `Without telling the user`, which documentation says too.
    Quietly,
    NewInstructions,
    SpoofedTag,
    Pretend,
    NoRestrictions,
    DoAnything,
    SystemOverride,
}

impl Phrase {
    pub(super) const COUNT: usize = 11;

    /// Those that are about what the agent does next: what is asked for after them is asked by the same voice.
    pub(super) const PRIMING: [Self; 5] = [
        Self::IgnoreInstructions,
        Self::KeepFromUser,
        Self::NewInstructions,
        Self::NoRestrictions,
        Self::SystemOverride,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::IgnoreInstructions => "says to ignore instructions",
            Self::NewRole => "gives a new role",
            Self::SpecialMode => "turns on a special mode",
            Self::Quietly | Self::KeepFromUser => "says to keep something from the user",
            Self::NewInstructions => "gives new instructions",
            Self::SpoofedTag => "spoofs a chat's markup",
            Self::Pretend => "says to pretend",
            Self::NoRestrictions => "lifts restrictions",
            Self::DoAnything => "says to do anything",
            Self::SystemOverride => "claims to be the system",
        }
    }
}

/// The phrase that the last word ends, and its first word counted back from it.
pub(super) fn complete(words: &Words) -> Option<(Phrase, usize)> {
    let last = words.back(0)?;
    let is = |back: usize, any: &[&str]| words.back(back).is_some_and(|word| word.is(any));
    // The nearest of `any` in the same sentence, at most `far` words back.
    let nearest = |far: usize, any: &[&str]| -> Option<usize> {
        for back in 0..far {
            if words.back(back)?.sentence {
                return None;
            }
            if words.back(back + 1)?.is(any) {
                return Some(back + 1);
            }
        }
        None
    };
    let between = |first: usize, any: &[&str]| (1..first).any(|back| is(back, any));

    if last.is(&[
        "instructions",
        "instruction",
        "prompt",
        "prompts",
        "rules",
        "guidelines",
        "directions",
        "commands",
        "directives",
        "programming",
        "training",
        "constraints",
    ]) {
        const OLD: &[&str] = &[
            "previous",
            "prior",
            "above",
            "earlier",
            "preceding",
            "foregoing",
            "all",
            "your",
            "any",
            "original",
            "initial",
            "system",
        ];
        if let Some(first) = nearest(6, &["ignore", "disregard", "forget", "override", "bypass"])
            && between(first, OLD)
            && !is(
                first + 1,
                &["to", "not", "never", "dont", "cannot", "will", "can", "may"],
            )
        {
            return Some((Phrase::IgnoreInstructions, first));
        }
        if is(1, &["system"]) && is(2, &["new", "updated"]) {
            return Some((Phrase::NewInstructions, 2));
        }
        if is(1, &["new", "updated", "real", "actual"])
            && (words.back(1)?.sentence || is(2, &["your"]))
        {
            return Some((Phrase::NewInstructions, 1));
        }
    }
    if last.is(&["above", "before", "earlier", "said", "told"])
        && let Some(first) = nearest(6, &["ignore", "disregard", "forget"])
        && (is(first - 1, &["everything", "all", "the", "what", "anything"]))
        && words.back(first)?.sentence
    {
        return Some((Phrase::IgnoreInstructions, first));
    }
    if last.is(&[
        "a",
        "an",
        "dan",
        "free",
        "unrestricted",
        "jailbroken",
        "bound",
    ]) && is(1, &["now"])
        && is(2, &["are"])
        && is(3, &["you"])
    {
        return Some((Phrase::NewRole, 3));
    }
    if last.is(&["mode"])
        && is(
            1,
            &[
                "developer",
                "debug",
                "admin",
                "god",
                "dan",
                "sudo",
                "jailbreak",
                "unrestricted",
                "maintenance",
                "root",
            ],
        )
        && nearest(
            6,
            &["in", "enter", "enable", "activate", "into", "entering"],
        )
        .is_some()
    {
        return Some((Phrase::SpecialMode, 1));
    }
    if last.is(&["user", "human", "operator", "users", "owner"])
        && is(1, &["the", "your"])
        && let Some(first) = nearest(
            8,
            &[
                "tell",
                "inform",
                "notify",
                "alert",
                "telling",
                "informing",
                "notifying",
                "alerting",
                "mention",
                "mentioning",
                "show",
                "warn",
            ],
        )
        && (is(first + 1, &["dont", "never", "without"])
            || is(first + 1, &["not"]) && is(first + 2, &["do", "must", "should"]))
    {
        let phrase = if is(first + 1, &["without"]) {
            Phrase::Quietly
        } else {
            Phrase::KeepFromUser
        };
        return Some((phrase, first + 1));
    }
    if last.is(&["user"])
        && let Some(first) = nearest(6, &["secret", "hidden"])
        && is(first + 1, &["this", "it", "a"])
        && between(first, &["from"])
    {
        return Some((Phrase::KeepFromUser, first + 1));
    }
    if last.is(&["task", "goal", "objective", "purpose", "role"])
        && is(1, &["new", "real", "true", "only"])
        && is(2, &["your"])
    {
        return Some((Phrase::NewInstructions, 2));
    }
    if last.is(&["start", "end"]) && is(1, &["im"]) && words.back(1)?.before == *b"<|"
        || last.is(&["system", "user", "assistant", "endoftext"]) && last.before == *b"<|"
        || last.is(&["inst"]) && last.before[1] == b'['
        || last.is(&["sys"]) && last.before == *b"<<"
        || last.is(&["result"]) && is(1, &["tool", "function"]) && words.back(1)?.before == *b"</"
        || last.is(&["system"]) && last.before == *b"</"
    {
        return Some((
            Phrase::SpoofedTag,
            usize::from(last.is(&["start", "end", "result"])),
        ));
    }
    if last.is(&["are", "be"]) && is(1, &["you", "to"]) && is(2, &["pretend", "pretending"]) {
        return Some((Phrase::Pretend, 2));
    }
    if last.is(&["if", "dan", "unrestricted", "system", "jailbroken", "root"]) {
        // `act as if`, `act as an unrestricted …`.
        for first in 2..5 {
            if is(first, &["act", "acting"]) && is(first - 1, &["as"]) {
                return Some((Phrase::Pretend, first));
            }
        }
    }
    if last.is(&[
        "restrictions",
        "limitations",
        "filters",
        "guardrails",
        "safeguards",
    ]) && let Some(first) = nearest(
        5,
        &["no", "without", "ignore", "bypass", "disregard", "disable"],
    ) && !is(1, &["no"])
        && between(
            first,
            &[
                "all", "any", "your", "safety", "ethical", "content", "moral",
            ],
        )
    {
        return Some((Phrase::NoRestrictions, first));
    }
    if last.is(&["now"]) && is(1, &["anything"]) && is(2, &["do"]) {
        return Some((Phrase::DoAnything, 2));
    }
    if last.is(&["override"])
        && is(1, &["system", "admin", "priority", "security"])
        && (words.back(1)?.sentence || words.back(1)?.clause)
        || last.is(&["message", "instruction", "override", "prompt"])
            && is(1, &["system", "admin", "administrator", "priority"])
            && nearest(5, &["this"]).is_some_and(|first| {
                is(first - 1, &["is"]) && words.back(first).is_some_and(|word| word.sentence)
            })
    {
        return Some((Phrase::SystemOverride, 1));
    }
    None
}
