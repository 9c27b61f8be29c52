//! The kernel's neighbour table (ARP and ND), asked and watched through rtnetlink (rtnetlink(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use tokio::io::unix::AsyncFd;

use crate::pi::Mac;

// linux/netlink.h, linux/rtnetlink.h, linux/neighbour.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const RTMGRP_NEIGH: u32 = 4;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// States in which the hardware address is not, or not yet, known to be true.
const NUD_UNUSABLE: u16 = 0x01 | 0x20 | 0x40; // INCOMPLETE, FAILED, NOARP

const NLMSG_HEADER: usize = 16;
const NDMSG: usize = 12;
const RECEIVE_BUFFER: usize = 32 * 1024;

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
    let netlink = ask(NLM_F_REQUEST | NLM_F_DUMP, ipv6, 0, &[])?;
    let mut table = Vec::new();
    let mut buffer = vec![0; RECEIVE_BUFFER];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if parse(&buffer[..length], &mut table) {
            return Ok(table);
        }
    }
}

/// The known holder of one address on one interface.
fn get(ip: IpAddr, interface: u32) -> io::Result<Option<Neighbour>> {
    let netlink = match ip {
        IpAddr::V4(ip) => ask(NLM_F_REQUEST, false, interface, &ip.octets())?,
        IpAddr::V6(ip) => ask(NLM_F_REQUEST, true, interface, &ip.octets())?,
    };
    // One entry, or an error where there is none.
    let mut buffer = [0; 1024];
    let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let mut table = Vec::new();
    parse(&buffer[..length], &mut table);
    Ok(table.into_iter().find(|entry| entry.ip == ip && entry.interface == interface))
}

/// Sends RTM_GETNEIGH (struct ndmsg, and the address if one is asked for); the answer is on the socket.
fn ask(flags: u16, ipv6: bool, interface: u32, address: &[u8]) -> io::Result<OwnedFd> {
    let netlink = open(0)?;
    // A kernel that does not answer must not hang a data-path thread.
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    let mut request = vec![0_u8; NLMSG_HEADER + NDMSG];
    request[4..6].copy_from_slice(&RTM_GETNEIGH.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request[NLMSG_HEADER] = u8::try_from(family).unwrap_or(0);
    request[NLMSG_HEADER + 4..NLMSG_HEADER + 8].copy_from_slice(&interface.to_ne_bytes());
    if !address.is_empty() {
        request.extend(u16::try_from(4 + address.len()).unwrap_or(0).to_ne_bytes());
        request.extend(NDA_DST.to_ne_bytes());
        request.extend(address);
    }
    let length = u32::try_from(request.len()).unwrap_or(0);
    request[..4].copy_from_slice(&length.to_ne_bytes());
    send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
    Ok(netlink)
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
        let netlink = open(RTMGRP_NEIGH)?;
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

fn open(groups: u32) -> io::Result<OwnedFd> {
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, Some(SockProtocol::NetlinkRoute))?;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(netlink)
}

/// Takes the neighbours of one netlink datagram into `table`; true at the end of the dump.
fn parse(mut data: &[u8], table: &mut Vec<Neighbour>) -> bool {
    while let Some((length, kind)) = header(data) {
        match kind {
            NLMSG_DONE | NLMSG_ERROR => return true,
            RTM_NEWNEIGH => table.extend(neighbour(&data[NLMSG_HEADER..length])),
            _ => {}
        }
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// Length and type of the message at the start of `data`, if it is whole.
fn header(data: &[u8]) -> Option<(usize, u16)> {
    let length = usize::try_from(u32::from_ne_bytes(data.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(data.get(4..6)?.try_into().ok()?);
    (NLMSG_HEADER..=data.len()).contains(&length).then_some((length, kind))
}

/// Reads a `struct ndmsg` and its attributes.
fn neighbour(message: &[u8]) -> Option<Neighbour> {
    let interface = u32::from_ne_bytes(message.get(4..8)?.try_into().ok()?);
    let state = u16::from_ne_bytes(message.get(8..10)?.try_into().ok()?);
    if state & NUD_UNUSABLE != 0 {
        return None;
    }
    let (mut ip, mut mac) = (None, None);
    let mut attributes = message.get(NDMSG..)?;
    while let Some(length) = attributes.get(..2) {
        let length = usize::from(u16::from_ne_bytes(length.try_into().ok()?));
        let value = attributes.get(4..length)?;
        match u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?) {
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
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Neighbour { ip: ip?, mac: mac?, interface })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(state: u16) -> Vec<u8> {
        let mut m = vec![0; NLMSG_HEADER + NDMSG];
        m[4..6].copy_from_slice(&RTM_NEWNEIGH.to_ne_bytes());
        m[NLMSG_HEADER + 4..NLMSG_HEADER + 8].copy_from_slice(&7_u32.to_ne_bytes());
        m[NLMSG_HEADER + 8..NLMSG_HEADER + 10].copy_from_slice(&state.to_ne_bytes());
        for (kind, value) in [(NDA_DST, &[192, 0, 2, 9][..]), (NDA_LLADDR, &[0xb8, 0x27, 0xeb, 1, 2, 3])] {
            m.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
            m.extend(kind.to_ne_bytes());
            m.extend(value);
            m.resize(m.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(m.len()).unwrap();
        m[..4].copy_from_slice(&length.to_ne_bytes());
        m
    }

    #[test]
    fn a_usable_entry_is_read_and_an_unresolved_one_is_not() {
        let mut table = Vec::new();
        let both = [message(0x04), message(0x20)].concat();
        assert!(!parse(&both, &mut table));
        let expected = Neighbour { ip: [192, 0, 2, 9].into(), mac: Mac([0xb8, 0x27, 0xeb, 1, 2, 3]), interface: 7 };
        assert_eq!(table, [expected]);
    }

    #[test]
    fn cut_messages_are_no_neighbours() {
        let whole = message(0x02);
        for end in 0..whole.len() {
            let mut table = Vec::new();
            parse(&whole[..end], &mut table);
            assert!(table.is_empty(), "cut at {end}");
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
