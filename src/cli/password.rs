//! Passwords from a terminal or standard input: hashed here, so that no other program ever sees them.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::CliError;
use crate::config::PasswordHash;

/// Longest line taken: what is longer is no password.
const MAX_LINE: u64 = 4096;

/// Where a password comes from.
#[derive(Debug)]
pub(super) enum PasswordSource {
    /// It is not to be set.
    None,
    /// Typed, or the first line of standard input.
    Input,
    /// Hashed already.
    Hash(PasswordHash),
}

impl PasswordSource {
    /// From what the command line says; the hash counts, if both are given.
    pub(super) fn from(is_input: bool, hash: Option<PasswordHash>) -> Self {
        match hash {
            Some(hash) => Self::Hash(hash),
            None if is_input => Self::Input,
            None => Self::None,
        }
    }
}

/// The hash of a password, if one is to be set.
pub(super) fn hash(source: PasswordSource) -> Result<Option<PasswordHash>, CliError> {
    let password = match source {
        PasswordSource::None => return Ok(None),
        PasswordSource::Hash(hash) => return Ok(Some(hash)),
        PasswordSource::Input if std::io::stdin().is_terminal() => {
            let (first, second) = (typed("Password: ")?, typed("Once more: ")?);
            if first != second {
                return Err(CliError::Failed("these are two passwords".to_owned()));
            }
            first
        }
        PasswordSource::Input => line()?,
    };
    PasswordHash::of(&password).map(Some).map_err(|e| CliError::Failed(e.to_string()))
}

fn line() -> Result<String, CliError> {
    let failed = |e: std::io::Error| CliError::Failed(format!("cannot read the password: {e}"));
    let mut line = String::new();
    std::io::stdin().lock().take(MAX_LINE).read_line(&mut line).map_err(failed)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// A line that the terminal does not show.
fn typed(prompt: &str) -> Result<String, CliError> {
    eprint!("{prompt}");
    let _ = std::io::stderr().flush();
    let stdin = std::io::stdin();
    let failed = |e: rustix::io::Errno| CliError::Failed(format!("cannot ask for the password: {e}"));
    let shown = tcgetattr(stdin.as_fd()).map_err(failed)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(stdin.as_fd(), OptionalActions::Flush, &hidden).map_err(failed)?;
    let read = line();
    let restored = tcsetattr(stdin.as_fd(), OptionalActions::Now, &shown);
    eprintln!();
    restored.map_err(failed)?;
    read
}
