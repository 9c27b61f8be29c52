//! What each subcommand asks the agent, and how it shows the answer.

mod backups;
mod boots;
mod devices;
mod images;
mod sdcard;
mod snapshots;

use serde_json::json;

use super::args::{Command, DhcpCommand, JobCommand, VolumeCommand};
use super::client::Client;
use super::{CliError, follow, say, say_line, show, timeline, wait};
use crate::api::types::{
    BootDetail, BootRequest, Boots, BootsRequest, Check, Devices, Images, JobList, JobRequest, Nothing, Status,
};
use crate::clock::Clock;
use crate::config::Severity;

pub(super) use boots::find_boot;

pub(super) fn run(command: Command, client: &Client) -> Result<(), CliError> {
    let none = json!({});
    let now_ms = Clock::system().wall_ms();
    match command {
        // Handled by the caller: they are no clients of the agent.
        Command::Serve(_) | Command::Withdraw(_) => Ok(()),
        Command::Status(_) => shown(client.ask::<Status>("status", none)?, |s| show::status(&s)),
        Command::Check(_) => check(client),
        Command::Devices(_) => shown(client.ask::<Devices>("devices", none)?, |d| show::devices(&d, now_ms)),
        Command::Device(device) => devices::device(device.words, client, now_ms),
        Command::Enroll(enroll) => devices::enroll(enroll, client),
        Command::Unenroll(unenroll) => devices::unenroll(unenroll, client),
        Command::Clone(clone) => snapshots::clone(clone, client),
        Command::Snapshots(of) => snapshots::list(of.id, client, now_ms),
        Command::Snapshot(snapshot) => snapshots::snapshot(snapshot.command, client),
        Command::Rollback(rollback) => snapshots::rollback(rollback, client),
        Command::Backup(backup) => backups::backup(backup, client),
        Command::Restore(restore) => backups::restore(restore, client),
        Command::Export(export) => backups::export(export, client),
        Command::ImportAll(import) => backups::import_all(import, client),
        Command::SdCard(card) => sdcard::sdcard(card, client),
        Command::Images(_) => shown(client.ask::<Images>("images", none)?, |i| show::images(&i)),
        Command::Image(image) => images::image(image.command, client),
        Command::Volume(volume) => match volume.command {
            VolumeCommand::Accept(_) => {
                if client.ask::<Nothing>("volume_accept", none)?.is_some() {
                    say_line("this disk is used from now on; 'piboot devices' shows how far each Pi is");
                }
                Ok(())
            }
        },
        Command::Jobs(_) => shown(client.ask::<JobList>("jobs", none)?, |j| show::jobs(&j, now_ms)),
        Command::Job(job) => match job.command {
            JobCommand::Cancel(cancel) => {
                client.call::<Nothing>("job_cancel", JobRequest { job: cancel.job })?;
                say_line(&format!("job {} is being cancelled", cancel.job));
                Ok(())
            }
            JobCommand::Wait(wait) => wait::for_job(client, wait.job),
        },
        Command::Boots(boots) => {
            let request = BootsRequest { device: boots.device, limit: boots.limit };
            shown(client.ask::<Boots>("boots", request)?, |b| show::boots(&b, now_ms))
        }
        Command::Boot(boot) if boot.follow => follow::boot(client, &boot.boot),
        Command::Boot(boot) => {
            let number = boots::boot_number(client, &boot.boot)?;
            if let Some(file) = boot.pcap {
                return boots::write_packets(client, number, &file);
            }
            shown(client.ask::<BootDetail>("boot", BootRequest { boot: number })?, |b| timeline::boot(&b, now_ms))
        }
        Command::Led(wanted) => boots::led(wanted.flashes, client.json),
        Command::Dhcp(dhcp) => match dhcp.command {
            DhcpCommand::Decode(decode) => boots::dhcp_decode(decode.packet.as_deref(), client.json),
        },
    }
}

fn shown<T>(answer: Option<T>, show: impl FnOnce(T) -> String) -> Result<(), CliError> {
    if let Some(answer) = answer {
        say(&show(answer));
    }
    Ok(())
}

fn await_job(client: &Client, job: Option<u32>, no_wait: bool) -> Result<(), CliError> {
    match job {
        Some(job) if no_wait => {
            say_line(&format!("job {job} is working on it"));
            Ok(())
        }
        Some(job) => wait::for_job(client, job),
        None => Ok(()),
    }
}

fn check(client: &Client) -> Result<(), CliError> {
    let check: Check = client.call("check", json!({}))?;
    if client.json {
        say_line(&format!("{:#}", serde_json::to_value(&check).unwrap_or_default()));
    } else {
        say(&show::findings(&check.findings));
        if check.findings.is_empty() {
            say_line("nothing stands in the way of a boot");
        }
    }
    let is_bad = check.findings.iter().any(|f| f.severity == Severity::Error);
    if is_bad { Err(CliError::Said) } else { Ok(()) }
}
