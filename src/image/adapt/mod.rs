//! What turns the trees of an SD-card image into those of a device that boots from the network: small rules, each of
//! which does one thing, says what it did, and does nothing the second time.
//!
//! Written for Raspberry Pi OS Bookworm and Trixie, and DietPi; a rule whose subject is missing from a tree does nothing, so
//! that plain Debian passes too.

mod accounts;
mod capabilities;
mod cloud_init;
pub mod cmdline;
mod dietpi;
mod editor;
mod ephemeral;
pub mod fstab;
mod host_key;
mod identity;
mod imager;
mod locale;
mod network;
mod power;
mod ssh;
mod storage;
mod text;
mod toml;
mod tree;
mod trim;
mod units;
mod user;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::config::{PasswordHash, Regional};
use crate::pi::Mac;
use editor::Editor;

/// The device that the trees are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its id, the name of its section in the configuration.
    pub id: String,
    /// Its host name.
    pub hostname: String,
    /// Address of this router as the device sees it; the kernel mounts its root over IPv4 only.
    pub server: IpAddr,
    /// Export of the root tree: `/running_lion/root`.
    pub root_export: String,
    /// Export of the boot tree: `/running_lion/boot`.
    pub boot_export: String,
    /// Its Ethernet address, if known.
    pub mac: Option<Mac>,
    /// Public keys that may log in as the first user.
    pub ssh_keys: Vec<String>,
    /// Whether what it need not load over TFTP is left out.
    pub trim: bool,
    /// Whether it cannot write to its trees, and keeps what it changes in its memory.
    pub ephemeral: bool,
    /// Name of the first user; absent: as the image has it.
    pub user: Option<String>,
    /// That user's password; absent: as the image has it.
    pub password: Option<PasswordHash>,
    /// Language and time.
    pub regional: Regional,
    /// What the trees were adapted for before, if they were: only what differs from that is done again, and what was given
    /// then and is not wanted any more is taken away. Everything else is the user's own by now.
    pub earlier: Option<Earlier>,
}

/// What trees were adapted for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Earlier {
    /// Public keys.
    pub ssh_keys: Vec<String>,
    /// Name of the first user.
    pub user: Option<String>,
    /// That user's password.
    pub password: Option<PasswordHash>,
    /// Language and time.
    pub regional: Regional,
}

/// Whether the trees are a fresh copy of an image or were booted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Fresh: every rule, also those that give the device an identity of its own.
    Fresh,
    /// Booted: only the rules that follow the target; what the device or its user made stays.
    Again,
}

/// One thing that was done or noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The rule's name.
    pub rule: String,
    /// Which file, `boot/…` or `root/…`.
    pub path: String,
    /// What was done to it.
    pub what: String,
}

/// What adapting did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What was changed, in order.
    pub changes: Vec<Change>,
    /// What the user should know although nothing was changed.
    pub notes: Vec<Change>,
    /// Bytes that a boot need not load because of rule `trim`.
    #[serde(default)]
    pub spared_bytes: u64,
}

/// Why the trees could not be adapted. Rules before the failed one have been applied; applying all again is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdaptError {
    /// A call failed.
    #[error("rule '{rule}': cannot {what} {path}: {errno}")]
    File {
        /// The rule.
        rule: &'static str,
        /// What was being done.
        what: &'static str,
        /// Which file.
        path: String,
        /// Why it failed.
        errno: Errno,
    },
    /// A tree that is not there.
    #[error("cannot open the tree {path}: {errno}")]
    Tree {
        /// Where it should be.
        path: String,
        /// Why not.
        errno: Errno,
    },
    /// An IPv6 server.
    #[error("{0} is an IPv6 address: a Raspberry Pi's kernel mounts its root over IPv4 only")]
    Ipv6(IpAddr),
    /// No random numbers.
    #[error("the kernel gives no random numbers, of which a key or an id could be made: {0}")]
    Random(String),
    /// A host name that is none.
    #[error("'{0}' is not a host name (letters, digits and '-', at most 63, not '-' first or last)")]
    Hostname(String),
    /// A name that the image's system has for itself.
    #[error("the image has a user '{0}' of its own that nobody logs in as: choose another name for this device's user")]
    User(String),
    /// A key that is not one line of text.
    #[error("an ssh key of this device is not one line of the form 'ssh-ed25519 AAAA… comment': {0}")]
    Key(String),
    /// An export that would not survive the kernel's command line or fstab.
    #[error("the export '{0}' must begin with '/' and hold no blank, comma or quote")]
    Export(String),
}

/// A rule: does its one thing through the editor.
struct Rule {
    name: &'static str,
    /// Gives identity or sets up once: not for trees that were booted.
    fresh_only: bool,
    apply: fn(&mut Editor<'_>) -> Result<(), AdaptError>,
}

const fn always(name: &'static str, apply: fn(&mut Editor<'_>) -> Result<(), AdaptError>) -> Rule {
    Rule { name, fresh_only: false, apply }
}

const fn fresh(name: &'static str, apply: fn(&mut Editor<'_>) -> Result<(), AdaptError>) -> Rule {
    Rule { name, fresh_only: true, apply }
}

/// In the order they are applied.
const RULES: &[Rule] = &[
    always("cmdline", cmdline::apply),
    fresh("imager", imager::apply),
    always("fstab", fstab::apply),
    always("ephemeral", ephemeral::apply),
    always("trim", trim::apply),
    always("initramfs", storage::initramfs),
    always("resize", storage::resize),
    always("swapfile", storage::swapfile),
    always("rpi-swap", storage::rpi_swap),
    always("hostname", identity::hostname),
    fresh("machine-id", identity::machine_id),
    fresh("ssh-host-keys", ssh::host_keys),
    fresh("ssh-enable", ssh::enable),
    always("user", user::apply),
    always("locale", locale::apply),
    always("ssh-authorized-keys", ssh::authorized_keys),
    always("cloud-init", cloud_init::apply),
    fresh("dietpi", dietpi::apply),
    always("network-manager", network::network_manager),
    always("networkd", network::networkd),
    always("ifupdown", network::ifupdown),
    fresh("resolv-conf", network::resolv_conf),
    always("journald", power::journald),
    always("watchdog", power::watchdog),
    fresh("timers", power::timers),
    always("capabilities", capabilities::apply),
];

/// Names of all rules, in the order they are applied.
pub fn rule_names() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|rule| rule.name)
}

/// Adapts a device's trees.
///
/// # Errors
/// [`AdaptError`], also for a target that makes no sense, before anything is touched.
pub fn adapt(boot: &Path, root: &Path, target: &Target, pass: Pass) -> Result<Report, AdaptError> {
    let server = check(target)?;
    let mut editor = Editor::open(boot, root, target, server, pass)?;
    for rule in RULES.iter().filter(|rule| pass == Pass::Fresh || !rule.fresh_only) {
        editor.rule = rule.name;
        (rule.apply)(&mut editor)?;
    }
    Ok(editor.report)
}

/// Everything in a target ends up in files that are parsed line by line.
fn check(target: &Target) -> Result<Ipv4Addr, AdaptError> {
    let IpAddr::V4(server) = target.server else { return Err(AdaptError::Ipv6(target.server)) };
    crate::config::check_hostname(&target.hostname).map_err(|_| AdaptError::Hostname(target.hostname.clone()))?;
    for export in [&target.root_export, &target.boot_export] {
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '"' | '\'' | '\\' | '#');
        if !export.starts_with('/') || !export.chars().all(plain) {
            return Err(AdaptError::Export(export.clone()));
        }
    }
    if let Some(user) = &target.user {
        crate::config::check_user(user).map_err(|_| AdaptError::User(user.clone()))?;
    }
    for key in &target.ssh_keys {
        let words = key.split_whitespace().count();
        if words < 2 || key.chars().any(char::is_control) || key.starts_with('#') {
            return Err(AdaptError::Key(key.chars().take(40).collect()));
        }
    }
    Ok(server)
}
