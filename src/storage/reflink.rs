//! Do files on this volume share their blocks with copies of theirs? The volume itself is asked: btrfs does, xfs if it was
//! made with `reflink=1`, and nothing in the name of a file system tells (ioctl_ficlone(2)).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Enough for blocks of its own: btrfs keeps less than a page or so inside the inode.
const LENGTH: usize = 64 << 10;

/// Files cannot share blocks here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "files cannot share their blocks on the file system at {} ({errno}): that needs btrfs, or xfs made with reflink=1",
    directory.display()
)]
pub struct NoReflink {
    /// Where it was tried.
    pub directory: PathBuf,
    /// What the system said.
    pub errno: Errno,
}

/// Tries it with two files in `directory` that have no names, so that nothing is left behind whatever happens.
///
/// # Errors
/// [`NoReflink`].
pub fn probe(directory: &Path) -> Result<(), NoReflink> {
    try_it(directory).map_err(|errno| NoReflink { directory: directory.to_owned(), errno })
}

fn try_it(directory: &Path) -> Result<(), Errno> {
    let nameless = || {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    };
    let errno = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
    let (original, clone) = (nameless()?, nameless()?);
    let written: Vec<u8> = (0..LENGTH).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect();
    original.write_all_at(&written, 0).map_err(errno)?;
    rustix::fs::ioctl_ficlone(&clone, &original)?;
    let mut read = vec![0; LENGTH];
    clone.read_exact_at(&mut read, 0).map_err(errno)?;
    if read == written { Ok(()) } else { Err(Errno::IO) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_shares_nothing_and_the_sentence_says_what_does() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let refused = probe(dir.path()).unwrap_err();
        assert_eq!(refused.errno, Errno::OPNOTSUPP);
        let text = refused.to_string();
        assert!(text.contains("btrfs") && text.contains(dir.path().to_str().unwrap()), "{text}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }
}
