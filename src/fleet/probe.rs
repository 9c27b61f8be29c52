//! Can roots be layers on this volume? A small one is made and put through what an NFS server asks of it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::XattrFlags;

use super::on_volume::volume_identity;
use super::provision::{PARTIAL, discard};
use crate::nfs::trial;
use crate::storage::Layout;
use crate::storage::overlay;

/// The image and the device of the trial, in a directory of the scratch that is a volume in small. No device's id has a hyphen.
const PLACE: &str = "overlay-trial";
const IMAGE: &str = "image";
const DEVICE: &str = "device";

/// Where it was found to be so: the file system as it is mounted, and the directory.
static FOUND: Mutex<Option<((u64, u64), PathBuf)>> = Mutex::new(None);

/// Tries it, once for as long as the volume is there if it can be done; nothing is left behind.
///
/// # Errors
/// What is missing, for people.
pub(super) fn probe(layout: &Layout) -> Result<(), String> {
    let here = volume_identity(layout).map(|identity| (identity, layout.data_dir().to_owned()));
    if here.is_some() && *found() == here {
        return Ok(());
    }
    // What is missing may be had by then.
    try_out(layout).inspect(|()| *found() = here)
}

/// Another volume may be there by now.
pub(super) fn forget() {
    *found() = None;
}

fn found() -> MutexGuard<'static, Option<((u64, u64), PathBuf)>> {
    FOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_out(layout: &Layout) -> Result<(), String> {
    // Somebody may ask while a job does.
    static TRIALS: AtomicU32 = AtomicU32::new(0);
    let number = TRIALS.fetch_add(1, Ordering::Relaxed);
    let place = layout.scratch().join(format!("{PARTIAL}{PLACE}-{number}.partial"));
    discard(&place)?;
    let tried = trial_in(&Layout::new(place.clone()));
    let removed = discard(&place);
    tried.and(removed)
}

fn trial_in(small: &Layout) -> Result<(), String> {
    let lower = small.image(IMAGE).join("root");
    let device = small.device(DEVICE);
    let merged = device.join("root");
    let no =
        |what: &'static str| move |error: std::io::Error| format!("{what} on the file system of data_dir: {error}");
    let files = ["kept", "changed", "by-handle", "deleted", "victim"];
    let make = || -> std::io::Result<()> {
        fs::create_dir_all(small.image(IMAGE).join("boot"))?;
        fs::create_dir_all(lower.join("directory"))?;
        fs::create_dir_all(&device)?;
        files.iter().try_for_each(|name| fs::write(lower.join(name), "lower"))?;
        fs::write(lower.join("directory/file"), "lower")
    };
    make().map_err(no("files cannot be made"))?;
    // What the device's own files lie over.
    overlay::hold_for_now(small, IMAGE).map_err(|e| e.to_string())?;
    overlay::create(small, &device, IMAGE).map_err(|e| e.to_string())?;
    let mount = || overlay::mount(small, &device, IMAGE, overlay::BUSY).map_err(|e| e.to_string());
    let unmount = || overlay::unmount(&device).map_err(|e| format!("layers cannot be unmounted: {e}"));
    mount()?;
    let handle =
        |name: &str| trial::handle_of(&merged.join(name)).map_err(|e| no("layers have no file handles")(e.into()));
    let handles = ["changed", "by-handle", "deleted", "directory/file"].map(handle);
    let [changed, by_handle, deleted, moved] = handles;
    let (changed, by_handle, deleted, moved) = (changed?, by_handle?, deleted?, moved?);
    let ino = |name: &str| fs::symlink_metadata(merged.join(name)).map(|meta| meta.ino());
    let work = || -> std::io::Result<bool> {
        let before = ino("changed")?;
        append(&merged.join("changed"))?;
        let is_same = before == ino("changed")?;
        append(&merged.join("deleted"))?;
        rustix::fs::setxattr(merged.join("kept"), "trusted.piboot", b"1", XattrFlags::empty())?;
        fs::rename(merged.join("kept"), merged.join("victim"))?;
        fs::rename(merged.join("directory"), merged.join("renamed"))?;
        fs::create_dir(merged.join("directory"))?;
        Ok(is_same)
    };
    if !work().map_err(no("layers cannot be written"))? || handle("changed")? != changed {
        return Err("a file becomes another when it is written to: its layers are on different file systems".to_owned());
    }
    // Nothing is in memory after that.
    unmount()?;
    mount()?;
    let open = |handle| trial::open(&merged, handle);
    let reopen = |handle| -> std::io::Result<fs::File> {
        use std::os::fd::AsRawFd;
        let object = open(handle)?;
        let path = format!("/proc/self/fd/{}", object.as_raw_fd());
        fs::OpenOptions::new().append(true).custom_flags(libc::O_CLOEXEC).open(path)
    };
    let lasts = "file handles do not outlive a mount";
    open(&moved).map_err(|e| no(lasts)(e.into()))?;
    let links =
        open(&changed).and_then(|file| Ok(rustix::fs::fstat(file)?.st_nlink)).map_err(|e| no(lasts)(e.into()))?;
    if links != 2 {
        return Err(format!("this kernel counts {links} links of a file that was changed, and not 2"));
    }
    // Before anybody looked it up by name.
    reopen(&by_handle)
        .and_then(|mut file| file.write_all(b" and upper"))
        .map_err(no("a file cannot be written by its handle"))?;
    fs::remove_file(merged.join("deleted")).map_err(no("layers cannot be written"))?;
    unmount()?;
    mount()?;
    let read = fs::read_to_string(merged.join("by-handle")).map_err(no("what was written by a handle is lost"))?;
    if read != "lower and upper" {
        return Err("this kernel loses what was written by a handle when layers are mounted anew".to_owned());
    }
    let is_stale = open(&deleted).is_err_and(|e| e == rustix::io::Errno::STALE);
    let is_as_left = || -> std::io::Result<bool> {
        Ok(fs::read_to_string(merged.join("victim"))? == "lower"
            && fs::read_to_string(merged.join("renamed/file"))? == "lower"
            && fs::read_dir(merged.join("directory"))?.next().is_none()
            && !merged.join("kept").exists()
            && fs::read_to_string(lower.join("changed"))? == "lower")
    };
    if !is_stale || !is_as_left().map_err(no("layers cannot be read"))? {
        return Err("this kernel does not keep in layers what was changed and deleted".to_owned());
    }
    unmount()
}

fn append(path: &Path) -> std::io::Result<()> {
    fs::OpenOptions::new().append(true).open(path)?.write_all(b" and upper")
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

    use super::*;

    #[test]
    fn a_file_system_shows_whether_it_can_be_layered() {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("run as root");
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for (kind, refusal) in [("tmpfs", None), ("ramfs", Some("lacks something"))] {
            mount(kind, dir.path(), kind, MountFlags::empty(), None).unwrap();
            let layout = Layout::new(dir.path().join("data"));
            fs::create_dir(layout.data_dir()).unwrap();
            layout.create().unwrap();
            let tried = try_out(&layout);
            match refusal {
                None => assert_eq!(tried, Ok(())),
                Some(words) => assert!(tried.as_ref().is_err_and(|why| why.contains(words)), "{kind}: {tried:?}"),
            }
            assert_eq!(fs::read_dir(layout.scratch()).unwrap().count(), 0, "{kind}: nothing is left behind");
        }
    }
}
