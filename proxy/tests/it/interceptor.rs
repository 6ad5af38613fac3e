//! smolvm's egress interceptor: who does not know the bottle's token hears nothing, who does has one way in, and that is
//! the proxy.

use std::net::SocketAddr;
use std::time::Duration;

use fixtures::origin::OriginOptions;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{PATIENCE, Setup, Wire, World, connect_head, route, routes, until};

const TOKEN: &str = "c0ffee00112233445566778899aabbccddeeff00112233445566778899abcdef"; // gitleaks:allow
const DESTINATION: &str = "192.0.2.1:9099";
/// What the sidecar waits for a hello, and then some for a busy machine.
const LATE: Duration = Duration::from_secs(5);

async fn world() -> (World, SocketAddr) {
    start(setup()).await
}

fn setup() -> Setup {
    Setup::new(&routes(&[route()]))
        .with(
            "interceptor",
            json!({"listen": "127.0.0.1:0", "destination": DESTINATION, "token_ref": "INTERCEPTOR"}),
        )
        .env("INTERCEPTOR", TOKEN)
}

async fn start(setup: Setup) -> (World, SocketAddr) {
    let world = World::start(OriginOptions::DEFAULT, setup).await;
    let address = world.sidecar.ready["interceptor"].as_str().unwrap();
    let address = address.parse().unwrap();
    (world, address)
}

fn token() -> Vec<u8> {
    (0..32)
        .map(|at| u8::from_str_radix(&TOKEN[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

fn hello(token: &[u8], port: u16, ip: [u8; 4]) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    [b"SMOLICPT\x01", token, &[4, high, low], &ip].concat()
}

fn good() -> Vec<u8> {
    hello(&token(), 9099, [192, 0, 2, 1])
}

/// All that comes back, until the other side ends it, however it does.
async fn said(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let read = async {
        let mut piece = [0; 1024];
        while let Ok(length @ 1..) = stream.read(&mut piece).await {
            said.extend_from_slice(&piece[..length]);
        }
    };
    timeout(PATIENCE, read).await.expect("it is ended");
    said
}

async fn ask(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = fixtures::client::connect(address).await;
    stream.write_all(bytes).await.unwrap();
    said(&mut stream).await
}

async fn through(address: SocketAddr) -> TcpStream {
    let mut stream = fixtures::client::connect(address).await;
    stream.write_all(&good()).await.unwrap();
    let mut answer = [9];
    timeout(PATIENCE, stream.read_exact(&mut answer))
        .await
        .expect("an answer")
        .unwrap();
    assert_eq!(answer, [0]);
    stream
}

#[tokio::test]
async fn behind_the_hello_is_the_proxy_and_nothing_less_than_it() {
    let (world, address) = world().await;
    let mut wire = Wire::new(through(address).await);
    wire.send(connect_head(&world.authority()).as_bytes()).await;
    assert_eq!(wire.connect_answer().await.status, 200);

    // The token of the machine is no password of the proxy's.
    let mut wire = Wire::new(through(address).await);
    let head = format!(
        "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n",
        world.authority()
    );
    wire.send(head.as_bytes()).await;
    assert_eq!(wire.connect_answer().await.status, 407);

    // What comes in one piece with the hello is not lost, and not believed.
    let mut stream = fixtures::client::connect(address).await;
    let both = [good(), b"\0\0not HTTP at all\r\n\r\n".to_vec()].concat();
    stream.write_all(&both).await.unwrap();
    let said = said(&mut stream).await;
    assert!(
        said.starts_with(b"\0HTTP/1.1 400"),
        "{}",
        said.escape_ascii()
    );
    world.assert_untouched("nothing was asked for");
}

#[tokio::test]
async fn every_other_destination_is_refused_by_one_byte() {
    let (world, address) = world().await;
    let port = world.origin.port();
    for (port, ip) in [
        (port, [127, 0, 0, 1]),
        (9099, [127, 0, 0, 16]),
        (9099, [192, 0, 2, 2]),
        (9098, [192, 0, 2, 1]),
        (443, [192, 0, 2, 1]),
        (80, [169, 254, 169, 254]),
        (0, [0, 0, 0, 0]),
    ] {
        let bytes = [
            hello(&token(), port, ip),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        ]
        .concat();
        assert_eq!(ask(address, &bytes).await, [1], "{ip:?}:{port}");
    }
    let six = [
        b"SMOLICPT\x01",
        token().as_slice(),
        &[6, 0x23, 0x8b],
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1],
    ]
    .concat();
    assert_eq!(ask(address, &six).await, [1]);
    world.assert_untouched("a destination that is not ours");
    let log = world.sidecar.stderr();
    assert!(log.contains("\"why\":\"destination\""), "{log}");
    assert!(!log.contains(&TOKEN[..8]), "{log}");
}

#[tokio::test]
async fn without_the_token_nothing_is_heard() {
    let (world, address) = world().await;
    let mut one_bit = token();
    one_bit[31] ^= 1;
    let request = connect_head(&world.authority());
    for bytes in [
        hello(&[0; 32], 9099, [192, 0, 2, 1]),
        hello(&one_bit, 9099, [192, 0, 2, 1]),
        // Not even that the destination is wrong.
        hello(&one_bit, 1, [1, 2, 3, 4]),
        [b"SMOLMEG2", token().as_slice(), &[0; 48]].concat(),
        [
            b"SMOLICPT\x02",
            token().as_slice(),
            &[4, 0x23, 0x8b, 192, 0, 2, 1],
        ]
        .concat(),
        [b"SMOLICPT\x01", token().as_slice(), &[5; 32]].concat(),
        // A program that takes it for the proxy.
        request.clone().into_bytes(),
        vec![0x16; 300],
        vec![0; 100_000],
    ] {
        let mut stream = fixtures::client::connect(address).await;
        // It may be closed while we write.
        let _closed = stream.write_all(&bytes).await;
        assert_eq!(
            said(&mut stream).await,
            b"",
            "{}",
            bytes[..40].escape_ascii()
        );
    }
    // One that ends in the midst of it.
    for length in [0, 1, 47] {
        let mut stream = fixtures::client::connect(address).await;
        stream.write_all(&good()[..length]).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(said(&mut stream).await, b"");
    }
    world.assert_untouched("no hello");
    drop(through(address).await);
}

#[tokio::test]
async fn a_hello_has_a_deadline_however_it_is_fed() {
    let (_world, address) = world().await;
    let mut silent = fixtures::client::connect(address).await;
    let mut fed = fixtures::client::connect(address).await;
    let since = Instant::now();
    let feed = async {
        // Slower than the deadline allows in all, faster than any deadline between two bytes.
        for byte in good() {
            if fed.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(250)).await;
        }
        said(&mut fed).await
    };
    let (fed, silent) = tokio::join!(feed, said(&mut silent));
    assert_eq!((fed.as_slice(), silent.as_slice()), (&b""[..], &b""[..]));
    let took = since.elapsed();
    assert!(took >= LATE - Duration::from_millis(100), "{took:?}");
    // In two pieces, in time: it is not one read that counts.
    let mut stream = fixtures::client::connect(address).await;
    stream.write_all(&good()[..41]).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    stream.write_all(&good()[41..]).await.unwrap();
    let mut answer = [9];
    timeout(PATIENCE, stream.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer, [0]);
}

/// From another program of the host's: more half hellos than there is room for. Those who are in stay in, the proxy's own
/// listener does not notice, and the machine comes in as soon as the deadlines have passed.
#[tokio::test]
async fn half_hellos_do_not_keep_the_machine_out_for_good() {
    let (world, address) = world().await;
    let mut early = Wire::new(through(address).await);
    let mut flood = Vec::new();
    for _ in 0..150 {
        let mut stream = fixtures::client::connect(address).await;
        stream.write_all(&good()[..30]).await.unwrap();
        flood.push(stream);
    }
    let (answer, _) = world.sidecar.tunnel(&world.authority()).await;
    assert_eq!(answer.status, 200);
    early
        .send(connect_head(&world.authority()).as_bytes())
        .await;
    assert_eq!(early.connect_answer().await.status, 200);

    let mut stream = fixtures::client::connect(address).await;
    stream.write_all(&good()).await.unwrap();
    let mut answer = [9];
    // 150 of them are three rounds of 64.
    timeout(LATE * 10, stream.read_exact(&mut answer))
        .await
        .expect("it gets its turn")
        .unwrap();
    assert_eq!(answer, [0]);
    until("the flood is closed", || {
        world.sidecar.stderr().contains("\"why\":\"late\"")
    })
    .await;
    drop(flood);
}

/// Where few files may be open, strangers have the fewest of them.
#[tokio::test]
async fn half_hellos_do_not_take_the_descriptors_of_the_agent() {
    let (world, address) = start(setup().descriptors(128)).await;
    let mut flood = Vec::new();
    for _ in 0..100 {
        let mut stream = fixtures::client::connect(address).await;
        stream.write_all(&good()[..30]).await.unwrap();
        flood.push(stream);
    }
    for _ in 0..3 {
        let mut wire = world.h1().await;
        wire.send(&world.fill(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n"))
            .await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
    }
    drop(flood);
}
