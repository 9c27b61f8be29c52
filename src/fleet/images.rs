//! Images: their import from wherever they come, their removal, and who uses them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError};

use super::provision::set_aside;
use super::{EnrolError, Fleet, layers};
use crate::config::{Device, check_image_name};
use crate::image::{self, Source};
use crate::incoming::digest::{Checked, Sum};
use crate::incoming::download::Download;
use crate::incoming::tool::{NoTool, Tool};
use crate::incoming::upload::{Body, Piece, Upload};
use crate::incoming::url::Url;
use crate::jobs::{JobKind, JobsError, Running};
use crate::pi::Model;
use crate::progress::Progress;

/// The imports whose images come in pieces: where those go, by job.
pub(super) type Uploads = BTreeMap<u32, SyncSender<Piece>>;

/// Why an import was not begun. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ImportRefused {
    /// Name, volume, queue.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// Nothing that downloads.
    #[error(transparent)]
    NoTool(#[from] NoTool),
    /// Another import is under way, and a browser cannot wait in a queue.
    #[error("image '{0}' is being imported: an upload has to wait until that is done, or cancelled")]
    Busy(String),
}

impl Fleet {
    /// Starts the import of an image file or disk.
    ///
    /// # Errors
    /// When the name is bad or taken, or the volume cannot take it.
    pub fn import_image(&mut self, source: PathBuf, name: &str) -> Result<u32, ImportRefused> {
        self.start_import(name, move |_| Source::open(&source).map_err(|e| e.to_string()))
    }

    /// Starts the import of an image on a web server; `sum` and `size` are what it has to have, if that is known.
    ///
    /// # Errors
    /// As before, and when nothing here can download.
    pub fn download_image(
        &mut self,
        url: Url,
        name: &str,
        sum: Option<Sum>,
        size: Option<u64>,
    ) -> Result<u32, ImportRefused> {
        let tool = Tool::find()?;
        self.start_import(name, move |running| {
            let label = url.to_string();
            let size = size.or_else(|| tool.size(&url, &running.cancel_flag()));
            let download = Download::new(tool, url, size, running.cancel_flag());
            Source::from_reader(Box::new(Checked::new(download, sum)), size, label).map_err(|e| e.to_string())
        })
    }

    /// Starts the import of an image that comes over a connection; `label` is what it is called in messages.
    ///
    /// # Errors
    /// As before.
    pub fn upload_image(
        &mut self,
        name: &str,
        label: String,
        size: Option<u64>,
        body: Body,
    ) -> Result<u32, ImportRefused> {
        self.start_import(name, move |running| {
            let upload = Upload::whole(body, size, running.cancel_flag());
            Source::from_reader(Box::new(upload), size, label).map_err(|e| e.to_string())
        })
    }

    /// Starts the import of an image of `size` bytes that comes in pieces, by [`Fleet::upload_piece`].
    ///
    /// # Errors
    /// As before, and while another import is under way.
    pub fn upload_image_in_pieces(&mut self, name: &str, label: String, size: u64) -> Result<u32, ImportRefused> {
        let jobs = self.jobs.list();
        if let Some(busy) = jobs.iter().find(|job| job.kind == JobKind::Import && !job.state.is_final()) {
            return Err(ImportRefused::Busy(busy.subject.clone()));
        }
        self.uploads.clear();
        let (pieces, upload) = Upload::pieces(size);
        let job = self.start_import(name, move |running| {
            let upload = upload(running.cancel_flag());
            Source::from_reader(Box::new(upload), Some(size), label).map_err(|e| e.to_string())
        })?;
        self.uploads.insert(job, pieces);
        Ok(job)
    }

    /// Hands a piece of an image to the import that waits for it; the piece is answered when it was taken, or cannot be.
    pub fn upload_piece(&self, job: u32, piece: Piece) {
        let ended = || match self.jobs.get(job) {
            Some(job) if !job.message.is_empty() => job.message,
            Some(_) => format!("job {job} has ended"),
            None => format!("there is no job {job}"),
        };
        let Some(pieces) = self.uploads.get(&job) else { return piece.refuse(ended()) };
        match pieces.try_send(piece) {
            Ok(()) => {}
            Err(TrySendError::Full(piece)) => piece.refuse("another piece of it waits already".to_owned()),
            Err(TrySendError::Disconnected(piece)) => piece.refuse(ended()),
        }
    }

    fn start_import(
        &mut self,
        name: &str,
        open: impl FnOnce(&Running) -> Result<Source, String> + Send + 'static,
    ) -> Result<u32, ImportRefused> {
        check_image_name(name).map_err(EnrolError::from)?;
        if let Some(problem) = self.volume.problems.first() {
            return Err(EnrolError::Volume(problem.to_string()).into());
        }
        if self.layout.image(name).exists() {
            return Err(EnrolError::Taken(format!("the name {name}"), "an image".to_owned()).into());
        }
        let (images, scratch) = (self.layout.images(), self.layout.scratch());
        let (owned, now_ms) = (name.to_owned(), self.clock.wall_ms());
        let task = Box::new(move |running: &Running| {
            // Whoever was reading when it was cancelled has its own words for it.
            let why = |error| if running.cancelled() { "the import was cancelled".to_owned() } else { error };
            let source = open(running).map_err(why)?;
            let info = image::import(source, &owned, &images, &scratch, now_ms, running);
            let info = info.map_err(|error| why(error.to_string()))?;
            let notes: String = info.notes.iter().map(|note| format!("; {note}")).collect();
            Ok(format!("image {} imported: {}{notes}", info.name, info.os.as_deref().unwrap_or("system unknown")))
        });
        let job = self.jobs.submit(JobKind::Import, name, task).map_err(EnrolError::from)?;
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
        let over = self.layers_over(name).map_err(|e| EnrolError::File(name.to_owned(), e))?;
        if !over.is_empty() {
            return Err(EnrolError::LowerLayer(name.to_owned(), over.join(", ")));
        }
        if let Some(job) = self.claimed(&layers::claim_name(name)) {
            return Err(JobsError::Busy(job, name.to_owned()).into());
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
