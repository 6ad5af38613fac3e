//! Text of the agent's, made fit for a terminal.

use std::fmt::{self, Write as _};

/// What one value may fill of a terminal.
const MAX_CHARACTERS: usize = 2000;

/// Shows text with its control and direction characters escaped: the agent must not be able to move the cursor, set
/// a title or reverse the reading order of what the operator decides on.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, character) in self.0.chars().enumerate() {
            if at == MAX_CHARACTERS {
                return f.write_char('…');
            }
            if is_hidden(character) {
                write!(f, "{}", character.escape_unicode())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// JSON that shows nothing hidden, and still says the same.
pub fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        // Outside of a string there is no such character but the line break.
        if character != '\n' && is_hidden(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _infallible = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
    }
    shown
}

fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_terminal_is_left() {
        assert_eq!(
            Escaped("a\x1b[2J\r\nb").to_string(),
            "a\\u{1b}[2J\\u{d}\\u{a}b"
        );
        assert_eq!(
            Escaped("a\u{202e}b\u{9b}c").to_string(),
            "a\\u{202e}b\\u{9b}c"
        );
        assert_eq!(Escaped("grün").to_string(), "grün");
        assert_eq!(json("[\n\"a\u{202e}\u{9b}\"]"), "[\n\"a\\u202e\\u009b\"]");
        assert_eq!(
            Escaped(&"x".repeat(3000)).to_string().chars().count(),
            MAX_CHARACTERS + 1
        );
    }
}
