//! Trees of one device made from those of another, or from an image's.
//!
//! On btrfs a root is a subvolume, where it can be: it is duplicated as a whole then, which takes as long for a thousand files as
//! for a million. An image's root becomes one, `images/<name>/seed`, when the first device is cloned from it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::layers;
use super::provision::{PARTIAL, discard};
use super::space_left::SpaceLeft;
use crate::nfs::subvolume;
use crate::progress::Progress;
use crate::storage::tree_copy::{self, Content, Copied};
use crate::storage::{Layout, SyncGuard, sync_directory};

/// An image's root as a subvolume, in the image's directory.
const SEED: &str = "seed";

/// Where the two trees are that others are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trees {
    pub(super) boot: PathBuf,
    pub(super) root: PathBuf,
}

/// What making trees took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Made {
    /// File by file.
    pub(super) copied: Copied,
    /// The root was duplicated as a whole.
    pub(super) whole: bool,
}

impl Trees {
    /// Those in the directory of a device, a snapshot or an image.
    pub(super) fn of(directory: &Path) -> Self {
        Self { boot: directory.join("boot"), root: directory.join("root") }
    }

    /// Those of an image, ready to be duplicated as a whole where that can be.
    ///
    /// # Errors
    /// A sentence for the job's message.
    pub(super) fn of_image(
        content: Content,
        layout: &Layout,
        image: &str,
        progress: &dyn Progress,
    ) -> Result<Self, String> {
        let trees = Self::of(&layout.image(image));
        let seed = layout.image(image).join(SEED);
        if content == Content::Shared && (seed.is_dir() || make_seed(layout, image, &trees.root, &seed, progress)?) {
            return Ok(Self { root: seed, ..trees });
        }
        Ok(trees)
    }

    /// Makes the same in directory `to`, as long as enough of the disk stays free for everybody else.
    ///
    /// # Errors
    /// A sentence for the job's message.
    pub(super) fn copy(&self, content: Content, to: &Path, progress: &dyn Progress) -> Result<Made, String> {
        let mut made = Made { copied: copy(content, &self.boot, &to.join("boot"), progress)?, whole: false };
        let root = to.join("root");
        if content == Content::Shared {
            made.whole = duplicate(&self.root, &root);
            if !made.whole {
                // The next one that is made from this.
                let _ = create_subvolume(&root);
            }
        }
        if !made.whole {
            made.copied += copy(content, &self.root, &root, progress)?;
        }
        Ok(made)
    }
}

impl Made {
    /// `, 1200 MB shared`, or that some could not be.
    pub(super) fn words(&self) -> String {
        let shared = match (self.whole, self.copied.shared) {
            (true, _) => ", all of it shared".to_owned(),
            (false, 0) => String::new(),
            (false, bytes) => format!(", {} MB shared", bytes >> 20),
        };
        match self.copied.unshared {
            0 => shared,
            files => format!("{shared}, {files} files copied because they cannot be shared"),
        }
    }
}

/// Makes an image's root a subvolume beside it; false where there are none.
fn make_seed(layout: &Layout, image: &str, root: &Path, seed: &Path, progress: &dyn Progress) -> Result<bool, String> {
    // A device's id has no hyphen: this is none's.
    let partial = layout.scratch().join(format!("{PARTIAL}{SEED}-{image}.partial"));
    discard(&partial)?;
    if create_subvolume(&partial).is_err() {
        return Ok(false);
    }
    let make = || {
        let guard = SyncGuard::open(&layout.scratch()).map_err(|e| format!("cannot use the scratch directory: {e}"))?;
        copy(Content::Shared, root, &partial, progress)?;
        guard.finish().map_err(|e| format!("the copy could not be written to disk: {e}"))?;
        let moved = std::fs::rename(&partial, seed).and_then(|()| sync_directory(&layout.image(image)));
        moved.map_err(|e| format!("cannot move a finished tree to {}: {e}", seed.display()))
    };
    let made = make();
    if made.is_err() {
        discard(&partial)?;
    }
    made.map(|()| true)
}

/// Makes the subvolume `from` again as `to`; false if it is none.
fn duplicate(from: &Path, to: &Path) -> bool {
    let (Some(parent), Some(name)) = (to.parent(), to.file_name().and_then(|name| name.to_str())) else { return false };
    let duplicated = open_directory(from)
        .and_then(|source| if subvolume::is_root(&source) { Ok(source) } else { Err(Errno::INVAL) })
        .and_then(|source| subvolume::duplicate(source, open_directory(parent)?, name));
    duplicated.is_ok()
}

fn create_subvolume(path: &Path) -> Result<(), Errno> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(Errno::INVAL);
    };
    subvolume::create(open_directory(parent)?, name)
}

/// Deletes subvolumes that `directory`, or a directory in it, has as roots: at once, not file by file. What is left, if
/// anything, goes as any tree does.
pub(super) fn delete_subvolumes(directory: &Path) {
    let below = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let parents = std::iter::once(directory.to_owned()).chain(below);
    for parent in parents.filter_map(|path| open_directory(&path).ok()) {
        for name in ["root", SEED] {
            // No subvolume, or not there.
            let _ = subvolume::delete(&parent, name);
        }
    }
}

/// Copies a tree to `to`, which is made if it is not there yet.
fn copy(content: Content, from: &Path, to: &Path, progress: &dyn Progress) -> Result<Copied, String> {
    let cannot = |path: &Path| {
        let path = path.display().to_string();
        move |e: Errno| format!("cannot use {path}: {e}")
    };
    let source = open_directory(from).map_err(cannot(from))?;
    match rustix::fs::mkdir(to, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(cannot(to)(errno)),
    }
    let target = open_directory(to).map_err(cannot(to))?;
    let space = SpaceLeft::new(open_directory(to).map_err(cannot(to))?, progress);
    let copied = tree_copy::copy_tree_as(content, layers::links(from), source, target, &space);
    match space.free_at_stop() {
        Some(free) if !progress.cancelled() => Err(format!(
            "copying {} was stopped and undone, because only {free} MB are left on the disk: remove a device, a snapshot or an image",
            from.display()
        )),
        _ => copied.map_err(|e| format!("copying {}: {e}", from.display())),
    }
}

/// A directory, itself no link.
pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}
