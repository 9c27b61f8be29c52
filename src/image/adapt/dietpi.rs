//! Rule `dietpi`: DietPi sets itself up at its first boot from `dietpi.txt`, over what was adapted before: it would call the
//! device "DietPi" again, swap to a file on NFS and give it the password that every image has. So what it reads says what the
//! device is to have (its `dietpi-firstboot.bash`).

use super::accounts;
use super::editor::{Editor, Side};
use super::storage::set_shell_variables;
use super::tree::{Owner, PRIVATE};
use super::{AdaptError, Regional};

const SETTINGS: &str = "dietpi.txt";
const PASSWORD: &str = "AUTO_SETUP_GLOBAL_PASSWORD";
/// What the password is in every image, and where none is set.
const KNOWN: &str = "dietpi";
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
    note_password(editor, side, &path, &old);
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
        let Some(text) = editor.movable(name)? else { continue };
        editor.move_out_of_boot(name, &path_of(Side::Root, name), &text)?;
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
    if editor.settings.password.is_some() && !has_password_of_its_own(old) {
        wanted.push((PASSWORD, ""));
    }
    set_shell_variables(old, &wanted)
}

/// A setting as DietPi reads it: of several lines the first one counts.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim_start().strip_prefix(key)?.strip_prefix('='))
}

/// Whether somebody chose a password for DietPi, which then is that of the software it installs, too.
fn has_password_of_its_own(settings: &str) -> bool {
    value(settings, PASSWORD).is_some_and(|password| !matches!(password.trim(), "" | KNOWN))
}

/// What becomes of passwords beside the device's own.
fn note_password(editor: &mut Editor<'_>, side: Side, path: &str, settings: &str) {
    if editor.settings.password.is_none() {
        return;
    }
    if has_password_of_its_own(settings) {
        let what = format!("{PASSWORD} is left: the first boot makes it the password of root and dietpi, too");
        editor.note(side, path, what);
    } else if value(settings, "AUTO_SETUP_AUTOMATED").is_some_and(|automated| automated.trim() == "1") {
        // Its dietpi-software falls back to that one where there is none.
        let what = format!(
            "software that DietPi installs by itself gets the password '{KNOWN}' until another is set ('dietpi-config' on the Pi, Security Options; or {PASSWORD} in the image)"
        );
        editor.note(side, path, what);
    }
}
