//! Verbs about images, jobs and the disk.

use super::types::*;
use super::{Api, ApiError, Servers};
use crate::image;

impl<S: Servers> Api<S> {
    pub(super) fn images(&mut self) -> Images {
        self.fleet.measure_usage();
        let Ok(entries) = std::fs::read_dir(self.fleet.layout().images()) else { return Images { images: Vec::new() } };
        let mut images: Vec<ImageSummary> = entries
            .flatten()
            .filter_map(|entry| image::load_info(&entry.path()).ok())
            .map(|info| {
                let devices = self.fleet.config().devices.iter();
                let used_by = devices.filter(|d| d.image == info.name).map(|d| d.id.clone()).collect();
                let used_bytes = self.fleet.image_usage(&info.name).and_then(|measured| measured.disk_bytes);
                ImageSummary { info, used_bytes, used_by }
            })
            .collect();
        images.sort_by(|a, b| a.info.name.cmp(&b.info.name));
        Images { images }
    }

    pub(super) fn image_import(&mut self, request: ImportRequest) -> Result<Started, ApiError> {
        if !request.source.is_absolute() {
            let path = request.source.display();
            return Err(ApiError::InvalidArgument(format!("source: '{path}' is not an absolute path")));
        }
        let job = self.fleet.import_image(request.source, &request.name);
        job.map(|job| Started { job }).map_err(|e| ApiError::Failed(e.to_string()))
    }

    pub(super) fn image_remove(&mut self, request: &NameRequest) -> Result<Removed, ApiError> {
        let job = self.fleet.remove_image(&request.name);
        job.map(|job| Removed { job }).map_err(|e| ApiError::Failed(e.to_string()))
    }

    /// Goes on with another disk than before.
    pub(super) fn volume_accept(&mut self) -> Result<Nothing, ApiError> {
        self.fleet.accept_volume().map_err(|e| ApiError::Failed(e.to_string()))?;
        self.reconcile();
        Ok(Nothing {})
    }

    pub(super) fn jobs(&self) -> Result<JobList, ApiError> {
        let jobs = self.fleet.all_jobs().map_err(|e| ApiError::Failed(e.to_string()))?;
        Ok(JobList { jobs })
    }

    pub(super) fn job_cancel(&mut self, request: &JobRequest) -> Result<Nothing, ApiError> {
        self.fleet.jobs().cancel(request.job).map_err(|e| ApiError::NotFound(e.to_string()))?;
        Ok(Nothing {})
    }
}
