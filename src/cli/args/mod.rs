//! What the command line takes.

mod backups;
mod boots;
mod devices;
mod images;
mod sdcard;
mod snapshots;

use std::path::PathBuf;

use argh::FromArgs;

pub(super) use backups::*;
pub(super) use boots::*;
pub(super) use devices::*;
pub(super) use images::*;
pub(super) use sdcard::*;
pub(super) use snapshots::*;

/// Network-boot server for Raspberry Pis.
#[derive(FromArgs, Debug)]
pub struct Args {
    /// socket of the agent (default: $PIBOOT_SOCKET or /var/run/piboot/piboot.sock)
    #[argh(option)]
    pub(in crate::cli) socket: Option<PathBuf>,
    /// print what the agent answers as JSON
    #[argh(switch)]
    pub(in crate::cli) json: bool,
    /// print the version
    #[argh(switch)]
    pub(in crate::cli) version: bool,
    #[argh(subcommand)]
    pub(in crate::cli) command: Option<Command>,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(in crate::cli) enum Command {
    Serve(Serve),
    Withdraw(Withdraw),
    Status(Status),
    Check(Check),
    Devices(Devices),
    Device(DeviceOne),
    Enroll(Enroll),
    Unenroll(Unenroll),
    Clone(CloneDevice),
    Snapshots(Snapshots),
    Snapshot(Snapshot),
    Rollback(Rollback),
    Backup(Backup),
    Restore(Restore),
    Export(Export),
    ImportAll(ImportAll),
    SdCard(SdCard),
    Images(Images),
    Image(Image),
    Volume(Volume),
    Jobs(Jobs),
    Job(Job),
    Boots(Boots),
    Boot(Boot),
    Led(Led),
    Dhcp(Dhcp),
}

/// Run the agent.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "serve")]
pub(in crate::cli) struct Serve {
    /// configuration in UCI's format (default: /etc/config/piboot)
    #[argh(option)]
    pub(in crate::cli) config: Option<PathBuf>,
    /// file with the key of the NFS file handles, made if missing (default: /etc/piboot/handle.key, or CONFIG.key)
    #[argh(option)]
    pub(in crate::cli) key: Option<PathBuf>,
    /// socket of the ubus broker, used while there is one (default: /var/run/ubus/ubus.sock)
    #[argh(option)]
    pub(in crate::cli) ubus: Option<PathBuf>,
    /// log more
    #[argh(switch, short = 'v')]
    pub(in crate::cli) verbose: bool,
}

/// Take piboot's sections out of OpenWrt's /etc/config/dhcp; for when the agent will not run again.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "withdraw")]
pub(in crate::cli) struct Withdraw {}

/// Show what the agent does and what is wrong.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "status")]
pub(in crate::cli) struct Status {}

/// Say everything that could stop a boot, with its cure; exit code 1 if there is an error.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "check")]
pub(in crate::cli) struct Check {}

/// Decide about the disk.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "volume")]
pub(in crate::cli) struct Volume {
    #[argh(subcommand)]
    pub(in crate::cli) command: VolumeCommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(in crate::cli) enum VolumeCommand {
    Accept(VolumeAccept),
}

/// Go on with the disk that is there, though it is another than before: the enrolled Pis' files are made anew on it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "accept")]
pub(in crate::cli) struct VolumeAccept {}

/// List jobs.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "jobs")]
pub(in crate::cli) struct Jobs {}

/// Cancel a job or wait for it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "job")]
pub(in crate::cli) struct Job {
    #[argh(subcommand)]
    pub(in crate::cli) command: JobCommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(in crate::cli) enum JobCommand {
    Cancel(JobCancel),
    Wait(JobWait),
}

/// Cancel a job; what it made is removed.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "cancel")]
pub(in crate::cli) struct JobCancel {
    /// its number
    #[argh(positional)]
    pub(in crate::cli) job: u32,
}

/// Wait for a job and show its progress.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "wait")]
pub(in crate::cli) struct JobWait {
    /// its number
    #[argh(positional)]
    pub(in crate::cli) job: u32,
}
