//! What changes to an export mean for its quota. Nothing is asked of the file system where there is none.

use std::os::fd::AsFd;

use rustix::fs::{FileType, SeekFrom, seek};
use rustix::io::Errno;

use super::Op;
use crate::nfs::attr::Attr;
use crate::nfs::fs::object;
use crate::nfs::space;
use crate::quota::{BLOCK, Change, FileId, Full, Moving, Quota, takes};

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

    /// Takes room for a new name.
    ///
    /// # Errors
    /// `EDQUOT`, unless `is_there`: one that is there already needs none.
    pub(super) fn room_for_name(&self, is_there: impl FnOnce() -> bool) -> Result<(), Errno> {
        let Some(quota) = self.quota() else { return Ok(()) };
        match quota.has_room(space::NAME) {
            Err(Full) if !is_there() => Err(refuse(quota)),
            _ => Ok(()),
        }
    }

    /// Begins moving an object to another place among the names.
    pub(super) fn moving(&self, object: &Attr) -> Option<Moving<'a>> {
        self.quota().filter(|_| object.kind == FileType::Directory).map(Quota::moving)
    }

    /// Begins writing into a file; `may_grow`: into a hole, or beyond its end. Answers how many of `count` bytes there is
    /// room for, which is at least one.
    ///
    /// # Errors
    /// `EDQUOT`; `ESTALE` for a file that has no name any more.
    pub(super) fn charge_write(
        &self,
        before: &Attr,
        file: impl AsFd,
        offset: u64,
        count: u64,
        may_grow: bool,
    ) -> Result<(Charge<'a>, u64), Errno> {
        let Some(quota) = self.quota() else { return Ok((Charge(None), count)) };
        let more = if may_grow { growth(before, offset, count) } else { 0 };
        if more > 0 && self.own(*before).nlink == 0 {
            // It counts nothing, and is there only until nobody has it open; then this is what every call is answered.
            return Err(Errno::STALE);
        }
        let begin = |more| quota.begin(id(before), taken(before), more);
        match begin(more) {
            Ok(begun) => Ok((Charge(begun), count)),
            // Its holes may be elsewhere, or begin only behind what is there.
            Err(Full) => match filled(file, before.size, offset).min(count) {
                0 => Err(refuse(quota)),
                there => Ok((Charge(begin(0).map_err(|Full| refuse(quota))?), there)),
            },
        }
    }

    /// Counts an object that was just made.
    pub(super) fn charge_new(&self, made: &Attr, object: impl AsFd) {
        if let Some(change) = self.quota().and_then(|quota| quota.begin(id(made), 0, 0).ok().flatten()) {
            Charge(Some(change)).end(Some(made), object);
        }
    }
}

fn refuse(quota: &Quota) -> Errno {
    quota.refuse();
    Errno::DQUOT
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

/// Bytes from `offset` on for which a file has its blocks.
fn filled(file: impl AsFd, size: u64, offset: u64) -> u64 {
    // Beyond the end no hole is found; its last block may have room.
    let Some(from) = size.checked_sub(1).map(|last| last.min(offset)) else { return 0 };
    // Where the descriptor stands means nothing here: data is read and written by offset.
    match seek(file, SeekFrom::Hole(from)) {
        Ok(end) if end >= size => end.checked_next_multiple_of(BLOCK).unwrap_or(end).saturating_sub(offset),
        Ok(hole) => hole.saturating_sub(offset),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

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

    #[test]
    fn what_is_there_of_a_file_ends_at_its_first_hole_or_with_its_last_block() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create_new(dir.path().join("file")).unwrap();
        let write = |offset, length| file.write_all_at(&vec![7; length], offset).unwrap();
        let there = |size, offset| filled(&file, size, offset);
        assert_eq!(there(0, 0), 0);
        write(0, 5000);
        for (offset, bytes) in [(0, 8192), (4999, 3193), (5000, 3192), (8191, 1), (8192, 0), (1 << 40, 0)] {
            assert_eq!(there(5000, offset), bytes, "{offset}");
        }
        write(1 << 20, 100);
        let size = (1 << 20) + 100;
        for (offset, bytes) in [(0, 8192), (8192, 0), (1 << 19, 0), (1 << 20, 4096), ((1 << 20) + 4096, 0)] {
            assert_eq!(there(size, offset), bytes, "{offset}");
        }
        file.set_len(1 << 21).unwrap();
        assert_eq!(there(1 << 21, (1 << 21) - 1), 0, "the end is a hole");
        assert_eq!(there(1 << 21, 1 << 21), 0, "and so is what is behind it");
    }
}
