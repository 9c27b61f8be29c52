//! Commands about backups.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::await_job;
use crate::api::types::{BackupRequest, ExportRequest, ImportAllRequest, RestoreRequest, Started};
use crate::cli::args::{Backup, Export, ImportAll, Restore};
use crate::cli::client::Client;
use crate::cli::{CliError, STANDARD_INPUT, wait};

pub(super) fn backup(backup: Backup, client: &Client) -> Result<(), CliError> {
    let Backup { id, output, live, no_wait } = backup;
    let (path, is_pipe) = place(output, &format!("{id}.tar.zst"))?;
    packed(client, "backup", BackupRequest { id, path, live }, is_pipe, no_wait)
}

pub(super) fn export(export: Export, client: &Client) -> Result<(), CliError> {
    let Export { output, live, no_wait } = export;
    let (path, is_pipe) = place(output, "piboot.tar.zst")?;
    packed(client, "export", ExportRequest { path, live }, is_pipe, no_wait)
}

pub(super) fn restore(restore: Restore, client: &Client) -> Result<(), CliError> {
    let Restore { file, id, replace, no_wait } = restore;
    let request = RestoreRequest { path: source(&file)?, id, replace };
    let Some(started) = client.ask::<Started>("restore", request)? else { return Ok(()) };
    await_job(client, Some(started.job), no_wait)
}

pub(super) fn import_all(import: ImportAll, client: &Client) -> Result<(), CliError> {
    let request = ImportAllRequest { path: source(&import.file)? };
    let Some(started) = client.ask::<Started>("import_all", request)? else { return Ok(()) };
    await_job(client, Some(started.job), import.no_wait)
}

/// Where an archive goes, and whether that is this process's standard output.
fn place(output: Option<PathBuf>, otherwise: &str) -> Result<(PathBuf, bool), CliError> {
    match output {
        Some(path) if path == Path::new(STANDARD_INPUT) => {
            let what = "a backup is not for a terminal: write it to a file with -o FILE, or pipe it";
            Ok((own_pipe(1, what)?, true))
        }
        Some(path) => Ok((absolute(&path)?, false)),
        None => Ok((absolute(Path::new(otherwise))?, false)),
    }
}

fn source(file: &Path) -> Result<PathBuf, CliError> {
    match file.to_str() {
        Some(STANDARD_INPUT) => own_pipe(0, "standard input is no pipe: name the file"),
        _ => file.canonicalize().map_err(|e| CliError::Failed(format!("cannot use {}: {e}", file.display()))),
    }
}

fn packed(
    client: &Client,
    method: &str,
    request: impl serde::Serialize,
    is_pipe: bool,
    no_wait: bool,
) -> Result<(), CliError> {
    if is_pipe {
        // Standard output is the archive's.
        let started: Started = client.call(method, request)?;
        return wait::for_job_quietly(client, started.job);
    }
    let Some(started) = client.ask::<Started>(method, request)? else { return Ok(()) };
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
