//! Which hardware address holds which IP address now: what decides who may read a device's files.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::neighbour;
use crate::pi::Mac;

/// Addresses remembered from DHCP at most; a /16 full of clients would be a mistake, not a LAN.
const MAX_OBSERVED: usize = 4096;

/// IP address → hardware address, from the kernel's neighbour table first and DHCP observation second.
/// Shared by the data-path threads; a lookup costs a netlink round trip of some microseconds, so callers keep the
/// answer until [`AddressBook::generation`] changes or a few seconds have passed.
#[derive(Debug, Clone, Default)]
pub struct AddressBook(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    observed: RwLock<HashMap<IpAddr, Mac>>,
    generation: AtomicU32,
    kernel: KernelTable,
}

/// Whether the kernel's neighbour table is asked; tests of protocol parts run without one.
#[derive(Debug, Default, PartialEq, Eq)]
enum KernelTable {
    #[default]
    Asked,
    Ignored,
}

impl AddressBook {
    /// A book that asks the kernel's neighbour table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A book that knows only what [`AddressBook::observe`] tells it.
    #[must_use]
    pub fn observed_only() -> Self {
        Self(Arc::new(Inner { kernel: KernelTable::Ignored, ..Inner::default() }))
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
        if self.0.kernel == KernelTable::Asked
            && let Some(mac) = neighbour::lookup(ip)
        {
            return Some(mac);
        }
        self.0.observed.read().unwrap_or_else(PoisonError::into_inner).get(&ip).copied()
    }

    /// The address that DHCP last gave to `mac`.
    #[must_use]
    pub fn ip_of(&self, mac: Mac) -> Option<IpAddr> {
        let observed = self.0.observed.read().unwrap_or_else(PoisonError::into_inner);
        observed.iter().find(|(_, holder)| **holder == mac).map(|(ip, _)| *ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
