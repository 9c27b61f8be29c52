//! Why layers could not be mounted, and who has them.

use std::io;
use std::path::{Path, PathBuf};

use super::SOURCE;
use crate::printable::printable;
use crate::storage::mountinfo;

/// Why layers could not be mounted. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// Not a directory of this volume.
    #[error("{0} cannot be a layer")]
    Path(PathBuf),
    /// The lower layer.
    #[error(
        "image '{0}', which its files lie over, is not there, and imported again it is another one: restore the device from a backup (--replace), or unenrol it with its files and enrol it again"
    )]
    Lower(String),
    /// The upper layer.
    #[error(
        "its own files in {0} are not there ({1}): restore it from a backup, or unenrol it with its files and enrol it again"
    )]
    Upper(PathBuf, io::Error),
    /// A call failed.
    #[error("cannot {what} {path}: {error}", path = path.display())]
    Failed {
        /// What was being done.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
    /// Somebody has them.
    #[error("the kernel does not mount the layers at {path} (its layers are in use by another mount)", path = path.display())]
    Busy {
        /// Where.
        path: PathBuf,
        /// What names the layers.
        options: String,
    },
    /// The kernel's word on a mount.
    #[error("the kernel does not mount the layers at {path} ({why})", path = path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// What it says, and what that means.
        why: String,
    },
}

impl OverlayError {
    /// Whether somebody has the layers.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }

    /// The same with whoever has the layers, if that is the matter, as far as it can be found out.
    #[must_use]
    pub fn with_holder(self) -> Self {
        match self {
            Self::Busy { path, options } => match holder(&options) {
                Some(why) => Self::Mount { path, why },
                None => Self::Busy { path, options },
            },
            other => other,
        }
    }
}

/// Who has layers mounted: a program that began while they were, in a view of the mounts of its own, keeps them in there.
fn holder(options: &str) -> Option<String> {
    let upper = options.split(',').find(|option| option.starts_with("upperdir=")).unwrap_or_default();
    let view = |process: &Path| std::fs::read_link(process.join("ns/mnt")).ok();
    let own = view(Path::new("/proc/thread-self"));
    let holder = |process: PathBuf| {
        let table = std::fs::read_to_string(process.join("mountinfo")).ok()?;
        let has =
            mountinfo::all(&table).any(|mount| mount.source == SOURCE && mount.options.split(',').any(|o| o == upper));
        let name = std::fs::read_to_string(process.join("comm")).ok().filter(|_| has)?;
        Some(format!("{} (process {})", printable(name.trim_end().as_bytes()), process.file_name()?.to_str()?))
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let is_number =
        |path: &PathBuf| path.file_name().is_some_and(|n| n.as_encoded_bytes().iter().all(u8::is_ascii_digit));
    // Who sees the same mounts as this one keeps none that are gone here.
    let is_other = |path: &PathBuf| view(path) != own;
    let who = processes.filter(is_number).filter(is_other).find_map(holder)?;
    Some(format!("they are still mounted for {who}, which sees mounts of its own: restart or end that"))
}
