//! Any packet of a LAN: reading it must not panic, and what it says must hold.

#![no_main]

use libfuzzer_sys::fuzz_target;
use piboot::dhcp::fingerprint;
use piboot::net::packet::udp_payload;

fuzz_target!(|packet: &[u8]| {
    if let Some(payload) = udp_payload(packet) {
        assert!(payload.len() < packet.len());
    }
    let Some(seen) = fingerprint::read(packet) else { return };
    assert!(seen.mac.is_device());
    if let Some(identity) = seen.identity {
        assert_eq!(identity.mac, seen.mac);
    }
    assert!(seen.hostname.is_none_or(|name| name.len() <= 255));
});
