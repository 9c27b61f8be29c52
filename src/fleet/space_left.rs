//! Stops a copy before it takes the last of the disk, which the agent, SQLite and running Pis need to go on.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::progress::Progress;
use crate::storage::RESERVE_BYTES;

/// How much is written between two looks at the free space.
const EVERY: usize = 16 << 20;
/// No stop happened.
const NOT_STOPPED: u32 = u32::MAX;

/// Passes progress on, and asks the work to stop when the disk is nearly full.
pub(super) struct SpaceLeft<'a> {
    progress: &'a dyn Progress,
    /// Anything on the disk in question.
    place: OwnedFd,
    since_look: AtomicUsize,
    /// Megabytes that were free when it was stopped.
    stopped_at: AtomicU32,
}

impl<'a> SpaceLeft<'a> {
    pub(super) const fn new(place: OwnedFd, progress: &'a dyn Progress) -> Self {
        Self { progress, place, since_look: AtomicUsize::new(0), stopped_at: AtomicU32::new(NOT_STOPPED) }
    }

    /// Megabytes that were free when the work was asked to stop; `None` if it was not.
    pub(super) fn free_at_stop(&self) -> Option<u32> {
        Some(self.stopped_at.load(Ordering::Relaxed)).filter(|free| *free != NOT_STOPPED)
    }
}

impl Progress for SpaceLeft<'_> {
    fn add(&self, bytes: u64, files: u64) {
        self.progress.add(bytes, files);
        let bytes = usize::try_from(bytes).unwrap_or(EVERY).min(EVERY);
        if self.since_look.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) < EVERY {
            return;
        }
        self.since_look.store(0, Ordering::Relaxed);
        if let Ok(stat) = rustix::fs::fstatvfs(&self.place) {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            if free < RESERVE_BYTES {
                // Less than the reserve: a few dozen.
                self.stopped_at.store(u32::try_from(free >> 20).unwrap_or(0), Ordering::Relaxed);
            }
        }
    }

    fn set_total(&self, bytes: u64, files: u64) {
        self.progress.set_total(bytes, files);
    }

    fn cancelled(&self) -> bool {
        self.free_at_stop().is_some() || self.progress.cancelled()
    }
}
