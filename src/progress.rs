//! How long operations tell how far they are and learn that they should stop.

/// Told of progress by every long operation. Implementations must be quick: it is called at least every MiB.
pub trait Progress: Sync {
    /// `bytes` more bytes and `files` more entries are done.
    fn add(&self, bytes: u64, files: u64);
    /// What [`Progress::add`] will sum up to, as far as it is known now; may be called again with a better figure.
    fn set_total(&self, bytes: u64, files: u64);
    /// Whether the operation should stop and undo what it did.
    fn cancelled(&self) -> bool;
}

/// Tells nobody and is never cancelled.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn add(&self, _bytes: u64, _files: u64) {}
    fn set_total(&self, _bytes: u64, _files: u64) {}
    fn cancelled(&self) -> bool {
        false
    }
}
