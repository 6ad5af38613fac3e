//! Arguments, the library, an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    launcher::cli::main(std::env::args_os())
}
