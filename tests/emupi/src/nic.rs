//! A board's network interface: UDP over IPv4 with just enough ARP.

use crate::arp;
use crate::frame::{self, ETHERTYPE_ARP, ETHERTYPE_IPV4, Mac};
use crate::ip;
use crate::link::{LinkError, Port};
use crate::reactor::block_on;
use crate::udp;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ARP_TRIES: u32 = 4;
const ARP_WAIT: Duration = Duration::from_millis(500);

/// How a boot stage writes its packets.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// IPv4 time to live: 128 in captures of the boot ROM and `bootcode.bin`.
    pub ttl: u8,
    /// Whether UDP checksums are sent; boards up to the 3B+ send none.
    pub checksum: bool,
    /// Whether ARP requests are answered. The 3B's ROM does not answer them during TFTP (Raspberry Pi documentation,
    /// "Network booting", known problems).
    pub answers_arp: bool,
}

/// What went wrong on the way in, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// IPv4 fragments, which boot firmware cannot use.
    pub fragments: u32,
    /// Damaged packets.
    pub damaged: u32,
}

/// A received UDP datagram.
#[derive(Debug)]
pub struct Datagram {
    /// The sender's Ethernet address.
    pub mac: Mac,
    /// The sender.
    pub src: SocketAddrV4,
    /// The address it was sent to.
    pub dst: SocketAddrV4,
    frame: Arc<[u8]>,
    payload: Range<usize>,
}

impl Datagram {
    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.frame[self.payload.clone()]
    }
}

/// The interface.
#[derive(Debug)]
pub struct Nic {
    port: Port,
    /// How packets are written now; each boot stage sets its own.
    pub style: Style,
    ip: Ipv4Addr,
    mask: Option<Ipv4Addr>,
    gateway: Option<Ipv4Addr>,
    neighbours: HashMap<Ipv4Addr, Mac>,
    faults: Faults,
}

impl Nic {
    /// An interface without an address.
    pub fn new(port: Port, style: Style) -> Nic {
        Nic {
            port,
            style,
            ip: Ipv4Addr::UNSPECIFIED,
            mask: None,
            gateway: None,
            neighbours: HashMap::new(),
            faults: Faults::default(),
        }
    }

    /// The Ethernet address.
    pub fn mac(&self) -> Mac {
        self.port.mac()
    }

    /// The address, unspecified before DHCP.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// What went wrong on the way in so far.
    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// Takes on an address and forgets what was known of neighbours, as each boot stage does.
    pub fn configure(&mut self, ip: Ipv4Addr, mask: Option<Ipv4Addr>, gateway: Option<Ipv4Addr>) {
        self.ip = ip;
        self.mask = mask;
        self.gateway = gateway.filter(|g| !g.is_unspecified());
        self.neighbours.clear();
    }

    /// Sends a broadcast, as DHCP does.
    ///
    /// # Errors
    /// When the interface is down.
    pub fn broadcast(&mut self, src_port: u16, dst_port: u16, payload: &[u8]) -> Result<(), LinkError> {
        let frame = self.frame(Mac::BROADCAST, (self.ip, src_port), (Ipv4Addr::BROADCAST, dst_port), payload);
        self.port.send(&frame)
    }

    /// Sends a datagram that no bad cable loses.
    ///
    /// # Errors
    /// When the interface is down.
    pub fn send_surely(&mut self, src_port: u16, dst: SocketAddrV4, payload: &[u8]) -> Result<(), LinkError> {
        match self.datagram_to(src_port, dst, payload) {
            Some(frame) => self.port.send_surely(&frame),
            None => Ok(()),
        }
    }

    /// Sends a datagram; the neighbour must have been [resolved](Nic::resolve), else it is lost.
    ///
    /// # Errors
    /// When the interface is down.
    pub fn send(&mut self, src_port: u16, dst: SocketAddrV4, payload: &[u8]) -> Result<(), LinkError> {
        match self.datagram_to(src_port, dst, payload) {
            Some(frame) => self.port.send(&frame),
            None => Ok(()),
        }
    }

    /// The frame with a datagram, if the neighbour is known.
    fn datagram_to(&self, src_port: u16, dst: SocketAddrV4, payload: &[u8]) -> Option<Vec<u8>> {
        let mac = *self.neighbours.get(&self.next_hop(*dst.ip()))?;
        Some(self.frame(mac, (self.ip, src_port), (*dst.ip(), dst.port()), payload))
    }

    /// Finds the Ethernet address for `ip` (or for the gateway towards it). `None` if nobody answers.
    ///
    /// # Errors
    /// When the interface is down.
    pub(crate) async fn resolve(&mut self, ip: Ipv4Addr) -> Result<Option<Mac>, LinkError> {
        let hop = self.next_hop(ip);
        for _ in 0..ARP_TRIES {
            if let Some(&mac) = self.neighbours.get(&hop) {
                return Ok(Some(mac));
            }
            self.send_arp(arp::Packet {
                op: arp::Op::Request,
                sender_mac: self.mac(),
                sender_ip: self.ip,
                target_mac: Mac([0; 6]),
                target_ip: hop,
            })?;
            let deadline = Instant::now() + ARP_WAIT;
            while !self.neighbours.contains_key(&hop) && self.step(deadline).await?.is_some() {}
        }
        Ok(self.neighbours.get(&hop).copied())
    }

    /// The next datagram, or `None` at the deadline, waited for in the board's own thread.
    ///
    /// # Errors
    /// When the interface is down.
    pub fn receive(&mut self, deadline: Instant) -> Result<Option<Datagram>, LinkError> {
        block_on(self.next(deadline))
    }

    /// The next datagram, or `None` at the deadline. ARP is dealt with on the way.
    ///
    /// # Errors
    /// When the interface is down.
    pub(crate) async fn next(&mut self, deadline: Instant) -> Result<Option<Datagram>, LinkError> {
        while let Some(step) = self.step(deadline).await? {
            if let Step::Datagram(datagram) = step {
                return Ok(Some(datagram));
            }
        }
        Ok(None)
    }

    fn next_hop(&self, ip: Ipv4Addr) -> Ipv4Addr {
        match (self.mask, self.gateway) {
            (Some(mask), Some(gateway)) if u32::from(ip) & u32::from(mask) != u32::from(self.ip) & u32::from(mask) => {
                gateway
            }
            _ => ip,
        }
    }

    fn frame(&self, mac: Mac, src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
        let datagram = udp::build(src, dst, payload, self.style.checksum);
        let packet = ip::build(src.0, dst.0, ip::UDP, self.style.ttl, &datagram);
        frame::build(mac, self.mac(), ETHERTYPE_IPV4, &packet)
    }

    fn send_arp(&mut self, packet: arp::Packet) -> Result<(), LinkError> {
        let dst = if packet.op == arp::Op::Request { Mac::BROADCAST } else { packet.target_mac };
        self.port.send(&frame::build(dst, self.mac(), ETHERTYPE_ARP, &arp::build(&packet)))
    }

    async fn step(&mut self, deadline: Instant) -> Result<Option<Step>, LinkError> {
        let Some(bytes) = self.port.frame(deadline).await else { return Ok(None) };
        let Some(frame) = frame::parse(&bytes) else { return Ok(Some(Step::Other)) };
        match frame.ethertype {
            ETHERTYPE_ARP => {
                if let Some(packet) = arp::parse(frame.payload) {
                    self.handle_arp(packet)?;
                }
                Ok(Some(Step::Other))
            }
            ETHERTYPE_IPV4 => Ok(Some(self.datagram(&bytes, frame.src).map_or(Step::Other, Step::Datagram))),
            _ => Ok(Some(Step::Other)),
        }
    }

    fn handle_arp(&mut self, packet: arp::Packet) -> Result<(), LinkError> {
        if packet.op == arp::Op::Reply {
            self.neighbours.insert(packet.sender_ip, packet.sender_mac);
        } else if packet.target_ip == self.ip && !self.ip.is_unspecified() && self.style.answers_arp {
            self.send_arp(arp::Packet {
                op: arp::Op::Reply,
                sender_mac: self.mac(),
                sender_ip: self.ip,
                target_mac: packet.sender_mac,
                target_ip: packet.sender_ip,
            })?;
        }
        Ok(())
    }

    fn datagram(&mut self, bytes: &Arc<[u8]>, mac: Mac) -> Option<Datagram> {
        let packet = match ip::parse(bytes.get(14..)?) {
            Ok(packet) if packet.protocol == ip::UDP => packet,
            Ok(_) => return None,
            Err(ip::IpError::Fragment) => {
                self.faults.fragments += 1;
                return None;
            }
            Err(_) => {
                self.faults.damaged += 1;
                return None;
            }
        };
        // Before DHCP is done, replies come to the address that is only being offered.
        let mine = self.ip.is_unspecified() || packet.dst == self.ip || packet.dst.is_broadcast();
        let Ok(datagram) = udp::parse(packet.payload, packet.src, packet.dst, self.port.checksums_are_final()) else {
            self.faults.damaged += 1;
            return None;
        };
        if !mine {
            return None;
        }
        let start = datagram.payload.as_ptr().addr() - bytes.as_ptr().addr();
        Some(Datagram {
            mac,
            src: SocketAddrV4::new(packet.src, datagram.src_port),
            dst: SocketAddrV4::new(packet.dst, datagram.dst_port),
            frame: Arc::clone(bytes),
            payload: start..start + datagram.payload.len(),
        })
    }
}

enum Step {
    Datagram(Datagram),
    Other,
}
