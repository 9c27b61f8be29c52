//! UDP as TFTP needs it: a listener that knows which of our addresses was asked, and connected sockets that answer from it.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrStorage, recv,
    recvmsg, send, sendmmsg, sendmsg, setsockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::blocks::Blocks;
use super::transfer::MAX_WINDOWSIZE;

/// The address of ours that a client asked, and the interface it came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) ip: IpAddr,
    pub(super) interface: u32,
}

/// A datagram that reached a listener.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) length: usize,
    pub(super) peer: SocketAddr,
    /// `None` for what was sent to a broadcast or multicast address.
    pub(super) asked: Option<Asked>,
}

fn new_socket(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))
}

/// The well-known port.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    local: SocketAddr,
    /// Room for one PKTINFO of either family.
    control: Vec<u8>,
}

impl Listener {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = new_socket(Domain::for_address(address))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, Ipv4PacketInfo, &true)?;
        }
        socket.bind(&address.into())?;
        let local = socket.local_addr()?.as_socket().unwrap_or(address);
        let mut control = cmsg_space!(nix::libc::in6_pktinfo, nix::libc::in_pktinfo);
        control.resize(control.capacity(), 0);
        Ok(Self { socket, local, control })
    }

    pub(super) const fn local(&self) -> SocketAddr {
        self.local
    }

    /// The next datagram; what does not fit into `buffer` is cut off.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut parts = [IoSliceMut::new(buffer)];
        let control = Some(&mut self.control[..]);
        let message = recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut parts, control, MsgFlags::empty())?;
        let peer = message.address.as_ref().and_then(to_std).ok_or(io::ErrorKind::InvalidData)?;
        let asked = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                // For a broadcast the kernel gives the address it would answer from, which differs from the one asked.
                let unicast = info.ipi_addr.s_addr == info.ipi_spec_dst.s_addr;
                let ip = IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)));
                unicast.then_some(Asked { ip, interface: u32::try_from(info.ipi_ifindex).unwrap_or(0) })
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                (!ip.is_multicast()).then_some(Asked { ip: IpAddr::V6(ip), interface: info.ipi6_ifindex })
            }
            _ => None,
        });
        Ok(Received { length: message.bytes, peer, asked })
    }

    /// Sends `packet` to `peer` from the address that it asked.
    pub(super) fn reply(&self, peer: SocketAddr, asked: Asked, packet: &[u8]) -> io::Result<()> {
        let parts = [IoSlice::new(packet)];
        let fd = self.socket.as_raw_fd();
        match (peer, asked.ip) {
            (SocketAddr::V4(peer), IpAddr::V4(from)) => {
                let info = nix::libc::in_pktinfo {
                    ipi_ifindex: 0, // the route decides, as for the data of a transfer
                    ipi_spec_dst: nix::libc::in_addr { s_addr: u32::from(from).to_be() },
                    ipi_addr: nix::libc::in_addr { s_addr: 0 },
                };
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(fd, &parts, &control, MsgFlags::empty(), Some(&SockaddrIn::from(peer)))?;
            }
            (SocketAddr::V6(peer), IpAddr::V6(from)) => {
                let info = nix::libc::in6_pktinfo {
                    ipi6_addr: nix::libc::in6_addr { s6_addr: from.octets() },
                    ipi6_ifindex: if from.is_unicast_link_local() { asked.interface } else { 0 },
                };
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(fd, &parts, &control, MsgFlags::empty(), Some(&SockaddrIn6::from(peer)))?;
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        Ok(())
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(&v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4(SocketAddrV4::from(v4)));
    }
    let &v6 = address.as_sockaddr_in6()?;
    let v6 = SocketAddrV6::from(v6);
    // The flow label may differ from packet to packet; it is no part of who the peer is.
    Some(SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id())))
}

/// What became of something sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It went out, or got lost as packets do: the retransmission timer cares for it.
    Out,
    /// The client's port is closed (ICMP port unreachable).
    Gone,
}

/// What a connected socket has for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrived {
    Packet(usize),
    Nothing,
    Gone,
}

/// A socket of one transfer: bound to the address asked, a fresh port being our transfer id (RFC 1350 §4), connected so
/// that the kernel drops strangers' packets and reports a closed port.
#[derive(Debug)]
pub(super) struct Connected(Socket);

impl Connected {
    pub(super) fn open(asked: Asked, peer: SocketAddr) -> io::Result<Self> {
        let socket = new_socket(Domain::for_address(peer))?;
        let local = match asked.ip {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => SocketAddrV6::new(ip, 0, 0, asked.interface).into(),
            ip => SocketAddr::new(ip, 0),
        };
        socket.bind(&local.into())?;
        socket.connect(&peer.into())?;
        Ok(Self(socket))
    }

    /// Where the client sends its acknowledgements.
    pub(super) fn local(&self) -> SocketAddr {
        let local = self.0.local_addr().ok().and_then(|address| address.as_socket());
        local.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
    }

    pub(super) fn receive(&self, buffer: &mut [u8]) -> Arrived {
        match recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => Arrived::Packet(length),
            Err(Errno::ECONNREFUSED) => Arrived::Gone,
            // Host or network unreachable may only mean that a Pi 3B did not answer ARP just now.
            Err(_) => Arrived::Nothing,
        }
    }

    pub(super) fn send(&self, packet: &[u8], confirm: bool) -> Sent {
        sent(send(self.0.as_raw_fd(), packet, flags(confirm)).map(drop))
    }

    /// Sends `count` loaded blocks from number `first` on, in one system call.
    pub(super) fn send_window(&self, blocks: &Blocks, first: u64, count: u16, confirm: bool) -> Sent {
        const NO_ADDRESSES: [Option<()>; MAX_WINDOWSIZE as usize] = [None; MAX_WINDOWSIZE as usize];
        let packets = blocks.window(first);
        let count = usize::from(count).min(packets.len());
        let mut headers = MultiHeaders::preallocate(count, None);
        let packets = &packets[..count];
        let result = sendmmsg(self.0.as_raw_fd(), &mut headers, packets, &NO_ADDRESSES[..count], [], flags(confirm));
        sent(result.map(drop))
    }
}

impl AsFd for Connected {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `confirm`: the client has just been heard, so its neighbour entry is good. A Pi 3B stops answering ARP while it
/// loads; without this the kernel would probe it, get nothing, and stop sending (send(2), MSG_CONFIRM).
fn flags(confirm: bool) -> MsgFlags {
    if confirm { MsgFlags::from_bits_retain(nix::libc::MSG_CONFIRM) } else { MsgFlags::empty() }
}

fn sent(result: nix::Result<()>) -> Sent {
    match result {
        Err(Errno::ECONNREFUSED) => Sent::Gone,
        _ => Sent::Out,
    }
}
