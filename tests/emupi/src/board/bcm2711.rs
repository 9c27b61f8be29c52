//! Raspberry Pi 4, 400, Compute Module 4: the bootloader in the EEPROM loads start4.elf.
//!
//! Order of requests: rpi-eeprom issues 74 and 417, and public dnsmasq logs of a 4B.

use super::firmware::{self, Family4};
use super::session::{Ports, ROM_PORT, Session};
use super::{Ready, Stop, failed};
use crate::config::Config;
use crate::dhcp::discover::Speaker;
use crate::model::Eeprom;
use crate::tftp::client::Habits;

/// start*.elf is missing (documentation, "LED warning flash codes").
const NO_START_ELF: Option<(u8, u8)> = Some((0, 4));

/// The habits of an EEPROM bootloader of this age.
pub(super) fn habits(eeprom: Eeprom) -> Habits {
    Habits {
        block_size: Some(if eeprom < Eeprom::Y2024 { 1024 } else { 1468 }),
        rollover: eeprom >= Eeprom::Y2025,
        ..Habits::EEPROM
    }
}

/// Somewhere in the dynamic range, then counting up.
pub(super) fn random_ports(session: &mut Session<'_>) -> Ports {
    Ports::From(ROM_PORT - 0x2000 + (session.random() & 0x1fff) as u16)
}

pub(super) async fn run(session: &mut Session<'_>) -> Result<Ready, Stop> {
    let ports = random_ports(session);
    session.stage("eeprom", habits(session.pi.eeprom), ports);
    session.network(Speaker::Eeprom).await?;
    session.stop_after_dhcp()?;
    let own = session.prefix.clone();
    let start4 = session.probe(&format!("{own}start4.elf")).await?;
    let start = session.probe(&format!("{own}start.elf")).await?;
    if !start4 && !start {
        session.prefix.clear();
    }
    let prefix = session.prefix.clone();
    let text = session.read(&format!("{prefix}config.txt")).await?.and_then(|f| f.content).unwrap_or_default();
    let config = Config::parse(&text, session.pi, &mut |_| None);
    self_update(session, &prefix, "vl805").await?;
    self_update(session, &prefix, "pieeprom").await?;
    session.probe(&format!("{prefix}recover4.elf")).await?;
    session.probe(&format!("{prefix}recovery.elf")).await?;
    let (start, fixup) = start_files(&config);
    if session.fetch(&format!("{prefix}{start}")).await?.is_none() {
        return Err(failed("eeprom", NO_START_ELF, session.last_result()));
    }
    session.fetch(&format!("{prefix}{fixup}")).await?;
    let ports = random_ports(session);
    session.stage("start4.elf", habits(session.pi.eeprom), ports);
    firmware::run(session, &Family4).await
}

/// Looks for an update of its own. This board's EEPROM counts as up to date: the signature is read, the image is not.
pub(super) async fn self_update(session: &mut Session<'_>, prefix: &str, name: &str) -> Result<(), Stop> {
    session.read(&format!("{prefix}{name}.sig")).await?;
    Ok(())
}

fn start_files(config: &Config) -> (String, String) {
    let variant = match (config.on("start_x"), config.on("start_debug")) {
        (true, _) => "x",
        (_, true) => "db",
        _ if config.get("gpu_mem") == Some("16") => "cd",
        _ => "",
    };
    let named = |key: &str, usual: String| config.get(key).map_or(usual, str::to_owned);
    (named("start_file", format!("start4{variant}.elf")), named("fixup_file", format!("fixup4{variant}.dat")))
}
