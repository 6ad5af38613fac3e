//! `launcher supervise`, `approve`, `reject`, `revoke`.

use std::collections::HashSet;
use std::io::{self, BufRead, Write};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{CliError, Format};
use crate::escape::{self, Escaped};
use crate::exit::Exit;
use crate::operator::{self, Desk, OperatorError, Pending, Which};
use crate::session::terminal;

/// Between two looks at what waits.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub struct WhichArguments {
    /// A bottle's name as `list` shows it, or an agent's; default: all that run
    #[arg(long, value_name = "NAME")]
    bottle: Option<String>,
    /// A sidecar that no launcher started: `unix:/path` or 127.0.0.1:PORT, its token in BOT_BOTTLE_CONTROL_TOKEN
    #[arg(long, value_name = "ADDRESS", conflicts_with = "bottle")]
    control: Option<String>,
}

#[derive(Debug, Args)]
pub struct SuperviseArguments {
    /// Print what waits, and end
    #[arg(long)]
    once: bool,
    /// Print the approvals and rejections that hold, and end
    #[arg(long, conflicts_with = "once")]
    decisions: bool,
    /// How --once and --decisions print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    which: WhichArguments,
}

#[derive(Debug, Args)]
pub struct ApproveArguments {
    /// What waits, such as evt_5f0c….1, as `supervise` and the refusal name it
    #[arg(value_name = "ID")]
    id: String,
    /// How long the same value may pass, on the same route and in the same place: 30s, 10m, 2h; default 10m
    #[arg(long = "for", value_name = "DURATION")]
    lasting: Option<Lasting>,
    /// Only the request that waits; the next one is asked about again
    #[arg(long, conflicts_with = "lasting")]
    once: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    which: WhichArguments,
}

#[derive(Debug, Args)]
pub struct RejectArguments {
    /// What waits, such as evt_5f0c….1
    #[arg(value_name = "ID")]
    id: String,
    /// Why; the agent reads it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    which: WhichArguments,
}

#[derive(Debug, Args)]
pub struct RevokeArguments {
    /// A decision, as `supervise --decisions` names it
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    which: WhichArguments,
}

impl WhichArguments {
    fn which(&self) -> Which {
        Which {
            bottle: self.bottle.clone(),
            control: self.control.clone(),
        }
    }
}

/// `90`, `30s`, `10m`, `2h`, up to a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting(u64);

#[derive(Debug, thiserror::Error)]
#[error("a duration is a number with s, m or h, such as 30s, 10m or 2h, and at most 24h")]
pub struct LastingError;

impl FromStr for Lasting {
    type Err = LastingError;

    fn from_str(text: &str) -> Result<Self, LastingError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or(LastingError)?;
        let number: u64 = number.parse().map_err(|_| LastingError)?;
        let unit = match unit {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(LastingError),
        };
        match number.checked_mul(unit) {
            Some(seconds @ 1..=86400) => Ok(Self(seconds)),
            _ => Err(LastingError),
        }
    }
}

fn block_on<T>(future: impl Future<Output = Result<T, OperatorError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(future)?)
}

pub(super) fn supervise(arguments: &SuperviseArguments) -> Result<Exit, CliError> {
    let which = arguments.which.which();
    if arguments.decisions {
        return decisions(&which, arguments.format);
    }
    if !arguments.once {
        if !terminal::is_there() {
            return Err(OperatorError::NoTerminal.into());
        }
        return block_on(follow(&which));
    }
    let pending = match operator::desks(&which) {
        // An empty list, for a script, is one.
        Err(OperatorError::NothingRuns) if arguments.format == Format::Json => Vec::new(),
        desks => {
            let desks = desks?;
            block_on(operator::pending(&desks))?
        }
    };
    let mut out = io::stdout().lock();
    if arguments.format == Format::Json {
        writeln!(
            out,
            "{}",
            escape::json(&serde_json::to_string_pretty(&pending)?)
        )?;
        return Ok(Exit::Ok);
    }
    for (at, one) in pending.iter().enumerate() {
        write!(out, "{}{one}", if at > 0 { "\n" } else { "" })?;
    }
    if pending.is_empty() {
        writeln!(io::stderr(), "nothing waits")?;
    }
    Ok(Exit::Ok)
}

#[derive(Debug, Serialize, Deserialize)]
struct Decided {
    id: String,
    verdict: String,
    by: String,
    reason: String,
    credential: String,
    location: String,
    value: String,
    host: String,
    seconds_left: u64,
}

fn decisions(which: &Which, format: Format) -> Result<Exit, CliError> {
    let desks = operator::desks(which)?;
    let mut all: Vec<Decided> = Vec::new();
    for desk in &desks {
        let listed = desk.client.get::<Vec<Decided>>("/v1/decisions");
        all.extend(block_on(async { Ok(listed.await?) })?);
    }
    let mut out = io::stdout().lock();
    if format == Format::Json {
        writeln!(
            out,
            "{}",
            escape::json(&serde_json::to_string_pretty(&all)?)
        )?;
        return Ok(Exit::Ok);
    }
    for one in &all {
        writeln!(
            out,
            "{}  {}  {} s left  {} in {} (#{}) to {}  by {}  {}",
            Escaped(&one.id),
            Escaped(&one.verdict),
            one.seconds_left,
            Escaped(&one.credential),
            Escaped(&one.location),
            Escaped(&one.value),
            Escaped(&one.host),
            Escaped(&one.by),
            Escaped(&one.reason)
        )?;
    }
    if all.is_empty() {
        writeln!(io::stderr(), "no decision holds")?;
    }
    Ok(Exit::Ok)
}

#[derive(Debug, Deserialize)]
struct Answered {
    waiting: bool,
    until: Option<String>,
    credential: String,
    host: String,
}

async fn answer(
    desk: &Desk,
    id: &str,
    verb: &str,
    body: serde_json::Value,
) -> Result<Answered, OperatorError> {
    let path = format!("/v1/pending/{id}/{verb}");
    desk.client
        .post(&path, &body)
        .await
        .map_err(|source| OperatorError::Bottle {
            bottle: desk.bottle.clone(),
            source,
        })
}

fn approval(lasting: Option<Lasting>, once: bool, reason: &str) -> serde_json::Value {
    json!({
        "by": operator::operator(),
        "reason": reason,
        "once": once,
        "for_seconds": lasting.map(|Lasting(seconds)| seconds),
    })
}

fn told(pending: &Pending, answered: &Answered, verdict: &str) -> String {
    let mut text = format!(
        "{verdict}: {} in {} to {}",
        Escaped(&answered.credential),
        Escaped(&pending.location),
        Escaped(&answered.host)
    );
    if verdict == "approved" {
        text.push_str(if answered.waiting {
            "; the request that waits goes on"
        } else {
            "; the request no longer waits, its next try goes through"
        });
        if let Some(until) = &answered.until {
            text.push_str(&format!(
                "; the same value may pass there until {}",
                Escaped(until)
            ));
        }
    } else {
        text.push_str("; the agent reads your reason");
    }
    text
}

pub(super) fn approve(arguments: &ApproveArguments) -> Result<Exit, CliError> {
    let desks = operator::desks(&arguments.which.which())?;
    let body = approval(arguments.lasting, arguments.once, &arguments.reason);
    let text = block_on(async {
        let (desk, pending) = operator::find(&desks, &arguments.id).await?;
        let answered = answer(desk, &pending.id, "approve", body).await?;
        Ok(told(&pending, &answered, "approved"))
    })?;
    writeln!(io::stdout(), "{text}")?;
    Ok(Exit::Ok)
}

pub(super) fn reject(arguments: &RejectArguments) -> Result<Exit, CliError> {
    let desks = operator::desks(&arguments.which.which())?;
    let body = json!({ "by": operator::operator(), "reason": arguments.reason });
    let text = block_on(async {
        let (desk, pending) = operator::find(&desks, &arguments.id).await?;
        let answered = answer(desk, &pending.id, "reject", body).await?;
        Ok(told(&pending, &answered, "rejected"))
    })?;
    writeln!(io::stdout(), "{text}")?;
    Ok(Exit::Ok)
}

pub(super) fn revoke(arguments: &RevokeArguments) -> Result<Exit, CliError> {
    let desks = operator::desks(&arguments.which.which())?;
    let id = &arguments.id;
    let unknown = || OperatorError::Unknown(Escaped(id).to_string());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
    if id.is_empty() || !id.bytes().all(plain) {
        return Err(unknown().into());
    }
    let by: String = operator::operator()
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() && !"&#?%".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    let revoked = block_on(async {
        for desk in &desks {
            let path = format!("/v1/decisions/{id}?by={by}");
            match desk.client.delete::<Decided>(&path).await {
                Ok(revoked) => return Ok(revoked),
                Err(operator::ClientError::Refused { status: 404, .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(unknown())
    })?;
    writeln!(
        io::stdout(),
        "taken back: {} of {} in {} to {}",
        Escaped(&revoked.verdict),
        Escaped(&revoked.credential),
        Escaped(&revoked.location),
        Escaped(&revoked.host)
    )?;
    Ok(Exit::Ok)
}

/// Shows what comes to wait and asks, until the operator has had enough.
async fn follow(which: &Which) -> Result<Exit, OperatorError> {
    let mut seen = HashSet::new();
    let mut out = io::stdout();
    writeln!(out, "waiting for requests that need an answer; end with ^C")?;
    loop {
        let desks = match operator::desks(which) {
            Err(OperatorError::NothingRuns | OperatorError::NoSuchBottle(_)) => Vec::new(),
            desks => desks?,
        };
        let pending = match operator::pending(&desks).await {
            // A bottle that has just ended.
            Err(OperatorError::Bottle {
                source: operator::ClientError::Unreachable(..),
                ..
            }) => Vec::new(),
            pending => pending?,
        };
        for one in pending.iter().filter(|one| one.is_waiting()) {
            if !seen.insert(one.id.clone()) {
                continue;
            }
            writeln!(out, "\n{one}")?;
            if !ask(&desks, one).await? {
                return Ok(Exit::Ok);
            }
        }
        // What is gone does not come back.
        seen.retain(|id| pending.iter().any(|one| one.id == *id));
        tokio::time::sleep(LOOK).await;
    }
}

/// False: the operator has had enough.
async fn ask(desks: &[Desk], pending: &Pending) -> Result<bool, OperatorError> {
    let mut out = io::stdout();
    loop {
        let line = prompt("approve for [10m], approve this [o]nce, [r]eject, [s]kip, [q]uit? ")?;
        let Some(line) = line else { return Ok(false) };
        let (verb, body) = match line.trim() {
            "q" => return Ok(false),
            "s" => return Ok(true),
            "o" => ("approve", approval(None, true, "")),
            "r" => match prompt("why? the agent reads it: ")? {
                Some(reason) if !reason.trim().is_empty() => (
                    "reject",
                    json!({ "by": operator::operator(), "reason": reason.trim() }),
                ),
                _ => continue,
            },
            // An empty line is what one types by accident.
            text => match text.parse() {
                Ok(lasting) => ("approve", approval(Some(lasting), false, "")),
                Err(_) => continue,
            },
        };
        let found = operator::find(desks, &pending.id).await;
        let answered = match found {
            Ok((desk, _)) => answer(desk, &pending.id, verb, body).await,
            Err(error) => Err(error),
        };
        let verdict = if verb == "approve" {
            "approved"
        } else {
            "rejected"
        };
        match answered {
            Ok(answered) => writeln!(out, "{}", told(pending, &answered, verdict))?,
            Err(error) => writeln!(out, "{error}")?,
        }
        return Ok(true);
    }
}

fn prompt(text: &str) -> io::Result<Option<String>> {
    let mut out = io::stdout();
    write!(out, "{text}")?;
    out.flush()?;
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line)?;
    Ok((read > 0).then_some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let seconds = |text: &str| text.parse().ok().map(|Lasting(seconds)| seconds);
        for (text, expected) in [("90", 90), ("30s", 30), ("10m", 600), ("24h", 86400)] {
            assert_eq!(seconds(text), Some(expected));
        }
        for text in [
            "",
            "0",
            "0s",
            "25h",
            "1d",
            "-1m",
            "10 m",
            "m",
            "99999999999999999999h",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
