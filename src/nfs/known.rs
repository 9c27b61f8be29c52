//! Handles that were asked for before. The kernel walks to the object a second time for its handle, so LOOKUP and
//! READDIRPLUS would spend as much on that as on the attributes.
//!
//! A handle is known by inode number *and* time of birth. The number alone may have gone to another object, with another
//! generation in its handle; but not within the tick of the clock in which the first one was born, once that is over.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::attr::{Attr, Birth};
use super::handle::{FileHandle, PREFIX_AND_CHECKSUM};

/// Handles remembered, for all exports together; one takes the place of another.
const SLOTS: usize = 2048;
/// Longest handle remembered: that of an overlay.
const MAX_LENGTH: usize = PREFIX_AND_CHECKSUM + 36;
/// The kernel's clock for such times ticks every 10 ms or faster.
const TICK: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The opening of the volume; random.
    opening: [u8; 8],
    ino: u64,
    born: Birth,
    length: u8,
    handle: [u8; MAX_LENGTH],
}

const EMPTY: Slot =
    Slot { opening: [0; 8], ino: 0, born: Birth { seconds: 0, nanoseconds: 0 }, length: 0, handle: [0; MAX_LENGTH] };

/// The table. Takes no memory until it is used.
#[derive(Debug, Default)]
pub(super) struct KnownHandles(Mutex<Vec<Slot>>);

impl KnownHandles {
    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle of the object with these attributes on a volume.
    pub(super) fn get(&self, opening: [u8; 8], attr: &Attr) -> Option<FileHandle> {
        let slots = self.slots();
        let slot = slots.get(place_of(attr.ino))?;
        let is_it = (slot.opening, slot.ino, Some(slot.born)) == (opening, attr.ino, attr.born);
        if is_it { FileHandle::from_bytes(slot.handle.get(..usize::from(slot.length))?) } else { None }
    }

    /// Remembers a handle. `wall_ms`: the time now, as the file system has it.
    pub(super) fn put(&self, opening: [u8; 8], attr: &Attr, handle: &FileHandle, wall_ms: i64) {
        let Some(born) = attr.born else { return };
        let age_ms = wall_ms.saturating_sub(born.milliseconds());
        let old_enough = u64::try_from(age_ms).is_ok_and(|age| Duration::from_millis(age) >= TICK);
        let bytes = handle.bytes();
        if !old_enough || bytes.len() > MAX_LENGTH {
            return;
        }
        let mut slots = self.slots();
        if slots.is_empty() {
            slots.resize(SLOTS, EMPTY);
        }
        let Some(slot) = slots.get_mut(place_of(attr.ino)) else { return };
        *slot = Slot { opening, ino: attr.ino, born, length: u8::try_from(bytes.len()).unwrap_or(0), ..EMPTY };
        slot.handle[..bytes.len()].copy_from_slice(bytes);
    }
}

/// Inode numbers of one directory mostly follow one another: so do their places.
fn place_of(ino: u64) -> usize {
    usize::try_from(ino % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags};

    use super::*;
    use crate::nfs::fs::Object;
    use crate::nfs::handle::{HandleKey, KernelHandle};

    const OPENING: [u8; 8] = [1; 8];

    fn attr(ino: u64, born: Option<Birth>) -> Attr {
        let fd = rustix::fs::open("/", OFlags::PATH, Mode::empty()).unwrap();
        Attr { ino, born, ..Object::new(fd).attr().unwrap() }
    }

    fn handle(n: u8, length: usize) -> FileHandle {
        HandleKey::new([0; 16]).seal(1, 0, &KernelHandle::new(1, &vec![n; length]).unwrap())
    }

    #[test]
    fn a_handle_is_known_by_number_birth_and_volume() {
        let known = KnownHandles::default();
        let born = Birth { seconds: 1000, nanoseconds: 7 };
        let object = attr(12, Some(born));
        assert_eq!(known.get(OPENING, &object), None);
        known.put(OPENING, &object, &handle(1, 8), 2_000_000);
        assert_eq!(known.get(OPENING, &object), Some(handle(1, 8)));
        assert_eq!(known.get([2; 8], &object), None);
        assert_eq!(
            known.get(OPENING, &attr(12, Some(Birth { nanoseconds: 8, ..born }))),
            None,
            "the number was reused"
        );
        assert_eq!(known.get(OPENING, &attr(13, Some(born))), None);
        let neighbour = attr(12 + SLOTS as u64, Some(born));
        known.put(OPENING, &neighbour, &handle(2, 20), 2_000_000);
        assert_eq!(known.get(OPENING, &neighbour), Some(handle(2, 20)));
        assert_eq!(known.get(OPENING, &object), None);
    }

    #[test]
    fn what_could_be_taken_for_another_is_not_remembered() {
        let known = KnownHandles::default();
        let born = Birth { seconds: 1000, nanoseconds: 7 };
        for (born, length, wall_ms) in [
            (Some(born), 8, 1_000_010),
            // A clock that was set back.
            (Some(born), 8, 0),
            (Some(born), 37, 2_000_000),
            (None, 8, 2_000_000),
        ] {
            let object = attr(12, born);
            known.put(OPENING, &object, &handle(1, length), wall_ms);
            assert_eq!(known.get(OPENING, &object), None, "{born:?} {length} {wall_ms}");
        }
    }
}
