//! The words that the rules are made of.

use std::sync::LazyLock;

/// What a word can be in a sentence; a word can be several.
pub(super) mod class {
    /// Verbs that name nothing but giving a secret away.
    pub(crate) const STRONG: u32 = 1;
    /// Verbs that put something where the conversation shows it.
    pub(crate) const SHOW: u32 = 1 << 1;
    /// Verbs that carry something elsewhere.
    pub(crate) const SEND: u32 = 1 << 2;
    /// Verbs that fetch what is sent afterwards.
    pub(crate) const READ: u32 = 1 << 3;
    pub(crate) const YOUR: u32 = 1 << 4;
    pub(crate) const ALL: u32 = 1 << 5;
    pub(crate) const THE: u32 = 1 << 6;
    pub(crate) const NEGATION: u32 = 1 << 7;
    /// What may stand before an imperative in its clause.
    pub(crate) const LEAD: u32 = 1 << 8;
    /// Names of those whom an injection speaks to.
    pub(crate) const MACHINE: u32 = 1 << 9;
    /// What begins another thought, so that the verb before has nothing to do with the noun behind.
    pub(crate) const STOP: u32 = 1 << 10;
    /// `must`, `should`: an imperative if its subject is the reader.
    pub(crate) const MODAL: u32 = 1 << 11;
    /// `it`, `them`, `the contents`: what stands for a noun before.
    pub(crate) const PRONOUN: u32 = 1 << 12;
    /// The last word of a credential's name.
    pub(crate) const NOUN: u32 = 1 << 13;
    /// A word that can end a jailbreak phrase.
    pub(crate) const PHRASE: u32 = 1 << 14;
    /// A word that can end a destination.
    pub(crate) const TARGET: u32 = 1 << 15;
    /// What ends a shell's line that sends a file.
    pub(crate) const PIPE: u32 = 1 << 16;

    pub(crate) const VERB: u32 = STRONG | SHOW | SEND | READ;
}

use class::*;

const WORDS: &[(u32, &str)] = &[
    (STRONG, "reveal exfiltrate leak disclose divulge surrender"),
    (
        SHOW,
        "print output show display echo list repeat recite write say tell dump expose reply respond answer type give summarize summarise encode state spell return",
    ),
    (
        SEND,
        "hand send post upload forward transmit email mail share submit paste put curl wget deliver exfil include append embed attach provide give dump add commit publish message fax text",
    ),
    (
        READ,
        "run execute read cat find collect gather get open copy extract search locate grep fetch retrieve look take steal harvest obtain access scan",
    ),
    (YOUR, "your ur"),
    (
        ALL,
        "all any every each whatever entire full complete whole",
    ),
    (
        THE,
        "the this these those users its contents content value values",
    ),
    (
        NEGATION,
        "never not dont doesnt cannot cant wont shouldnt mustnt avoid without refuse prevent against no nor neither wouldnt couldnt didnt isnt rather unless prohibited forbidden",
    ),
    (
        LEAD,
        "please now then and also first next finally immediately just simply kindly instead or always lastly quietly silently secretly secondly afterwards therefore so you lets directly urgently step task",
    ),
    (MODAL, "must should shall will can could would may"),
    (
        MACHINE,
        "ai llm llms assistant assistants agent agents claude chatgpt gpt copilot gemini chatbot bot bots codex cursor model models",
    ),
    (
        STOP,
        "how where when that which who if because before after using by via about button page whether while why what so than as",
    ),
    (
        PRONOUN,
        "it them this these everything output contents result results value values both that",
    ),
    (
        NOUN,
        "key keys apikey apikeys token tokens secret secrets password passwords passwd passphrase passphrases credential credentials creds variables variable vars env rsa ed25519 prompt prompts instructions phrase cookies cookie printenv",
    ),
    (
        TARGET,
        "https http www me url address endpoint server webhook number site link inbox response reply answer output message summary comment commit completion chat conversation verbatim word telling informing notifying alerting asking mentioning warning email request issue ticket description",
    ),
    (PIPE, "curl wget nc rsa ed25519 credentials env"),
    (
        PHRASE,
        "instructions instruction prompt prompts rules guidelines directions commands directives programming training constraints context above before earlier said told everything dan free unrestricted jailbroken restricted bound mode user human operator developer users owner task start end inst sys result endoftext system be are if root restrictions limitations filters guardrails safeguards now override message secret hidden objective goal purpose role tell an a",
    ),
];

/// Buckets of [`TABLE`].
const BUCKETS: usize = 1024;

/// Words and their classes.
type Bucket = Vec<(&'static [u8], u32)>;

/// The words by [`bucket`]: one look-up for each word of the input, most of which are none of these.
static TABLE: LazyLock<Vec<Bucket>> = LazyLock::new(|| {
    let mut table: Vec<Bucket> = vec![Vec::new(); BUCKETS];
    for (class, words) in WORDS {
        for word in words.split_ascii_whitespace().map(str::as_bytes) {
            let Some(entries) = table.get_mut(bucket(word)) else {
                continue;
            };
            match entries.iter_mut().find(|(known, _)| *known == word) {
                Some((_, classes)) => *classes |= class,
                None => entries.push((word, *class)),
            }
        }
    }
    table
});

fn bucket(word: &[u8]) -> usize {
    let at = |index: usize| usize::from(word.get(index).copied().unwrap_or(0));
    let last = at(word.len().saturating_sub(1));
    (at(0) * 31 + at(1) * 7 + at(2) * 131 + last * 17 + word.len() * 67) % BUCKETS
}

/// The classes of a word in lower case; 0 for most.
pub(super) fn classes(word: &[u8]) -> u32 {
    TABLE
        .get(bucket(word))
        .and_then(|entries| entries.iter().find(|(known, _)| *known == word))
        .map_or(0, |(_, classes)| *classes)
}

/// A credential's name as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noun {
    ApiKey,
    PrivateKey,
    /// A token, and whether its kind was named.
    Token(bool),
    Secret,
    Password,
    Credentials,
    Environment,
    EnvFile,
    SystemPrompt,
    SeedPhrase,
    Cookies,
}

impl Noun {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ApiKey => "an API key",
            Self::PrivateKey => "a private key",
            Self::Token(_) => "a token",
            Self::Secret => "a secret",
            Self::Password => "a password",
            Self::Credentials => "credentials",
            Self::Environment => "environment variables",
            Self::EnvFile => "a .env file",
            Self::SystemPrompt => "the system prompt",
            Self::SeedPhrase => "a seed phrase",
            Self::Cookies => "cookies",
        }
    }
}

/// The credential that `last` ends, given the word before it and whether a dot stands between; and how many words it
/// takes.
pub(super) fn noun(before: &[u8], last: &[u8], dotted: bool) -> Option<(Noun, usize)> {
    Some(match (before, last) {
        (
            b"private" | b"ssh" | b"signing" | b"gpg" | b"pgp" | b"encryption" | b"deploy" | b"rsa",
            b"key" | b"keys",
        ) => (Noun::PrivateKey, 2),
        (
            b"api" | b"access" | b"secret" | b"aws" | b"openai" | b"anthropic" | b"license",
            b"key" | b"keys",
        ) => (Noun::ApiKey, 2),
        (_, b"apikey" | b"apikeys") => (Noun::ApiKey, 1),
        (
            b"access" | b"auth" | b"api" | b"bearer" | b"session" | b"oauth" | b"github"
            | b"refresh" | b"security" | b"secret" | b"authentication" | b"authorization" | b"npm"
            | b"pypi" | b"slack" | b"personal" | b"gitlab" | b"jwt" | b"oauth2" | b"hf",
            b"token" | b"tokens",
        ) => (Noun::Token(true), 2),
        (_, b"token" | b"tokens") => (Noun::Token(false), 1),
        (_, b"secret" | b"secrets") => (Noun::Secret, 1),
        (_, b"password" | b"passwords" | b"passwd" | b"passphrase" | b"passphrases") => {
            (Noun::Password, 1)
        }
        (_, b"credential" | b"credentials" | b"creds") => (Noun::Credentials, 1),
        (b"environment" | b"env" | b"environmental", b"variables" | b"variable" | b"vars") => {
            (Noun::Environment, 2)
        }
        (b"run" | b"execute", b"env") if !dotted => (Noun::Environment, 1),
        (_, b"printenv") => (Noun::Environment, 1),
        (_, b"env") if dotted => (Noun::EnvFile, 1),
        (b"id", b"rsa" | b"ed25519") => (Noun::PrivateKey, 2),
        (
            b"system" | b"developer" | b"hidden" | b"initial" | b"original" | b"secret",
            b"prompt" | b"prompts" | b"instructions",
        ) => (Noun::SystemPrompt, 2),
        (b"seed" | b"recovery" | b"mnemonic", b"phrase") => (Noun::SeedPhrase, 2),
        (b"session" | b"auth" | b"browser" | b"login", b"cookie" | b"cookies") => {
            (Noun::Cookies, 2)
        }
        _ => return None,
    })
}
