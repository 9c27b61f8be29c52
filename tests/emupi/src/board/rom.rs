//! Boards up to the 3B+: mask ROM, `bootcode.bin`, `start.elf`.
//!
//! Order of requests: firmware issues 745, 1012, 1041, 1605, 1700 and the log in the project raspi-netboot.

use super::firmware::{self, Family3};
use super::session::{Ports, ROM_PORT, Session};
use super::{Ready, Stop, failed};
use crate::config::Config;
use crate::dhcp::discover::Speaker;
use crate::model::Model;
use crate::tftp::client::Habits;

/// start*.elf is missing (documentation, "LED warning flash codes").
const NO_START_ELF: Option<(u8, u8)> = Some((0, 4));

pub(super) async fn run(session: &mut Session<'_>) -> Result<Ready, Stop> {
    if session.pi.model != Model::Bootcode {
        rom(session).await?;
    }
    bootcode(session).await?;
    session.stage("start.elf", Habits::START_ELF, Ports::From(ROM_PORT + 1));
    firmware::run(session, &Family3).await
}

async fn rom(session: &mut Session<'_>) -> Result<(), Stop> {
    session.stage("rom", Habits::ROM, Ports::Fixed(ROM_PORT));
    session.network(Speaker::first(session.pi.model)).await?;
    if session.pi.model == Model::Pi3B {
        session.answer_arp(false);
    }
    // For the ROM this is the end already; bootcode.bin would ask for an address again.
    session.stop_after_dhcp()?;
    if session.fetch("bootcode.bin").await?.is_none() {
        return Err(failed(
            "rom",
            None,
            format!("bootcode.bin at the top of the TFTP tree: {}", session.last_result()),
        ));
    }
    // A signature; no server has it, and nothing depends on it.
    session.fetch("bootsig.bin").await?;
    Ok(())
}

async fn bootcode(session: &mut Session<'_>) -> Result<(), Stop> {
    session.stage("bootcode.bin", Habits::BOOTCODE, Ports::From(ROM_PORT + 1));
    session.answer_arp(true);
    // It starts from nothing: another DISCOVER with the ROM's xid, now with the serial number (firmware issue 1605).
    session.network(Speaker::Bootcode).await?;
    session.stop_after_dhcp()?;
    let own = format!("{}start.elf", session.prefix);
    // Twice in the log of raspi-netboot.
    if !(session.probe(&own).await? && session.probe(&own).await?) {
        session.prefix.clear();
    }
    let prefix = session.prefix.clone();
    session.probe(&format!("{prefix}autoboot.txt")).await?;
    let config = session.read(&format!("{prefix}config.txt")).await?;
    session.probe(&format!("{prefix}recovery.elf")).await?;
    // bootcode.bin knows a few settings; includes are followed by start.elf only.
    let text = config.and_then(|f| f.content).unwrap_or_default();
    let config = Config::parse(&text, session.pi, &mut |_| None);
    let (start, fixup) = start_files(&config);
    if session.fetch(&format!("{prefix}{start}")).await?.is_none() {
        return Err(failed("bootcode.bin", NO_START_ELF, session.last_result()));
    }
    session.fetch(&format!("{prefix}{fixup}")).await?;
    Ok(())
}

fn start_files(config: &Config) -> (String, String) {
    let variant = match (config.on("start_x"), config.on("start_debug")) {
        (true, _) => "_x",
        (_, true) => "_db",
        _ if config.get("gpu_mem") == Some("16") => "_cd",
        _ => "",
    };
    let named = |key: &str, usual: String| config.get(key).map_or(usual, str::to_owned);
    (named("start_file", format!("start{variant}.elf")), named("fixup_file", format!("fixup{variant}.dat")))
}
