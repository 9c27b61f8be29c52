//! Rules that give a device its own name: `hostname`, `machine-id`.

use super::AdaptError;
use super::editor::{Editor, Side};

pub(super) fn hostname(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    let name = editor.target.hostname.as_str();
    editor.write(Side::Root, "etc/hostname", &format!("{name}\n"), &format!("host name {name}"))?;
    let old = editor.text(Side::Root, "etc/hosts")?;
    let old = old.as_deref().unwrap_or("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    editor.write(Side::Root, "etc/hosts", &edit_hosts(old, name), &format!("127.0.1.1 is {name}"))
}

/// Debian resolves a host's own name by the address 127.0.1.1 (Debian Reference §5.1.1).
fn edit_hosts(old: &str, name: &str) -> String {
    let own = format!("127.0.1.1\t{name}");
    let mut lines: Vec<&str> = Vec::new();
    let mut placed = false;
    for line in old.lines() {
        if line.split_ascii_whitespace().next() != Some("127.0.1.1") {
            lines.push(line);
        } else if !placed {
            lines.push(&own);
            placed = true;
        }
    }
    if !placed {
        lines.push(&own);
    }
    lines.join("\n") + "\n"
}

/// An image that was booted carries the id of that boot; two devices must not share one (machine-id(5)).
pub(super) fn machine_id(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    const UNSET: &str = "uninitialized\n";
    const WHY: &str = "the device makes an id of its own at its first boot";
    let old = editor.text(Side::Root, "etc/machine-id")?.unwrap_or_default();
    if editor.target.ephemeral {
        // It would make another at every boot, each of which would be its first.
        let mut id = [0; 16];
        crate::random::fill(&mut id).map_err(|e| AdaptError::Random(e.to_string()))?;
        // A UUID of version 4, as systemd makes them (machine-id(5)).
        let id = (u128::from_be_bytes(id) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        editor.write(Side::Root, "etc/machine-id", &format!("{id:032x}\n"), "an id of its own, for every boot")?;
    } else if !matches!(old.trim(), "" | "uninitialized") {
        editor.write(Side::Root, "etc/machine-id", UNSET, WHY)?;
    }
    // Usually a link to the file above; a copy would outlive it.
    if editor.text(Side::Root, "var/lib/dbus/machine-id")?.is_some() {
        editor.remove(Side::Root, "var/lib/dbus/machine-id", WHY)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_keeps_everything_but_the_own_name() {
        let old = "127.0.0.1\tlocalhost\n127.0.1.1\t\traspberrypi\n10.0.0.7 nas # 127.0.1.1\n";
        let new = edit_hosts(old, "lion");
        assert_eq!(new, "127.0.0.1\tlocalhost\n127.0.1.1\tlion\n10.0.0.7 nas # 127.0.1.1\n");
        assert_eq!(edit_hosts(&new, "lion"), new);
        assert_eq!(edit_hosts("127.0.0.1 localhost\n", "lion"), "127.0.0.1 localhost\n127.0.1.1\tlion\n");
    }
}
