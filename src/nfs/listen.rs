//! Sockets that clients come to: TCP listeners, and UDP for the portmapper.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted: the Pis of a classroom switched on at once.
const BACKLOG: i32 = 128;
/// Longest portmapper call over UDP that is read: a GETPORT with the largest credential is 480 bytes.
const MAX_DATAGRAM: usize = 1024;

/// Index of the loopback interface, in every network namespace (linux/net.h).
const LOOPBACK: u32 = 1;

/// Whether the kernel has IPv6 at all: OpenWrt can be built without.
pub(super) fn has_ipv6() -> bool {
    !Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))
        .is_err_and(|error| error.raw_os_error() == Some(libc::EAFNOSUPPORT))
}

/// The addresses to listen at: without IPv6, "all of IPv6", which includes IPv4 elsewhere, means all of IPv4.
pub(super) fn usable(addresses: &[SocketAddr], has_ipv6: bool) -> Vec<SocketAddr> {
    let mut usable = Vec::with_capacity(addresses.len());
    for address in addresses {
        let all_of_v6 = address.is_ipv6() && address.ip().is_unspecified();
        let address = if all_of_v6 && !has_ipv6 {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port())
        } else {
            *address
        };
        if !usable.contains(&address) {
            usable.push(address);
        }
    }
    usable
}

/// A TCP listener. `only_v6`: an IPv6 socket leaves IPv4 to others.
pub(super) fn tcp(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    prepare(&socket, address, only_v6)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A UDP socket that tells which of our addresses was asked.
pub(super) fn udp(address: SocketAddr, only_v6: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    prepare(&socket, address, only_v6)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    Ok(socket.into())
}

fn prepare(socket: &Socket, address: SocketAddr, only_v6: bool) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    if socket.r#type()? == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())
}

/// Whether what was sent from `from` to our address `to` concerns one of these interfaces: their addresses do, and all
/// that stays on this machine. The names are looked up each time, because interfaces come and go.
pub(super) fn is_for(interfaces: &[String], from: SocketAddr, to: SocketAddr) -> bool {
    let (from, ip) = (from.ip().to_canonical(), to.ip().to_canonical());
    if interfaces.is_empty() || ip.is_loopback() || from == ip {
        return true;
    }
    // Every interface has link-local addresses, and two may have the same.
    if let SocketAddr::V6(v6) = to
        && v6.ip().is_unicast_link_local()
    {
        return is_index_of(interfaces, v6.scope_id());
    }
    let all = match getifaddrs() {
        Ok(all) => all,
        Err(errno) => {
            log::error!("NFS: cannot list the addresses of interfaces: {errno}");
            return false;
        }
    };
    all.filter(|entry| interfaces.contains(&entry.interface_name)).filter_map(|entry| entry.address).any(|address| {
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()))) == Some(ip)
    })
}

fn is_index_of(interfaces: &[String], index: u32) -> bool {
    interfaces.iter().any(|name| if_nametoindex(name.as_str()) == Ok(index))
}

/// Takes one datagram and sends what `answer` makes of it (`false`: nothing), from the address that was asked.
/// Those that arrive at none of `interfaces` (empty: any) are dropped. Returns `false` when no datagram is waiting.
pub(super) fn serve_datagram(
    socket: &UdpSocket,
    interfaces: &[String],
    answer: impl FnOnce(IpAddr, &[u8], &mut Vec<u8>) -> bool,
) -> io::Result<bool> {
    let mut message = [0; MAX_DATAGRAM];
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(&mut message)];
    let received =
        match recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT) {
            Ok(received) => received,
            Err(nix::errno::Errno::EAGAIN) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        };
    let Some(from) = received.address else { return Ok(true) };
    let asked = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(Asked::V4(info)),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Asked::V6(info)),
        _ => None,
    });
    if !interfaces.is_empty() {
        let index = match &asked {
            Some(Asked::V4(info)) => u32::try_from(info.ipi_ifindex).ok(),
            Some(Asked::V6(info)) => Some(info.ipi6_ifindex),
            None => None,
        };
        if !index.is_some_and(|index| index == LOOPBACK || is_index_of(interfaces, index)) {
            return Ok(true);
        }
    }
    let (length, whole) = (received.bytes, !received.flags.contains(MsgFlags::MSG_TRUNC));
    let ip = from
        .as_sockaddr_in()
        .map(|a| IpAddr::V4(a.ip()))
        .or_else(|| from.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()).to_canonical()));
    let Some(ip) = ip else { return Ok(true) };
    let mut out = Vec::new();
    if !whole || !answer(ip, &message[..length], &mut out) {
        return Ok(true);
    }
    let (v4, v6);
    let control: &[ControlMessage<'_>] = match &asked {
        Some(Asked::V4(info)) => {
            // The interface is the routing table's choice: the client may be behind another one.
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: info.ipi_spec_dst, ipi_addr: info.ipi_addr };
            v4 = info;
            &[ControlMessage::Ipv4PacketInfo(&v4)]
        }
        Some(Asked::V6(info)) => {
            v6 = *info;
            &[ControlMessage::Ipv6PacketInfo(&v6)]
        }
        None => &[],
    };
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(&out)], control, MsgFlags::MSG_DONTWAIT, Some(&from))?;
    Ok(true)
}

/// The address of ours that a datagram was sent to.
enum Asked {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<SocketAddr> {
        text.split(' ').map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn without_ipv6_all_addresses_are_those_of_ipv4() {
        for (wanted, with, without) in [
            ("[::]:2049", "[::]:2049", "0.0.0.0:2049"),
            ("0.0.0.0:2049 [::]:2049", "0.0.0.0:2049 [::]:2049", "0.0.0.0:2049"),
            ("127.0.0.1:0 [::1]:0", "127.0.0.1:0 [::1]:0", "127.0.0.1:0 [::1]:0"),
        ] {
            let wanted = addresses(wanted);
            assert_eq!(usable(&wanted, true), addresses(with));
            assert_eq!(usable(&wanted, false), addresses(without));
        }
    }
}
