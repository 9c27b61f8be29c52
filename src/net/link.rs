//! Which ports have link, and since when: watched through rtnetlink, so that a boot's time zero is the moment a Pi was
//! plugged in or switched on.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{MsgFlags, recv};

use super::bridge;
use super::netlink::{self, attributes, messages, number};
use crate::clock::{Clock, Moment};
use crate::pi::Mac;

// linux/rtnetlink.h, linux/if_link.h, linux/if.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTMGRP_LINK: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFF_LOWER_UP: u32 = 1 << 16;
/// `struct ifinfomsg`
const IFINFOMSG: usize = 16;
/// A receive buffer and no recursion.
const STACK: usize = 128 << 10;

/// All interfaces of the machine, as far as boots need them; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Links(Arc<Mutex<HashMap<u32, Link>>>);

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    name: Box<str>,
    /// Whether it has link (a carrier).
    is_up: bool,
    /// Since when, where that was seen.
    since: Option<Moment>,
    /// The bridge that it is a port of.
    master: Option<u32>,
    /// The interface that it is a VLAN of.
    lower: Option<u32>,
}

impl Links {
    /// The port behind which `mac` sits on `interface` and the moment it got link, if that was at most `within` ago. What
    /// has had link since before it was watched, or for longer, has nothing to do with a boot. Told once: the next Pi
    /// behind a switch, and the next boot of the same one, has not been given link by this.
    #[must_use]
    pub fn take_came_up(&self, interface: u32, mac: Mac, now: Moment, within: Duration) -> Option<(Box<str>, Moment)> {
        let is_fresh = |link: &Link| link.since.filter(|since| link.is_up && now.since(*since) <= within);
        let (bridge, ports) = {
            let links = self.links();
            let (bridge, ports) = ports_of(&links, interface);
            // In calm times the kernel is not even asked.
            if !ports.iter().filter_map(|port| links.get(port)).any(|link| is_fresh(link).is_some()) {
                return None;
            }
            (bridge, ports)
        };
        let port = if ports == [bridge] { bridge } else { bridge::port_of(bridge, mac)? };
        let mut links = self.links();
        let link = links.get_mut(&port)?;
        let since = is_fresh(link)?;
        link.since = None;
        Some((link.name.clone(), since))
    }

    /// The ports of a bridge, or the interface itself where it is none.
    #[must_use]
    pub fn ports(&self, interface: u32) -> Vec<u32> {
        ports_of(&self.links(), interface).1
    }

    /// The same without Wi-Fi, over which no Pi boots.
    #[must_use]
    pub fn wired_ports(&self, interface: u32) -> Vec<u32> {
        let mut ports = self.ports(interface);
        let links = self.links();
        let is_wireless = |name: &str| Path::new("/sys/class/net").join(name).join("phy80211").exists();
        ports.retain(|port| links.get(port).is_some_and(|link| !is_wireless(&link.name)));
        ports
    }

    fn links(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Link>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one message of the kernel, seen at `at`.
    fn take(&self, kind: u16, message: &[u8], at: Moment) {
        let Some((index, is_device, link)) = link(message) else { return };
        let mut links = self.links();
        match (kind, links.get_mut(&index)) {
            (RTM_NEWLINK, Some(known)) => {
                let since = match (known.is_up, link.is_up) {
                    (false, true) => {
                        log::debug!("{} has link", link.name);
                        Some(at)
                    }
                    (true, true) => known.since,
                    (_, false) => None,
                };
                *known = Link { since, ..link };
            }
            // It may have had link for long.
            (RTM_NEWLINK, None) => drop(links.insert(index, link)),
            // A bridge that lets go of a port says so with a family of its own.
            (RTM_DELLINK, _) if is_device => drop(links.remove(&index)),
            _ => {}
        }
    }
}

/// The bridge that `interface` is, or is a VLAN of, and its ports; an interface that is none is its own port.
fn ports_of(links: &HashMap<u32, Link>, interface: u32) -> (u32, Vec<u32>) {
    let ports = |bridge: u32| {
        let ports = links.iter().filter(|(_, link)| link.master == Some(bridge));
        let mut ports: Vec<u32> = ports.map(|(index, _)| *index).collect();
        ports.sort_unstable();
        ports
    };
    let lower = links.get(&interface).and_then(|link| link.lower);
    let bridges = [Some(interface), lower].into_iter().flatten().map(|bridge| (bridge, ports(bridge)));
    let bridge = bridges.into_iter().find(|(_, ports)| !ports.is_empty());
    bridge.unwrap_or((interface, vec![interface]))
}

/// Reads a `struct ifinfomsg` with its attributes: index, whether it speaks of the device itself, and the rest.
fn link(message: &[u8]) -> Option<(u32, bool, Link)> {
    let index = number(message.get(4..8)?)?;
    let flags = number(message.get(8..12)?)?;
    let is_device = *message.first()? == 0;
    let (mut name, mut master, mut lower) = (Box::default(), None, None);
    for (kind, value) in attributes(message.get(IFINFOMSG..)?) {
        match kind {
            IFLA_IFNAME => {
                let bytes = value.strip_suffix(&[0]).unwrap_or(value);
                name = String::from_utf8_lossy(bytes).into();
            }
            IFLA_MASTER => master = number(value),
            IFLA_LINK => lower = number(value),
            _ => {}
        }
    }
    Some((index, is_device, Link { name, is_up: flags & IFF_LOWER_UP != 0, since: None, master, lower }))
}

/// Keeps [`Links`] true until it is dropped. A thread of its own: what it sees is stamped, and control may be busy.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Reads what there is and starts watching.
    ///
    /// # Errors
    /// When netlink or a thread is not to be had.
    pub fn start(links: Links, clock: Clock) -> io::Result<Self> {
        let netlink = netlink::open(RTMGRP_LINK)?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        refresh(&links, &clock)?;
        let thread = std::thread::Builder::new().name("links".to_owned()).stack_size(STACK).spawn({
            let stop = stop.clone();
            move || {
                if let Err(error) = watch(&netlink, &stop, &links, &clock) {
                    log::warn!("cannot watch the ports any more ({error}): boots begin with their first packet");
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // An eventfd that cannot be written was written before.
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the watch over the ports panicked");
        }
    }
}

/// Reads all there is: for the beginning, and when messages were lost.
fn refresh(links: &Links, clock: &Clock) -> io::Result<()> {
    netlink::ask(RTM_GETLINK, true, &[0; IFINFOMSG], |kind, message| {
        links.take(kind, message, clock.now());
        false
    })
}

fn watch(netlink: &OwnedFd, stop: &EventFd, links: &Links, clock: &Clock) -> io::Result<()> {
    let mut buffer = vec![0; netlink::BUFFER];
    loop {
        let mut ready = [PollFd::new(netlink.as_fd(), PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if ready[1].any() == Some(true) {
            return Ok(());
        }
        match recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => messages(&buffer[..length]).for_each(|(kind, body)| links.take(kind, body, clock.now())),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // Some were lost: what is gone stays in the map, and nobody asks for it.
            Err(Errno::ENOBUFS) => refresh(links, clock)?,
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PI: Mac = Mac([0xdc, 0xa6, 0x32, 0, 0, 1]);

    fn message(family: u8, index: u32, up: bool, name: &str, master: Option<u32>) -> Vec<u8> {
        let mut body = vec![0; IFINFOMSG];
        body[0] = family;
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[8..12].copy_from_slice(&(if up { IFF_LOWER_UP } else { 0 }).to_ne_bytes());
        netlink::attribute(&mut body, IFLA_IFNAME, format!("{name}\0").as_bytes());
        master.iter().for_each(|master| netlink::attribute(&mut body, IFLA_MASTER, &master.to_ne_bytes()));
        body
    }

    #[test]
    fn only_a_link_that_was_seen_to_come_up_has_a_time_and_is_told_once() {
        let (links, clock, within) = (Links::default(), Clock::manual(0), Duration::from_secs(90));
        let set = |up| links.take(RTM_NEWLINK, &message(0, 7, up, "eth7", None), clock.now());
        let told = || links.take_came_up(7, PI, clock.now(), within);
        let replug = || {
            set(false);
            set(true);
            clock.now()
        };
        set(true);
        assert_eq!(told(), None, "up since before");
        set(false);
        assert_eq!(told(), None);
        let at = replug();
        clock.advance(within);
        set(true); // something else about it changed
        assert_eq!((told(), told()), (Some(("eth7".into(), at)), None));
        replug();
        clock.advance(within + Duration::from_secs(1));
        assert_eq!(told(), None, "too long ago");
        replug();
        links.take(RTM_DELLINK, &message(7, 7, true, "eth7", None), clock.now());
        assert!(told().is_some(), "only its bridge let go of it");
        replug();
        links.take(RTM_DELLINK, &message(0, 7, true, "eth7", None), clock.now());
        assert_eq!(told(), None, "gone");
    }

    #[test]
    fn ports_are_those_of_the_bridge_also_under_a_vlan() {
        let links = Links::default();
        let mut vlan = message(0, 9, true, "br-lan.1", None);
        netlink::attribute(&mut vlan, IFLA_LINK, &1_u32.to_ne_bytes());
        let ports = [(2, "lan1", Some(1)), (3, "lan2", Some(1)), (4, "wan", None)];
        links.take(RTM_NEWLINK, &message(0, 1, true, "br-lan", None), Moment::default());
        links.take(RTM_NEWLINK, &vlan, Moment::default());
        for (index, name, master) in ports {
            links.take(RTM_NEWLINK, &message(0, index, true, name, master), Moment::default());
        }
        assert_eq!([4, 77, 1, 9].map(|interface| links.ports(interface)), [vec![4], vec![77], vec![2, 3], vec![2, 3]]);
    }

    #[test]
    fn cut_messages_are_no_links() {
        let whole = message(0, 7, true, "eth7", Some(1));
        for end in 0..whole.len() {
            let _ = link(&whole[..end]);
        }
        assert!(link(&whole[..IFINFOMSG - 1]).is_none());
    }

    #[test]
    fn the_kernel_is_asked_and_heard() {
        let links = Links::default();
        let watch = Watch::start(links.clone(), Clock::system()).unwrap();
        assert!(links.links().values().any(|link| &*link.name == "lo"));
        drop(watch);
    }
}
