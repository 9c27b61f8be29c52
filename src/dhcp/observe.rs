//! The passive observer: every DHCP message of a Pi on the LAN, whoever answers it.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::fingerprint;
use super::respond::Responder;
use crate::events::{Dhcp, DhcpKind, Sink, What};
use crate::net::AddressBook;
use crate::net::packet::{DhcpTap, MAX_PACKET, udp_payload};
use crate::pi::Mac;

/// Hardware addresses recognised as Pis that are remembered, so that their later DHCP traffic (which carries no mark of a Pi) is theirs.
const MAX_RECOGNISED: usize = 1024;
/// One packet buffer and no recursion.
const STACK: usize = 128 << 10;

/// Decides which DHCP messages are of interest; shared by the sockets of all interfaces.
#[derive(Debug, Clone, Default)]
pub struct Interest(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    enrolled: HashSet<Mac>,
    recognised: VecDeque<Mac>,
}

impl Interest {
    /// Replaces the enrolled hardware addresses.
    pub fn set_enrolled(&self, macs: impl IntoIterator<Item = Mac>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).enrolled = macs.into_iter().collect();
    }

    /// Whether a message concerns a Pi; remembers those that gave themselves away.
    fn concerns_a_pi(&self, message: &Dhcp) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.enrolled.contains(&message.mac) || known.recognised.contains(&message.mac) {
            return true;
        }
        let recognised = message.identity.is_some();
        if recognised {
            if known.recognised.len() == MAX_RECOGNISED {
                known.recognised.pop_front();
            }
            known.recognised.push_back(message.mac);
        }
        recognised
    }
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
    pub fn start(
        interface: u32,
        interest: Interest,
        addresses: AddressBook,
        sink: Sink,
        mut responder: Responder,
    ) -> io::Result<Self> {
        let tap = DhcpTap::open(interface)?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let thread = std::thread::Builder::new().name("dhcp".to_owned()).stack_size(STACK).spawn({
            let stop = stop.clone();
            move || {
                if let Err(error) = watch(&tap, &stop, &interest, &addresses, &sink, &mut responder) {
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

fn watch(
    tap: &DhcpTap,
    stop: &EventFd,
    interest: &Interest,
    addresses: &AddressBook,
    sink: &Sink,
    responder: &mut Responder,
) -> io::Result<()> {
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
        match tap.receive(&mut buffer) {
            Ok(packet) => {
                if let Some(payload) = udp_payload(packet)
                    && let Some(message) = fingerprint::read(payload)
                    && interest.concerns_a_pi(&message)
                {
                    responder.hear(payload, &message);
                    report(message, addresses, sink);
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        due = responder.act();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pi::{Evidence, Identity};

    fn message(last: u16, pi: bool) -> Dhcp {
        let [high, low] = last.to_be_bytes();
        let mac = Mac([0xb8, 0x27, 0xeb, 0, high, low]);
        let identity =
            pi.then_some(Identity { mac, serial: None, revision: None, model: None, evidence: Evidence::Oui });
        Dhcp {
            mac,
            kind: DhcpKind::Request,
            xid: 1,
            ip: None,
            netboot: false,
            identity,
            hostname: None,
            server: None,
            boot_menu: false,
            tftp: None,
        }
    }

    #[test]
    fn what_was_recognised_once_or_enrolled_stays_of_interest() {
        let interest = Interest::default();
        assert!(!interest.concerns_a_pi(&message(1, false)));
        assert!(interest.concerns_a_pi(&message(1, true)));
        assert!(interest.concerns_a_pi(&message(1, false)), "its second DHCP, from the kernel, has no mark of a Pi");
        interest.set_enrolled([message(2, false).mac]);
        assert!(interest.concerns_a_pi(&message(2, false)));
    }

    #[test]
    fn spoofed_addresses_do_not_grow_memory() {
        let interest = Interest::default();
        for n in 0..5000 {
            interest.concerns_a_pi(&message(n, true));
        }
        assert_eq!(interest.0.lock().unwrap().recognised.len(), MAX_RECOGNISED);
    }
}
