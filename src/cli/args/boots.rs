//! About boots and what a Pi shows of itself.

use std::path::PathBuf;

use argh::FromArgs;

use crate::pi::Flashes;

/// List the last boots, of one Pi or of all.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "boots")]
pub(in crate::cli) struct Boots {
    /// device id, host name or MAC address
    #[argh(positional)]
    pub(in crate::cli) device: Option<String>,
    /// at most so many (default 20)
    #[argh(option)]
    pub(in crate::cli) limit: Option<u32>,
}

/// Show the timeline of one boot.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "boot")]
pub(in crate::cli) struct Boot {
    /// its number, or a device id for that Pi's last boot
    #[argh(positional)]
    pub(in crate::cli) boot: String,
    /// tell it while it happens; for a device also a boot that is yet to come
    #[argh(switch, short = 'f')]
    pub(in crate::cli) follow: bool,
    /// write its DHCP packets, and those with which its TFTP transfers began, to this file, for tcpdump or Wireshark
    #[argh(option)]
    pub(in crate::cli) pcap: Option<PathBuf>,
}

/// Say what the green LED of a Pi that does not boot means; needs no agent.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "led")]
pub(in crate::cli) struct Led {
    /// flashes: 7, or long and short ones: 4-3 (default: list all)
    #[argh(positional)]
    pub(in crate::cli) flashes: Option<Flashes>,
}

/// Look at DHCP packets; needs no agent.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "dhcp")]
pub(in crate::cli) struct Dhcp {
    #[argh(subcommand)]
    pub(in crate::cli) command: DhcpCommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(in crate::cli) enum DhcpCommand {
    Decode(DhcpDecode),
}

/// Say which Pi sent a DHCP packet, or what a reply tells one.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "decode")]
pub(in crate::cli) struct DhcpDecode {
    /// a file with the packet, as it is or as a hex dump, or its hex digits (default: standard input)
    #[argh(positional)]
    pub(in crate::cli) packet: Option<String>,
}
