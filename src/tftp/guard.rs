//! Bounded memory about clients: how often they ask, what was logged of them, which hardware address they hold.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Moment;
use crate::net::AddressBook;
use crate::pi::Mac;

/// Addresses remembered at most, by each of the tables here.
const MAX_ADDRESSES: usize = 1024;
/// How long the holder of an address is believed without asking again.
const HOLDER_BELIEVED: Duration = Duration::from_secs(2);
/// A refusal of one address is logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Who has transfers, for a fair share: one machine can take many addresses, but its hardware address is what the
/// kernel delivers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// The holder of the address.
    Machine(Mac),
    /// An address whose holder is not known, behind another router for example.
    Address(IpAddr),
}

/// A map that never holds more than [`MAX_ADDRESSES`]: the stalest entries go first.
#[derive(Debug)]
struct Bounded<K, V>(HashMap<K, (Moment, V)>);

impl<K: Hash + Eq + Copy, V> Bounded<K, V> {
    fn new() -> Self {
        Self(HashMap::new())
    }

    fn insert(&mut self, key: K, now: Moment, value: V) {
        if self.0.len() >= MAX_ADDRESSES && !self.0.contains_key(&key) {
            // Half at once, so that a flood of addresses does not pay for a scan with each of its packets.
            let mut moments: Vec<_> = self.0.values().map(|(at, _)| *at).collect();
            let (_, &mut median, _) = moments.select_nth_unstable(MAX_ADDRESSES / 2);
            self.0.retain(|_, (at, _)| *at > median);
        }
        self.0.insert(key, (now, value));
    }
}

/// A token bucket per address.
#[derive(Debug)]
pub(super) struct RateLimiter {
    per_second: u32,
    burst: u32,
    buckets: Bounded<IpAddr, f32>,
}

impl RateLimiter {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst, buckets: Bounded::new() }
    }

    /// Whether one more request of `ip` is within its share.
    pub(super) fn admit(&mut self, now: Moment, ip: IpAddr) -> bool {
        let (rate, burst) = (self.per_second as f32, self.burst as f32);
        let tokens = match self.buckets.0.get(&ip) {
            Some((at, tokens)) => (tokens + now.since(*at).as_secs_f32() * rate).min(burst),
            None => burst,
        };
        let admitted = tokens >= 1.0;
        self.buckets.insert(ip, now, if admitted { tokens - 1.0 } else { tokens });
        admitted
    }
}

/// Keeps one noisy client from filling the log.
#[derive(Debug)]
pub(super) struct LogLimiter(Bounded<IpAddr, ()>);

impl LogLimiter {
    pub(super) fn new() -> Self {
        Self(Bounded::new())
    }

    /// Whether something about `ip` may be logged now.
    pub(super) fn admit(&mut self, now: Moment, ip: IpAddr) -> bool {
        let silent = self.0.0.get(&ip).is_some_and(|(at, ())| now.since(*at) < LOG_INTERVAL);
        if !silent {
            self.0.insert(ip, now, ());
        }
        !silent
    }
}

/// Who holds an address, remembered for a moment: the kernel's answer costs a netlink round trip.
#[derive(Debug)]
pub(super) struct Holders {
    book: AddressBook,
    generation: u32,
    known: Bounded<IpAddr, Mac>,
}

impl Holders {
    pub(super) fn new(book: AddressBook) -> Self {
        Self { generation: book.generation(), book, known: Bounded::new() }
    }

    /// Whose share what `ip` does counts to.
    pub(super) fn client(&mut self, now: Moment, ip: IpAddr) -> Client {
        self.of(now, ip).map_or(Client::Address(ip), Client::Machine)
    }

    /// The holder of `ip`. That nobody is known is not remembered: a Pi's first request may race with DHCP's answer.
    pub(super) fn of(&mut self, now: Moment, ip: IpAddr) -> Option<Mac> {
        let generation = self.book.generation();
        if generation != self.generation {
            self.generation = generation;
            self.known.0.clear();
        }
        if let Some((at, mac)) = self.known.0.get(&ip)
            && now.since(*at) < HOLDER_BELIEVED
        {
            return Some(*mac);
        }
        let mac = self.book.mac_of(ip)?;
        self.known.insert(ip, now, mac);
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn requests_beyond_burst_and_rate_are_refused_per_address() {
        let clock = Clock::manual(0);
        let mut limiter = RateLimiter::new(10, 3);
        let mut admitted = |now, ip| (0..5).filter(|_| limiter.admit(now, ip)).count();
        assert_eq!(admitted(clock.now(), IP), 3);
        assert_eq!(admitted(clock.now(), OTHER), 3, "one address's flood is not another's");
        clock.advance(Duration::from_millis(200));
        assert_eq!(admitted(clock.now(), IP), 2);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(admitted(clock.now(), IP), 3, "no more than the burst");
    }

    #[test]
    fn tables_stay_bounded_and_forget_the_stalest() {
        let clock = Clock::manual(0);
        let mut limiter = LogLimiter::new();
        for n in 0..100_000_u32 {
            clock.advance(Duration::from_millis(1));
            assert!(limiter.admit(clock.now(), IpAddr::V4(n.into())));
            assert!(limiter.0.0.len() <= MAX_ADDRESSES);
        }
        assert!(!limiter.admit(clock.now(), IpAddr::V4(99_999.into())), "the newest is remembered");
    }

    #[test]
    fn one_log_line_per_minute_and_address() {
        let clock = Clock::manual(0);
        let mut limiter = LogLimiter::new();
        assert!(limiter.admit(clock.now(), IP));
        clock.advance(Duration::from_secs(59));
        assert!(!limiter.admit(clock.now(), IP));
        assert!(limiter.admit(clock.now(), OTHER));
        clock.advance(Duration::from_secs(2));
        assert!(limiter.admit(clock.now(), IP));
    }

    #[test]
    fn a_holder_is_forgotten_when_addresses_change() {
        let clock = Clock::manual(0);
        let book = AddressBook::observed_only();
        let mut holders = Holders::new(book.clone());
        let (first, second) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        assert_eq!(holders.of(clock.now(), IP), None);
        book.observe(IP, first);
        assert_eq!(holders.of(clock.now(), IP), Some(first));
        book.observe(IP, second);
        assert_eq!(holders.of(clock.now(), IP), Some(second));
    }
}
