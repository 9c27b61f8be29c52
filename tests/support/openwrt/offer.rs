//! Asking dnsmasq for an address, and what comes back, byte for byte.

use std::time::{Duration, Instant};

use emupi::dhcp::{self, Message, discover::Speaker, kind};
use emupi::nic::{Nic, Style};
use emupi::{Link, Pi};

/// When a client asks again: a dnsmasq that is just being restarted hears nothing.
const AGAIN: Duration = Duration::from_secs(2);

/// An OFFER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The message as it came.
    pub bytes: Vec<u8>,
    /// The same, read.
    pub message: Message,
}

impl Offer {
    /// Every value of an option, one for each time it is there: a client may take the first or the last.
    pub fn values(&self, code: u8) -> Vec<Vec<u8>> {
        // After the fixed part and the cookie (RFC 2131 §2, §3).
        let (mut values, mut rest) = (Vec::new(), &self.bytes[240..]);
        while let [found, tail @ ..] = rest
            && *found != 255
        {
            rest = match (found, tail) {
                (0, _) => tail,
                (_, [len, tail @ ..]) => {
                    let (value, tail) = tail.split_at(usize::from(*len));
                    if *found == code {
                        values.push(value.to_vec());
                    }
                    tail
                }
                (_, []) => panic!("option {found} is cut off"),
            };
        }
        values
    }

    /// The only value of an option, `None` if it is not there.
    #[track_caller]
    pub fn only(&self, code: u8) -> Option<Vec<u8>> {
        let mut values = self.values(code);
        assert!(values.len() < 2, "option {code} more than once: {values:02x?}");
        values.pop()
    }
}

/// Sends the first DISCOVER of a machine; the OFFER, if one comes in time.
pub fn ask(link: &Link, pi: &Pi, limit: Duration) -> Option<Offer> {
    let speaker = Speaker::first(pi.model);
    ask_with(link, &speaker.discover(pi, speaker.xid(pi.mac, 0x1234_5678)), limit)
}

/// Sends any DISCOVER, again every two seconds; the OFFER, if one comes in time.
pub fn ask_with(link: &Link, discover: &Message, limit: Duration) -> Option<Offer> {
    let style = Style { ttl: 64, checksum: true, answers_arp: false };
    let mut nic = Nic::new(link.attach(discover.chaddr).unwrap(), style);
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        nic.broadcast(68, 67, &discover.encode()).unwrap();
        let again = deadline.min(Instant::now() + AGAIN);
        while let Some(answer) = nic.receive(again).unwrap() {
            let Ok(message) = dhcp::parse(answer.payload()) else { continue };
            if message.xid == discover.xid && message.chaddr == discover.chaddr && message.kind() == Some(kind::OFFER) {
                return Some(Offer { bytes: answer.payload().to_vec(), message });
            }
        }
    }
    None
}
