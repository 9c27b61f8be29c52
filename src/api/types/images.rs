//! Images and jobs.

use serde::{Deserialize, Serialize};

use crate::image::ImageInfo;
use crate::incoming::os_list::System;
use crate::jobs::Job;
use crate::storage::disks::Disk;

/// `image_import {source, name, sha256, size}`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ImportRequest {
    /// Absolute path of a file or disk, or an address that begins with `https://` or `http://`.
    pub source: String,
    /// Name the image gets.
    pub name: String,
    /// SHA-256 that a download has to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Bytes that a download has to have, where the server does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// `image_upload {name, size, file, pieces}`, followed by the image's bytes, or by none if they come in pieces
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UploadRequest {
    /// Name the image gets.
    pub name: String,
    /// Bytes that will come; has to be known if they come in pieces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Name of the file at the sender's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Whether they come by `image_upload_piece`.
    #[serde(default)]
    pub pieces: bool,
}

/// `image_upload_piece {job, offset, length}`, followed by so many bytes
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PieceRequest {
    /// The job that `image_upload` named.
    pub job: u32,
    /// Where in the image the piece belongs. It may repeat what is there already.
    pub offset: u64,
    /// Its bytes; with 0 it is only asked how many are there.
    pub length: u64,
}

/// `image_upload_piece`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Bytes of the image that are there.
    pub received: u64,
}

/// `os_list {url, board}`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct OsListRequest {
    /// Where the list is; that of the configuration if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Only what fits this board, by a name of `boards` or what people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub board: Option<String>,
}

/// How far a list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListState {
    /// Being fetched: ask again.
    Loading,
    /// Here.
    Ready,
    /// Not to be had.
    Failed,
}

/// `os_list`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OsListAnswer {
    /// Whether what follows is there yet.
    pub state: ListState,
    /// Why it cannot be had.
    pub why: Option<String>,
    /// Where it comes from.
    pub url: String,
    /// Names of the boards it knows.
    pub boards: Vec<String>,
    /// What can be downloaded, those for `board` only if that was given.
    pub systems: Vec<System>,
}

/// `disks`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Disks {
    /// Those that can be taken out first.
    pub disks: Vec<Disk>,
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
