//! About Pis.

use argh::FromArgs;

use crate::config::RootKind;
use crate::pi::{Mac, Serial};

/// List enrolled Pis and those that wait to be enrolled.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "devices")]
pub(in crate::cli) struct Devices {}

/// Show one enrolled Pi, and what was changed in its copy of the image.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "device")]
pub(in crate::cli) struct DeviceOne {
    /// device id or host name
    #[argh(positional)]
    pub(in crate::cli) id: String,
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
    /// how its root comes to be: auto, copy or clone (default: auto, a clone where the disk's file system shares blocks)
    #[argh(option)]
    pub(in crate::cli) root: Option<RootKind>,
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
