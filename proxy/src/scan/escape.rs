//! Names and texts of others, made fit for a terminal.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A file name as one can read it: what is not UTF-8 as `\xff`, what drives a terminal as `\u{1b}`.
pub(super) fn path(path: &Path) -> String {
    bytes(path.as_os_str().as_bytes())
}

pub(super) fn bytes(bytes: &[u8]) -> String {
    text(&name(bytes))
}

/// Bytes as text from which they can still be told, if not without doubt.
pub(super) fn name(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        shown.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _never = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

pub(super) fn text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// JSON that shows nothing hidden either, and still says the same. Line breaks between its values stay.
pub(super) fn json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        if character != '\n' && is_hidden(character) {
            // Inside of a string, for nowhere else is there such a character.
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _never = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Moves a cursor, reverses the reading order, breaks a line, or cannot be seen.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_terminal_is_left() {
        assert_eq!(text("a\x1b[2J\r\nb"), "a\\u{1b}[2J\\u{d}\\u{a}b");
        assert_eq!(bytes(b"a\xff\xc3(\xe2\x80\xae"), "a\\xff\\xc3(\\u{202e}");
        assert_eq!(text("grün"), "grün");
    }

    #[test]
    fn json_stays_what_it_was() {
        let value = serde_json::json!({"a\u{202e}": ["\u{e0041}\u{9b}\n\x1b\u{7f}", "grün"]});
        let written = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!written.chars().any(|c| c != '\n' && is_hidden(c)));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&written).unwrap(),
            value
        );
    }
}
