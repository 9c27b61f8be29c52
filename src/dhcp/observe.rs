//! The passive observer: every DHCP message of a Pi on the LAN, whoever answers it.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};

use super::fingerprint;
use crate::events::{Dhcp, DhcpKind, Sink, What};
use crate::net::AddressBook;
use crate::net::packet::{DhcpTap, MAX_PACKET, udp_payload};
use crate::pi::Mac;

/// Hardware addresses recognised as Pis that are remembered, so that their later DHCP traffic (which carries no mark of a Pi) is theirs.
const MAX_RECOGNISED: usize = 1024;

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

/// Watches one interface until the task is dropped.
///
/// # Errors
/// When the packet socket cannot be opened (needs `CAP_NET_RAW`) or fails, for example because the interface went away.
pub async fn run(interface: u32, interest: Interest, addresses: AddressBook, sink: Sink) -> io::Result<()> {
    let tap = DhcpTap::open(interface)?.into_async()?;
    let mut buffer = [MaybeUninit::uninit(); MAX_PACKET];
    loop {
        let mut ready = tap.readable().await?;
        match ready.try_io(|tap| {
            let message = tap.get_ref().receive(&mut buffer)?;
            Ok(udp_payload(message).and_then(fingerprint::read))
        }) {
            Ok(Ok(Some(message))) if interest.concerns_a_pi(&message) => report(message, &addresses, &sink),
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
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
