//! What changes to an export mean for its quota. Nothing is asked of the file system where there is none.

use std::os::fd::AsFd;

use rustix::fs::{FileType, SeekFrom, seek};
use rustix::io::Errno;

use super::Op;
use crate::nfs::attr::Attr;
use crate::nfs::fs::object;
use crate::quota::{BLOCK, Change, FileId, Full, Quota, takes};

impl From<Full> for Errno {
    fn from(_: Full) -> Self {
        Self::DQUOT
    }
}

/// A change of one object, if it is to be counted. Dropped before its end it was none.
pub(super) struct Charge<'a>(Option<Change<'a>>);

impl Charge<'_> {
    /// The object has changed, and is `after` now.
    pub(super) fn end(self, after: Option<&Attr>, object: impl AsFd) {
        if let (Some(change), Some(after)) = (self.0, after) {
            change.end(taken(after), || object::stat_at(object.as_fd(), c"").ok().as_ref().map(taken));
        }
    }

    /// The object has changed; asks what it is now.
    pub(super) fn look(self, object: impl AsFd) {
        if self.0.is_some() {
            let after = object::stat_at(object.as_fd(), c"").ok();
            self.end(after.as_ref(), object);
        }
    }

    /// The object is gone.
    pub(super) fn gone(self) {
        if let Some(change) = self.0 {
            change.end(0, || None);
        }
    }
}

impl<'a> Op<'a> {
    /// The quota that counts for this call, if there is one.
    pub(super) fn quota(&self) -> Option<&'a Quota> {
        self.grant.entry.export.quota.as_ref().filter(|quota| quota.has_limit())
    }

    /// Begins a change of an object that takes no more room, or less.
    pub(super) fn charge(&self, before: &Attr) -> Charge<'a> {
        Charge(self.quota().and_then(|quota| quota.begin(id(before), taken(before), 0).ok().flatten()))
    }

    /// Begins writing into a file; `may_grow`: into a hole, or beyond its end.
    ///
    /// # Errors
    /// `EDQUOT`.
    pub(super) fn charge_write(
        &self,
        before: &Attr,
        file: impl AsFd,
        offset: u64,
        count: u64,
        may_grow: bool,
    ) -> Result<Charge<'a>, Errno> {
        let Some(quota) = self.quota() else { return Ok(Charge(None)) };
        let more = if may_grow { growth(before, offset, count) } else { 0 };
        let begin = |more| quota.begin(id(before), taken(before), more);
        match begin(more) {
            // Its holes may be elsewhere.
            Err(Full) if is_filled(file, offset, count) => Ok(Charge(begin(0)?)),
            begun => Ok(Charge(begun?)),
        }
    }

    /// Counts an object that was just made.
    pub(super) fn charge_new(&self, made: &Attr, object: impl AsFd) {
        if let Some(change) = self.quota().and_then(|quota| quota.begin(id(made), 0, 0).ok().flatten()) {
            Charge(Some(change)).end(Some(made), object);
        }
    }
}

fn id(attr: &Attr) -> FileId {
    let (major, minor) = attr.place.dev;
    FileId { device: rustix::fs::makedev(major, minor), inode: attr.ino }
}

/// What an object counts with: nothing without a name, though it may be open still.
fn taken(attr: &Attr) -> u64 {
    if attr.nlink == 0 { 0 } else { takes(attr.kind == FileType::RegularFile, attr.size, attr.used) }
}

/// Bytes of blocks that a WRITE may need, beside those that the file has.
fn growth(before: &Attr, offset: u64, count: u64) -> u64 {
    let up = |bytes: u64| bytes.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
    let begin = offset - offset % BLOCK;
    // Without holes all blocks up to its end are there.
    let there = if before.used < before.size { 0 } else { up(before.size) };
    up(offset.saturating_add(count)).saturating_sub(begin.max(there))
}

/// Whether all of this part of a file has its blocks.
fn is_filled(file: impl AsFd, offset: u64, count: u64) -> bool {
    // Where the descriptor stands means nothing here: data is read and written by offset.
    seek(file, SeekFrom::Hole(offset)).is_ok_and(|hole| hole >= offset.saturating_add(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_taken_to_need_the_blocks_that_are_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let attr = object::stat_at(std::fs::File::open(dir.path()).unwrap().as_fd(), c"").unwrap();
        for (size, used, offset, count, more) in [
            (0, 0, 0, 1, 4096),
            (0, 0, 0, 4097, 8192),
            (100, 4096, 100, 3996, 0),
            (100, 4096, 100, 3997, 4096),
            (8192, 8192, 0, 8192, 0),
            (8192, 8192, 4096, 8192, 4096),
            // Beyond the end: what lies between becomes a hole.
            (4096, 4096, 1 << 30, 10, 4096),
            (4096, 4096, (1 << 30) + 4090, 10, 8192),
            // Somewhere in it are holes.
            (1 << 20, 8192, 4096, 8192, 8192),
            (1 << 20, 8192, 4097, 1, 4096),
            (0, 0, u64::MAX - 10, 100, 4095),
        ] {
            assert_eq!(growth(&Attr { size, used, ..attr }, offset, count), more, "{size} {used} {offset} {count}");
        }
    }
}
