//! Addresses of their own for enrolled Pis up to the 3B+.
//!
//! Their ROM takes an offer without a REQUEST (raspberrypi/firmware issue 1699), so a DHCP server keeps no lease and may
//! offer the address to the next Pi as well: dnsmasq chooses by a hash of the hardware address, and of 48 Pis in a pool of
//! 150 a few share one. Two Pis with one address cannot load. dnsmasq also looks with a ping of three seconds whether an
//! address is free, one client after the other; not for an address that is configured.
//!
//! The address goes into the configuration, as if it had been enrolled with it: it outlives the SSD, and the admin can see
//! and change it.

use std::net::Ipv4Addr;

use super::{Fleet, SeenPi};
use crate::boot::OfferSeen;
use crate::config::{Device, DhcpMode};
use crate::events::{Event, What};
use crate::pi::quirks::Quirk;
use crate::pi::{Mac, Model};

/// The block in which the MAC address of every Pi up to the 3B+ lies.
const EARLY_BLOCK: [u8; 3] = [0xb8, 0x27, 0xeb];

impl Fleet {
    /// Whether a Pi that needs an address of its own has been offered one, and has none yet.
    #[must_use]
    pub fn lacks_address(&self) -> bool {
        self.gives_addresses() && self.config.devices.iter().any(|device| self.offered(device).is_some())
    }

    fn gives_addresses(&self) -> bool {
        let main = &self.config.main;
        matches!(main.dhcp, DhcpMode::Auto | DhcpMode::Dnsmasq) && !main.quirks_off.contains(&Quirk::FixedAddress)
    }

    /// What a device without an address, which needs one, was offered last by this router.
    fn offered(&self, device: &Device) -> Option<(Mac, Ipv4Addr)> {
        let mac = device.mac.filter(|mac| device.ip.is_none() && self.never_requests(*mac))?;
        // By this machine's DHCP server: what others offer is theirs, and a proxy's offer has no address.
        let own = |offer: &&OfferSeen| offer.server.is_some_and(|server| self.own_addresses.contains(&server));
        let boot = self.tracker.boot(mac)?;
        Some((mac, boot.offers.iter().rev().filter(own).find_map(|offer| offer.ip)?))
    }

    fn never_requests(&self, mac: Mac) -> bool {
        let model = self.seen.get(mac).and_then(SeenPi::family);
        model.map_or(mac.0.starts_with(&EARLY_BLOCK), |model| model < Model::Pi4)
    }

    /// Gives every such device the address it was offered, or the nearest free one where another device has that.
    pub(super) fn fix_addresses(&mut self) {
        if !self.gives_addresses() {
            return;
        }
        let mut fixed = Vec::new();
        for n in 0..self.config.devices.len() {
            let Some((mac, offered)) = self.offered(&self.config.devices[n]) else { continue };
            let Some(ip) = nearest(offered, |ip| self.is_free(ip, mac, ip == offered)) else { continue };
            let device = &mut self.config.devices[n];
            device.ip = Some(ip);
            log::info!("{} is a Pi that never confirms its address: it is to have {ip} from now on", device.id);
            let note = format!("is to have the address {ip} from now on").into();
            let what = What::Quirk { mac, quirk: Quirk::FixedAddress.name(), note };
            fixed.push((device.id.clone(), ip));
            self.take_event(&Event { at: self.clock.now(), what });
        }
        if fixed.is_empty() {
            return;
        }
        if let Err(error) = self.note_addresses(&fixed) {
            log::error!("cannot note the addresses of Pis: {error}");
        }
    }

    /// Whether this is a Pi, which may have been offered the same address.
    fn is_known(&self, mac: Mac) -> bool {
        self.seen.get(mac).is_some() || self.config.devices.iter().any(|device| device.mac == Some(mac))
    }

    /// Whether `ip` can be given to `mac`. What it was offered itself is its own even if others were offered the same.
    fn is_free(&self, ip: Ipv4Addr, mac: Mac, was_offered: bool) -> bool {
        let others = || self.tracker.boots().filter(|boot| boot.mac != mac);
        self.server != Some(ip)
            && self.config.devices.iter().all(|device| device.ip != Some(ip))
            && (was_offered || others().all(|boot| boot.ip != Some(ip.into())))
            && self
                .addresses
                .mac_of(ip.into())
                .is_none_or(|holder| holder == mac || was_offered && self.is_known(holder))
    }
}

/// The free address that is nearest to `wanted` among its 254 neighbours.
fn nearest(wanted: Ipv4Addr, is_free: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    let [a, b, c, last] = wanted.octets();
    let steps = (0..=u8::MAX).flat_map(|step| [last.checked_add(step), last.checked_sub(step)]);
    let hosts = steps.flatten().filter(|last| (1..=254).contains(last));
    hosts.map(|last| Ipv4Addr::new(a, b, c, last)).find(|ip| is_free(*ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offered_address_else_the_nearest_that_nobody_has() {
        let ip = |last| Ipv4Addr::new(192, 168, 1, last);
        assert_eq!(nearest(ip(77), |_| true), Some(ip(77)));
        assert_eq!(nearest(ip(77), |ip| ip.octets()[3] > 78), Some(ip(79)));
        assert_eq!(nearest(ip(254), |ip| ip.octets()[3] != 254), Some(ip(253)), "no broadcast address");
        assert_eq!(nearest(ip(9), |ip| ip.octets()[3] == 254), Some(ip(254)), "the far end");
        assert_eq!(nearest(ip(1), |_| false), None);
    }
}
