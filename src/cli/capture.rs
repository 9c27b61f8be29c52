//! An image of a Pi that runs: its own tar, by way of the ssh that is installed here, to the agent.

use std::io::Read;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::args::ImageCapture;
use super::client::Client;
use super::upload::{self, Input};
use super::{CliError, say_line};
use crate::api::types::{Started, UploadRequest};

/// What the Pi's shell runs: the root's file system, and that of the boot files where it is one of its own. Whatever the
/// kernel makes up (/proc, /run …) is on others, and so left out. An archive of pax format keeps capabilities.
const REMOTE: &str = r#"set -- .
for place in ./boot/firmware ./boot; do mountpoint -q "/$place" && set -- "$@" "$place"; done
sudo=; [ "$(id -u)" = 0 ] || sudo='sudo -n'
exec $sudo tar --create --file=- --directory=/ --format=posix --one-file-system --numeric-owner --xattrs --sparse --warning=no-file-changed --warning=no-file-ignored --exclude=./lost+found --exclude=./var/swap "$@""#;

/// tar's word for "some files changed while they were read" (its manual, "Return Value"): so they do on a Pi that runs.
const FILES_CHANGED: i32 = 1;

/// Takes an image of a Pi; answers the job that imports it.
pub(super) fn pi(client: &Client, wanted: &ImageCapture) -> Result<Option<u32>, CliError> {
    let failed = |why: String| CliError::Failed(format!("cannot take an image of {}: {why}", wanted.from));
    // It would be an option of ssh, and some of them run programs.
    if wanted.from.is_empty() || wanted.from.starts_with('-') || !wanted.from.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(CliError::Failed(format!("'{}' is no host for ssh: [user@]host", wanted.from)));
    }
    let mut command = Command::new("ssh");
    if let Some(port) = wanted.port {
        command.args(["-p", &port.to_string()]);
    }
    command.args([&wanted.from, REMOTE]).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|e| failed(format!("ssh cannot be started ({e}); is it installed?")))?;
    let output = child.stdout.take().ok_or_else(|| failed("ssh gives no output".to_owned()))?;
    let mut tar = RemoteTar { child, output };
    // Nothing is begun before the Pi lets us in.
    let mut first = vec![0; 512];
    let length = tar.output.read(&mut first).map_err(|e| failed(e.to_string()))?;
    first.truncate(length);
    if first.is_empty() {
        tar.finish().map_err(failed)?;
        return Err(failed("its tar gave nothing".to_owned()));
    }
    let host = wanted.from.rsplit('@').next().unwrap_or_default();
    let request =
        UploadRequest { name: wanted.name.clone(), size: None, file: Some(format!("{host}.tar")), pieces: false };
    let (started, connection): (Started, _) = client.open("image_upload", request)?;
    if client.json {
        say_line(&format!("{:#}", serde_json::json!({ "job": started.job })));
    }
    let watched = !wanted.no_wait && !client.json;
    upload::send_all(first, tar, connection, watched).map_err(failed)?;
    Ok((!client.json).then_some(started.job))
}

/// The other end of the connection to the Pi. Ended when dropped.
struct RemoteTar {
    child: Child,
    output: ChildStdout,
}

impl Input for RemoteTar {
    fn read(&mut self, block: &mut [u8]) -> std::io::Result<usize> {
        self.output.read(block)
    }

    fn finish(&mut self) -> Result<(), String> {
        let status = self.child.wait().map_err(|e| e.to_string())?;
        match status.code() {
            Some(0 | FILES_CHANGED) => Ok(()),
            Some(code) => Err(format!("ssh or the tar of the Pi ended with status {code}, see above")),
            None => Err("ssh was killed".to_owned()),
        }
    }
}

impl Drop for RemoteTar {
    fn drop(&mut self) {
        // It has ended, or what it sends is wanted no more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
