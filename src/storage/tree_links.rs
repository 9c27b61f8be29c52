//! Files with several names in one tree. The count that a file carries says only how many it has anywhere: in a tree that others
//! are linked to it is more than one for all of them, and to wait for the other names of all takes memory.

use std::os::fd::OwnedFd;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::tree_copy::identity;
use super::tree_walk::{Walk, WalkError};
use crate::progress::Progress;

/// Names that are looked at: 32 MB of memory for a while.
const MAX_NAMES: usize = 4 << 20;

/// Numbers of the files that have more than one name in a tree.
#[derive(Debug, Default)]
pub(crate) struct Several(Vec<u64>);

impl Several {
    /// Looks through `tree`; `None` when `progress` was cancelled.
    ///
    /// # Errors
    /// [`WalkError`]; `NOBUFS` for more names than memory allows.
    pub(crate) fn find(tree: OwnedFd, progress: &dyn Progress) -> Result<Option<Self>, WalkError> {
        let mut walk = Walk::new(tree)?;
        let mut names = Vec::new();
        while let Some(found) = walk.next()? {
            if progress.cancelled() {
                return Ok(None);
            }
            if found.stat.st_nlink > 1 && !found.kind().is_dir() {
                if names.len() >= MAX_NAMES {
                    return Err(walk.error("remember", &found, Errno::NOBUFS));
                }
                names.push(identity(&found.stat).1);
            }
        }
        names.sort_unstable();
        let mut several: Vec<u64> =
            names.windows(2).filter_map(|pair| if let [a, b] = pair { (a == b).then_some(*a) } else { None }).collect();
        several.dedup();
        Ok(Some(Self(several)))
    }

    /// Whether the file with this number has several names there.
    pub(crate) fn has(&self, number: u64) -> bool {
        self.0.binary_search(&number).is_ok()
    }

    /// The same of a file.
    pub(crate) fn contains(&self, stat: &Stat) -> bool {
        self.has(identity(stat).1)
    }
}
