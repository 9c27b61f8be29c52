//! Open files, kept between requests: NFSv3 has no OPEN, so every READ and WRITE would open and close.
//!
//! A hit is worth only what the file's owner and mode still say and while the file has a name; the caller checks that
//! with the attributes it needs anyway ([`OpenFile::still_fits`]).

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::attr::Attr;
use super::creds::Identity;
use super::handle::FileHandle;
use crate::clock::Moment;

/// Files kept open at most.
const MAX_OPEN: usize = 128;
/// Files nobody used for this long are closed, so that volumes can be unmounted and deleted space is freed.
const IDLE: Duration = Duration::from_secs(20);

/// What a file was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    Read,
    Write,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    handle: FileHandle,
    identity: Identity,
    mode: Mode,
}

/// An open regular file, and what its permissions were when that was decided.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) fd: OwnedFd,
    decided_by: (u32, u32, u32),
    ino: u64,
    export: u16,
    /// Held from "attributes before" to "attributes after" of a WRITE, so that they belong to it alone.
    pub(super) order: Mutex<()>,
    /// Sending it without a copy failed in the middle of an answer. Read by copying it can be said which error it was.
    unsendable: AtomicBool,
}

impl OpenFile {
    pub(super) fn new(fd: OwnedFd, export: u16, attr: &Attr) -> Self {
        Self {
            fd,
            decided_by: (attr.mode, attr.uid, attr.gid),
            ino: attr.ino,
            export,
            order: Mutex::new(()),
            unsendable: AtomicBool::new(false),
        }
    }

    /// Whether the kernel may send its data by itself.
    pub(super) fn is_sendable(&self) -> bool {
        !self.unsendable.load(Ordering::Relaxed)
    }

    /// The kernel could not send its data by itself.
    pub(super) fn not_sendable(&self) {
        self.unsendable.store(true, Ordering::Relaxed);
    }

    /// Whether the decision to open still holds: same owner and mode, and not deleted.
    pub(super) fn still_fits(&self, attr: &Attr) -> bool {
        attr.nlink > 0 && self.decided_by == (attr.mode, attr.uid, attr.gid)
    }
}

#[derive(Debug)]
struct Kept {
    file: Arc<OpenFile>,
    used: Moment,
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct OpenFiles(Mutex<HashMap<Key, Kept>>);

impl OpenFiles {
    fn kept(&self) -> MutexGuard<'_, HashMap<Key, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(
        &self,
        handle: &FileHandle,
        identity: &Identity,
        mode: Mode,
        now: Moment,
    ) -> Option<Arc<OpenFile>> {
        let mut kept = self.kept();
        let hit = kept.get_mut(&Key { handle: *handle, identity: *identity, mode })?;
        hit.used = now;
        Some(Arc::clone(&hit.file))
    }

    pub(super) fn put(&self, handle: &FileHandle, identity: &Identity, mode: Mode, file: &Arc<OpenFile>, now: Moment) {
        let mut kept = self.kept();
        let mut closed = None;
        if kept.len() >= MAX_OPEN
            && let Some(oldest) = kept.iter().min_by_key(|(_, k)| k.used).map(|(key, _)| key.clone())
        {
            closed = kept.remove(&oldest);
        }
        let key = Key { handle: *handle, identity: *identity, mode };
        let replaced = kept.insert(key, Kept { file: Arc::clone(file), used: now });
        drop(kept);
        // Closing may write; not under the lock.
        drop((closed, replaced));
    }

    /// A WRITE-opened file of this handle, whoever opened it: for COMMIT.
    pub(super) fn any_writer(&self, handle: &FileHandle) -> Option<Arc<OpenFile>> {
        let kept = self.kept();
        kept.iter().find(|(key, _)| key.mode == Mode::Write && key.handle == *handle).map(|(_, k)| Arc::clone(&k.file))
    }

    pub(super) fn forget(&self, handle: &FileHandle, identity: &Identity, mode: Mode) {
        let gone = self.kept().remove(&Key { handle: *handle, identity: *identity, mode });
        drop(gone);
    }

    /// Closes what is open of an object that is about to lose a name.
    pub(super) fn forget_object(&self, export: u16, ino: u64) {
        self.close_if(|file, _| file.export == export && file.ino == ino);
    }

    /// Whether anything of this export is open at all: spares callers the work of finding out an inode number.
    pub(super) fn holds_any(&self, export: u16) -> bool {
        self.kept().values().any(|k| k.file.export == export)
    }

    /// Closes what is open of an export that is gone or changed.
    pub(super) fn forget_export(&self, export: u16) {
        self.close_if(|file, _| file.export == export);
    }

    /// Closes what nobody used for a while.
    pub(super) fn expire(&self, now: Moment) {
        self.close_if(|_, used| now.since(used) >= IDLE);
    }

    fn close_if(&self, condition: impl Fn(&OpenFile, Moment) -> bool) {
        let closed: Vec<Kept> =
            self.kept().extract_if(|_, kept| condition(&kept.file, kept.used)).map(|(_, kept)| kept).collect();
        drop(closed);
    }

    pub(super) fn len(&self) -> usize {
        self.kept().len()
    }
}
