//! Tells when something is mounted or unmounted, so that an SSD that comes late is used at once.
//!
//! A thread of its own, because the table of mounts is polled (proc(5): `POLLPRI` and `POLLERR` after a change); it sleeps
//! for as long as nothing changes.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::Notify;

/// Between two tellings: containers and automounters may mount by the dozen.
const PAUSE: Duration = Duration::from_millis(200);
/// The thread only waits.
const STACK: usize = 64 << 10;

/// Watches the mounts that the thread which made it sees.
#[derive(Debug)]
pub struct MountWatch(Arc<Notify>);

impl MountWatch {
    /// Starts watching.
    ///
    /// # Errors
    /// When there is no /proc, or no thread to be had.
    pub fn start() -> io::Result<Self> {
        let table = File::open("/proc/thread-self/mountinfo")?;
        let changed = Arc::new(Notify::new());
        let listener = Arc::downgrade(&changed);
        thread::Builder::new().name("mounts".to_owned()).stack_size(STACK).spawn(move || watch(&table, &listener))?;
        Ok(Self(changed))
    }

    /// Waits for a change since this was last asked; several count as one.
    pub async fn changed(&self) {
        self.0.notified().await;
    }
}

/// Ends at the first change after nobody listens any more.
fn watch(table: &File, listener: &Weak<Notify>) {
    loop {
        match poll(&mut [PollFd::new(table.as_fd(), PollFlags::POLLPRI)], PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => {
                return log::warn!("cannot watch what is mounted ({errno}): it is looked at every few seconds");
            }
        }
        let Some(listener) = listener.upgrade() else { return };
        listener.notify_one();
        drop(listener);
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};

    /// Longest that a loaded machine may take.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn a_mount_and_its_end_are_told_and_nothing_else_is() {
        // Mounts of its own, which nobody else changes.
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("run as root");
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let watch = MountWatch::start().unwrap();
            for _ in 0..3 {
                mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), None).unwrap();
                tokio::time::timeout(PATIENCE, watch.changed()).await.expect("told of the mount");
                unmount(dir.path(), UnmountFlags::empty()).unwrap();
                tokio::time::timeout(PATIENCE, watch.changed()).await.expect("told of its end");
            }
            // The kernel may count one change twice.
            while tokio::time::timeout(3 * PAUSE, watch.changed()).await.is_ok() {}
            std::fs::write(dir.path().join("file"), "x").unwrap();
            assert!(tokio::time::timeout(3 * PAUSE, watch.changed()).await.is_err(), "nothing was mounted");
        });
    }
}
