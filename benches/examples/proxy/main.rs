//! The sidecar beside a floor and a peer, doing the same work in one run. Prints the table of the README.
//!
//! ```sh
//! cargo run --release -p benches --example proxy
//! benches/peers/run        # the same beside all peers, which it builds and installs first
//! ```
//!
//! The floor is what every proxy that ends TLS has to do: CONNECT, a certificate signed for each host, TLS on both sides, and
//! the bytes copied unread. Peers: the same with another crypto library, where `--relay` names it; hudsucker where
//! `--hudsucker` names it, alone and with a plain
//! scan; squid, and mitmproxy with a plain scan, where they are found.
//! Every proxy has one core to itself; the load and the origin have another. What counts is the CPU time of the
//! proxy's processes, as a ratio to the floor's in the same run: a machine that does other things too makes a proxy
//! slower, and its work no greater. Each answer is checked, and whoever scans must refuse a secret before it is timed.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a measurement that cannot be made must stop"
)]

mod client;
mod floor;
mod origin;
mod process;
mod squid;
mod systems;
mod table;
mod work;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use systems::{Lab, Programs};
use table::Table;
use work::Work;

/// Measure the sidecar against the floor and its peers.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often each time is taken; the median counts.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Seconds for each time that is taken of one kind of request.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only these kinds of work: post, chunked, h2, block, connect, resume, events, tunnels, uploads, or what stands
    /// in the table's first column.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Another build of the sidecar, in place of the one in this program.
    #[arg(long)]
    sidecar: Option<PathBuf>,
    /// The relay on aws-lc-rs that `benches/peers` builds.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// The program of hudsucker that `benches/peers` builds.
    #[arg(long)]
    hudsucker: Option<PathBuf>,
    /// Leave the peers out, which take most of the time.
    #[arg(long)]
    no_peer: bool,
    /// Print each time that was taken.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let mut own = std::env::args_os();
    let name = own.next().unwrap_or_default();
    let role = own.next();
    let rest: Vec<OsString> = own.collect();
    match role.as_ref().and_then(|role| role.to_str()) {
        Some(process::PINNED) => process::become_pinned(&rest),
        Some(systems::SIDECAR) => {
            return proxy::cli::main(std::iter::once(name).chain(rest));
        }
        Some(systems::FLOOR) => floor::main(&rest),
        Some(systems::ORIGIN) => origin::main(&rest),
        _ => measure(&Arguments::parse()),
    }
    ExitCode::SUCCESS
}

fn measure(arguments: &Arguments) {
    process::raise_descriptors();
    let mut lab = Lab::new(Programs {
        sidecar: arguments.sidecar.clone(),
        relay: arguments.relay.clone(),
        hudsucker: arguments.hudsucker.clone(),
    });
    let systems = lab.systems(!arguments.no_peer);
    let span = Duration::from_secs_f64(arguments.seconds);
    let works: Vec<Work> = Work::all(span)
        .into_iter()
        .filter(|work| {
            let is_meant = |only: &String| *only == work.kind() || *only == work.name();
            arguments.only.is_empty() || arguments.only.iter().any(is_meant)
        })
        .collect();
    let mut table = Table::new(&systems);
    for work in &works {
        for round in 0..arguments.repeat {
            for system in &systems {
                if !work.is_for(*system) {
                    continue;
                }
                let figures = lab.run(*system, work);
                if arguments.verbose {
                    eprintln!("{} {round} {}: {figures:?}", work.name(), system.name());
                }
                table.add(work, system, figures);
            }
        }
    }
    let mut out = std::io::stdout().lock();
    write!(out, "{}", table.markdown(arguments.repeat)).expect("standard output");
}
