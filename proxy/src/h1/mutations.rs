//! Mutations of every raw request of the fixtures, through the reading and the writing of requests: nothing panics,
//! and what is written is read by a parser that shares no code with ours as exactly the request that we read.
//!
//! `BOT_BOTTLE_MUTATIONS=1000000` makes more of them than a test of every day.

use fixtures::requests;
use fixtures::strict;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::again;

const AUTHORITY: &str = "origin.test:8443";

/// What is put in, among bytes of any kind.
const PIECES: [&[u8]; 36] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n ",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b":",
    b",",
    b";",
    b"0",
    b"5",
    b"+",
    b"0x",
    b"_",
    b"\"",
    b"chunked",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Content_Length: 5\r\n",
    b"Host: evil.test\r\n",
    b"Connection: close, content-length\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\n",
    b"TE: trailers\r\n",
    b"HTTP/1.0",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: origin.test:8443\r\n\r\n",
    b"HEAD",
];

#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, prop::sample::Index),
    Double(prop::sample::Index, usize),
    Swap(prop::sample::Index),
    Cut(prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        3 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        3 => (any::<prop::sample::Index>(), 1..8usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        6 => (any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        2 => (any::<prop::sample::Index>(), 1..40usize).prop_map(|(at, length)| Mutation::Double(at, length)),
        2 => any::<prop::sample::Index>().prop_map(Mutation::Swap),
        1 => any::<prop::sample::Index>().prop_map(Mutation::Cut),
    ]
}

fn mutated(mut raw: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        if raw.is_empty() {
            break;
        }
        let length = raw.len();
        match mutation {
            Mutation::Set(at, byte) => raw[at.index(length)] = *byte,
            Mutation::Remove(at, count) => {
                let at = at.index(length);
                raw.drain(at..(at + count).min(length));
            }
            Mutation::Insert(at, piece) => {
                let at = at.index(length + 1);
                raw.splice(at..at, PIECES[piece.index(PIECES.len())].iter().copied());
            }
            Mutation::Double(at, count) => {
                let at = at.index(length);
                let copy = raw[at..(at + count).min(length)].to_vec();
                raw.splice(at..at, copy);
            }
            Mutation::Swap(at) => {
                let at = at.index(length);
                raw.swap(at, (at + 1) % length);
            }
            Mutation::Cut(at) => raw.truncate(at.index(length)),
        }
    }
    raw
}

/// Whether it was forwarded.
fn judge(raw: &[u8], runtime: &tokio::runtime::Runtime) -> Result<bool, TestCaseError> {
    let Some(own) = runtime.block_on(again::forwarded(raw, usize::MAX, AUTHORITY)) else {
        return Ok(false);
    };
    let expected = strict::Request {
        method: own.method,
        target: own.target,
        fields: own.fields,
        body: own.body,
        trailers: own.trailers,
    };
    strict::agrees(&own.written, AUTHORITY, &expected).map_err(|why| {
        let (raw, written) = (raw.escape_ascii(), own.written.escape_ascii());
        TestCaseError::fail(format!("{why}: {raw} became {written}"))
    })?;
    Ok(true)
}

#[test]
fn what_is_forwarded_is_read_by_another_parser_as_the_one_request_that_we_read() {
    let count = std::env::var("BOT_BOTTLE_MUTATIONS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(40_000);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // Long ones cost time and hold nothing that short ones do not.
    let raw: Vec<Vec<u8>> = requests::cases()
        .iter()
        .map(|case| case.raw(AUTHORITY, "Proxy-Authorization: Basic eA==\r\n"))
        .filter(|raw| raw.len() < 2000)
        .collect();
    let forwarded = std::cell::Cell::new(0);
    // Those that are right are the more dangerous to change: they are taken as often as all the others together.
    let (right, wrong): (Vec<_>, Vec<_>) = raw
        .into_iter()
        .partition(|raw| judge(raw, &runtime).unwrap());
    let mut runner = TestRunner::new(Config {
        cases: count,
        failure_persistence: None,
        ..Config::default()
    });
    let strategy = (
        any::<bool>(),
        any::<prop::sample::Index>(),
        prop::collection::vec(mutation(), 1..6),
    );
    let outcome = runner.run(&strategy, |(of_the_right, case, mutations)| {
        let raw = if of_the_right { &right } else { &wrong };
        let raw = mutated(raw[case.index(raw.len())].clone(), &mutations);
        if judge(&raw, &runtime)? {
            forwarded.set(forwarded.get() + 1);
        }
        Ok(())
    });
    println!(
        "{count} mutations of {} raw requests, {} of them right: {} forwarded, each read twice as one request",
        right.len() + wrong.len(),
        right.len(),
        forwarded.get()
    );
    if let Err(error) = outcome {
        panic!("{error}");
    }
    assert!(forwarded.get() > count / 20, "{}", forwarded.get());
}
