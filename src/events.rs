//! What the wire parts report: the one-way street from `dhcp`, `tftp` and `nfs` to `boot`.
//!
//! Data-path threads must never wait for whoever listens: [`Sink::emit`] drops and counts when the bounded channel is full.

#![allow(missing_docs, reason = "fields and message types are named after the protocol; the variants are documented")]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock::{Clock, Moment};
use crate::pi::{Identity, Mac};

/// Events that may wait for the control side before new ones are dropped: a boot has about 150, a boot of 25 Pis fits. Half
/// of it is closed to what is merely welcome (packets, console lines). Memory is taken only for those that wait.
pub const CHANNEL_CAPACITY: usize = 8192;

/// A link that came up longer before a Pi's first packet has nothing to do with its boot: EEPROM bootloaders look for disks
/// first, but not for so long, and behind a switch the link is the switch's.
pub const LINK_BEFORE_BOOT: Duration = Duration::from_secs(90);

/// One observation, with the moment it was made.
#[derive(Debug, Clone)]
pub struct Event {
    /// When it was seen.
    pub at: Moment,
    /// What was seen.
    pub what: What,
}

/// What was seen, by protocol.
#[derive(Debug, Clone)]
pub enum What {
    /// A DHCP packet of a Pi, or one for a Pi.
    Dhcp(Dhcp),
    /// A TFTP transfer made progress. `peer` is the client's address.
    Tftp { peer: IpAddr, event: Tftp },
    /// An NFS client did something that marks a stage. `peer` is the client's address.
    Nfs { peer: IpAddr, event: Nfs },
    /// The bridge port behind which a Pi sits has had link since `up`; told just before the DISCOVER that led to it.
    Link { mac: Mac, port: Box<str>, up: Moment },
    /// Something was done to get around a known weakness of a board; `quirk` is its name, `note` what was done.
    Quirk { mac: Mac, quirk: &'static str, note: Box<str> },
    /// A line of a Pi's console that came over the network: raw bytes, without the line end.
    Console { mac: Mac, from: ConsoleFrom, line: Box<[u8]> },
    /// A packet worth keeping, from its IP header on: DHCP, and what TFTP begins and ends with.
    Packet { of: Of, packet: Box<[u8]> },
    /// The system answers on a port of its own: it is up. `how` says which.
    Answers { peer: IpAddr, how: &'static str },
}

/// Whose packet it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// By hardware address.
    Mac(Mac),
    /// By IP address.
    Peer(IpAddr),
}

/// Who speaks on a network console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsoleFrom {
    /// The EEPROM's bootloader (`NETCONSOLE`).
    Bootloader,
    /// The Linux kernel (`netconsole=`).
    Kernel,
}

/// A DHCP message that concerns one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp {
    /// The client's hardware address (`chaddr`), whoever sent the packet.
    pub mac: Mac,
    /// Message type (RFC 2132 §9.6).
    pub kind: DhcpKind,
    /// Transaction id.
    pub xid: u32,
    /// The address the message is about: `yiaddr` of a reply, requested or own address of a request.
    pub ip: Option<std::net::Ipv4Addr>,
    /// Vendor class starts with `PXEClient`: the sender asks to boot, not merely for an address.
    pub netboot: bool,
    /// The Pi that sent it, where the packet says so; always `None` for replies.
    pub identity: Option<Identity>,
    /// Option 12, raw bytes from the network.
    pub hostname: Option<Box<[u8]>>,
    /// The server's identifier (option 54): of a reply its sender, of a REQUEST the server whose offer is taken.
    pub server: Option<std::net::Ipv4Addr>,
    /// For replies: whether the reply carries the Raspberry Pi boot menu (option 43).
    pub boot_menu: bool,
    /// For replies: the TFTP server that it names, by option 66 or `siaddr`.
    pub tftp: Option<std::net::Ipv4Addr>,
}

/// DHCP message types that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DhcpKind {
    Discover,
    Offer,
    Request,
    Decline,
    Ack,
    Nak,
    Release,
    Inform,
}

/// A step of one TFTP read request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tftp {
    /// The request is being served. `path` as asked, raw bytes.
    Open { transfer: u32, path: Arc<[u8]>, size: u64, blksize: u16, windowsize: u16 },
    /// The request was refused at once; `code` is the TFTP error code sent (RFC 1350 §5), 1 = not found.
    Miss { path: Arc<[u8]>, code: u16 },
    /// The transfer ended.
    Closed {
        transfer: u32,
        path: Arc<[u8]>,
        end: TftpEnd,
        acknowledged: u64,
        size: u64,
        took: Duration,
        retransmissions: u32,
    },
}

/// How a TFTP transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TftpEnd {
    /// Every byte was acknowledged.
    Done,
    /// The client sent ERROR; Pis do so after probing for a file ("Early terminate"), which is normal.
    Aborted { code: u16, message: Arc<[u8]> },
    /// The client fell silent.
    Timeout,
    /// The client's port is closed (ICMP unreachable).
    Gone,
    /// The same client port asked for something else.
    Replaced,
    /// We could not read the file any more.
    ReadError(Arc<str>),
    /// The server was stopped.
    Stopped,
}

/// A step of an NFS client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nfs {
    /// GETPORT for a program at the portmapper (RFC 1833 §3), the first sign of an NFS mount.
    Getport { program: u32, version: u32, answered_port: u16 },
    /// MNT succeeded.
    Mounted { export: Arc<str> },
    /// MNT or an NFS request was refused; `why` is a sentence for people. At most one a minute per address and export.
    Refused { export: Arc<str>, why: Arc<str> },
    /// UMNT.
    Unmounted { export: Arc<str> },
    /// First READ of file data after a mount.
    FirstRead { export: Arc<str> },
    /// The file that becomes process 1 was looked up (`init` or `systemd`).
    Init { export: Arc<str> },
    /// First change to the export after a mount.
    FirstWrite { export: Arc<str> },
    /// The same as [`Nfs::Init`] of a root that nobody can write to: there will be no first write.
    InitReadOnly { export: Arc<str> },
    /// The program that ends the system was looked up (`systemd-shutdown`, `poweroff` …).
    Shutdown { export: Arc<str> },
    /// A client's machine does not answer any more: its connection had to be given up.
    Gone,
    /// One that did not answer is back, with the mount it had.
    Back,
}

/// Where wire parts put events; cheap to clone, never blocks.
#[derive(Debug, Clone)]
pub struct Sink {
    clock: Clock,
    sender: mpsc::Sender<Event>,
    dropped: Arc<AtomicU32>,
}

impl Sink {
    /// A sink and the receiving end of its channel.
    #[must_use]
    pub fn new(clock: Clock) -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(CHANNEL_CAPACITY);
        (Self { clock, sender, dropped: Arc::default() }, receiver)
    }

    /// Reports an observation made now.
    pub fn emit(&self, what: What) {
        let event = Event { at: self.clock.now(), what };
        if self.sender.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reports what is welcome and nothing depends on, such as lines of a console: only while half of the channel is free,
    /// so that others never find it full because of it. False if it was not taken.
    pub fn emit_if_calm(&self, what: impl FnOnce() -> What) -> bool {
        let is_calm = self.sender.capacity() > CHANNEL_CAPACITY / 2;
        if is_calm {
            self.emit(what());
        }
        is_calm
    }

    /// The clock events are stamped with.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Events lost because nobody read fast enough, since start.
    #[must_use]
    pub fn dropped(&self) -> u32 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_channel_drops_and_counts_instead_of_blocking() {
        let (sink, mut receiver) = Sink::new(Clock::manual(0));
        let peer = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..CHANNEL_CAPACITY + 3 {
            sink.emit(What::Tftp { peer, event: Tftp::Miss { path: Arc::from(*b"x"), code: 1 } });
        }
        assert_eq!(sink.dropped(), 3);
        assert!(!sink.emit_if_calm(|| What::Answers { peer, how: "x" }), "full");
        for _ in 0..=CHANNEL_CAPACITY / 2 {
            assert!(receiver.try_recv().is_ok());
        }
        assert!(sink.emit_if_calm(|| What::Answers { peer, how: "x" }));
        assert!(!sink.emit_if_calm(|| What::Answers { peer, how: "x" }), "the other half is for others");
        assert_eq!(sink.dropped(), 3);
    }
}
