//! The `dvr` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    dvr::cli::main()
}
