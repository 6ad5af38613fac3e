//! Programs that agents really run, each with the proxy's URL and the bottle's CA and nothing else.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fixtures::origin::{BodyState, OriginOptions, SSE_EVENTS, pattern};
use fixtures::require::{program, python, require};
use http::HeaderMap;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::harness::{self, KEY, Setup, World, route, routes};

const BYTES: usize = 3_000_001;

fn sha256(data: &[u8]) -> String {
    Sha256::digest(data)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn curl(world: &World, version: &str) -> Command {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        version,
        "--noproxy",
        "",
        "--proxy",
        &world.sidecar.proxy_url(),
        "--cacert",
    ])
    .arg(world.sidecar.ca());
    curl
}

fn has_curl() -> bool {
    require("curl", program("curl").is_some())
}

/// What each of the scripts prints; they all do the same.
fn assert_session(what: &str, world: &World, printed: &[u8]) {
    let said: Value = serde_json::from_slice(printed)
        .unwrap_or_else(|error| panic!("{what}: {error}: {}", String::from_utf8_lossy(printed)));
    assert_eq!(said["bytes"], sha256(&pattern(BYTES)), "{what}");
    let echo = &said["echo"];
    assert_eq!(echo["method"], "POST", "{what}");
    assert_eq!(echo["path"], "/echo?a=1", "{what}");
    assert_eq!(echo["body_sha256"], sha256(b"{\"k\": \"v\"}"), "{what}");
    assert_eq!(said["gzip"], "gzip ok\n", "{what}");
    assert_eq!(said["no_content"], 204, "{what}");
    assert_eq!(said["not_found"], 404, "{what}");
    assert_eq!(said["blocked"], 403, "{what}");
    assert_eq!(said["verdict"], "blocked", "{what}");
    assert!(!world.origin.saw(KEY.as_bytes()), "{what}");
    assert!(
        !world.origin.saw(b"roxy-"),
        "{what}: a header of the first hop went on"
    );
}

const PYTHON: &str = r#"
import hashlib, json, ssl, sys
kind, proxy, ca, base, key, size = sys.argv[1:]
body = b'{"k": "v"}'
out = {}
def use(get, post):
    code, data, _ = get(base + "/bytes/" + size)
    assert code == 200
    out["bytes"] = hashlib.sha256(data).hexdigest()
    out["echo"] = json.loads(post(base + "/echo?a=1", body)[1])
    out["gzip"] = get(base + "/gzip")[1].decode()
    out["no_content"] = get(base + "/status/204")[0]
    out["not_found"] = get(base + "/status/404")[0]
    out["blocked"], _, out["verdict"] = post(base + "/", b"the key is " + key.encode() + b" ok")
def three(r):
    return r.status_code, r.content, r.headers.get("x-bottle-verdict")
if kind == "requests":
    import requests
    s = requests.Session()
    s.trust_env, s.proxies, s.verify = False, {"https": proxy}, ca
    use(lambda u: three(s.get(u)), lambda u, b: three(s.post(u, data=b)))
elif kind.startswith("httpx"):
    import httpx
    context = ssl.create_default_context(cafile=ca)
    with httpx.Client(proxy=proxy, verify=context, http2=kind == "httpx2", trust_env=False, timeout=20) as s:
        r = s.get(base + "/")
        assert r.http_version == ("HTTP/2" if kind == "httpx2" else "HTTP/1.1"), r.http_version
        use(lambda u: three(s.get(u)), lambda u, b: three(s.post(u, content=b)))
else:
    import aiohttp, asyncio
    async def main():
        context = ssl.create_default_context(cafile=ca)
        async with aiohttp.ClientSession() as s:
            loop = asyncio.get_running_loop()
            async def one(method, u, b=None):
                async with s.request(method, u, data=b, proxy=proxy, ssl=context) as r:
                    return r.status, await r.read(), r.headers.get("x-bottle-verdict")
            def sync(c):
                return asyncio.run_coroutine_threadsafe(c, loop).result()
            await asyncio.to_thread(use, lambda u: sync(one("GET", u)), lambda u, b: sync(one("POST", u, b)))
    asyncio.run(main())
print(json.dumps(out))
"#;

async fn python_session(kind: &str) {
    let Some(python) = python() else {
        assert!(!require("python with requests, httpx and h2", false));
        return;
    };
    let world = World::plain().await;
    let mut command = Command::new(python);
    command
        .args(["-c", PYTHON, kind, &world.sidecar.proxy_url()])
        .arg(world.sidecar.ca());
    command.args([&world.url(""), KEY, &BYTES.to_string()]);
    let (status, out, error) = harness::run(&mut command).await;
    assert!(status.success(), "{kind}: {error}");
    assert_session(kind, &world, &out);
}

#[tokio::test]
async fn python_requests() {
    python_session("requests").await;
}

#[tokio::test]
async fn python_httpx_over_http1() {
    python_session("httpx1").await;
}

#[tokio::test]
async fn python_httpx_over_http2() {
    python_session("httpx2").await;
}

#[tokio::test]
async fn python_aiohttp() {
    python_session("aiohttp").await;
}

const NODE: &str = r#"
const http = require('http'), https = require('https'), tls = require('tls'), crypto = require('crypto'), zlib = require('zlib');
const [proxy, ca, base, key, size] = process.argv.slice(1);
const p = new URL(proxy), b = new URL(base);
const tunnel = () => new Promise((done, fail) => {
  http.request({ host: p.hostname, port: p.port, method: 'CONNECT', path: b.host,
    headers: { 'Proxy-Authorization': 'Basic ' + Buffer.from(p.username + ':' + p.password).toString('base64') } })
    .on('connect', (answer, socket) => answer.statusCode === 200
      ? done(tls.connect({ socket, servername: b.hostname, ca: require('fs').readFileSync(ca) })) : fail(answer.statusCode))
    .on('error', fail).end();
});
(async () => {
  const socket = await tunnel();
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
  agent.createConnection = () => socket;
  const send = (method, path, body) => new Promise((done, fail) => {
    const r = https.request({ agent, method, path, host: b.hostname, port: b.port }, answer => {
      const parts = [];
      answer.on('data', part => parts.push(part)).on('end', () => done([answer.statusCode, Buffer.concat(parts), answer.headers]));
    }).on('error', fail);
    r.end(body);
  });
  const out = {};
  out.bytes = crypto.createHash('sha256').update((await send('GET', '/bytes/' + size))[1]).digest('hex');
  out.echo = JSON.parse((await send('POST', '/echo?a=1', '{"k": "v"}'))[1]);
  out.gzip = zlib.gunzipSync((await send('GET', '/gzip'))[1]).toString();
  out.no_content = (await send('GET', '/status/204'))[0];
  out.not_found = (await send('GET', '/status/404'))[0];
  const [code, , headers] = await send('POST', '/', 'the key is ' + key + ' ok');
  out.blocked = code; out.verdict = headers['x-bottle-verdict'];
  console.log(JSON.stringify(out));
  process.exit(0);
})().catch(error => { console.error(error); process.exit(1); });
"#;

#[tokio::test]
async fn node() {
    if !require("node", program("node").is_some()) {
        return;
    }
    let world = World::plain().await;
    let mut command = Command::new("node");
    command
        .args(["-e", NODE, &world.sidecar.proxy_url()])
        .arg(world.sidecar.ca());
    command.args([&world.url(""), KEY, &BYTES.to_string()]);
    let (status, out, error) = harness::run(&mut command).await;
    assert!(status.success(), "{error}");
    assert_session("node", &world, &out);
}

#[tokio::test]
async fn curl_over_both_versions() {
    if !has_curl() {
        return;
    }
    let world = World::plain().await;
    for (flag, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
        let mut curl_echo = curl(&world, flag);
        curl_echo.args(["-d", "hello", "-H", "X-Odd: a,  b", &world.url("/echo?q=1")]);
        let (status, out, error) = harness::run(&mut curl_echo).await;
        assert!(status.success(), "{error}");
        let echo: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(echo["body_sha256"], sha256(b"hello"));
        assert!(echo["headers"].to_string().contains("a,  b"));
        assert!(!echo["headers"].to_string().contains("proxy-"));

        let (_, out, error) =
            harness::run(curl(&world, flag).arg(world.url(&format!("/bytes/{BYTES}")))).await;
        assert!(
            out == pattern(BYTES),
            "{version}: {} bytes; {error}",
            out.len()
        );

        let (_, out, error) =
            harness::run(curl(&world, flag).args(["--head", &world.url("/bytes/77")])).await;
        let head = String::from_utf8_lossy(&out).to_ascii_lowercase();
        assert!(
            head.contains("content-length: 77\r\n"),
            "{version}: {head} {error}"
        );

        let (_, out, _) =
            harness::run(curl(&world, flag).args(["-i", &world.url("/status/204")])).await;
        assert!(String::from_utf8_lossy(&out).starts_with("HTTP/1.1 200"));
        assert!(String::from_utf8_lossy(&out).contains(" 204"));

        // Not asked for, so not decoded by the client: as the origin made it.
        let (_, out, _) = harness::run(curl(&world, flag).arg(world.url("/gzip"))).await;
        let mut plain = String::new();
        std::io::Read::read_to_string(
            &mut flate2::read::GzDecoder::new(out.as_slice()),
            &mut plain,
        )
        .unwrap();
        assert_eq!(plain, "gzip ok\n");

        let (_, out, _) =
            harness::run(curl(&world, flag).args(["-d", &format!("k={KEY}"), &world.url("/")]))
                .await;
        let answer: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(answer["rule"], "aws-access-key");
    }
    assert!(!world.origin.saw(KEY.as_bytes()));
}

#[tokio::test]
async fn a_denied_host_is_named_to_curl_as_policy() {
    if !has_curl() {
        return;
    }
    let world = World::plain().await;
    let (status, _, error) =
        harness::run(curl(&world, "--http1.1").args(["-v", "https://denied.test/"])).await;
    assert!(!status.success());
    assert!(
        error.contains("403 no route allows this host, port and scheme (evt_"),
        "{error}"
    );
    assert_eq!(world.origin.connections(), 0);
}

fn upload(name: &str) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    let content = pattern(5 << 20);
    std::fs::write(&path, &content).unwrap();
    (dir, path, content)
}

/// curl waits for `100 Continue` on HTTP/1.1, as long as the `Expect` header is there.
#[tokio::test]
async fn five_mebibytes_arrive_as_they_were_sent() {
    if !has_curl() {
        return;
    }
    let (_dir, path, content) = upload("five");
    for options in [OriginOptions::HTTP1, OriginOptions::HTTP2] {
        let world = World::start(options, Setup::new(&routes(&[route()]))).await;
        for arguments in [
            ["--http1.1", "-H", "Expect: 100-continue"].as_slice(),
            &["--http1.1", "-H", "Transfer-Encoding: chunked"],
            &["--http2"],
        ] {
            world.origin.clear();
            let mut command = curl(&world, arguments[0]);
            command
                .args(&arguments[1..])
                .args(["--max-time", "30", "-T"])
                .arg(&path)
                .arg(world.url("/echo"));
            let (status, out, error) = harness::run(&mut command).await;
            assert!(
                status.success(),
                "{options:?} {arguments:?}: {error} {}",
                String::from_utf8_lossy(&out)
            );
            let echo: Value = serde_json::from_slice(&out)
                .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&out)));
            assert_eq!(
                echo["body_sha256"],
                sha256(&content),
                "{options:?} {arguments:?}"
            );
            let [request] = world.origin.wait_for_requests(1).await.try_into().unwrap();
            assert_eq!(request.body_state, BodyState::Complete);
        }
    }
}

#[tokio::test]
async fn an_early_answer_reaches_the_agent() {
    let small = vec![b'a'; 700 << 10];
    let large = vec![b'a'; 5 << 20];
    for options in [OriginOptions::HTTP1, OriginOptions::HTTP2] {
        let world = World::start(options, Setup::new(&routes(&[route()]))).await;
        for body in [&small, &large] {
            let mut h1 = world.h1().await;
            let head = format!(
                "POST /early HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
                world.authority(),
                body.len()
            );
            let (mut read, mut write) = tokio::io::split(&mut h1.io);
            let sending = async {
                use tokio::io::AsyncWriteExt as _;
                let _gone = write.write_all(head.as_bytes()).await;
                let _gone = write.write_all(body).await;
                let _gone = write.flush().await;
            };
            let mut first = [0u8; 12];
            let reading = tokio::io::AsyncReadExt::read_exact(&mut read, &mut first);
            let ((), read) = tokio::join!(sending, reading);
            read.unwrap();
            assert_eq!(&first, b"HTTP/1.1 413", "{options:?} {}", body.len());

            let mut h2 = world.h2().await;
            let request = h2.request("POST", "/early").body(()).unwrap();
            let answer = h2.send(request, &[body], None).await.unwrap();
            assert_eq!(answer.status, 413, "{options:?} {}", body.len());
        }
    }
}

#[tokio::test]
async fn events_arrive_as_they_are_sent() {
    if !has_curl() {
        return;
    }
    let world = World::plain().await;
    for flag in ["--http1.1", "--http2"] {
        let mut child = curl(&world, flag)
            .args(["--no-buffer", &world.url("/sse")])
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(
            child.stdout.take().unwrap(),
        ));
        let mut late = Vec::new();
        while let Some(line) = tokio::time::timeout(harness::PATIENCE, lines.next_line())
            .await
            .unwrap()
            .unwrap()
        {
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let event: Value = serde_json::from_str(data).unwrap();
            late.push(
                now.saturating_sub(Duration::from_micros(event["sent_us"].as_u64().unwrap())),
            );
        }
        assert_eq!(late.len(), SSE_EVENTS);
        // Gathered events would come late by the whole run, nine intervals.
        late.sort();
        assert!(
            late[SSE_EVENTS / 2] < Duration::from_millis(60),
            "{flag}: {late:?}"
        );
    }
}

#[tokio::test]
async fn trailers_both_ways_on_every_pair_of_protocols() {
    for options in [OriginOptions::HTTP1, OriginOptions::HTTP2] {
        let world = World::start(options, Setup::new(&routes(&[route()]))).await;
        let mut h2 = world.h2().await;
        let answer = h2.get("/trailers").await;
        assert_eq!(
            (answer.text().as_str(), answer.whole),
            ("body\n", true),
            "{options:?}"
        );
        assert_eq!(
            answer.trailers,
            [("x-checksum".to_owned(), "42".to_owned())],
            "{options:?}"
        );
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        let request = h2.request("POST", "/echo").body(()).unwrap();
        let answer = h2.send(request, &[b"body"], Some(trailers)).await.unwrap();
        assert!(
            answer.json()["trailers"].to_string().contains("x-sum"),
            "{options:?}: {}",
            answer.text()
        );

        let mut h1 = world.h1().await;
        h1.send(&world.fill(b"GET /trailers HTTP/1.1\r\nHost: HOST\r\nTE: trailers\r\n\r\n"))
            .await;
        let answer = h1.answer().await.unwrap();
        assert_eq!(
            answer.trailers,
            [("x-checksum".to_owned(), "42".to_owned())],
            "{options:?}"
        );
        h1.send(&world.fill(
            b"POST /echo HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 7\r\n\r\n",
        ))
        .await;
        let answer = h1.answer().await.unwrap();
        assert!(
            answer.json()["trailers"].to_string().contains("x-sum"),
            "{options:?}: {}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    let world = World::start(OriginOptions::HTTP1, Setup::new(&routes(&[route()]))).await;
    let mut h1 = world.h1().await;
    for turn in 0..20 {
        h1.send(
            &world.fill(format!("GET /bytes/{turn} HTTP/1.1\r\nHost: HOST\r\n\r\n").as_bytes()),
        )
        .await;
        assert_eq!(h1.answer().await.unwrap().body, pattern(turn));
    }
    assert_eq!(world.origin.connections(), 1);

    let world = World::start(OriginOptions::HTTP2, Setup::new(&routes(&[route()]))).await;
    let h2 = world.h2().await;
    let mut all = tokio::task::JoinSet::new();
    for turn in 0..100usize {
        let mut one = harness::H2Client::clone(&h2);
        all.spawn(async move { (turn, one.get(&format!("/bytes/{}", turn * 1000)).await) });
    }
    while let Some(done) = all.join_next().await {
        let (turn, answer) = done.unwrap();
        assert!(
            answer.body == pattern(turn * 1000),
            "{turn}: {}",
            answer.status
        );
    }
    assert_eq!(world.origin.connections(), 1);
}
