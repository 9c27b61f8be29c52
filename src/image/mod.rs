//! Operating-system images: from what someone downloaded, or an SD card, to a boot tree and a root tree on the router's disk.
//!
//! [`source`] opens a file, disk or stream and [`unpack`] decodes it; [`partition`], [`fat`] and [`ext4`] read what is
//! in it (pure parsers over a [`blocks::BlockSource`]), [`tree_writer`] writes the trees, [`import`] puts it together;
//! [`adapt`] makes a device's copy of those trees boot from the network, [`check`] says what would stop it.

pub mod adapt;
pub mod blocks;
pub mod check;
pub mod ext4;
pub mod extract;
pub mod fat;
mod fields;
pub mod fit;
pub mod import;
pub mod info;
pub mod inspect;
pub mod partition;
pub mod sdcard;
pub mod source;
pub mod unpack;

pub use import::{ImportError, import, sweep};
pub use info::{ImageInfo, load_info};
pub use inspect::{Inspection, inspect};
pub use source::{Source, SourceError};
