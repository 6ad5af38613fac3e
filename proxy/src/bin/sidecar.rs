//! The sidecar as a binary of its own, for the image.

use std::process::ExitCode;

fn main() -> ExitCode {
    proxy::cli::main(std::env::args_os())
}
