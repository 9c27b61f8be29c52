//! The `piboot` program: `piboot serve` is the agent, every other subcommand its client.

use std::process::ExitCode;

use piboot::cgi;
use piboot::cli::{self, CliError};

fn main() -> ExitCode {
    // As a CGI it gets no arguments.
    let name = std::env::args_os().next().map(std::path::PathBuf::from);
    if name.as_deref().and_then(std::path::Path::file_name).is_some_and(|name| name == cgi::NAME) {
        return if cgi::run().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match cli::run(cli::arguments()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Said) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("piboot: {error}");
            ExitCode::FAILURE
        }
    }
}
