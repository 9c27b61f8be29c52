//! Images on their way here: uploaded over the local socket, or downloaded by the router's own programs. Both are plain
//! readers that notice when nobody wants them any more, and whose errors are sentences.

pub mod digest;
pub mod download;
pub mod os_list;
pub mod tool;
pub mod upload;
pub mod url;

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Set once nobody wants the bytes any more.
pub type Cancel = Arc<AtomicBool>;

/// How often a reader that waits looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(200);

fn is_cancelled(cancel: &Cancel) -> io::Result<()> {
    if cancel.load(Ordering::Relaxed) { Err(io::Error::other("cancelled")) } else { Ok(()) }
}

/// Waits until one of `files` has something to read, or its end; answers for each what `poll` says.
///
/// # Errors
/// When cancelled, or of kind `TimedOut` when nothing came for `idle`.
fn wait<const N: usize>(files: [BorrowedFd<'_>; N], cancel: &Cancel, idle: Duration) -> io::Result<[PollFlags; N]> {
    let mut left = idle;
    loop {
        is_cancelled(cancel)?;
        let mut polled = files.map(|file| PollFd::new(file, PollFlags::POLLIN));
        let step = LOOK.min(left);
        let ready = poll(&mut polled, PollTimeout::try_from(step).unwrap_or(PollTimeout::MAX));
        match ready {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {
                left = left.saturating_sub(step);
                if left.is_zero() {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            Ok(_) => return Ok(polled.map(|file| file.revents().unwrap_or(PollFlags::empty()))),
            Err(error) => return Err(error.into()),
        }
    }
}
