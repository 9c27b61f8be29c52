//! What the admin wants: the typed model of `/etc/config/piboot` and the UCI text it is written in.
//!
//! Reading never fails as a whole over one wrong value: each is reported as a [`Problem`] by section and option,
//! and the rest works on.

mod edit;
mod model;
mod names;
mod read;
pub mod uci;

pub use edit::{EditError, complete_identity, has_section, put_device, remove_device};
pub use model::{Config, Device, DhcpMode, Main, Problem, RootKind, Severity, UnknownPolicy};
pub use names::{NameError, check_device_id, check_hostname, check_image_name, device_id_from_hostname};
pub use read::is_ssh_key;

use std::path::{Path, PathBuf};

/// A configuration that could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not there or not readable.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// The text is not UCI.
    #[error("{0}: {1}")]
    Syntax(PathBuf, uci::SyntaxError),
}

/// Reads a UCI file and types it; `before` is the configuration in force, if one is.
///
/// # Errors
/// When the file cannot be read or is no UCI text; wrong values are [`Problem`]s instead.
pub fn load(path: &Path, before: Option<&Config>) -> Result<(Config, Vec<Problem>), LoadError> {
    let text = std::fs::read_to_string(path).map_err(|e| LoadError::Read(path.to_owned(), e))?;
    let sections = uci::parse(&text).map_err(|e| LoadError::Syntax(path.to_owned(), e))?;
    Ok(match before {
        Some(before) => Config::from_sections_over(&sections, before),
        None => Config::from_sections(&sections),
    })
}
