//! Every raw request of `fixtures/requests`: refused with the verdict that stands there, or received by an origin that
//! reads strictly as exactly the requests that stand there.

use std::fmt::Write as _;

use fixtures::origin::{BodyState, OriginOptions};
use fixtures::pki::Pki;
use fixtures::requests::{self, Case, Verdict};
use fixtures::strict::Request;
use fixtures::strict_origin::StrictOrigin;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::harness::{Answer, H1, NAME, Setup, Sidecar, Wire, World, connect_head, route, routes};

/// What would let a trailer decide about a message.
const NEVER_IN_TRAILERS: [&str; 8] = [
    "content-length",
    "transfer-encoding",
    "host",
    "authorization",
    "proxy-authorization",
    "cookie",
    "connection",
    "x-http-method-override",
];

fn credentials() -> String {
    let head = connect_head("x");
    let line = head.lines().find(|line| line.starts_with("Proxy-"));
    format!("{}\r\n", line.unwrap())
}

/// What the agent reads: as many answers as requests were to pass, and one more where one is to be refused.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut wire: Wire<S>,
    raw: &[u8],
    case: &Case,
) -> (Vec<Answer>, Vec<u8>) {
    wire.send(raw).await;
    let _half_closed = wire.io.shutdown().await;
    let mut answers = Vec::new();
    for _ in 0..=case.requests.len() {
        match wire.answer_to(case.method()).await {
            Some(answer) => answers.push(answer),
            None => break,
        }
    }
    (answers, wire.rest().await)
}

/// What is wrong with the answers, which are not the origin's to judge.
fn answered(case: &Case, answers: &[Answer], rest: &[u8]) -> Option<String> {
    let ours = |answer: &Answer| answer.verdict().is_some();
    if !rest.is_empty() {
        return Some(format!("more was answered: {}", rest.escape_ascii()));
    }
    let (passed, last) = answers.split_at(case.requests.len().min(answers.len()));
    if let Some(answer) = passed
        .iter()
        .find(|answer| ours(answer) || answer.status != 200)
    {
        return Some(format!("not passed: {} {}", answer.status, answer.text()));
    }
    if passed.len() < case.requests.len() {
        return Some(format!("{} answers", answers.len()));
    }
    match (&case.verdict, last) {
        (Verdict::Passed | Verdict::Closed, []) => None,
        (Verdict::Refused(range), [answer]) if ours(answer) && range.contains(&answer.status) => {
            None
        }
        (verdict, last) => Some(format!(
            "not {verdict:?}: {:?}",
            last.iter()
                .map(|answer| (answer.status, answer.text()))
                .collect::<Vec<_>>()
        )),
    }
}

/// What is wrong with what a strict origin received.
fn received(case: &Case, authority: &str, seen: &[Request]) -> Option<String> {
    if seen.len() != case.requests.len() {
        return Some(format!("received {seen:?}"));
    }
    for (request, expected) in seen.iter().zip(&case.requests) {
        if (&request.method, &request.target, &request.body)
            != (&expected.method, &expected.target, &expected.body)
        {
            return Some(format!("received {request:?}, not {expected:?}"));
        }
        if request.values("host") != [authority.as_bytes()] {
            return Some(format!("another Host: {request:?}"));
        }
        if let Some(name) = NEVER_IN_TRAILERS.iter().find(|name| {
            request
                .trailers
                .iter()
                .any(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes()))
        }) {
            return Some(format!("the trailer {name}"));
        }
    }
    let first = seen.first()?;
    for (name, value) in case.headers(authority) {
        if !first
            .fields
            .iter()
            .any(|(own, is)| own.eq_ignore_ascii_case(&name) && *is == value)
        {
            return Some(format!(
                "without {}: {}: {first:?}",
                name.escape_ascii(),
                value.escape_ascii()
            ));
        }
    }
    case.absent
        .iter()
        .find(|name| !first.values(name).is_empty())
        .map(|name| format!("with {name}: {first:?}"))
}

#[derive(Default)]
struct Tally {
    refused: usize,
    passed: usize,
    wrong: String,
}

impl Tally {
    fn add(&mut self, case: &Case, raw: &[u8], wrong: Option<String>) {
        match case.verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Refused(_) | Verdict::Closed => self.refused += 1,
        }
        if let Some(wrong) = wrong {
            let shown = raw.get(..raw.len().min(300)).unwrap_or_default();
            let _ = writeln!(
                self.wrong,
                "{} ({}): {}\n    {wrong}",
                case.family,
                case.why,
                shown.escape_ascii()
            );
        }
    }

    #[track_caller]
    fn finish(&self, what: &str, sidecar: &Sidecar) {
        println!(
            "{what}: {} raw requests: {} refused, {} received as sent",
            self.refused + self.passed,
            self.refused,
            self.passed
        );
        assert!(self.wrong.is_empty(), "{what}:\n{}", self.wrong);
        let log = sidecar.stderr();
        assert!(!log.contains("panicked"), "{log}");
    }
}

async fn against_the_strict_origin(part: usize, parts: usize) -> (usize, usize) {
    let pki = Pki::new();
    let origin = StrictOrigin::start(Some(pki.server_config(&[NAME], H1))).await;
    let sidecar = Sidecar::start(&pki, origin.port(), Setup::new(&routes(&[route()]))).await;
    let authority = format!("{NAME}:{}", origin.port());
    let mut tally = Tally::default();
    let cases = requests::cases();
    for case in cases
        .iter()
        .filter(|case| !case.to_proxy)
        .skip(part)
        .step_by(parts)
    {
        let raw = case.raw(&authority, &credentials());
        let wire = Wire::new(sidecar.tls(&authority, NAME, H1).await.unwrap());
        let (answers, rest) = talk(wire, &raw, case).await;
        let seen = origin.take();
        let wrong = answered(case, &answers, &rest)
            .or_else(|| received(case, &authority, &seen.requests))
            .or_else(|| seen.offences.first().cloned())
            .or_else(|| {
                (seen.unfinished > 0).then(|| format!("{} bytes of another", seen.unfinished))
            });
        tally.add(case, &raw, wrong);
    }
    tally.finish(&format!("inside a tunnel, part {part}"), &sidecar);
    (tally.refused, tally.passed)
}

/// In two parts, so that two cores are used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_requests_are_refused_or_arrive_as_exactly_what_they_are() {
    let halves = [
        tokio::spawn(against_the_strict_origin(0, 2)),
        tokio::spawn(against_the_strict_origin(1, 2)),
    ];
    let (mut refused, mut passed) = (0, 0);
    for half in halves {
        let (more_refused, more_passed) = half.await.unwrap();
        refused += more_refused;
        passed += more_passed;
    }
    fixtures::tell!(
        "{} raw requests in all: {refused} refused, {passed} received",
        refused + passed
    );
    assert!(refused >= 1000 && passed >= 200, "{refused} {passed}");
}

#[tokio::test]
async fn raw_requests_to_the_proxy_itself() {
    let pki = Pki::new();
    let origin = StrictOrigin::start(None).await;
    let mut plain = route();
    plain["scheme"] = json!("http");
    let sidecar = Sidecar::start(&pki, origin.port(), Setup::new(&routes(&[plain]))).await;
    let authority = format!("{NAME}:{}", origin.port());
    let mut tally = Tally::default();
    for case in requests::cases().iter().filter(|case| case.to_proxy) {
        let raw = case.raw(&authority, &credentials());
        let (answers, rest) = talk(sidecar.connect().await, &raw, case).await;
        let seen = origin.take();
        let wrong = answered(case, &answers, &rest)
            .or_else(|| received(case, &authority, &seen.requests))
            .or_else(|| seen.offences.first().cloned())
            .or_else(|| {
                (seen.unfinished > 0).then(|| format!("{} bytes of another", seen.unfinished))
            });
        tally.add(case, &raw, wrong);
    }
    tally.finish("to the proxy", &sidecar);
    assert!(tally.refused >= 150, "{}", tally.refused);
}

/// The same where the origin speaks HTTP/2, so that nothing of the agent's framing is left at all.
#[tokio::test]
async fn raw_requests_to_an_origin_on_http2() {
    let world = World::start(OriginOptions::HTTP2, Setup::new(&routes(&[route()]))).await;
    let authority = world.authority();
    let mut tally = Tally::default();
    let cases = requests::cases();
    // Those of one byte each differ in nothing that is translated.
    let chosen = cases
        .iter()
        .filter(|case| !case.to_proxy && !case.family.ends_with("-bytes"));
    for (at, case) in chosen.enumerate() {
        // A refusal never comes as far as the origin's protocol; a sample of them is enough.
        if case.verdict != Verdict::Passed && at % 4 != 0 {
            continue;
        }
        world.origin.clear();
        let raw = case.raw(&authority, &credentials());
        let (answers, rest) = talk(world.h1().await, &raw, case).await;
        // Valid in HTTP/1.1 and not writable as a URI: refused, and the agent is told.
        let unwritable = case.requests.iter().any(|request| {
            request
                .target
                .iter()
                .any(|byte| b"<>^`\"{}|\\".contains(byte))
        });
        if unwritable && answers.first().is_some_and(|answer| answer.status == 400) {
            tally.add(case, &raw, None);
            assert!(world.origin.requests().is_empty());
            continue;
        }
        let seen: Vec<_> = world
            .origin
            .requests()
            .into_iter()
            .filter(|request| request.body_state == BodyState::Complete)
            .map(|request| {
                (
                    request.method.into_bytes(),
                    request.path.into_bytes(),
                    request.body,
                )
            })
            .collect();
        let expected: Vec<_> = case
            .requests
            .iter()
            .map(|request| {
                (
                    request.method.clone(),
                    request.target.clone(),
                    request.body.clone(),
                )
            })
            .collect();
        let wrong = answered(case, &answers, &rest)
            .or_else(|| (seen != expected).then(|| format!("received {seen:?}, not {expected:?}")));
        tally.add(case, &raw, wrong);
    }
    tally.finish("to HTTP/2", &world.sidecar);
}
