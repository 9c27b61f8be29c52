//! From power-on to an address.

use super::discover::Speaker;
use super::{Message, code, kind, parse};
use crate::link::LinkError;
use crate::model::Pi;
use crate::nic::Nic;
use crate::record::{Event, Recorder};
use crate::rng::Rng;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const CLIENT: u16 = 68;
const SERVER: u16 = 67;

/// What DHCP gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub ip: Ipv4Addr,
    /// Subnet mask, if told.
    pub mask: Option<Ipv4Addr>,
    /// Router, if told.
    pub gateway: Option<Ipv4Addr>,
    /// The server that gave the address.
    pub server: Ipv4Addr,
    /// The TFTP server to boot from.
    pub tftp: Option<Ipv4Addr>,
    /// Boot options (43, 66, 67, file name) that came although this machine is no Raspberry Pi.
    pub boot_options: Vec<String>,
}

/// How a speaker waits.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Between two DISCOVERs or REQUESTs.
    retry: Duration,
    /// How many DISCOVERs.
    attempts: u32,
    requests: bool,
    /// Whether any reply with the right xid is taken, whoever it is for (firmware issues 1120, 1303).
    any_chaddr: bool,
}

/// Waits of the documentation ("Network booting", "Raspberry Pi bootloader configuration"), divided by `speed`.
fn patience(speaker: Speaker, speed: f64) -> Patience {
    let (seconds, attempts) = match speaker {
        // Five times, then the ROM stops for good.
        Speaker::RomB | Speaker::Bootcode => (5.0, 5),
        // DHCP_REQ_TIMEOUT 4 s within DHCP_TIMEOUT 45 s.
        Speaker::Eeprom => (4.0, 11),
        Speaker::Pc | Speaker::Laptop => (4.0, 4),
    };
    Patience {
        retry: Duration::from_secs_f64(seconds / speed.max(0.01)),
        attempts,
        requests: !matches!(speaker, Speaker::RomB | Speaker::Bootcode),
        any_chaddr: speaker == Speaker::RomB,
    }
}

/// Whether this speaker boots from what it is offered; the others only want an address.
fn wants_boot(speaker: Speaker) -> bool {
    matches!(speaker, Speaker::RomB | Speaker::Bootcode | Speaker::Eeprom)
}

struct Offer {
    reply: Message,
    src: Ipv4Addr,
}

/// Asks for an address and, on a Raspberry Pi, for somewhere to boot from. `None` when the board gives up.
///
/// # Errors
/// When the interface is down.
pub async fn acquire(
    speaker: Speaker,
    pi: &Pi,
    nic: &mut Nic,
    rng: &mut Rng,
    speed: f64,
    log: &mut Recorder<'_>,
) -> Result<Option<Lease>, LinkError> {
    let patience = patience(speaker, speed);
    nic.configure(Ipv4Addr::UNSPECIFIED, None, None);
    let xid = speaker.xid(pi.mac, rng.next_u32());
    let (mut address, mut boot): (Option<Offer>, Option<Ipv4Addr>) = (None, None);
    let mut boot_has_menu = false;
    for attempt in 1..=patience.attempts {
        nic.broadcast(CLIENT, SERVER, &speaker.discover(pi, xid).encode())?;
        log.add(Event::Discover { xid, attempt });
        let deadline = Instant::now() + patience.retry;
        while let Some((reply, src)) = receive(nic, pi, xid, patience.any_chaddr, deadline).await? {
            if reply.kind() != Some(kind::OFFER) {
                continue;
            }
            let server = speaker.tftp_server(&reply, src);
            let menu = speaker.sees_boot_menu(&reply);
            log.add(event("OFFER", &reply, src, note(speaker, &reply, server)));
            // A reply with the menu outranks one that merely names a next server: with a proxy beside a router that
            // fills in siaddr, boards boot from the proxy (rpi-eeprom issues 376, 687).
            if server.is_some() && (boot.is_none() || (menu && !boot_has_menu)) {
                (boot, boot_has_menu) = (server, menu);
            }
            if !reply.yiaddr.is_unspecified() && address.is_none() {
                address = Some(Offer { reply, src });
            }
            let ready = boot.is_some() || !wants_boot(speaker);
            if let (Some(offer), true) = (&address, ready) {
                if !patience.requests {
                    return Ok(Some(lease(speaker, &offer.reply, offer.src, boot)));
                }
                if let Some(lease) = request(speaker, pi, nic, xid, offer, boot, patience, log).await? {
                    return Ok(Some(lease));
                }
                address = None;
                break;
            }
        }
    }
    Ok(None)
}

#[allow(clippy::too_many_arguments)]
async fn request(
    speaker: Speaker,
    pi: &Pi,
    nic: &mut Nic,
    xid: u32,
    offer: &Offer,
    boot: Option<Ipv4Addr>,
    patience: Patience,
    log: &mut Recorder<'_>,
) -> Result<Option<Lease>, LinkError> {
    let server = offer.reply.address(code::SERVER_ID).unwrap_or(offer.src);
    let message = speaker.request(pi, xid, offer.reply.yiaddr, server).encode();
    for _ in 0..3 {
        nic.broadcast(CLIENT, SERVER, &message)?;
        log.add(Event::Dhcp { kind: "REQUEST", server, ip: offer.reply.yiaddr, note: "please".into() });
        let deadline = Instant::now() + patience.retry;
        while let Some((reply, src)) = receive(nic, pi, xid, false, deadline).await? {
            match reply.kind() {
                Some(kind::ACK) if !reply.yiaddr.is_unspecified() => {
                    log.add(event("ACK", &reply, src, "address taken".into()));
                    return Ok(Some(lease(speaker, &reply, src, boot)));
                }
                Some(kind::NAK) => {
                    log.add(event("NAK", &reply, src, "starting over".into()));
                    return Ok(None);
                }
                _ => {}
            }
        }
    }
    Ok(None)
}

async fn receive(
    nic: &mut Nic,
    pi: &Pi,
    xid: u32,
    any_chaddr: bool,
    deadline: Instant,
) -> Result<Option<(Message, Ipv4Addr)>, LinkError> {
    while let Some(datagram) = nic.next(deadline).await? {
        if datagram.dst.port() != CLIENT {
            continue;
        }
        let Ok(reply) = parse(datagram.payload()) else { continue };
        if reply.op == 2 && reply.xid == xid && (any_chaddr || reply.chaddr == pi.mac) {
            return Ok(Some((reply, *datagram.src.ip())));
        }
    }
    Ok(None)
}

fn lease(speaker: Speaker, reply: &Message, src: Ipv4Addr, tftp: Option<Ipv4Addr>) -> Lease {
    let mut boot_options = Vec::new();
    if !wants_boot(speaker) {
        for code in [code::VENDOR_SPECIFIC, code::TFTP_SERVER, code::BOOT_FILE] {
            if let Some(value) = reply.option(code) {
                boot_options.push(format!("option {code} = {}", value.escape_ascii()));
            }
        }
        if !reply.file.is_empty() {
            boot_options.push(format!("file = {}", reply.file.escape_ascii()));
        }
    }
    Lease {
        ip: reply.yiaddr,
        mask: reply.address(code::SUBNET_MASK),
        gateway: reply.address(code::ROUTER),
        server: reply.address(code::SERVER_ID).unwrap_or(src),
        tftp,
        boot_options,
    }
}

fn event(kind: &'static str, reply: &Message, src: Ipv4Addr, note: String) -> Event {
    Event::Dhcp { kind, server: reply.address(code::SERVER_ID).unwrap_or(src), ip: reply.yiaddr, note }
}

fn note(speaker: Speaker, reply: &Message, server: Option<Ipv4Addr>) -> String {
    if !wants_boot(speaker) {
        return "an address".into();
    }
    match (server, reply.option(code::VENDOR_SPECIFIC)) {
        (Some(server), _) => format!("boot from {server}"),
        (None, Some(value)) if value.windows(17).any(|w| w == super::discover::PI_BOOT) => {
            "ignored: option 43 lacks the three spaces after \"Raspberry Pi Boot\"".into()
        }
        (None, Some(_)) => "no \"Raspberry Pi Boot\" in option 43".into(),
        (None, None) => "no option 43".into(),
    }
}
