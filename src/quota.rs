//! How much of the disk the files of one device take, followed through every change that its Pi makes, and how much they
//! may take.
//!
//! What counts is what du(1) counts: the blocks of each file once, whatever it is called. A [`Census`] looks at every file;
//! from then on each [`Change`] says what a file takes before and after it. Both may go on at the same time: while a census
//! lasts, what it found and what changes is kept by file, and whoever came last is right.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files whose last account is remembered. What the file system gives or takes back between two changes of one of them
/// (blocks that were set aside and not needed, blocks of its own book-keeping) is counted with the second.
const RECENT: usize = 64;
/// Files that a census keeps apart, 30 MB of memory at most while it lasts; those beyond count once a name.
const MAX_COUNTED: usize = 900_000;

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

/// What a census found, and what has changed since it began.
#[derive(Debug, Default)]
struct Counted {
    files: HashMap<FileId, u64>,
    beyond: u64,
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
        Ok(Some(Change { quota: self, file, promised: more, epoch: account.epoch }))
    }

    /// Begins to look at all files: whoever does tells of each. One that was under way before ends without a result.
    #[must_use]
    pub fn census(&self) -> Census {
        let mut account = self.account();
        account.censuses = account.censuses.wrapping_add(1);
        account.census = Some(Counted::default());
        (account.is_doubted, account.has_refused, account.has_changed) = (false, false, false);
        Census { quota: self.clone(), number: account.censuses }
    }
}

impl Account {
    /// Changes under way, and censuses, have nothing to do with what comes now.
    fn begin_anew(&mut self) {
        let (limit, epoch, censuses) = (self.limit, self.epoch.wrapping_add(1), self.censuses);
        *self = Self { limit, epoch, censuses, ..Self::default() };
    }

    fn has_room(&mut self, bytes: u64) -> Result<(), Full> {
        let (Some(limit), Some(used)) = (self.limit, self.used) else { return Ok(()) };
        if bytes > 0 && used.saturating_add(self.promised).saturating_add(bytes) > limit {
            self.has_refused = true;
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

impl Counted {
    fn has_place(&self, file: FileId) -> bool {
        self.files.len() < MAX_COUNTED || self.files.contains_key(&file)
    }

    /// A file as the census found it, unless it was counted by then.
    fn find(&mut self, file: FileId, takes: u64) {
        if self.has_place(file) {
            self.files.entry(file).or_insert(takes);
        } else {
            self.beyond = self.beyond.saturating_add(takes);
        }
    }

    /// A file as a change left it.
    fn set(&mut self, file: FileId, before: u64, takes: u64) {
        if self.has_place(file) {
            self.files.insert(file, takes);
        } else {
            self.beyond = self.beyond.saturating_add(takes).saturating_sub(before);
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
}

impl Change<'_> {
    /// The file takes so many bytes now, nothing if it has no name any more. `look` asks again, for the case that others
    /// have changed it at the same time.
    pub fn end(self, takes: u64, look: impl FnOnce() -> Option<u64>) {
        let mut account = self.quota.account();
        if account.epoch != self.epoch {
            return;
        }
        let is_contended = account.recent.iter().any(|recent| recent.file == self.file && recent.is_contended);
        // Asked with the account in hand, so that nobody's later answer was counted before.
        let takes = if is_contended { look().unwrap_or(takes) } else { takes };
        account.settle(self.file, takes);
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let mut account = self.quota.account();
        if account.epoch == self.epoch {
            account.leave(self.file, self.promised);
        }
    }
}

/// A look at all files of a device. Dropped without an end it has no result.
#[derive(Debug)]
pub struct Census {
    quota: Quota,
    number: u32,
}

impl Census {
    /// Tells of a file; again and again of one with several names. False if nobody waits for the result any more.
    #[must_use]
    pub fn find(&self, file: FileId, takes: u64) -> bool {
        let mut account = self.quota.account();
        let is_wanted = account.censuses == self.number;
        match account.census.as_mut().filter(|_| is_wanted) {
            Some(census) => {
                census.find(file, takes);
                true
            }
            None => false,
        }
    }

    /// Whether somebody waits for the result.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        let account = self.quota.account();
        account.censuses == self.number && account.census.is_some()
    }

    /// All files were told of: what they take is in force from now on.
    pub fn end(self) {
        let mut account = self.quota.account();
        if account.censuses != self.number {
            return;
        }
        let Some(census) = account.census.take() else { return };
        let sum: u64 = census.files.values().fold(census.beyond, |sum, takes| sum.saturating_add(*takes));
        account.used = Some(sum);
        // Changes under way go on from what was counted of their files, if anything was.
        account.recent.retain(|recent| recent.active > 0);
        for recent in &mut account.recent {
            recent.counted = census.files.get(&recent.file).copied().unwrap_or(0);
        }
        drop(account);
        // The table is large.
        drop(census);
    }
}

impl Drop for Census {
    fn drop(&mut self) {
        let mut account = self.quota.account();
        if account.censuses == self.number && account.census.take().is_some() {
            account.is_doubted = true;
        }
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
