//! Markdown with YAML front matter, and errors that say where.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_saphyr::Spanned;

use super::hint;
use crate::escape::Escaped;

/// A manifest is written by hand; anything larger is not one.
const MAX_BYTES: u64 = 1024 * 1024;

/// A mistake in a manifest, at its place.
#[derive(Debug)]
pub struct Mistake {
    pub file: PathBuf,
    /// 1-based; 0 where the whole file is meant.
    pub line: u64,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A repository chooses its files' names.
        write!(f, "{}", Escaped(&self.file.display().to_string()))?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {}", Escaped(hint))?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistake {}

/// A file, divided.
#[derive(Debug)]
pub struct Document {
    pub file: PathBuf,
    /// The front matter, on the lines that it has in the file.
    yaml: String,
    pub body: String,
}

impl Document {
    pub fn read(file: &Path) -> Result<Self, Mistake> {
        let wrong = |error: io::Error| Mistake {
            file: file.to_owned(),
            line: 0,
            message: format!("cannot be read: {error}"),
            hint: None,
        };
        // A named pipe would be waited for.
        if !fs::metadata(file).map_err(wrong)?.is_file() {
            return Err(wrong(io::Error::other("it is not a file")));
        }
        let mut text = String::new();
        fs::File::open(file)
            .and_then(|opened| opened.take(MAX_BYTES + 1).read_to_string(&mut text))
            .map_err(wrong)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(wrong(io::Error::other(format!(
                "it is larger than {MAX_BYTES} bytes"
            ))));
        }
        Self::parse(file, &text)
    }

    pub fn parse(file: &Path, text: &str) -> Result<Self, Mistake> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mistake = |line, message: &str, hint: &str| Mistake {
            file: file.to_owned(),
            line,
            message: message.into(),
            hint: Some(hint.into()),
        };
        let mut lines = text.split_inclusive('\n');
        if lines.next().map(str::trim_end) != Some("---") {
            return Err(mistake(
                1,
                "has no front matter",
                "the first line has to be `---`, then YAML, then `---` again, then the text",
            ));
        }
        // An empty first line stands for the opening `---`, so that the parser counts lines as the file has them.
        let mut yaml = String::from("\n");
        for line in lines.by_ref() {
            if line.trim_end() == "---" {
                let body: String = lines.collect();
                return Ok(Self {
                    file: file.to_owned(),
                    yaml,
                    body: body.trim().to_owned(),
                });
            }
            yaml.push_str(line);
        }
        Err(mistake(
            1,
            "the front matter does not end",
            "close it with a line that is `---`",
        ))
    }

    pub fn deserialize<T: DeserializeOwned + Default>(&self) -> Result<T, Mistake> {
        if self
            .yaml
            .lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
        {
            return Ok(T::default());
        }
        serde_saphyr::from_str(&self.yaml).map_err(|error| self.explain(&error))
    }

    /// Where a route of `egress.routes` begins. The typed form has no places, so the text is read once more.
    pub fn line_of_route(&self, index: usize) -> Option<u64> {
        let top: LooseBottle = serde_saphyr::from_str(&self.yaml).ok()?;
        top.egress?
            .routes
            .get(index)
            .map(|route| route.referenced.line())
    }

    pub fn mistake(&self, line: u64, message: impl Into<String>, hint: Option<String>) -> Mistake {
        Mistake {
            file: self.file.clone(),
            line,
            message: message.into(),
            hint,
        }
    }

    fn explain(&self, error: &serde_saphyr::Error) -> Mistake {
        let error = error.without_snippet();
        let line = error.location().map_or(0, |location| location.line());
        let message = match error {
            serde_saphyr::Error::SerdeUnknownField {
                field, expected, ..
            } => {
                return self.mistake(
                    line,
                    format!("unknown key `{field}`"),
                    Some(hint::instead(field, expected)),
                );
            }
            serde_saphyr::Error::SerdeUnknownVariant {
                variant, expected, ..
            } => {
                return self.mistake(
                    line,
                    format!("unknown value `{variant}`"),
                    Some(hint::instead(variant, expected)),
                );
            }
            other => other.to_string(),
        };
        // The place stands in front already.
        let message = message.split(" at line ").next().unwrap_or(&message);
        self.mistake(line, message, None)
    }
}

#[derive(Deserialize)]
struct LooseBottle {
    egress: Option<LooseEgress>,
}

#[derive(Deserialize)]
struct LooseEgress {
    #[serde(default)]
    routes: Vec<Spanned<IgnoredAny>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Small {
        bottle: Option<String>,
    }

    fn parse(text: &str) -> Result<Small, String> {
        Document::parse(Path::new("a.md"), text)
            .and_then(|document| document.deserialize())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn places_are_those_of_the_file() {
        assert_eq!(
            parse("---\n# comment\nbotle: x\n---\nbody").unwrap_err(),
            "a.md:3: unknown key `botle`\nhint: did you mean `bottle`?"
        );
        assert!(
            parse("---\nbottle: [\n---\n")
                .unwrap_err()
                .starts_with("a.md:")
        );
        assert!(
            parse("bottle: x")
                .unwrap_err()
                .starts_with("a.md:1: has no front matter")
        );
        assert!(
            parse("---\nbottle: x\n")
                .unwrap_err()
                .starts_with("a.md:1: the front matter does not end")
        );
    }

    #[test]
    fn empty_front_matter_is_all_defaults() {
        assert!(parse("---\n---\nbody").is_ok());
        assert!(parse("---\n\n# nothing yet\n---\n").is_ok());
        assert!(parse("---\r\nbottle: x\r\n---\r\nbody\r\n").is_ok());
    }
}
