//! What lives where below `data_dir`.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The trees of an image, a device or a snapshot, in its directory.
pub const TREES: [&str; 2] = ["boot", "root"];
/// Root's alone.
const PRIVATE: u32 = 0o700;

/// The directory tree of a volume that piboot uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    data_dir: PathBuf,
}

impl Layout {
    /// The layout below `data_dir`; touches nothing.
    #[must_use]
    pub const fn new(data_dir: PathBuf) -> Self {
        Self { data_dir }
    }

    /// Makes the directories that are missing below an existing `data_dir` and closes all to everybody but root: in
    /// them are programs that run as root for whoever starts them, and device nodes, which a Pi may have put there.
    ///
    /// # Errors
    /// As the system reports.
    pub fn create(&self) -> io::Result<()> {
        for directory in [self.images(), self.devices(), self.snapshots(), self.scratch()] {
            DirBuilder::new().recursive(true).mode(PRIVATE).create(&directory)?;
            // Only where it differs: a volume that is read-only can still be served.
            if std::fs::metadata(&directory)?.permissions().mode() & 0o7777 != PRIVATE {
                std::fs::set_permissions(&directory, Permissions::from_mode(PRIVATE))?;
            }
        }
        Ok(())
    }

    /// The volume's top directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Imported images, one directory each.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.data_dir.join("images")
    }

    /// An image's directory. `name` has passed `config::check_image_name`.
    #[must_use]
    pub fn image(&self, name: &str) -> PathBuf {
        self.images().join(name)
    }

    /// Devices, one directory each.
    #[must_use]
    pub fn devices(&self) -> PathBuf {
        self.data_dir.join("devices")
    }

    /// A device's directory. `id` has passed `config::check_device_id`.
    #[must_use]
    pub fn device(&self, id: &str) -> PathBuf {
        self.devices().join(id)
    }

    /// What a device boots from: its TFTP directory and `/boot/firmware`.
    #[must_use]
    pub fn device_boot(&self, id: &str) -> PathBuf {
        self.device(id).join("boot")
    }

    /// A device's root file system.
    #[must_use]
    pub fn device_root(&self, id: &str) -> PathBuf {
        self.device(id).join("root")
    }

    /// Snapshots of devices, one directory a device.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.data_dir.join("snapshots")
    }

    /// The snapshots of a device. `id` has passed `config::check_device_id`.
    #[must_use]
    pub fn snapshots_of(&self, id: &str) -> PathBuf {
        self.snapshots().join(id)
    }

    /// One of them. `name` has passed `config::check_snapshot_name`.
    #[must_use]
    pub fn snapshot(&self, id: &str, name: &str) -> PathBuf {
        self.snapshots_of(id).join(name)
    }

    /// Where trees are built before they are renamed into place, and go before they are deleted.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.data_dir.join("scratch")
    }

    /// The number that the volume is known by.
    #[must_use]
    pub fn volume_id(&self) -> PathBuf {
        self.data_dir.join("volume.id")
    }

    /// The SQLite database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.data_dir.join("piboot.db")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_out_of_reach_for_other_users() {
        let data = tempfile::tempdir().unwrap();
        let layout = Layout::new(data.path().to_owned());
        // As an earlier version, or a user, may have left one.
        std::fs::create_dir(layout.devices()).unwrap();
        std::fs::set_permissions(layout.devices(), Permissions::from_mode(0o755)).unwrap();
        layout.create().unwrap();
        for directory in [layout.images(), layout.devices(), layout.snapshots(), layout.scratch()] {
            let mode = std::fs::metadata(&directory).unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode, 0o700, "{}", directory.display());
        }
    }
}
