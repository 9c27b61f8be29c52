//! The typed configuration.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::names::{NameError, check_device_id, check_snapshot_name};
use super::password::PasswordHash;
use super::size::Size;
use crate::pi::quirks::Quirk;
use crate::pi::{Mac, Serial};

/// Everything in `/etc/config/piboot`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// The section `piboot.main`.
    pub main: Main,
    /// One per enrolled Pi, in file order.
    pub devices: Vec<Device>,
}

/// `config piboot 'main'`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Main {
    /// Whether the agent serves at all.
    pub enabled: bool,
    /// Interfaces (UCI names or device names) on which Pis are served.
    pub interfaces: Vec<String>,
    /// Where images, roots and the database live.
    pub data_dir: PathBuf,
    /// Who gives the Pis their boot options.
    pub dhcp: DhcpMode,
    /// What to do with a Pi that nobody enrolled.
    pub unknown: UnknownPolicy,
    /// Image for `unknown 'enroll'`.
    pub default_image: Option<String>,
    /// Where a dnsmasq that is not OpenWrt's reads drop-in files (`conf-dir`).
    pub dnsmasq_confdir: Option<PathBuf>,
    /// Program and arguments that restart that dnsmasq; empty means systemd where it runs.
    pub dnsmasq_restart: Vec<String>,
    /// Whether creating, renaming and removing on a Pi's root waits for the disk.
    pub sync: bool,
    /// Known weaknesses of boards that nothing is to be done about.
    pub quirks_off: Vec<Quirk>,
    /// Who serves the roots.
    pub nfs: NfsMode,
    /// Language and time of the Pis.
    pub regional: Regional,
    /// Where the list of systems is that can be downloaded.
    pub os_list: String,
}

/// Language and time of a system; what is absent stays as the image has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Regional {
    /// `de_DE.UTF-8`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// `Europe/Berlin`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Layout of the keyboard: `de`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyboard: Option<String>,
}

/// The list that Raspberry Pi Imager reads.
const OS_LIST: &str = "https://downloads.raspberrypi.com/os_list_imagingutility_v4.json";

/// `config device 'ID'`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Section name: names its directories, exports and DHCP sections.
    pub id: String,
    /// Low half of the serial, absent until a Pi 3B shows it.
    pub serial: Option<Serial>,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// The address that DHCP gives it, always; absent: any.
    pub ip: Option<Ipv4Addr>,
    /// Host name of the booted system.
    pub hostname: String,
    /// Image its root was or will be made from.
    pub image: String,
    /// How the root comes to be.
    pub root: RootKind,
    /// The device, or a snapshot of it, whose trees its own begin as; absent: the image.
    pub clone_of: Option<CloneOf>,
    /// Boots that fail one after the other until it is rolled back to its newest snapshot; 0: never.
    pub rollback_after: u32,
    /// Public keys for the first user.
    pub ssh_keys: Vec<String>,
    /// Whether what it need not load over TFTP is left out.
    pub trim: bool,
    /// Name of the first user; absent: as the image has it.
    pub user: Option<String>,
    /// That user's password; absent: as the image has it.
    pub password: Option<PasswordHash>,
    /// What its files may take; absent: all there is.
    pub quota: Option<Size>,
    /// Nothing is served to it.
    pub disabled: bool,
}

impl Device {
    /// Whether it is the Pi with this address and serial, as far as either is known.
    #[must_use]
    pub fn is(&self, mac: Mac, serial: Option<Serial>) -> bool {
        match self.mac {
            Some(own) => own == mac,
            None => self.serial.is_some() && self.serial == serial,
        }
    }
}

/// `option dhcp`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DhcpMode {
    /// dnsmasq where it is this machine's DHCP server, else the built-in proxy.
    #[default]
    Auto,
    /// Boot options through dnsmasq.
    Dnsmasq,
    /// Built-in proxyDHCP, beside whatever server gives the addresses.
    Proxy,
    /// Somebody else gives the boot options.
    Off,
}

/// `option nfs`, with `nfs_server` and `nfs_path`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NfsMode {
    /// This agent.
    #[default]
    Builtin,
    /// A server that is there already; `data_dir` is mounted from it.
    External(ExternalNfs),
}

/// An NFS server of the admin's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalNfs {
    /// Its address, as the Pis reach it.
    pub server: Ipv4Addr,
    /// What `data_dir` is called there; without a slash at its end.
    pub path: String,
}

impl NfsMode {
    /// The other server, if there is one.
    #[must_use]
    pub const fn external(&self) -> Option<&ExternalNfs> {
        match self {
            Self::Builtin => None,
            Self::External(external) => Some(external),
        }
    }
}

/// `option unknown`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownPolicy {
    /// List it.
    #[default]
    Ask,
    /// Not even that.
    Ignore,
    /// Enrol it with the default image.
    Enroll,
}

/// `option root`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootKind {
    /// As [`RootKind::Clone`] where the volume can, else as [`RootKind::Copy`].
    #[default]
    Auto,
    /// Full copy of the image's root.
    Copy,
    /// Copy that shares its blocks with the image's root until either is written to.
    Clone,
    /// Overlay over the image.
    Overlay,
    /// The image's files, read-only; what the Pi changes is in its memory and gone at its next boot.
    Ephemeral,
}

impl RootKind {
    /// The word of the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Copy => "copy",
            Self::Clone => "clone",
            Self::Overlay => "overlay",
            Self::Ephemeral => "ephemeral",
        }
    }
}

/// `option clone_of`: `lion`, or `lion@before-upgrade` for a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloneOf {
    /// Id of the device.
    pub device: String,
    /// Name of its snapshot; absent: the device as it is.
    pub snapshot: Option<String>,
}

impl FromStr for RootKind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Auto, Self::Copy, Self::Clone, Self::Overlay, Self::Ephemeral];
        all.into_iter().find(|kind| kind.word() == text).ok_or("it is none of auto, copy, clone, overlay, ephemeral")
    }
}

impl fmt::Display for CloneOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snapshot {
            Some(snapshot) => write!(f, "{}@{snapshot}", self.device),
            None => f.write_str(&self.device),
        }
    }
}

impl FromStr for CloneOf {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (device, snapshot) = text.split_once('@').map_or((text, None), |(device, name)| (device, Some(name)));
        check_device_id(device)?;
        snapshot.map_or(Ok(()), check_snapshot_name)?;
        Ok(Self { device: device.to_owned(), snapshot: snapshot.map(str::to_owned) })
    }
}

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something works differently from what was written.
    Error,
    /// Nothing stops working.
    Warning,
}

/// A value that was not taken, and what happens instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// `piboot.SECTION.OPTION`
    pub place: String,
    /// Why, and what to write.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.why)
    }
}

impl Default for Main {
    fn default() -> Self {
        Self {
            enabled: false,
            interfaces: vec!["lan".to_owned()],
            data_dir: PathBuf::from("/mnt/ssd/piboot"),
            dhcp: DhcpMode::Auto,
            unknown: UnknownPolicy::Ask,
            default_image: None,
            dnsmasq_confdir: None,
            dnsmasq_restart: Vec::new(),
            sync: false,
            quirks_off: Vec::new(),
            nfs: NfsMode::Builtin,
            regional: Regional::default(),
            os_list: OS_LIST.to_owned(),
        }
    }
}
