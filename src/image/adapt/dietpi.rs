//! Rule `dietpi`: DietPi sets itself up at its first boot from `dietpi.txt`, over what was adapted before: it would call the
//! device "DietPi" again, swap to a file on NFS and give it its image's password. So what it reads says what the device is
//! to have (its `dietpi-firstboot.bash`).

use super::accounts;
use super::editor::{Editor, Side};
use super::storage::set_shell_variables;
use super::tree::{Owner, PRIVATE};
use super::{AdaptError, Regional};

const SETTINGS: &str = "dietpi.txt";
/// What DietPi takes from the FAT partition at its first boot (its `fs_partition_resize.sh`), which never gets there when the
/// root is no partition. They hold passwords and keys.
const TAKEN: [&str; 6] = [
    SETTINGS,
    "dietpi-wifi.txt",
    "Automation_Custom_PreScript.sh",
    "Automation_Custom_Script.sh",
    "unattended_pivpn.conf",
    "dietpi-k3s.yaml",
];
const RESIZE: &str = "etc/systemd/system/dietpi-fs_partition_resize.service";
const SHADOW: Owner = Owner { uid: 0, gid: 42, mode: 0o640 };

pub(super) fn apply(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    // Its own files are in /boot, which was the FAT partition until Debian 12.
    let side = if editor.exists("boot/dietpi")? { Side::Root } else { Side::Boot };
    if side == Side::Root {
        take_settings(editor)?;
    }
    let path = path_of(side, SETTINGS);
    let Some(old) = editor.text(side, &path)? else { return Ok(()) };
    let what = "what DietPi sets up at its first boot is what this device is to have";
    editor.write_as(side, &path, &configured(editor, &old), PRIVATE, what)?;
    if editor.exists(RESIZE)? {
        // Not by removing the links that start it: the first boot applies presets, which make them again.
        let text = "[Unit]\nConditionKernelCommandLine=!root=/dev/nfs\n";
        editor.write(Side::Root, &format!("{RESIZE}.d/10-netboot.conf"), text, "there is no partition to grow")?;
    }
    // Two accounts of DietPi share a password.
    if let Some(password) = editor.settings.password.clone() {
        let path = "etc/shadow";
        let shadow = editor.text(Side::Root, path)?.unwrap_or_default();
        let new = accounts::set_hash(&shadow, "root", password.as_str());
        editor.write_as(Side::Root, path, &new, SHADOW, "the user's password is root's, too, as always with DietPi")?;
    }
    Ok(())
}

fn path_of(side: Side, name: &str) -> String {
    match side {
        Side::Boot => name.to_owned(),
        Side::Root => format!("boot/{name}"),
    }
}

fn take_settings(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    for name in TAKEN {
        let Some(text) = editor.text(Side::Boot, name)? else { continue };
        let path = path_of(Side::Root, name);
        editor.write_as(
            Side::Root,
            &path,
            &text,
            PRIVATE,
            "moved out of the boot files, which are served over TFTP",
        )?;
        editor.remove(Side::Boot, name, "removed: it may hold passwords, and is in the root")?;
    }
    Ok(())
}

/// `dietpi.txt` with what this device is to have.
fn configured(editor: &Editor<'_>, old: &str) -> String {
    let Regional { locale, timezone, keyboard } = &editor.settings.regional;
    let mut wanted = vec![
        ("AUTO_SETUP_NET_HOSTNAME", editor.target.hostname.as_str()),
        // The interface of the root is the kernel's.
        ("AUTO_SETUP_NET_USESTATIC", "0"),
        ("AUTO_SETUP_DHCP_TO_STATIC", "0"),
        ("AUTO_SETUP_SWAPFILE_LOCATION", "zram"),
    ];
    wanted.extend(locale.as_deref().map(|locale| ("AUTO_SETUP_LOCALE", locale)));
    wanted.extend(timezone.as_deref().map(|zone| ("AUTO_SETUP_TIMEZONE", zone)));
    wanted.extend(keyboard.as_deref().map(|layout| ("AUTO_SETUP_KEYBOARD_LAYOUT", layout)));
    if editor.settings.password.is_some() {
        wanted.push(("AUTO_SETUP_GLOBAL_PASSWORD", ""));
    }
    set_shell_variables(old, &wanted)
}
