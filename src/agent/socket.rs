//! The local socket: one JSON object a line, `{"method": …, "params": …}` in, `{"result": …}` or
//! `{"error": {"code": …, "message": …}}` out. Root's alone (mode 0600). The request of a verb that takes bytes
//! ([`STREAMED`](crate::api::methods::STREAMED)) is the last of its connection: what follows the line is handed on as it comes.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use crate::api::ApiError;
use crate::api::call::{self, Call};
use crate::api::methods::is_streamed;
use crate::incoming::upload::Body;

/// Callers at once; more wait in the listen queue.
const MAX_CALLERS: usize = 16;
/// Longest request line.
const MAX_LINE: u64 = 256 * 1024;
/// A caller that says nothing for so long is hung up on.
const IDLE: Duration = Duration::from_secs(60);

/// How often, and after which pauses, it is tried whether another agent listens.
const CLOSING_TRIES: u32 = 6;
const CLOSING_PAUSE: Duration = Duration::from_millis(100);

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent answers on it.
    #[error("another piboot is running: it answers on {0}")]
    Taken(PathBuf),
    /// The system's words.
    #[error("cannot open the socket {0}: {1}")]
    Io(PathBuf, io::Error),
}

#[derive(Deserialize)]
struct Request {
    method: String,
    #[serde(default)]
    params: Value,
}

/// Opens the socket; calls go into `calls`.
///
/// # Errors
/// When another agent has it, or the directory cannot be used.
pub fn listen(path: &Path, calls: mpsc::Sender<Call>) -> Result<(), SocketError> {
    let failed = |e: io::Error| SocketError::Io(path.to_owned(), e);
    if is_taken(path) {
        return Err(SocketError::Taken(path.to_owned()));
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    // What a killed agent left: nobody answered.
    remove(path);
    // Nobody else may connect between bind and chmod. (The umask is the process's; no other thread makes files yet.)
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener.map_err(failed)?;
    // Should another thread have set the umask meanwhile after all.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    tokio::spawn(accept(listener, calls));
    Ok(())
}

/// Whether another agent listens. A killed one may seem to for a moment: what it was about to run has its descriptors
/// until exec(2) closes them.
fn is_taken(path: &Path) -> bool {
    (0..CLOSING_TRIES).all(|n| {
        if n > 0 {
            std::thread::sleep(CLOSING_PAUSE);
        }
        std::os::unix::net::UnixStream::connect(path).is_ok()
    })
}

/// Takes the socket away.
pub fn remove(path: &Path) {
    // It may never have been there.
    let _ = std::fs::remove_file(path);
}

async fn accept(listener: UnixListener, calls: mpsc::Sender<Call>) {
    let callers = Arc::new(Semaphore::new(MAX_CALLERS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = callers.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, calls).await {
                        log::debug!("a caller on the local socket: {error}");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                log::warn!("the local socket: {error}");
                // Out of descriptors: others have to close some first.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, calls: mpsc::Sender<Call>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(MAX_LINE);
        let length = tokio::time::timeout(IDLE, limited.read_until(b'\n', &mut line))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        if length == 0 {
            return Ok(());
        }
        let whole = line.last() == Some(&b'\n');
        if let Ok(request) = serde_json::from_slice::<Request>(&line)
            && is_streamed(&request.method)
        {
            return hand_on(request, reader, writer, &calls).await;
        }
        let answer = if whole || length < usize::try_from(MAX_LINE).unwrap_or(usize::MAX) {
            answer(&line, &calls).await
        } else {
            Err(ApiError::InvalidArgument(format!("a request is longer than {MAX_LINE} bytes")))
        };
        writer.write_all(said(answer).as_bytes()).await?;
        if !whole {
            return Ok(());
        }
    }
}

fn said(answer: Result<Value, ApiError>) -> String {
    let mut text = match answer {
        Ok(result) => json!({ "result": result }),
        Err(error) => json!({ "error": { "code": error.code(), "message": error.to_string() } }),
    }
    .to_string();
    text.push('\n');
    text
}

/// Hands the connection on: its bytes are read by whoever takes them, at their own pace.
async fn hand_on(
    request: Request,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    calls: &mpsc::Sender<Call>,
) -> io::Result<()> {
    let ahead = reader.buffer().to_vec();
    let stream = reader.into_inner().reunite(writer).map_err(io::Error::other)?.into_std()?;
    let mut writer = UnixStream::from_std(stream.try_clone()?)?;
    let answer = call::ask_with(calls, request.method, request.params, Some(Body { ahead, stream })).await;
    writer.write_all(said(answer).as_bytes()).await
}

async fn answer(line: &[u8], calls: &mpsc::Sender<Call>) -> Result<Value, ApiError> {
    let request: Request = serde_json::from_slice(line).map_err(|e| {
        ApiError::InvalidArgument(format!("not a request of the form {{\"method\": …, \"params\": …}}: {e}"))
    })?;
    call::ask(calls, request.method, request.params).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    async fn exchange(path: &Path, request: &[u8]) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.unwrap();
        line
    }

    #[tokio::test]
    async fn calls_are_answered_and_nonsense_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/piboot.sock");
        let (sender, mut calls) = mpsc::channel(1);
        listen(&path, sender.clone()).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(listen(&path, sender), Err(SocketError::Taken(_))));
        tokio::spawn(async move {
            while let Some(call) = calls.recv().await {
                let _ = call.reply.send(Ok(json!({ "echo": call.method, "got": call.params })));
            }
        });
        let answer = exchange(&path, b"{\"method\":\"status\",\"params\":{\"a\":1}}\n").await;
        assert_eq!(answer, "{\"result\":{\"echo\":\"status\",\"got\":{\"a\":1}}}\n");
        assert!(exchange(&path, b"hello\n").await.contains("\"code\":\"invalid_argument\""));
        let endless = vec![b'x'; usize::try_from(MAX_LINE).unwrap() + 1];
        assert!(exchange(&path, &endless).await.contains("longer than"));
    }

    #[tokio::test]
    async fn a_socket_left_by_a_killed_agent_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("piboot.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(listen(&path, mpsc::channel(1).0).is_ok());
    }
}
