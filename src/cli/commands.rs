//! What each subcommand asks the agent, and how it shows the answer.

use std::path::Path;

use serde_json::json;

use super::client::Client;
use super::{
    CliError, Command, DhcpCommand, ImageCommand, JobCommand, VolumeCommand, decode, follow, say, say_line, show,
    timeline, wait,
};
use crate::api::types::{
    BootDetail, BootPackets, BootRequest, Boots, BootsRequest, Check, DeviceDetail, Devices, EnrollRequest, Enrolled,
    IdRequest, Images, ImportRequest, JobList, JobRequest, NameRequest, Nothing, Removed, Started, Status,
    UnenrollRequest, Unenrolled,
};
use crate::clock::Clock;
use crate::config::Severity;
use crate::pi::{self, Flashes};
use crate::{base64, image};

pub(super) fn run(command: Command, client: &Client) -> Result<(), CliError> {
    let none = json!({});
    let now_ms = Clock::system().wall_ms();
    match command {
        // Handled by the caller: they are no clients of the agent.
        Command::Serve(_) | Command::Withdraw(_) => Ok(()),
        Command::Status(_) => shown(client.ask::<Status>("status", none)?, |s| show::status(&s)),
        Command::Check(_) => check(client),
        Command::Devices(_) => shown(client.ask::<Devices>("devices", none)?, |d| show::devices(&d, now_ms)),
        Command::Device(one) => {
            shown(client.ask::<DeviceDetail>("device", IdRequest { id: one.id })?, |d| show::device(&d, now_ms))
        }
        Command::Enroll(enroll) => {
            let super::Enroll { mac, serial, hostname, image, ip, ssh_key, no_wait } = enroll;
            let request = EnrollRequest { mac, serial, hostname, image, ip, ssh_keys: ssh_key };
            let enrolled: Enrolled = client.call("enroll", request)?;
            if client.json {
                say_line(&format!("{:#}", serde_json::to_value(&enrolled).unwrap_or_default()));
                return if enrolled.why.is_some() { Err(CliError::Said) } else { Ok(()) };
            }
            say_line(&format!("enrolled as {}", enrolled.id));
            if let Some(why) = enrolled.why {
                return Err(CliError::Failed(format!("{} cannot boot yet: {why}", enrolled.id)));
            }
            await_job(client, enrolled.job, no_wait)
        }
        Command::Unenroll(unenroll) => {
            let request = UnenrollRequest { id: unenroll.id, delete: unenroll.delete };
            let Some(gone) = client.ask::<Unenrolled>("unenroll", request)? else { return Ok(()) };
            say_line(&format!("{} is unenrolled", gone.id));
            if let Some(kept) = gone.kept {
                say_line(&format!("its files are kept in {kept}; enrolling it under the same name uses them again"));
            }
            await_job(client, gone.job, false)
        }
        Command::Images(_) => shown(client.ask::<Images>("images", none)?, |i| show::images(&i)),
        Command::Image(image) => image_command(image.command, client),
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
            let number = boot_number(client, &boot.boot)?;
            if let Some(file) = boot.pcap {
                return write_packets(client, number, &file);
            }
            shown(client.ask::<BootDetail>("boot", BootRequest { boot: number })?, |b| timeline::boot(&b, now_ms))
        }
        Command::Led(wanted) => led(wanted.flashes, client.json),
        Command::Dhcp(dhcp) => match dhcp.command {
            DhcpCommand::Decode(decode) => dhcp_decode(decode.packet.as_deref(), client.json),
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

fn image_command(command: ImageCommand, client: &Client) -> Result<(), CliError> {
    match command {
        ImageCommand::Import(import) => {
            let source = import
                .file
                .canonicalize()
                .map_err(|e| CliError::Failed(format!("cannot use {}: {e}", import.file.display())))?;
            let request = ImportRequest { source, name: import.name };
            let Some(started) = client.ask::<Started>("image_import", request)? else { return Ok(()) };
            await_job(client, Some(started.job), import.no_wait)
        }
        ImageCommand::Remove(remove) => {
            let Some(started) = client.ask::<Removed>("image_remove", NameRequest { name: remove.name })? else {
                return Ok(());
            };
            await_job(client, started.job, false)
        }
        ImageCommand::Inspect(inspect) => {
            let found = image::inspect(&inspect.file).map_err(|e| CliError::Failed(e.to_string()))?;
            let value = serde_json::to_value(&found).map_err(|e| CliError::Failed(e.to_string()))?;
            if client.json {
                say_line(&format!("{value:#}"));
            } else {
                say(&show::members(&value));
            }
            Ok(())
        }
    }
}

/// A number, or the last boot of a device, if it was ever seen to boot.
pub(super) fn find_boot(client: &Client, which: &str) -> Result<Option<i64>, CliError> {
    if let Ok(number) = which.parse() {
        return Ok(Some(number));
    }
    let boots: Boots = client.call("boots", BootsRequest { device: Some(which.to_owned()), limit: Some(1) })?;
    Ok(boots.boots.first().map(|boot| boot.id))
}

fn boot_number(client: &Client, which: &str) -> Result<i64, CliError> {
    find_boot(client, which)?.ok_or_else(|| CliError::Failed(format!("{which} was never seen to boot")))
}

fn led(flashes: Option<Flashes>, as_json: bool) -> Result<(), CliError> {
    let unknown = || CliError::Failed("that is no blink code of a Raspberry Pi: 'piboot led' lists them".to_owned());
    let codes = pi::led(flashes).ok_or_else(unknown)?;
    if as_json {
        say_line(&format!("{:#}", json!({ "codes": codes })));
    } else {
        say(&show::leds(codes));
    }
    Ok(())
}

fn write_packets(client: &Client, boot: i64, file: &Path) -> Result<(), CliError> {
    let packets: BootPackets = client.call("boot_packets", BootRequest { boot })?;
    if packets.pcap.is_empty() {
        return Err(CliError::Failed(format!("no packets of boot {boot} were kept")));
    }
    let bytes = base64::decode(&packets.pcap)
        .ok_or_else(|| CliError::Failed("the agent's answer is no base64: is it of another version?".to_owned()))?;
    let failed = |e: std::io::Error| CliError::Failed(format!("cannot write {}: {e}", file.display()));
    std::fs::write(file, bytes).map_err(failed)?;
    say_line(&format!("{} packets of boot {boot} are in {}: 'tcpdump -r' shows them", packets.packets, file.display()));
    Ok(())
}

fn dhcp_decode(packet: Option<&str>, as_json: bool) -> Result<(), CliError> {
    let seen = decode::packet(packet)?;
    if as_json {
        let value = json!({
            "mac": seen.mac, "netboot": seen.netboot, "identity": seen.identity, "xid": seen.xid, "ip": seen.ip,
            "server": seen.server, "tftp": seen.tftp, "boot_menu": seen.boot_menu,
        });
        say_line(&format!("{value:#}"));
    } else {
        say(&show::dhcp(&seen));
    }
    Ok(())
}
