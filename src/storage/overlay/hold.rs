//! One more link for each file of an image, so that the kernel counts the links of those that are changed (see the module above).

use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{OverlayError, failed};
use crate::printable::printable;
use crate::progress::{NoProgress, Progress};
use crate::storage::tree_walk::{Walk, WalkError};
use crate::storage::{Layout, SyncGuard, TREES, sync_directory};

/// The directory of the links, in an image's.
pub const HELD: &str = "held";

/// Why an image cannot be a lower layer.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// A call failed.
    #[error(transparent)]
    Failed(#[from] OverlayError),
    /// Its trees cannot be looked through.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// What stands for a deleted file in a layer.
    #[error(
        "{0} is the character device 0/0, as container programs keep them in layers of their own, and a root by 'overlay' would hide it: use 'clone' or 'copy'"
    )]
    Whiteout(String),
    /// Asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// Makes the links of an image, named by inode number, in the empty directory `partial`, and moves that to its place. Does
/// nothing where they are.
///
/// # Errors
/// [`HoldError`]; the image is as it was but for links in `partial`.
pub fn hold(layout: &Layout, image: &str, partial: &Path, progress: &dyn Progress) -> Result<(), HoldError> {
    let place = layout.image(image).join(HELD);
    if place.is_dir() {
        return Ok(());
    }
    let guard = SyncGuard::open(partial).map_err(failed("use", partial))?;
    link_all(layout, image, partial, progress)?;
    guard.finish().map_err(failed("write", partial))?;
    let moved = std::fs::rename(partial, &place).and_then(|()| sync_directory(&layout.image(image)));
    Ok(moved.map_err(failed("create", &place))?)
}

/// The same for an image that nobody needs after a power cut.
///
/// # Errors
/// [`HoldError`].
pub fn hold_for_now(layout: &Layout, image: &str) -> Result<(), HoldError> {
    let place = layout.image(image).join(HELD);
    std::fs::create_dir(&place).map_err(failed("create", &place))?;
    link_all(layout, image, &place, &NoProgress)
}

/// Makes the links in `partial`.
fn link_all(layout: &Layout, image: &str, partial: &Path, progress: &dyn Progress) -> Result<(), HoldError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::fs::open(partial, flags, Mode::empty()).map_err(failed("use", partial))?;
    for tree in TREES {
        let tree = layout.image(image).join(tree);
        let root = rustix::fs::open(&tree, flags, Mode::empty()).map_err(failed("use", &tree))?;
        let mut walk = Walk::new(root)?;
        while let Some(found) = walk.next()? {
            if progress.cancelled() {
                return Err(HoldError::Cancelled);
            }
            if found.kind().is_dir() {
                continue;
            }
            if found.kind().is_char_device() && found.stat.st_rdev == 0 {
                return Err(HoldError::Whiteout(printable(&walk.path(&found)).to_string()));
            }
            let name = format!("{:x}", found.stat.st_ino);
            match rustix::fs::linkat(walk.directory(), &*found.name, &held, &name, AtFlags::empty()) {
                // A file with several names has one here.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(walk.error("hold", &found, errno).into()),
            }
        }
    }
    Ok(())
}
