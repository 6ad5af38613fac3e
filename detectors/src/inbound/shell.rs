//! Command lines that carry a file of secrets away.

use super::disclosure::Disclosure;
use super::lexicon::Noun;
use super::words::Words;

/// `cat ~/.ssh/id_rsa | curl …`, `curl … -d "$(cat .env)"`: a file of secrets in a shell's hands.
pub(super) fn complete(words: &Words, from: u64) -> Option<Disclosure> {
    const SPAN: usize = 12;
    let last = words.back(0)?;
    let file = |at: usize| -> Option<Noun> {
        let word = words.back(at)?;
        let before = words.back(at + 1)?;
        match (before.text(), word.text()) {
            (b"id", b"rsa" | b"ed25519") => Some(Noun::PrivateKey),
            (b"aws", b"credentials") if before.before[1] == b'.' => Some(Noun::Credentials),
            (_, b"env") if word.before[1] == b'.' => Some(Noun::EnvFile),
            _ => None,
        }
    };
    let dumps = |at: usize| -> Option<Noun> {
        let word = words.back(at)?;
        let piped = at
            .checked_sub(1)
            .and_then(|at| words.back(at))
            .is_some_and(|next| next.before.contains(&b'|'));
        (word.is(&["env", "printenv"]) && piped && word.before[1] != b'.')
            .then_some(Noun::Environment)
    };
    if last.is(&["curl", "wget", "nc"]) && last.before.contains(&b'|') {
        for at in 1..SPAN {
            let word = words.back(at)?;
            // The public half of a key.
            if word.is(&["pub"]) {
                return None;
            }
            if let Some(noun) = dumps(at).or_else(|| file(at)) {
                let verb = if noun == Noun::Environment {
                    at
                } else {
                    at + 1
                };
                let first = words.back(verb)?;
                return (first.start >= from).then_some(Disclosure {
                    noun,
                    verb,
                    place: first.place,
                });
            }
            if word.sentence {
                return None;
            }
        }
        return None;
    }
    let (noun, end) = match file(0) {
        Some(Noun::EnvFile) => (Noun::EnvFile, 0),
        _ => (file(1).filter(|_| !last.is(&["pub"]))?, 1),
    };
    let mut inserted = false;
    for at in end + 1..SPAN {
        let word = words.back(at)?;
        inserted |=
            word.is(&["cat"]) && (word.before.contains(&b'(') || word.before.contains(&b'`'));
        if inserted && word.is(&["curl", "wget"]) {
            return (word.start >= from).then_some(Disclosure {
                noun,
                verb: at,
                place: word.place,
            });
        }
        if word.sentence {
            return None;
        }
    }
    None
}
