//! Servers that people run, as origins: each sees exactly the requests that were let through, and no other one.
//!
//! Run by `.ci/slow`, which installs them.

use std::path::Path;
use std::process::Stdio;

use fixtures::pki::Pki;
use fixtures::requests::{self, Case, Verdict};
use fixtures::require::{program, python, require};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{Duration, Instant, sleep};

use crate::harness::{H1, NAME, Setup, Sidecar, Wire, route, routes};

/// Writes `METHOD TARGET BODY-LENGTH` for each request, flushed.
const APP: &str = r#"
import os

LOG = os.environ["SEEN"]

def seen(method, target, body):
    with open(LOG, "ab", buffering=0) as log:
        log.write(method.encode("latin-1") + b" " + target + b" %d\n" % len(body))

def wsgi(environ, start_response):
    body = environ["wsgi.input"].read()
    target = environ.get("RAW_URI", "?").encode("latin-1")
    seen(environ["REQUEST_METHOD"], target, body)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    seen(scope["method"], target, body)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})

if __name__ == "__main__":
    import ssl
    from aiohttp import web

    async def any(request):
        body = await request.read()
        seen(request.method, request.raw_path.encode("latin-1"), body)
        return web.Response(body=b"ok")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", any)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain("leaf.pem", "leaf.key")
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), ssl_context=tls, print=None)
"#;

struct Server {
    child: Child,
    port: u16,
    /// One line a request.
    log: std::path::PathBuf,
    /// A line has the body's length and not the version at its end.
    echoes: bool,
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// Starts the named server in `dir`, where `leaf.pem` and `leaf.key` are; `None` where it is not installed.
async fn start(name: &str, dir: &Path) -> Option<Server> {
    let port = free_port().await;
    let at = |file: &str| dir.join(file).display().to_string();
    let log = dir.join(format!("{name}.seen"));
    let seen = log.display().to_string();
    let leaf = [
        std::fs::read_to_string(at("leaf.pem")).unwrap(),
        std::fs::read_to_string(at("leaf.key")).unwrap(),
    ];
    std::fs::write(at("both.pem"), leaf.concat()).unwrap();
    let sbin = |name: &str| {
        let path = Path::new("/usr/sbin").join(name);
        program(name).or_else(|| path.exists().then_some(path))
    };
    let (dir_text, pem, key, both) = (
        dir.display(),
        at("leaf.pem"),
        at("leaf.key"),
        at("both.pem"),
    );
    let mut command = match name {
        "nginx" => {
            let mut command = Command::new(sbin("nginx")?);
            let config = format!(
                "daemon off; worker_processes 1; pid {dir_text}/nginx.pid; error_log {dir_text}/nginx.error;
                events {{}}
                http {{ log_format one escape=none '$request'; access_log {seen} one; client_body_temp_path {dir_text}/nb; proxy_temp_path {dir_text}/np; fastcgi_temp_path {dir_text}/nf; uwsgi_temp_path {dir_text}/nu; scgi_temp_path {dir_text}/ns;
                server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {pem}; ssl_certificate_key {key}; location / {{ return 200 ok; }} }} }}"
            );
            std::fs::write(at("nginx.conf"), config).unwrap();
            command.args([
                "-c",
                &at("nginx.conf"),
                "-e",
                &at("nginx.error"),
                "-p",
                &dir_text.to_string(),
            ]);
            command
        }
        "apache2" => {
            let mut command = Command::new(sbin("apache2")?);
            let modules: String = [
                "mpm_event",
                "authn_core",
                "authz_core",
                "ssl",
                "socache_shmcb",
            ]
            .iter()
            .map(|module| {
                format!("LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so\n")
            })
            .collect();
            let config = format!(
                "{modules}ServerRoot {dir_text}\nPidFile {dir_text}/apache.pid\nServerName {NAME}\nListen 127.0.0.1:{port}\nUser nobody\nGroup nogroup\nErrorLog {dir_text}/apache.error\nLogFormat \"%r\" one\nCustomLog {seen} one\nDocumentRoot {dir_text}\nSSLEngine on\nSSLCertificateFile {pem}\nSSLCertificateKeyFile {key}\nSSLSessionCache none\n"
            );
            std::fs::write(at("apache.conf"), config).unwrap();
            command.args(["-D", "FOREGROUND", "-f", &at("apache.conf")]);
            command
        }
        "haproxy" => {
            let mut command = Command::new(sbin("haproxy")?);
            let config = format!(
                "global\n    log stdout format raw daemon\n    tune.bufsize 65536\ndefaults\n    mode http\n    log global\n    log-format \"%HM %HU %HV\"\n    timeout client 10s\n    timeout server 10s\n    timeout connect 1s\nfrontend f\n    bind 127.0.0.1:{port} ssl crt {both}\n    http-request return status 200 content-type text/plain string ok\n"
            );
            std::fs::write(at("haproxy.conf"), config).unwrap();
            command.args(["-db", "-f", &at("haproxy.conf")]);
            command.stdout(std::fs::File::create(&log).unwrap());
            command
        }
        "lighttpd" => {
            let mut command = Command::new(sbin("lighttpd")?);
            let config = format!(
                "server.modules = (\"mod_openssl\", \"mod_accesslog\")\nserver.document-root = \"{dir_text}\"\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\nserver.errorlog = \"{dir_text}/lighttpd.error\"\naccesslog.filename = \"{seen}\"\naccesslog.format = \"%r\"\nssl.engine = \"enable\"\nssl.pemfile = \"{both}\"\nserver.http-parseopts = (\"url-normalize\" => \"disable\")\n"
            );
            std::fs::write(at("lighttpd.conf"), config).unwrap();
            command.args(["-D", "-f", &at("lighttpd.conf")]);
            command
        }
        _ => {
            let python = python()?;
            std::fs::write(at("app.py"), APP).unwrap();
            let mut command = Command::new(&python);
            let tool = python.parent()?.join(name);
            let address = format!("127.0.0.1:{port}");
            match name {
                "aiohttp" => {
                    command.arg("app.py");
                }
                "gunicorn" => {
                    tool.exists().then_some(())?;
                    command.arg(tool).args([
                        "--bind",
                        &address,
                        "--certfile",
                        &pem,
                        "--keyfile",
                        &key,
                        "--keep-alive",
                        "5",
                        "--worker-class",
                        "gthread",
                        "--threads",
                        "4",
                        "--casefold-http-method",
                        "app:wsgi",
                    ]);
                }
                "hypercorn" => {
                    tool.exists().then_some(())?;
                    command.arg(tool).args([
                        "--bind",
                        &address,
                        "--certfile",
                        &pem,
                        "--keyfile",
                        &key,
                        "app:asgi",
                    ]);
                }
                _ => return None,
            }
            command
        }
    };
    let talk = std::fs::File::create(dir.join(format!("{name}.talk"))).unwrap();
    if name != "haproxy" {
        command.stdout(Stdio::null());
    }
    let child = command
        .current_dir(dir)
        .env("SEEN", &log)
        .env("PORT", port.to_string())
        .stdin(Stdio::null())
        .stderr(talk)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let server = Server {
        child,
        port,
        log,
        echoes: matches!(name, "aiohttp" | "gunicorn" | "hypercorn"),
    };
    let begun = Instant::now();
    loop {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        if socket.connect(([127, 0, 0, 1], port).into()).await.is_ok() {
            return Some(server);
        }
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{name} does not start: {}",
            std::fs::read_to_string(dir.join(format!("{name}.talk"))).unwrap()
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// What every access log writes as it came.
fn is_plain(case: &Case) -> bool {
    case.requests.iter().all(|request| {
        let words = [request.method.as_slice(), &request.target].concat();
        words.len() < 500 && !words.iter().any(|byte| b"\"\\{}|#".contains(byte))
    })
}

async fn differ(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let at = |file: &str| dir.path().join(file);
    pki.write_leaf(&[NAME], &at("leaf.pem"), &at("leaf.key"));
    let server = start(name, dir.path()).await;
    if !require(name, server.is_some()) {
        return;
    }
    let mut server = server.unwrap();
    let sidecar = Sidecar::start(&pki, server.port, Setup::new(&routes(&[route()]))).await;
    let authority = format!("{NAME}:{}", server.port);
    // Each line that is due, and whether its origin took it.
    let mut due: Vec<(String, bool, &str)> = Vec::new();
    let cases = requests::cases();
    let chosen = cases
        .iter()
        .filter(|case| !case.to_proxy && case.verdict == Verdict::Passed && is_plain(case));
    for case in chosen {
        let stream = sidecar.tls(&authority, NAME, H1).await.unwrap();
        let mut wire = Wire::new(stream);
        wire.send(&case.raw(&authority, "")).await;
        for request in &case.requests {
            let answer = wire.answer_to(case.method()).await;
            let answer = answer
                .unwrap_or_else(|| panic!("{name}: no answer to {} {}", case.family, case.why));
            assert!(
                answer.verdict().is_none_or(|_| answer.status == 502),
                "{name}: {}: {answer:?}",
                case.why
            );
            let end = if server.echoes {
                request.body.len().to_string()
            } else {
                "HTTP/1.1".into()
            };
            let line = format!(
                "{} {} {end}",
                String::from_utf8_lossy(&request.method),
                String::from_utf8_lossy(&request.target)
            );
            // ASGI does not tell an empty query from none.
            let empty = request.target.iter().position(|byte| *byte == b'?')
                == request.target.len().checked_sub(1);
            let line = match name {
                "hypercorn" if empty => line.replace("? ", " "),
                _ => line,
            };
            // It tells of every method in capitals.
            let line = match (name, line.split_once(' ')) {
                ("hypercorn", Some((method, rest))) => {
                    format!("{} {rest}", method.to_ascii_uppercase())
                }
                _ => line,
            };
            let why = case.why;
            due.push((
                line,
                answer.status < 400 || (!server.echoes && answer.status == 404),
                why,
            ));
        }
        let _closed = wire.io.shutdown().await;
    }
    let taken = due.iter().filter(|(_, taken, _)| *taken).count();
    // Some write their log when they stop.
    let pid = server
        .child
        .id()
        .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::TERM).unwrap();
    if tokio::time::timeout(Duration::from_secs(5), server.child.wait())
        .await
        .is_err()
    {
        server.child.kill().await.unwrap();
    }
    let log = std::fs::read(&server.log).unwrap();
    let log = String::from_utf8_lossy(&log);
    // The first connection asks for HTTP/2, which some of them speak, and one of them logs its preface. Some write a line
    // of a connection that brought no request, as the probe at the start.
    let seen: Vec<String> = log
        .lines()
        .filter(|line| !line.starts_with("PRI * HTTP/2.0"))
        .map(|line| line.trim().replace(" HTTP/2.0", " HTTP/1.1"))
        .filter(|line| {
            !(line.is_empty()
                || line == "-"
                // lighttpd, of a request whose method it does not know and refused.
                || line == "HTTP/1.1"
                // And of one whose method is HTTP/2's preface, which it refused too.
                || line == "PRI  HTTP/1.1"
                || line.starts_with("<BADREQ>")
                || line.contains("SSL handshake"))
        })
        .collect();
    let matched = seen.len();
    if let Err(line) = accounts_for(&seen, &due) {
        panic!(
            "{name} saw something else than was let through, at the latest at {line:?}: {seen:#?}"
        );
    }
    assert!(!log.contains("smuggled"));
    fixtures::tell!(
        "{name}: {} requests let through, {taken} answered by it, {matched} in its log, each as it was sent",
        due.len()
    );
    assert!(taken > 100, "{taken}");
}

/// Whether the log is that of all requests that were taken, and of some that were not, in their order.
fn accounts_for(seen: &[String], due: &[(String, bool, &str)]) -> Result<(), String> {
    // How many lines of the log the requests so far may have made.
    let mut reached = std::collections::BTreeSet::from([0]);
    for (own, taken, _) in due {
        let mut next = std::collections::BTreeSet::new();
        for at in reached {
            if seen.get(at) == Some(own) {
                next.insert(at + 1);
            }
            if !taken {
                next.insert(at);
            }
        }
        if next.is_empty() {
            return Err(own.clone());
        }
        reached = next;
    }
    if reached.contains(&seen.len()) {
        Ok(())
    } else {
        Err(seen.last().cloned().unwrap_or_default())
    }
}

macro_rules! origins {
    ($($test:ident: $name:literal),+ $(,)?) => {
        $(
            #[tokio::test]
            #[ignore = "slow: run .ci/slow"]
            async fn $test() {
                differ($name).await;
            }
        )+
    };
}

origins! {
    nginx_sees_what_was_let_through: "nginx",
    apache_sees_what_was_let_through: "apache2",
    haproxy_sees_what_was_let_through: "haproxy",
    lighttpd_sees_what_was_let_through: "lighttpd",
    aiohttp_sees_what_was_let_through: "aiohttp",
    gunicorn_sees_what_was_let_through: "gunicorn",
    hypercorn_sees_what_was_let_through: "hypercorn",
}

/// The attacks of slowhttptest, one after the other, while another client goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run .ci/slow"]
async fn slowhttptest_does_not_hold_up_others() {
    let Some(tool) = program("slowhttptest") else {
        require("slowhttptest", false);
        return;
    };
    let world = crate::harness::World::plain().await;
    for kind in [
        vec!["-H"],
        vec!["-B", "-t", "POST"],
        vec!["-X", "-w", "10", "-y", "20", "-n", "5", "-z", "32"],
    ] {
        let mut attack = Command::new(&tool)
            .args(&kind)
            .args(["-c", "500", "-r", "200", "-i", "1", "-l", "15", "-u"])
            .arg(format!("http://{}/", world.sidecar.addr))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        sleep(Duration::from_secs(5)).await;
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let begun = Instant::now();
            let answer = world.raw(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n").await;
            assert_eq!(answer.unwrap().status, 200, "{kind:?}");
            slowest = slowest.max(begun.elapsed());
            sleep(Duration::from_millis(50)).await;
        }
        fixtures::tell!(
            "slowhttptest {kind:?}: the slowest of 50 requests, each on a tunnel of its own: {slowest:?}"
        );
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
        let _ended = attack.wait().await;
    }
}
