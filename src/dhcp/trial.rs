//! Has dnsmasq check lines before it may see them: with a bad one it would not start again, and the LAN would be without
//! DHCP and DNS.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::config::bytes;

/// Checks lines that are to become part of dnsmasq's configuration; they are at `file` meanwhile.
///
/// # Errors
/// What dnsmasq says against them, or why it could not be asked.
pub(super) fn check_lines(lines: &str, file: &Path) -> Result<(), String> {
    let written = crate::storage::write_beside(file, &bytes::encode(lines), 0o600);
    let result = written.map_err(|error| error.to_string()).and_then(|()| check_file(file));
    // Nothing is lost if it stays.
    let _ = std::fs::remove_file(file);
    result
}

/// Checks a configuration file. Where no dnsmasq program is found there is nothing to take down either.
///
/// # Errors
/// As [`check_lines`].
pub(super) fn check_file(file: &Path) -> Result<(), String> {
    let mut conf_file = std::ffi::OsString::from("--conf-file=");
    conf_file.push(file);
    match Command::new("dnsmasq").arg("--test").arg(conf_file).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
