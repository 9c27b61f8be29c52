//! About Pis.

use argh::FromArgs;

use crate::config::{PasswordHash, RootKind};
use crate::pi::{Mac, Serial};

/// List enrolled Pis and those that wait to be enrolled.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "devices")]
pub(in crate::cli) struct Devices {}

/// Show one enrolled Pi, and what was changed in its copy of the image (device ID); or change it: 'device edit',
/// 'device switch' and 'device reset' say with --help what they take.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "device")]
pub(in crate::cli) struct DeviceOne {
    /// device id or host name; or edit, switch or reset, and what it takes
    #[argh(positional, greedy, arg_name = "id")]
    pub(in crate::cli) words: Vec<String>,
}

/// What `device` does when its first word is a verb, with other words behind it.
#[derive(FromArgs, Debug)]
pub(in crate::cli) struct DeviceVerb {
    #[argh(subcommand)]
    pub(in crate::cli) verb: DeviceCommand,
}

/// Words that are no device behind `device`, unless they stand alone.
pub(in crate::cli) const DEVICE_VERBS: [&str; 3] = ["edit", "switch", "reset"];

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(in crate::cli) enum DeviceCommand {
    Edit(DeviceEdit),
    Switch(DeviceSwitch),
    Reset(DeviceReset),
}

/// Change an enrolled Pi: what is not named stays, and an empty value ('') takes an option away.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "edit")]
pub(in crate::cli) struct DeviceEdit {
    /// device id or host name
    #[argh(positional)]
    pub(in crate::cli) id: String,
    /// host name; the id stays
    #[argh(option)]
    pub(in crate::cli) hostname: Option<String>,
    /// address that dnsmasq is always to give it
    #[argh(option)]
    pub(in crate::cli) ip: Option<String>,
    /// public key line for the first user, instead of all that are configured; may be repeated
    #[argh(option)]
    pub(in crate::cli) ssh_key: Vec<String>,
    /// take away all keys that are configured
    #[argh(switch)]
    pub(in crate::cli) no_ssh_keys: bool,
    /// name of the first user
    #[argh(option)]
    pub(in crate::cli) user: Option<String>,
    /// ask for that user's password, or read it from standard input; only its hash is kept
    #[argh(switch)]
    pub(in crate::cli) password_stdin: bool,
    /// hash of that user's password (crypt(5), $6$…)
    #[argh(option)]
    pub(in crate::cli) password_hash: Option<PasswordHash>,
    /// serve nothing to it from now on
    #[argh(switch)]
    pub(in crate::cli) disable: bool,
    /// serve it again
    #[argh(switch)]
    pub(in crate::cli) enable: bool,
    /// image, as long as it has no root made from another
    #[argh(option)]
    pub(in crate::cli) image: Option<String>,
    /// roll it back to its newest snapshot after so many boots in a row that did not come up; 0: never
    #[argh(option)]
    pub(in crate::cli) rollback_after: Option<u32>,
    /// what its files may take on the router's disk: 8G, 500M; 0: all there is
    #[argh(option)]
    pub(in crate::cli) quota: Option<String>,
    /// also what a Pi that is up does not survive
    #[argh(switch)]
    pub(in crate::cli) force: bool,
}

/// Give a Pi a new root from another image; all that was written on it is gone, unless --keep is given.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "switch")]
pub(in crate::cli) struct DeviceSwitch {
    /// device id or host name
    #[argh(positional)]
    pub(in crate::cli) id: String,
    /// the image
    #[argh(positional)]
    pub(in crate::cli) image: String,
    /// keep the old root as a snapshot
    #[argh(switch)]
    pub(in crate::cli) keep: bool,
    /// also while it is up; it loses its root at once
    #[argh(switch)]
    pub(in crate::cli) force: bool,
    /// how its new root comes to be, as for enroll (default: as it is configured)
    #[argh(option)]
    pub(in crate::cli) root: Option<RootKind>,
    /// return at once instead of waiting for the copy of the image
    #[argh(switch)]
    pub(in crate::cli) no_wait: bool,
}

/// Give a Pi a new root from the same image; all that was written on it is gone, unless --keep is given.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "reset")]
pub(in crate::cli) struct DeviceReset {
    /// device id or host name
    #[argh(positional)]
    pub(in crate::cli) id: String,
    /// keep the old root as a snapshot
    #[argh(switch)]
    pub(in crate::cli) keep: bool,
    /// also while it is up; it loses its root at once
    #[argh(switch)]
    pub(in crate::cli) force: bool,
    /// how its new root comes to be, as for enroll (default: as it is configured)
    #[argh(option)]
    pub(in crate::cli) root: Option<RootKind>,
    /// return at once instead of waiting for the copy of the image
    #[argh(switch)]
    pub(in crate::cli) no_wait: bool,
}

/// Enrol a Pi: from then on it boots from this router.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "enroll")]
pub(in crate::cli) struct Enroll {
    /// hardware address
    #[argh(option)]
    pub(in crate::cli) mac: Option<Mac>,
    /// serial (last eight digits)
    #[argh(option)]
    pub(in crate::cli) serial: Option<Serial>,
    /// host name (default: made from model and serial)
    #[argh(option)]
    pub(in crate::cli) hostname: Option<String>,
    /// image (default: option default_image)
    #[argh(option)]
    pub(in crate::cli) image: Option<String>,
    /// address that dnsmasq is always to give it (default: any)
    #[argh(option)]
    pub(in crate::cli) ip: Option<std::net::Ipv4Addr>,
    /// public key line for the first user; may be repeated
    #[argh(option)]
    pub(in crate::cli) ssh_key: Vec<String>,
    /// how its root comes to be: auto, copy, clone, overlay, or ephemeral: the image's own files, read-only, and what the Pi changes in its memory until its next boot (default: auto, a clone where the disk's file system shares blocks)
    #[argh(option)]
    pub(in crate::cli) root: Option<RootKind>,
    /// name of the first user (default: as the image has it)
    #[argh(option)]
    pub(in crate::cli) user: Option<String>,
    /// ask for that user's password, or read it from standard input; only its hash is kept
    #[argh(switch)]
    pub(in crate::cli) password_stdin: bool,
    /// hash of that user's password (crypt(5), $6$…)
    #[argh(option)]
    pub(in crate::cli) password_hash: Option<PasswordHash>,
    /// what its files may take on the router's disk: 8G, 500M (default: all there is)
    #[argh(option)]
    pub(in crate::cli) quota: Option<String>,
    /// return at once instead of waiting for the copy of the image
    #[argh(switch)]
    pub(in crate::cli) no_wait: bool,
}

/// Unenrol a Pi; its files are kept unless --delete is given.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "unenroll")]
pub(in crate::cli) struct Unenroll {
    /// device id or host name
    #[argh(positional)]
    pub(in crate::cli) id: String,
    /// delete its root file system too; there is no way back
    #[argh(switch)]
    pub(in crate::cli) delete: bool,
}
