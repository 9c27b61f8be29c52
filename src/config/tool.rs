//! OpenWrt's `uci` program: the one way to change a package without taking along, or losing, what an admin has set and
//! not committed yet. Changes are staged in a directory of our own, looked at, and only then committed.

use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::change::{self, ChangeError};
use super::uci::{self, Section, SyntaxError};

/// Where OpenWrt has the program, for an agent that was started without a PATH.
const PROGRAMS: [&str; 2] = ["/sbin/uci", "/usr/bin/uci"];
/// Packages longer than this are not read: even large ones have some hundred KB.
const MAX_OUTPUT: usize = 4 << 20;

/// Why a package could not be read or changed. Nothing was committed, unless the error says so.
#[derive(Debug, thiserror::Error)]
pub enum UciError {
    /// The program could not be run.
    #[error("cannot run {0}: {1}")]
    Run(PathBuf, io::Error),
    /// The program reported an error.
    #[error("'uci {command}' failed: {said}")]
    Failed {
        /// What was asked.
        command: String,
        /// What it said.
        said: String,
    },
    /// What it exported is no UCI text.
    #[error("what 'uci export {0}' prints cannot be read: {1}")]
    Syntax(String, SyntaxError),
    /// The change cannot be put in commands.
    #[error("the package {0} cannot be changed: {1}")]
    Change(String, ChangeError),
    /// The program took the commands for something else.
    #[error("the package {0} was left as it was, because 'uci' would have made something else of it than was asked")]
    Mismatch(String),
    /// The private directory cannot be made.
    #[error("cannot use {0} for changes of the configuration: {1}")]
    Save(PathBuf, io::Error),
}

/// The program, and the directory where it keeps what is not committed yet.
#[derive(Debug, Clone)]
pub struct UciTool {
    program: PathBuf,
    save: PathBuf,
}

impl UciTool {
    /// The program of this machine, if it has one; `save` is a directory for this agent alone.
    #[must_use]
    pub fn find(save: &Path) -> Option<Self> {
        let in_path = std::env::var_os("PATH").unwrap_or_default();
        let mut candidates =
            std::env::split_paths(&in_path).map(|dir| dir.join("uci")).chain(PROGRAMS.iter().map(PathBuf::from));
        let program = candidates.find(|program| program.is_file())?;
        Some(Self { program, save: save.to_owned() })
    }

    /// The text of a package as it is committed.
    ///
    /// # Errors
    /// [`UciError`].
    pub fn export(&self, package: &str) -> Result<String, UciError> {
        self.empty_save()?;
        self.run(&["export", package], None)
    }

    /// The sections of a package as it is committed.
    ///
    /// # Errors
    /// [`UciError`].
    pub fn sections(&self, package: &str) -> Result<Vec<Section>, UciError> {
        parse(package, &self.export(package)?)
    }

    /// Makes the package, which is `before` now, say what `after` says, and commits that; true if that took a change.
    ///
    /// # Errors
    /// [`UciError`].
    pub fn change(&self, package: &str, before: &[Section], after: &[Section]) -> Result<bool, UciError> {
        let refused = |error| UciError::Change(package.to_owned(), error);
        let commands = change::commands(package, before, after).map_err(refused)?;
        if commands.is_empty() {
            return Ok(false);
        }
        self.empty_save()?;
        let staged = self
            .run(&["batch"], Some(&commands))
            .and_then(|_| self.run(&["export", package], None))
            .and_then(|text| parse(package, &text))
            .and_then(|staged| {
                let is_right = change::is_same(package, &staged, after);
                if is_right { Ok(()) } else { Err(UciError::Mismatch(package.to_owned())) }
            });
        let result = staged.and_then(|()| self.run(&["commit", package], None)).map(|_| true);
        // What is left there would be taken along by the next commit.
        self.empty_save()?;
        result
    }

    fn empty_save(&self) -> Result<(), UciError> {
        let failed = |error| UciError::Save(self.save.clone(), error);
        match std::fs::remove_dir_all(&self.save) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.save).map_err(failed)
    }

    fn run(&self, arguments: &[&str], input: Option<&str>) -> Result<String, UciError> {
        let cannot = |error| UciError::Run(self.program.clone(), error);
        let mut child = Command::new(&self.program)
            .arg("-t")
            .arg(&self.save)
            .args(arguments)
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(cannot)?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            // A program that ended early says why on its standard error.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(cannot)?;
        let said = String::from_utf8_lossy(&output.stderr);
        // `uci batch` reports a bad line and goes on, successfully.
        if !output.status.success() || (input.is_some() && !said.trim().is_empty()) || output.stdout.len() > MAX_OUTPUT
        {
            let said = said.trim();
            let said = if said.is_empty() { output.status.to_string() } else { said.to_owned() };
            return Err(UciError::Failed { command: arguments.join(" "), said });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn parse(package: &str, text: &str) -> Result<Vec<Section>, UciError> {
    uci::parse(text).map_err(|error| UciError::Syntax(package.to_owned(), error))
}
