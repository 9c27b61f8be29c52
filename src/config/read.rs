//! From UCI sections to the typed configuration, with what is wrong with them.

mod nfs;

use std::ffi::OsString;
use std::fmt;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str::FromStr;

use super::bytes;
use super::model::{Config, Device, DhcpMode, Main, Problem, Regional, RootKind, Severity, UnknownPolicy};
use super::names::{
    MAX_ROLLBACK_AFTER, NameError, check_address, check_device_id, check_hostname, check_image_name, check_keyboard,
    check_locale, check_rollback_after, check_timezone, check_user,
};
use super::size::Size;
use super::uci::{Section, Value};
use crate::incoming::url::Url;
use crate::pi::quirks::Quirk;
use crate::pi::{Mac, Serial};

/// A word out of a fixed set, as `option dhcp` takes it.
trait Choice: Sized + Copy + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

impl Choice for DhcpMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("dnsmasq", Self::Dnsmasq), ("proxy", Self::Proxy), ("off", Self::Off)];
}

impl Choice for UnknownPolicy {
    const WORDS: &'static [(&'static str, Self)] =
        &[("ask", Self::Ask), ("ignore", Self::Ignore), ("enroll", Self::Enroll)];
}

impl Choice for RootKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("copy", Self::Copy),
        ("clone", Self::Clone),
        ("overlay", Self::Overlay),
        ("ephemeral", Self::Ephemeral),
    ];
}

impl Choice for bool {
    // The words that OpenWrt's config_get_bool knows.
    const WORDS: &'static [(&'static str, Self)] = &[
        ("1", true),
        ("0", false),
        ("on", true),
        ("off", false),
        ("true", true),
        ("false", false),
        ("yes", true),
        ("no", false),
        ("enabled", true),
        ("disabled", false),
    ];
}

fn choice<T: Choice>(text: &str) -> Result<T, String> {
    T::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = T::WORDS.iter().map(|(word, _)| *word).collect();
        format!("'{text}' is none of {}", words.join(", "))
    })
}

/// Reads the options of one section and collects what is wrong with them.
struct Fields<'a> {
    section: &'a Section,
    name: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl Fields<'_> {
    fn problem(&mut self, severity: Severity, option: &str, why: String) {
        let place = format!("piboot.{}.{option}", self.name);
        self.problems.push(Problem { severity, place, why });
    }

    /// The value of `option` through `read`; an empty value counts as absent, a wrong one is reported.
    fn one<T>(&mut self, option: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = match self.section.get(option)? {
            Value::One(value) if value.is_empty() => return None,
            Value::One(value) => value,
            Value::List(values) => {
                let why = format!("is a list of {} values where one 'option' is meant", values.len());
                self.problem(Severity::Error, option, why);
                return None;
            }
        };
        match read(value) {
            Ok(value) => Some(value),
            Err(why) => {
                self.problem(Severity::Error, option, why);
                None
            }
        }
    }

    /// Like [`Fields::one`]; an absent option is `default`, a wrong one stays what it was.
    fn setting<T>(
        &mut self,
        option: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
        default: T,
        before: Option<T>,
    ) -> T {
        let problems = self.problems.len();
        match (self.one(option, read), before) {
            (Some(value), _) => value,
            (None, Some(before)) if self.problems.len() > problems => {
                for problem in self.problems.iter_mut().skip(problems) {
                    problem.why.push_str("; the value from before stays in force");
                }
                before
            }
            (None, _) => default,
        }
    }

    fn warn_unknown(&mut self, known: &[&str]) {
        let names: Vec<_> = self.section.options.iter().map(|o| o.name.clone()).collect();
        for name in names.iter().filter(|name| !known.contains(&name.as_str())) {
            self.problem(Severity::Warning, name, "is not an option of piboot; it is ignored".to_owned());
        }
    }
}

fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(OsString::from_vec(bytes::encode(text)));
    let climbs = path.components().any(|c| matches!(c, std::path::Component::ParentDir));
    if path.is_absolute() && !climbs { Ok(path) } else { Err(format!("'{text}' is not an absolute path without '..'")) }
}

fn checked(text: &str, check: fn(&str) -> Result<(), NameError>) -> Result<String, String> {
    check(text).map(|()| text.to_owned()).map_err(|e| e.to_string())
}

/// A number of boots.
fn count(text: &str) -> Result<u32, String> {
    let number = text.parse().map_err(|_| format!("'{text}' is no number from 0 to {MAX_ROLLBACK_AFTER}"))?;
    check_rollback_after(number).map_err(|e| e.to_string())
}

fn parsed<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e: T::Err| e.to_string())
}

impl Config {
    /// Types the sections of `/etc/config/piboot`. A wrong value of `main` falls back to its default, a device with a
    /// wrong or missing identity is left out; each is reported.
    #[must_use]
    pub fn from_sections(sections: &[Section]) -> (Self, Vec<Problem>) {
        Self::read(sections, None)
    }

    /// The same while `before` is in force: a wrong value of `main` changes nothing, and a device whose section is wrong
    /// stays as it was, because a slip of the pen must not take the root from under a running Pi.
    #[must_use]
    pub fn from_sections_over(sections: &[Section], before: &Self) -> (Self, Vec<Problem>) {
        Self::read(sections, Some(before))
    }

    fn read(sections: &[Section], before: Option<&Self>) -> (Self, Vec<Problem>) {
        let mut config = Self::default();
        let mut problems = Vec::new();
        for section in sections {
            let name = section.name.as_deref().unwrap_or("(unnamed)");
            let mut fields = Fields { section, name, problems: &mut problems };
            match section.kind.as_str() {
                "piboot" if name == "main" => config.main = read_main(&mut fields, before.map(|b| &b.main)),
                "device" => {
                    let old = before.and_then(|b| b.device(name));
                    config.devices.extend(read_device_over(&mut fields, &config.devices, old));
                }
                kind => {
                    let why = format!("a section of type '{kind}' is not known here; it is ignored");
                    let place = format!("piboot.{name}");
                    problems.push(Problem { severity: Severity::Warning, place, why });
                }
            }
        }
        (config, problems)
    }

    /// The device with this id.
    #[must_use]
    pub fn device(&self, id: &str) -> Option<&Device> {
        self.devices.iter().find(|d| d.id == id)
    }
}

fn read_main(fields: &mut Fields<'_>, before: Option<&Main>) -> Main {
    let default = Main::default();
    fields.warn_unknown(&[
        "enabled",
        "interface",
        "data_dir",
        "dhcp",
        "unknown",
        "default_image",
        "dnsmasq_confdir",
        "dnsmasq_restart",
        "sync",
        "quirk_off",
        "nfs",
        "nfs_server",
        "nfs_path",
        "locale",
        "timezone",
        "keyboard",
        "os_list",
    ]);
    let interfaces = match fields.section.get("interface") {
        Some(value) => value.values().iter().filter(|v| !v.is_empty()).cloned().collect(),
        None => default.interfaces,
    };
    let quirks_off = read_quirks_off(fields);
    let nfs = nfs::read(fields, before.map(|b| &b.nfs));
    let regional = read_regional(fields, before.map(|b| &b.regional));
    let image = |text: &str| checked(text, check_image_name);
    let main = Main {
        enabled: fields.setting("enabled", choice, default.enabled, before.map(|b| b.enabled)),
        interfaces,
        data_dir: fields.setting("data_dir", absolute_path, default.data_dir, before.map(|b| b.data_dir.clone())),
        dhcp: fields.setting("dhcp", choice, default.dhcp, before.map(|b| b.dhcp)),
        unknown: fields.setting("unknown", choice, default.unknown, before.map(|b| b.unknown)),
        default_image: fields.setting(
            "default_image",
            |text| image(text).map(Some),
            None,
            before.map(|b| b.default_image.clone()),
        ),
        dnsmasq_confdir: fields.setting(
            "dnsmasq_confdir",
            |text| absolute_path(text).map(Some),
            None,
            before.map(|b| b.dnsmasq_confdir.clone()),
        ),
        dnsmasq_restart: fields.section.get("dnsmasq_restart").map(|v| v.values().to_vec()).unwrap_or_default(),
        sync: fields.setting("sync", choice, default.sync, before.map(|b| b.sync)),
        quirks_off,
        nfs,
        regional,
        os_list: fields.setting(
            "os_list",
            |text| Url::parse(text).map(|url| url.as_str().to_owned()).map_err(|e| e.to_string()),
            default.os_list,
            before.map(|b| b.os_list.clone()),
        ),
    };
    if main.unknown == UnknownPolicy::Enroll && main.default_image.is_none() {
        let why = "'enroll' needs an image: set default_image; unknown Pis are only listed until then".to_owned();
        fields.problem(Severity::Error, "unknown", why);
        return Main { unknown: UnknownPolicy::Ask, ..main };
    }
    main
}

fn read_regional(fields: &mut Fields<'_>, before: Option<&Regional>) -> Regional {
    let mut name = |option: &str, check: fn(&str) -> Result<(), NameError>, before: Option<&Option<String>>| {
        fields.setting(option, |text| checked(text, check).map(Some), None, before.cloned())
    };
    Regional {
        locale: name("locale", check_locale, before.map(|b| &b.locale)),
        timezone: name("timezone", check_timezone, before.map(|b| &b.timezone)),
        keyboard: name("keyboard", check_keyboard, before.map(|b| &b.keyboard)),
    }
}

/// A name that is none is left out.
fn read_quirks_off(fields: &mut Fields<'_>) -> Vec<Quirk> {
    let mut quirks = Vec::new();
    for name in fields.section.get("quirk_off").map(Value::values).unwrap_or_default() {
        match parsed(name) {
            Ok(quirk) => quirks.push(quirk),
            Err(why) => fields.problem(Severity::Error, "quirk_off", why),
        }
    }
    quirks.sort_unstable();
    quirks.dedup();
    quirks
}

/// Reads a device; if its section has errors, it is what it was before, where it was something.
fn read_device_over(fields: &mut Fields<'_>, above: &[Device], old: Option<&Device>) -> Option<Device> {
    let problems = fields.problems.len();
    let device = read_device(fields, above);
    let wrong = fields.problems.iter().skip(problems).any(|p| p.severity == Severity::Error);
    let clash = |old: &Device| {
        above.iter().any(|d| {
            d.id == old.id || d.mac.is_some() && d.mac == old.mac || d.serial.is_some() && d.serial == old.serial
        })
    };
    match old.filter(|old| wrong && !clash(old)) {
        Some(old) => {
            if let Some(problem) = fields.problems.iter_mut().skip(problems).rfind(|p| p.severity == Severity::Error) {
                problem.why.push_str(&format!("; {} stays as it was", old.id));
            }
            Some(old.clone())
        }
        None => device,
    }
}

fn read_device(fields: &mut Fields<'_>, before: &[Device]) -> Option<Device> {
    fields.warn_unknown(&[
        "serial",
        "mac",
        "ip",
        "hostname",
        "image",
        "root",
        "clone_of",
        "rollback_after",
        "ssh_key",
        "trim",
        "user",
        "password",
        "quota",
        "disabled",
    ]);
    let id = fields.name.to_owned();
    if let Err(error) = check_device_id(&id) {
        let place = format!("piboot.{id}");
        fields.problems.push(Problem { severity: Severity::Error, place, why: error.to_string() });
        return None;
    }
    if before.iter().any(|d| d.id == id) {
        let place = format!("piboot.{id}");
        let why = "a second section of this name; it is ignored".to_owned();
        fields.problems.push(Problem { severity: Severity::Error, place, why });
        return None;
    }
    let errors_before = fields.problems.iter().filter(|p| p.severity == Severity::Error).count();
    let mac = fields.one("mac", |text| {
        let mac: Mac = parsed(text)?;
        match before.iter().find(|d| d.mac == Some(mac)) {
            Some(other) => Err(format!("'{mac}' is enrolled already, as {}", other.id)),
            None if mac.is_device() => Ok(mac),
            None => Err(format!("'{mac}' is no address of one device")),
        }
    });
    let serial = fields.one("serial", |text| {
        let serial: Serial = parsed(text)?;
        match before.iter().find(|d| d.serial == Some(serial)) {
            Some(other) => Err(format!("'{serial}' is enrolled already, as {}", other.id)),
            None => Ok(serial),
        }
    });
    let ip = fields.one("ip", |text| {
        let ip: Ipv4Addr = text.parse().map_err(|_| format!("'{text}' is not an IPv4 address"))?;
        match before.iter().find(|d| d.ip == Some(ip)) {
            Some(other) => Err(format!("'{ip}' is given already, to {}", other.id)),
            None => check_address(ip).map(|()| ip).map_err(|error| error.to_string()),
        }
    });
    let hostname = fields.one("hostname", |text| checked(text, check_hostname));
    let image = fields.one("image", |text| checked(text, check_image_name));
    let root = fields.one("root", choice).unwrap_or_default();
    let clone_of = fields.one("clone_of", parsed);
    let rollback_after = fields.one("rollback_after", count).unwrap_or_default();
    let trim = fields.one("trim", choice).unwrap_or(true);
    let user = fields.one("user", |text| checked(text, check_user));
    let password = fields.one("password", parsed);
    let quota = fields.one("quota", parsed::<Size>).filter(|size| size.0 > 0);
    let disabled = fields.one("disabled", choice).unwrap_or_default();
    let ssh_keys: Vec<String> = fields.section.get("ssh_key").map(|v| v.values().to_vec()).unwrap_or_default();
    let (good_keys, bad_keys): (Vec<_>, Vec<_>) = ssh_keys.into_iter().partition(|key| is_ssh_key(key));
    for key in bad_keys {
        let shown: String = key.chars().take(24).collect();
        fields.problem(
            Severity::Error,
            "ssh_key",
            format!("'{shown}…' is not a public key line (ssh-ed25519 AAAA… name); it is left out"),
        );
    }
    if mac.is_none() && serial.is_none() {
        let errors = fields.problems.iter().filter(|p| p.severity == Severity::Error).count();
        if errors == errors_before {
            fields.problem(
                Severity::Error,
                "mac",
                "neither mac nor serial is given: at least one is needed".to_owned(),
            );
        }
        return None;
    }
    let Some(image) = image else {
        if fields.section.get("image").is_none() {
            fields.problem(Severity::Error, "image", "no image is given: 'piboot images' lists them".to_owned());
        }
        return None;
    };
    let hostname = hostname.unwrap_or_else(|| id.replace('_', "-"));
    let ssh_keys = good_keys;
    Some(Device {
        id,
        serial,
        mac,
        ip,
        hostname,
        image,
        root,
        clone_of,
        rollback_after,
        trim,
        ssh_keys,
        user,
        password,
        quota,
        disabled,
    })
}

/// One line of an authorized_keys file: type, base64, comment; no line break can smuggle in a second.
#[must_use]
pub fn is_ssh_key(key: &str) -> bool {
    let mut words = key.split(' ');
    let kind = words.next().unwrap_or_default();
    let body = words.next().unwrap_or_default();
    let known = kind.starts_with("ssh-") || kind.starts_with("ecdsa-sha2-") || kind.starts_with("sk-");
    known
        && body.starts_with("AAAA")
        && body.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
        && !key.chars().any(char::is_control)
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
