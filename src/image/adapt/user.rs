//! Rule `user`: the first user's name and password, and nobody at the screen who has to be asked for them.
//!
//! Written into the root itself, as userconf-pi's `userconf` does it at a first boot, and not into the boot files'
//! `userconf.txt`: those are served over TFTP, which is no place for a password's hash.

use super::AdaptError;
use super::accounts::{self, User, first_user};
use super::editor::{Editor, Side};
use super::tree::{Owner, PUBLIC, Tree};

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";
const SHADOW: Owner = Owner { uid: 0, gid: 42, mode: 0o640 };
/// Of sudoers(5): sudo does not read a file that others may write.
const SUDOERS: Owner = Owner { uid: 0, gid: 0, mode: 0o440 };
/// Groups in which Raspberry Pi OS has its first user, as far as an image has them (pi-gen, stage2/01-sys-tweaks).
const GROUPS: [&str; 17] = [
    "adm", "dialout", "cdrom", "audio", "users", "sudo", "video", "games", "plugdev", "input", "gpio", "spi", "i2c",
    "netdev", "render", "lpadmin", "wheel",
];

pub(super) fn apply(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    let (name, password) = (editor.settings.user.clone(), editor.settings.password.clone());
    let earlier = editor.target.earlier.clone();
    // What was asked for before was done before; since then it is the user's own.
    let is_new_name = name.is_some() && earlier.as_ref().is_none_or(|earlier| earlier.user != name);
    let is_new_password = password.is_some() && earlier.as_ref().is_none_or(|earlier| earlier.password != password);
    if is_new_name && let Some(name) = &name {
        take_name(editor, name, earlier.and_then(|earlier| earlier.user).as_deref())?;
    }
    if is_new_password && let Some(password) = &password {
        set_password(editor, name.as_deref(), password.as_str())?;
    }
    if is_new_name || is_new_password || (editor.is_fresh && !editor.settings.ssh_keys.is_empty()) {
        ask_nobody(editor)?;
    }
    Ok(())
}

/// The one that is to log in: the configured one, else the first.
pub(super) fn login_user(passwd: &str, configured: Option<&str>) -> Option<User> {
    configured.and_then(|name| accounts::user(passwd, name)).or_else(|| first_user(passwd))
}

/// There is a user of that name: renamed, or made where there is none.
fn take_name(editor: &mut Editor<'_>, name: &str, before: Option<&str>) -> Result<(), AdaptError> {
    let passwd = editor.text(Side::Root, PASSWD)?.unwrap_or_default();
    match accounts::user(&passwd, name) {
        Some(user) if user.is_person() => Ok(()),
        Some(_) => Err(AdaptError::User(name.to_owned())),
        None => match login_user(&passwd, before) {
            Some(old) => rename(editor, &passwd, &old, name),
            None => create(editor, &passwd, name),
        },
    }
}

fn rename(editor: &mut Editor<'_>, passwd: &str, old: &User, new: &str) -> Result<(), AdaptError> {
    let what = format!("user {} is called {new}", old.name);
    let mut passwd = accounts::rename_key(passwd, &old.name, new);
    // The home first: a name without its home would not come back to be renamed.
    let home = format!("home/{new}");
    let is_own = old.home == format!("home/{}", old.name);
    // It was moved already where this was interrupted the last time.
    if is_own
        && (editor.move_directory(&old.home, &home, &what)? || !editor.exists(&old.home)? && editor.exists(&home)?)
    {
        passwd = accounts::set_home(&passwd, new, &format!("/{home}"));
    }
    let group = editor.text(Side::Root, GROUP)?.unwrap_or_default();
    let own_group = accounts::group_name(&group, old.gid).filter(|name| *name == old.name);
    let own_group = own_group.filter(|_| !accounts::has_key(&group, new));
    let in_groups = |text: &str, fields| {
        let members = accounts::rename_member(text, &old.name, new, fields);
        if own_group.is_some() { accounts::rename_key(&members, &old.name, new) } else { members }
    };
    edit(editor, GROUP, PUBLIC, &what, |text| in_groups(text, 1))?;
    edit(editor, "etc/gshadow", SHADOW, &what, |text| in_groups(text, 2))?;
    for path in ["etc/shadow", "etc/subuid", "etc/subgid"] {
        edit(editor, path, SHADOW, &what, |text| accounts::rename_key(text, &old.name, new))?;
    }
    for name in editor.look("etc/sudoers.d", Tree::list)? {
        let path = format!("etc/sudoers.d/{name}");
        edit(editor, &path, SUDOERS, &what, |text| accounts::rename_in_sudoers(text, &old.name, new))?;
    }
    log_in_by_itself(editor, &old.name, new, &what)?;
    // Last, because this is what tells that it was done.
    editor.write(Side::Root, PASSWD, &passwd, &what)
}

/// Where the image logs its user in by itself (raspi-config, `do_boot_behaviour`).
fn log_in_by_itself(editor: &mut Editor<'_>, old: &str, new: &str, what: &str) -> Result<(), AdaptError> {
    let console = "etc/systemd/system/getty@tty1.service.d/autologin.conf";
    let (flag, other) = (format!("--autologin {old} "), format!("--autologin {new} "));
    edit(editor, console, PUBLIC, what, |text| text.replace(&flag, &other))?;
    edit(editor, "etc/lightdm/lightdm.conf", PUBLIC, what, |text| {
        let line = |line: &str| {
            if line.trim() == format!("autologin-user={old}") {
                format!("autologin-user={new}\n")
            } else {
                line.to_owned()
            }
        };
        text.split_inclusive('\n').map(line).collect()
    })
}

fn create(editor: &mut Editor<'_>, passwd: &str, name: &str) -> Result<(), AdaptError> {
    let what = format!("user {name}");
    let group = editor.text(Side::Root, GROUP)?.unwrap_or_default();
    let number = accounts::free_number(passwd, &group);
    let home = format!("home/{name}");
    let owner = |mode| Owner { uid: number, gid: number, mode };
    editor.directory(&home, owner(0o700), &what)?;
    for file in editor.look("etc/skel", Tree::list)? {
        if let Some(text) = editor.text(Side::Root, &format!("etc/skel/{file}"))? {
            editor.write_as(Side::Root, &format!("{home}/{file}"), &text, owner(0o644), &what)?;
        }
    }
    let group = accounts::add_to_groups(&group, name, &GROUPS);
    let group = if accounts::has_key(&group, name) {
        group
    } else {
        accounts::add_line(&group, &format!("{name}:x:{number}:"))
    };
    editor.write(Side::Root, GROUP, &group, &what)?;
    edit(editor, "etc/gshadow", SHADOW, &what, |text| {
        let text = if accounts::has_key(text, name) {
            text.to_owned()
        } else {
            accounts::add_line(text, &format!("{name}:!::"))
        };
        accounts::add_to_groups(&text, name, &GROUPS)
    })?;
    let shadow = editor.text(Side::Root, "etc/shadow")?.unwrap_or_default();
    if !accounts::has_key(&shadow, name) {
        editor.write_as(Side::Root, "etc/shadow", &accounts::set_hash(&shadow, name, "!"), SHADOW, &what)?;
    }
    if editor.exists("etc/sudoers.d")? {
        // Who has no password could not give one to sudo; so has Raspberry Pi OS.
        let line = format!("{name} ALL=(ALL) NOPASSWD: ALL\n");
        editor.write_as(Side::Root, &format!("etc/sudoers.d/010_{name}-nopasswd"), &line, SUDOERS, &what)?;
    }
    let has_bash = editor.exists("usr/bin/bash")? || editor.exists("bin/bash")?;
    let shell = if has_bash { "/bin/bash" } else { "/bin/sh" };
    let line = format!("{name}:x:{number}:{number}::/{home}:{shell}");
    editor.write(Side::Root, PASSWD, &accounts::add_line(passwd, &line), &what)
}

fn set_password(editor: &mut Editor<'_>, name: Option<&str>, hash: &str) -> Result<(), AdaptError> {
    let passwd = editor.text(Side::Root, PASSWD)?.unwrap_or_default();
    let Some(user) = login_user(&passwd, name) else {
        let what = "there is no user whose password could be set: name one by option user".to_owned();
        editor.note(Side::Root, PASSWD, what);
        return Ok(());
    };
    let what = format!("password of {}", user.name);
    let shadow = editor.text(Side::Root, "etc/shadow")?.unwrap_or_default();
    editor.write_as(Side::Root, "etc/shadow", &accounts::set_hash(&shadow, &user.name, hash), SHADOW, &what)?;
    editor.write(Side::Root, PASSWD, &accounts::use_shadow(&passwd, &user.name), &what)
}

/// Ends the questions of a first boot, as userconf-pi's `cancel-rename` does: they hold up multi-user.target, and nobody
/// is at the screen to answer them.
fn ask_nobody(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    const WHY: &str = "its questions are answered already";
    if editor.unit("userconfig.service")?.is_none() {
        return Ok(());
    }
    editor.mask("userconfig.service", WHY)?;
    editor.enable("getty@tty1.service", "getty.target")?;
    for path in
        ["etc/ssh/sshd_config.d/rename_user.conf", "etc/xdg/autostart/piwiz.desktop", "etc/sudoers.d/010_wiz-nopasswd"]
    {
        editor.remove(Side::Root, path, &format!("removed: {WHY}"))?;
    }
    edit(editor, "etc/lightdm/lightdm.conf", PUBLIC, WHY, |text| {
        text.replace("\nautologin-user=rpi-first-boot-wizard\n", "\n#autologin-user=\n")
    })
}

/// Changes a file, where there is one.
fn edit(
    editor: &mut Editor<'_>,
    path: &str,
    new: Owner,
    what: &str,
    change: impl FnOnce(&str) -> String,
) -> Result<(), AdaptError> {
    match editor.text(Side::Root, path)? {
        Some(text) => editor.write_as(Side::Root, path, &change(&text), new, what),
        None => Ok(()),
    }
}
