//! Operating-system images: from a file someone downloaded to a boot tree and a root tree on the router's disk.
//!
//! [`source`] decodes the file, [`partition`], [`fat`] and [`ext4`] read what is in it (pure parsers over a
//! [`blocks::BlockSource`]), [`tree_writer`] writes the trees, [`import`] puts it together; [`adapt`] makes a
//! device's copy of those trees boot from the network.

pub mod adapt;
pub mod blocks;
pub mod ext4;
pub mod extract;
pub mod fat;
mod fields;
pub mod import;
pub mod info;
pub mod inspect;
pub mod partition;
pub mod progress;
pub mod source;
pub mod tree_remove;
pub mod tree_writer;
mod xz;

pub use import::{ImportError, import, sweep};
pub use info::{ImageInfo, load_info};
pub use inspect::{Inspection, inspect};
pub use progress::{NoProgress, Progress};

/// Longest image name.
pub const MAX_NAME: usize = 63;

/// The text is no image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not an image name (lower-case letters, digits, '.', '_' and '-', a letter or digit first, at most 63 characters)"
)]
pub struct NameError(pub String);

/// Checks an image name: it becomes a directory and part of messages, so the set is narrow.
///
/// # Errors
/// [`NameError`] when it is not `[a-z0-9][a-z0-9._-]{0,62}`.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let bytes = name.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ok = bytes.len() <= MAX_NAME
        && bytes.first().is_some_and(plain)
        && bytes.iter().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'));
    if ok { Ok(()) } else { Err(NameError(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names_are_narrow() {
        for good in ["a", "raspios-lite", "0.1_x", &"a".repeat(63)] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", ".", "..", "-a", ".a", "A", "a/b", "a b", "é", "a\0", &"a".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
