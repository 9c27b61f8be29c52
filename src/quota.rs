//! How much of the disk the files of one device take, followed through every change that its Pi makes, and how much they
//! may take.
//!
//! What counts is what du(1) counts: the blocks of each file once, whatever it is called. A [`Census`] looks at every file;
//! from then on each [`Change`] says what a file takes before and after it. Both may go on at the same time: while a census
//! lasts, what it found and what changes is kept by file, and whoever came last is right.

mod census;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use census::Counted;

pub use census::Census;

/// Files whose last account is remembered. What the file system gives or takes back between two changes of one of them
/// (blocks that were set aside and not needed, blocks of its own book-keeping) is counted with the second.
const RECENT: usize = 64;

/// What file systems give out at a time, at most.
pub const BLOCK: u64 = 4096;

/// Tells a file from others of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Device number of its file system.
    pub device: u64,
    /// Its inode number there.
    pub inode: u64,
}

/// What a file counts with that has `blocks` bytes of blocks. XFS sets blocks aside behind the end of a file that grows, as
/// many again as it has, and takes them back some time after: nobody asked for those.
#[must_use]
pub const fn takes(is_file: bool, size: u64, blocks: u64) -> u64 {
    match size.checked_next_multiple_of(BLOCK) {
        Some(end) if is_file && end < blocks => end,
        _ => blocks,
    }
}

/// The device's files would take more than they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Why a census should be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// There is no reason to.
    None,
    /// Files have changed since the last one.
    Changed,
    /// Somebody was refused room since the last one.
    Refused,
    /// Nobody knows what the files take, or others than the Pi have changed them.
    Unknown,
}

/// A device's quota and what is used of it; copies are the same one. Without a limit nothing is counted.
#[derive(Debug, Clone, Default)]
pub struct Quota(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    has_limit: AtomicBool,
    account: Mutex<Account>,
}

#[derive(Debug, Default)]
struct Account {
    limit: Option<u64>,
    used: Option<u64>,
    /// What changes under way may take.
    promised: u64,
    /// The one used last is at the end.
    recent: Vec<Recent>,
    census: Option<Counted>,
    /// Directories that are being moved: a census may meet what is in one twice, or not at all.
    moving: u32,
    /// How many there were: the number of the last one.
    censuses: u32,
    /// Changes that began in another one say nothing of this.
    epoch: u32,
    is_doubted: bool,
    has_refused: bool,
    has_changed: bool,
}

#[derive(Debug)]
struct Recent {
    file: FileId,
    /// What it is counted with.
    counted: u64,
    /// Changes under way.
    active: u32,
    /// There was more than one at a time: what each saw may be out of order.
    is_contended: bool,
}

/// The same quota, not the same figures: what did not change but in these is the same export.
impl PartialEq for Quota {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Quota {}

impl Quota {
    /// A quota of so many bytes; `None`: there is no limit, and nothing is counted.
    #[must_use]
    pub fn new(limit: Option<u64>) -> Self {
        let quota = Self::default();
        quota.set_limit(limit);
        quota
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.0.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the limit. What is counted stays counted, as long as there is one.
    pub fn set_limit(&self, limit: Option<u64>) {
        let mut account = self.account();
        if account.limit == limit {
            return;
        }
        if account.limit.is_none() || limit.is_none() {
            account.begin_anew();
        }
        account.limit = limit;
        account.has_refused = false;
        self.0.has_limit.store(limit.is_some(), Ordering::Relaxed);
    }

    /// Whether there is a limit.
    #[must_use]
    pub fn has_limit(&self) -> bool {
        self.0.has_limit.load(Ordering::Relaxed)
    }

    /// The limit, in bytes.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        self.account().limit
    }

    /// Bytes that the files take, once that is known.
    #[must_use]
    pub fn used(&self) -> Option<u64> {
        self.account().used
    }

    /// Limit and use together, once both are known.
    #[must_use]
    pub fn figures(&self) -> Option<(u64, u64)> {
        let account = self.account();
        account.limit.zip(account.used)
    }

    /// Whether somebody was refused room since the last census.
    #[must_use]
    pub fn has_refused(&self) -> bool {
        self.account().has_refused
    }

    /// Why a census should be taken.
    #[must_use]
    pub fn doubt(&self) -> Doubt {
        let account = self.account();
        match () {
            () if account.limit.is_none() || account.census.is_some() => Doubt::None,
            () if account.used.is_none() || account.is_doubted => Doubt::Unknown,
            () if account.has_refused => Doubt::Refused,
            () if account.has_changed => Doubt::Changed,
            () => Doubt::None,
        }
    }

    /// Others have changed files: a census should be taken. Until then the figures from before are in force.
    pub fn put_in_doubt(&self) {
        self.account().is_doubted = true;
    }

    /// The files are others now: nothing is known, and nothing refused, until the next census.
    pub fn forget(&self) {
        self.account().begin_anew();
    }

    /// Somebody was refused room, for good: what [`Full`] says may not be the last word on a call.
    pub fn refuse(&self) {
        let mut account = self.account();
        account.has_refused |= account.limit.is_some();
    }

    /// A directory is being moved, with all that is in it, until what this returns is dropped.
    #[must_use]
    pub fn moving(&self) -> Moving<'_> {
        let mut account = self.account();
        account.moving = account.moving.saturating_add(1);
        account.census.iter_mut().for_each(Counted::may_have_missed);
        Moving(self)
    }

    /// Whether `bytes` more may be taken. Until it is known what is taken, they may.
    ///
    /// # Errors
    /// [`Full`].
    pub fn has_room(&self, bytes: u64) -> Result<(), Full> {
        self.account().has_room(bytes)
    }

    /// A change of a file that takes `now` bytes, and that may make it take `more` than that. `None` without a limit.
    ///
    /// # Errors
    /// [`Full`]; never where `more` is zero.
    pub fn begin(&self, file: FileId, now: u64, more: u64) -> Result<Option<Change<'_>>, Full> {
        let mut account = self.account();
        if account.limit.is_none() {
            return Ok(None);
        }
        account.has_room(more)?;
        account.promised = account.promised.saturating_add(more);
        let recent = account.recent(file, now);
        recent.is_contended |= recent.active > 0;
        recent.active = recent.active.saturating_add(1);
        Ok(Some(Change { quota: self, file, promised: more, epoch: account.epoch, is_over: false }))
    }
}

impl Account {
    /// Changes under way, and censuses, have nothing to do with what comes now.
    fn begin_anew(&mut self) {
        let (limit, epoch, censuses, moving) = (self.limit, self.epoch.wrapping_add(1), self.censuses, self.moving);
        *self = Self { limit, epoch, censuses, moving, ..Self::default() };
    }

    fn has_room(&self, bytes: u64) -> Result<(), Full> {
        let (Some(limit), Some(used)) = (self.limit, self.used) else { return Ok(()) };
        if bytes > 0 && used.saturating_add(self.promised).saturating_add(bytes) > limit {
            return Err(Full);
        }
        Ok(())
    }

    /// What is remembered of a file, which then was used last; of another one, that it takes `now` bytes.
    fn recent(&mut self, file: FileId, now: u64) -> &mut Recent {
        let known = self.recent.iter().position(|recent| recent.file == file).map(|place| self.recent.remove(place));
        if known.is_none() && self.recent.len() >= RECENT {
            // More changes than these are not under way at a time; if they were, they would be remembered too.
            if let Some(idle) = self.recent.iter().position(|recent| recent.active == 0) {
                self.recent.remove(idle);
            }
        }
        let recent = known.unwrap_or(Recent { file, counted: now, active: 0, is_contended: false });
        self.recent.push_mut(recent)
    }

    fn settle(&mut self, file: FileId, takes: u64) {
        let Some(recent) = self.recent.iter_mut().find(|recent| recent.file == file) else { return };
        let before = std::mem::replace(&mut recent.counted, takes);
        self.has_changed |= before != takes;
        self.used = self.used.map(|used| used.saturating_add(takes).saturating_sub(before));
        if let Some(census) = &mut self.census {
            census.set(file, before, takes);
        }
    }

    fn leave(&mut self, file: FileId, promised: u64) {
        self.promised = self.promised.saturating_sub(promised);
        if let Some(recent) = self.recent.iter_mut().find(|recent| recent.file == file) {
            recent.active = recent.active.saturating_sub(1);
            recent.is_contended &= recent.active > 0;
        }
    }
}

/// A change of a file that is under way. Dropped without an end it leaves the account as it was.
#[derive(Debug)]
pub struct Change<'a> {
    quota: &'a Quota,
    file: FileId,
    promised: u64,
    epoch: u32,
    is_over: bool,
}

impl Change<'_> {
    /// The file takes so many bytes now, nothing if it has no name any more. `look` asks again, for the case that others
    /// have changed it at the same time.
    pub fn end(mut self, takes: u64, look: impl FnOnce() -> Option<u64>) {
        let mut account = self.quota.account();
        if account.epoch != self.epoch {
            return;
        }
        let is_contended = account.recent.iter().any(|recent| recent.file == self.file && recent.is_contended);
        // Asked with the account in hand, so that nobody's later answer was counted before.
        let takes = if is_contended { look().unwrap_or(takes) } else { takes };
        account.settle(self.file, takes);
        // In the same breath: what was promised and what was taken of it would count twice.
        account.leave(self.file, self.promised);
        self.is_over = true;
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut account = self.quota.account();
        if account.epoch == self.epoch {
            account.leave(self.file, self.promised);
        }
    }
}

/// A directory that is being moved.
#[derive(Debug)]
pub struct Moving<'a>(&'a Quota);

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        let mut account = self.0.account();
        account.moving = account.moving.saturating_sub(1);
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
