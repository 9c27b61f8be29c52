//! Rules about disks that a network-booted Pi has not: `initramfs`, `resize`, `swapfile`, `rpi-swap`.

use super::AdaptError;
use super::editor::{Editor, Side};
use super::tree::Tree;

/// The initramfs that comes with the image can mount NFS; one that a kernel upgrade builds on the device must too
/// (pi-gen sets MODULES=dep after it has built the image's own, export-image/05-finalise).
pub(super) fn initramfs(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    const PATH: &str = "etc/initramfs-tools/initramfs.conf";
    let Some(old) = editor.text(Side::Root, PATH)? else { return Ok(()) };
    let new = set_shell_variables(&old, &[("MODULES", "most"), ("BOOT", "nfs")]);
    editor.write(Side::Root, PATH, &new, "initramfs built on the device can mount its root over NFS")
}

/// Sets `KEY=value` lines of a shell fragment, each in the place of its first one or at the end.
pub(super) fn set_shell_variables(old: &str, wanted: &[(&str, &str)]) -> String {
    let mut lines: Vec<String> = old.lines().map(str::to_owned).collect();
    for (key, value) in wanted {
        let is_key = |line: &String| line.trim_start().strip_prefix(key).is_some_and(|rest| rest.starts_with('='));
        let line = format!("{key}={value}");
        match lines.iter().position(is_key) {
            Some(first) => {
                lines[first] = line;
                let mut index = 0;
                lines.retain(|other| {
                    index += 1;
                    index - 1 <= first || !is_key(other)
                });
            }
            None => lines.push(line),
        }
    }
    lines.join("\n") + "\n"
}

/// Bookworm grows its partition by an init script, Trixie by units.
pub(super) fn resize(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    const WHY: &str = "there is no partition to grow";
    const SCRIPT: &str = "resize2fs_once";
    editor.remove(Side::Root, &format!("etc/init.d/{SCRIPT}"), &format!("removed: {WHY}"))?;
    for level in ["rcS.d", "rc0.d", "rc1.d", "rc2.d", "rc3.d", "rc4.d", "rc5.d", "rc6.d"] {
        for name in editor.look(&format!("etc/{level}"), Tree::list)? {
            if name.ends_with(SCRIPT) {
                editor.remove(Side::Root, &format!("etc/{level}/{name}"), &format!("removed: {WHY}"))?;
            }
        }
    }
    for unit in ["rpi-resize.service", "resize2fs_once.service", "systemd-growfs-root.service"] {
        editor.mask(unit, WHY)?;
    }
    Ok(())
}

/// Swapping to a file on NFS fails or deadlocks.
pub(super) fn swapfile(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    editor.mask("dphys-swapfile.service", "no swap file on NFS")?;
    if editor.exists("etc/dphys-swapfile")? || editor.exists("usr/sbin/dphys-swapfile")? {
        editor.remove(Side::Root, "var/swap", "removed: no swap file on NFS")?;
    }
    Ok(())
}

/// Trixie's swap: compressed memory only (rpi-swap's README, `[Main] Mechanism`).
pub(super) fn rpi_swap(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    const GENERATOR: &str = "usr/lib/systemd/system-generators/rpi-swap-generator";
    if !editor.exists(GENERATOR)? && !editor.exists("etc/rpi/swap.conf")? {
        return Ok(());
    }
    let text = "[Main]\nMechanism=zram\n";
    editor.write(Side::Root, "etc/rpi/swap.conf.d/90-netboot.conf", text, "swap in compressed memory only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_set_in_place_once() {
        let old = "# MODULES: [ most | dep ]\nMODULES=dep\nBUSYBOX=auto\nMODULES=list\n";
        let new = set_shell_variables(old, &[("MODULES", "most"), ("BOOT", "nfs")]);
        assert_eq!(new, "# MODULES: [ most | dep ]\nMODULES=most\nBUSYBOX=auto\nBOOT=nfs\n");
        assert_eq!(set_shell_variables(&new, &[("MODULES", "most"), ("BOOT", "nfs")]), new);
    }
}
