//! Paths as rules see them: decoded once, and only if every reader would decode them alike.

/// The path percent-decoded, or why two readers could see two paths.
///
/// RFC 3986 §6.2.2: escapes of unreserved characters mean the same as the characters. Escapes of `/`, `\`, `.` and
/// NUL, dot segments, empty segments, path parameters before them, and what decodes to another escape do not.
pub(super) fn decoded(raw: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut path = Vec::with_capacity(raw.len());
    let mut rest = raw.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            path.push(byte);
            continue;
        }
        let high = rest.next().and_then(hex);
        let low = rest.next().and_then(hex);
        let (Some(high), Some(low)) = (high, low) else {
            return Err("a broken percent escape");
        };
        match high << 4 | low {
            b'/' | b'\\' => return Err("an escaped slash"),
            b'.' => return Err("an escaped dot"),
            b'%' => return Err("an escape of an escape"),
            b';' | b'?' | b'#' => return Err("an escaped delimiter"),
            decoded if decoded < 0x20 || decoded == 0x7f => {
                return Err("an escaped control character");
            }
            decoded => path.push(decoded),
        }
    }
    if path.contains(&b'\\') {
        return Err("a backslash");
    }
    let segments: Vec<&[u8]> = path.split(|byte| *byte == b'/').skip(1).collect();
    let last = segments.len().saturating_sub(1);
    for (at, segment) in segments.iter().enumerate() {
        if segment.is_empty() && at != last {
            return Err("an empty segment");
        }
        let name = segment
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default();
        if name == b"." || name == b".." {
            return Err("a dot segment");
        }
    }
    Ok(path)
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths() {
        for (raw, path) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("/%61%2D", "/a-"),
            ("/a%20b", "/a b"),
        ] {
            assert_eq!(decoded(raw.as_bytes()).unwrap(), path.as_bytes(), "{raw}");
        }
    }

    #[test]
    fn ambiguous_paths() {
        for raw in [
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/%2e%2e/b",
            "/.%2e/b",
            "/%252e",
            "//a",
            "/a//b",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/a\\b",
            "/a%00",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a/..;x/b",
            "/a%3b/b",
            "/a%0d",
        ] {
            assert!(decoded(raw.as_bytes()).is_err(), "{raw}");
        }
    }
}
