//! What is sent to Pis beside what a DHCP server sends: offers of the built-in proxy, and what [`quirks`](super::quirks) need.
//!
//! Lives on the observer's thread, which sees every DISCOVER; nothing here waits for anybody. [`Script`] decides, without a
//! socket; [`Responder`] sends.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::proxy;

use crate::clock::Moment;
use crate::events::{Dhcp, DhcpKind, Sink, What};
use crate::net::packet::{LinkSender, udp_packet};
use crate::pi::Mac;
use crate::pi::quirks::{Quirk, is_rom_of_3b};

/// RFC 2131 §4.1.
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Where what is sent is thrown away (RFC 863).
const DISCARD_PORT: u16 = 9;

/// How much later an offer comes where [`Quirk::ReplyDelay`] asks for it. A second was enough for those who reported it, two
/// were named; the ROM asks again after five.
const REPLY_DELAY: Duration = Duration::from_millis(1500);
/// When the frames of [`Quirk::WakeUp`] are sent, after a reply.
const WAKE_UPS: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(1000), Duration::from_millis(2000)];
/// How many such frames a Pi gets in one boot.
const MAX_WAKE_UPS: usize = 40;
/// After so long without a DISCOVER of its ROM, a Pi 3B's next one is of another boot. It gives up after 25 s.
const SAME_BOOT: Duration = Duration::from_secs(60);

/// What may wait to be sent; a class of 25 Pis that start together needs half of it.
const MAX_DUE: usize = 256;
/// Pis 3B that are followed while they boot.
const MAX_BOOTING: usize = 64;

/// What responders go by; shared with whoever decides it.
#[derive(Debug, Clone, Default)]
pub struct Orders(Arc<RwLock<Order>>);

#[derive(Debug, Default)]
struct Order {
    /// The Pis that anything is sent to.
    enrolled: HashSet<Mac>,
    /// On which interfaces, by their kernel index, this machine answers as a proxy, and its address there.
    proxied: HashMap<u32, Ipv4Addr>,
    quirks_off: Vec<Quirk>,
}

impl Orders {
    /// Replaces the enrolled hardware addresses: nobody else is sent anything.
    pub fn set_enrolled(&self, macs: impl IntoIterator<Item = Mac>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).enrolled = macs.into_iter().collect();
    }

    /// Replaces the interfaces, by their kernel index, where Pis learn from the proxy that they are to boot from this address.
    pub fn set_proxied(&self, interfaces: impl IntoIterator<Item = (u32, Ipv4Addr)>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).proxied = interfaces.into_iter().collect();
    }

    /// Replaces the quirks that are switched off.
    pub fn set_quirks_off(&self, quirks: &[Quirk]) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).quirks_off = quirks.to_vec();
    }
}

/// Sends what is due on one interface.
#[derive(Debug)]
pub struct Responder {
    script: Script,
    sender: LinkSender,
    sink: Sink,
    failed: bool,
}

impl Responder {
    /// For the interface with kernel index `interface`.
    ///
    /// # Errors
    /// When there is no packet socket to be had (needs `CAP_NET_RAW`).
    pub fn new(interface: u32, orders: Orders, sink: Sink) -> io::Result<Self> {
        let sender = LinkSender::open(interface)?;
        Ok(Self { script: Script::new(interface, orders), sender, sink, failed: false })
    }

    /// Takes a DHCP message that concerns a Pi: the message, and what it says.
    pub(super) fn hear(&mut self, payload: &[u8], message: &Dhcp) {
        let now = self.sink.clock().now();
        self.script.hear(now, payload, message);
    }

    /// Sends what is due; how long until something is due again.
    pub(super) fn act(&mut self) -> Option<Duration> {
        loop {
            let now = self.sink.clock().now();
            let Some(due) = self.script.next(now) else { break };
            if let Err(error) = self.sender.send(due.to, &due.packet) {
                // Once, and not for each DISCOVER of a class of Pis.
                let level =
                    if std::mem::replace(&mut self.failed, true) { log::Level::Debug } else { log::Level::Error };
                log::log!(level, "cannot send boot options to {}: {error}", due.to);
                continue;
            }
            self.failed = false;
            for (quirk, note) in due.notes {
                self.sink.emit(What::Quirk { mac: due.to, quirk: quirk.name(), note: note.into() });
            }
        }
        self.script.wait(self.sink.clock().now())
    }
}

/// A packet for a Pi.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Due {
    at: Moment,
    to: Mac,
    packet: Vec<u8>,
    is_offer: bool,
    /// What is to be told of it.
    notes: Vec<(Quirk, &'static str)>,
}

/// A Pi 3B that boots.
#[derive(Debug)]
struct Booting {
    mac: Mac,
    rom_asked: Moment,
    wake_ups: usize,
}

/// What is to be sent, and when.
#[derive(Debug)]
struct Script {
    interface: u32,
    orders: Orders,
    /// In the order in which they are due.
    due: VecDeque<Due>,
    booting: VecDeque<Booting>,
}

impl Script {
    fn new(interface: u32, orders: Orders) -> Self {
        Self { interface, orders, due: VecDeque::new(), booting: VecDeque::new() }
    }

    fn hear(&mut self, now: Moment, payload: &[u8], message: &Dhcp) {
        let orders = self.orders.clone();
        let order = orders.0.read().unwrap_or_else(PoisonError::into_inner);
        if !order.enrolled.contains(&message.mac) {
            return;
        }
        match message.kind {
            DhcpKind::Discover if message.netboot => self.on_discover(now, payload, message, &order),
            // The kernel's: what the firmware got wrong is behind it.
            DhcpKind::Discover | DhcpKind::Request if !message.netboot => {
                self.booting.retain(|pi| pi.mac != message.mac);
            }
            DhcpKind::Offer | DhcpKind::Ack if is_on(&order, Quirk::WakeUp) => self.wake_up(now, message.mac),
            _ => {}
        }
    }

    fn on_discover(&mut self, now: Moment, payload: &[u8], message: &Dhcp, order: &Order) {
        let is_rom = message.identity.as_ref().is_some_and(is_rom_of_3b);
        if is_rom {
            self.follow(now, message.mac);
        }
        let Some(server) = order.proxied.get(&self.interface).copied() else { return };
        // Asked again before it was answered: the answer is as good for that.
        if self.due.iter().any(|due| due.is_offer && due.to == message.mac) {
            return;
        }
        let with_spaces = is_on(order, Quirk::MenuSpaces);
        let Some(offer) = proxy::offer(payload, server, with_spaces) else { return };
        // To the whole network by its IP address, as to anybody without one, and yet to this Pi alone.
        let from = SocketAddrV4::new(server, SERVER_PORT);
        let Some(packet) = udp_packet(from, SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT), &offer) else {
            return;
        };
        let (mut at, mut notes) = (now, Vec::new());
        if is_rom && with_spaces {
            notes.push((Quirk::MenuSpaces, "the boot menu was sent with three spaces at its end"));
        }
        if is_rom && is_on(order, Quirk::ReplyDelay) {
            at = now.plus(REPLY_DELAY);
            notes.push((Quirk::ReplyDelay, "the offer was sent a second and a half later"));
        }
        self.schedule(Due { at, to: message.mac, packet, is_offer: true, notes });
    }

    /// The ROM of a Pi 3B has asked.
    fn follow(&mut self, now: Moment, mac: Mac) {
        if let Some(pi) = self.booting.iter_mut().find(|pi| pi.mac == mac) {
            if now.since(pi.rom_asked) > SAME_BOOT {
                pi.wake_ups = 0;
            }
            pi.rom_asked = now;
            return;
        }
        if self.booting.len() == MAX_BOOTING {
            self.booting.pop_front();
        }
        self.booting.push_back(Booting { mac, rom_asked: now, wake_ups: 0 });
    }

    /// Somebody, perhaps this machine, has answered a Pi.
    fn wake_up(&mut self, now: Moment, mac: Mac) {
        let Some(pi) = self.booting.iter_mut().find(|pi| pi.mac == mac) else { return };
        if now.since(pi.rom_asked) > SAME_BOOT {
            return;
        }
        // What was to follow the reply before this one would come too early for it.
        let before = self.due.len();
        self.due.retain(|due| due.to != mac || due.is_offer);
        pi.wake_ups = pi.wake_ups.saturating_sub(before - self.due.len());
        if pi.wake_ups >= MAX_WAKE_UPS {
            return;
        }
        pi.wake_ups += WAKE_UPS.len();
        let nobody = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, DISCARD_PORT);
        let Some(packet) = udp_packet(nobody, SocketAddrV4::new(Ipv4Addr::BROADCAST, DISCARD_PORT), &[]) else {
            return;
        };
        for (n, after) in WAKE_UPS.into_iter().enumerate() {
            let notes =
                if n == 0 { vec![(Quirk::WakeUp, "small packets were sent to it for two seconds")] } else { vec![] };
            self.schedule(Due { at: now.plus(after), to: mac, packet: packet.clone(), is_offer: false, notes });
        }
    }

    fn schedule(&mut self, due: Due) {
        if self.due.len() < MAX_DUE {
            let before = self.due.partition_point(|other| other.at <= due.at);
            self.due.insert(before, due);
        }
    }

    /// What is due now.
    fn next(&mut self, now: Moment) -> Option<Due> {
        if self.due.front().is_some_and(|due| due.at <= now) { self.due.pop_front() } else { None }
    }

    /// How long until something is due.
    fn wait(&self, now: Moment) -> Option<Duration> {
        self.due.front().map(|due| due.at.since(now))
    }
}

fn is_on(order: &Order, quirk: Quirk) -> bool {
    !order.quirks_off.contains(&quirk)
}

#[cfg(test)]
#[path = "respond_tests.rs"]
mod tests;
