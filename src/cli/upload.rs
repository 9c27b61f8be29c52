//! An image from standard input, on its way to the agent while its job is being watched.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::client::Client;
use super::{CliError, say_line};
use crate::api::types::{Started, UploadRequest};

const BLOCK: usize = 64 * 1024;

/// Sends what standard input gives: all of it, or in the background while somebody watches the job that takes it. Answers
/// that job.
pub(super) fn standard_input(client: &Client, name: String, watched: bool) -> Result<Option<u32>, CliError> {
    let failed = |e: io::Error| CliError::Failed(format!("cannot read standard input: {e}"));
    let input = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    let metadata = input.metadata().map_err(failed)?;
    let size = metadata.is_file().then_some(metadata.len());
    let request = UploadRequest { name, size, file: Some("standard input".to_owned()), pieces: false };
    let (started, connection): (Started, _) = client.open("image_upload", request)?;
    if client.json {
        say_line(&format!("{:#}", serde_json::json!({ "job": started.job })));
    }
    if watched && !client.json {
        std::thread::Builder::new().spawn(move || send(input, connection)).map_err(failed)?;
    } else {
        send(input, connection).map_err(failed)?;
    }
    Ok((!client.json).then_some(started.job))
}

/// Sends everything. The connection is closed in order only then: by that the agent knows that nothing is missing.
fn send(mut input: File, mut connection: UnixStream) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        match input.read(&mut block) {
            Ok(0) => break,
            // The job ended, and says why.
            Ok(length) if connection.write_all(&block[..length]).is_err() => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // Kept open until the agent has taken the rest.
    let _ = connection.shutdown(Shutdown::Write);
    let _ = connection.read(&mut block[..1]);
    Ok(())
}
