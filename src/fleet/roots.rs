//! How a device's root comes to be: which ways this volume has, and what each needs of it.

use std::path::Path;

use super::{EnrolError, Fleet, layers, probe};
use crate::config::{CloneOf, RootKind};
use crate::image::{self, ImageInfo};
use crate::storage::reflink::{self, NoReflink};
use crate::storage::tree_copy::Content;
use crate::storage::{Layout, RESERVE_BYTES};

/// What a file takes that shares its content: inode, name and the record of what is shared. About 0.6 kB on xfs and 1.1 kB
/// on btrfs (`make bench AREA=roots`).
const BYTES_PER_ENTRY: u64 = 2048;

/// What a name takes that is linked: itself, and its share of the directories, each of which is a block at least. About 0.7 kB on
/// ext4 (`make bench AREA=roots`).
const BYTES_PER_NAME: u64 = 1024;

/// What a file of an image that is a lower layer takes for its further link, in a directory.
const BYTES_PER_LINK: u64 = 64;
/// What a root takes that begins empty: what adapting changes.
const LAYERS_BYTES: u64 = 8 << 20;

/// Why a root cannot be made the way that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// No shared blocks here.
    #[error("a root by 'clone' cannot be made: {0}. Use 'copy', or 'auto', which clones where that can be done")]
    NoClone(#[from] NoReflink),
    /// No layers here.
    #[error("a root by 'overlay' cannot be made: {0}. Use 'auto', 'clone' or 'copy'")]
    NoOverlay(String),
    /// A device that begins as another.
    #[error(
        "a root by 'overlay' lies over an image, and cannot begin as another device or a snapshot: use 'auto', 'clone' or 'copy'"
    )]
    OverlayOfDevice,
    /// Its files would be the image's own, and written to by whoever that server lets.
    #[error(
        "a root by 'ephemeral' has to be served by piboot, which lets nobody write to it: with another NFS server use 'auto', 'clone' or 'copy'"
    )]
    EphemeralElsewhere,
    /// No overlay file system.
    #[error("a root by 'ephemeral' cannot be made of {0}: {1}. Use 'auto', 'clone' or 'copy'")]
    NoMemory(String, String),
}

/// How a root is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Every file is made.
    Files(Content),
    /// It begins with none, over the image's.
    Layers,
}

/// How a root of this kind is made, whose place will be below `data_dir`; the volume is asked.
///
/// # Errors
/// [`RootError`].
pub(super) fn way(kind: RootKind, layout: &Layout, is_of_device: bool) -> Result<Way, RootError> {
    match kind {
        RootKind::Overlay if is_of_device => Err(RootError::OverlayOfDevice),
        RootKind::Overlay => probe::probe(layout).map(|()| Way::Layers).map_err(RootError::NoOverlay),
        // What another device begins as may be written to, or have been: its files are not linked.
        RootKind::Ephemeral if is_of_device => content(RootKind::Auto, &layout.scratch()).map(Way::Files),
        other => content(other, &layout.scratch()).map(Way::Files),
    }
}

/// How content gets into a root of this kind that has all of its files.
///
/// # Errors
/// [`RootError`].
pub(super) fn content(kind: RootKind, directory: &Path) -> Result<Content, RootError> {
    match kind {
        RootKind::Copy => Ok(Content::Copied),
        RootKind::Auto => Ok(reflink::probe(directory).map_or(Content::Copied, |()| Content::Shared)),
        RootKind::Clone => Ok(reflink::probe(directory).map(|()| Content::Shared)?),
        RootKind::Overlay => Err(RootError::OverlayOfDevice),
        // Nobody writes to either.
        RootKind::Ephemeral => Ok(reflink::probe(directory).map_or(Content::Linked, |()| Content::Shared)),
    }
}

/// Whether a system from the trees in `directory`, those of `what`, can keep its changes in memory.
///
/// # Errors
/// [`RootError::NoMemory`].
pub(super) fn check_overlay(kind: RootKind, directory: &Path, what: &str) -> Result<(), RootError> {
    let lacks = if kind == RootKind::Ephemeral { image::fit::lacks_overlay_in(directory) } else { None };
    lacks.map_or(Ok(()), |why| Err(RootError::NoMemory(what.to_owned(), why)))
}

/// Bytes that have to be free for a tree of `bytes` in `entries` files and directories.
#[must_use]
pub(super) fn needed(way: Way, bytes: u64, entries: u64) -> u64 {
    let tree = match way {
        Way::Files(Content::Copied) => bytes,
        Way::Files(Content::Shared) => entries.saturating_mul(BYTES_PER_ENTRY),
        Way::Files(Content::Linked) => entries.saturating_mul(BYTES_PER_NAME),
        Way::Layers => entries.saturating_mul(BYTES_PER_LINK).saturating_add(LAYERS_BYTES),
    };
    tree.saturating_add(RESERVE_BYTES)
}

/// Both, as words for a finished root.
pub(super) const fn word(kind: RootKind, way: Way) -> &'static str {
    match (kind, way) {
        (RootKind::Ephemeral, _) | (_, Way::Files(Content::Linked)) => RootKind::Ephemeral.word(),
        (_, Way::Files(Content::Copied)) => "copy",
        (_, Way::Files(Content::Shared)) => "clone",
        (_, Way::Layers) => layers::KIND,
    }
}

/// The same with its article.
pub(super) fn phrase(kind: RootKind, way: Way) -> String {
    match word(kind, way) {
        "ephemeral" => "an ephemeral root".to_owned(),
        word if way == Way::Layers => format!("an {word}"),
        word => format!("a {word}"),
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

    /// How a root of this kind is made from `image`, or from a device that was, and how many bytes have to be free for that.
    fn way_from(
        &self,
        image: &str,
        info: &ImageInfo,
        kind: RootKind,
        is_of_device: bool,
    ) -> Result<(Way, u64), EnrolError> {
        if info.has_no_kernel() {
            return Err(EnrolError::NoKernel(image.to_owned()));
        }
        self.check_kind(kind)?;
        check_overlay(kind, &self.layout.image(image), &format!("image '{image}'"))?;
        let way = way(kind, &self.layout, is_of_device)?;
        let entries = info.root_entries.saturating_add(info.boot_entries);
        Ok((way, needed(way, info.root_bytes.saturating_add(info.boot_bytes), entries)))
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
                return Ok(way(kind, &self.layout, true).map(drop)?);
            }
            (Err(_), None) => return Err(EnrolError::UnknownImage(image.to_owned())),
        };
        let (way, needed) = self.way_from(image, &info, kind, clone_of.is_some())?;
        if self.layout.device(id).exists() || needed <= self.volume.free_bytes {
            return Ok(());
        }
        Err(EnrolError::Volume(format!(
            "{} of image '{image}' needs {} MB and only {} MB are free in {}: remove a device or an image",
            phrase(kind, way),
            needed >> 20,
            self.volume.free_bytes >> 20,
            self.layout.data_dir().display()
        )))
    }

    /// Whether a device that has a root can be made a new one from `image` beside it.
    pub(super) fn check_room_beside(&self, image: &str, kind: RootKind) -> Result<(), EnrolError> {
        let info = image::load_info(&self.layout.image(image));
        let info = info.map_err(|_| EnrolError::UnknownImage(image.to_owned()))?;
        let (way, needed) = self.way_from(image, &info, kind, false)?;
        if needed <= self.volume.free_bytes {
            return Ok(());
        }
        Err(EnrolError::Volume(format!(
            "{} of image '{image}' beside the root that is there needs {} MB, and only {} MB are free in {}: remove a snapshot, a device or an image",
            phrase(kind, way),
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
        for (kind, words) in [(RootKind::Clone, "needs btrfs"), (RootKind::Overlay, "another device")] {
            let layout = Layout::new(dir.path().to_owned());
            std::fs::create_dir_all(layout.scratch()).unwrap();
            let refused = way(kind, &layout, true).unwrap_err().to_string();
            assert!(refused.contains(words) && refused.contains("'auto'"), "{refused}");
        }
    }
}
