//! Rule `capabilities`: file capabilities do not exist over NFSv3 (RFC 8276 brings extended attributes to v4.2 only).
//! Programs known to be safe as setuid root, because Debian installs them so where capabilities fail, become that;
//! the rest is named.

use rustix::fs::FileType;

use super::AdaptError;
use super::editor::{Editor, Side};
use super::tree::Tree;

const XATTR: &str = "security.capability";
const DIRECTORIES: [&str; 4] = ["usr/bin", "usr/sbin", "bin", "sbin"];
/// Their packages' own scripts fall back to setuid root.
const KNOWN: [&str; 7] = ["ping", "ping4", "ping6", "arping", "fping", "mtr-packet", "clockdiff"];
const SETUID: u32 = 0o4000;

pub(super) fn apply(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    for directory in DIRECTORIES {
        // Links (/bin on merged systems) are not followed: their target is in the list.
        for name in editor.look(directory, Tree::list)? {
            let path = format!("{directory}/{name}");
            // On an NFS volume they were lost when the tree was written: whether it had any is not known any more.
            let lost = |tree: &Tree| tree.is_on_network() && KNOWN.contains(&name.as_str());
            if !editor.look(&path, |tree, path| Ok(lost(tree) || tree.has_xattr(path, XATTR)?))? {
                continue;
            }
            let Some(stat) = editor.look(&path, Tree::stat)? else { continue };
            if !FileType::from_raw_mode(stat.st_mode).is_file() || stat.st_mode & SETUID != 0 {
                continue;
            }
            if KNOWN.contains(&name.as_str()) && stat.st_uid == 0 {
                let what = "setuid root: its file capability does not exist over NFS";
                editor.set_mode(&path, stat.st_mode & 0o7777 | SETUID, what)?;
            } else {
                editor.note(
                    Side::Root,
                    &path,
                    "its file capability does not exist over NFS: it may need root to work".to_owned(),
                );
            }
        }
    }
    Ok(())
}
