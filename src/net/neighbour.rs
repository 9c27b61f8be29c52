//! The kernel's neighbour table (ARP and ND), asked and watched through rtnetlink (rtnetlink(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::unix::AsyncFd;

use super::netlink::{self, attribute, attributes, number};
use crate::pi::Mac;

// linux/rtnetlink.h, linux/neighbour.h
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const RTMGRP_NEIGH: u32 = 4;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// States in which the hardware address is not, or not yet, known to be true.
const NUD_UNUSABLE: u16 = 0x01 | 0x20 | 0x40; // INCOMPLETE, FAILED, NOARP

const NDMSG: usize = 12;

/// An entry of the neighbour table whose hardware address is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The IP address.
    pub ip: IpAddr,
    /// Who holds it.
    pub mac: Mac,
    /// Index of the interface it was seen on.
    pub interface: u32,
}

/// Who the kernel knows to hold `ip`: on the first of `interfaces` where somebody does, else on each that there is.
#[must_use]
pub fn lookup(ip: IpAddr, interfaces: &[u32]) -> Vec<Neighbour> {
    // The whole table is long while a room of Pis boots, and changes all the time. Kernels before 5.0 have only that.
    let mut found = interfaces.iter().filter_map(|interface| get(ip, *interface).ok().flatten());
    if let Some(entry) = found.next() {
        return vec![entry];
    }
    match dump(ip.is_ipv6()) {
        Ok(mut table) => {
            table.retain(|entry| entry.ip == ip);
            table
        }
        Err(error) => {
            log::warn!("cannot read the neighbour table: {error}");
            Vec::new()
        }
    }
}

/// All known neighbours of one address family.
///
/// # Errors
/// When netlink does not answer.
pub fn dump(ipv6: bool) -> io::Result<Vec<Neighbour>> {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    let mut body = [0_u8; NDMSG];
    body[0] = u8::try_from(family).unwrap_or(0);
    let mut table = Vec::new();
    netlink::ask(RTM_GETNEIGH, true, &body, |kind, message| {
        table.extend((kind == RTM_NEWNEIGH).then(|| neighbour(message)).flatten());
        false
    })?;
    Ok(table)
}

/// The known holder of one address on one interface.
fn get(ip: IpAddr, interface: u32) -> io::Result<Option<Neighbour>> {
    let family = if ip.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let mut body = vec![0_u8; NDMSG];
    body[0] = u8::try_from(family).unwrap_or(0);
    body[4..8].copy_from_slice(&interface.to_ne_bytes());
    match ip {
        IpAddr::V4(ip) => attribute(&mut body, NDA_DST, &ip.octets()),
        IpAddr::V6(ip) => attribute(&mut body, NDA_DST, &ip.octets()),
    }
    let mut found = None;
    netlink::ask(RTM_GETNEIGH, false, &body, |kind, message| {
        found = (kind == RTM_NEWNEIGH).then(|| neighbour(message)).flatten();
        true
    })?;
    Ok(found.filter(|entry| entry.ip == ip && entry.interface == interface))
}

/// Tells when the neighbour table changes; belongs to the tokio runtime of the thread that opened it.
#[derive(Debug)]
pub struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// Starts watching.
    ///
    /// # Errors
    /// When netlink is not to be had.
    pub fn open() -> io::Result<Self> {
        let netlink = netlink::open(RTMGRP_NEIGH)?;
        rustix::io::ioctl_fionbio(&netlink, true)?;
        // SAFETY: an `OwnedFd` names one descriptor from here to its drop.
        unsafe { AsyncFd::register(netlink) }.map(Self).map_err(Into::into)
    }

    /// Waits for the next change. Several at once count as one; a full socket buffer counts as a change too.
    ///
    /// # Errors
    /// When epoll fails.
    pub async fn changed(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut buffer = [0; 4096];
        while recv(self.0.get_ref().as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
        ready.clear_ready();
        Ok(())
    }
}

/// Reads a `struct ndmsg` and its attributes.
fn neighbour(message: &[u8]) -> Option<Neighbour> {
    let interface = number(message.get(4..8)?)?;
    let state = u16::from_ne_bytes(message.get(8..10)?.try_into().ok()?);
    if state & NUD_UNUSABLE != 0 {
        return None;
    }
    let (mut ip, mut mac) = (None, None);
    for (kind, value) in attributes(message.get(NDMSG..)?) {
        match kind {
            NDA_DST => {
                ip = match value.len() {
                    4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))),
                    16 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?))),
                    _ => None,
                }
            }
            NDA_LLADDR => mac = <[u8; 6]>::try_from(value).ok().map(Mac),
            _ => {}
        }
    }
    Some(Neighbour { ip: ip?, mac: mac?, interface })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(state: u16) -> Vec<u8> {
        let mut m = vec![0; NDMSG];
        m[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        m[8..10].copy_from_slice(&state.to_ne_bytes());
        netlink::attribute(&mut m, NDA_DST, &[192, 0, 2, 9]);
        netlink::attribute(&mut m, NDA_LLADDR, &[0xb8, 0x27, 0xeb, 1, 2, 3]);
        m
    }

    #[test]
    fn a_usable_entry_is_read_and_an_unresolved_one_is_not() {
        let expected = Neighbour { ip: [192, 0, 2, 9].into(), mac: Mac([0xb8, 0x27, 0xeb, 1, 2, 3]), interface: 7 };
        assert_eq!((neighbour(&message(0x04)), neighbour(&message(0x20))), (Some(expected), None));
    }

    #[test]
    fn cut_messages_are_no_neighbours() {
        let whole = message(0x02);
        for end in 0..whole.len() - 2 {
            assert_eq!(neighbour(&whole[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn the_kernel_answers() {
        for entry in [dump(false).unwrap(), dump(true).unwrap()].concat() {
            assert_eq!(get(entry.ip, entry.interface).unwrap(), Some(entry));
            assert_eq!(get(entry.ip, entry.interface + 1000).unwrap(), None);
            assert_eq!(lookup(entry.ip, &[entry.interface + 1000, entry.interface]), [entry]);
        }
    }
}
