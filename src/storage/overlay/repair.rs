//! What is put right in the index of layers before they are mounted. The mount itself then takes away what is left over.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Where the kernel keeps the count of links: relative to the upper file's (`U`) or the lower one's (`L`).
pub(super) const NLINK: &str = "trusted.overlay.nlink";
/// One more than the upper file has: the held one of the lower layer is left, and nothing else.
const NAMELESS: &[u8] = b"U+0";

/// Looks through an index: entries of files that lost their last name are marked so that the mount deletes them, and
/// entries that a power cut left without a count get one, so that it does not. How many of each.
///
/// # Errors
/// As the file system reports.
pub(super) fn repair(index: &Path) -> io::Result<(u32, u32)> {
    let entries = match std::fs::read_dir(index) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
        other => other?,
    };
    let (mut nameless, mut uncounted) = (0, 0);
    for entry in entries {
        let entry = entry?;
        let (path, meta) = (entry.path(), entry.path().symlink_metadata()?);
        let is_whiteout = meta.file_type().is_char_device() && meta.rdev() == 0;
        // Directories have no count; more links than this one are names.
        if meta.is_dir() || is_whiteout || meta.nlink() != 1 || entry.file_name().as_encoded_bytes().starts_with(b"#") {
            continue;
        }
        let mut value = [0; 32];
        let set = |value: &[u8]| rustix::fs::lsetxattr(&path, NLINK, value, XattrFlags::empty());
        match rustix::fs::lgetxattr(&path, NLINK, &mut value[..]) {
            Ok(length) if value.get(..length) == Some(NAMELESS) => {
                set(b"U-1")?;
                nameless += 1;
            }
            Ok(_) => {}
            Err(Errno::NODATA) => {
                set(b"L+0")?;
                uncounted += 1;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok((nameless, uncounted))
}
