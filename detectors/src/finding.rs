//! What a detector says: a [`Finding`].

use std::fmt;
use std::ops::Range;

use zeroize::Zeroizing;

/// What a finding asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Recorded, shown, forwarded.
    Warn,
    /// Must not leave.
    Block,
}

/// The stable identifier of a rule, such as `aws-access-key`; what policies, logs and suppressions name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub &'static str);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Where in a request a finding stood.
///
/// Names that the agent chose (a header's, a query key's) are carried raw; [`fmt::Display`] escapes them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    Host,
    Method,
    Path,
    Query,
    HeaderName,
    /// The value of the header with this name.
    Header(Box<str>),
    /// The value of the trailer with this name.
    Trailer(Box<str>),
    Body,
    /// A message of a protocol inside HTTP, by the words that name it: `websocket text message`.
    Message(&'static str),
    /// A field of a body that is a document; see [`Document`](crate::Document).
    BodyField(Box<Field>),
}

/// A field of a document by its name, from which every credential has been taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// A JSON Pointer (RFC 6901), and of several documents in one body which one, from 1 on.
    Json {
        pointer: Box<str>,
        document: Option<u64>,
    },
    /// A field of a form.
    Form { name: Box<str> },
    /// A part of a multipart body, and the name of the file in it.
    Part {
        name: Box<str>,
        file: Option<Box<str>>,
    },
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json {
                pointer,
                document: None,
            } => write!(f, "at {}", pointer.escape_debug()),
            Self::Json {
                pointer,
                document: Some(document),
            } => write!(f, "document {document} at {}", pointer.escape_debug()),
            Self::Form { name } => write!(f, "field {}", name.escape_debug()),
            Self::Part { name, file: None } => write!(f, "part {}", name.escape_debug()),
            Self::Part {
                name,
                file: Some(file),
            } => write!(
                f,
                "part {}, file {}",
                name.escape_debug(),
                file.escape_debug()
            ),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Method => f.write_str("method"),
            Self::Path => f.write_str("path"),
            Self::Query => f.write_str("query"),
            Self::HeaderName => f.write_str("header name"),
            Self::Header(name) => write!(f, "header {}", name.escape_debug()),
            Self::Trailer(name) => write!(f, "trailer {}", name.escape_debug()),
            Self::Body => f.write_str("body"),
            Self::Message(what) => f.write_str(what),
            Self::BodyField(field) => write!(f, "body {field}"),
        }
    }
}

/// One step of decoding between the raw bytes and the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    Base64,
    Base32,
    Base58,
    Base85,
    Hex,
    Percent,
    JsonEscape,
    HtmlEntity,
    QuotedPrintable,
    Utf16,
    Utf32,
    Unicode,
    Reversed,
    Rot13,
    /// Line breaks, and the indentation after them, taken out of a run of characters.
    LineWrap,
    Octal,
    /// Byte values in decimal, one after the other.
    Decimal,
    Binary,
    Uuencode,
    /// Compressed: gzip, zlib, deflate, brotli or zstd.
    Compressed,
    /// Something put between each two characters.
    Spelled,
    /// Pieces of string literals, list elements or parameters, put together.
    Joined,
    /// Letters in the other case.
    CaseSwapped,
    Rot47,
    Atbash,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base64 => "base64",
            Self::Base32 => "base32",
            Self::Base58 => "base58",
            Self::Base85 => "base85",
            Self::Hex => "hex",
            Self::Percent => "percent-encoding",
            Self::JsonEscape => "json escape",
            Self::HtmlEntity => "html entity",
            Self::QuotedPrintable => "quoted-printable",
            Self::Utf16 => "utf-16",
            Self::Utf32 => "utf-32",
            Self::Unicode => "unicode normalisation",
            Self::Reversed => "reversed",
            Self::Rot13 => "rot13",
            Self::LineWrap => "line wrapping",
            Self::Octal => "octal",
            Self::Decimal => "decimal",
            Self::Binary => "binary",
            Self::Uuencode => "uuencode",
            Self::Compressed => "compression",
            Self::Spelled => "separated characters",
            Self::Joined => "joined pieces",
            Self::CaseSwapped => "changed case",
            Self::Rot47 => "rot47",
            Self::Atbash => "atbash",
        })
    }
}

/// What makes us sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Confidence {
    /// It has a credential's shape, and may be a sample of one.
    Shape,
    /// Its checksum or inner structure is right as well, or it is a value that was given to us.
    Structure,
}

/// The raw bytes that matched. They never leave the process: no `Debug`, no `Display`, wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Matched(Zeroizing<Vec<u8>>);

impl Matched {
    pub fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// For keyed hashing and for tests; never for display.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Matched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

/// A credential, or a structural attack, seen in what is about to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub rule: RuleId,
    /// What people call it: `GitHub token (classic)`; for a known secret, the name of its variable.
    pub credential: Box<str>,
    pub location: Location,
    /// Bytes of the raw input of `location`, counted from its start over all chunks.
    pub span: Range<u64>,
    /// Up to 40 characters either side with every finding in it as `********`, and CR and LF as spaces.
    pub context: Box<str>,
    pub matched: Matched,
    /// Raises a finding in an operator's eyes; it never decides.
    pub confidence: Confidence,
    /// Outermost decoding first; empty when the credential stood there in plain.
    pub via: Vec<Via>,
    /// A structural finding carries no value, so no policy and no approval can let it pass.
    pub structural: bool,
}

impl Finding {
    /// `<credential name> found in <location>`.
    pub fn reason(&self) -> String {
        format!("{} found in {}", self.credential, self.location)
    }
}
