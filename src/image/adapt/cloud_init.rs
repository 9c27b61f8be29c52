//! Rule `cloud-init`: Trixie reads its first-boot settings from the boot partition before that is mounted over NFS,
//! so they move into the root; and the network stays as the kernel has set it up.

use super::AdaptError;
use super::editor::{Editor, Side};

const SEED: &str = "var/lib/cloud/seed/nocloud";

pub(super) fn apply(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    if !editor.exists("usr/bin/cloud-init")? && !editor.exists("etc/cloud/cloud.cfg")? {
        return Ok(());
    }
    // Sorted last, after Raspberry Pi OS's own 99_raspberry-pi.cfg.
    let config = "network: {config: disabled}\n\
        datasource: {NoCloud: {seedfrom: 'file:///var/lib/cloud/seed/nocloud/'}}\n";
    let what = "the network stays as the kernel set it up; settings come from the root";
    editor.write(Side::Root, "etc/cloud/cloud.cfg.d/zz-netboot.cfg", config, what)?;
    for name in ["user-data", "network-config"] {
        let path = format!("{SEED}/{name}");
        // What the device was given once is not given again: its user may have changed it there.
        if let Some(text) = editor.text(Side::Boot, name)?
            && !editor.exists(&path)?
        {
            editor.write(Side::Root, &path, &text, "copied from the boot files")?;
        }
    }
    let meta = editor.text(Side::Boot, "meta-data")?.unwrap_or_default();
    let meta = edit_meta(&meta, &editor.target.id, &editor.target.hostname);
    editor.write(Side::Root, &format!("{SEED}/meta-data"), &meta, "an instance of its own")
}

/// An instance id per device makes cloud-init set up each one; whatever else the image says stays.
fn edit_meta(old: &str, id: &str, hostname: &str) -> String {
    let own = ["instance-id", "instance_id", "local-hostname"];
    let is_own = |line: &&str| own.iter().any(|key| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')));
    let kept: String = old.lines().filter(|line| !is_own(line)).map(|line| format!("{line}\n")).collect();
    format!("{kept}instance-id: piboot-{id}\nlocal-hostname: {hostname}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instance_is_the_device() {
        let old = "# comment\ninstance_id: rpi-image\ndsmode: local\n";
        let new = edit_meta(old, "running_lion", "running-lion");
        let expected = "# comment\ndsmode: local\ninstance-id: piboot-running_lion\nlocal-hostname: running-lion\n";
        assert_eq!(new, expected);
        assert_eq!(edit_meta(&new, "running_lion", "running-lion"), new);
    }
}
