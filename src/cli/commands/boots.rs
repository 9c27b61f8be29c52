//! Commands about boots and what a Pi shows of itself.

use std::path::Path;

use serde_json::json;

use crate::api::types::{BootPackets, BootRequest, Boots, BootsRequest};
use crate::base64;
use crate::cli::client::Client;
use crate::cli::{CliError, decode, say, say_line, show};
use crate::pi::{self, Flashes};

/// A number, or the last boot of a device, if it was ever seen to boot.
pub(in crate::cli) fn find_boot(client: &Client, which: &str) -> Result<Option<i64>, CliError> {
    if let Ok(number) = which.parse() {
        return Ok(Some(number));
    }
    let boots: Boots = client.call("boots", BootsRequest { device: Some(which.to_owned()), limit: Some(1) })?;
    Ok(boots.boots.first().map(|boot| boot.id))
}

pub(super) fn boot_number(client: &Client, which: &str) -> Result<i64, CliError> {
    find_boot(client, which)?.ok_or_else(|| CliError::Failed(format!("{which} was never seen to boot")))
}

pub(super) fn led(flashes: Option<Flashes>, as_json: bool) -> Result<(), CliError> {
    let unknown = || CliError::Failed("that is no blink code of a Raspberry Pi: 'piboot led' lists them".to_owned());
    let codes = pi::led(flashes).ok_or_else(unknown)?;
    if as_json {
        say_line(&format!("{:#}", json!({ "codes": codes })));
    } else {
        say(&show::leds(codes));
    }
    Ok(())
}

pub(super) fn write_packets(client: &Client, boot: i64, file: &Path) -> Result<(), CliError> {
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

pub(super) fn dhcp_decode(packet: Option<&str>, as_json: bool) -> Result<(), CliError> {
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
