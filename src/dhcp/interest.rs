//! Which DHCP messages concern a Pi, and how many of them may.
//!
//! Anybody on the LAN can ask under thousands of made-up addresses a second. What is let through here costs memory, time
//! and places in lists further on; so a flood ends here, and a real Pi must get through beside it. What tells the two apart
//! is that a Pi asks again under the same address within seconds.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Moment;
use crate::events::{Dhcp, DhcpKind};
use crate::pace::Pace;
use crate::pi::Mac;

/// Strangers remembered, so that their later DHCP traffic (which carries no mark of a Pi) is theirs.
const MAX_RECOGNISED: usize = 1024;
/// Messages about one address that are looked at: a boot has about 16, a Pi that nobody answers asks every 4 s.
const ONE: (u32, u32) = (64, 4);
/// Messages about all strangers together.
const ALL: (u32, u32) = (512, 64);
/// Strangers that are let in at first sight: a classroom is switched on at once.
const AT_FIRST_SIGHT: (u32, u32) = (64, 1);
/// Strangers that are let in because they asked before, while too many ask.
const AT_SECOND_SIGHT: (u32, u32) = (64, 8);
/// Marks of who was turned away; with 10 000 new ones a second a mark lasts for some 13 s.
const MARKS: usize = 1 << 17;
/// So many turned away are a flood.
const FLOOD: u32 = 100;
/// A flood is over when nobody was turned away for so long.
const FLOOD_ENDS: Duration = Duration::from_secs(60);

/// Decides which DHCP messages are of interest; shared by the sockets of all interfaces.
#[derive(Debug, Clone, Default)]
pub struct Interest(Arc<Mutex<Known>>);

#[derive(Debug)]
struct Known {
    enrolled: HashMap<Mac, Pace>,
    recognised: HashMap<Mac, Stranger>,
    all: Pace,
    at_first_sight: Pace,
    at_second_sight: Pace,
    marks: Marks,
    /// How many were turned away in the flood that goes on, or went on last, and when the last of them.
    turned_away: (u32, Moment),
}

#[derive(Debug)]
struct Stranger {
    pace: Pace,
    last: Moment,
}

impl Default for Known {
    fn default() -> Self {
        let pace = |(burst, per_second): (u32, u32)| Pace::new(burst, per_second, Moment::default());
        Self {
            enrolled: HashMap::new(),
            recognised: HashMap::new(),
            all: pace(ALL),
            at_first_sight: pace(AT_FIRST_SIGHT),
            at_second_sight: pace(AT_SECOND_SIGHT),
            marks: Marks::default(),
            turned_away: (0, Moment::default()),
        }
    }
}

impl Interest {
    /// Replaces the enrolled hardware addresses.
    pub fn set_enrolled(&self, macs: impl IntoIterator<Item = Mac>) {
        let mut known = self.known();
        let fresh = Pace::new(ONE.0, ONE.1, Moment::default());
        known.enrolled = macs.into_iter().map(|mac| (mac, fresh)).collect();
    }

    /// Whether a message that came at `now` concerns a Pi and is to be looked at. Remembers those that gave themselves
    /// away by asking to boot; a Pi that only wants an address has started from somewhere else.
    #[must_use]
    pub fn concerns_a_pi(&self, message: &Dhcp, now: Moment) -> bool {
        let asks = message.kind == DhcpKind::Discover && message.netboot && message.identity.is_some();
        self.known().takes(message.mac, asks, now)
    }

    /// Whether this is the address of a Pi: enrolled, or seen asking to boot.
    #[must_use]
    pub fn knows(&self, mac: Mac) -> bool {
        let known = self.known();
        known.enrolled.contains_key(&mac) || known.recognised.contains_key(&mac)
    }

    /// How many messages were turned away in a flood that goes on at `now`.
    #[must_use]
    pub fn flood(&self, now: Moment) -> Option<u32> {
        let (count, last) = self.known().turned_away;
        (count >= FLOOD && now.since(last) < FLOOD_ENDS).then_some(count)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn takes(&mut self, mac: Mac, asks: bool, now: Moment) -> bool {
        if let Some(pace) = self.enrolled.get_mut(&mac) {
            return pace.take(now);
        }
        if let Some(stranger) = self.recognised.get_mut(&mac) {
            stranger.last = now;
            return stranger.pace.take(now) && self.all.take(now);
        }
        if !asks {
            return false;
        }
        if !self.lets_in(mac, now) {
            let (count, last) = self.turned_away;
            let count = if now.since(last) < FLOOD_ENDS { count.saturating_add(1) } else { 1 };
            self.turned_away = (count, now);
            return false;
        }
        if self.recognised.len() >= MAX_RECOGNISED {
            let silent = self.recognised.iter().min_by_key(|(_, stranger)| stranger.last).map(|(mac, _)| *mac);
            silent.and_then(|mac| self.recognised.remove(&mac));
        }
        let mut pace = Pace::new(ONE.0, ONE.1, now);
        pace.take(now);
        self.recognised.insert(mac, Stranger { pace, last: now });
        true
    }

    fn lets_in(&mut self, mac: Mac, now: Moment) -> bool {
        if self.at_first_sight.is_full(now) {
            self.marks.forget();
        }
        self.at_first_sight.take(now) || self.marks.mark(mac) && self.at_second_sight.take(now)
    }
}

/// Who was turned away: one place for many addresses, the last of which stays. Empty, and without memory, in calm times.
#[derive(Debug, Default)]
struct Marks {
    /// Keyed by chance: nobody can choose addresses that wipe out another's mark.
    hasher: RandomState,
    marks: Box<[u16]>,
}

impl Marks {
    /// Marks an address; true if it was marked before.
    fn mark(&mut self, mac: Mac) -> bool {
        if self.marks.is_empty() {
            self.marks = vec![0; MARKS].into_boxed_slice();
        }
        let hash = self.hasher.hash_one(mac);
        let [a, b, .., y, z] = hash.to_be_bytes();
        let place = usize::try_from(hash >> 16 & 0xffff_ffff).unwrap_or(0) % MARKS;
        // Zero means that nobody is there.
        let mark = u16::from_be_bytes([a ^ y, b ^ z]).max(1);
        self.marks.get_mut(place).is_some_and(|old| std::mem::replace(old, mark) == mark)
    }

    fn forget(&mut self) {
        self.marks = Box::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pi::{Evidence, Identity};

    fn at(ms: u64) -> Moment {
        Moment::new(Duration::from_millis(ms))
    }

    fn message(n: u32, asks: bool) -> Dhcp {
        let [_, a, b, c] = n.to_be_bytes();
        let mac = Mac([0xb8, 0x27, 0xeb, a, b, c]);
        let identity =
            asks.then_some(Identity { mac, serial: None, revision: None, model: None, evidence: Evidence::Guid });
        Dhcp {
            mac,
            kind: DhcpKind::Discover,
            xid: 1,
            ip: None,
            netboot: asks,
            identity,
            hostname: None,
            server: None,
            boot_menu: false,
            tftp: None,
        }
    }

    #[test]
    fn what_asked_to_boot_once_or_is_enrolled_stays_of_interest() {
        let interest = Interest::default();
        assert!(!interest.concerns_a_pi(&message(1, false), at(0)));
        let from_its_card = Dhcp { netboot: false, ..message(1, true) };
        assert!(!interest.concerns_a_pi(&from_its_card, at(0)), "it has started already");
        assert!(interest.concerns_a_pi(&message(1, true), at(0)));
        assert!(interest.concerns_a_pi(&message(1, false), at(0)), "the kernel's DHCP has no mark of a Pi");
        interest.set_enrolled([message(2, false).mac]);
        assert!(interest.concerns_a_pi(&message(2, false), at(0)));
        assert!(interest.knows(message(1, false).mac) && interest.knows(message(2, false).mac));
        assert!(!interest.knows(message(3, false).mac));
    }

    /// 10 000 made-up Pis a second for `seconds`, every 4 s a DISCOVER of a real one; what got through of either.
    fn flood(interest: &Interest, real: u32, seconds: u64) -> (usize, usize) {
        let (mut made_up, mut got_through) = (0, 0);
        for ms in 0..seconds * 1000 {
            for n in 0..10 {
                let number = u32::try_from(ms * 10 + n).unwrap() + 1000;
                made_up += usize::from(interest.concerns_a_pi(&message(number, true), at(ms)));
            }
            if ms % 4000 == 500 {
                got_through += usize::from(interest.concerns_a_pi(&message(real, true), at(ms)));
            }
        }
        (made_up, got_through)
    }

    #[test]
    fn a_flood_lets_few_through_and_a_real_pi_beside_it() {
        // By chance a mark may be gone when a Pi asks again: that of each of nine times would be one in ten million.
        let interest = Interest::default();
        let (made_up, real) = flood(&interest, 1, 40);
        assert!(made_up < 64 + 40 * (1 + 2), "{made_up}");
        assert!(real >= 1, "a Pi that asks in the middle of it");
        assert!(interest.knows(message(1, false).mac));
        assert!(interest.flood(at(41_000)).is_some_and(|count| count > 100_000));
        assert!(interest.flood(at(141_000)).is_none());
        assert!(interest.known().recognised.len() <= MAX_RECOGNISED);
        // In calm times nobody is asked to come again, and the marks take no memory.
        assert!(interest.concerns_a_pi(&message(2, true), at(141_000)));
        assert!(interest.known().marks.marks.is_empty());
    }

    #[test]
    fn one_that_repeats_itself_all_the_time_is_slowed_down_and_others_are_not() {
        let interest = Interest::default();
        interest.set_enrolled([message(1, false).mac]);
        for who in [1, 2] {
            let through = (0..10_000).filter(|ms| interest.concerns_a_pi(&message(who, true), at(*ms))).count();
            assert!((80..120).contains(&through), "{who}: {through}");
        }
        assert!(interest.concerns_a_pi(&message(3, true), at(10_000)));
    }

    #[test]
    fn a_classroom_that_nobody_enrolled_is_seen_within_seconds() {
        let interest = Interest::default();
        let seen = |ms| (0..150).filter(|n| interest.concerns_a_pi(&message(*n, true), at(ms))).count();
        assert_eq!(seen(0), 64);
        assert!(seen(4000) > 120);
        assert_eq!(seen(8000), 150);
    }
}
