//! How many of a file's links are names in its tree. A file that has more names than were met so far is remembered, so it matters
//! where every file has one link besides ([`super::overlay::hold`]).

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::Stat;

/// What the links of a tree's files are.
#[derive(Debug, Clone, Copy)]
pub enum Links {
    /// Names.
    Names,
    /// Names, and one that holds the file.
    Held,
    /// One of both, as this says of an entry of a directory: true for held.
    Layers(fn(BorrowedFd<'_>, &CStr) -> bool),
}

impl Links {
    /// Names of the entry `name` of `directory`, which is no directory itself.
    #[must_use]
    pub fn names(self, directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> u64 {
        #[allow(clippy::useless_conversion, reason = "the field's type differs between targets")]
        let links = u64::from(stat.st_nlink);
        let is_held = match self {
            Self::Names => false,
            Self::Held => true,
            // The one link of a file is its name.
            Self::Layers(is_held) => links > 1 && is_held(directory, name),
        };
        links.saturating_sub(u64::from(is_held))
    }
}
