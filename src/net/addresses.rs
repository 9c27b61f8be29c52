//! Which hardware address holds which IP address now: what decides who may read a device's files.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::neighbour::{self, Neighbour};
use crate::clock::{Clock, Moment};
use crate::pi::Mac;

/// Addresses remembered from DHCP at most; a /16 full of clients would be a mistake, not a LAN.
const MAX_OBSERVED: usize = 4096;

/// The kernel's answers kept at most.
const MAX_CACHED: usize = 1024;
/// How long the kernel's answer is believed when it names a neighbour; changes that it announces come through at once.
const KNOWN_FOR: Duration = Duration::from_secs(2);
/// How long "unknown" is believed: a Pi that was just resolved must not wait.
const UNKNOWN_FOR: Duration = Duration::from_millis(50);

/// IP address → hardware address, from the kernel's neighbour table first and DHCP observation second.
/// Shared by the data-path threads; a lookup is a hash probe, and a netlink round trip every two seconds.
#[derive(Debug, Clone)]
pub struct AddressBook(Arc<Inner>);

/// What the kernel says of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// This device holds it on an interface of ours.
    Holder(Mac),
    /// Somebody holds it on an interface where Pis are not served: a hardware address seen there proves nothing.
    Elsewhere,
    Unknown,
}

impl Answer {
    /// From the kernel's entries for one address and the indexes of our interfaces (none: all are).
    fn new(entries: &[Neighbour], interfaces: &[u32]) -> Self {
        let is_ours = |entry: &&Neighbour| interfaces.is_empty() || interfaces.contains(&entry.interface);
        match entries.iter().find(is_ours) {
            Some(entry) => Self::Holder(entry.mac),
            None if entries.is_empty() => Self::Unknown,
            None => Self::Elsewhere,
        }
    }
}

/// What the kernel said of an address, and when.
type Answers = RwLock<HashMap<IpAddr, (Answer, Moment)>>;

#[derive(Debug)]
struct Inner {
    clock: Clock,
    observed: RwLock<HashMap<IpAddr, Mac>>,
    generation: AtomicU32,
    /// Indexes of the interfaces whose neighbours count; empty: all.
    interfaces: RwLock<Vec<u32>>,
    /// Answers of the kernel's neighbour table; `None` where it is not asked, as in tests of protocol parts.
    kernel: Option<Answers>,
}

impl Default for AddressBook {
    fn default() -> Self {
        Self::new()
    }
}

impl AddressBook {
    /// A book that asks the kernel's neighbour table.
    #[must_use]
    pub fn new() -> Self {
        Self::with_kernel_answers(Some(RwLock::default()))
    }

    /// A book that knows only what [`AddressBook::observe`] tells it.
    #[must_use]
    pub fn observed_only() -> Self {
        Self::with_kernel_answers(None)
    }

    fn with_kernel_answers(kernel: Option<Answers>) -> Self {
        let (clock, observed, generation) = (Clock::system(), RwLock::default(), AtomicU32::new(0));
        Self(Arc::new(Inner { clock, observed, generation, interfaces: RwLock::default(), kernel }))
    }

    /// Only neighbours on the interfaces with these kernel indexes count from now on; an empty list: those on all. Must be
    /// called again when an interface is made anew, because its index changes.
    pub fn set_interfaces(&self, interfaces: Vec<u32>) {
        let mut current = self.0.interfaces.write().unwrap_or_else(PoisonError::into_inner);
        if *current == interfaces {
            return;
        }
        *current = interfaces;
        drop(current);
        self.changed();
    }

    /// DHCP gave `ip` to `mac`.
    pub fn observe(&self, ip: IpAddr, mac: Mac) {
        let mut observed = self.0.observed.write().unwrap_or_else(PoisonError::into_inner);
        if observed.get(&ip) == Some(&mac) || (observed.len() >= MAX_OBSERVED && !observed.contains_key(&ip)) {
            return;
        }
        observed.retain(|_, holder| *holder != mac);
        observed.insert(ip, mac);
        drop(observed);
        self.changed();
    }

    /// Says that the kernel's neighbour table changed: cached answers are void.
    pub fn changed(&self) {
        if let Some(cache) = &self.0.kernel {
            cache.write().unwrap_or_else(PoisonError::into_inner).clear();
        }
        self.0.generation.fetch_add(1, Ordering::Release);
    }

    /// Grows with every change; an answer got under one generation holds until the next.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Who holds `ip` now. The kernel's word wins over DHCP: it is where our answer would go.
    #[must_use]
    pub fn mac_of(&self, ip: IpAddr) -> Option<Mac> {
        let ip = ip.to_canonical();
        match self.ask_kernel(ip) {
            Answer::Holder(mac) => Some(mac),
            Answer::Elsewhere => None,
            Answer::Unknown => self.0.observed.read().unwrap_or_else(PoisonError::into_inner).get(&ip).copied(),
        }
    }

    fn ask_kernel(&self, ip: IpAddr) -> Answer {
        let Some(cache) = &self.0.kernel else { return Answer::Unknown };
        let now = self.0.clock.now();
        if let Some((answer, asked)) = cache.read().unwrap_or_else(PoisonError::into_inner).get(&ip)
            && now.since(*asked) < if *answer == Answer::Unknown { UNKNOWN_FOR } else { KNOWN_FOR }
        {
            return *answer;
        }
        let generation = self.generation();
        let interfaces = self.0.interfaces.read().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = Answer::new(&neighbour::lookup(ip, &interfaces), &interfaces);
        let mut cache = cache.write().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
        // An answer from before a change is good for this call only.
        if generation == self.generation() {
            cache.insert(ip, (answer, now));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_on_another_interface_is_nobody() {
        let (pi, other) = (Mac([0xb8, 0x27, 0xeb, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 9]));
        let entry = |mac, interface| Neighbour { ip: [192, 0, 2, 1].into(), mac, interface };
        let both = [entry(pi, 3), entry(other, 7)];
        assert_eq!(Answer::new(&both, &[7, 8]), Answer::Holder(other));
        assert_eq!(Answer::new(&both, &[]), Answer::Holder(pi));
        assert_eq!(Answer::new(&both, &[8]), Answer::Elsewhere);
        assert_eq!(Answer::new(&[], &[8]), Answer::Unknown);
        let book = AddressBook::observed_only();
        let generation = book.generation();
        book.set_interfaces(vec![7]);
        assert_ne!(book.generation(), generation, "answers from before are void");
        book.set_interfaces(vec![7]);
        assert_eq!(book.generation(), generation + 1);
    }

    #[test]
    fn a_mac_holds_one_observed_address_and_changes_are_counted() {
        let book = AddressBook::observed_only();
        let mac = Mac([0xb8, 0x27, 0xeb, 0, 0, 1]);
        let (old, new) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        book.observe(old, mac);
        let generation = book.generation();
        book.observe(old, mac);
        assert_eq!(book.generation(), generation, "nothing new, nothing void");
        book.observe(new, mac);
        assert_ne!(book.generation(), generation);
        assert_eq!((book.mac_of(old), book.mac_of(new)), (None, Some(mac)));
        assert_eq!(
            book.mac_of("::ffff:192.0.2.2".parse().unwrap()),
            Some(mac),
            "IPv4 seen through a dual-stack socket"
        );
    }
}
