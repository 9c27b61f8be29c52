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
    /// Cannot name a snapshot's directory.
    #[error(
        "'{0}' is not a snapshot name (1 to 63 lower-case letters, digits, '.', '_' and '-', starting with a letter or digit)"
    )]
    Snapshot(String),
    /// An address of nobody, of many, or of this machine.
    #[error("'{0}' is no address of one device")]
    Address(Ipv4Addr),
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
    fn ids_and_images_cannot_leave_their_directory() {
        for bad in ["", ".", "..", "a/b", "a\0b", "A", "a b", "-x"] {
            assert!(check_device_id(bad).is_err(), "{bad}");
            assert!(check_image_name(bad).is_err(), "{bad}");
            assert!(check_snapshot_name(bad).is_err(), "{bad}");
        }
        assert_eq!(check_image_name("raspios-lite_2026.11"), Ok(()));
    }
}
