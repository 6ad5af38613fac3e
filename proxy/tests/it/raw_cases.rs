//! Raw requests, most of them mutations that two parsers were seen to read differently, and what must become of each.
//!
//! `HOST` stands for the origin's authority. A tail that asks for `/smuggled` is what a wrong reading of the framing
//! would let through as a request of its own.

/// What the origin must have received, as its one request.
#[derive(Clone, Debug)]
pub struct Expected {
    pub method: &'static str,
    pub path: &'static str,
    pub body: &'static [u8],
    /// All values of these names, joined as they came.
    pub headers: &'static [(&'static str, &'static str)],
}

#[derive(Clone, Debug)]
pub struct Case {
    pub raw: Vec<u8>,
    /// `None`: refused, and nothing complete reaches the origin.
    pub expected: Option<Expected>,
}

impl Case {
    pub fn method(&self) -> &str {
        if self.raw.starts_with(b"HEAD ") {
            "HEAD"
        } else {
            "GET"
        }
    }
}

/// Fields that make a head unreadable or its framing ambiguous, whatever else stands in it.
const BAD_FIELDS: [&[u8]; 62] = [
    // Framing.
    b"Content-Length: 5\r\nContent-Length: 5",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 5\r\ncontent-length: 0",
    b"Content-Length: 5, 5",
    b"Content-Length: 5,6",
    b"Content-Length: +5",
    b"Content-Length: -5",
    b"Content-Length: 0x5",
    b"Content-Length: 5a",
    b"Content-Length: 5 5",
    b"Content-Length: 5;",
    b"Content-Length: 5.0",
    b"Content-Length: 1e1",
    b"Content-Length: \"5\"",
    b"Content-Length: ",
    b"Content-Length:",
    b"Content-Length: 18446744073709551621",
    b"Content-Length: 9999999999999999999999",
    b"Content-Length: \x0b5",
    b"Content-Length: \xd9\xa5",
    b"Content-Length : 5",
    b"Content-Length\t: 5",
    b" Content-Length: 5",
    b"\tContent-Length: 5",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked, gzip",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: gzip",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked;a=b",
    b"Transfer-Encoding: \"chunked\"",
    b"Transfer-Encoding: 'chunked'",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked chunked",
    b"Transfer-Encoding: chunked\x0b",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: chunked\0",
    b"Transfer-Encoding: chun\x7fked",
    b"Transfer-Encoding: \xc3\xa7hunked",
    b"Transfer-Encoding: cow",
    b"Transfer-Encoding:",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\r\n: chunked",
    b"Transfer-Encoding:\r\n chunked",
    b"X: y\r\n Transfer-Encoding: chunked",
    // Syntax.
    b"X: a\r\n b",
    b"X: a\nY: b",
    b"X: a\rY: b",
    b"X: a\0b",
    b"X y: a",
    b": a",
    b"no colon",
    b"X(y): a",
    b"X\x80: a",
];

const BAD_STARTS: [&[u8]; 37] = [
    b"\r\nGET / HTTP/1.1",
    b"\nGET / HTTP/1.1",
    b" GET / HTTP/1.1",
    b"GET  / HTTP/1.1",
    b"GET /  HTTP/1.1",
    b"GET / HTTP/1.1 ",
    b"GET\t/ HTTP/1.1",
    b"GET /\tHTTP/1.1",
    b"GET / HTTP/1.2",
    b"GET / HTTP/2.0",
    b"GET / HTTP/0.9",
    b"GET / HTTP/11",
    b"GET / http/1.1",
    b"GET / HTTP/1.1\0",
    b"GET / XTTP/1.1",
    b"GET /",
    b"GET / ",
    b"GET HTTP/1.1",
    b"GET a HTTP/1.1",
    b"GET ?a HTTP/1.1",
    b"GET * HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"GET /a b HTTP/1.1",
    b"GET /#f HTTP/1.1",
    b"GET /a\0b HTTP/1.1",
    b"GET /a\x01b HTTP/1.1",
    b"GET /a\x7fb HTTP/1.1",
    b"GET /\xc3\xa9 HTTP/1.1",
    b"GET /a\rb HTTP/1.1",
    b"GET /a\nb HTTP/1.1",
    b"G(T / HTTP/1.1",
    b"G\xc3\x89T / HTTP/1.1",
    b"GET http://HOST/ HTTP/1.1",
    b"GET https://HOST/ HTTP/1.1",
    b"GET HOST HTTP/1.1",
    b"CONNECT HOST HTTP/1.1",
    b"CONNECT / HTTP/1.1",
];

const BAD_HOSTS: [&[u8]; 14] = [
    b"X: no host",
    b"Host: HOST\r\nHost: HOST",
    b"Host: HOST\r\nhost: HOST",
    b"Host:",
    b"Host: ",
    b"Host : HOST",
    b"Host: HOST, HOST",
    b"Host: HOST/",
    b"Host: HOST#",
    b"Host: u@HOST",
    b"Host: other.test",
    b"Host: HOST\0",
    b"Host: HOST HOST",
    b"Host:\x0bHOST",
];

/// After a `Transfer-Encoding: chunked` that is right.
const BAD_CHUNKS: [&[u8]; 33] = [
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b" 5\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"5\t\r\nhello\r\n0\r\n\r\n",
    b"5 ;a\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello\r\n0\n\r\n",
    b"5\r\nhello\r\n0\r\n\n",
    b"5\rhello\r\n0\r\n\r\n",
    b"5\r\r\nhello\r\n0\r\n\r\n",
    b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    b"5;a=\"\x01\"\r\nhello\r\n0\r\n\r\n",
    b"5;a=\0\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhelloX\r\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"4\r\nhello\r\n0\r\n\r\n",
    b"6\r\nhello\r\n0\r\n\r\n",
    b"g\r\nhello\r\n0\r\n\r\n",
    b"\r\nhello\r\n0\r\n\r\n",
    b";a\r\nhello\r\n0\r\n\r\n",
    b"ffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
    b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    b"0000000000000005\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"5\r\nhello\r\n0\r\n",
    b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX y: a\r\n\r\n",
    b"5\r\nhello\r\n0\r\nno colon\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX: a\0\r\n\r\n",
];

/// Every case.
pub fn cases() -> Vec<Case> {
    const TAIL: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: HOST\r\n\r\n";
    let mut cases = Vec::new();
    let mut refused = |raw: Vec<u8>| {
        cases.push(Case {
            raw,
            expected: None,
        })
    };
    for field in BAD_FIELDS {
        refused(
            [
                b"POST / HTTP/1.1\r\nHost: HOST\r\n",
                field,
                b"\r\n\r\n0\r\n\r\n",
                TAIL,
            ]
            .concat(),
        );
        refused(
            [
                b"GET / HTTP/1.1\r\n",
                field,
                b"\r\nHost: HOST\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                TAIL,
            ]
            .concat(),
        );
    }
    for start in BAD_STARTS {
        refused([start, b"\r\nHost: HOST\r\n\r\n", TAIL].concat());
    }
    for host in BAD_HOSTS {
        refused([b"GET / HTTP/1.1\r\n", host, b"\r\n\r\n", TAIL].concat());
    }
    for chunks in BAD_CHUNKS {
        refused(
            [
                b"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n",
                chunks,
            ]
            .concat(),
        );
    }
    refused(
        [
            b"GET / HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            TAIL,
        ]
        .concat(),
    );
    refused([b"GET / HTTP/1.1\nHost: HOST\n\n", TAIL].concat());
    // Understood and refused: what is pipelined behind them is a request of its own.
    refused(b"TRACE / HTTP/1.1\r\nHost: HOST\r\n\r\n".to_vec());
    refused(b"trAck / HTTP/1.1\r\nHost: HOST\r\n\r\n".to_vec());
    refused(
        [
            b"TRACE / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 9\r\n\r\n",
            TAIL,
        ]
        .concat(),
    );
    refused(b"GET / HTTP/1.1\r\nHost: HOST\r\n".to_vec());
    refused(
        [
            b"GET / HTTP/1.1\r\nHost: HOST\r\n".as_slice(),
            &b"a: b\r\n".repeat(120),
            b"\r\n",
            TAIL,
        ]
        .concat(),
    );
    refused(
        [
            b"GET / HTTP/1.1\r\nHost: HOST\r\nX: ".as_slice(),
            &b"a".repeat(70_000),
            b"\r\n\r\n",
            TAIL,
        ]
        .concat(),
    );
    refused(
        [
            b"GET /".as_slice(),
            &b"a".repeat(70_000),
            b" HTTP/1.1\r\nHost: HOST\r\n\r\n",
            TAIL,
        ]
        .concat(),
    );
    refused(b"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 10\r\n\r\nshort".to_vec());
    refused([b"POST / HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue, x\r\nContent-Length: 1\r\n\r\na", TAIL].concat());

    let mut sent = |raw: &[u8], method, path, body, headers| {
        cases.push(Case {
            raw: raw.to_vec(),
            expected: Some(Expected {
                method,
                path,
                body,
                headers,
            }),
        });
    };
    sent(
        b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET",
        "/",
        b"",
        &[],
    );
    sent(
        b"GET /a%20b/..%2f?x=%00&y HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET",
        "/a%20b/..%2f?x=%00&y",
        b"",
        &[],
    );
    sent(
        b"GET //two/./../x;p HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "GET",
        "//two/./../x;p",
        b"",
        &[],
    );
    sent(
        b"GET / HTTP/1.1\r\nhOST:HOST\r\nX-A:1\r\nx-a:\t 2 \t\r\n\r\n",
        "GET",
        "/",
        b"",
        &[("x-a", "1"), ("x-a", "2")],
    );
    sent(
        b"HEAD /h HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "HEAD",
        "/h",
        b"",
        &[],
    );
    sent(
        b"DELETE / HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "DELETE",
        "/",
        b"",
        &[],
    );
    sent(
        b"PURGE / HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "PURGE",
        "/",
        b"",
        &[],
    );
    sent(
        b"get / HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "get",
        "/",
        b"",
        &[],
    );
    sent(
        b"OPTIONS /o HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "OPTIONS",
        "/o",
        b"",
        &[],
    );
    sent(
        b"GET / HTTP/1.0\r\nHost: HOST\r\n\r\n",
        "GET",
        "/",
        b"",
        &[],
    );
    sent(b"GET / HTTP/1.0\r\n\r\n", "GET", "/", b"", &[]);
    sent(
        b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
        "POST",
        "/",
        b"abc",
        &[],
    );
    sent(
        b"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n",
        "POST",
        "/",
        b"",
        &[],
    );
    sent(
        b"POST / HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "POST",
        "/",
        b"",
        &[],
    );
    sent(
        b"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 005\r\n\r\nhello",
        "POST",
        "/",
        b"hello",
        &[("content-length", "5")],
    );
    sent(
        b"GET /b HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello",
        "GET",
        "/b",
        b"hello",
        &[],
    );
    sent(
        b"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST",
        "/",
        b"",
        &[],
    );
    sent(b"POST / HTTP/1.1\r\nHost: HOST\r\ntransfer-encoding:\tCHUNKED \r\n\r\n5\r\nhello\r\n0\r\n\r\n", "POST", "/", b"hello", &[]);
    sent(b"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n005;a=b\r\nhello\r\n1;c=\"d\"\r\n!\r\n000;e\r\n\r\n", "POST", "/", b"hello!", &[]);
    sent(b"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "POST", "/", b"01234567890123456789", &[]);
    // A body that looks like a request is a body.
    sent(b"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 38\r\n\r\nGET /inner HTTP/1.1\r\nHost: a.test\r\nX: \r\n", "POST", "/", b"GET /inner HTTP/1.1\r\nHost: a.test\r\nX: \r\n".split_at(38).0, &[]);
    sent(b"GET / HTTP/1.1\r\nHost: HOST\r\nConnection: x-gone, close\r\nX-Gone: 1\r\nX-Kept: 2\r\n\r\n", "GET", "/", b"", &[("x-kept", "2")]);
    sent(
        b"GET / HTTP/1.1\r\nHost: HOST\r\nX-Obs: caf\xe9\r\n\r\n",
        "GET",
        "/",
        b"",
        &[],
    );
    sent(
        b"GET / HTTP/1.1\r\nHost: HOST\r\nX-Empty:\r\n\r\n",
        "GET",
        "/",
        b"",
        &[("x-empty", "")],
    );
    cases
}
