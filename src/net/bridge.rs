//! What a bridge knows of its ports: who is behind which, and whether the spanning tree protocol holds them back.

use std::fs;
use std::path::Path;

use super::netlink::{self, attribute, attributes, number};
use crate::pi::Mac;

// linux/rtnetlink.h, linux/neighbour.h
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const NDA_LLADDR: u16 = 2;
const NDA_MASTER: u16 = 9;
const AF_BRIDGE: u8 = 7;
/// `struct ndmsg`
const NDMSG: usize = 12;
/// `BR_STATE_BLOCKING` (linux/if_bridge.h)
const BLOCKING: &str = "4";

/// The port of `bridge` behind which `mac` was seen last.
#[must_use]
pub fn port_of(bridge: u32, mac: Mac) -> Option<u32> {
    let mut body = vec![0; NDMSG];
    body[0] = AF_BRIDGE;
    let dump = body.clone();
    attribute(&mut body, NDA_LLADDR, &mac.0);
    attribute(&mut body, NDA_MASTER, &bridge.to_ne_bytes());
    let look = |dump: bool, body: &[u8]| {
        let mut port = None;
        netlink::ask(RTM_GETNEIGH, dump, body, |kind, message| {
            let found = entry(message).filter(|found| kind == RTM_NEWNEIGH && found.is(bridge, mac));
            port = found.map(|found| found.port);
            port.is_some()
        })
        .map(|()| port)
    };
    // Linux 5.0 knows how to look for one; where the bridge knows VLANs it has to be told which.
    match look(false, &body) {
        Ok(Some(port)) => Some(port),
        _ => look(true, &dump).unwrap_or_else(|error| {
            log::debug!("cannot ask the bridge for {mac}: {error}");
            None
        }),
    }
}

struct Entry {
    port: u32,
    mac: Mac,
    bridge: Option<u32>,
}

impl Entry {
    fn is(&self, bridge: u32, mac: Mac) -> bool {
        (self.bridge, self.mac) == (Some(bridge), mac)
    }
}

/// Reads a `struct ndmsg` of the forwarding database with its attributes.
fn entry(message: &[u8]) -> Option<Entry> {
    let port = number(message.get(4..8)?)?;
    let (mut mac, mut bridge) = (None, None);
    for (kind, value) in attributes(message.get(NDMSG..)?) {
        match kind {
            NDA_LLADDR => mac = value.try_into().ok().map(Mac),
            NDA_MASTER => bridge = number(value),
            _ => {}
        }
    }
    Some(Entry { port, mac: mac?, bridge })
}

/// The spanning tree protocol on a bridge where it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stp {
    /// For how many seconds a port passes nothing after it got link.
    pub delay_s: u32,
    /// Ports that it has blocked.
    pub blocked: Vec<String>,
}

/// The spanning tree protocol on the bridge `name`; `None` if it is off, or this is no bridge.
#[must_use]
pub fn stp(name: &str) -> Option<Stp> {
    let directory = Path::new("/sys/class/net").join(name);
    let read = |path: &str| fs::read_to_string(directory.join(path)).map(|text| text.trim().to_owned()).ok();
    if read("bridge/stp_state")? == "0" {
        return None;
    }
    // Hundredths of a second, once for listening and once for learning.
    let delay: u32 = read("bridge/forward_delay")?.parse().ok()?;
    let ports = fs::read_dir(directory.join("brif")).ok()?.flatten();
    let mut blocked: Vec<String> = ports
        .filter_map(|port| port.file_name().into_string().ok())
        .filter(|port| read(&format!("brif/{port}/state")).as_deref() == Some(BLOCKING))
        .collect();
    blocked.sort();
    Some(Stp { delay_s: delay.saturating_mul(2) / 100, blocked })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_and_a_cut_one_is_not() {
        let mut body = vec![0; NDMSG];
        body[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        attribute(&mut body, NDA_LLADDR, &[1, 2, 3, 4, 5, 6]);
        attribute(&mut body, NDA_MASTER, &3_u32.to_ne_bytes());
        let found = entry(&body).unwrap();
        assert_eq!((found.port, found.mac, found.bridge), (7, Mac([1, 2, 3, 4, 5, 6]), Some(3)));
        for end in 0..NDMSG + 10 {
            assert!(entry(&body[..end]).is_none());
        }
    }

    #[test]
    fn what_is_no_bridge_has_no_spanning_tree_and_no_ports() {
        assert_eq!(stp("lo"), None);
        assert_eq!(stp("nosuchif"), None);
        assert_eq!(port_of(1, Mac([2; 6])), None);
    }
}
