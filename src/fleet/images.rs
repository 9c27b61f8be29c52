//! Images: their import and removal, and who uses them.

use std::path::PathBuf;

use super::provision::set_aside;
use super::{EnrolError, Fleet};
use crate::config::{Device, check_image_name};
use crate::image;
use crate::jobs::JobKind;
use crate::pi::Model;

impl Fleet {
    /// Starts the import of an image file.
    ///
    /// # Errors
    /// When the name is bad or taken, or the volume cannot take it.
    pub fn import_image(&mut self, source: PathBuf, name: &str) -> Result<u32, EnrolError> {
        check_image_name(name)?;
        if let Some(problem) = self.volume.problems.first() {
            return Err(EnrolError::Volume(problem.to_string()));
        }
        if self.layout.image(name).exists() {
            return Err(EnrolError::Taken(format!("the name {name}"), "an image".to_owned()));
        }
        let (images, scratch) = (self.layout.images(), self.layout.scratch());
        let (owned, now_ms) = (name.to_owned(), self.clock.wall_ms());
        let task = Box::new(move |running: &crate::jobs::Running| {
            let info = image::import(&source, &owned, &images, &scratch, now_ms, running).map_err(|e| e.to_string())?;
            Ok(format!("image {} imported: {}", info.name, info.os.as_deref().unwrap_or("system unknown")))
        });
        let job = self.jobs.submit(JobKind::Import, name, task)?;
        self.note_job(job);
        Ok(job)
    }

    /// Removes an image nobody uses.
    ///
    /// # Errors
    /// When it is unknown or in use.
    pub fn remove_image(&mut self, name: &str) -> Result<Option<u32>, EnrolError> {
        check_image_name(name)?;
        let directory = self.layout.image(name);
        if !directory.is_dir() {
            return Err(EnrolError::UnknownImage(name.to_owned()));
        }
        let users: Vec<&str> = self
            .config
            .devices
            .iter()
            .filter(|d| d.image == name && !self.has_trees(&d.id))
            .map(|d| d.id.as_str())
            .collect();
        if !users.is_empty() {
            return Err(EnrolError::ImageInUse(name.to_owned(), users.join(", ")));
        }
        let aside = set_aside(&self.layout, &directory).map_err(|e| EnrolError::File(name.to_owned(), e))?;
        Ok(self.delete(aside, format!("image {name} deleted")))
    }

    /// Why a device that has no files yet will not boot from its image.
    #[must_use]
    pub fn misfit(&self, device: &Device, model: Model) -> Option<String> {
        if self.has_trees(&device.id) {
            return None;
        }
        let info = image::load_info(&self.layout.image(&device.image)).ok()?;
        let fit = info.fit(model).filter(|fit| !fit.ok)?;
        Some(format!(
            "image '{}' does not fit a {model}: {}; take an image that is made for this board: 'piboot images' says what each boots",
            device.image, fit.why
        ))
    }

    /// Looks again at images that an earlier version imported, for what boards they boot.
    pub(super) fn examine_images(&self) {
        let Ok(entries) = std::fs::read_dir(self.layout.images()) else { return };
        let unknown: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| image::load_info(path).is_ok_and(|info| info.fits.is_none()))
            .collect();
        for directory in unknown {
            let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let task = Box::new(move |_: &crate::jobs::Running| {
                image::info::note_fits(&directory).map_err(|e| e.to_string())?;
                Ok("noted which boards it boots".to_owned())
            });
            match self.jobs.submit(JobKind::Examine, &name, task) {
                Ok(job) => self.note_job(job),
                // The next start does it.
                Err(error) => log::warn!("cannot look at image {name}: {error}"),
            }
        }
    }

    fn has_trees(&self, id: &str) -> bool {
        self.layout.device_root(id).is_dir()
    }
}
