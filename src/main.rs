//! The `piboot` program: `piboot serve` is the agent, every other subcommand its client.

use std::process::ExitCode;

use piboot::cli::{self, CliError};

fn main() -> ExitCode {
    match cli::run(argh::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Said) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("piboot: {error}");
            ExitCode::FAILURE
        }
    }
}
