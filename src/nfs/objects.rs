//! Objects kept open between requests: what a client has asked about, it asks about again within moments, and opening a
//! handle costs as much as the question.
//!
//! An `O_PATH` descriptor gives no access to data, so one serves all callers. It keeps a deleted object in existence,
//! though: who takes one from here looks at the attributes, which it needs anyway, and what loses a name by a request is
//! forgotten at once. Nor does one outlive the volume as it was opened: a request that was under way when the export was
//! taken away may put its object here after the others were closed, but nobody finds it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::FileType;

use super::attr::Attr;
use super::fs::Object;
use super::handle::{FileHandle, Opened};
use crate::clock::Moment;

/// Objects kept open at most: sets times ways. Within its set an object takes the place of the one unused longest.
const SETS: usize = 32;
const WAYS: usize = 4;
/// What nobody asked about for this long is closed, so that what was deleted on the router frees its space.
const IDLE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Kept {
    handle: FileHandle,
    opening: [u8; 8],
    object: Arc<Object>,
    export: u16,
    ino: u64,
    is_dir: bool,
    used: Moment,
}

type Sets = [[Option<Kept>; WAYS]; SETS];

/// The cache.
#[derive(Debug, Default)]
pub(super) struct Objects(Mutex<Sets>);

impl Objects {
    fn sets(&self) -> MutexGuard<'_, Sets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object of this handle, if it is open on this opening of the volume.
    pub(super) fn get(&self, opening: [u8; 8], handle: &FileHandle, now: Moment) -> Option<Arc<Object>> {
        let mut sets = self.sets();
        let mut set = sets[set_of(handle)].iter_mut().flatten();
        let kept = set.find(|kept| kept.opening == opening && kept.handle == *handle)?;
        kept.used = now;
        Some(Arc::clone(&kept.object))
    }

    /// Keeps an object that was opened by this handle.
    pub(super) fn put(&self, opening: [u8; 8], handle: &Opened, object: &Arc<Object>, attr: &Attr, now: Moment) {
        let Opened { wire: handle, export, .. } = handle;
        let new = Kept {
            handle: *handle,
            opening,
            object: Arc::clone(object),
            export: *export,
            ino: attr.ino,
            is_dir: attr.kind == FileType::Directory,
            used: now,
        };
        let mut sets = self.sets();
        let set = &mut sets[set_of(handle)];
        let same = set.iter().position(|way| way.as_ref().is_some_and(|kept| kept.handle == *handle));
        let oldest = || set.iter().enumerate().min_by_key(|(_, way)| way.as_ref().map(|kept| kept.used));
        let Some(place) = same.or_else(|| oldest().map(|(place, _)| place)) else { return };
        let replaced = set[place].replace(new);
        drop(sets);
        // Closing may free blocks: not under the lock.
        drop(replaced);
    }

    /// Whether anything but directories of this export is open: spares callers the work of finding out an inode number.
    pub(super) fn holds_any_file(&self, export: u16) -> bool {
        self.sets().iter().flatten().flatten().any(|kept| kept.export == export && !kept.is_dir)
    }

    /// Closes what this handle opened.
    pub(super) fn forget(&self, handle: &FileHandle) {
        drop(self.take_if(|kept| kept.handle == *handle));
    }

    /// Closes an object that is about to lose a name.
    pub(super) fn forget_object(&self, export: u16, ino: u64) {
        drop(self.take_if(|kept| kept.export == export && kept.ino == ino));
    }

    /// Closes everything of an export, before this returns: the volume may be about to be unmounted.
    pub(super) fn forget_export(&self, export: u16) {
        drop(self.take_if(|kept| kept.export == export));
    }

    /// Closes what nobody asked about for a while.
    pub(super) fn expire(&self, now: Moment) {
        drop(self.take_if(|kept| now.since(kept.used) >= IDLE));
    }

    fn take_if(&self, condition: impl Fn(&Kept) -> bool) -> Vec<Kept> {
        self.sets().iter_mut().flatten().filter_map(|way| way.take_if(|kept| condition(kept))).collect()
    }
}

fn set_of(handle: &FileHandle) -> usize {
    // The remainder fits any integer.
    usize::try_from(handle.checksum() % SETS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags};

    use super::*;
    use crate::nfs::handle::{HandleKey, KernelHandle};

    const OPENING: [u8; 8] = [1; 8];

    fn handle(n: u8) -> Opened {
        let key = HandleKey::new([0; 16]);
        key.open(key.seal(7, 0, &KernelHandle::new(1, &[n; 8]).unwrap()).bytes()).unwrap()
    }

    fn object(path: &std::path::Path) -> (Arc<Object>, Attr) {
        let object = Object::new(rustix::fs::open(path, OFlags::PATH, Mode::empty()).unwrap());
        let attr = object.attr().unwrap();
        (Arc::new(object), attr)
    }

    fn open(cache: &Objects) -> usize {
        cache.sets().iter().flatten().flatten().count()
    }

    #[test]
    fn what_is_kept_is_found_until_it_is_forgotten_or_idle() {
        let dir = tempfile::tempdir().unwrap();
        let (root, attr) = object(dir.path());
        let cache = Objects::default();
        cache.put(OPENING, &handle(1), &root, &attr, Moment::default());
        assert!(Arc::ptr_eq(&cache.get(OPENING, &handle(1).wire, Moment::new(IDLE / 2)).unwrap(), &root));
        assert!(cache.get(OPENING, &handle(2).wire, Moment::default()).is_none());
        assert!(cache.get([2; 8], &handle(1).wire, Moment::default()).is_none(), "the volume was opened anew");
        assert!(!cache.holds_any_file(7), "a directory");
        cache.expire(Moment::new(IDLE));
        assert_eq!(open(&cache), 1, "it was used meanwhile");
        cache.expire(Moment::new(IDLE / 2 + IDLE));
        assert_eq!(open(&cache), 0);
        let forget: [fn(&Objects, u64); 3] = [
            |cache, _| cache.forget(&handle(1).wire),
            |cache, ino| cache.forget_object(7, ino),
            |cache, _| cache.forget_export(7),
        ];
        for forget in forget {
            cache.put(OPENING, &handle(1), &root, &attr, Moment::default());
            cache.put(OPENING, &handle(1), &root, &attr, Moment::default());
            assert_eq!(open(&cache), 1, "one object of a handle");
            forget(&cache, attr.ino);
            assert_eq!((open(&cache), Arc::strong_count(&root)), (0, 1));
        }
    }

    #[test]
    fn no_more_than_the_limit_are_open_and_the_longest_unused_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let (root, attr) = object(dir.path());
        let cache = Objects::default();
        for n in 0..=u8::MAX {
            cache.put(OPENING, &handle(n), &root, &attr, Moment::new(Duration::from_millis(n.into())));
            assert!(cache.get(OPENING, &handle(n).wire, Moment::new(Duration::from_millis(n.into()))).is_some());
        }
        assert!(open(&cache) <= SETS * WAYS);
        let of_set = |set: usize| (0..=u8::MAX).filter(|n| set_of(&handle(*n).wire) == set).collect::<Vec<u8>>();
        let same_set = (0..SETS).map(of_set).max_by_key(Vec::len).unwrap();
        let kept = |n: &&u8| cache.get(OPENING, &handle(**n).wire, Moment::default()).is_some();
        assert_eq!(same_set.iter().filter(kept).count(), WAYS);
        assert_eq!(same_set.iter().rev().take(WAYS).filter(kept).count(), WAYS);
    }
}
