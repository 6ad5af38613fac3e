//! Tables over bytes: what a byte is.

/// Bits of [`CLASSES`].
pub(crate) mod class {
    pub(crate) const UPPER: u8 = 1;
    pub(crate) const LOWER: u8 = 2;
    pub(crate) const DIGIT: u8 = 4;
    pub(crate) const HEX: u8 = 8;
    /// `+` and `/`, `-` and `_`.
    pub(crate) const SIGN: u8 = 16;
    /// Letters and digits 2 to 7.
    pub(crate) const BASE32: u8 = 32;
    /// Letters up to V and digits.
    pub(crate) const BASE32_HEX: u8 = 64;
    pub(crate) const BASE58: u8 = 128;
}

/// Bits of [`FLAGS`], one for each mask of a block.
pub(super) mod flag {
    pub(crate) const ALNUM: u8 = 1;
    pub(crate) const SIGN: u8 = 2;
    pub(crate) const HEX: u8 = 4;
    pub(crate) const LEAD: u8 = 8;
    pub(crate) const BACKSLASH: u8 = 16;
    pub(crate) const ESCAPED: u8 = 32;
    pub(crate) const AMPERSAND: u8 = 64;
    pub(crate) const GAP: u8 = 128;
}

/// Symbols: 64 kinds of bytes, in which letters have no case.
pub(crate) mod symbol {
    /// ASCII that no anchor has.
    pub(crate) const OTHER: u8 = 62;
    /// Bytes above 0x7F.
    pub(crate) const HIGH: u8 = 63;
    /// What stands after letters and digits, in order of the symbols from 36 on.
    pub(super) const SIGNS: &[u8; 26] = b"_-.:/+=$@~\"' %!#&*(),;<>|\n";
}

pub(super) const FLAGS: [u8; 128] = flags();
pub(crate) const SYMBOLS: [u8; 128] = symbols();
pub(crate) const CLASSES: [u8; 128] = classes();
/// The value of a base64 digit of either alphabet, or [`NO_DIGIT`].
pub(crate) const BASE64: [u8; 128] = base64();
pub(crate) const NO_DIGIT: u8 = 0x80;
/// For each of the first three of the four digits of a group the bit of its value that is the high bit of a byte.
pub(super) const HIGH_BITS: [u8; 3] = [0x20, 0x08, 0x02];

/// The dialects of base 85: of Adobe and btoa; of RFC 1924, git and Python's `b85encode`; of ZeroMQ RFC 32.
pub(crate) const BASE85_ALPHABETS: [&[u8; 85]; 3] = [
    b"!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstu",
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~",
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#",
];

/// Bits 0 to 2: a digit of dialect 0 to 2. Bits 3 to 5: one that a group of four bytes may begin with if those are ASCII and the first
/// is no control character before the tab.
pub(super) const BASE85: [u8; 128] = base85();

const fn base85() -> [u8; 128] {
    // A group is a number of 32 bits, its first digit how many times 85 to the power of 4 fits into it.
    const POWER: u32 = 85 * 85 * 85 * 85;
    let mut table = [0; 128];
    let mut dialect = 0;
    while dialect < 3 {
        let mut value = 0;
        while value < 85 {
            let lead = value == 0 || value >= 0x0900_0000 / POWER && value <= 0x7F7F_7F7F / POWER;
            table[BASE85_ALPHABETS[dialect][value as usize] as usize] |=
                1 << dialect | (lead as u8) << (3 + dialect);
            value += 1;
        }
        dialect += 1;
    }
    table
}

const fn flags() -> [u8; 128] {
    let mut table = [0; 128];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        let mut flags = 0;
        if b.is_ascii_alphanumeric() {
            flags |= flag::ALNUM;
        }
        if matches!(b, b'_' | b'+' | b'/' | b'-') {
            flags |= flag::SIGN;
        }
        if b.is_ascii_hexdigit() {
            flags |= flag::HEX;
        }
        if matches!(b, b'%' | b'=') {
            flags |= flag::LEAD;
        }
        if b == b'\\' {
            flags |= flag::BACKSLASH;
        }
        if matches!(b, b'u' | b'U' | b'x' | b'0'..=b'7' | b'/' | b'\n' | b'\r') {
            flags |= flag::ESCAPED;
        }
        if b == b'&' {
            flags |= flag::AMPERSAND;
        }
        if matches!(b, b' ' | b'\t' | b'\r' | b'\n' | b'"' | b'\'' | b'`') {
            flags |= flag::GAP;
        }
        table[byte] = flags;
        byte += 1;
    }
    table
}

const fn symbols() -> [u8; 128] {
    let mut table = [symbol::OTHER; 128];
    let mut at = 0;
    while at < 26 {
        table[b'a' as usize + at] = at as u8;
        table[b'A' as usize + at] = at as u8;
        table[symbol::SIGNS[at] as usize] = 36 + at as u8;
        at += 1;
    }
    at = 0;
    while at < 10 {
        table[b'0' as usize + at] = 26 + at as u8;
        at += 1;
    }
    table
}

const fn classes() -> [u8; 128] {
    let mut table = [0; 128];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        let mut bits = 0;
        if b.is_ascii_uppercase() {
            bits |= class::UPPER;
        }
        if b.is_ascii_lowercase() {
            bits |= class::LOWER;
        }
        if b.is_ascii_digit() {
            bits |= class::DIGIT;
        }
        if b.is_ascii_hexdigit() {
            bits |= class::HEX;
        }
        if matches!(b, b'_' | b'+' | b'/' | b'-') {
            bits |= class::SIGN;
        }
        if matches!(b, b'A'..=b'Z' | b'a'..=b'z' | b'2'..=b'7') {
            bits |= class::BASE32;
        }
        if matches!(b, b'A'..=b'V' | b'a'..=b'v' | b'0'..=b'9') {
            bits |= class::BASE32_HEX;
        }
        if b.is_ascii_alphanumeric() && !matches!(b, b'0' | b'O' | b'I' | b'l') {
            bits |= class::BASE58;
        }
        table[byte] = bits;
        byte += 1;
    }
    table
}

const fn base64() -> [u8; 128] {
    let mut table = [NO_DIGIT; 128];
    let mut at = 0;
    while at < 26 {
        table[b'A' as usize + at] = at as u8;
        table[b'a' as usize + at] = 26 + at as u8;
        at += 1;
    }
    at = 0;
    while at < 10 {
        table[b'0' as usize + at] = 52 + at as u8;
        at += 1;
    }
    table[b'+' as usize] = 62;
    table[b'-' as usize] = 62;
    table[b'/' as usize] = 63;
    table[b'_' as usize] = 63;
    table
}
