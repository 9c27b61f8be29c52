//! Rule `imager`: settings that somebody left in the boot files for a first boot that does not happen.
//!
//! `custom.toml` is read by the init script that would resize the partition (raspberrypi-sys-mods, `firstboot` and
//! `init_config`), `userconf.txt` by a service that needs the boot files mounted, `firstrun.sh` by words of the command line
//! which the rule `cmdline` removes. The first two are applied here, and removed: they hold passwords, and boot files are
//! served over TFTP; what is not applied is kept in the root. What is configured for the device counts more.

use super::AdaptError;
use super::editor::{Editor, Settings, Side};
use super::toml::{self, Value};
use crate::config::{Password, PasswordHash, check_keyboard, check_timezone, check_user, is_ssh_key};

pub(super) fn apply(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    for name in ["userconf.txt", "userconf"] {
        let Some(text) = editor.movable(name)? else { continue };
        let line = text.lines().next().unwrap_or_default().trim();
        let (user, password) = line.split_once(':').unwrap_or((line, ""));
        let found = Settings { user: Some(user.to_owned()), password: password.parse().ok(), ..Settings::default() };
        if check_user(user).is_ok() && found.password.is_some() {
            take(editor, found);
            editor.remove(Side::Boot, name, "applied, and removed: it holds a password's hash")?;
        } else {
            editor.note(Side::Boot, name, "no line of the form user:hash: not applied".to_owned());
            keep(editor, name, &text)?;
        }
    }
    if let Some(text) = editor.movable("custom.toml")? {
        custom(editor, &text)?;
    }
    if let Some(text) = editor.movable("firstrun.sh")? {
        let why = "settings made in Raspberry Pi Imager (user, password, Wi-Fi, locale …) are not applied: \
                   set them on the device; its host name and ssh keys come from this router";
        editor.note(Side::Boot, "firstrun.sh", why.to_owned());
        keep(editor, "firstrun.sh", &text)?;
    }
    Ok(())
}

/// Keeps in the root what nobody applies.
pub(super) fn keep(editor: &mut Editor<'_>, name: &str, text: &str) -> Result<(), AdaptError> {
    editor.move_out_of_boot(name, &format!("var/lib/raspberrypi/{name}"), text)
}

fn custom(editor: &mut Editor<'_>, text: &str) -> Result<(), AdaptError> {
    const NAME: &str = "custom.toml";
    let Some(entries) = toml::parse(text) else {
        let why = "settings made in Raspberry Pi Imager are not applied, because they are not understood: set user, password, locale … on the device";
        editor.note(Side::Boot, NAME, why.to_owned());
        return keep(editor, NAME, text);
    };
    let (found, left_out) = read(entries);
    take(editor, found);
    if !left_out.is_empty() {
        editor.note(Side::Boot, NAME, format!("not applied: {}", left_out.join(", ")));
    }
    editor.remove(Side::Boot, NAME, "applied, and removed: it may hold passwords")
}

/// What is known among the entries, and the names of what is not. The host name is the device's own.
fn read(entries: Vec<toml::Entry>) -> (Settings, Vec<String>) {
    let mut found = Settings::default();
    let (mut password, mut is_hashed, mut left_out) = (None, true, Vec::new());
    for entry in entries {
        let name = format!("{}.{}", entry.section, entry.key);
        match (name.as_str(), entry.value) {
            ("user.name", Value::Text(text)) if check_user(&text).is_ok() => found.user = Some(text),
            ("user.password", Value::Text(text)) => password = Some(text),
            ("user.password_encrypted", Value::Flag(flag)) => is_hashed = flag,
            ("ssh.authorized_keys", Value::Texts(keys)) if keys.iter().all(|key| is_ssh_key(key)) => {
                found.ssh_keys = keys
            }
            ("locale.timezone", Value::Text(text)) if check_timezone(&text).is_ok() => {
                found.regional.timezone = Some(text)
            }
            ("locale.keymap", Value::Text(text)) if check_keyboard(&text).is_ok() => {
                found.regional.keyboard = Some(text)
            }
            // The device's own host name, and its ssh server, which is always on.
            (".config_version" | "system.hostname" | "ssh.enabled", _) => {}
            _ => left_out.push(name),
        }
    }
    if let Some(password) = password.map(Password) {
        found.password = if is_hashed { password.0.parse().ok() } else { PasswordHash::of(&password.0).ok() };
        if found.password.is_none() {
            left_out.push("user.password".to_owned());
        }
    }
    (found, left_out)
}

/// Takes what the device's configuration says nothing of. A password belongs to its user: where one of the two is
/// configured, neither is taken.
fn take(editor: &mut Editor<'_>, found: Settings) {
    let settings = &mut editor.settings;
    if settings.user.is_none() && settings.password.is_none() {
        (settings.user, settings.password) = (found.user, found.password);
    }
    for key in found.ssh_keys {
        if !settings.ssh_keys.contains(&key) {
            settings.ssh_keys.push(key);
        }
    }
    let regional = &mut settings.regional;
    regional.timezone = regional.timezone.take().or(found.regional.timezone);
    regional.keyboard = regional.keyboard.take().or(found.regional.keyboard);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_imager_writes_is_read_and_the_rest_is_named() {
        let text = "config_version = 1\n\n[system]\nhostname = \"pi\"\n[user]\nname = \"anna\"\npassword = \"$5$abc$aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"\npassword_encrypted = true\n\n[ssh]\nenabled = true\npassword_authentication = false\nauthorized_keys = [ \"ssh-ed25519 AAAA me\" ]\n[wlan]\nssid = \"home\"\n[locale]\nkeymap = \"de\"\ntimezone = \"Europe/Berlin\"\n";
        let (found, left_out) = read(toml::parse(text).unwrap());
        assert_eq!(found.user.as_deref(), Some("anna"));
        assert!(found.password.unwrap().as_str().starts_with("$5$abc$"));
        assert_eq!(found.ssh_keys, ["ssh-ed25519 AAAA me"]);
        assert_eq!(found.regional.timezone.as_deref(), Some("Europe/Berlin"));
        assert_eq!(found.regional.keyboard.as_deref(), Some("de"));
        assert_eq!(left_out, ["ssh.password_authentication", "wlan.ssid"]);
        let plain = "[user]\nname='anna'\npassword='geheim'\npassword_encrypted=false\n";
        let (found, left_out) = read(toml::parse(plain).unwrap());
        assert!(found.password.unwrap().as_str().starts_with("$6$") && left_out.is_empty());
        let (found, left_out) = read(toml::parse("[user]\nname='../x'\npassword='geheim'\n").unwrap());
        assert_eq!((found.user, found.password), (None, None));
        assert_eq!(left_out, ["user.name", "user.password"]);
    }
}
