//! About snapshots of Pis, and Pis that begin as another.

use argh::FromArgs;

use crate::config::RootKind;
use crate::pi::{Mac, Serial};

/// Enrol a Pi that begins as another one is: its files, with an identity of their own.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "clone")]
pub(in crate::cli) struct CloneDevice {
    /// device id or host name of the other one, which has to be off
    #[argh(positional)]
    pub(in crate::cli) from: String,
    /// one of its snapshots, instead of what it is now; then it may run
    #[argh(option)]
    pub(in crate::cli) snapshot: Option<String>,
    /// hardware address of the new one
    #[argh(option)]
    pub(in crate::cli) mac: Option<Mac>,
    /// serial of the new one (last eight digits)
    #[argh(option)]
    pub(in crate::cli) serial: Option<Serial>,
    /// host name (default: made from model and serial)
    #[argh(option)]
    pub(in crate::cli) hostname: Option<String>,
    /// address that dnsmasq is always to give it (default: any)
    #[argh(option)]
    pub(in crate::cli) ip: Option<std::net::Ipv4Addr>,
    /// public key line for the first user; may be repeated (default: those of the other one)
    #[argh(option)]
    pub(in crate::cli) ssh_key: Vec<String>,
    /// how its root comes to be: auto, copy or clone (default: auto, a clone where the disk's file system shares blocks)
    #[argh(option)]
    pub(in crate::cli) root: Option<RootKind>,
    /// return at once instead of waiting for its files
    #[argh(switch)]
    pub(in crate::cli) no_wait: bool,
}

/// List the snapshots of a Pi.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "snapshots")]
pub(in crate::cli) struct Snapshots {
    /// device id or host name
    #[argh(positional)]
    pub(in crate::cli) id: String,
}

/// Take or remove a snapshot of a Pi.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "snapshot")]
pub(in crate::cli) struct Snapshot {
    #[argh(subcommand)]
    pub(in crate::cli) command: SnapshotCommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(in crate::cli) enum SnapshotCommand {
    Take(SnapshotTake),
    Remove(SnapshotRemove),
}

/// Keep what a Pi's files are like now, to go back to; the Pi has to be off.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "take")]
pub(in crate::cli) struct SnapshotTake {
    /// device id or host name
    #[argh(positional)]
    pub(in crate::cli) id: String,
    /// name of the snapshot (default: date and time, UTC)
    #[argh(option)]
    pub(in crate::cli) name: Option<String>,
    /// return at once instead of waiting for it
    #[argh(switch)]
    pub(in crate::cli) no_wait: bool,
}

/// Remove a snapshot; the Pi stays as it is.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "remove")]
pub(in crate::cli) struct SnapshotRemove {
    /// device id or host name
    #[argh(positional)]
    pub(in crate::cli) id: String,
    /// name of the snapshot
    #[argh(positional)]
    pub(in crate::cli) snapshot: String,
}

/// Make a Pi what it was in a snapshot; the Pi has to be off. What it is now becomes the snapshot before-rollback.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "rollback")]
pub(in crate::cli) struct Rollback {
    /// device id or host name
    #[argh(positional)]
    pub(in crate::cli) id: String,
    /// name of the snapshot
    #[argh(positional)]
    pub(in crate::cli) snapshot: String,
    /// do not keep what it is now; there is no way back
    #[argh(switch)]
    pub(in crate::cli) discard: bool,
    /// return at once instead of waiting for it
    #[argh(switch)]
    pub(in crate::cli) no_wait: bool,
}
