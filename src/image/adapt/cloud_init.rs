//! Rule `cloud-init`: Trixie reads its first-boot settings from the boot partition before that is mounted over NFS,
//! so they move into the root, where nobody but root reads them: they hold passwords, and boot files are served over
//! TFTP; and the network stays as the kernel has set it up.

use super::editor::{Editor, IS_IN_ROOT, Side};
use super::tree::{PRIVATE, Tree};
use super::{AdaptError, imager};

const SEED: &str = "var/lib/cloud/seed/nocloud";
/// Between the parts of user data; nobody writes this into theirs.
const BOUNDARY: &str = "=piboot=4c6f6f6b=";

pub(super) fn apply(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    if !editor.exists("usr/bin/cloud-init")? && !editor.exists("etc/cloud/cloud.cfg")? {
        // Nobody reads them, but over TFTP everybody could.
        for name in ["user-data", "network-config"] {
            if let Some(text) = editor.movable(name)? {
                editor.note(Side::Boot, name, "not applied: the image has no cloud-init".to_owned());
                imager::keep(editor, name, &text)?;
            }
        }
        return Ok(());
    }
    // Sorted last, after Raspberry Pi OS's own 99_raspberry-pi.cfg.
    let mut config = "network: {config: disabled}\n\
        datasource: {NoCloud: {seedfrom: 'file:///var/lib/cloud/seed/nocloud/'}}\n"
        .to_owned();
    if editor.target.ephemeral {
        // Every boot is the first one to it: the device keeps the host key that it was given.
        config.push_str("ssh_deletekeys: false\nssh_genkeytypes: [ed25519]\n");
    }
    let what = "the network stays as the kernel set it up; settings come from the root";
    editor.write(Side::Root, "etc/cloud/cloud.cfg.d/zz-netboot.cfg", &config, what)?;
    for name in ["user-data", "network-config"] {
        take(editor, name)?;
    }
    if editor.settings.user.is_some() || editor.settings.password.is_some() {
        let path = format!("{SEED}/user-data");
        let old = editor.text(Side::Root, &path)?.unwrap_or_default();
        let what = "cloud-init makes no user and sets no password: the device's user is there already";
        editor.write_as(Side::Root, &path, &without_users(&old), PRIVATE, what)?;
    }
    let meta = editor.text(Side::Boot, "meta-data")?.unwrap_or_default();
    let meta = edit_meta(&meta, &editor.target.id, &editor.target.hostname);
    editor.write(Side::Root, &format!("{SEED}/meta-data"), &meta, "an instance of its own")
}

/// Moves settings out of the boot files.
fn take(editor: &mut Editor<'_>, name: &str) -> Result<(), AdaptError> {
    let path = format!("{SEED}/{name}");
    let there = editor.text(Side::Root, &path)?;
    // Written by something that let everybody read it.
    if there.is_some() && editor.look(&path, Tree::stat)?.is_some_and(|stat| stat.st_mode & 0o077 != 0) {
        editor.set_mode(&path, PRIVATE.mode, "nobody but root reads it: it may hold passwords")?;
    }
    let Some(text) = editor.movable(name)? else { return Ok(()) };
    match there {
        None => return editor.move_out_of_boot(name, &path, &text),
        Some(there) if there.contains(text.trim_end()) => {}
        // What the device was given once is not given again: its user may have changed it there.
        Some(_) => {
            let beside = "moved out of the boot files; not in force, because there were settings already";
            editor.write_as(Side::Root, &format!("{path}.from-boot"), &text, PRIVATE, beside)?;
        }
    }
    editor.remove(Side::Boot, name, IS_IN_ROOT)
}

/// User data that say what these say, but for users and passwords: those are in the root already (rule `user`), and an image
/// may come with a password that everybody knows. Two parts of one message, merged by cloud-init in this order, the later
/// over the earlier (its documentation: "MIME multi-part archive", "Merging user data sections").
fn without_users(old: &str) -> String {
    if old.contains(BOUNDARY) {
        return old.to_owned();
    }
    // `text/plain` lets cloud-init tell by the first line what it is.
    let kind = if old.starts_with("#cloud-config") { "text/cloud-config" } else { "text/plain" };
    let part = |kind: &str, text: &str| format!("--{BOUNDARY}\nContent-Type: {kind}; charset=\"utf-8\"\n\n{text}\n");
    let first = if old.trim().is_empty() { String::new() } else { part(kind, old) };
    let ours = "#cloud-config\nmerge_how: 'dict(replace)+list()+str()'\nusers: []\nchpasswd: {expire: false}\n";
    let head = format!("Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\nMIME-Version: 1.0\n\n");
    format!("{head}{first}{}--{BOUNDARY}--\n", part("text/cloud-config", ours))
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
    fn users_of_the_image_are_left_out_once() {
        let old = "#cloud-config\nusers: [{name: ubuntu}]\n";
        let new = without_users(old);
        assert!(new.starts_with("Content-Type: multipart/mixed; boundary=") && new.contains(old), "{new}");
        assert!(new.rfind("users: []").unwrap() > new.find(old).unwrap(), "the later wins: {new}");
        assert_eq!(without_users(&new), new);
        assert_eq!(without_users("").matches("Content-Type: text/").count(), 1);
    }

    #[test]
    fn the_instance_is_the_device() {
        let old = "# comment\ninstance_id: rpi-image\ndsmode: local\n";
        let new = edit_meta(old, "running_lion", "running-lion");
        let expected = "# comment\ndsmode: local\ninstance-id: piboot-running_lion\nlocal-hostname: running-lion\n";
        assert_eq!(new, expected);
        assert_eq!(edit_meta(&new, "running_lion", "running-lion"), new);
    }
}
