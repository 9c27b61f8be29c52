//! How a device's root comes to be: which ways this volume has, and what each needs of it.

use std::path::Path;

use super::{EnrolError, Fleet};
use crate::config::{CloneOf, Device, RootKind};
use crate::image;
use crate::storage::RESERVE_BYTES;
use crate::storage::reflink::{self, NoReflink};
use crate::storage::tree_copy::Content;

/// What a file takes that shares its content: inode, name and the record of what is shared. About 0.6 kB on xfs and 1.1 kB
/// on btrfs (`make bench AREA=roots`).
const BYTES_PER_ENTRY: u64 = 2048;

/// What a name takes that is linked: itself, and its share of the directories, each of which is a block at least. About 0.7 kB on
/// ext4 (`make bench AREA=roots`).
const BYTES_PER_LINK: u64 = 1024;

/// Why a root cannot be made the way that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// No shared blocks here.
    #[error("a root by 'clone' cannot be made: {0}. Use 'copy', or 'auto', which clones where that can be done")]
    NoClone(#[from] NoReflink),
    /// Never offered: the reasons are in ARCHITECTURE.md.
    #[error(
        "roots by 'overlay' are not offered: the kernel's overlayfs keeps what a Pi deleted, and shows it under its old file handle. Use 'auto', 'clone' or 'copy'"
    )]
    Overlay,
    /// Its files would be the image's own, and written to by whoever that server lets.
    #[error(
        "a root by 'ephemeral' has to be served by piboot, which lets nobody write to it: with another NFS server use 'auto', 'clone' or 'copy'"
    )]
    EphemeralElsewhere,
    /// No overlay file system.
    #[error("a root by 'ephemeral' cannot be made of {0}: {1}. Use 'auto', 'clone' or 'copy'")]
    NoOverlay(String, String),
}

/// How content gets into a root of this kind whose place will be below `directory`; the volume is asked.
///
/// # Errors
/// [`RootError`].
pub(super) fn content(kind: RootKind, directory: &Path) -> Result<Content, RootError> {
    match kind {
        RootKind::Copy => Ok(Content::Copied),
        RootKind::Auto => Ok(reflink::probe(directory).map_or(Content::Copied, |()| Content::Shared)),
        RootKind::Clone => Ok(reflink::probe(directory).map(|()| Content::Shared)?),
        RootKind::Overlay => Err(RootError::Overlay),
        // Nobody writes to either.
        RootKind::Ephemeral => Ok(reflink::probe(directory).map_or(Content::Linked, |()| Content::Shared)),
    }
}

/// The same for a device. What it begins as, if that is another device, may be written to: its files are not linked.
///
/// # Errors
/// [`RootError`].
pub(super) fn content_for(device: &Device, directory: &Path) -> Result<Content, RootError> {
    match content(device.root, directory)? {
        Content::Linked if device.clone_of.is_some() => Ok(Content::Copied),
        other => Ok(other),
    }
}

/// Whether a system from the trees in `directory`, those of `what`, can keep its changes in memory.
///
/// # Errors
/// [`RootError::NoOverlay`].
pub(super) fn check_overlay(kind: RootKind, directory: &Path, what: &str) -> Result<(), RootError> {
    let lacks = if kind == RootKind::Ephemeral { image::fit::lacks_overlay_in(directory) } else { None };
    lacks.map_or(Ok(()), |why| Err(RootError::NoOverlay(what.to_owned(), why)))
}

/// Bytes that have to be free for a tree of `bytes` in `entries` files and directories.
#[must_use]
pub(super) fn needed(content: Content, bytes: u64, entries: u64) -> u64 {
    let tree = match content {
        Content::Copied => bytes,
        Content::Shared => entries.saturating_mul(BYTES_PER_ENTRY),
        Content::Linked => entries.saturating_mul(BYTES_PER_LINK),
    };
    tree.saturating_add(RESERVE_BYTES)
}

/// Both, as words for a finished root.
pub(super) const fn word(kind: RootKind, content: Content) -> &'static str {
    match (kind, content) {
        (RootKind::Ephemeral, _) | (_, Content::Linked) => RootKind::Ephemeral.word(),
        (_, Content::Copied) => RootKind::Copy.word(),
        (_, Content::Shared) => RootKind::Clone.word(),
    }
}

/// `a copy`, `a clone`, `an ephemeral root`.
pub(super) const fn words(kind: RootKind, content: Content) -> &'static str {
    match (kind, content) {
        (RootKind::Ephemeral, _) | (_, Content::Linked) => "an ephemeral root",
        (_, Content::Copied) => "a copy",
        (_, Content::Shared) => "a clone",
    }
}

impl Fleet {
    /// Whether roots of this kind can be served here.
    pub(super) fn check_kind(&self, kind: RootKind) -> Result<(), RootError> {
        match kind {
            RootKind::Ephemeral if self.config.main.nfs.external().is_some() => Err(RootError::EphemeralElsewhere),
            _ => Ok(()),
        }
    }

    /// Whether the root of a new device can be made as is asked, and fits.
    pub(super) fn check_room(
        &self,
        id: &str,
        image: &str,
        kind: RootKind,
        clone_of: Option<&CloneOf>,
    ) -> Result<(), EnrolError> {
        let info = image::load_info(&self.layout.image(image));
        let info = match (info, clone_of) {
            (Ok(info), _) => info,
            // What a device was made from may be gone; how much it has is found out by copying it.
            (Err(_), Some(_)) => {
                self.check_kind(kind)?;
                return Ok(content(kind, &self.layout.scratch()).map(drop)?);
            }
            (Err(_), None) => return Err(EnrolError::UnknownImage(image.to_owned())),
        };
        if info.has_no_kernel() {
            return Err(EnrolError::NoKernel(image.to_owned()));
        }
        self.check_kind(kind)?;
        check_overlay(kind, &self.layout.image(image), &format!("image '{image}'"))?;
        let content = content(kind, &self.layout.scratch())?;
        let entries = info.root_entries.saturating_add(info.boot_entries);
        let needed = needed(content, info.root_bytes.saturating_add(info.boot_bytes), entries);
        if self.layout.device(id).exists() || needed <= self.volume.free_bytes {
            return Ok(());
        }
        Err(EnrolError::Volume(format!(
            "{} of image '{image}' needs {} MB and only {} MB are free in {}: remove a device or an image",
            words(kind, content),
            needed >> 20,
            self.volume.free_bytes >> 20,
            self.layout.data_dir().display()
        )))
    }
}

impl Fleet {
    /// Whether a device that has a root can be made a new one from `image` beside it.
    pub(super) fn check_room_beside(&self, image: &str, kind: RootKind) -> Result<(), EnrolError> {
        let info = image::load_info(&self.layout.image(image));
        let info = info.map_err(|_| EnrolError::UnknownImage(image.to_owned()))?;
        if info.has_no_kernel() {
            return Err(EnrolError::NoKernel(image.to_owned()));
        }
        self.check_kind(kind)?;
        check_overlay(kind, &self.layout.image(image), &format!("image '{image}'"))?;
        let content = content(kind, &self.layout.scratch())?;
        let entries = info.root_entries.saturating_add(info.boot_entries);
        let needed = needed(content, info.root_bytes.saturating_add(info.boot_bytes), entries);
        if needed <= self.volume.free_bytes {
            return Ok(());
        }
        Err(EnrolError::Volume(format!(
            "{} of image '{image}' beside the root that is there needs {} MB, and only {} MB are free in {}: remove a snapshot, a device or an image",
            words(kind, content),
            needed >> 20,
            self.volume.free_bytes >> 20,
            self.layout.data_dir().display()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_is_made_or_refused() {
        // Memory shares no blocks.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        assert_eq!(content(RootKind::Auto, dir.path()), Ok(Content::Copied));
        assert_eq!(content(RootKind::Copy, dir.path()), Ok(Content::Copied));
        assert_eq!(content(RootKind::Ephemeral, dir.path()), Ok(Content::Linked));
        for (kind, words) in [(RootKind::Clone, "needs btrfs"), (RootKind::Overlay, "deleted")] {
            let refused = content(kind, dir.path()).unwrap_err().to_string();
            assert!(refused.contains(words) && refused.contains("'auto'"), "{refused}");
        }
    }
}
