//! The passive observer: every DHCP message of a Pi on the LAN, whoever answers it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::fingerprint;
pub use super::interest::Interest;
use super::respond::Responder;
use crate::events::{Dhcp, DhcpKind, LINK_BEFORE_BOOT, Of, Sink, What};
use crate::net::AddressBook;
use crate::net::link::Links;
use crate::net::packet::{DhcpTap, MAX_PACKET, udp_payload};

/// Packets taken in before looking whether to stop.
const BATCH: usize = 64;
/// One packet buffer and no recursion.
const STACK: usize = 128 << 10;

/// What an observer knows, and whom it tells.
#[derive(Debug)]
pub struct Station {
    /// Which messages are looked at.
    pub interest: Interest,
    /// Since when ports have link.
    pub links: Links,
    /// Told who was given which address.
    pub addresses: AddressBook,
    /// Told of everything.
    pub sink: Sink,
    /// Answers some of them.
    pub responder: Responder,
}

/// Watches one interface until it is dropped.
///
/// A thread of its own: what it sees is stamped and ordered against what TFTP reports, and the control side may be busy
/// for a while, with SQLite for example.
#[derive(Debug)]
pub struct Observer {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    /// Opens the packet socket and starts watching the interface with kernel index `interface`.
    ///
    /// # Errors
    /// When the packet socket cannot be opened (needs `CAP_NET_RAW`) or there is no thread to be had.
    pub fn start(interface: u32, mut station: Station) -> io::Result<Self> {
        let tap = DhcpTap::open(interface)?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let thread = std::thread::Builder::new().name("dhcp".to_owned()).stack_size(STACK).spawn({
            let stop = stop.clone();
            move || {
                if let Err(error) = station.watch(&tap, interface, &stop) {
                    log::error!("cannot watch DHCP any more: {error}; trying again");
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Whether it gave up, for example because the interface went away.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // An eventfd that cannot be written was written before.
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the DHCP observer panicked");
        }
    }
}

impl Station {
    fn watch(&mut self, tap: &DhcpTap, interface: u32, stop: &EventFd) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); MAX_PACKET];
        let mut due = None;
        loop {
            let mut ready = [PollFd::new(tap.as_fd(), PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, timeout(due)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if ready[1].any() == Some(true) {
                return Ok(());
            }
            for _ in 0..BATCH {
                match tap.receive(&mut buffer) {
                    Ok(packet) => self.take(interface, packet),
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            due = self.responder.act();
        }
    }

    fn take(&mut self, interface: u32, packet: &[u8]) {
        let now = self.sink.clock().now();
        let Some(payload) = udp_payload(packet) else { return };
        let Some(message) = fingerprint::read(payload).filter(|message| self.interest.concerns_a_pi(message, now))
        else {
            return;
        };
        self.responder.hear(payload, &message);
        if message.kind == DhcpKind::Discover
            && message.netboot
            && let Some((port, up)) = self.links.take_came_up(interface, message.mac, now, LINK_BEFORE_BOOT)
        {
            self.sink.emit(What::Link { mac: message.mac, port, up });
        }
        let of = Of::Mac(message.mac);
        report(message, &self.addresses, &self.sink);
        self.sink.emit_if_calm(|| What::Packet { of, packet: packet.into() });
    }
}

/// Rounded up: just before something is due there is nothing to do.
fn timeout(due: Option<Duration>) -> PollTimeout {
    due.map_or(PollTimeout::NONE, |due| {
        let ms = u32::try_from(due.as_millis().saturating_add(1)).unwrap_or(u32::MAX);
        PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)
    })
}

fn report(message: Dhcp, addresses: &AddressBook, sink: &Sink) {
    // A Pi up to 3+ never sends REQUEST: an OFFER is all there is.
    if matches!(message.kind, DhcpKind::Offer | DhcpKind::Ack)
        && let Some(ip) = message.ip
    {
        addresses.observe(ip.into(), message.mac);
    }
    sink.emit(What::Dhcp(message));
}
