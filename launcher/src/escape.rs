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
        assert_eq!(
            Escaped(&"x".repeat(3000)).to_string().chars().count(),
            MAX_CHARACTERS + 1
        );
    }
}
