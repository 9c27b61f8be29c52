//! Requests and answers, the same for every transport.

mod boots;
mod devices;
mod images;
mod snapshots;
mod status;

use serde::{Deserialize, Serialize};

pub use boots::*;
pub use devices::*;
pub use images::*;
pub use snapshots::*;
pub use status::*;

/// `device {id}`, and every verb that takes nothing else.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdRequest {
    /// Device id.
    pub id: String,
}

/// Nothing to say but that it was done.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Nothing {}
