//! A look at all files of a device, while its Pi goes on changing them.

use std::collections::HashMap;

use super::{FileId, Quota};

/// Files that a census keeps apart, 30 MB of memory at most while it lasts; those beyond count once a name.
const MAX_COUNTED: usize = 900_000;

/// What a census found, and what has changed since it began.
#[derive(Debug, Default)]
pub(super) struct Counted {
    files: HashMap<FileId, u64>,
    beyond: u64,
    /// A directory was moved meanwhile: what is in it may have been missed.
    may_be_short: bool,
}

impl Counted {
    /// A directory is moved.
    pub(super) const fn may_have_missed(&mut self) {
        self.may_be_short = true;
    }

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
    pub(super) fn set(&mut self, file: FileId, before: u64, takes: u64) {
        if self.has_place(file) {
            self.files.insert(file, takes);
        } else {
            self.beyond = self.beyond.saturating_add(takes).saturating_sub(before);
        }
    }
}

impl Quota {
    /// Begins to look at all files: whoever does tells of each. One that was under way before ends without a result.
    #[must_use]
    pub fn census(&self) -> Census {
        let mut account = self.account();
        account.censuses = account.censuses.wrapping_add(1);
        account.census = Some(Counted { may_be_short: account.moving > 0, ..Counted::default() });
        (account.is_doubted, account.has_refused, account.has_changed) = (false, false, false);
        Census { quota: self.clone(), number: account.censuses }
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

    /// All files were told of: what they take is in force from now on. Where directories were moved meanwhile it is no less
    /// than what was known before, and is to be counted again some time.
    pub fn end(self) {
        let mut account = self.quota.account();
        if account.censuses != self.number {
            return;
        }
        let Some(census) = account.census.take() else { return };
        let sum: u64 = census.files.values().fold(census.beyond, |sum, takes| sum.saturating_add(*takes));
        if census.may_be_short && account.used.is_some_and(|used| used > sum) {
            // What was followed until now is at least as good; whoever moves directories does not get room by it.
            account.has_changed = true;
            return;
        }
        account.has_changed |= census.may_be_short;
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
