//! Commands about backups.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::await_job;
use crate::api::types::{BackupRequest, RestoreRequest, Started};
use crate::cli::args::{Backup, Restore};
use crate::cli::client::Client;
use crate::cli::{CliError, wait};

pub(super) fn backup(backup: Backup, client: &Client) -> Result<(), CliError> {
    let Backup { id, output, live, no_wait } = backup;
    let is_pipe = output.as_deref() == Some(Path::new("-"));
    let path = match output {
        Some(_) if is_pipe => {
            own_pipe(1, "a backup is not for a terminal: write it to a file with -o FILE, or pipe it")?
        }
        Some(path) => absolute(&path)?,
        None => absolute(Path::new(&format!("{id}.tar.zst")))?,
    };
    let request = BackupRequest { id, path, live };
    if is_pipe {
        // Standard output is the backup's.
        let started: Started = client.call("backup", request)?;
        return wait::for_job_quietly(client, started.job);
    }
    let Some(started) = client.ask::<Started>("backup", request)? else { return Ok(()) };
    await_job(client, Some(started.job), no_wait)
}

pub(super) fn restore(restore: Restore, client: &Client) -> Result<(), CliError> {
    let Restore { file, id, replace, no_wait } = restore;
    let path = match file.to_str() {
        Some("-" | "/dev/stdin") => own_pipe(0, "standard input is no pipe: name the file")?,
        _ => file.canonicalize().map_err(|e| CliError::Failed(format!("cannot use {}: {e}", file.display())))?,
    };
    let Some(started) = client.ask::<Started>("restore", RestoreRequest { path, id, replace })? else { return Ok(()) };
    await_job(client, Some(started.job), no_wait)
}

/// This process's own pipe, as the agent can open it.
fn own_pipe(number: u32, otherwise: &str) -> Result<PathBuf, CliError> {
    let path = PathBuf::from(format!("/proc/{}/fd/{number}", std::process::id()));
    match std::fs::metadata(&path) {
        Ok(meta) if meta.file_type().is_fifo() => Ok(path),
        Ok(meta) if meta.file_type().is_socket() => {
            Err(CliError::Failed("this end is a socket, which cannot be shared: put '| cat' behind it".to_owned()))
        }
        _ => Err(CliError::Failed(otherwise.to_owned())),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|e| CliError::Failed(format!("cannot use {}: {e}", path.display())))
}
