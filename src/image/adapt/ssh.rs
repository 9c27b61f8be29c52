//! Rules about logging in: `ssh-host-keys`, `ssh-enable`, `ssh-authorized-keys`.

use super::editor::{Editor, Side};
use super::host_key::host_key;
use super::tree::{Owner, PRIVATE, Tree};
use super::user::login_user;
use super::{AdaptError, accounts};

const REGENERATE: &str = "regenerate_ssh_host_keys.service";
const OWN_UNIT: &str = "netboot-ssh-host-keys.service";

fn has_server(editor: &Editor<'_>) -> Result<bool, AdaptError> {
    Ok(editor.exists("usr/sbin/sshd")? || editor.unit("ssh.service")?.is_some())
}

/// Keys that came with the image are known to everybody who has it; the device makes its own.
pub(super) fn host_keys(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    for name in editor.look("etc/ssh", Tree::list)? {
        if name.starts_with("ssh_host_") {
            editor.remove(Side::Root, &format!("etc/ssh/{name}"), "removed: the device makes its own host keys")?;
        }
    }
    if editor.target.ephemeral {
        return keep_host_key(editor);
    }
    if editor.unit(REGENERATE)?.is_some() {
        return editor.enable(REGENERATE, "multi-user.target");
    }
    if !has_server(editor)? {
        return Ok(());
    }
    let unit = "[Unit]\n\
        Description=Make missing SSH host keys\n\
        Before=ssh.service ssh.socket sshd.service\n\
        ConditionFileIsExecutable=/usr/bin/ssh-keygen\n\
        \n\
        [Service]\n\
        Type=oneshot\n\
        ExecStart=/usr/bin/ssh-keygen -A\n\
        \n\
        [Install]\n\
        WantedBy=multi-user.target\n";
    editor.write(
        Side::Root,
        &format!("etc/systemd/system/{OWN_UNIT}"),
        unit,
        "makes the device's host keys at boot",
    )?;
    editor.enable(OWN_UNIT, "multi-user.target")
}

/// A device that forgets what it makes gets a key that is the same at every boot.
fn keep_host_key(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    const PATH: &str = "etc/ssh/ssh_host_ed25519_key";
    for unit in [REGENERATE, OWN_UNIT] {
        editor.disable(unit, "the device has a host key")?;
    }
    if !has_server(editor)? {
        return Ok(());
    }
    let mut random = [0; 36];
    crate::random::fill(&mut random).map_err(|e| AdaptError::Random(e.to_string()))?;
    let (seed, check) = random.split_first_chunk().map_or(([0; 32], &[][..]), |(seed, check)| (*seed, check));
    let check = check.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    let key = host_key(seed, check, &format!("root@{}", editor.target.hostname));
    let key = key.ok_or_else(|| AdaptError::Random("only zeros came".to_owned()))?;
    let what = "a host key of its own, for every boot";
    editor.write_as(Side::Root, PATH, &key.private, PRIVATE, what)?;
    editor.write(Side::Root, &format!("{PATH}.pub"), &key.public, what)
}

/// Raspberry Pi OS starts no ssh server until a file on the boot partition says so; a headless Pi needs it.
pub(super) fn enable(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    editor.remove(Side::Root, "etc/ssh/sshd_not_to_be_run", "removed: ssh is wanted")?;
    editor.enable("ssh.service", "multi-user.target")
}

/// Adds the keys that the device is to have, and takes away those that it was given earlier and is not to have any more.
pub(super) fn authorized_keys(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    let wanted = editor.settings.ssh_keys.clone();
    let earlier = editor.target.earlier.as_ref().map(|earlier| earlier.ssh_keys.clone()).unwrap_or_default();
    let unwanted: Vec<String> = earlier.into_iter().filter(|key| !wanted.contains(key)).collect();
    if wanted.is_empty() && unwanted.is_empty() {
        return Ok(());
    }
    let passwd = editor.text(Side::Root, "etc/passwd")?.unwrap_or_default();
    let login = login_user(&passwd, editor.settings.user.as_deref());
    let Some(user) = login.or_else(|| accounts::user(&passwd, "root")) else {
        editor.note(
            Side::Root,
            "etc/passwd",
            "neither a user 1000 nor root: the ssh keys were not installed".to_owned(),
        );
        return Ok(());
    };
    if user.home.is_empty() || !editor.exists(&user.home)? {
        editor.note(Side::Root, &user.home, format!("no home of {}: the ssh keys were not installed", user.name));
        return Ok(());
    }
    let owner = |mode| Owner { uid: user.uid, gid: user.gid, mode };
    let directory = format!("{}/.ssh", user.home);
    if wanted.is_empty() && !editor.exists(&directory)? {
        return Ok(());
    }
    // sshd refuses keys in a directory that others may write to.
    editor.directory(&directory, owner(0o700), "for authorized_keys")?;
    let path = format!("{directory}/authorized_keys");
    let old = editor.text(Side::Root, &path)?.unwrap_or_default();
    let new = add_keys(&remove_keys(&old, &unwanted), &wanted);
    editor.write_as(Side::Root, &path, &new, owner(0o600), &format!("keys for {}", user.name))
}

/// Takes keys away, each as the whole line that it was added as.
fn remove_keys(old: &str, keys: &[String]) -> String {
    let is_meant = |line: &&str| keys.iter().any(|key| key.trim() == line.trim());
    old.split_inclusive('\n').filter(|line| !is_meant(line)).collect()
}

/// Adds what is missing; keys the user added stay.
fn add_keys(old: &str, keys: &[String]) -> String {
    let mut text = old.to_owned();
    for key in keys {
        let key = key.trim();
        if !text.lines().any(|line| line.trim() == key) {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(key);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_added_once() {
        let keys = ["ssh-ed25519 AAA me".to_owned(), "ssh-rsa BBB you".to_owned()];
        let once = add_keys("ssh-rsa OWN own", &keys);
        assert_eq!(once, "ssh-rsa OWN own\nssh-ed25519 AAA me\nssh-rsa BBB you\n");
        assert_eq!(add_keys(&once, &keys), once);
        assert_eq!(remove_keys(&once, &keys), "ssh-rsa OWN own\n");
        assert_eq!(remove_keys("ssh-ed25519 AAA me too\n", &keys), "ssh-ed25519 AAA me too\n");
    }
}
