//! An image on its way to the agent while its job is being watched.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::client::Client;
use super::{CliError, say_line};
use crate::api::types::{Started, UploadRequest};

const BLOCK: usize = 64 * 1024;

/// What is sent.
pub(super) trait Input: Send + 'static {
    /// At least one byte, or none at the end.
    fn read(&mut self, block: &mut [u8]) -> io::Result<usize>;

    /// Whether that end was the real one; if not, why.
    fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
}

impl Input for File {
    fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
        Read::read(self, block)
    }
}

/// Sends what standard input gives: all of it, or in the background while somebody watches the job that takes it. Answers
/// that job.
pub(super) fn standard_input(client: &Client, name: String, watched: bool) -> Result<Option<u32>, CliError> {
    let failed = |e: String| CliError::Failed(format!("cannot read standard input: {e}"));
    let input = io::stdin().as_fd().try_clone_to_owned().map(File::from).map_err(|e| failed(e.to_string()))?;
    let metadata = input.metadata().map_err(|e| failed(e.to_string()))?;
    let size = metadata.is_file().then_some(metadata.len());
    let request = UploadRequest { name, size, file: Some("standard input".to_owned()), pieces: false };
    let (started, connection): (Started, _) = client.open("image_upload", request)?;
    if client.json {
        say_line(&format!("{:#}", serde_json::json!({ "job": started.job })));
    }
    send_all(Vec::new(), input, connection, watched && !client.json).map_err(failed)?;
    Ok((!client.json).then_some(started.job))
}

/// Sends `first` and then everything that `input` gives; in the background while the job is `watched`.
pub(super) fn send_all(first: Vec<u8>, input: impl Input, connection: UnixStream, watched: bool) -> Result<(), String> {
    if watched {
        let sending = move || {
            if let Err(why) = send(&first, input, connection) {
                eprintln!("piboot: {why}");
            }
        };
        std::thread::Builder::new().spawn(sending).map_err(|e| e.to_string())?;
        return Ok(());
    }
    send(&first, input, connection)
}

/// Sends everything. The connection is closed in order only then: by that the agent knows that nothing is missing.
fn send(first: &[u8], mut input: impl Input, mut connection: UnixStream) -> Result<(), String> {
    let mut block = vec![0; BLOCK];
    // Where the agent takes no more, the job ended, and says why.
    if connection.write_all(first).is_err() {
        return Ok(());
    }
    loop {
        match input.read(&mut block) {
            Ok(0) => break,
            Ok(length) if connection.write_all(&block[..length]).is_err() => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    input.finish()?;
    // Kept open until the agent has taken the rest.
    let _ = connection.shutdown(Shutdown::Write);
    let _ = connection.read(&mut block[..1]);
    Ok(())
}
