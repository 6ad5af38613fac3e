//! `launcher check`.

use std::io::Write;
use std::path::PathBuf;

use super::CliError;
use crate::exit::Exit;
use crate::manifest::{Home, check_file};

pub(super) fn run(files: &[PathBuf]) -> Result<Exit, CliError> {
    let all;
    let files = if files.is_empty() {
        all = Home::locate()?.files(&std::env::current_dir()?);
        &all
    } else {
        files
    };
    let mut out = std::io::stdout().lock();
    let mut wrong = 0usize;
    for file in files {
        match check_file(file) {
            Ok(kind) => writeln!(out, "ok     {kind} {}", file.display())?,
            Err(mistake) => {
                wrong += 1;
                writeln!(out, "error  {mistake}")?;
            }
        }
    }
    if files.is_empty() {
        writeln!(
            std::io::stderr(),
            "there are no manifests; docs/MANIFESTS.md shows how to write one"
        )?;
    }
    Ok(if wrong == 0 { Exit::Ok } else { Exit::Usage })
}
