//! Packet sockets (packet(7)): one that sees the DHCP traffic of an interface, in both directions, and nothing else; and one
//! that sends to a machine that has no address yet.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

use crate::pi::Mac;

/// The largest DHCP packet worth reading: an Ethernet frame.
pub const MAX_PACKET: usize = 1600;

// Classic BPF (linux/bpf_common.h, linux/filter.h).
const LD_W_ABS: u16 = 0x20;
const LD_H_ABS: u16 = 0x28;
pub(super) const LD_B_ABS: u16 = 0x30;
const LDX_B_MSH: u16 = 0xb1;
const LD_H_IND: u16 = 0x48;
pub(super) const JEQ: u16 = 0x15;
const JSET: u16 = 0x45;
pub(super) const RET: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_PROTOCOL`: the frame's EtherType, whatever the link layer.
const ETHERTYPE: u32 = 0xffff_f000;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_ALL: u16 = 0x0003;
const IPPROTO_UDP: u32 = 17;

/// A filter for unfragmented IPv4 UDP: `rest` looks at the destination port, which is in the accumulator, and its last
/// instruction is where everything else is thrown away. Offsets count from the IP header: the socket is `SOCK_DGRAM`. Five
/// instructions throw away what is no UDP, so a busy LAN costs the router next to nothing.
pub(super) const fn udp_filter(rest: [SockFilter; 5]) -> [SockFilter; 13] {
    let [a, b, c, d, e] = rest;
    [
        SockFilter::new(LD_W_ABS, 0, 0, ETHERTYPE),
        SockFilter::new(JEQ, 0, 10, ETH_P_IP as u32),
        SockFilter::new(LD_B_ABS, 0, 0, 9),
        SockFilter::new(JEQ, 0, 8, IPPROTO_UDP),
        SockFilter::new(LD_H_ABS, 0, 0, 6),
        SockFilter::new(JSET, 6, 0, 0x3fff), // fragment offset or more-fragments
        SockFilter::new(LDX_B_MSH, 0, 0, 0), // X = IP header length
        SockFilter::new(LD_H_IND, 0, 0, 2),  // destination port
        a,
        b,
        c,
        d,
        e,
    ]
}

/// From or to port 67 or 68.
const DHCP_ONLY: [SockFilter; 13] = udp_filter([
    SockFilter::new(JEQ, 2, 0, 67),
    SockFilter::new(JEQ, 1, 0, 68),
    SockFilter::new(RET, 0, 0, 0), // DHCP is always addressed to one of the two
    SockFilter::new(RET, 0, 0, 0xffff),
    SockFilter::new(RET, 0, 0, 0),
]);

/// A non-blocking packet socket that hears what `filter` lets through; nothing before [`listen`].
pub(super) fn tap(filter: &[SockFilter]) -> io::Result<Socket> {
    // Protocol 0: nothing arrives before the filter is in place and bind() names the protocol.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM.cloexec(), Some(Protocol::from(0)))?;
    socket.attach_filter(filter)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Has a [`tap`] hear the interface with kernel index `interface`. Outgoing packets (our own dnsmasq's offers) reach only sockets
/// bound to `ETH_P_ALL`.
pub(super) fn listen(tap: &Socket, interface: u32) -> io::Result<()> {
    tap.bind(&link_address(ETH_P_ALL, interface, None))
}

/// The next packet of a [`tap`], from its IP header on, and who sent it.
pub(super) fn receive<'a>(
    tap: &Socket,
    buffer: &'a mut [MaybeUninit<u8>; MAX_PACKET],
) -> io::Result<(&'a [u8], SockAddr)> {
    let (length, sender) = tap.recv_from(buffer)?;
    // SAFETY: recvfrom(2) has initialised the first `length` bytes, and `length <= buffer.len()`.
    let packet = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), length.min(buffer.len())) };
    Ok((packet, sender))
}

/// A non-blocking packet socket on one interface.
#[derive(Debug)]
pub struct DhcpTap {
    socket: Socket,
}

impl DhcpTap {
    /// Opens the socket on the interface with kernel index `interface`.
    ///
    /// # Errors
    /// Needs `CAP_NET_RAW`.
    pub fn open(interface: u32) -> io::Result<Self> {
        let socket = tap(&DHCP_ONLY)?;
        listen(&socket, interface)?;
        Ok(Self { socket })
    }

    /// The next packet, from its IP header on.
    ///
    /// # Errors
    /// `WouldBlock` when there is none now; others as recv(2).
    pub fn receive<'a>(&self, buffer: &'a mut [MaybeUninit<u8>; MAX_PACKET]) -> io::Result<&'a [u8]> {
        receive(&self.socket, buffer).map(|(packet, _)| packet)
    }
}

impl AsFd for DhcpTap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends IPv4 packets on one interface to hardware addresses, past routes and the neighbour table: to machines that have no
/// address yet, or do not answer ARP. What it sends is seen by [`DhcpTap`], as everybody's.
#[derive(Debug)]
pub struct LinkSender {
    socket: Socket,
    interface: u32,
}

impl LinkSender {
    /// Opens the socket for the interface with kernel index `interface`.
    ///
    /// # Errors
    /// Needs `CAP_NET_RAW`.
    pub fn open(interface: u32) -> io::Result<Self> {
        // Protocol 0: it receives nothing.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.cloexec(), Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, interface })
    }

    /// Sends one packet, from its IP header on.
    ///
    /// # Errors
    /// As send(2); `WouldBlock` when the interface has more to send than it can.
    pub fn send(&self, to: Mac, packet: &[u8]) -> io::Result<()> {
        self.socket.send_to(packet, &link_address(ETH_P_IP, self.interface, Some(to))).map(drop)
    }
}

fn link_address(ethertype: u16, interface: u32, to: Option<Mac>) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is a plain C struct that fits `sockaddr_storage` and is valid when zeroed.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as libc::sa_family_t;
    link.sll_protocol = ethertype.to_be();
    link.sll_ifindex = interface as libc::c_int;
    if let Some(Mac(mac)) = to {
        link.sll_halen = 6;
        link.sll_addr[..6].copy_from_slice(&mac);
    }
    // SAFETY: the storage holds a `sockaddr_ll`, whose size is given.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// An IPv4 UDP packet (RFC 791 §3.1, RFC 768), ready for [`LinkSender::send`]. `None` if the payload is too long for one.
#[must_use]
pub fn udp_packet(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Option<Vec<u8>> {
    let udp_length = u16::try_from(payload.len()).ok()?.checked_add(8)?;
    let length = udp_length.checked_add(20)?;
    let mut packet = Vec::with_capacity(length.into());
    packet.extend([0x45, 0]); // version 4, five words of header
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, IPPROTO_UDP as u8, 0, 0]); // no id and no flags, time to live, checksum below
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    let header_sum = checksum(&packet, 0);
    packet[10..12].copy_from_slice(&header_sum.to_be_bytes());
    // The pseudo header: addresses, protocol, length.
    let pseudo =
        packet[12..20].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>()
            + IPPROTO_UDP
            + u32::from(udp_length);
    for word in [from.port(), to.port(), udp_length, 0] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend(payload);
    let sum = match checksum(&packet[20..], pseudo) {
        // Zero would mean that there is none.
        0 => u16::MAX,
        sum => sum,
    };
    packet[26..28].copy_from_slice(&sum.to_be_bytes());
    Some(packet)
}

/// The Internet checksum (RFC 1071) of `bytes`, after `sum`.
fn checksum(bytes: &[u8], mut sum: u32) -> u16 {
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The payload of an IPv4 UDP packet, `None` if it is none or cut short.
#[must_use]
pub fn udp_payload(packet: &[u8]) -> Option<&[u8]> {
    let version_and_length = *packet.first()?;
    let header = usize::from(version_and_length & 0xf) * 4;
    if version_and_length >> 4 != 4 || header < 20 || *packet.get(9)? != 17 {
        return None;
    }
    let udp = packet.get(header..)?;
    let length = usize::from(u16::from_be_bytes(udp.get(4..6)?.try_into().ok()?));
    udp.get(8..length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn only_udp_over_ipv4_has_a_payload() {
        let mut packet = vec![0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend([0, 68, 0, 67, 0, 11, 0, 0, b'a', b'b', b'c', 0xee]);
        assert_eq!(udp_payload(&packet), Some(&b"abc"[..]), "trailing link padding is cut");
        for end in 0..31 {
            assert_eq!(udp_payload(&packet[..end]), None, "cut at {end}");
        }
        packet[9] = 6;
        assert_eq!(udp_payload(&packet), None);
    }

    #[test]
    fn the_filter_passes_dhcp_ports_only() {
        let Ok(tap) = DhcpTap::open(crate::net::interface::find("lo", None).unwrap().index) else {
            eprintln!("skipped: needs CAP_NET_RAW");
            return;
        };
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let marker = format!("piboot test {}", std::process::id());
        for port in [69, 67] {
            // Nobody listens: the packet still crosses the loopback device.
            let _ = sender.send_to(format!("{marker} {port}").as_bytes(), ("127.0.0.1", port));
        }
        // Delivery over loopback is synchronous with send(2): what passed the filter is there now.
        let mut seen = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); MAX_PACKET];
        while let Ok(packet) = tap.receive(&mut buffer) {
            seen.extend(udp_payload(packet).map(<[u8]>::to_vec));
        }
        seen.retain(|p| p.starts_with(marker.as_bytes()));
        assert!(!seen.is_empty() && seen.iter().all(|p| p.ends_with(b" 67")), "{seen:?}");
    }

    #[test]
    fn a_packet_is_what_the_kernel_would_have_made() {
        // The same datagram through a UDP socket, seen by the tap and through a sender: all but the id is equal.
        let lo = crate::net::interface::find("lo", None).unwrap().index;
        let (Ok(tap), Ok(sender)) = (DhcpTap::open(lo), LinkSender::open(lo)) else {
            eprintln!("skipped: needs CAP_NET_RAW");
            return;
        };
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(from) = socket.local_addr().unwrap() else { unreachable!("IPv4") };
        let to: SocketAddrV4 = "127.0.0.1:67".parse().unwrap();
        let payload = format!("piboot packet {}", from.port());
        let packet = udp_packet(from, to, payload.as_bytes()).unwrap();
        let _ = socket.send_to(payload.as_bytes(), to);
        sender.send(Mac([0; 6]), &packet).unwrap();
        let mut seen = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); MAX_PACKET];
        while let Ok(packet) = tap.receive(&mut buffer) {
            seen.extend(udp_payload(packet).filter(|p| *p == payload.as_bytes()).map(|_| packet.to_vec()));
        }
        let [first, .., last] = &seen[..] else { panic!("{seen:02x?}") };
        assert_eq!(*last, packet, "it goes out as it is");
        // The kernel numbers its packets, forbids fragments, and leaves the UDP checksum to the device.
        let shape = |packet: &[u8]| [&packet[..4], &packet[8..10], &packet[12..26], &packet[28..]].concat();
        assert_eq!(shape(first), shape(&packet));
        for (header, pseudo) in
            [(&packet[..20], 0), (&packet[20..], 2 * 0x7f01 + 17 + u32::try_from(packet.len()).unwrap() - 20)]
        {
            assert_eq!(checksum(header, pseudo), 0, "a sum over its own complement");
        }
        assert!(udp_packet(from, to, &[0; 65508]).is_none());
    }
}
