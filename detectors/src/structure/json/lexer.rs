//! The tokens of JSON. What RFC 8259 does not allow is an error, as is what is nested deeper than we follow.

use std::ops::Range;

use super::MAX_DEPTH;

/// Many parsers skip it.
pub(super) const BOM: &[u8] = b"\xEF\xBB\xBF";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// An object, or else an array.
    Open(bool),
    Close,
    /// The comma between two members or elements.
    Next,
    /// The bytes between the quotes.
    Key(Range<usize>),
    /// The bytes between the quotes.
    String(Range<usize>),
    Number(Range<usize>),
    Literal(Range<usize>),
}

/// It is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// A document, or the end.
    Document,
    Value,
    ValueOrClose,
    Key,
    KeyOrClose,
    NextOrClose,
}

#[derive(Debug)]
pub(super) struct Lexer<'a> {
    input: &'a [u8],
    at: usize,
    expect: Expect,
    /// Of each open container whether it is an object.
    open: Vec<bool>,
    documents: u64,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            at: if input.starts_with(BOM) { BOM.len() } else { 0 },
            expect: Expect::Document,
            open: Vec::new(),
            documents: 0,
        }
    }

    /// Documents that have begun.
    pub(super) fn documents(&self) -> u64 {
        self.documents
    }

    /// The next token; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Token>, Broken> {
        let before = self.at;
        self.skip_white();
        let Some(byte) = self.peek() else {
            return match self.expect {
                Expect::Document => Ok(None),
                _ => Err(Broken),
            };
        };
        let token = match (self.expect, byte) {
            (Expect::Document, _) => {
                // `1 2` are two, `12` is one.
                if self.documents > 0 && before == self.at {
                    return Err(Broken);
                }
                self.documents += 1;
                self.value(byte)?
            }
            (Expect::ValueOrClose, b']') | (Expect::KeyOrClose, b'}') => self.close(byte)?,
            (Expect::NextOrClose, b']' | b'}') => self.close(byte)?,
            (Expect::NextOrClose, b',') => {
                self.at += 1;
                self.expect = match self.open.last() {
                    Some(true) => Expect::Key,
                    _ => Expect::Value,
                };
                Token::Next
            }
            (Expect::Key | Expect::KeyOrClose, b'"') => {
                let key = self.string()?;
                self.skip_white();
                if self.peek() != Some(b':') {
                    return Err(Broken);
                }
                self.at += 1;
                self.expect = Expect::Value;
                Token::Key(key)
            }
            (Expect::Value | Expect::ValueOrClose, _) => self.value(byte)?,
            _ => return Err(Broken),
        };
        Ok(Some(token))
    }

    fn value(&mut self, byte: u8) -> Result<Token, Broken> {
        if let b'{' | b'[' = byte {
            if self.open.len() == MAX_DEPTH {
                return Err(Broken);
            }
            self.at += 1;
            let is_object = byte == b'{';
            self.open.push(is_object);
            self.expect = if is_object {
                Expect::KeyOrClose
            } else {
                Expect::ValueOrClose
            };
            return Ok(Token::Open(is_object));
        }
        let token = match byte {
            b'"' => Token::String(self.string()?),
            b't' => Token::Literal(self.literal(b"true")?),
            b'f' => Token::Literal(self.literal(b"false")?),
            b'n' => Token::Literal(self.literal(b"null")?),
            _ => Token::Number(self.number()?),
        };
        self.ended();
        Ok(token)
    }

    fn close(&mut self, byte: u8) -> Result<Token, Broken> {
        if self.open.pop() != Some(byte == b'}') {
            return Err(Broken);
        }
        self.at += 1;
        self.ended();
        Ok(Token::Close)
    }

    fn ended(&mut self) {
        self.expect = if self.open.is_empty() {
            Expect::Document
        } else {
            Expect::NextOrClose
        };
    }

    fn literal(&mut self, word: &[u8]) -> Result<Range<usize>, Broken> {
        let end = self.at + word.len();
        if self.input.get(self.at..end) != Some(word) {
            return Err(Broken);
        }
        Ok(std::mem::replace(&mut self.at, end)..end)
    }

    fn number(&mut self) -> Result<Range<usize>, Broken> {
        let start = self.at;
        self.skip(b'-');
        if !self.skip(b'0') {
            self.digits()?;
        }
        if self.skip(b'.') {
            self.digits()?;
        }
        if self.skip(b'e') || self.skip(b'E') {
            if !self.skip(b'+') {
                self.skip(b'-');
            }
            self.digits()?;
        }
        Ok(start..self.at)
    }

    fn digits(&mut self) -> Result<(), Broken> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(Broken) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<Range<usize>, Broken> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek().ok_or(Broken)? {
                b'"' => {
                    self.at += 1;
                    return Ok(start..self.at - 1);
                }
                b'\\' => match self.input.get(self.at + 1).ok_or(Broken)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
                    b'u' => {
                        let digits = self.input.get(self.at + 2..self.at + 6).ok_or(Broken)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return Err(Broken);
                        }
                        self.at += 6;
                    }
                    _ => return Err(Broken),
                },
                ..0x20 => return Err(Broken),
                _ => self.at += 1,
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn skip_white(&mut self) {
        let rest = self.input.get(self.at..).unwrap_or_default();
        self.at += rest
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
            .count();
    }
}
