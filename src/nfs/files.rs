//! Open files, kept between requests: NFSv3 has no OPEN, so every READ and WRITE would open and close.
//!
//! A hit is worth only what the file's owner and mode still say and while the file has a name; the caller checks that
//! with the attributes it needs anyway ([`OpenFile::still_fits`]).

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::attr::Attr;
use super::creds::Identity;
use super::handle::FileHandle;
use super::shared::Verifier;
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
    opening: [u8; 8],
    /// Held from "attributes before" to "attributes after" of a WRITE, so that they belong to it alone.
    pub(super) order: Mutex<()>,
    /// Sending it without a copy failed in the middle of an answer. Read by copying it can be said which error it was.
    unsendable: AtomicBool,
    /// It was written to, and whether that reached the disk was not asked since.
    unflushed: AtomicBool,
    /// It is kept no longer: who still writes to it has to ask himself.
    retired: AtomicBool,
}

impl OpenFile {
    /// A file that was opened on this opening of the export's volume.
    pub(super) fn new(fd: OwnedFd, export: u16, opening: [u8; 8], attr: &Attr) -> Self {
        Self {
            fd,
            decided_by: (attr.mode, attr.uid, attr.gid),
            ino: attr.ino,
            export,
            opening,
            order: Mutex::new(()),
            unsendable: AtomicBool::new(false),
            unflushed: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        }
    }

    /// Data was written that may not be on the disk. To be said before [`OpenFile::is_retired`] is asked.
    pub(super) fn was_written(&self) {
        self.unflushed.store(true, Ordering::SeqCst);
    }

    /// Whether the file has been closed but for this request.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    /// Puts all that was written on the disk.
    ///
    /// # Errors
    /// What fsync(2) returns: also what went wrong when the kernel wrote by itself, once.
    pub(super) fn flush(&self) -> Result<(), Errno> {
        // Before: what is written meanwhile is not in it.
        self.unflushed.store(false, Ordering::SeqCst);
        rustix::fs::fsync(&self.fd)
    }

    /// Whether closing it now could lose an error of the kernel's writing.
    fn is_owed_an_answer(&self) -> bool {
        // Nobody misses the data of a file without names.
        self.unflushed.load(Ordering::SeqCst) && rustix::fs::fstat(&self.fd).is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// Asks before the file is closed, if need be.
    ///
    /// # Errors
    /// As [`OpenFile::flush`].
    pub(super) fn last_flush(&self) -> Result<(), Errno> {
        if self.is_owed_an_answer() { self.flush() } else { Ok(()) }
    }

    /// Whether the kernel may send its data by itself.
    pub(super) fn is_sendable(&self) -> bool {
        !self.unsendable.load(Ordering::Relaxed)
    }

    /// The kernel could not send its data by itself.
    pub(super) fn not_sendable(&self) {
        self.unsendable.store(true, Ordering::Relaxed);
    }

    /// Whether it belongs to the volume as it is open now. A request that was under way when the export was taken away
    /// may have left it here after the others were closed.
    pub(super) fn is_of(&self, opening: [u8; 8]) -> bool {
        self.opening == opening
    }

    /// Whether the decision to open still holds: same volume, same owner and mode, and not deleted.
    pub(super) fn still_fits(&self, opening: [u8; 8], attr: &Attr) -> bool {
        self.is_of(opening) && attr.nlink > 0 && self.decided_by == (attr.mode, attr.uid, attr.gid)
    }
}

#[derive(Debug)]
struct Kept {
    file: Arc<OpenFile>,
    used: Moment,
}

/// The cache.
#[derive(Debug)]
pub(super) struct OpenFiles {
    kept: Mutex<HashMap<Key, Kept>>,
    /// To the thread that closes files, while there is one.
    closing: Mutex<Option<SyncSender<Arc<OpenFile>>>>,
    verifier: Arc<Verifier>,
}

impl OpenFiles {
    /// An empty cache, and the files to close, for [`OpenFile::last_flush`] and dropping: that may take its time, for the
    /// disk or to free the blocks of a large file that was deleted.
    pub(super) fn new(verifier: Arc<Verifier>) -> (Self, Receiver<Arc<OpenFile>>) {
        let (sender, receiver) = mpsc::sync_channel(MAX_OPEN);
        (Self { kept: Mutex::default(), closing: Mutex::new(Some(sender)), verifier }, receiver)
    }

    /// Lets the thread that closes files end when it has closed them.
    pub(super) fn stop(&self) {
        *self.closing.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Hands a file over to be closed; back if there are too many.
    fn hand_over(&self, file: Arc<OpenFile>) -> Result<(), Arc<OpenFile>> {
        let closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = &*closing else { return Ok(()) };
        sender.try_send(file).map_err(|(TrySendError::Full(file) | TrySendError::Disconnected(file))| file)
    }

    /// Closes a file: elsewhere, if the disk has to be asked first.
    fn close(&self, file: Arc<OpenFile>) {
        file.retired.store(true, Ordering::SeqCst);
        if file.is_owed_an_answer() && self.hand_over(file).is_err() {
            // A disk hangs. Clients send again what they did not commit, and nobody waits here.
            self.verifier.change();
        }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Key, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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
        // Not under the lock.
        closed.into_iter().chain(replaced).for_each(|kept| self.close(kept.file));
    }

    /// A WRITE-opened file of this handle, whoever opened it: for COMMIT.
    pub(super) fn any_writer(&self, handle: &FileHandle) -> Option<Arc<OpenFile>> {
        let kept = self.kept();
        kept.iter().find(|(key, _)| key.mode == Mode::Write && key.handle == *handle).map(|(_, k)| Arc::clone(&k.file))
    }

    pub(super) fn forget(&self, handle: &FileHandle, identity: &Identity, mode: Mode) {
        let gone = self.kept().remove(&Key { handle: *handle, identity: *identity, mode });
        gone.into_iter().for_each(|kept| self.close(kept.file));
    }

    /// Closes what is open of an object that is about to lose a name.
    pub(super) fn forget_object(&self, export: u16, ino: u64) {
        self.take_if(|kept| kept.file.export == export && kept.file.ino == ino)
            .into_iter()
            .for_each(|(_, kept)| self.close(kept.file));
    }

    /// Whether anything of this export is open at all: spares callers the work of finding out an inode number.
    pub(super) fn holds_any(&self, export: u16) -> bool {
        self.kept().values().any(|k| k.file.export == export)
    }

    /// Closes what is open of an export that is gone or changed, before this returns: the volume may be about to be
    /// unmounted. What was not committed is sent again, because the next opening has another verifier.
    pub(super) fn forget_export(&self, export: u16) {
        drop(self.take_if(|kept| kept.file.export == export));
    }

    /// Closes what nobody used for a while. Never waits.
    pub(super) fn expire(&self, now: Moment) {
        for (key, Kept { file, used }) in self.take_if(|kept| now.since(kept.used) >= IDLE) {
            file.retired.store(true, Ordering::SeqCst);
            if let Err(file) = self.hand_over(file) {
                // Next time.
                file.retired.store(false, Ordering::SeqCst);
                self.kept().entry(key).or_insert(Kept { file, used });
            }
        }
    }

    fn take_if(&self, condition: impl Fn(&Kept) -> bool) -> Vec<(Key, Kept)> {
        self.kept().extract_if(|_, kept| condition(kept)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.kept().len()
    }
}
