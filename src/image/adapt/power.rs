//! Rules about services that do harm over NFS: `journald`, `watchdog`, `timers`.

use super::AdaptError;
use super::editor::{Editor, Side};
use super::tree::Tree;

/// The journal is written by mmap and synced often: slow over NFS, and each boot's timeline is on the router.
pub(super) fn journald(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    if !editor.exists("usr/lib/systemd/systemd-journald")? && !editor.exists("lib/systemd/systemd-journald")? {
        return Ok(());
    }
    let text = "[Journal]\nStorage=volatile\n";
    editor.write(Side::Root, "etc/systemd/journald.conf.d/netboot.conf", text, "the journal stays in memory")
}

/// Trixie resets the Pi when systemd stalls for 16 seconds, which a restart of the router takes longer than.
pub(super) fn watchdog(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    const OWN: &str = "99-netboot.conf";
    let mut found = false;
    for directory in ["etc/systemd/system.conf.d", "usr/lib/systemd/system.conf.d"] {
        for name in editor.look(directory, Tree::list)? {
            let text = editor.text(Side::Root, &format!("{directory}/{name}"))?.unwrap_or_default();
            found |= text.lines().any(|line| line.trim_start().starts_with("RuntimeWatchdogSec="));
        }
    }
    if !found {
        return Ok(());
    }
    let text = "[Manager]\nRuntimeWatchdogSec=5min\n";
    let path = format!("etc/systemd/system.conf.d/{OWN}");
    editor.write(Side::Root, &path, text, "the watchdog waits out a restart of the router")
}

/// Nightly work on disks that are not there, or at the same minute on every Pi.
pub(super) fn timers(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    for (unit, why) in [
        ("apt-daily.timer", "all Pis at once would load the router"),
        ("apt-daily-upgrade.timer", "all Pis at once would load the router"),
        ("man-db.timer", "all Pis at once would load the router"),
        ("fstrim.timer", "there is no disk to trim"),
        ("e2scrub_all.timer", "there is no ext4 to check"),
        ("e2scrub_reap.service", "there is no ext4 to check"),
    ] {
        editor.mask(unit, why)?;
    }
    Ok(())
}
