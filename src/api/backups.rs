//! Verbs about backups of Pis.

use super::types::*;
use super::{Api, ApiError, Servers};
use crate::fleet::BackupError;

impl<S: Servers> Api<S> {
    pub(super) fn backup(&mut self, request: BackupRequest) -> Result<Started, ApiError> {
        let device = self.configured(&request.id)?.clone();
        let job = self.fleet.backup(&device, request.path, request.live);
        self.started(job)
    }

    pub(super) fn export(&mut self, request: ExportRequest) -> Result<Started, ApiError> {
        let job = self.fleet.export(request.path, request.live);
        self.started(job)
    }

    pub(super) fn import_all(&mut self, request: ImportAllRequest) -> Result<Started, ApiError> {
        let job = self.fleet.import_all(request.path);
        self.started(job)
    }

    pub(super) fn restore(&mut self, request: RestoreRequest) -> Result<Started, ApiError> {
        // People know their Pis by host name.
        let own_id = |id: &str| self.configured(id).map_or_else(|_| id.to_owned(), |device| device.id.clone());
        let id = request.id.as_deref().map(own_id);
        let job = self.fleet.restore(request.path, id.as_deref(), request.replace);
        self.started(job)
    }

    /// A job has begun: what it has claimed is not served any more.
    fn started(&mut self, job: Result<u32, BackupError>) -> Result<Started, ApiError> {
        let job = job.map_err(|e| ApiError::Failed(e.to_string()))?;
        self.reconcile();
        Ok(Started { job })
    }
}
