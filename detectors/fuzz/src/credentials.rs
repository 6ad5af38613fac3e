//! Made-up credentials.

use arbitrary::{Result, Unstructured};

/// Values that the scanners know.
pub const SECRETS: &[(&str, &str)] = &[
    ("EGRESS_TOKEN_MIXED", "EGRESS-7f3kQ9zLmXw2~vBn"), // gitleaks:allow
    (
        "EGRESS_TOKEN_HEX",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
    ), // gitleaks:allow
    ("EGRESS_TOKEN_WORDS", "Correct horse; battery/staple+2024"), // gitleaks:allow
    ("EGRESS_TOKEN_LETTERS", "Zk3vQ9xT7mLw2RbN8sYc4HdJ6pGf1Ae"), // gitleaks:allow
    // Too short to be looked for in part.
    ("EGRESS_TOKEN_SHORT", "kR7~w2Qz"), // gitleaks:allow
];

/// Shaped like GitHub's, with a checksum that is right.
pub const TOKEN: &str = "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"; // gitleaks:allow

/// Shaped like credentials of other kinds.
const TOKENS: &[&str] = &[
    TOKEN,
    "AKIAQ7T3ZP5W2MHXK4LD",                       // gitleaks:allow
    "xoxb-123456789012-abcdefghijklmnopqrstuvwx", // gitleaks:allow
    "dapi0123456789abcdef0123456789abcdef",       // gitleaks:allow
    "SG.aaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", // gitleaks:allow
    "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N", // gitleaks:allow
    "acme_0123456789ab",
];

/// Any of those above.
pub fn any(u: &mut Unstructured<'_>) -> Result<&'static str> {
    let number = u.int_in_range(0..=SECRETS.len() + TOKENS.len() - 1)?;
    Ok(match number.checked_sub(SECRETS.len()) {
        Some(token) => TOKENS[token],
        None => SECRETS[number].1,
    })
}

/// A known value that is long, or a token of GitHub's shape with a body of the input's choice.
pub fn long(u: &mut Unstructured<'_>) -> Result<String> {
    const BODY: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let number = u.int_in_range(0..=SECRETS.len())?;
    if number < SECRETS.len() - 1 {
        return Ok(SECRETS[number].1.into());
    }
    if number == SECRETS.len() - 1 {
        return Ok(TOKEN.into());
    }
    let mut token = String::from("gh");
    token.push(char::from(*u.choose(b"oprsu")?));
    token.push('_');
    for _ in 0..36 {
        token.push(char::from(*u.choose(BODY)?));
    }
    Ok(token)
}
