//! A body with a credential, cut in two at every place, in every framing and coding: it is blocked, and the origin has nothing.

use std::io::Write as _;

use fixtures::origin::OriginOptions;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::{Answer, KEY, Setup, World, route, routes};

/// How the two parts are framed.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length,
    Chunked,
    Http2,
}

/// Sends `body` in two parts; a response to the first one would be seen.
async fn sent(world: &World, framing: Framing, coding: &str, body: [&[u8]; 2]) -> Answer {
    let [first, second] = body;
    let coded = match coding {
        "" => String::new(),
        coding => format!("Content-Encoding: {coding}\r\n"),
    };
    if let Framing::Http2 = framing {
        let mut h2 = world.h2().await;
        let mut request = h2.request("POST", "/cut");
        if !coding.is_empty() {
            request = request.header("content-encoding", coding);
        }
        return h2
            .send(request.body(()).unwrap(), &body, None)
            .await
            .unwrap();
    }
    let length = first.len() + second.len();
    let framed = match framing {
        Framing::Chunked => "Transfer-Encoding: chunked".to_owned(),
        _ => format!("Content-Length: {length}"),
    };
    let head = format!("POST /cut HTTP/1.1\r\nHost: HOST\r\n{coded}{framed}\r\n\r\n");
    let part = |bytes: &[u8]| match framing {
        Framing::Chunked if bytes.is_empty() => Vec::new(),
        Framing::Chunked => [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat(),
        _ => bytes.to_vec(),
    };
    let mut wire = world.h1().await;
    wire.send(&[world.fill(head.as_bytes()), part(first)].concat())
        .await;
    let end: &[u8] = match framing {
        Framing::Chunked => b"0\r\n\r\n",
        _ => b"",
    };
    wire.send(&[&part(second), end].concat()).await;
    wire.answer().await.unwrap()
}

#[tokio::test]
async fn nothing_arrives_of_a_body_cut_at_every_offset() {
    let world = World::start(OriginOptions::HTTP1, Setup::new(&routes(&[route()]))).await;
    let text = format!("{{\"note\":\"see\",\"key\":\"{KEY}\"}}");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(text.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut count = 0;
    for framing in [Framing::Length, Framing::Chunked, Framing::Http2] {
        for (coding, body) in [("", text.as_bytes()), ("gzip", &gzip[..])] {
            for cut in 0..=body.len() {
                let (first, second) = body.split_at(cut);
                let answer = sent(&world, framing, coding, [first, second]).await;
                let what = format!("{framing:?}, {coding:?}, cut at {cut}");
                assert_eq!(answer.status, 403, "{what}");
                assert_eq!(answer.json()["rule"], "aws-access-key", "{what}");
                count += 1;
            }
        }
    }
    world.assert_untouched("cuts");
    fixtures::tell!(
        "{count} bodies with a credential, cut at every offset: all blocked, 0 bytes at the origin"
    );
}
