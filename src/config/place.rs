//! Where the configuration is kept: a file of our own, or a package of OpenWrt's, which only its `uci` program changes.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::edit::EditError;
use super::model::{Config, Problem};
use super::tool::{UciError, UciTool};
use super::uci::{self, SyntaxError};
use crate::storage::rewrite;

/// OpenWrt's directory of packages.
const PACKAGES: &str = "/etc/config";

/// A configuration that could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not there or not readable.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    /// The text is not UCI.
    #[error("{0}: {1}")]
    Syntax(PathBuf, SyntaxError),
}

/// A configuration that could not be changed; it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ChangePlaceError {
    /// The edit cannot be made.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The file could not be read or written.
    #[error("cannot change {0}: {1}")]
    File(PathBuf, io::Error),
    /// `uci` did not do it.
    #[error(transparent)]
    Uci(#[from] UciError),
}

/// Where the configuration is kept.
#[derive(Debug, Clone)]
pub enum Place {
    /// A file that nobody else writes.
    File(PathBuf),
    /// A package of OpenWrt's configuration, and its file.
    Package(UciTool, String, PathBuf),
}

impl Place {
    /// The place of a configuration file: on OpenWrt what lies in `/etc/config` is changed by `uci`, with `save` for what
    /// is not committed.
    #[must_use]
    pub fn of(file: PathBuf, save: &Path) -> Self {
        let package = file.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        match (package, UciTool::find(save)) {
            (Some(package), Some(tool)) if file.parent() == Some(Path::new(PACKAGES)) => {
                Self::Package(tool, package, file)
            }
            _ => Self::File(file),
        }
    }

    /// OpenWrt's `uci`, if the configuration is one of its packages.
    #[must_use]
    pub const fn tool(&self) -> Option<&UciTool> {
        match self {
            Self::File(_) => None,
            Self::Package(tool, ..) => Some(tool),
        }
    }

    /// The name of the package, if it is one.
    #[must_use]
    pub fn package(&self) -> Option<&str> {
        match self {
            Self::File(_) => None,
            Self::Package(_, package, _) => Some(package),
        }
    }

    fn file(&self) -> &Path {
        let (Self::File(file) | Self::Package(.., file)) = self;
        file
    }

    /// Reads and types it; `before` is the configuration in force, if one is.
    ///
    /// # Errors
    /// When it cannot be read or is no UCI text; wrong values are [`Problem`]s instead.
    pub fn load(&self, before: Option<&Config>) -> Result<(Config, Vec<Problem>), LoadError> {
        let sections = self.exported().map_or_else(|| self.read(), Ok)?;
        Ok(match before {
            Some(before) => Config::from_sections_over(&sections, before),
            None => Config::from_sections(&sections),
        })
    }

    /// What `uci` makes of the package; where it makes nothing of it, the file itself says why in better words.
    fn exported(&self) -> Option<Vec<uci::Section>> {
        let Self::Package(tool, package, _) = self else { return None };
        let sections = tool.sections(package);
        if let Err(error) = &sections {
            log::debug!("{error}");
        }
        sections.ok()
    }

    fn read(&self) -> Result<Vec<uci::Section>, LoadError> {
        let path = self.file();
        let text = std::fs::read_to_string(path).map_err(|e| LoadError::Read(path.to_owned(), e))?;
        uci::parse(&text).map_err(|e| LoadError::Syntax(path.to_owned(), e))
    }

    /// Changes it by an edit of its text; `None` leaves it alone. True if it changed.
    ///
    /// # Errors
    /// When the edit, or writing it, fails.
    pub fn edit(&self, edit: impl FnOnce(&str) -> Result<Option<String>, EditError>) -> Result<bool, ChangePlaceError> {
        match self {
            Self::File(path) => {
                let failed = |e| ChangePlaceError::File(path.clone(), e);
                let text = std::fs::read_to_string(path).map_err(failed)?;
                let Some(edited) = edit(&text)? else { return Ok(false) };
                rewrite(path, edited.as_bytes()).map_err(failed)?;
                Ok(true)
            }
            Self::Package(tool, package, _) => {
                let text = tool.export(package)?;
                let Some(edited) = edit(&text)? else { return Ok(false) };
                let parse = |text: &str| uci::parse(text).map_err(EditError::Syntax);
                Ok(tool.change(package, &parse(&text)?, &parse(&edited)?)?)
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file().display().fmt(f)
    }
}
