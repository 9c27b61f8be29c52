//! What the admin wants: the typed model of `/etc/config/piboot` and the UCI text it is written in.
//!
//! Reading never fails as a whole over one wrong value: each is reported as a [`Problem`] by section and option,
//! and the rest works on.

pub(crate) mod bytes;
mod edit;
pub mod file;
mod model;
mod names;
mod options;
mod password;
mod read;
mod size;
pub mod uci;

pub use edit::{
    EditError, complete_address, complete_identity, has_section, put_device, remove_device, replace_sections,
};
pub use file::FileError;
pub use model::{
    CloneOf, Config, Device, DhcpMode, ExternalNfs, Main, NfsMode, Problem, Regional, RootKind, Severity, UnknownPolicy,
};
pub use names::{
    NameError, check_address, check_device_id, check_hostname, check_image_name, check_keyboard, check_locale,
    check_rollback_after, check_snapshot_name, check_timezone, check_user, device_id_from_hostname,
};
pub use options::{Setting, set_options};
pub use password::{Password, PasswordError, PasswordHash};
pub use read::is_ssh_key;
pub use size::{ParseSizeError, Size};

use std::path::Path;

/// Reads a UCI file and types it; `before` is the configuration in force, if one is.
///
/// # Errors
/// When the file cannot be read or is no UCI text; wrong values are [`Problem`]s instead.
pub fn load(path: &Path, before: Option<&Config>) -> Result<(Config, Vec<Problem>), FileError> {
    let sections = file::sections(path)?;
    let (mut config, mut problems) = match before {
        Some(before) => Config::from_sections_over(&sections, before),
        None => Config::from_sections(&sections),
    };
    if file::is_package(path) {
        leave_dnsmasq_to_uci(&mut config.main, &mut problems);
    }
    Ok((config, problems))
}

/// On OpenWrt a login of LuCI may write this configuration and nothing else: it must not name programs that root starts,
/// nor directories that root writes to.
fn leave_dnsmasq_to_uci(main: &mut Main, problems: &mut Vec<Problem>) {
    let confdir = main.dnsmasq_confdir.take().map(|_| "dnsmasq_confdir");
    let restart = (!std::mem::take(&mut main.dnsmasq_restart).is_empty()).then_some("dnsmasq_restart");
    for option in confdir.into_iter().chain(restart) {
        let why = "is not for OpenWrt, where dnsmasq is configured by /etc/config/dhcp; it is ignored".to_owned();
        problems.push(Problem { severity: Severity::Warning, place: format!("piboot.main.{option}"), why });
    }
}
