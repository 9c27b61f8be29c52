//! Which names may become directories, exports, sections and host names, and which addresses are a device's.

use std::net::Ipv4Addr;

/// A name that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No host name by RFC 1123 §2.1.
    #[error("'{0}' is not a host name (1 to 63 letters, digits and '-', not at either end)")]
    Hostname(String),
    /// Means something else to a DHCP server.
    #[error("'{0}' means something else to dnsmasq: choose another host name")]
    Reserved(String),
    /// Cannot name a UCI section and a directory at once.
    #[error("'{0}' is not a device name (1 to 63 lower-case letters, digits and '_', starting with a letter)")]
    Device(String),
    /// Cannot name an image directory.
    #[error(
        "'{0}' is not an image name (1 to 63 lower-case letters, digits, '.', '_' and '-', starting with a letter or digit)"
    )]
    Image(String),
    /// No name of a user, or one that every system has for itself.
    #[error(
        "'{0}' is not a user name (1 to 32 lower-case letters, digits, '_' and '-', starting with a letter, and not root)"
    )]
    User(String),
    /// No name of a locale.
    #[error("'{0}' is not a locale, such as de_DE.UTF-8 (locale(7))")]
    Locale(String),
    /// No name of a time zone.
    #[error("'{0}' is not a time zone of the tz database, such as Europe/Berlin")]
    Timezone(String),
    /// No name of a keyboard layout.
    #[error("'{0}' is not a keyboard layout, such as us or de (xkeyboard-config(7))")]
    Keyboard(String),
    /// Cannot name a snapshot's directory.
    #[error(
        "'{0}' is not a snapshot name (1 to 63 lower-case letters, digits, '.', '_' and '-', starting with a letter or digit)"
    )]
    Snapshot(String),
    /// More boots than are looked at.
    #[error("'{0}' is no number from 0 to {MAX_ROLLBACK_AFTER}")]
    RollbackAfter(u32),
    /// An address of nobody, of many, or of this machine.
    #[error("'{0}' is no address of one device")]
    Address(Ipv4Addr),
}

/// Largest `rollback_after`: so many boots are looked at.
pub(super) const MAX_ROLLBACK_AFTER: u32 = 20;

/// Checks a number of boots that fail until a device is rolled back, and answers it.
///
/// # Errors
/// When there are too many.
pub fn check_rollback_after(boots: u32) -> Result<u32, NameError> {
    if boots <= MAX_ROLLBACK_AFTER { Ok(boots) } else { Err(NameError::RollbackAfter(boots)) }
}

/// Checks an address that one device is to have.
///
/// # Errors
/// When no device can have it.
pub fn check_address(ip: Ipv4Addr) -> Result<(), NameError> {
    let bad = ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.is_loopback();
    if bad { Err(NameError::Address(ip)) } else { Ok(()) }
}

/// Checks a host name: one RFC 1123 label.
///
/// # Errors
/// When it is none.
pub fn check_hostname(name: &str) -> Result<(), NameError> {
    let good = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !good {
        return Err(NameError::Hostname(name.to_owned()));
    }
    // dnsmasq takes these for what to do, and for how long a lease lasts (dnsmasq(8), --dhcp-host).
    let digits = name.trim_end_matches(['s', 'm', 'h', 'd', 'w', 'S', 'M', 'H', 'D', 'W']);
    let is_time = digits.len() + 1 >= name.len() && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty();
    let is_word = ["ignore", "infinite"].iter().any(|word| name.eq_ignore_ascii_case(word));
    if is_time || is_word { Err(NameError::Reserved(name.to_owned())) } else { Ok(()) }
}

/// Checks a device id: a UCI section name that is safe as a directory and in an export path.
///
/// # Errors
/// When it is none.
pub fn check_device_id(id: &str) -> Result<(), NameError> {
    let good = (1..=63).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && id.starts_with(|c: char| c.is_ascii_lowercase());
    if good { Ok(()) } else { Err(NameError::Device(id.to_owned())) }
}

/// Checks an image name.
///
/// # Errors
/// When it is none.
pub fn check_image_name(name: &str) -> Result<(), NameError> {
    if is_plain(name) { Ok(()) } else { Err(NameError::Image(name.to_owned())) }
}

/// Checks the name of a snapshot.
///
/// # Errors
/// When it is none.
pub fn check_snapshot_name(name: &str) -> Result<(), NameError> {
    if is_plain(name) { Ok(()) } else { Err(NameError::Snapshot(name.to_owned())) }
}

/// Whether a name is safe as that of a directory.
fn is_plain(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Checks the name of a Pi's user: what both Debian's adduser and userconf-pi take.
///
/// # Errors
/// When it is none.
pub fn check_user(name: &str) -> Result<(), NameError> {
    let good = (1..=32).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name != "root";
    if good { Ok(()) } else { Err(NameError::User(name.to_owned())) }
}

/// Checks a locale: what it is written into is read by shells.
///
/// # Errors
/// When it is none.
pub fn check_locale(name: &str) -> Result<(), NameError> {
    let good = (1..=40).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@'))
        && name.starts_with(|c: char| c.is_ascii_alphabetic());
    if good { Ok(()) } else { Err(NameError::Locale(name.to_owned())) }
}

/// Checks the name of a time zone: a path below /usr/share/zoneinfo that stays there.
///
/// # Errors
/// When it is none.
pub fn check_timezone(name: &str) -> Result<(), NameError> {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+'))
    };
    let good = name.len() <= 64 && name.split('/').all(is_part);
    if good { Ok(()) } else { Err(NameError::Timezone(name.to_owned())) }
}

/// Checks the name of a keyboard layout.
///
/// # Errors
/// When it is none.
pub fn check_keyboard(name: &str) -> Result<(), NameError> {
    let good =
        (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b','));
    if good { Ok(()) } else { Err(NameError::Keyboard(name.to_owned())) }
}

/// The device id for a host name: `running-lion` → `running_lion`; a leading digit gets `pi_` before it.
#[must_use]
pub fn device_id_from_hostname(hostname: &str) -> String {
    let id = hostname.to_ascii_lowercase().replace('-', "_");
    if id.starts_with(|c: char| c.is_ascii_lowercase()) { id } else { format!("pi_{id}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        for good in ["a", "running-lion", "Pi4", &"x".repeat(63)] {
            assert_eq!(check_hostname(good), Ok(()), "{good}");
            assert_eq!(check_device_id(&device_id_from_hostname(good)), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "a_b", "a.b", "a b", "<img>", "ü", &"x".repeat(64)] {
            assert!(check_hostname(bad).is_err(), "{bad}");
        }
        assert_eq!(device_id_from_hostname("4-pi"), "pi_4_pi");
    }

    #[test]
    fn users() {
        for good in ["pi", "a", "lion_2-x", &"x".repeat(32)] {
            assert_eq!(check_user(good), Ok(()), "{good}");
        }
        for bad in ["", "root", "Pi", "1a", "-a", "a:b", "a b", "a\nb", "ü", "$(id)", &"x".repeat(33)] {
            assert!(check_user(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn language_and_time() {
        for (good, bad) in [("Europe/Berlin", "../etc"), ("Etc/GMT+1", "/Europe"), ("UTC", "Europe/"), ("A/B_c", "a b")]
        {
            assert_eq!((check_timezone(good).is_ok(), check_timezone(bad).is_ok()), (true, false), "{good} {bad}");
        }
        for (good, bad) in [("de_DE.UTF-8", "de;id"), ("C.UTF-8", ""), ("ca_ES@valencia", "de DE")] {
            assert_eq!((check_locale(good).is_ok(), check_locale(bad).is_ok()), (true, false), "{good} {bad}");
        }
        for (good, bad) in [("de", "de\""), ("us,de", ""), ("latam", "$x")] {
            assert_eq!((check_keyboard(good).is_ok(), check_keyboard(bad).is_ok()), (true, false), "{good} {bad}");
        }
    }

    #[test]
    fn ids_and_images_cannot_leave_their_directory() {
        for bad in ["", ".", "..", "a/b", "a\0b", "A", "a b", "-x"] {
            assert!(check_device_id(bad).is_err(), "{bad}");
            assert!(check_image_name(bad).is_err(), "{bad}");
            assert!(check_snapshot_name(bad).is_err(), "{bad}");
        }
        assert_eq!(check_image_name("raspios-lite_2026.11"), Ok(()));
    }
}
