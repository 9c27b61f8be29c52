//! The SSD: is it there and fit for use, what lives where on it, and changes that a power cut cannot leave half done.

mod atomic;
pub mod card;
pub mod disks;
mod external;
mod identity;
mod layout;
mod links;
mod mountinfo;
mod mounts;
pub mod overlay;
pub mod reflink;
mod rename;
mod reopen;
mod sync;
pub mod tree_copy;
pub(crate) mod tree_links;
pub mod tree_remove;
pub mod tree_walk;
pub mod tree_writer;
pub mod usage;
mod volume;

pub use atomic::{make_private, rewrite, sync_directory, write_beside};
pub(crate) use external::is_network;
pub use external::{check_external, is_network_at, keeps_attributes};
pub use identity::{Known, Memory, read_id, read_or_make_id};
pub use layout::{Layout, TREES};
pub use links::Links;
pub use mounts::MountWatch;
pub use rename::rename_new;
pub(crate) use reopen::reopen_regular;
pub use sync::SyncGuard;
pub use volume::{CLIENT_RESERVE, RESERVE_BYTES, Volume, VolumeProblem, check, free_bytes};
