//! An emulated Raspberry Pi.
//!
//! It plays over raw Ethernet frames what a real board's mask ROM, `bootcode.bin`, `start.elf` or EEPROM bootloader does
//! when it boots from the network, and hands over exactly what it fetched. It shares no code with the agent it tests: a
//! mistake made once must not hide itself.
//!
//! - [`link`]: a tap or veth interface that carries the frames of one or many boards
//! - [`frame`], [`arp`], [`ip`], [`udp`], [`nic`]: the boards' own small network stack
//! - [`dhcp`], [`tftp`]: clients with each boot stage's habits
//! - [`model`], [`config`], [`board`]: which board, its `config.txt`, its order of requests
//! - [`handoff`]: from what was fetched to a QEMU command line
//! - [`many`]: a classroom of boards on one link; [`storm`]: how they fared after a power cut
//! - [`lab`]: network namespaces, a bridge and a DHCP server to boot from
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use emupi::{BootOptions, Model, Pi, boot, lab::Net};
//! let net = Net::new()?;
//! let _dhcp = net.dnsmasq("dhcp-range=10.77.0.50,10.77.0.200,10m\nenable-tftp\ntftp-root=/srv/tftp\n")?;
//! let link = net.tap_link()?;
//! let boot = boot(&Pi::new(Model::Pi3B, 0x5b15_4510), &link, &BootOptions::default(), None)?;
//! println!("{}", boot.outcome);
//! # Ok(()) }
//! ```

pub mod arp;
pub mod board;
pub mod config;
pub mod dhcp;
pub mod digest;
pub mod frame;
pub mod handoff;
pub mod ip;
pub mod json;
pub mod lab;
pub mod link;
pub mod many;
pub mod model;
pub mod nic;
mod reactor;
pub mod record;
pub mod rng;
pub mod storm;
pub mod tftp;
pub mod udp;

pub use board::{Boot, BootOptions, Outcome, Ready, Until, boot};
pub use frame::Mac;
pub use link::Link;
pub use model::{Model, Pi};
