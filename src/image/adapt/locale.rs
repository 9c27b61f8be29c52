//! Rule `locale`: language, time zone and keyboard, where they are asked for.

use super::AdaptError;
use super::editor::{Editor, Side};

const ZONES: &str = "usr/share/zoneinfo";

pub(super) fn apply(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    let earlier = editor.target.earlier.clone().map(|earlier| earlier.regional).unwrap_or_default();
    let wanted = editor.settings.regional.clone();
    // What was set before may have been changed on the Pi since.
    if let Some(zone) = wanted.timezone.filter(|zone| earlier.timezone.as_ref() != Some(zone)) {
        timezone(editor, &zone)?;
    }
    if let Some(locale) = wanted.locale.filter(|locale| earlier.locale.as_ref() != Some(locale)) {
        let path = "etc/default/locale";
        let old = editor.text(Side::Root, path)?.unwrap_or_default();
        editor.write(Side::Root, path, &set_variable(&old, "LANG", &locale), &format!("language {locale}"))?;
        if !is_built_in(&locale) {
            let what = format!(
                "if {locale} is not among what 'locale -a' lists on the Pi, make it there: dpkg-reconfigure locales"
            );
            editor.note(Side::Root, path, what);
        }
    }
    if let Some(layout) = wanted.keyboard.filter(|layout| earlier.keyboard.as_ref() != Some(layout)) {
        let path = "etc/default/keyboard";
        if let Some(old) = editor.text(Side::Root, path)? {
            let new = set_variable(&old, "XKBLAYOUT", &format!("\"{layout}\""));
            editor.write(Side::Root, path, &new, &format!("keyboard {layout}"))?;
        }
    }
    Ok(())
}

fn timezone(editor: &mut Editor<'_>, zone: &str) -> Result<(), AdaptError> {
    if !editor.exists(&format!("{ZONES}/{zone}"))? {
        let what = format!("the image does not know the time zone {zone}: its clock shows what the image has");
        editor.note(Side::Root, "etc/localtime", what);
        return Ok(());
    }
    let what = format!("time zone {zone}");
    editor.link("etc/localtime", &format!("/{ZONES}/{zone}"), &what)?;
    if editor.exists("etc/timezone")? {
        editor.write(Side::Root, "etc/timezone", &format!("{zone}\n"), &what)?;
    }
    Ok(())
}

/// glibc has these without a file.
fn is_built_in(locale: &str) -> bool {
    matches!(locale, "C" | "POSIX" | "C.UTF-8")
}

/// Sets a variable of a shell's assignments, in the place of its first one or at the end.
fn set_variable(old: &str, name: &str, value: &str) -> String {
    let mut placed = false;
    let mut new = String::new();
    for line in old.lines() {
        if line.trim_start().strip_prefix(name).is_none_or(|rest| !rest.starts_with('=')) {
            new.push_str(line);
            new.push('\n');
        } else if !std::mem::replace(&mut placed, true) {
            new.push_str(&format!("{name}={value}\n"));
        }
    }
    if placed { new } else { format!("{new}{name}={value}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_set_once_and_the_rest_stays() {
        let old = "# File\nLANG=en_GB.UTF-8\nLANGUAGE=en\nLANG=x\n";
        assert_eq!(set_variable(old, "LANG", "de_DE.UTF-8"), "# File\nLANG=de_DE.UTF-8\nLANGUAGE=en\n");
        assert_eq!(set_variable("A=1", "LANG", "C"), "A=1\nLANG=C\n");
    }
}
