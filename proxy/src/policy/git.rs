//! Git's smart HTTP protocol, recognised wherever it appears (gitprotocol-http: `info/refs?service=…`, and POSTs to
//! `…/git-upload-pack` and `…/git-receive-pack`).

/// What a request asks of a git server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Fetch,
    Push,
}

/// The git service that a target names, however it is escaped; push where both are named.
pub(super) fn service(target: &[u8]) -> Option<Service> {
    if !may_name_one(target) {
        return None;
    }
    let text = unescaped(target);
    let (path, query) = match text.iter().position(|byte| *byte == b'?') {
        Some(at) => text.split_at(at),
        None => (text.as_slice(), &b""[..]),
    };
    // Dot segments after it may be taken away before it is read, so it counts wherever it stands.
    let stands = |name: &[u8]| {
        let segments = path.split(|byte| matches!(byte, b'/' | b'\\' | b';' | 0));
        segments
            .map(<[u8]>::trim_ascii)
            .any(|segment| segment == name)
    };
    let ends = |name: &[u8]| {
        let path = path.split(|byte| *byte == b';').next().unwrap_or_default();
        path.trim_ascii_end()
            .strip_suffix(b"/")
            .unwrap_or(path)
            .ends_with(name)
    };
    let asks = |name: &[u8]| query.windows(name.len()).any(|window| window == name);
    if stands(b"git-receive-pack") || asks(b"git-receive-pack") {
        return Some(Service::Push);
    }
    let refs = ends(b"/info/refs");
    if ends(b"/git-upload-pack")
        || (refs && asks(b"git-upload-pack"))
        || ends(b"/objects/info/packs")
    {
        return Some(Service::Fetch);
    }
    None
}

/// Each service's name has a hyphen, or `info`, and what is escaped may have either.
fn may_name_one(target: &[u8]) -> bool {
    target.iter().any(|byte| matches!(byte, b'-' | b'%'))
        || target
            .windows(4)
            .any(|four| four.eq_ignore_ascii_case(b"info"))
}

/// Lower case, percent escapes undone until none is left to undo (a server may decode more than once).
fn unescaped(target: &[u8]) -> Vec<u8> {
    let mut text = target.to_ascii_lowercase();
    for _ in 0..3 {
        let mut next = Vec::with_capacity(text.len());
        let mut at = 0;
        while let Some(byte) = text.get(at) {
            let escape = (*byte == b'%')
                .then(|| text.get(at + 1..at + 3))
                .flatten()
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| u8::from_str_radix(digits, 16).ok());
            match escape {
                Some(decoded) => {
                    next.push(decoded.to_ascii_lowercase());
                    at += 3;
                }
                None => {
                    next.push(*byte);
                    at += 1;
                }
            }
        }
        if next == text {
            break;
        }
        text = next;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services() {
        for (target, expected) in [
            (
                "/o/r.git/info/refs?service=git-upload-pack",
                Some(Service::Fetch),
            ),
            ("/o/r.git/git-upload-pack", Some(Service::Fetch)),
            (
                "/o/r.git/info/refs?service=git-receive-pack",
                Some(Service::Push),
            ),
            ("/o/r.git/git-receive-pack", Some(Service::Push)),
            ("/o/r.git/git%2Dreceive%2dpack", Some(Service::Push)),
            (
                "/o/r.git/info/refs?service=git%252dreceive-pack",
                Some(Service::Push),
            ),
            ("/o/r.git/GIT-RECEIVE-PACK", Some(Service::Push)),
            ("/o/r.git/git-receive-pack/", Some(Service::Push)),
            (
                "/info/refs?a=b&service=git-upload-pack",
                Some(Service::Fetch),
            ),
            ("/o/r.git/git-receive-pack/x/..", Some(Service::Push)),
            ("/o/r.git/git-receive-pack/.", Some(Service::Push)),
            ("/o/r.git/x\\git-receive-pack", Some(Service::Push)),
            ("/o/r.git/git-receive-pack%00.html", Some(Service::Push)),
            ("/o/r.git/git-receive-pack;a=b", Some(Service::Push)),
            ("/o/r.git/git-receive-pack%20", Some(Service::Push)),
            ("/", None),
            ("/blob/main/git-upload-pack.md", None),
        ] {
            assert_eq!(service(target.as_bytes()), expected, "{target}");
        }
    }
}
