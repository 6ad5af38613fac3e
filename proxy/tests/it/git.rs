//! `git clone` through the sidecar, from a real `git http-backend`.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use fixtures::pki::Pki;
use fixtures::require::{program, require};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;

use crate::harness::{self, NAME, Setup, Sidecar, Wire, routes};

/// A TLS server that runs `git http-backend` as a CGI program (RFC 3875), one request a connection.
async fn serve(pki: &Pki, root: PathBuf) -> u16 {
    let acceptor = TlsAcceptor::from(pki.server_config(&[NAME], harness::H1));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let root = Arc::new(root);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, root) = (acceptor.clone(), Arc::clone(&root));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                answer(Wire::new(stream), &root).await;
            });
        }
    });
    port
}

async fn answer<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut wire: Wire<S>,
    root: &std::path::Path,
) -> Option<()> {
    let start = wire.line().await?;
    let (method, target) = (start.split(' ').next()?, start.split(' ').nth(1)?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = wire.fields().await?;
    let header = |name: &str| {
        headers
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value.as_str())
    };
    let body = wire
        .take(header("content-length").parse().unwrap_or(0))
        .await?;
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(&body).await.ok()?;
    let mut out = Vec::new();
    child.stdout.take()?.read_to_end(&mut out).await.ok()?;
    let end = out.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (fields, content) = (
        String::from_utf8_lossy(&out[..end]).into_owned(),
        &out[end + 4..],
    );
    let status = fields
        .lines()
        .find_map(|line| line.strip_prefix("Status: "))
        .unwrap_or("200 OK");
    let head = format!(
        "HTTP/1.1 {status}\r\n{fields}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        content.len()
    );
    wire.send(&[head.as_bytes(), content].concat()).await;
    let _gone = wire.io.shutdown().await;
    Some(())
}

async fn git(arguments: &[&str], ca: Option<&std::path::Path>) -> (bool, String) {
    let mut command = Command::new("git");
    command
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", "/nonexistent");
    // A variable of the machine would win over the option.
    command
        .env_remove("GIT_SSL_CAINFO")
        .env_remove("SSL_CERT_FILE")
        .envs(ca.map(|ca| ("GIT_SSL_CAINFO", ca)));
    let (status, out, error) = harness::run(&mut command).await;
    (
        status.success(),
        format!("{}{error}", String::from_utf8_lossy(&out)),
    )
}

#[tokio::test]
async fn clone_is_allowed_where_the_route_says_so_and_push_never() {
    let backend = std::process::Command::new("git")
        .args(["http-backend"])
        .env("REQUEST_METHOD", "GET")
        .output();
    let here = program("git").is_some()
        && backend.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("Status"));
    if !require("git with http-backend", here) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let bare = path("bare.git");
    let work = path("work");
    for arguments in [
        ["init", "-q", "--bare", "-b", "main", &bare].as_slice(),
        &["-C", &bare, "config", "http.receivepack", "true"],
        &["init", "-q", "-b", "main", &work],
        &[
            "-C",
            &work,
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t.test",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "first",
        ],
        &["-C", &work, "push", "-q", &bare, "main"],
    ] {
        let (done, said) = git(arguments, None).await;
        assert!(done, "{arguments:?}: {said}");
    }
    let pki = Pki::new();
    let port = serve(&pki, dir.path().to_owned()).await;
    let route = |fetch: bool| json!({"host": "origin.test:PORT", "allow_private": true, "git": {"fetch": fetch}});
    let sidecar = Sidecar::start(&pki, port, Setup::new(&routes(&[route(true)]))).await;
    let proxy = format!("http.proxy={}", sidecar.proxy_url());
    let ca = sidecar.ca();
    let ca = Some(ca.as_path());
    let url = format!("https://{NAME}:{port}/bare.git");
    let base = ["-c", &proxy];

    let clone = path("clone");
    let (done, said) = git(&[&base[..], &["clone", "-q", &url, &clone]].concat(), ca).await;
    assert!(done, "{said}\n{}", sidecar.audit_text());
    let (_, said) = git(&["-C", &clone, "log", "--oneline"], None).await;
    assert!(said.contains("first"), "{said}");

    let commit = [
        "-C",
        &clone,
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@t.test",
        "commit",
        "-q",
        "--allow-empty",
        "-m",
        "second",
    ];
    assert!(git(&commit, None).await.0);
    let (done, said) = git(
        &[&["-C", &clone], &base[..], &["push", "-q", &url, "main"]].concat(),
        ca,
    )
    .await;
    assert!(!done && said.contains("403"), "{said}");
    assert!(
        sidecar
            .audit()
            .iter()
            .any(|record| record["code"] == "git-push"),
        "{}",
        sidecar.audit_text()
    );
    assert!(
        !git(&["-C", &bare, "log", "main"], None)
            .await
            .1
            .contains("second")
    );

    sidecar.rewrite(&routes(&[route(false)]));
    sidecar.reload("the policy was reloaded").await;
    let (done, said) = git(
        &[&base[..], &["clone", "-q", &url, &path("again")]].concat(),
        ca,
    )
    .await;
    assert!(!done && said.contains("403"), "{said}");
    assert!(
        sidecar
            .audit()
            .iter()
            .any(|record| record["code"] == "git-fetch")
    );
}
