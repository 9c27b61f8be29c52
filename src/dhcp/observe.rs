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
use crate::clock::Moment;
use crate::events::{Dhcp, DhcpKind, Sink, What};
use crate::net::AddressBook;
use crate::net::packet::{DhcpTap, MAX_PACKET, udp_payload};
use crate::pi::Mac;

/// Hardware addresses recognised as Pis that are remembered, so that their later DHCP traffic (which carries no mark of a Pi) is theirs.
const MAX_RECOGNISED: usize = 1024;
/// Messages of Pis that nobody enrolled that are looked at: so many a second, and so many at once. Anybody can make them
/// up, and each costs the control side some 300 µs. DISCOVERs and OFFERs of a room of 250 new Pis fit.
const STRANGERS_PER_SECOND: f64 = 32.0;
const STRANGERS_AT_ONCE: f64 = 512.0;
/// A flood is logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Packets taken in before looking whether to stop.
const BATCH: usize = 64;
/// One packet buffer and no recursion.
const STACK: usize = 128 << 10;

/// Decides which DHCP messages are of interest; shared by the sockets of all interfaces.
#[derive(Debug, Clone, Default)]
pub struct Interest(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    enrolled: HashSet<Mac>,
    recognised: VecDeque<Mac>,
    budget: Option<Budget>,
}

impl Known {
    fn budget(&mut self, now: Moment) -> &mut Budget {
        self.budget.get_or_insert_with(|| Budget::new(now))
    }
}

/// A token bucket.
#[derive(Debug)]
struct Budget {
    tokens: f64,
    at: Moment,
    logged: Option<Moment>,
}

impl Budget {
    fn new(now: Moment) -> Self {
        Self { tokens: STRANGERS_AT_ONCE, at: now, logged: None }
    }

    fn take(&mut self, now: Moment) {
        if self.is_left(now) {
            self.tokens -= 1.0;
        }
    }

    fn is_left(&mut self, now: Moment) -> bool {
        self.tokens = (self.tokens + now.since(self.at).as_secs_f64() * STRANGERS_PER_SECOND).min(STRANGERS_AT_ONCE);
        self.at = now;
        if self.tokens >= 1.0 {
            return true;
        }
        if self.logged.is_none_or(|logged| now.since(logged) >= LOG_INTERVAL) {
            self.logged = Some(now);
            log::warn!(
                "more than {STRANGERS_PER_SECOND} DHCP messages a second of Pis that nobody enrolled: some are left out, and a new Pi may show up late"
            );
        }
        false
    }
}

impl Interest {
    /// Replaces the enrolled hardware addresses.
    pub fn set_enrolled(&self, macs: impl IntoIterator<Item = Mac>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).enrolled = macs.into_iter().collect();
    }

    /// Whether a message is to be read at all: reading takes longer than looking for whom it is (`chaddr`, RFC 2131 §2).
    fn is_worth_reading(&self, payload: &[u8], now: Moment) -> bool {
        let chaddr = payload.get(28..).and_then(|rest| rest.first_chunk()).copied().map(Mac);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chaddr.is_some_and(|mac| known.enrolled.contains(&mac)) || known.budget(now).is_left(now)
    }

    /// Whether a message concerns a Pi; remembers those that gave themselves away.
    fn concerns_a_pi(&self, message: &Dhcp, now: Moment) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.enrolled.contains(&message.mac) {
            return true;
        }
        let is_known = known.recognised.contains(&message.mac);
        let concerns = is_known || message.identity.is_some();
        if concerns {
            known.budget(now).take(now);
        }
        if concerns && !is_known {
            if known.recognised.len() == MAX_RECOGNISED {
                known.recognised.pop_front();
            }
            known.recognised.push_back(message.mac);
        }
        concerns
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
    pub fn start(interface: u32, interest: Interest, addresses: AddressBook, sink: Sink) -> io::Result<Self> {
        let tap = DhcpTap::open(interface)?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let thread = std::thread::Builder::new().name("dhcp".to_owned()).stack_size(STACK).spawn({
            let stop = stop.clone();
            move || {
                if let Err(error) = watch(&tap, &stop, &interest, &addresses, &sink) {
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

fn watch(tap: &DhcpTap, stop: &EventFd, interest: &Interest, addresses: &AddressBook, sink: &Sink) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); MAX_PACKET];
    loop {
        let mut ready = [PollFd::new(tap.as_fd(), PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if ready[1].any() == Some(true) {
            return Ok(());
        }
        for _ in 0..BATCH {
            match tap.receive(&mut buffer) {
                Ok(packet) => {
                    let now = sink.clock().now();
                    if let Some(payload) = udp_payload(packet)
                        && interest.is_worth_reading(payload, now)
                        && let Some(message) = fingerprint::read(payload)
                        && interest.concerns_a_pi(&message, now)
                    {
                        report(message, addresses, sink);
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => break,
                Err(error) => return Err(error),
            }
        }
    }
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
    use crate::clock::Clock;
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
        let (interest, now) = (Interest::default(), Moment::default());
        assert!(!interest.concerns_a_pi(&message(1, false), now));
        assert!(interest.concerns_a_pi(&message(1, true), now));
        assert!(
            interest.concerns_a_pi(&message(1, false), now),
            "its second DHCP, from the kernel, has no mark of a Pi"
        );
        interest.set_enrolled([message(2, false).mac]);
        assert!(interest.concerns_a_pi(&message(2, false), now));
    }

    #[test]
    fn spoofed_addresses_do_not_grow_memory() {
        let (interest, clock) = (Interest::default(), Clock::manual(0));
        for n in 0..5000 {
            clock.advance(Duration::from_millis(10));
            interest.concerns_a_pi(&message(n, true), clock.now());
        }
        assert_eq!(interest.0.lock().unwrap().recognised.len(), MAX_RECOGNISED);
    }

    #[test]
    fn a_flood_of_strangers_is_cut_short_and_enrolled_pis_are_heard_in_it() {
        let (interest, clock) = (Interest::default(), Clock::manual(0));
        interest.set_enrolled([message(60_000, false).mac]);
        let is_taken = |n: u16, pi: bool| {
            let (now, message) = (clock.now(), message(n, pi));
            let payload = [&[0; 28][..], &message.mac.0, &[0; 202]].concat();
            interest.is_worth_reading(&payload, now) && interest.concerns_a_pi(&message, now)
        };
        let taken = |range: std::ops::Range<u16>| range.filter(|n| is_taken(*n, true)).count();
        assert_eq!(taken(0..10_000), 512, "a room full of new Pis, and no more");
        assert!(is_taken(60_000, false));
        assert!(!is_taken(0, true), "nor one of them over and over");
        clock.advance(Duration::from_secs(1));
        assert_eq!(taken(10_000..20_000), 32);
    }
}
