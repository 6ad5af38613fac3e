//! Where a phrase stood: what a reader of the rendered text would have seen of it.

use std::fmt;

/// The kind of text that a phrase stood in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Plain,
    HtmlComment,
    /// An element that no reader sees: `display:none`, no size, no contrast, `hidden`.
    HiddenElement,
    /// Written with characters that are not seen, or not what they seem.
    Disguised,
    MarkdownComment,
    /// The text of an image, or the title of a link.
    AltText,
    /// A quoted attribute of an element.
    Attribute,
    /// A JSON string under a key that agents read the results of tools from.
    ToolResult,
    CodeComment,
    Base64,
}

impl Place {
    /// Whether nobody writes there what a person should read.
    pub(super) fn is_hidden(self) -> bool {
        matches!(
            self,
            Self::HtmlComment
                | Self::HiddenElement
                | Self::Disguised
                | Self::MarkdownComment
                | Self::Base64
        )
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "in plain text",
            Self::HtmlComment => "in an HTML comment",
            Self::HiddenElement => "in hidden text",
            Self::Disguised => "in disguised characters",
            Self::MarkdownComment => "in a Markdown comment",
            Self::AltText => "in an image's or a link's text",
            Self::Attribute => "in an attribute",
            Self::ToolResult => "in the result of a tool",
            Self::CodeComment => "in a code comment",
            Self::Base64 => "in base64",
        })
    }
}

/// Styles that hide what they apply to, without blanks. Those that end in a nought must end there.
const HIDING: &[&str] = &[
    "display:none",
    "visibility:hidden",
    "font-size:0",
    "font-size:0px",
    "font-size:1px",
    "opacity:0",
    ";color:white",
    ";color:#fff",
    "\"color:white",
    "\"color:#fff",
    "'color:white",
    "'color:#fff",
    "left:-9999px",
    "text-indent:-9999px",
];

/// Elements that have no content.
const VOID: &[&str] = &[
    "br", "hr", "img", "input", "meta", "link", "source", "area", "col", "base",
];

/// Elements that only dress a part of a sentence.
const PHRASING: &[&str] = &[
    "a", "b", "i", "u", "s", "em", "strong", "span", "font", "code", "kbd", "mark", "small", "sub",
    "sup", "br", "img", "var", "tt", "wbr", "abbr",
];

const RESULT_KEYS: &[&str] = &[
    "tool_result",
    "tool_output",
    "content",
    "output",
    "stdout",
    "stderr",
    "result",
    "observation",
    "text",
    "response",
];

/// The last eight characters, in lower case.
#[derive(Clone, Copy, Debug, Default)]
struct Recent(u64);

impl Recent {
    fn push(&mut self, byte: u8) {
        self.0 = self.0 << 8 | u64::from(byte);
    }

    /// At most eight characters of `text` count.
    fn ends_with(self, text: &str) -> bool {
        let last = self.0.to_be_bytes();
        last.ends_with(text.as_bytes())
    }
}

/// The last characters of a tag, in lower case.
#[derive(Clone, Copy, Debug, Default)]
struct Tail {
    text: [u8; 20],
}

impl Tail {
    fn push(&mut self, byte: u8) {
        self.text.rotate_left(1);
        if let Some(last) = self.text.last_mut() {
            *last = byte;
        }
    }

    fn ends_with(&self, text: &str) -> bool {
        self.text.ends_with(text.as_bytes())
    }
}

/// A name of bounded length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Name {
    text: [u8; 16],
    length: usize,
}

impl Name {
    fn push(&mut self, byte: u8) {
        if let Some(to) = self.text.get_mut(self.length) {
            *to = byte;
        }
        // A longer one is none of those that are known.
        self.length = (self.length + 1).min(self.text.len() + 1);
    }

    fn is_one_of(&self, names: &[&str]) -> bool {
        let text = self.text.get(..self.length);
        text.is_some_and(|text| names.iter().any(|name| name.as_bytes() == text))
    }
}

#[derive(Clone, Copy, Debug)]
struct Tag {
    name: Name,
    named: bool,
    closing: bool,
    hidden: bool,
    quote: u8,
    style: Tail,
}

#[derive(Clone, Copy, Debug)]
struct Hidden {
    name: Name,
    depth: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Json {
    #[default]
    Outside,
    /// In a string that may be a key.
    Key(Name),
    AfterKey(Name),
    AfterColon(Name),
    /// In a string under one of [`RESULT_KEYS`].
    Result,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Comment {
    #[default]
    None,
    Line,
    Block,
}

/// What a separator does to the sentence around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// A new sentence begins.
    Sentence,
}

/// Follows the markup, a character at a time, in constant space.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    recent: Recent,
    html_comment: bool,
    tag: Option<Tag>,
    hidden: Option<Hidden>,
    markdown_comment: bool,
    /// Inside `![…]` or `(… "…")` of a link.
    alt: bool,
    json: Json,
    comment: Comment,
    /// Whether more than blanks stood on the line so far.
    line_begun: bool,
}

impl Places {
    pub(super) fn current(&self) -> Place {
        if self.html_comment {
            Place::HtmlComment
        } else if self.hidden.is_some() {
            Place::HiddenElement
        } else if self.tag.is_some_and(|tag| tag.quote != 0) {
            Place::Attribute
        } else if self.markdown_comment {
            Place::MarkdownComment
        } else if self.alt {
            Place::AltText
        } else if self.json == Json::Result {
            Place::ToolResult
        } else if self.comment != Comment::None {
            Place::CodeComment
        } else {
            Place::Plain
        }
    }

    /// Whether something is open whose end must be seen.
    pub(super) fn is_open(&self) -> bool {
        self.html_comment
            || self.hidden.is_some()
            || self.markdown_comment
            || self.json == Json::Result
    }

    /// Takes a letter or a digit, which by itself opens and closes nothing.
    #[inline]
    pub(super) fn push_letter(&mut self, byte: u8, raw: bool) {
        let byte = byte.to_ascii_lowercase();
        self.recent.push(byte);
        self.line_begun = true;
        if raw && !matches!(self.json, Json::Outside | Json::Result) {
            self.step_json(byte);
        }
        if self.tag.is_some() && !self.html_comment {
            self.in_tag(byte);
        }
    }

    /// [`Places::push_letter`] for several that stand there as themselves.
    pub(super) fn push_run(&mut self, run: &[u8]) {
        if self.tag.is_none() && matches!(self.json, Json::Outside | Json::Result) {
            self.line_begun = true;
            // Nothing else is kept of letters than the last.
            for byte in run.iter().rev().take(8).rev() {
                self.recent.push(byte.to_ascii_lowercase());
            }
        } else {
            run.iter().for_each(|byte| self.push_letter(*byte, true));
        }
    }

    /// Takes the next character; `raw` says that it stood there as itself, not as an escape.
    pub(super) fn push(&mut self, byte: u8, raw: bool) -> Effect {
        let byte = byte.to_ascii_lowercase();
        self.recent.push(byte);
        if raw {
            self.step_json(byte);
        }
        if self.html_comment {
            if self.recent.ends_with("-->") {
                self.html_comment = false;
                return Effect::Sentence;
            }
            return Effect::None;
        }
        if byte == b'-' && self.recent.ends_with("<!--") {
            self.html_comment = true;
            self.tag = None;
            return Effect::Sentence;
        }
        if self.tag.is_some() {
            return self.in_tag(byte);
        }
        match byte {
            b'<' => {
                self.tag = Some(Tag {
                    name: Name::default(),
                    named: false,
                    closing: false,
                    hidden: false,
                    quote: 0,
                    style: Tail::default(),
                });
            }
            b'\n' => {
                self.markdown_comment = false;
                self.alt = false;
                if self.comment == Comment::Line {
                    self.comment = Comment::None;
                }
                self.line_begun = false;
                return Effect::None;
            }
            b'/' if self.recent.ends_with("*/") => self.comment = Comment::None,
            b'*' if self.recent.ends_with("/*") => {
                self.comment = Comment::Block;
                return Effect::Sentence;
            }
            b'/' if self.comment == Comment::None
                && (self.recent.ends_with(" //")
                    || !self.line_begun && self.recent.ends_with("//")) =>
            {
                self.comment = Comment::Line;
                return Effect::Sentence;
            }
            b' ' if self.line_begun
                && self.comment == Comment::None
                && self.recent.ends_with(" # ") =>
            {
                self.comment = Comment::Line;
                return Effect::Sentence;
            }
            b'#' if self.recent.ends_with("]: #") => self.markdown_comment = true,
            b'>' if self.recent.ends_with("]: <>") => self.markdown_comment = true,
            b'[' if self.recent.ends_with("![") => self.alt = true,
            b'(' if self.recent.ends_with("](") => self.alt = true,
            b']' | b')' => self.alt = false,
            _ => {}
        }
        if !matches!(byte, b' ' | b'\t' | b'\r' | b'/') {
            self.line_begun = true;
        }
        Effect::None
    }

    fn in_tag(&mut self, byte: u8) -> Effect {
        let Some(tag) = &mut self.tag else {
            return Effect::None;
        };
        if !tag.named {
            match byte {
                b'/' if tag.name.length == 0 => tag.closing = true,
                b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => tag.name.push(byte),
                _ => tag.named = true,
            }
            if tag.named && tag.name.length == 0 {
                // A sign, such as "less than".
                self.tag = None;
                return Effect::None;
            }
        }
        if tag.quote != 0 {
            if byte == tag.quote {
                tag.quote = 0;
            }
        } else if matches!(byte, b'"' | b'\'') {
            tag.quote = byte;
        }
        if tag.named {
            let ends = matches!(byte, b';' | b'"' | b'\'' | b'!' | b'>' | b'p' | b'e' | b' ');
            if ends && HIDING.iter().any(|style| tag.style.ends_with(style)) {
                tag.hidden = true;
            }
            let boundary = matches!(byte, b' ' | b'>' | b'=' | b'/' | b'\n');
            if boundary && tag.quote == 0 && tag.style.ends_with("|hidden") {
                tag.hidden = true;
            }
            match byte {
                // A mark where an attribute may begin.
                b' ' | b'\n' if tag.quote == 0 => tag.style.push(b'|'),
                b' ' | b'\n' | b'\t' => {}
                _ => tag.style.push(byte),
            }
        }
        if byte != b'>' || tag.quote != 0 {
            return Effect::None;
        }
        let tag = *tag;
        self.tag = None;
        self.close_tag(tag);
        if tag.name.is_one_of(PHRASING) {
            Effect::None
        } else {
            Effect::Sentence
        }
    }

    fn close_tag(&mut self, tag: Tag) {
        if let Some(hidden) = &mut self.hidden {
            if hidden.name == tag.name {
                hidden.depth = if tag.closing {
                    hidden.depth - 1
                } else {
                    hidden.depth.saturating_add(1)
                };
            }
            if hidden.depth == 0 {
                self.hidden = None;
            }
        } else if tag.hidden && !tag.closing && !tag.name.is_one_of(VOID) {
            self.hidden = Some(Hidden {
                name: tag.name,
                depth: 1,
            });
        }
    }

    fn step_json(&mut self, byte: u8) {
        let next = match (&mut self.json, byte) {
            (Json::Key(name), b'"') => Json::AfterKey(*name),
            (Json::Key(name), _) => {
                name.push(byte);
                if name.length <= name.text.len() {
                    return;
                }
                Json::Outside
            }
            (Json::Result, b'"') => Json::Outside,
            (Json::Result, _) => return,
            (Json::AfterKey(name), b':') => Json::AfterColon(*name),
            (Json::AfterColon(name), b'"') if name.is_one_of(RESULT_KEYS) => Json::Result,
            (Json::AfterKey(_) | Json::AfterColon(_), b' ' | b'\n' | b'\t' | b'\r') => return,
            // A list of results, as agents' protocols have them.
            (Json::AfterColon(_), b'[') => return,
            (_, b'"') => Json::Key(Name::default()),
            _ => Json::Outside,
        };
        self.json = next;
    }
}
