//! A boot from power-on to the kernel, one file for each way boards are organised.

mod bcm2711;
mod bcm2712;
mod firmware;
mod other;
mod rom;
mod session;

use crate::link::{FrameLoss, Link, LinkError};
use crate::model::{Family, Pi};
use crate::nic::Faults;
use crate::reactor::{Alarm, block_on};
use crate::record::{Entry, Event, Fetched, FileRequest, Listener};
use crate::tftp::client::Loss;
use session::Session;
use std::fmt;
use std::net::Ipv4Addr;

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Stop when the board has an address and knows its TFTP server.
    Dhcp,
    /// Go on until the kernel is there.
    Kernel,
}

/// Conditions of a boot.
#[derive(Debug, Clone, Copy)]
pub struct BootOptions {
    /// How far to go.
    pub until: Until,
    /// Divides the waits of DHCP; TFTP's timeouts stay as they are, because they race against the server's.
    pub speed: f64,
    /// Packets to lose on purpose during TFTP.
    pub loss: Loss,
    /// Frames to lose on purpose from power-on, as a bad cable does; 0 to 1. What a board says only once is spared.
    pub frame_loss: f64,
    /// Seed of everything random: transaction ids, ports, losses.
    pub seed: u64,
    /// How often a board with an EEPROM starts over after a failure, as boot order 0xf21 makes it do for ever.
    pub restarts: u32,
    /// Keep kernel, ramdisk, device tree and firmware in memory; otherwise only their length and digest.
    pub keep: bool,
    /// The 3B is deaf to ARP not only in its ROM but until the kernel runs.
    pub arp_silent: bool,
    /// An old start4.elf that acknowledges N+1 when block N arrives twice (firmware issue 1631).
    pub ack_next: bool,
}

impl Default for BootOptions {
    fn default() -> BootOptions {
        BootOptions {
            until: Until::Kernel,
            speed: 1.0,
            loss: Loss::default(),
            frame_loss: 0.0,
            seed: crate::rng::Rng::random_seed(),
            restarts: 0,
            keep: true,
            arp_silent: false,
            ack_next: false,
        }
    }
}

/// A file that was fetched whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name as asked for, with the board's prefix.
    pub path: String,
    /// Length.
    pub bytes: u64,
    /// [`crate::digest::Digest`] of the content.
    pub digest: u64,
    /// The content, if it was kept.
    pub content: Option<Vec<u8>>,
}

/// Everything the firmware hands to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The kernel.
    pub kernel: File,
    /// Ramdisks in order; the firmware joins them.
    pub initramfs: Vec<File>,
    /// The device tree, if one was found.
    pub device_tree: Option<File>,
    /// Overlays in order.
    pub overlays: Vec<File>,
    /// The command line, with what the firmware adds.
    pub cmdline: String,
    /// `cmdline.txt` as it was served, without the line end.
    pub cmdline_txt: String,
    /// Every file that was fetched whole, in order; the ones above included.
    pub files: Vec<File>,
}

/// How a boot ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel would start now.
    Ready(Box<Ready>),
    /// Address and TFTP server are known, and no more was asked for ([`Until::Dhcp`]).
    Address,
    /// A machine that is no Raspberry Pi got its address, and these boot options that were not meant for it.
    NotAPi {
        /// Empty if it was left alone, as it should be.
        boot_options: Vec<String>,
    },
    /// The board stopped.
    Failed {
        /// Where: dhcp, rom, bootcode.bin, start.elf, kernel …
        stage: &'static str,
        /// Why.
        why: String,
        /// What the green LED shows: long and short flashes; `None` if it stays dark.
        led: Option<(u8, u8)>,
    },
}

/// A boot that is over.
#[derive(Debug, Clone)]
pub struct Boot {
    /// The board.
    pub pi: Pi,
    /// Its address, if it got one.
    pub ip: Option<Ipv4Addr>,
    /// Its TFTP server, if it heard of one.
    pub server: Option<Ipv4Addr>,
    /// Every step.
    pub log: Vec<Entry>,
    /// How it ended.
    pub outcome: Outcome,
    /// Packets that could not be used.
    pub faults: Faults,
}

impl Boot {
    /// Whether it ended as this machine should: ready to run, or with nothing but an address for one that is no Pi.
    pub fn ok(&self) -> bool {
        match &self.outcome {
            Outcome::Ready(_) | Outcome::Address => true,
            Outcome::NotAPi { boot_options } => boot_options.is_empty(),
            Outcome::Failed { .. } => false,
        }
    }

    /// Every request for a file, in order.
    pub fn requests(&self) -> impl Iterator<Item = &FileRequest> {
        self.log.iter().filter_map(|entry| match &entry.event {
            Event::File(file) => Some(file),
            _ => None,
        })
    }

    /// What the kernel gets, if the boot came so far.
    pub fn ready(&self) -> Option<&Ready> {
        match &self.outcome {
            Outcome::Ready(ready) => Some(ready),
            _ => None,
        }
    }

    /// Bytes of all files that arrived whole, repeated ones counted again.
    pub fn bytes(&self) -> u64 {
        self.requests().map(|r| if let Fetched::Whole { bytes, .. } = r.fetched { bytes } else { 0 }).sum()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Ready(ready) => write!(
                f,
                "ready: {} ({} bytes), {} ramdisk(s), device tree {}",
                ready.kernel.path,
                ready.kernel.bytes,
                ready.initramfs.len(),
                ready.device_tree.as_ref().map_or("none", |d| &d.path)
            ),
            Outcome::Address => f.write_str("has an address and a TFTP server"),
            Outcome::NotAPi { boot_options } if boot_options.is_empty() => f.write_str("has an address, left alone"),
            Outcome::NotAPi { boot_options } => write!(f, "was offered a boot it did not ask for: {boot_options:?}"),
            Outcome::Failed { stage, why, led } => {
                write!(f, "failed in {stage}: {why}")?;
                match led {
                    Some((0, short)) => write!(f, "; the LED flashes {short} times"),
                    Some((long, short)) => write!(f, "; the LED flashes {long} long, {short} short"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Why a stage did not lead to the next.
#[derive(Debug)]
enum Stop {
    /// As in [`Outcome`].
    End(Outcome),
    /// The machine under the emulation failed.
    Link(LinkError),
}

impl From<LinkError> for Stop {
    fn from(error: LinkError) -> Stop {
        Stop::Link(error)
    }
}

fn failed(stage: &'static str, led: Option<(u8, u8)>, why: impl Into<String>) -> Stop {
    Stop::End(Outcome::Failed { stage, why: why.into(), led })
}

/// Powers the board on and lets it boot. `listener` hears of each step as it happens.
///
/// # Errors
/// Only when the link fails; a boot that fails is an [`Outcome`].
pub fn boot<'a>(
    pi: &'a Pi,
    link: &Link,
    options: &'a BootOptions,
    listener: Option<Listener<'a>>,
) -> Result<Boot, LinkError> {
    block_on(boot_with(pi, link, options, listener, None))
}

/// The same for a board that is one of many on a reactor.
pub(crate) async fn boot_with<'a>(
    pi: &'a Pi,
    link: &Link,
    options: &'a BootOptions,
    listener: Option<Listener<'a>>,
    alarm: Option<Alarm>,
) -> Result<Boot, LinkError> {
    let loss = FrameLoss { rate: options.frame_loss, seed: options.seed };
    let mut session = Session::new(pi, link.attach_with(pi.mac, loss, alarm)?, options, listener);
    let mut restarts =
        if matches!(pi.model.family(), Family::Bcm2711 | Family::Bcm2712) { options.restarts } else { 0 };
    loop {
        let end = match pi.model.family() {
            Family::Rom => rom::run(&mut session).await,
            Family::Bcm2711 => bcm2711::run(&mut session).await,
            Family::Bcm2712 => bcm2712::run(&mut session).await,
            Family::Other => other::run(&mut session).await,
        };
        let outcome = match end {
            Ok(ready) => Outcome::Ready(Box::new(ready)),
            Err(Stop::End(outcome)) => outcome,
            Err(Stop::Link(error)) => return Err(error),
        };
        if restarts == 0 || !matches!(outcome, Outcome::Failed { .. }) {
            return Ok(session.finish(outcome));
        }
        restarts -= 1;
        session.restart(&outcome.to_string());
    }
}
