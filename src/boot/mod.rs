//! From wire events to the story of a boot: sessions, stages with their times, the files a Pi asked for, and what stands
//! in its way.

mod classify;
pub mod diagnosis;
mod early;
pub mod packets;
mod session;
mod stage;
mod steps;
mod tracker;

pub use classify::{FileKind, board_of, split_prefix};
pub use diagnosis::Finding;
pub use packets::Packets;
pub use session::{
    Boot, BootEnd, BootState, ConsoleLine, FileOutcome, FileSeen, MAX_CONSOLE, MAX_FILES, MAX_OFFERS, MAX_QUIRKS,
    MAX_REFUSALS, OfferSeen, QuirkSeen, Refusal,
};
pub use stage::{Stage, StageSeen};
pub use tracker::{GIVEN_UP, Tracker, Update, Who};
