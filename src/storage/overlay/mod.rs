//! Trees in layers: what a device changed (the upper layer) over an image that nobody changes (the lower one), put together by
//! the kernel's overlayfs on the router (its documentation: filesystems/overlayfs.rst).
//!
//! A layered directory holds `boot` and `root`, where the two are mounted, and `overlay/{boot,root}/{upper,work}`. File handles
//! come with `index=on,nfs_export=on`: each file of the lower layer that was changed or deleted has an entry in `work/index`,
//! called by its handle.
//!
//! What the kernel does not do right for a file whose only name is in the lower layer, and is done by [`hold`] and [`repair`]:
//! its count of links is one too high once it fell out of memory, so that nothing is freed when it is deleted; and when it was
//! changed by a handle, before anybody looked it up by name, the next mount takes the change for a leftover and deletes it.
//! Both are because the kernel keeps no count of links for files that have one. So every file of an image that is a lower layer
//! gets one more, in a directory outside of it: from then on the kernel counts, and is right but for that one. Whoever shows
//! counts takes it off, and a file whose count is 1 has no name any more.

mod error;
mod hold;
mod repair;
#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

pub use self::error::OverlayError;
pub use self::hold::{HELD, HoldError, hold, hold_for_now};
use super::mountinfo::{self, Mount};
use super::tree_copy::read_xattrs;
use super::{Layout, TREES};

/// The layers, in a device's directory.
pub const LAYERS: &str = "overlay";
/// What the mounts are called in the table of mounts.
const SOURCE: &str = "piboot";
/// `OVERLAYFS_SUPER_MAGIC` of linux/magic.h.
const MAGIC: u32 = 0x794c_7630;
/// How long an upper layer may be busy that was just unmounted: a mount of an agent that was killed goes a moment after it.
pub const BUSY: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(20);

fn failed<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> OverlayError {
    let path = path.to_owned();
    move |error| OverlayError::Failed { what, path, error: error.into() }
}

/// Whether the trees of a directory are layers, mounted or not.
#[must_use]
pub fn is_layered(directory: &Path) -> bool {
    directory.join(LAYERS).symlink_metadata().is_ok()
}

/// Where the kernel keeps the index of the layers that are mounted at `tree`.
#[must_use]
pub fn index(tree: &Path) -> PathBuf {
    tree.with_file_name(LAYERS).join(tree.file_name().unwrap_or_default()).join("work/index")
}

/// Makes the layers of an image's trees in an empty directory; [`mount`] puts them together.
///
/// # Errors
/// [`OverlayError`].
pub fn create(layout: &Layout, directory: &Path, image: &str) -> Result<(), OverlayError> {
    for tree in TREES {
        let lower = layout.image(image).join(tree);
        let own = directory.join(LAYERS).join(tree);
        for place in [directory.join(tree), own.join("upper"), own.join("work")] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&place);
            made.map_err(failed("create", &place))?;
        }
        // The upper layer's is what shows of the tree's top.
        copy_top(&lower, &own.join("upper"))?;
    }
    Ok(())
}

fn copy_top(lower: &Path, upper: &Path) -> Result<(), OverlayError> {
    let meta = lower.metadata().map_err(failed("look at", lower))?;
    std::os::unix::fs::chown(upper, Some(meta.uid()), Some(meta.gid())).map_err(failed("change", upper))?;
    std::fs::set_permissions(upper, Permissions::from_mode(meta.mode() & 0o7777)).map_err(failed("change", upper))?;
    let lower_path = lower.as_os_str().as_encoded_bytes();
    for xattr in read_xattrs(lower_path).map_err(failed("look at", lower))? {
        rustix::fs::lsetxattr(upper, &xattr.name, &xattr.value, XattrFlags::empty())
            .map_err(failed("change", upper))?;
    }
    let (atime, mtime) = (meta.accessed(), meta.modified());
    if let (Ok(atime), Ok(mtime), Ok(upper)) = (atime, mtime, std::fs::File::open(upper)) {
        // As good as it gets: nothing depends on it.
        let _ = upper.set_times(std::fs::FileTimes::new().set_accessed(atime).set_modified(mtime));
    }
    Ok(())
}

/// Mounts what is not mounted of a layered directory below `data_dir`, whose lower layers are the trees of `image`. What an
/// earlier run mounted is taken as it is; what somebody else still has is waited for as long as `patience` allows. True if
/// anything was mounted.
///
/// # Errors
/// [`OverlayError`].
pub fn mount(layout: &Layout, directory: &Path, image: &str, patience: Duration) -> Result<bool, OverlayError> {
    let mut mounted = false;
    for tree in TREES {
        mounted |= mount_tree(layout, directory, image, tree, patience)?;
    }
    Ok(mounted)
}

/// Whether both trees of a directory are mounted layers.
#[must_use]
pub fn is_mounted(directory: &Path) -> bool {
    TREES.iter().all(|tree| is_overlay(&directory.join(tree)))
}

/// Whether a path shows an overlay.
fn is_overlay(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| is_of_overlay(&stat))
}

// The magic is 32 bits wide; its C type differs between architectures.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "only 32 bits are defined")]
const fn is_of_overlay(stat: &rustix::fs::StatFs) -> bool {
    stat.f_type as u32 == MAGIC
}

fn mount_tree(
    layout: &Layout,
    directory: &Path,
    image: &str,
    tree: &str,
    patience: Duration,
) -> Result<bool, OverlayError> {
    let point = directory.join(tree);
    let own = directory.join(LAYERS).join(tree);
    let options = options(layout, directory, image, tree)?;
    if let Some(there) = mountinfo::at(&point).map_err(failed("look at", &point))? {
        if there.is_ours(&options) {
            return Ok(false);
        }
        return Err(OverlayError::Mount { path: point, why: format!("{} is mounted there", there.source) });
    }
    let image_directory = layout.image(image);
    if !image_directory.join(tree).is_dir() || !image_directory.join(HELD).is_dir() {
        return Err(OverlayError::Lower(image.to_owned()));
    }
    for place in [&point, &own.join("upper"), &own.join("work")] {
        let there = place.symlink_metadata().and_then(|meta| match meta.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        });
        there.map_err(|error| OverlayError::Upper(place.clone(), error))?;
    }
    repair::repair(&own.join("work/index")).map_err(failed("repair", &own))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let mut waited = Duration::ZERO;
    loop {
        match mount_in(layout.data_dir(), &point, flags, &options) {
            Ok(()) => break,
            Err(Errno::BUSY) if waited < patience => pause(&mut waited),
            Err(Errno::BUSY) => return Err(OverlayError::Busy { path: point, options }),
            Err(errno) => return Err(OverlayError::Mount { path: point, why: why(errno) }),
        }
    }
    // The kernel goes on without what it was asked for where a file system lacks that.
    let there = mountinfo::at(&point).map_err(failed("look at", &point))?;
    if there.is_some_and(|there| there.is_ours(&options) && !there.is_read_only()) {
        return Ok(true);
    }
    let _ = unmount_point(&point);
    Err(OverlayError::Mount {
        path: point,
        why: "the file system lacks something, or is read-only: the kernel's log says what ('dmesg')".to_owned(),
    })
}

fn why(errno: Errno) -> String {
    match errno {
        Errno::NODEV => "it has no overlayfs: on OpenWrt that is kmod-fs-overlay or built in".to_owned(),
        Errno::STALE => {
            "the image is another than the one its files lie over, or the disk is a copy of another: restore the device from a backup (--replace), or unenrol it with its files and enrol it again".to_owned()
        }
        other => format!("{other}: the kernel's log may say more ('dmesg')"),
    }
}

/// The options of a tree's mount. Paths begin at `data_dir`, whose own may hold what has a meaning in there; names of images
/// and devices do not.
fn options(layout: &Layout, directory: &Path, image: &str, tree: &str) -> Result<String, OverlayError> {
    let plain = |path: &Path| -> Result<String, OverlayError> {
        let below = path.strip_prefix(layout.data_dir()).ok().and_then(Path::to_str);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
        let below = below.filter(|text| !text.is_empty() && text.chars().all(is_plain));
        below.map(str::to_owned).ok_or_else(|| OverlayError::Path(path.to_owned()))
    };
    let (lower, own) = (plain(&layout.image(image).join(tree))?, plain(&directory.join(LAYERS).join(tree))?);
    Ok(format!(
        "lowerdir={lower},upperdir={own}/upper,workdir={own}/work,index=on,nfs_export=on,redirect_dir=on,metacopy=off"
    ))
}

/// Mounts with `data_dir` as the working directory, which is one thread's for that.
fn mount_in(data_dir: &Path, point: &Path, flags: MountFlags, options: &str) -> Result<(), Errno> {
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    let work = || {
        // From here on this thread has a working directory of its own.
        unshare(CloneFlags::CLONE_FS).map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
        rustix::process::chdir(data_dir)?;
        rustix::mount::mount(SOURCE, point, "overlay", flags, Some(options.as_c_str()))
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("overlay".to_owned()).spawn_scoped(scope, work);
        thread.map_err(|_| Errno::AGAIN)?.join().unwrap_or(Err(Errno::IO))
    })
}

fn pause(waited: &mut Duration) {
    std::thread::sleep(POLL);
    *waited = waited.saturating_add(POLL);
}

/// Unmounts the layers of a directory; not being mounted is fine.
///
/// # Errors
/// `EBUSY` while anything in there is open.
pub fn unmount(directory: &Path) -> Result<(), Errno> {
    TREES.iter().try_for_each(|tree| unmount_point(&directory.join(tree)))
}

fn unmount_point(point: &Path) -> Result<(), Errno> {
    if !is_overlay(point) {
        return Ok(());
    }
    match rustix::mount::unmount(point, UnmountFlags::NOFOLLOW) {
        // On an overlay, but nothing is mounted here.
        Err(Errno::INVAL) => Ok(()),
        other => other,
    }
}

/// Unmounts all layers that are mounted in `directory` or anywhere below, waiting up to `patience` for whoever has
/// something open there. After that they are detached: they go from the tree at once, and as a whole when the last is closed.
///
/// # Errors
/// As umount(2).
pub fn release(directory: &Path, patience: Duration) -> Result<(), Errno> {
    let mut waited = Duration::ZERO;
    for point in mounted_below(directory) {
        loop {
            match rustix::mount::unmount(&point, UnmountFlags::NOFOLLOW) {
                Err(Errno::BUSY) if waited < patience => pause(&mut waited),
                Err(Errno::BUSY) => {
                    log::warn!("{} is in use: it is unmounted when that ends", point.display());
                    rustix::mount::unmount(&point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?;
                    break;
                }
                Err(Errno::INVAL | Errno::NOENT) => break,
                other => {
                    other?;
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Unmounts all layers that are mounted in a directory or anywhere below.
///
/// # Errors
/// `EBUSY` while anything in there is open.
pub fn unmount_below(directory: &Path) -> Result<(), Errno> {
    mounted_below(directory).iter().try_for_each(|point| match rustix::mount::unmount(point, UnmountFlags::NOFOLLOW) {
        Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        other => other,
    })
}

/// Where layers are mounted below a directory, the deepest and latest first.
#[must_use]
pub fn mounted_below(directory: &Path) -> Vec<PathBuf> {
    let Ok(directory) = directory.canonicalize() else { return Vec::new() };
    let Ok(text) = mountinfo::read() else { return Vec::new() };
    let ours = mountinfo::all(&text).filter(|mount| mount.source == SOURCE && mount.file_system == "overlay");
    let mut points: Vec<PathBuf> =
        ours.map(|mount| mount.point).filter(|point| point.starts_with(&directory)).collect();
    points.reverse();
    points
}

/// Layered trees that stay mounted for as long as this lives.
#[derive(Debug)]
pub struct InUse {
    /// What is open cannot be unmounted.
    _open: Vec<std::os::fd::OwnedFd>,
    /// To be unmounted in the end.
    ours: Option<PathBuf>,
}

impl InUse {
    /// Mounts the layers of a directory if they are not mounted; those that were not are unmounted in the end where `for_now`.
    ///
    /// # Errors
    /// [`OverlayError`].
    pub fn begin(layout: &Layout, directory: &Path, image: &str, for_now: bool) -> Result<Self, OverlayError> {
        let mounted = mount(layout, directory, image, BUSY).map_err(OverlayError::with_holder)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |tree: &&str| {
            let path = directory.join(tree);
            let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(failed("open", &path))?;
            // Somebody may have unmounted it before it was opened.
            let is_there = rustix::fs::fstatfs(&fd).is_ok_and(|stat| is_of_overlay(&stat));
            if is_there { Ok(fd) } else { Err(failed("use", &path)(Errno::AGAIN)) }
        };
        let open = TREES.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { _open: open, ours: (mounted && for_now).then(|| directory.to_owned()) })
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self._open.clear();
        if let Some(Err(errno)) = self.ours.as_deref().map(unmount) {
            log::warn!("layers that are not needed any more stay mounted: {errno}");
        }
    }
}

impl Mount {
    /// Whether it is what a mount with these options makes.
    fn is_ours(&self, options: &str) -> bool {
        let is_shown = |option: &str| self.options.split(',').any(|there| there == option);
        let holds = |option: &str| {
            let Some((name, value @ ("on" | "off"))) = option.split_once('=') else { return is_shown(option) };
            let opposite = if value == "on" { "off" } else { "on" };
            // What is the kernel's default is not shown.
            let is_default = || std::fs::read_to_string(format!("/sys/module/overlay/parameters/{name}"));
            let is_default = || is_default().is_ok_and(|text| text.trim() == if value == "on" { "Y" } else { "N" });
            is_shown(option) || (!is_shown(&format!("{name}={opposite}")) && is_default())
        };
        self.source == SOURCE && self.file_system == "overlay" && options.split(',').all(holds)
    }

    fn is_read_only(&self) -> bool {
        self.options.split(',').any(|option| option == "ro")
    }
}
