//! What has to hold of the built-in proxy, whatever packet it gets: the body of the fuzz target, and of
//! tests/proxy_dhcp.rs for the stored inputs.

use std::net::Ipv4Addr;

use piboot::dhcp::{fingerprint, proxy};
use piboot::events::DhcpKind;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
/// What every client takes (RFC 2131 §2).
const MAX_REPLY: usize = 576 - 28;

/// The reply, if there is one, is for the one who asked, and about booting alone; whether there is one.
pub(crate) fn offer(packet: &[u8]) -> bool {
    let Some(reply) = proxy::offer(packet, SERVER, true) else { return false };
    let asked = fingerprint::read(packet).expect("what is answered was understood");
    assert!(asked.kind == DhcpKind::Discover && asked.netboot && asked.identity.is_some());
    let offered = fingerprint::read(&reply).expect("a reply can be read");
    assert_eq!((offered.kind, offered.mac, offered.xid), (DhcpKind::Offer, asked.mac, asked.xid));
    assert_eq!((offered.server, offered.tftp, offered.ip), (Some(SERVER), Some(SERVER), None));
    assert!(offered.boot_menu && offered.netboot && offered.identity.is_none());
    assert!((300..=MAX_REPLY).contains(&reply.len()), "{} bytes", reply.len());
    assert_eq!(proxy::offer(&reply, SERVER, true), None, "nobody answers an answer");
    // Without the spaces it is the same but for them and the lengths of what holds them.
    let without = proxy::offer(packet, SERVER, false).expect("as above");
    assert_eq!(without.len() + 3, reply.len());
    true
}
