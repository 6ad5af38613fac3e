//! What is measured, and how each of them is started.

use std::ffi::{OsStr, OsString};
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fixtures::pki::Pki;
use tokio::runtime::Runtime;

use super::client::Way;
use super::floor::client_config;
use super::origin::{HTTP1, HTTP2, runtime};
use super::process::{Core, Process, pin};
use super::work::{Figures, Work};

pub const SIDECAR: &str = "__sidecar";
pub const FLOOR: &str = "__floor";
pub const ORIGIN: &str = "__origin";

/// Names for new tunnels; every proxy knows where they lead.
pub const HOSTS: usize = 400;
/// Of all of them.
const ANY_HOST: &str = "*.bench.test";

/// Known to whoever scans; synthetic.
const SECRETS: [&str; 4] = [
    "correct-horse-battery-staple-2026", // gitleaks:allow
    "hunter2-Sup3rS3cretValue",          // gitleaks:allow
    "S3cr3t/Value+With=Symbols&more",    // gitleaks:allow
    "db_pass_9f8e7d6c5b4a",              // gitleaks:allow
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    Floor,
    Sidecar,
    /// With no detectors: what all the rest of it takes.
    Unscanned,
    /// The floor with another crypto library.
    Relay,
    Hudsucker,
    HudsuckerScan,
    Squid,
    Mitmproxy,
}

impl System {
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Sidecar => "sidecar",
            Self::Unscanned => "sidecar, detectors off",
            Self::Relay => "relay on aws-lc-rs",
            Self::Hudsucker => "hudsucker",
            Self::HudsuckerScan => "hudsucker + plain scan",
            Self::Squid => "squid",
            Self::Mitmproxy => "mitmproxy + plain scan",
        }
    }

    pub fn scans(self) -> bool {
        matches!(self, Self::Sidecar | Self::HudsuckerScan | Self::Mitmproxy)
    }
}

/// What is measured in place of, or beside, what is in this program.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// Another build of the sidecar.
    pub sidecar: Option<PathBuf>,
    /// `benches/peers` builds these.
    pub relay: Option<PathBuf>,
    pub hudsucker: Option<PathBuf>,
}

/// The origin, the certificates, and the load's own runtime.
pub struct Lab {
    dir: tempfile::TempDir,
    origin: Child,
    /// Of the origin, for HTTP/1.1 and for HTTP/2.
    ports: [u16; 2],
    programs: Programs,
    squid: tempfile::TempDir,
    runtime: Runtime,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ended = self.origin.kill();
        let _reaped = self.origin.wait();
    }
}

impl Lab {
    pub fn new(programs: Programs) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let pki = Pki::new();
        pki.write_ca(dir.path());
        pki.write_server(dir.path(), &[ANY_HOST]);
        let mut origin = Command::new(std::env::current_exe().expect("this program"))
            .arg(ORIGIN)
            .args([dir.path().join("server.pem"), dir.path().join("server.key")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the origin");
        let mut line = String::new();
        let out = origin.stdout.take().expect("its output");
        std::io::BufReader::new(out)
            .read_line(&mut line)
            .expect("its ports");
        let mut ports = line.split_whitespace().map(|port| port.parse());
        let mut port = || ports.next().and_then(Result::ok).expect("its ports");
        let ports = [port(), port()];
        // Its threads are made after it is pinned.
        pin(Core::Load);
        Self {
            dir,
            origin,
            ports,
            programs,
            squid: super::squid::directory(),
            runtime: runtime(),
        }
    }

    /// All that are here, in the order of the table.
    pub fn systems(&self, peers: bool) -> Vec<System> {
        let is_here = |program: &str| {
            let mut command = Command::new(program);
            command
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let here = command.status().is_ok();
            if peers && !here {
                eprintln!("{program} cannot be run: the table is without it");
            }
            peers && here
        };
        let mut systems = vec![System::Floor, System::Sidecar, System::Unscanned];
        if peers && self.programs.relay.is_some() {
            systems.push(System::Relay);
        }
        if peers && self.programs.hudsucker.is_some() {
            systems.extend([System::Hudsucker, System::HudsuckerScan]);
        }
        if Path::new(super::squid::HELPER).exists() && is_here("squid") && is_here("openssl") {
            systems.push(System::Squid);
        }
        if is_here("mitmdump") {
            systems.push(System::Mitmproxy);
        }
        systems
    }

    /// Starts the system anew, lets it warm up, and does the work once.
    pub fn run(&mut self, system: System, work: &Work) -> Figures {
        let [h1, h2] = self.ports;
        let (port, protocol) = if work.is_h2() {
            (h2, HTTP2)
        } else {
            (h1, HTTP1)
        };
        let (process, proxy, authority) = match system {
            System::Floor => self.floor(port, protocol),
            System::Sidecar => self.sidecar(port, true),
            System::Unscanned => self.sidecar(port, false),
            System::Relay => self.peer(self.programs.relay.as_ref(), &[], protocol),
            System::Hudsucker => self.peer(self.programs.hudsucker.as_ref(), &["relay"], protocol),
            System::HudsuckerScan => {
                self.peer(self.programs.hudsucker.as_ref(), &["scan"], protocol)
            }
            System::Squid => super::squid::start(self.squid.path(), &self.file("ca.pem"), HOSTS),
            System::Mitmproxy => self.mitmproxy(),
        };
        let way = Way {
            proxy,
            port,
            config: client_config(&authority, protocol),
        };
        self.runtime.block_on(async {
            if work.is_h2() {
                way.h2(&host(0))
                    .await
                    .post(&super::work::text(1024).into())
                    .await;
            } else {
                warm_up(&way, system).await;
            }
            work.run(&way, &process).await
        })
    }

    fn file(&self, name: &str) -> OsString {
        self.dir.path().join(name).into()
    }

    fn floor(&self, port: u16, protocol: &str) -> (Process, SocketAddr, PathBuf) {
        let command = [
            std::env::current_exe().expect("this program").into(),
            FLOOR.into(),
            self.file("floor-ca.pem"),
            self.file("ca.pem"),
            port.to_string().into(),
            protocol.into(),
        ];
        let process = Process::start::<OsString>(&command, &[], true);
        let own = process.address();
        (process, own, self.dir.path().join("floor-ca.pem"))
    }

    fn peer(
        &self,
        program: Option<&PathBuf>,
        mode: &[&str],
        protocol: &str,
    ) -> (Process, SocketAddr, PathBuf) {
        let program = program.expect("its program");
        let own = self.dir.path().join("peer-ca.pem");
        let mut command: Vec<OsString> = vec![program.into()];
        command.extend(mode.iter().map(Into::into));
        command.extend([self.file("ca.pem"), own.clone().into()]);
        if protocol == HTTP2 {
            command.push(protocol.into());
        }
        let secrets = SECRETS.join("\n");
        let process = Process::start(&command, &[("BENCH_SECRETS", &secrets)], true);
        let address = process.address();
        (process, address, own)
    }

    /// With everything on: all rules, four known secrets, all decoders, policy, audit.
    fn sidecar(&self, port: u16, detectors: bool) -> (Process, SocketAddr, PathBuf) {
        let dir = self.dir.path().display();
        let hosts: Vec<String> = (0..HOSTS)
            .map(|at| format!("{}: 127.0.0.1", host(at)))
            .collect();
        let config = format!(
            "bottle: bench\nlisten: ['127.0.0.1:0']\nproxy_auth: none\nca: {{certificate: {dir}/sidecar-ca.pem}}\n\
             upstream: {{ca_files: [{dir}/ca.pem], hosts: {{{}}}}}\naudit: {dir}/audit.jsonl\n\
             egress: {{routes: [{{host: '{ANY_HOST}:{}', allow_private: true, dlp: {{outbound_on_match: block{}}}}}]}}\n",
            hosts.join(", "),
            port,
            if detectors {
                ""
            } else {
                ", outbound_detectors: false"
            },
        );
        let path = self.dir.path().join("sidecar.yaml");
        std::fs::write(&path, config).expect("a configuration");
        let mut command: Vec<OsString> = match &self.programs.sidecar {
            Some(path) => vec![path.into()],
            None => vec![
                std::env::current_exe().expect("this program").into(),
                SIDECAR.into(),
            ],
        };
        command.extend(["run".into(), "--config".into(), path.into()]);
        let names: Vec<String> = (0..SECRETS.len())
            .map(|at| format!("EGRESS_TOKEN_{at}"))
            .collect();
        let environment: Vec<(&str, &str)> =
            names.iter().map(String::as_str).zip(SECRETS).collect();
        let process = Process::start(&command, &environment, true);
        let (_, rest) = process
            .ready
            .split_once("\"listen\":[\"")
            .expect("the listeners");
        let address = rest.split('"').next().and_then(|text| text.parse().ok());
        let address = address.expect("an address");
        (process, address, self.dir.path().join("sidecar-ca.pem"))
    }

    /// Fifteen rules and the secrets in eleven writings each, over the whole body, as people write it.
    fn mitmproxy(&self) -> (Process, SocketAddr, PathBuf) {
        let home = self.dir.path().join("mitmproxy");
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let addon = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/proxy/mitmproxy.py");
        let home_set = format!("confdir={}", home.display());
        let trust = format!(
            "ssl_verify_upstream_trusted_ca={}",
            self.dir.path().join("ca.pem").display()
        );
        let port_text = port.to_string();
        let command: [&OsStr; 14] = [
            "mitmdump".as_ref(),
            "-q".as_ref(),
            "--listen-host".as_ref(),
            "127.0.0.1".as_ref(),
            "-p".as_ref(),
            port_text.as_ref(),
            "--set".as_ref(),
            home_set.as_ref(),
            "--set".as_ref(),
            trust.as_ref(),
            "--set".as_ref(),
            "flow_detail=0".as_ref(),
            "-s".as_ref(),
            addon.as_ref(),
        ];
        let secrets = SECRETS.join("\n");
        let process = Process::start(&command, &[("BENCH_SECRETS", &secrets)], false);
        process.wait_for(port);
        (
            process,
            ([127, 0, 0, 1], port).into(),
            home.join("mitmproxy-ca-cert.pem"),
        )
    }
}

pub fn host(number: usize) -> String {
    format!("h{number}.bench.test")
}

/// Some requests, and one with a secret that a scanner must refuse.
async fn warm_up(way: &Way, system: System) {
    let body = super::work::text(1024);
    let mut tunnel = way.tunnel(&host(0)).await;
    for _ in 0..20 {
        assert_eq!(tunnel.post(&body, body.len()).await, 200);
    }
    if system.scans() {
        for secret in SECRETS {
            let mut hostile = body.clone();
            hostile.splice(900..900, secret.bytes());
            let status = tunnel.post(&hostile, hostile.len()).await;
            assert_eq!(status, 403, "{} let a secret through", system.name());
        }
    }
}
