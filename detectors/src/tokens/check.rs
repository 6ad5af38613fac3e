//! What the inside of a credential tells: checksums and structure.
//!
//! A check only ever adds confidence to what a shape found; a failed one acquits nothing, for samples and
//! whatever an agent made up fail it, and so may tomorrow's format. Each function takes a match whole.

use data_encoding::{BASE32_NOPAD, BASE64, BASE64_NOPAD, BASE64URL_NOPAD, Encoding};

/// AWS account numbers have twelve digits.
const MAX_ACCOUNT: u64 = 1_000_000_000_000;

/// The text that begins with the first `prefix`, without it.
fn after<'t>(text: &'t [u8], prefix: &[u8]) -> Option<&'t [u8]> {
    let at = memchr::memmem::find(text, prefix)?;
    text.get(at + prefix.len()..)
}

/// The last `length` bytes, after the others.
fn split_end(text: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    text.split_at_checked(text.len().checked_sub(length)?)
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    if digits.len() != 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// Base64 of either alphabet, padded or not.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let (body, _) = split_end(text, padding)?;
    let encoding: &Encoding = if body.iter().any(|byte| matches!(byte, b'-' | b'_')) {
        &BASE64URL_NOPAD
    } else {
        &BASE64_NOPAD
    };
    encoding.decode(body).ok()
}

/// The number of bytes that base58 (Bitcoin's alphabet) text stands for, leading zeros apart.
fn base58_length(text: &[u8]) -> Option<usize> {
    const ALPHABET: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    const MAX_TEXT: usize = 128;
    if text.len() > MAX_TEXT {
        return None;
    }
    // Little-endian.
    let mut number: Vec<u8> = Vec::new();
    for byte in text {
        let mut carry = ALPHABET.iter().position(|letter| letter == byte)?;
        for digit in &mut number {
            carry += usize::from(*digit) * ALPHABET.len();
            *digit = (carry & 0xFF) as u8;
            carry >>= 8;
        }
        if carry > 0 {
            number.push(carry as u8);
        }
    }
    Some(number.len())
}

/// Whether `text` is a JSON object with members of all these names at its top. Only as much of the grammar is
/// looked at as it takes to tell names apart.
fn is_object_with(text: &[u8], names: &[&str]) -> bool {
    object_names(text)
        .is_some_and(|found| names.iter().all(|name| found.contains(&name.as_bytes())))
}

/// The names of an object's members, as they are written.
fn object_names(text: &[u8]) -> Option<Vec<&[u8]>> {
    let text = text.trim_ascii();
    if text.first() != Some(&b'{') || text.last() != Some(&b'}') {
        return None;
    }
    let mut names = Vec::new();
    let mut depth = 0_usize;
    // A string is a name if it follows a brace or comma of the outermost object.
    let mut name_next = false;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => {
                let length = string_length(text.get(at..)?)?;
                if name_next {
                    names.push(text.get(at..at + length)?);
                    name_next = false;
                }
                at += length + 1;
            }
            b'{' | b'[' => {
                depth += 1;
                name_next = depth == 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 && at != text.len() {
                    return None;
                }
            }
            b',' => name_next = depth == 1,
            _ => {}
        }
    }
    (depth == 0).then_some(names)
}

/// The bytes before the quotation mark that ends a string.
fn string_length(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })
}

/// GitHub's and npm's: after the prefix random letters and digits, the last six their CRC-32 in base62. GitHub blog, "Behind
/// GitHub's new authentication token formats".
pub(super) fn github_crc32(token: &[u8]) -> bool {
    const ALPHABET: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let Some((random, checksum)) = after(token, b"_").and_then(|body| split_end(body, 6)) else {
        return false;
    };
    let value = checksum.iter().try_fold(0_u64, |value, byte| {
        let digit = ALPHABET.iter().position(|letter| letter == byte)?;
        Some(value * ALPHABET.len() as u64 + digit as u64)
    });
    random.len() >= 30 && value == Some(u64::from(crc32fast::hash(random)))
}

/// AWS: the sixteen characters after the kind of key are base32, and hold the account's number.
pub(super) fn aws_account(key: &[u8]) -> bool {
    let Some(decoded) = key
        .get(4..20)
        .filter(|_| key.len() == 20)
        .and_then(|body| BASE32_NOPAD.decode(body).ok())
    else {
        return false;
    };
    // Forty bits, of which the first is the second of the key.
    let first = decoded
        .iter()
        .take(6)
        .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    first >> 7 & 0xFF_FFFF_FFFF < MAX_ACCOUNT
}

/// A token of three parts, of which the first two are base64url of JSON objects with these members.
fn jwt_with(token: &[u8], header: &[&str], payload: &[&str]) -> bool {
    // What stands before may be `Bearer` or a label.
    let Some(start) = memchr::memmem::find(token, b"eyJ") else {
        return false;
    };
    let mut parts = token
        .get(start..)
        .unwrap_or_default()
        .split(|byte| *byte == b'.');
    let (Some(first), Some(second), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let holds =
        |part: &[u8], names: &[&str]| base64(part).is_some_and(|json| is_object_with(&json, names));
    holds(first, header) && holds(second, payload)
}

/// RFC 7519: the header is a JSON object with `alg`, the payload a JSON object.
pub(super) fn jwt(token: &[u8]) -> bool {
    jwt_with(token, &["alg"], &[])
}

/// Grafana, `pkg/components/satokengen`: the last eight digits are the CRC-32 of all before the last `_`, in little-endian order.
pub(super) fn grafana_service_account(token: &[u8]) -> bool {
    let Some(token) = memchr::memmem::find(token, b"glsa_").and_then(|at| token.get(at..)) else {
        return false;
    };
    split_end(token, 9).is_some_and(|(body, checksum)| {
        checksum.strip_prefix(b"_").and_then(hexadecimal)
            == Some(crc32fast::hash(body).swap_bytes())
    })
}

/// Grafana: base64 of a JSON object, in access policy tokens with `o`, `n`, `k`, `m`, in legacy API keys with `n`, `k`, `id`.
pub(super) fn grafana_cloud(token: &[u8]) -> bool {
    let (body, names): (_, &[&str]) = match after(token, b"glc_") {
        Some(body) => (body, &["o", "n", "k", "m"]),
        None => (token, &["n", "k", "id"]),
    };
    base64(body).is_some_and(|json| is_object_with(&json, names))
}

/// Atlassian API tokens and Bitbucket app passwords: the last eight digits are the CRC-32 of all before them.
pub(super) fn atlassian_crc32(token: &[u8]) -> bool {
    split_end(token, 8).is_some_and(|(body, checksum)| {
        body.len() > 8 && hexadecimal(checksum) == Some(crc32fast::hash(body))
    })
}

/// Bitbucket Data Center HTTP access tokens, and with no prefix those of Jira and Confluence: base64 of a number, a colon and
/// random bytes.
pub(super) fn bitbucket_http(token: &[u8]) -> bool {
    const MIN_NUMBER: u64 = 1000;
    const MIN_RANDOM: usize = 12;
    let Some(decoded) = base64(token.strip_prefix(b"BBDC-").unwrap_or(token)) else {
        return false;
    };
    let Some((number, random)) =
        memchr::memchr(b':', &decoded).and_then(|at| decoded.split_at_checked(at))
    else {
        return false;
    };
    let number = Some(number)
        .filter(|digits| digits.iter().all(u8::is_ascii_digit))
        .and_then(|digits| str::from_utf8(digits).ok());
    number
        .and_then(|digits| digits.parse::<u64>().ok())
        .is_some_and(|number| number >= MIN_NUMBER)
        && random.len() > MIN_RANDOM
}

/// JFrog: API keys are base58 of 54 bytes, reference tokens base64 of `reftkn:` and three more fields.
pub(super) fn jfrog(token: &[u8]) -> bool {
    if token.starts_with(b"AKCp") {
        return base58_length(token) == Some(54);
    }
    base64(token).is_some_and(|decoded| {
        let mut fields = decoded.split(|byte| *byte == b':');
        let is_number = |field: Option<&[u8]>| {
            field.is_some_and(|field| !field.is_empty() && field.iter().all(u8::is_ascii_digit))
        };
        fields.next() == Some(b"reftkn")
            && is_number(fields.next())
            && is_number(fields.next())
            && fields.next().is_some_and(|random| random.len() >= 16)
    })
}

/// Cloudflare docs, "Token formats": forty characters after the prefix, then a checksum; observed to be eight digits of their CRC-32.
pub(super) fn cloudflare_crc32(token: &[u8]) -> bool {
    let body = after(token, b"_").filter(|body| body.len() == 48);
    body.and_then(|body| split_end(body, 8))
        .is_some_and(|(random, checksum)| hexadecimal(checksum) == Some(crc32fast::hash(random)))
}

/// Confluent: 54 characters after `cflt`, then base64 of their CRC-32, in little-endian order.
pub(super) fn confluent_crc32(secret: &[u8]) -> bool {
    let body = after(secret, b"cflt").filter(|body| body.len() == 60);
    body.and_then(|body| split_end(body, 6))
        .is_some_and(|(random, checksum)| {
            let expected = BASE64.encode(&crc32fast::hash(random).to_le_bytes());
            expected.trim_end_matches('=').as_bytes() == checksum
        })
}

/// Zuplo docs, "API key best practices": `zpka_`, random characters, `_` and their CRC-32.
pub(super) fn zuplo_crc32(key: &[u8]) -> bool {
    after(key, b"zpka_")
        .and_then(|body| split_end(body, 9))
        .is_some_and(|(random, checksum)| {
            random.len() == 32
                && checksum.strip_prefix(b"_").and_then(hexadecimal)
                    == Some(crc32fast::hash(random))
        })
}

/// Words that stand for a password in manuals.
const SAMPLE_PASSWORDS: [&[u8]; 61] = [
    b"password",
    b"passwd",
    b"pass",
    b"pwd",
    b"pw",
    b"secret",
    b"tiger",
    b"test",
    b"testing",
    b"testpass",
    b"testpassword",
    b"test_password",
    b"example",
    b"root",
    b"rootpassword",
    b"root_password",
    b"admin",
    b"adminpass",
    b"adminpassword",
    b"administrator",
    b"guest",
    b"user",
    b"userpass",
    b"userpassword",
    b"user_password",
    b"username",
    b"postgres",
    b"mysql",
    b"mongo",
    b"redis",
    b"changeme",
    b"change_me",
    b"changeit",
    b"yourpassword",
    b"your_password",
    b"your-password",
    b"mypassword",
    b"my_password",
    b"my-password",
    b"mypass",
    b"mysecret",
    b"mysecretpassword",
    b"my-secret-password",
    b"dbpass",
    b"dbpassword",
    b"db_password",
    b"somepassword",
    b"some_password",
    b"some_pass",
    b"apples",
    b"passphrase",
    b"pass123",
    b"123456",
    b"12345678",
    b"token",
    b"key",
    b"foo",
    b"bar",
    b"baz",
    b"qux",
    b"...",
];

/// Whether this password is a word that stands for one.
fn is_sample_password(password: &[u8]) -> bool {
    let first = password.first();
    let one_letter = password.iter().all(|byte| Some(byte) == first)
        && first.is_some_and(|byte| b"*x.X_-".contains(byte));
    // The name of a shell variable.
    let filled_in = matches!(password, [b'$', rest @ ..] if rest.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'_'));
    // `password1` says no more than `password`.
    let counted = password.trim_ascii_end();
    let digits = counted
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let word = match split_end(counted, digits) {
        Some((word, _)) if !word.is_empty() && digits <= 4 => word,
        _ => counted,
    };
    one_letter
        || filled_in
        || SAMPLE_PASSWORDS.iter().any(|sample| {
            password.eq_ignore_ascii_case(sample) || word.eq_ignore_ascii_case(sample)
        })
}

/// Whether the password in `scheme://user:password@host` is a word that stands for one, or its host is one that cannot be.
pub(super) fn placeholder_password(text: &[u8]) -> bool {
    /// RFC 2606 and RFC 6761: no name under these is ever anybody's.
    const RESERVED: [&[u8]; 3] = [b".example", b".invalid", b".test"];
    const HOSTS: [&[u8]; 6] = [
        b"host",
        b"hostname",
        b"hostspec",
        b"somehost",
        b"myhost",
        b"yourhost",
    ];
    let after = |mark: &[u8]| memchr::memmem::find(text, mark).map(|at| at + mark.len());
    let Some(end) = memchr::memrchr(b'@', text) else {
        return false;
    };
    let start = after(b"://").unwrap_or(0);
    let Some(info) = text.get(start..end) else {
        return false;
    };
    let Some(colon) = memchr::memchr(b':', info) else {
        return false;
    };
    let host: Vec<u8> = text
        .get(end + 1..)
        .unwrap_or_default()
        .iter()
        .take_while(|byte| **byte != b':')
        .map(u8::to_ascii_lowercase)
        .collect();
    let (user, password) = info.split_at(colon);
    let password = password.get(1..).unwrap_or_default();
    // Oracle's sample account, whose password gets signs behind it to show how they are escaped.
    let scott = user == b"scott" && password.starts_with(b"tiger");
    scott
        || is_sample_password(password)
        || HOSTS.contains(&host.as_slice())
        || RESERVED.iter().any(|end| host.ends_with(end))
}

/// Whether the password in a netrc file, the last word of the text, stands for one.
pub(super) fn placeholder_netrc(text: &[u8]) -> bool {
    let word = text
        .rsplit(u8::is_ascii_whitespace)
        .next()
        .unwrap_or_default();
    word.first().is_some_and(|byte| b"$<{[%".contains(byte)) || is_sample_password(word)
}

/// Whether the password at the end of the text, behind a colon or an equals sign, stands for one.
pub(super) fn placeholder_last(text: &[u8]) -> bool {
    text.rsplit(|byte| matches!(byte, b':' | b'='))
        .next()
        .is_some_and(is_sample_password)
}

/// Whether a private key is cut short after its first line, as manuals do it. An ASN.1 sequence that begins with `MII` has 256
/// bytes at least, so a line of 64 characters is no key.
pub(super) fn cut_pem(text: &[u8]) -> bool {
    let Some(body) = after(text, b"KEY-----") else {
        return false;
    };
    if memchr::memmem::find(body, b"-----END").is_some() {
        return false;
    }
    let mut escaped = false;
    let characters: Vec<u8> = body
        .iter()
        .copied()
        .filter(|byte| {
            let kept = !escaped && (byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
            escaped = *byte == b'\\';
            kept
        })
        .take(65)
        .collect();
    characters.len() <= 64 && characters.starts_with(b"MII")
}

/// Whether what stands in a header for a token is words, or the beginning of a JSON web token, which has rows of its own.
pub(super) fn placeholder_token(text: &[u8]) -> bool {
    let word = text
        .rsplit(|byte| matches!(byte, b' ' | b'\t' | b':' | b'"' | b'\''))
        .next()
        .unwrap_or_default();
    word.starts_with(b"eyJ") || is_sample_password(word) || is_a_name(text)
}

/// Whether what follows `Basic` is what stands in manuals: the RFCs' own samples, a word for a password, or a word that is no
/// base64 at all.
pub(super) fn placeholder_basic(text: &[u8]) -> bool {
    let word = text.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let Some(decoded) = base64(word) else {
        return is_a_name(text);
    };
    // RFC 7617 and RFC 6749.
    decoded == b"Aladdin:open sesame"
        || decoded.starts_with(b"s6BhdRkqt3:")
        || memchr::memchr(b':', &decoded)
            .and_then(|colon| decoded.get(colon + 1..))
            .is_some_and(is_sample_password)
        || is_a_name(text)
}

/// Whether the text ends in words rather than in something random: letters only, few of them capitals or all.
///
/// For shapes whose prefix is a word that others use as well (`dataset-`, `live_`). Of the random bodies of twenty letters and
/// digits, one in a thousand is taken for words; and whoever can make up words needs no prefix to carry them out.
/// One letter over and over is no word: it is how samples are written, and they block.
pub(super) fn is_a_name(text: &[u8]) -> bool {
    let is_body =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+' | b'/');
    let length = text.iter().rev().take_while(|byte| is_body(byte)).count();
    let Some((_, body)) = split_end(text, length) else {
        return false;
    };
    let last = body
        .rsplit(|byte| matches!(byte, b'_' | b'-'))
        .next()
        .unwrap_or_default();
    // A prefix may be glued to the body.
    let mut letters = [false; 256];
    for byte in last.iter().rev().take(12) {
        letters[usize::from(*byte)] = true;
    }
    let distinct = letters.iter().filter(|seen| **seen).count();
    let capitals = body.iter().filter(|byte| byte.is_ascii_uppercase()).count();
    let lower = body.iter().filter(|byte| byte.is_ascii_lowercase()).count();
    let only_letters = body
        .iter()
        .all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'-'));
    only_letters && distinct >= 3 && (lower == 0 || capitals * 2 <= lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base62(mut value: u32) -> String {
        let alphabet: Vec<char> = ('0'..='9').chain('A'..='Z').chain('a'..='z').collect();
        let mut digits = Vec::new();
        for _ in 0..6 {
            digits.push(alphabet[value as usize % 62]);
            value /= 62;
        }
        digits.iter().rev().collect()
    }

    fn token_of(header: &str, payload: &str) -> String {
        format!(
            "{}.{}.{}",
            BASE64URL_NOPAD.encode(header.as_bytes()),
            BASE64URL_NOPAD.encode(payload.as_bytes()),
            "A".repeat(43)
        )
    }

    /// What the check says of `token`, and of `token` with one character changed for another of all usual alphabets.
    #[track_caller]
    fn only(check: fn(&[u8]) -> bool, token: &str, at: usize) {
        assert!(check(token.as_bytes()), "{token}");
        let mut other = token.as_bytes().to_vec();
        other[at] = if other[at] == b'7' { b'6' } else { b'7' };
        assert!(!check(&other), "{}", other.escape_ascii());
        for end in 0..token.len() {
            assert!(!check(&token.as_bytes()[..end]), "{}", &token[..end]);
        }
    }

    #[test]
    fn words_are_told_from_random_letters() {
        for text in [
            "dataset-datasetrefreshproperties",
            "s.getElementsByClassName",
            "md-button-toggle-group",
            "RawSecretAccessKey: XksProxyAuthenticationRawSecretAccessKeyType",
            "BSA_SOME_CONSTANT_OF_A_PROGRAM",
        ] {
            assert!(is_a_name(text.as_bytes()), "{text}");
        }
        for text in [
            "dataset-AAAAAAAAAAAAAAAAAAAAAAAA",
            "dataset-abcdefghijklmnopqrstuvw1",
            "dataset-aBcDeFgHiJkLmNoPqRsTuVwX",
            // A secret key of AWS may end in letters.
            "SecretAccessKey: 0000000000000000000000000000000000/abcde",
            "",
        ] {
            assert!(!is_a_name(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn sample_passwords_are_told_from_others() {
        for url in [
            "https://user:password@db.internal",
            "https://user:Password12@db.internal",
            "postgresql://scott:tiger^5HHH@mssql2022",
            "https://user:synthetic-password@allowed.example:8080",
            "dbtype://username:apples@hostspec",
            "redis://:xxxxxx@db",
            "redis://:$REDIS_PASSWORD@db",
        ] {
            assert!(placeholder_password(url.as_bytes()), "{url}");
        }
        for url in [
            "https://user:hunter2@db.internal",
            "https://user:password12345@db.internal",
            "https://user:hunter2@example.com",
            "https://user:hunter2@test",
            "https://user:tiger^5HHH@mssql2022",
        ] {
            assert!(!placeholder_password(url.as_bytes()), "{url}");
        }
        assert!(placeholder_netrc(b"machine a login b password ${TOKEN}"));
        assert!(placeholder_netrc(b"machine a login b password secret"));
        assert!(!placeholder_netrc(b"machine a login b password hunter2"));
    }

    #[test]
    fn a_line_is_no_key() {
        let line = format!("MII{}", "aB3/".repeat(15));
        for text in [
            format!("-----BEGIN RSA PRIVATE KEY-----\n{line}"),
            format!("-----BEGIN RSA PRIVATE KEY----- {line}a\\\\n"),
        ] {
            assert!(cut_pem(text.as_bytes()), "{text}");
        }
        for text in [
            format!("-----BEGIN RSA PRIVATE KEY-----\n{line}\nAA"),
            format!("-----BEGIN RSA PRIVATE KEY-----\n{line}\n-----END RSA PRIVATE KEY-----"),
            format!("-----BEGIN PRIVATE KEY-----\nMC4{}", "aB3/".repeat(15)),
        ] {
            assert!(!cut_pem(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn manuals_basic_credentials_are_told_from_others() {
        for credential in [
            "Aladdin:open sesame",
            "s6BhdRkqt3:7Fjfp0ZBr1KtDRbnfVdmIw",
            "user:password",
            "username:pass",
        ] {
            let header = format!(
                "Authorization: Basic {}",
                BASE64.encode(credential.as_bytes())
            );
            assert!(placeholder_basic(header.as_bytes()), "{credential}");
        }
        assert!(placeholder_basic(b"Authorization: Basic authentication"));
        for credential in ["admin:hunter2", "alice:correct horse", ":0123456789"] {
            let header = format!(
                "Authorization: Basic {}",
                BASE64.encode(credential.as_bytes())
            );
            assert!(!placeholder_basic(header.as_bytes()), "{credential}");
        }
        assert!(!placeholder_basic(b"Authorization: Basic AAAAAAAAAAAAAAAA"));
    }

    #[test]
    fn github_and_npm_end_in_a_base62_checksum() {
        for prefix in ["ghp_", "ghs_", "npm_"] {
            let random = "aB3".repeat(10);
            only(
                github_crc32,
                &format!(
                    "{prefix}{random}{}",
                    base62(crc32fast::hash(random.as_bytes()))
                ),
                12,
            );
        }
    }

    #[test]
    fn a_small_checksum_is_padded() {
        // The first of these bodies whose checksum needs five digits or fewer.
        let random = (0_u32..)
            .map(|number| format!("{number:030}"))
            .find(|body| crc32fast::hash(body.as_bytes()) < 62_u32.pow(5))
            .unwrap();
        let token = format!("gho_{random}{}", base62(crc32fast::hash(random.as_bytes())));
        assert!(token[34..].starts_with('0'));
        assert!(github_crc32(token.as_bytes()));
    }

    #[test]
    fn aws_keys_hold_an_account() {
        let key = |account: u64| {
            let mut bytes = [0_u8; 10];
            bytes[..6].copy_from_slice(&(1 << 47 | account << 7 | 5).to_be_bytes()[2..]);
            format!("AKIA{}", BASE32_NOPAD.encode(&bytes))
        };
        assert!(aws_account(key(123_456_789_012).as_bytes()));
        assert!(aws_account(key(MAX_ACCOUNT - 1).as_bytes()));
        assert!(!aws_account(key(MAX_ACCOUNT).as_bytes()));
        // No base32, and too short.
        assert!(!aws_account(b"AKIA0000000000000000"));
        assert!(!aws_account(&key(123_456_789_012).as_bytes()[..19]));
    }

    #[test]
    fn a_jwt_has_an_algorithm() {
        let token = token_of(
            r#"{"typ":"JWT","alg":"HS256"}"#,
            r#"{"sub":"a.b","n":[{"x":1}]}"#,
        );
        assert!(jwt(token.as_bytes()));
        assert!(jwt(format!("Bearer {token}").as_bytes()));
        assert!(!jwt(token_of(r#"{"typ":"alg"}"#, "{}").as_bytes()));
        // Not at the top, not an object, not JSON, not three parts.
        assert!(!jwt(token_of(r#"{"typ":{"alg":1}}"#, "{}").as_bytes()));
        assert!(!jwt(token_of(r#"{"alg":"none"}"#, "[]").as_bytes()));
        assert!(!jwt(token_of(r#"{"alg":"none"}"#, r#"{"a":"}"#).as_bytes()));
        assert!(!jwt(format!("{token}.AAAA").as_bytes()));
        assert!(!jwt(b"eyJhbGciOiJub25lIn0"));
    }

    #[test]
    fn names_are_told_from_values() {
        assert_eq!(
            object_names(br#" {"a":"b,\"c","d\"":{"e":[1,"f"]},"g":null} "#).unwrap(),
            [b"a".as_slice(), br#"d\""#, b"g"]
        );
        assert_eq!(object_names(b"{}").unwrap().len(), 0);
        for text in ["", "{", "[]", r#"{"a}"#, "{}}", "{}{}", r#"{"a":"\"}"#] {
            assert_eq!(object_names(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn grafana_service_account_tokens_end_in_a_checksum() {
        let body = format!("glsa_{}", "aB3x".repeat(8));
        only(
            grafana_service_account,
            &format!(
                "{body}_{:08x}",
                crc32fast::hash(body.as_bytes()).swap_bytes()
            ),
            8,
        );
    }

    #[test]
    fn grafana_cloud_tokens_are_json() {
        let cloud = BASE64.encode(br#"{"o":"1","n":"name","k":"key","m":{"r":"eu"}}"#);
        assert!(grafana_cloud(format!("glc_{cloud}").as_bytes()));
        let legacy = BASE64.encode(br#"{"k":"key","n":"name","id":1}"#);
        assert!(grafana_cloud(legacy.as_bytes()));
        assert!(grafana_cloud(legacy.trim_end_matches('=').as_bytes()));
        assert!(!grafana_cloud(format!("glc_{legacy}").as_bytes()));
        assert!(!grafana_cloud(b"glc_AAAA"));
    }

    #[test]
    fn atlassian_tokens_end_in_a_checksum() {
        for body in [
            format!("ATATT3xFfGF0{}=", "aB3_".repeat(40)),
            format!("ATBB{}", "aB3x".repeat(6)),
        ] {
            only(
                atlassian_crc32,
                &format!("{body}{:08X}", crc32fast::hash(body.as_bytes())),
                20,
            );
        }
    }

    #[test]
    fn bitbucket_tokens_are_a_number_and_random_bytes() {
        let token = |number: &str, random: &[u8]| {
            format!(
                "BBDC-{}",
                BASE64.encode(&[number.as_bytes(), b":", random].concat())
            )
        };
        assert!(bitbucket_http(
            token("123456789012", &[0x5A; 20]).as_bytes()
        ));
        assert!(bitbucket_http(
            &token("123456789012", &[0x5A; 20]).as_bytes()[5..]
        ));
        assert!(!bitbucket_http(token("999", &[0x5A; 20]).as_bytes()));
        assert!(!bitbucket_http(token("+12345", &[0x5A; 20]).as_bytes()));
        assert!(!bitbucket_http(
            token("123456789012345678901", &[0x5A; 20]).as_bytes()
        ));
        assert!(!bitbucket_http(token("123456789012", b"").as_bytes()));
        assert!(!bitbucket_http(b"BBDC-AAAA"));
    }

    #[test]
    fn jfrog_keys_are_base58_and_reference_tokens_base64() {
        assert!(jfrog(format!("AKCp{}", "8".repeat(69)).as_bytes()));
        assert!(!jfrog(format!("AKCp{}", "8".repeat(68)).as_bytes()));
        // No zero in base58.
        assert!(!jfrog(format!("AKCp{}", "0".repeat(69)).as_bytes()));
        assert!(!jfrog(format!("AKCp{}", "8".repeat(4000)).as_bytes()));
        assert!(jfrog(
            BASE64
                .encode(format!("reftkn:01:1700000000:{}", "aB3".repeat(9)).as_bytes())
                .as_bytes()
        ));
        assert!(!jfrog(
            BASE64
                .encode(format!("reftkn:01:soon:{}", "aB3".repeat(9)).as_bytes())
                .as_bytes()
        ));
        assert!(!jfrog(BASE64.encode(b"reftkn:01:1700000000:").as_bytes()));
    }

    #[test]
    fn base58_is_as_long_as_its_number() {
        assert_eq!(base58_length(b""), Some(0));
        assert_eq!(base58_length(b"5Q"), Some(1));
        assert_eq!(base58_length(b"5R"), Some(2));
        assert_eq!(base58_length(b"l"), None);
    }

    #[test]
    fn cloudflare_tokens_end_in_a_checksum() {
        let body = "aB3xY".repeat(8);
        for prefix in ["cfut_", "cfat_", "cfk_"] {
            only(
                cloudflare_crc32,
                &format!("{prefix}{body}{:08x}", crc32fast::hash(body.as_bytes())),
                12,
            );
        }
    }

    #[test]
    fn confluent_secrets_end_in_a_checksum() {
        let body = "aB3xY/".repeat(9);
        let checksum = BASE64_NOPAD.encode(&crc32fast::hash(body.as_bytes()).to_le_bytes());
        only(confluent_crc32, &format!("cflt{body}{checksum}"), 12);
    }

    #[test]
    fn zuplo_keys_end_in_a_checksum() {
        let body = "a1b2c3d4".repeat(4);
        only(
            zuplo_crc32,
            &format!("zpka_{body}_{:08x}", crc32fast::hash(body.as_bytes())),
            12,
        );
    }
}
