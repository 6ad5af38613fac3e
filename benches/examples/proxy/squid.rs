//! squid, with certificates that it makes for each host, and without a scan.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::process::Process;
use super::systems::host;

/// What makes its certificates, where Debian has it.
pub const HELPER: &str = "/usr/lib/squid/security_file_certgen";

/// Its files are for the user that it becomes, so they have a directory of their own.
pub fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).expect("a mode");
    dir
}

/// `authority`: by which it trusts origins.
pub fn start(dir: &Path, authority: &OsStr, hosts: usize) -> (Process, SocketAddr, PathBuf) {
    let own = dir.join("ca.pem");
    run(Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args([
            "-subj",
            "/CN=squid",
            "-addext",
            "keyUsage=critical,keyCertSign",
        ])
        .arg("-keyout")
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(&own));
    let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
    let both = read(&own) + &read(&dir.join("key.pem"));
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("a file");
    write("both.pem", &both);
    write("origins.pem", &read(Path::new(authority)));
    let names: Vec<String> = (0..hosts).map(host).collect();
    write("hosts", &format!("127.0.0.1 {}\n", names.join(" ")));
    let _new = std::fs::remove_dir_all(dir.join("certificates"));
    run(Command::new(HELPER)
        .args(["-c", "-s"])
        .arg(dir.join("certificates"))
        .args(["-M", "64MB"]));
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    write("squid.conf", &configuration(dir, port));
    // Started by root it becomes this user. Started by anyone else it stays what it is, and this changes nothing.
    let _not_root = Command::new("chown")
        .args(["-R", "proxy:proxy"])
        .arg(dir)
        .stderr(Stdio::null())
        .status();
    let command: [&OsStr; 4] = [
        "squid".as_ref(),
        "-N".as_ref(),
        "-f".as_ref(),
        &dir.join("squid.conf").into_os_string(),
    ];
    let process = Process::start(&command, &[], false);
    process.wait_for(port);
    (process, ([127, 0, 0, 1], port).into(), own)
}

fn run(command: &mut Command) {
    let output = command.output().expect("a program");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

fn configuration(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        "http_port 127.0.0.1:{port} ssl-bump generate-host-certificates=on dynamic_cert_mem_cache_size=64MB tls-cert={dir}/both.pem
sslcrtd_program {HELPER} -s {dir}/certificates -M 64MB
sslcrtd_children 4 startup=2 idle=1
tls_outgoing_options cafile={dir}/origins.pem
acl step1 at_step SslBump1
ssl_bump peek step1
ssl_bump bump all
acl local src 127.0.0.0/8
http_access allow local
http_access deny all
cache deny all
cache_mem 0 MB
access_log none
cache_log {dir}/squid.log
pid_filename none
coredump_dir {dir}
shutdown_lifetime 1 seconds
hosts_file {dir}/hosts
dns_nameservers 127.0.0.1
via off
forwarded_for delete
workers 1
max_filedescriptors 8192
pinger_enable off
netdb_filename none
request_body_max_size 0
cache_effective_user proxy
"
    )
}
