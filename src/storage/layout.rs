//! What lives where below `data_dir`.

use std::io;
use std::path::{Path, PathBuf};

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

    /// Makes the directories that are missing below an existing `data_dir`.
    ///
    /// # Errors
    /// As the system reports.
    pub fn create(&self) -> io::Result<()> {
        for directory in [self.images(), self.devices(), self.scratch()] {
            std::fs::create_dir_all(directory)?;
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

    /// Where trees are built before they are renamed into place, and go before they are deleted.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.data_dir.join("scratch")
    }

    /// The SQLite database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.data_dir.join("piboot.db")
    }
}
