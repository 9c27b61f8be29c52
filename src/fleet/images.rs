//! Images: their import and removal, and who uses them.

use std::path::PathBuf;

use super::provision::set_aside;
use super::{EnrolError, Fleet};
use crate::config::check_image_name;
use crate::image;
use crate::jobs::JobKind;

impl Fleet {
    /// Starts the import of an image file or disk.
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
            let source = image::Source::open(&source).map_err(|e| e.to_string())?;
            let info = image::import(source, &owned, &images, &scratch, now_ms, running).map_err(|e| e.to_string())?;
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

    fn has_trees(&self, id: &str) -> bool {
        self.layout.device_root(id).is_dir()
    }
}
