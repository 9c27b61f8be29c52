//! Edits of a UCI text that leave every other byte alone: comments, order and the sections of others.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::model::{Device, RootKind};
use super::uci::{self, Section, Value, quote};
use crate::pi::{Mac, Serial};

/// Why an edit was not made.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The text to edit is not UCI.
    #[error("the configuration cannot be edited: {0}")]
    Syntax(#[from] uci::SyntaxError),
    /// There is no such device section.
    #[error("no device '{0}' is configured")]
    NoDevice(String),
    /// A section of that name holds something else.
    #[error("piboot.{0} exists and is not a device")]
    NotADevice(String),
    /// The file has the section already, though the agent does not serve it.
    #[error("the configuration has a section '{0}' already: correct or remove it, and send the agent SIGHUP")]
    Exists(String),
}

/// Returns `text` with the section of `device` added, or replaced where it stands.
///
/// # Errors
/// When `text` is no UCI or the name is taken by another kind of section.
pub fn put_device(text: &str, device: &Device) -> Result<String, EditError> {
    let block = device_block(device);
    match find(text, &device.id)? {
        Some(section) => Ok(put_in_place(text, &section, &block)),
        None => Ok(append(text, &block)),
    }
}

/// Returns `text` with exactly `wanted`, which have names, of the sections that `is_ours` names. One that is there already
/// keeps its place, or the unnamed sections behind it would get other numbers, under which others may have staged changes;
/// new ones go behind the rest. `None` if the text says that already.
///
/// # Errors
/// When `text` is no UCI.
pub fn replace_sections(
    text: &str,
    is_ours: impl Fn(&Section) -> bool,
    wanted: &[Section],
) -> Result<Option<String>, EditError> {
    let ours: Vec<Section> = uci::parse(text)?.into_iter().filter(|section| is_ours(section)).collect();
    let mut edited = text.to_owned();
    // From the last one on, so that the places of the others stay what they are.
    for (n, section) in ours.iter().enumerate().rev() {
        let is_repeated = ours.iter().take(n).any(|earlier| earlier.name == section.name);
        match wanted.iter().find(|new| new.name == section.name && !is_repeated) {
            Some(new) if is_same(new, section) => {}
            Some(new) => edited = put_in_place(&edited, section, &block(new)),
            None => edited = cut(&edited, section),
        }
    }
    let is_new = |new: &&Section| ours.iter().all(|section| section.name != new.name);
    edited = wanted.iter().filter(is_new).fold(edited, |edited, new| append(&edited, &block(new)));
    Ok((edited != text).then_some(edited))
}

fn is_same(a: &Section, b: &Section) -> bool {
    a.kind == b.kind && options(a) == options(b)
}

fn put_in_place(text: &str, section: &Section, block: &str) -> String {
    format!("{}{}{}", &text[..section.span.start], block.trim_end(), &text[section.span.end..])
}

/// The options of a section by name; their order says nothing.
fn options(section: &Section) -> BTreeMap<&str, &Value> {
    section.options.iter().map(|option| (option.name.as_str(), &option.value)).collect()
}

fn block(section: &Section) -> String {
    let name = section.name.as_deref().map(|name| format!(" {}", quote(name))).unwrap_or_default();
    let mut block = format!("config {}{name}\n", section.kind);
    for option in &section.options {
        let keyword = if matches!(option.value, Value::One(_)) { "option" } else { "list" };
        for value in option.value.values() {
            // Writing to a String cannot fail.
            let _ = writeln!(block, "\t{keyword} {} {}", option.name, quote(value));
        }
    }
    block
}

/// `text` with a section behind it, set off by a blank line; only by the end of the line where the text has none, so that
/// [`cut`] can tell.
fn append(text: &str, block: &str) -> String {
    let gap = if text.is_empty() { "" } else { "\n" };
    format!("{text}{gap}{block}")
}

/// `text` without a section, the rest of its last line, and what set it off.
fn cut(text: &str, section: &Section) -> String {
    let (before, after) = (&text[..section.span.start], &text[section.span.end..]);
    let after = after.find('\n').map_or("", |end| &after[end + 1..]);
    let is_set_off = before.ends_with("\n\n") || after.is_empty();
    let before = before.strip_suffix('\n').filter(|_| is_set_off).unwrap_or(before);
    format!("{before}{after}")
}

/// Returns `text` with what the section of device `id` lacks of serial and hardware address; nothing else of it changes.
/// `None` if there is no such section, or nothing to add.
///
/// # Errors
/// When `text` is no UCI or the name is taken by another kind of section.
pub fn complete_identity(text: &str, id: &str, mac: Mac, serial: Serial) -> Result<Option<String>, EditError> {
    complete(text, id, &[("serial", serial.to_string()), ("mac", mac.to_string())])
}

/// Returns `text` with the address that device `id` is to have, unless its section names one; nothing else of it changes.
/// `None` if there is no such section, or nothing to add.
///
/// # Errors
/// When `text` is no UCI or the name is taken by another kind of section.
pub fn complete_address(text: &str, id: &str, ip: Ipv4Addr) -> Result<Option<String>, EditError> {
    complete(text, id, &[("ip", ip.to_string())])
}

/// Adds those options that the section lacks.
fn complete(text: &str, id: &str, options: &[(&str, String)]) -> Result<Option<String>, EditError> {
    let Some(section) = find(text, id)? else { return Ok(None) };
    let mut lines = String::new();
    for (name, value) in options {
        if section.get(name).is_none() {
            // Writing to a String cannot fail.
            let _ = write!(lines, "\n\toption {name} {}", quote(value));
        }
    }
    let end = section.span.end;
    Ok((!lines.is_empty()).then(|| format!("{}{lines}{}", &text[..end], &text[end..])))
}

/// Whether `text` has a section of this name, of whatever kind.
///
/// # Errors
/// When `text` is no UCI.
pub fn has_section(text: &str, id: &str) -> Result<bool, EditError> {
    Ok(uci::parse(text)?.iter().any(|s| s.name.as_deref() == Some(id)))
}

/// Returns `text` without the section of device `id`.
///
/// # Errors
/// When `text` is no UCI or has no such device.
pub fn remove_device(text: &str, id: &str) -> Result<String, EditError> {
    let section = find(text, id)?.ok_or_else(|| EditError::NoDevice(id.to_owned()))?;
    Ok(cut(text, &section))
}

pub(super) fn find(text: &str, id: &str) -> Result<Option<Section>, EditError> {
    let section = uci::parse(text)?.into_iter().find(|s| s.name.as_deref() == Some(id));
    match section {
        Some(section) if section.kind != "device" => Err(EditError::NotADevice(id.to_owned())),
        found => Ok(found),
    }
}

fn device_block(device: &Device) -> String {
    let mut block = format!("config device {}\n", quote(&device.id));
    let mut option = |keyword: &str, name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(block, "\t{keyword} {name} {}", quote(value));
    };
    if let Some(serial) = device.serial {
        option("option", "serial", &serial.to_string());
    }
    if let Some(mac) = device.mac {
        option("option", "mac", &mac.to_string());
    }
    if let Some(ip) = device.ip {
        option("option", "ip", &ip.to_string());
    }
    option("option", "hostname", &device.hostname);
    option("option", "image", &device.image);
    if device.root != RootKind::default() {
        option("option", "root", device.root.word());
    }
    if let Some(original) = &device.clone_of {
        option("option", "clone_of", &original.to_string());
    }
    if device.rollback_after > 0 {
        option("option", "rollback_after", &device.rollback_after.to_string());
    }
    if !device.trim {
        option("option", "trim", "0");
    }
    if let Some(user) = &device.user {
        option("option", "user", user);
    }
    if let Some(password) = &device.password {
        option("option", "password", password.as_str());
    }
    if let Some(quota) = device.quota {
        option("option", "quota", &quota.to_string());
    }
    if device.disabled {
        option("option", "disabled", "1");
    }
    for key in &device.ssh_keys {
        option("list", "ssh_key", key);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn device(id: &str) -> Device {
        Device {
            id: id.to_owned(),
            serial: Some("38c128c0".parse().unwrap()),
            mac: Some("dc:a6:32:79:26:df".parse().unwrap()),
            ip: Some(std::net::Ipv4Addr::new(192, 168, 1, 50)),
            hostname: "running-lion".to_owned(),
            image: "lite".to_owned(),
            root: RootKind::Copy,
            clone_of: Some("sitting_bull@before-upgrade".parse().unwrap()),
            rollback_after: 3,
            ssh_keys: vec!["ssh-ed25519 AAAA it's me".to_owned()],
            trim: true,
            user: Some("lion".to_owned()),
            password: "$6$salt$aaaaaaaaaaaaaaaaaaaaaaaa".parse().ok(),
            quota: "8G".parse().ok(),
            disabled: true,
        }
    }

    #[test]
    fn what_is_put_is_read_back() {
        let text = put_device("", &device("running_lion")).unwrap();
        let (config, problems) = Config::from_sections(&uci::parse(&text).unwrap());
        assert_eq!(problems, []);
        assert_eq!(config.devices, [device("running_lion")]);
    }

    #[test]
    fn adding_and_removing_leaves_the_file_as_it_was() {
        for text in [
            "",
            "# mine\nconfig piboot 'main'\n\toption enabled '1' # on\n",
            "config piboot 'main'\n\n",
            "config piboot 'main'\n\toption enabled '1'",
            "config piboot 'main' # the end",
        ] {
            let with = put_device(text, &device("a")).unwrap();
            let both = put_device(&with, &device("b")).unwrap();
            assert_eq!(remove_device(&both, "b").unwrap(), with);
            assert_eq!(remove_device(&with, "a").unwrap(), text);
        }
    }

    #[test]
    fn replacing_touches_only_that_section() {
        let text = "config device 'a'\n\toption image 'old'\n# b follows\nconfig device 'b'\n\toption image 'x'\n";
        let changed = put_device(text, &device("a")).unwrap();
        assert!(changed.ends_with("\n# b follows\nconfig device 'b'\n\toption image 'x'\n"), "{changed}");
        assert!(changed.contains("option image 'lite'") && !changed.contains("'old'"));
    }

    #[test]
    fn identity_is_completed_and_the_rest_stays_as_written() {
        let (mac, serial) = ("dc:a6:32:79:26:df".parse().unwrap(), "38c128c0".parse().unwrap());
        let text = "config device 'a' # mine\n\toption mac 'dc:a6:32:79:26:df'\n\toption colour 'red' # kept\n\nconfig device 'b'\n";
        let completed = complete_identity(text, "a", mac, serial).unwrap().unwrap();
        let expected = "config device 'a' # mine\n\toption mac 'dc:a6:32:79:26:df'\n\toption colour 'red' # kept\n\toption serial '38c128c0'\n\nconfig device 'b'\n";
        assert_eq!(completed, expected);
        assert_eq!(complete_identity(&completed, "a", mac, serial).unwrap(), None);
        assert_eq!(complete_identity(text, "gone", mac, serial).unwrap(), None, "the admin removed it");
        let ip = Ipv4Addr::new(192, 168, 1, 77);
        let addressed = complete_address(text, "a", ip).unwrap().unwrap();
        assert!(addressed.contains("\toption ip '192.168.1.77'"), "{addressed}");
        assert_eq!(complete_address(&addressed, "a", Ipv4Addr::LOCALHOST).unwrap(), None, "the admin's own stays");
        assert!(has_section(text, "b").unwrap() && !has_section(text, "c").unwrap());
    }

    #[test]
    fn sections_of_ours_come_and_go_and_the_rest_stays_as_written() {
        let ours = |section: &Section| section.name.as_deref().is_some_and(|name| name.starts_with("our_"));
        let wanted =
            uci::parse("config tag 'our_a'\n\tlist x '1'\n\tlist x 'it'\\''s'\nconfig mac 'our_b'\n\toption y '2'\n");
        let wanted = wanted.unwrap();
        for text in [
            "",
            "# mine\nconfig dhcp 'lan'  # here\n\toption start 100\n",
            "config dhcp\n\n\n",
            "config dhcp # the end",
            "# none",
        ] {
            let with = replace_sections(text, ours, &wanted).unwrap().unwrap();
            assert!(with.starts_with(text), "{with}");
            assert_eq!(replace_sections(&with, ours, &wanted).unwrap(), None, "it is there");
            assert_eq!(uci::parse(&with).unwrap().iter().filter(|section| ours(section)).count(), 2);
            let other = with.replace("'2'", "'3'");
            assert_eq!(replace_sections(&other, ours, &wanted).unwrap().as_deref(), Some(with.as_str()));
            assert_eq!(replace_sections(&with, ours, &[]).unwrap().as_deref(), Some(text));
            assert_eq!(replace_sections(text, ours, &[]).unwrap(), None);
        }
        // Wherever an admin, or uci, has put them since.
        let moved =
            "config mac 'our_b'\n\toption y '2'\n\nconfig dhcp 'lan'\n\nconfig tag 'our_a'\n\nconfig dhcp 'wan'\n";
        let without = replace_sections(moved, ours, &[]).unwrap().unwrap();
        assert_eq!(uci::parse(&without).unwrap().len(), 2, "{without}");
    }

    #[test]
    fn sections_of_ours_that_stay_keep_their_places() {
        let ours = |section: &Section| section.name.as_deref().is_some_and(|name| name.starts_with("our_"));
        let text = "config tag 'our_a' # as before\n\toption x '1'\n\nconfig host\n\nconfig mac 'our_b'\n\toption y '2' # old\n# of the admin's\nconfig host\n\toption z '3'\n\nconfig mac 'our_gone'\n\nconfig mac 'our_b'\n\toption y '2'\n";
        let wanted = "config mac 'our_new'\n\toption y '7'\nconfig mac 'our_b'\n\toption y '4'\nconfig tag 'our_a'\n\toption x '1'\n";
        let changed = replace_sections(text, ours, &uci::parse(wanted).unwrap()).unwrap().unwrap();
        assert_eq!(
            changed,
            "config tag 'our_a' # as before\n\toption x '1'\n\nconfig host\n\nconfig mac 'our_b'\n\toption y '4'\n# of the admin's\nconfig host\n\toption z '3'\n\nconfig mac 'our_new'\n\toption y '7'\n"
        );
    }

    #[test]
    fn other_sections_are_not_devices() {
        assert!(matches!(put_device("config piboot 'a'\n", &device("a")), Err(EditError::NotADevice(_))));
        assert!(matches!(remove_device("", "a"), Err(EditError::NoDevice(_))));
    }
}
