//! Raspberry Pi 5, Compute Module 5: the EEPROM holds the whole firmware; it reads config.txt and loads the kernel itself.
//!
//! Only the beginning of the order is on public record (rpi5-uefi issue 23); the rest follows the older firmware, whose
//! code it shares.

use super::bcm2711::{habits, random_ports, self_update};
use super::firmware::{self, Family5};
use super::session::Session;
use super::{Ready, Stop, failed};
use crate::config::Config;
use crate::dhcp::discover::Speaker;

pub(super) async fn run(session: &mut Session<'_>) -> Result<Ready, Stop> {
    let ports = random_ports(session);
    session.stage("eeprom", habits(session.pi.eeprom), ports);
    session.network(Speaker::Eeprom).await?;
    session.stop_after_dhcp()?;
    let mut config = session.read(&format!("{}config.txt", session.prefix)).await?;
    if config.is_none() {
        session.prefix.clear();
        config = session.read("config.txt").await?;
    }
    let Some(text) = config.and_then(|f| f.content) else {
        // A directory without config.txt is not bootable (documentation, PARTITION_WALK).
        return Err(failed("eeprom", Some((0, 4)), session.last_result()));
    };
    let prefix = session.prefix.clone();
    let config = Config::parse(&text, session.pi, &mut |_| None);
    self_update(session, &prefix, "pieeprom").await?;
    if config.on("boot_ramdisk") {
        session.fetch(&format!("{prefix}boot.img")).await?;
        return Err(failed("eeprom", None, "boot_ramdisk=1: this emulation does not look into boot.img"));
    }
    firmware::run(session, &Family5).await
}
