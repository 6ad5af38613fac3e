//! `launcher why`.

use std::io::Write;

use clap::Args;

use super::CliError;
use crate::exit::Exit;
use crate::explain::{self, ExplainError};
use crate::manifest::Home;
use crate::state::State;

#[derive(Debug, Args)]
pub struct WhyArguments {
    /// An event such as evt_5f0c…, or a method
    #[arg(value_name = "EVENT-ID | METHOD")]
    first: String,
    /// Where the request goes to, such as https://api.example.com/v1/items
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// The bottle whose manifest is asked about METHOD URL
    #[arg(long, value_name = "NAME")]
    bottle: Option<String>,
}

pub(super) fn run(arguments: &WhyArguments) -> Result<Exit, CliError> {
    let text = match (&arguments.url, &arguments.bottle) {
        (None, _) => explain::event(&State::locate()?.logs(), &arguments.first)?,
        (Some(url), Some(name)) => {
            let bottle = Home::locate()?.bottle(&name.parse()?)?;
            explain::request(&bottle, &arguments.first, url)?
        }
        (Some(_), None) => {
            return Err(ExplainError::Usage("which bottle? add --bottle NAME".into()).into());
        }
    };
    write!(std::io::stdout().lock(), "{text}")?;
    Ok(Exit::Ok)
}
