//! The programs that download: whichever of them is installed. TLS and its certificates are theirs to keep up to date.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::url::Url;
use super::{Cancel, LOOK, is_cancelled, wait};
use crate::clock::{Clock, Moment};

/// Seconds a server may be silent.
const TIMEOUT: &str = "30";
/// A size that is not known after so long is not waited for any more, and a head of more bytes is none.
const SIZE_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_HEAD: usize = 64 << 10;
/// Directories of programs where the environment names none.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// How a program that downloads wants to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// OpenWrt's own.
    UclientFetch,
    /// GNU Wget.
    Wget,
    /// Busybox's.
    Busybox,
    /// curl.
    Curl,
}

/// A program that downloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    kind: Kind,
    program: PathBuf,
}

/// No program that downloads is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "nothing here can download: install uclient-fetch (for https also libustream-mbedtls and ca-bundle), wget or curl"
)]
pub struct NoTool;

impl Tool {
    /// The first of uclient-fetch, wget and curl that is installed.
    ///
    /// # Errors
    /// When none is.
    pub fn find() -> Result<Self, NoTool> {
        let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
        Self::find_in(&path)
    }

    /// The same among the directories of `path`.
    ///
    /// # Errors
    /// When none is.
    pub(super) fn find_in(path: &OsStr) -> Result<Self, NoTool> {
        let installed = |name: &str| std::env::split_paths(path).map(|dir| dir.join(name)).find(|file| file.is_file());
        let found = ["uclient-fetch", "wget", "curl"].into_iter().find_map(|name| Some((name, installed(name)?)));
        let (name, program) = found.ok_or(NoTool)?;
        // One program may go by the name of another: on OpenWrt wget is often uclient-fetch.
        let real = program.canonicalize().unwrap_or_else(|_| program.clone());
        let real = real.file_name().map(|real| real.to_string_lossy().into_owned()).unwrap_or_default();
        let kind = match (name, real.as_str()) {
            ("curl", _) => Kind::Curl,
            ("uclient-fetch", _) | (_, "uclient-fetch") => Kind::UclientFetch,
            (_, "busybox") => Kind::Busybox,
            _ => Kind::Wget,
        };
        Ok(Self { kind, program })
    }

    /// Its name, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        self.program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Whether it can be asked for the rest of a file.
    #[must_use]
    pub fn takes_offset(&self) -> bool {
        self.kind != Kind::Busybox
    }

    /// Starts a download to its standard output, of what is behind the first `from` bytes. A server that knows no ranges
    /// sends everything all the same.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, url: &Url, from: u64) -> io::Result<Child> {
        self.command(&self.arguments(url, from)).stderr(Stdio::piped()).spawn()
    }

    fn command(&self, arguments: &[String]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).env("LC_ALL", "C");
        // uclient-fetch looks for a file of the same name in its directory when it is to go on.
        command.current_dir("/proc");
        command
    }

    fn arguments(&self, url: &Url, from: u64) -> Vec<String> {
        let mut arguments: Vec<String> = match self.kind {
            Kind::UclientFetch => vec!["-O", "-", "-T", TIMEOUT],
            Kind::Wget => vec!["--no-verbose", "--output-document=-", "--tries=1", "--timeout", TIMEOUT],
            Kind::Busybox => vec!["-O", "-", "-T", TIMEOUT],
            Kind::Curl => {
                let mut curl =
                    vec!["--silent", "--show-error", "--fail", "--location", "--globoff", "--proto", "=http,https"];
                curl.extend(["--connect-timeout", TIMEOUT, "--speed-limit", "1", "--speed-time", TIMEOUT]);
                curl
            }
        }
        .into_iter()
        .map(str::to_owned)
        .collect();
        if from > 0 {
            match self.kind {
                // It takes part of a file only when it is told to go on with one.
                Kind::UclientFetch => arguments.extend(["-c".to_owned(), format!("--header=Range: bytes={from}-")]),
                Kind::Wget => arguments.push(format!("--start-pos={from}")),
                Kind::Curl => arguments.extend(["--range".to_owned(), format!("{from}-")]),
                Kind::Busybox => {}
            }
        }
        arguments.extend(["--".to_owned(), url.as_str().to_owned()]);
        arguments
    }

    /// How a program is asked for the head of an answer alone, where it can be.
    fn head_arguments(&self, url: &Url) -> Option<Vec<String>> {
        let arguments: &[&str] = match self.kind {
            Kind::Wget => &["--spider", "--server-response", "--tries=1", "--timeout", "10"],
            Kind::Curl => &[
                "--silent",
                "--head",
                "--fail",
                "--location",
                "--globoff",
                "--proto",
                "=http,https",
                "--max-time",
                "10",
            ],
            Kind::UclientFetch | Kind::Busybox => return None,
        };
        let address = ["--", url.as_str()];
        Some(arguments.iter().chain(&address).map(|word| (*word).to_owned()).collect())
    }

    /// The size of a file, if the server tells it before it is sent, and soon.
    #[must_use]
    pub fn size(&self, url: &Url, cancel: &Cancel) -> Option<u64> {
        self.size_within(url, cancel, SIZE_TIMEOUT)
    }

    pub(super) fn size_within(&self, url: &Url, cancel: &Cancel, timeout: Duration) -> Option<u64> {
        let mut command = self.command(&self.head_arguments(url)?);
        // curl writes the head to the one, wget to the other.
        match self.kind {
            Kind::Curl => command.stderr(Stdio::null()),
            _ => command.stdout(Stdio::null()).stderr(Stdio::piped()),
        };
        let mut child = command.spawn().ok()?;
        let answer = answer(&mut child, cancel, &Deadline::after(timeout));
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
        let (text, status) = answer.ok()?;
        status.success().then(|| content_length(&String::from_utf8_lossy(&text)))?
    }

    /// A program by its path, called like curl.
    #[cfg(test)]
    pub(super) fn like_curl(program: &std::path::Path) -> Self {
        Self { kind: Kind::Curl, program: program.to_owned() }
    }
}

/// What a program writes until it ends, and how it does.
fn answer(child: &mut Child, cancel: &Cancel, deadline: &Deadline) -> io::Result<(Vec<u8>, ExitStatus)> {
    let mut text = Vec::new();
    match (child.stdout.take(), child.stderr.take()) {
        (Some(output), _) => read_until(output, &mut text, cancel, deadline)?,
        (None, Some(messages)) => read_until(messages, &mut text, cancel, deadline)?,
        (None, None) => {}
    }
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((text, status));
        }
        is_cancelled(cancel)?;
        deadline.left()?;
        std::thread::sleep(LOOK / 20);
    }
}

fn read_until(mut from: impl Read + AsFd, text: &mut Vec<u8>, cancel: &Cancel, deadline: &Deadline) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        wait([from.as_fd()], cancel, deadline.left()?)?;
        let length = from.read(&mut buffer)?;
        text.extend_from_slice(buffer.get(..length).unwrap_or_default());
        match length {
            0 => return Ok(()),
            _ if text.len() > MAX_HEAD => return Err(io::ErrorKind::InvalidData.into()),
            _ => {}
        }
    }
}

struct Deadline {
    clock: Clock,
    at: Moment,
}

impl Deadline {
    fn after(span: Duration) -> Self {
        let clock = Clock::system();
        let at = clock.now().plus(span);
        Self { clock, at }
    }

    /// The time until then, an error if there is none.
    fn left(&self) -> io::Result<Duration> {
        let left = self.at.since(self.clock.now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// The length in the last head of several: those before are redirections.
fn content_length(heads: &str) -> Option<u64> {
    let mut length = None;
    for line in heads.lines().map(str::trim) {
        if line.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("http/")) {
            length = None;
        } else if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn the_program_is_known_by_what_it_is() {
        let install = |files: &[(&str, &str)]| {
            let dir = tempfile::tempdir().unwrap();
            for (name, target) in files {
                if target.is_empty() {
                    std::fs::write(dir.path().join(name), "").unwrap();
                    std::fs::set_permissions(dir.path().join(name), PermissionsExt::from_mode(0o755)).unwrap();
                } else {
                    symlink(target, dir.path().join(name)).unwrap();
                }
            }
            Tool::find_in(dir.path().as_os_str()).map(|tool| tool.kind)
        };
        assert_eq!(install(&[]), Err(NoTool));
        assert_eq!(install(&[("curl", ""), ("wget", ""), ("uclient-fetch", "")]), Ok(Kind::UclientFetch));
        assert_eq!(install(&[("curl", ""), ("wget", "")]), Ok(Kind::Wget));
        assert_eq!(install(&[("busybox", ""), ("wget", "busybox")]), Ok(Kind::Busybox));
        assert_eq!(install(&[("curl", "")]), Ok(Kind::Curl));
    }

    #[test]
    fn the_address_is_never_an_option() {
        let url = Url::parse("http://h/x").unwrap();
        for kind in [Kind::UclientFetch, Kind::Wget, Kind::Busybox, Kind::Curl] {
            let tool = Tool { kind, program: "x".into() };
            for arguments in [Some(tool.arguments(&url, 7)), tool.head_arguments(&url)].into_iter().flatten() {
                assert_eq!(arguments[arguments.len() - 2..], ["--", "http://h/x"], "{kind:?}");
            }
        }
    }

    #[test]
    fn the_length_is_that_of_the_last_answer() {
        let heads = "HTTP/1.1 302 Found\r\nContent-Length: 5\r\nLocation: /y\r\n\r\nHTTP/2 200\r\ncontent-length: 12345678901\r\n\r\n";
        assert_eq!(content_length(heads), Some(12_345_678_901));
        assert_eq!(content_length("HTTP/1.1 302 Found\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), None);
        assert_eq!(content_length("  HTTP/1.1 200 OK\n  Content-Length: 7\n"), Some(7));
        assert_eq!(content_length("content-length: -1\ncontent-length: x"), None);
    }
}
