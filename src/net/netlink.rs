//! What all uses of rtnetlink share (netlink(7), rtnetlink(7)).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

// linux/netlink.h
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;

/// Length of a message's header.
pub(super) const HEADER: usize = 16;
/// Enough for what the kernel puts into one datagram of a dump.
pub(super) const BUFFER: usize = 32 * 1024;

/// A socket that hears these groups.
pub(super) fn open(groups: u32) -> io::Result<OwnedFd> {
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, Some(SockProtocol::NetlinkRoute))?;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(netlink)
}

/// Asks for `body` on a socket; for all there is (`dump`) or for one thing.
pub(super) fn request(netlink: &OwnedFd, kind: u16, dump: bool, body: &[u8]) -> io::Result<()> {
    let flags = if dump { NLM_F_REQUEST | NLM_F_DUMP } else { NLM_F_REQUEST };
    let length = u32::try_from(HEADER.saturating_add(body.len())).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    send(netlink.as_raw_fd(), &message, MsgFlags::empty())?;
    Ok(())
}

/// Asks on a socket of its own; each message of the answer goes to `take`, until it says that it has enough or the answer
/// ends.
pub(super) fn ask(kind: u16, dump: bool, body: &[u8], mut take: impl FnMut(u16, &[u8]) -> bool) -> io::Result<()> {
    let netlink = open(0)?;
    // A kernel that does not answer must not hang a data-path thread.
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
    request(&netlink, kind, dump, body)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for (kind, message) in messages(&buffer[..length]) {
            if matches!(kind, NLMSG_DONE | NLMSG_ERROR) || take(kind, message) {
                return Ok(());
            }
        }
        if !dump {
            return Ok(());
        }
    }
}

/// Type and body of each whole message of a datagram.
pub(super) fn messages(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(data.get(..4)?.try_into().ok()?)).ok()?;
        let kind = u16::from_ne_bytes(data.get(4..6)?.try_into().ok()?);
        let body = data.get(HEADER..length)?;
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Type and value of each whole attribute (linux/rtnetlink.h, `struct rtattr`).
pub(super) fn attributes(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(data.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(data.get(2..4)?.try_into().ok()?);
        let value = data.get(4..length)?;
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Appends an attribute.
pub(super) fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(u16::try_from(4_usize.saturating_add(value.len())).unwrap_or(u16::MAX).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// A number in the kernel's byte order.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}
