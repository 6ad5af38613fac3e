//! The built-in demonstration: a hostile agent in a real bottle, and a table of what became of its attacks.
//!
//! It needs no network: what the agent aims at is an origin and canaries of ours, and what they saw is the verdict.

mod attack;
mod client;
mod dns;
mod encode;
mod report;
mod target;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use data_encoding::HEXLOWER;
use proxy::config::{Dlp, Egress, OnMatch, Route};
use tokio::sync::{mpsc, oneshot};

use crate::backend::{Chosen, Kind, choose};
use crate::cli::CliError;
use crate::cli::start::{StartArguments, say_backend, sweep};
use crate::exit::Exit;
use crate::manifest::{Home, ImageSource, Template};
use crate::place::Private;
use crate::plan::{self, Draft, Git, Plan};
use crate::session::{self, Attach, OnGround, Options, Started};
use crate::state::State;
use crate::user::User;
use attack::{Attempt, BRIEFING, Briefing, Line, Row};
use report::{Judged, Report};
use target::{Canary, Origin};

const ORIGIN: &str = "demo-origin.test";
const WILDCARD: &str = "wild.demo-origin.test";
/// The alias of nobody: the last of the pool stands for another bottle's.
const OTHER_ALIAS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 31);
/// In a container, where the demo is root's.
const DEMO_USER: User = User {
    uid: 65532,
    gid: 65532,
};
/// The demo takes a few seconds; one that hangs must say so and end.
const PATIENCE: Duration = Duration::from_secs(120);
/// A machine boots first, and some boot slowly.
const PATIENCE_OF_MACHINES: Duration = Duration::from_secs(1200);

/// `launcher __demo-agent`: the demo's half inside of the bottle.
pub fn agent() -> Exit {
    attack::main()
}

/// `launcher start demo`, in the image of a bottle where one is named. Awaited on the main thread.
pub async fn run(arguments: &StartArguments) -> Result<Exit, CliError> {
    let image = match &arguments.bottle {
        Some(bottle) => Home::locate()?.bottle(&bottle.parse()?)?.image,
        None => None,
    };
    let image = image.unwrap_or(ImageSource::Own);
    let backend = choose(arguments.backend.as_deref(), Some(&image))?;
    let state = if arguments.dry_run {
        State::locate()?
    } else {
        State::open()?
    };
    let home = Home::locate()?;
    let private = Private::locate(state.root(), &home.path);
    let scratch = tempfile::Builder::new()
        .prefix("bot-bottle-demo-")
        .tempdir()
        .map_err(CliError::Io)?;
    let workspace = scratch.path().join("workspace");
    std::fs::create_dir(&workspace)?;
    if backend.kind == Kind::Docker {
        // Root's own would be refused: an agent in a container is never root.
        DEMO_USER.give(&workspace)?;
    }

    let origin = Origin::start(&[ORIGIN, &format!("*.{WILDCARD}")], scratch.path()).await?;
    let plan = make_plan(backend, &workspace, &origin, &state, &private)?;
    if arguments.dry_run {
        write!(io::stdout(), "{plan}")?;
        return Ok(Exit::Ok);
    }
    say_backend(&plan)?;
    sweep(&state)?;
    let canaries = vec![
        Canary::start(Ipv4Addr::LOCALHOST).await?,
        Canary::start(OTHER_ALIAS).await?,
    ];
    let mut problems = Vec::new();
    for canary in &canaries {
        if !canary.hears().await {
            problems.push(format!(
                "the canary on {} does not hear the host itself",
                canary.address
            ));
        }
    }
    let briefing = Briefing {
        origin: format!("{ORIGIN}:{}", origin.port),
        wildcard: WILDCARD.into(),
        secret: secret()?,
        canaries: canaries.iter().map(|canary| canary.address).collect(),
        hidden: hidden(&state),
    };
    let secret = briefing.secret.clone();
    let (attempts, outcome) = {
        let settings = Settings {
            keep: arguments.keep,
            timings: arguments.timings,
            on_ground: origin.on_ground(ORIGIN),
        };
        play(plan, &state, &private, briefing, settings).await?
    };
    if outcome != Exit::Ok {
        problems.push(format!(
            "the agent ended with {outcome:?} before it was through"
        ));
    }

    let hit: Vec<String> = canaries
        .iter()
        .filter(|canary| canary.hits() > 0)
        .map(|canary| canary.address.to_string())
        .collect();
    for address in &hit {
        problems.push(format!("the canary on {address} was reached"));
    }
    if origin.saw(secret.as_bytes()) {
        problems.push("the origin has the secret".into());
    }
    for (name, encoded) in encode::all(&secret) {
        if origin.saw(&encoded) {
            problems.push(format!("the origin has the secret as {name}"));
        }
    }
    let judged = attempts
        .into_iter()
        .map(|attempt| {
            let touched = matches!(
                attempt.row,
                Row::HostLoopback | Row::Udp | Row::SidecarKilled
            ) && hit.contains(&attempt.what);
            Judged {
                arrived: touched || origin.saw(attempt.marker.as_bytes()),
                attempt,
            }
        })
        .collect();
    let report = Report::new(judged, problems);
    let mut out = io::stdout().lock();
    writeln!(out, "{}\n{}", report.table(), report.verdict())?;
    Ok(if report.is_good() {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

fn make_plan(
    backend: Chosen,
    workspace: &Path,
    origin: &Origin,
    state: &State,
    private: &Private,
) -> Result<Plan, CliError> {
    let route = |host: String| Route {
        host,
        allow_private: true,
        dlp: Dlp {
            outbound_on_match: Some(OnMatch::Block),
            ..Dlp::default()
        },
        ..Route::default()
    };
    let port = origin.port;
    let draft = Draft {
        agent: "demo".parse()?,
        agent_file: None,
        bottle: "demo".into(),
        bottle_file: None,
        backend,
        template: Template::Demo,
        system_prompt: String::new(),
        prompt: None,
        headless: true,
        workspace: workspace.to_owned(),
        env: BTreeMap::new(),
        mounts: Vec::new(),
        egress: Egress {
            log: None,
            routes: vec![
                route(format!("{ORIGIN}:{port}")),
                route(format!("*.{WILDCARD}:{port}")),
            ],
        },
        git: Git::default(),
        notes: Vec::new(),
    };
    let mut plan = plan::build(draft, state, private)?;
    plan.sidecar.upstream.ca_files.push(origin.ca_file.clone());
    plan.sidecar
        .upstream
        .hosts
        .insert(ORIGIN.into(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    Ok(plan)
}

/// A fake credential that is new in every run. Lower case, so that it is a valid label of a host name too.
fn secret() -> anyhow::Result<String> {
    let mut random = [0u8; 12];
    getrandom::fill(&mut random)
        .map_err(|error| anyhow::anyhow!("the system has no randomness: {error}"))?;
    Ok(format!("demo-secret-{}", HEXLOWER.encode(&random)))
}

/// What the agent must not find; only what is there on the host proves anything by being absent.
fn hidden(state: &State) -> Vec<String> {
    let home = std::env::home_dir();
    let in_home = home
        .and_then(|home| std::fs::read_dir(home).ok())
        .into_iter()
        .flatten();
    let mut paths: Vec<PathBuf> = in_home
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    paths.truncate(8);
    paths.extend([
        state.root().to_owned(),
        "/etc/shadow".into(),
        "/etc/sudoers".into(),
    ]);
    paths
        .iter()
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect()
}

struct Settings {
    keep: bool,
    timings: bool,
    on_ground: OnGround,
}

/// Runs the bottle and listens to its agent.
async fn play(
    plan: Plan,
    state: &State,
    private: &Private,
    briefing: Briefing,
    settings: Settings,
) -> Result<(Vec<Attempt>, Exit), CliError> {
    let (from_agent, agent_out) = io::pipe()?;
    let (agent_in, to_agent) = io::pipe()?;
    let (started, has_started) = oneshot::channel::<Started>();
    let options = Options {
        attach: Attach::Pipes {
            stdin: OwnedFd::from(agent_in),
            stdout: OwnedFd::from(agent_out),
            stderr: OwnedFd::from(File::options().write(true).open("/dev/null")?),
        },
        keep: settings.keep,
        timings: settings.timings,
        on_ground: Some(settings.on_ground),
        sidecar_env: vec![("EGRESS_TOKEN_DEMO".into(), briefing.secret.clone())],
        agent_env: vec![(BRIEFING.into(), serde_json::to_string(&briefing)?)],
        on_started: Some(Box::new(move |bottle| {
            // Nobody listens any more only where the demo has failed already.
            let _unheard = started.send(bottle);
        })),
    };
    let (line, mut lines) = mpsc::channel(64);
    std::thread::Builder::new()
        .name("demo-agent".into())
        .spawn(move || {
            for text in BufReader::new(from_agent).lines() {
                let Ok(text) = text else { break };
                let Ok(parsed) = serde_json::from_str::<Line>(&text) else {
                    continue;
                };
                if line.blocking_send(parsed).is_err() {
                    break;
                }
            }
        })?;
    let listen = async {
        let mut attempts = Vec::new();
        let mut to_agent = Some(File::from(OwnedFd::from(to_agent)));
        let Ok(bottle) = has_started.await else {
            return Ok(attempts);
        };
        while let Some(line) = lines.recv().await {
            match line {
                Line::Done(attempt) => attempts.push(attempt),
                Line::KillTheSidecar => {
                    bottle
                        .sidecar
                        .kill()
                        .await
                        .context("the sidecar could not be killed")?;
                    if let Some(mut stdin) = to_agent.take() {
                        stdin.write_all(b"\n").context("the agent's input")?;
                    }
                }
            }
        }
        anyhow::Ok(attempts)
    };
    let patience = match plan.backend {
        Kind::Smolmachines | Kind::MacosContainer => PATIENCE_OF_MACHINES,
        Kind::Docker | Kind::Local => PATIENCE,
    };
    let session = session::run(plan, state, private, options);
    let both = async { tokio::join!(session, listen) };
    let (outcome, attempts) = tokio::time::timeout(patience, both)
        .await
        .with_context(|| format!("it took longer than {} s", patience.as_secs()))?;
    Ok((attempts?, outcome?.exit))
}
