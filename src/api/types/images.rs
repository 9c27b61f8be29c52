//! Images and jobs.

use serde::{Deserialize, Serialize};

use crate::image::ImageInfo;
use crate::jobs::Job;

/// `image_import {source, name}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportRequest {
    /// Absolute path of the file.
    pub source: std::path::PathBuf,
    /// Name the image gets.
    pub name: String,
}

/// `image_remove {name}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NameRequest {
    /// Image name.
    pub name: String,
}

/// `job_cancel {job}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobRequest {
    /// Job number.
    pub job: u32,
}

/// `image_remove`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Removed {
    /// The job that deletes its files.
    pub job: Option<u32>,
}

/// `image_import`, `backup`, `restore`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Started {
    /// The job.
    pub job: u32,
}

/// `images`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Images {
    /// By name.
    pub images: Vec<ImageSummary>,
}

/// An image and who uses it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageSummary {
    /// What `image.json` says.
    #[serde(flatten)]
    pub info: ImageInfo,
    /// Bytes that its files take on the disk, once that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// Devices made from it.
    pub used_by: Vec<String>,
}

/// `jobs`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobList {
    /// Oldest first.
    pub jobs: Vec<Job>,
}
