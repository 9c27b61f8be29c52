//! Rule `ephemeral`: a root that nobody can write to, for a Pi that keeps what it changes in its memory.
//!
//! A program of its own in the place of init mounts the overlay. So it does not matter whether there is an initramfs, which
//! system made it, and whether rule `trim` leaves it out; and what it needs, the module and mount(8), is in the root.

use super::AdaptError;
use super::editor::{Editor, Side};
use super::tree::Owner;

/// The program, from the root's own `/`.
pub(super) const INIT: &str = "/usr/lib/piboot/ephemeral-init";
/// Word of the kernel's command line: what the program is to go on with, if not with the system's init.
pub(super) const REAL_INIT: &str = "piboot.init";

const DIRECTORY: &str = "usr/lib/piboot";
const SCRIPT: &str = include_str!("ephemeral-init.sh");
/// Where it mounts, in the read-only root and in the overlay.
const PLACES: [&str; 3] = ["root", "memory", "image"];

pub(super) fn apply(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    let path = INIT.trim_start_matches('/');
    if !editor.target.ephemeral {
        // It was one, or was made from one.
        return editor.remove(Side::Root, path, "removed: what is changed here stays");
    }
    let what = "what the system changes is kept in memory";
    editor.write_as(Side::Root, path, SCRIPT, Owner { uid: 0, gid: 0, mode: 0o755 }, what)?;
    for place in PLACES {
        let owner = Owner { uid: 0, gid: 0, mode: 0o755 };
        editor.directory(&format!("{DIRECTORY}/{place}"), owner, "a place to mount at")?;
    }
    // Everything that changes the boot files would fail at every boot.
    editor.disable("rpi-eeprom-update.service", "the boot files are read-only")?;
    for name in ["ssh", "ssh.txt"] {
        editor.remove(Side::Boot, name, "removed: the system would want to remove it at every boot")?;
    }
    Ok(())
}
