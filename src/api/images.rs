//! Verbs about images, jobs and the disk.

use std::path::Path;

use serde_json::Value;

use super::call::Reply;
use super::types::*;
use super::{Api, ApiError, Servers, answer, read};
use crate::fleet::Fetched;
use crate::image;
use crate::incoming::digest::Sum;
use crate::incoming::os_list::OsList;
use crate::incoming::upload::{Body, Piece};
use crate::incoming::url::{Url, is_url};
use crate::storage::disks;

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

    pub(super) fn image_import(&mut self, request: &ImportRequest) -> Result<Started, ApiError> {
        let ImportRequest { source, name, sha256, size } = request;
        let job = if is_url(source) {
            let sum = sha256.as_deref().filter(|sum| !sum.is_empty()).map(Sum::parse).transpose();
            let sum = sum.map_err(|e| ApiError::InvalidArgument(format!("sha256: {e}")))?;
            let url = Url::parse(source).map_err(|e| ApiError::InvalidArgument(format!("source: {e}")))?;
            self.fleet.download_image(url, name, sum, *size)
        } else if Path::new(source).is_absolute() {
            self.fleet.import_image(source.into(), name)
        } else {
            return Err(ApiError::InvalidArgument(format!(
                "source: '{source}' is neither an absolute path nor an address with http:// or https://"
            )));
        };
        job.map(|job| Started { job }).map_err(|e| ApiError::Failed(e.to_string()))
    }

    /// Calls a verb whose request is followed by bytes. An answer may come much later, when they were taken.
    pub fn stream(&mut self, method: &str, params: Value, body: Body, reply: Reply) {
        let said = match method {
            "image_upload" => read(params).and_then(|request| answer(self.image_upload(&request, body)?)),
            "image_upload_piece" => match read(params) {
                Ok(request) => return self.image_upload_piece(&request, body, reply),
                Err(error) => Err(error),
            },
            other => Err(ApiError::UnknownMethod(other.to_owned())),
        };
        // The caller may have hung up.
        let _ = reply.send(said);
    }

    fn image_upload(&mut self, request: &UploadRequest, body: Body) -> Result<Started, ApiError> {
        let UploadRequest { name, size, file, pieces } = request;
        let label = file.as_deref().filter(|file| !file.is_empty()).unwrap_or("the upload").to_owned();
        let job = match (pieces, size) {
            (false, _) => self.fleet.upload_image(name, label, *size, body),
            (true, Some(size)) => self.fleet.upload_image_in_pieces(name, label, *size),
            (true, None) => {
                let why = "size: what comes in pieces has to have one".to_owned();
                return Err(ApiError::InvalidArgument(why));
            }
        };
        job.map(|job| Started { job }).map_err(|e| ApiError::Failed(e.to_string()))
    }

    fn image_upload_piece(&mut self, request: &PieceRequest, body: Body, reply: Reply) {
        let said = move |received: Result<u64, String>| {
            let said = received.map_err(ApiError::Failed).and_then(|received| answer(Received { received }));
            // The caller may have hung up.
            let _ = reply.send(said);
        };
        self.fleet.upload_piece(request.job, Piece::new(body, request.offset, request.length, Box::new(said)));
    }

    /// What can be downloaded. The first who asks for a list has it fetched.
    pub(super) fn os_list(&mut self, request: &OsListRequest) -> Result<OsListAnswer, ApiError> {
        let asked = request.url.as_deref().filter(|url| !url.is_empty());
        let url = asked.unwrap_or(&self.fleet.config().main.os_list);
        let url = Url::parse(url).map_err(|e| ApiError::InvalidArgument(format!("url: {e}")))?;
        let address = url.to_string();
        let fetched = self.fleet.os_list(url).map_err(|e| ApiError::Failed(e.to_string()))?;
        let mut told = OsListAnswer {
            state: ListState::Loading,
            why: None,
            url: address,
            boards: Vec::new(),
            systems: Vec::new(),
        };
        match fetched {
            Fetched::Loading => {}
            Fetched::Failed(why) => (told.state, told.why) = (ListState::Failed, Some(why)),
            Fetched::Ready(list) => {
                let name = request.board.as_deref().filter(|board| !board.is_empty());
                let board = name.map(|name| list.board(name).ok_or_else(|| unknown_board(name, &list))).transpose()?;
                told.state = ListState::Ready;
                told.boards = list.boards.iter().map(|board| board.name.clone()).collect();
                told.systems = list.fitting(board).cloned().collect();
            }
        }
        Ok(told)
    }

    /// The disks of this router.
    pub(super) fn disks(&self) -> Disks {
        Disks { disks: disks::disks(self.fleet.volume().mount_point.as_deref()) }
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

fn unknown_board(name: &str, list: &OsList) -> ApiError {
    let known: Vec<&str> = list.boards.iter().map(|board| board.name.as_str()).collect();
    ApiError::NotFound(format!("the list knows no board '{name}', but: {}", known.join(", ")))
}
