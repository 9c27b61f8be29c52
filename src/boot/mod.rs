//! From wire events to the story of a boot: sessions, stages with their times, the files a Pi asked for.

mod classify;
mod session;
mod tracker;

pub use classify::{FileKind, split_prefix};
pub use session::{Boot, BootState, FileOutcome, FileSeen, MAX_FILES, Stage, StageSeen};
pub use tracker::{Tracker, Update, Who};
