//! A packet socket that sees what comes in on one port for UDP port 6666, where consoles are sent, whatever hardware
//! address it is for.
//!
//! The bootloader sends to the hardware address 00:00:00:00:00:00. A bridge floods such frames and keeps them from itself
//! unless it is made promiscuous, which would bring it everything else, too. Its ports see them in any case: a packet
//! socket on a port is asked before the bridge (packet(7), `ETH_P_ALL`).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockAddr, SockFilter, Socket};

use super::packet::{JEQ, LD_B_ABS, MAX_PACKET, RET, listen, receive, tap, udp_filter};
use crate::pi::Mac;

/// Where consoles are sent unless told otherwise, by bootloader (`NETCONSOLE`) and kernel (`netconsole=`).
pub const PORT: u16 = 6666;

/// `SKF_AD_OFF + SKF_AD_PKTTYPE` (linux/filter.h)
const PACKET_TYPE: u32 = 0xffff_f004;
const PACKET_OUTGOING: u32 = 4;
const SOL_PACKET: libc::c_int = 263;
/// Since Linux 4.20: frames that go out by this port are not even copied for us.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// A kernel that dies sends its log at once: a thousand small packets, which take some 1 KB each here.
const BURST_BYTES: usize = 2 << 20;

/// Unfragmented IPv4 UDP to port 6666 that came in.
const CONSOLE_ONLY: [SockFilter; 13] = udp_filter([
    SockFilter::new(JEQ, 0, 3, PORT as u32),
    SockFilter::new(LD_B_ABS, 0, 0, PACKET_TYPE),
    SockFilter::new(JEQ, 1, 0, PACKET_OUTGOING),
    SockFilter::new(RET, 0, 0, 0xffff),
    SockFilter::new(RET, 0, 0, 0),
]);

/// A non-blocking packet socket on one port.
#[derive(Debug)]
pub struct ConsoleTap {
    socket: Socket,
}

impl ConsoleTap {
    /// Opens the socket on the interface with kernel index `port`.
    ///
    /// # Errors
    /// Needs `CAP_NET_RAW`.
    pub fn open(port: u32) -> io::Result<Self> {
        let socket = tap(&CONSOLE_ONLY)?;
        ignore_outgoing(&socket);
        // Needs CAP_NET_ADMIN; without it long bursts lose lines.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BURST_BYTES);
        listen(&socket, port)?;
        Ok(Self { socket })
    }

    /// The next packet, from its IP header on, and the hardware address of its sender.
    ///
    /// # Errors
    /// `WouldBlock` when there is none now; others as recv(2).
    pub fn receive<'a>(&self, buffer: &'a mut [MaybeUninit<u8>; MAX_PACKET]) -> io::Result<(&'a [u8], Option<Mac>)> {
        let (packet, sender) = receive(&self.socket, buffer)?;
        Ok((packet, hardware_address(&sender)))
    }
}

impl AsFd for ConsoleTap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn ignore_outgoing(socket: &Socket) {
    let yes: libc::c_int = 1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // The filter does the same on older kernels, at a price.
    // SAFETY: the option value is an int that outlives the call, and its size is given.
    unsafe { libc::setsockopt(socket.as_raw_fd(), SOL_PACKET, PACKET_IGNORE_OUTGOING, (&raw const yes).cast(), size) };
}

/// The Ethernet address in the `sockaddr_ll` of a received packet.
fn hardware_address(sender: &SockAddr) -> Option<Mac> {
    if i32::from(sender.family()) != libc::AF_PACKET || (sender.len() as usize) < size_of::<libc::sockaddr_ll>() {
        return None;
    }
    // SAFETY: the storage behind a SockAddr is aligned for any address, and holds a whole sockaddr_ll as checked above.
    let link = unsafe { &*sender.as_ptr().cast::<libc::sockaddr_ll>() };
    let address = link.sll_addr.get(..6).filter(|_| link.sll_halen == 6)?;
    Some(Mac(address.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::packet::udp_payload;
    use std::net::UdpSocket;

    #[test]
    fn only_what_comes_in_for_the_console_port_passes() {
        let Ok(tap) = ConsoleTap::open(crate::net::interface::find("lo", None).unwrap().index) else {
            eprintln!("skipped: needs CAP_NET_RAW");
            return;
        };
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let marker = format!("piboot console {}", std::process::id());
        for port in [6665, 6666, 6667] {
            // Nobody listens: the packet still crosses the loopback device, out and in.
            let _ = sender.send_to(format!("{marker} {port}").as_bytes(), ("127.0.0.1", port));
        }
        let mut seen = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); MAX_PACKET];
        while let Ok((packet, _)) = tap.receive(&mut buffer) {
            seen.extend(udp_payload(packet).map(<[u8]>::to_vec));
        }
        seen.retain(|p| p.starts_with(marker.as_bytes()));
        assert_eq!(seen, [format!("{marker} 6666").into_bytes()]);
    }
}
