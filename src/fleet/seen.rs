//! Pis that were seen on the LAN, enrolled or not.

use std::collections::HashMap;

use serde::Serialize;

use crate::pi::{Evidence, Identity, Mac, Model, Revision, Serial};

/// Pis remembered at most; the ones seen least recently make room. Spoofed packets cannot grow memory or disk.
pub const MAX_SEEN: usize = 512;

/// A Pi as it showed itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeenPi {
    /// Hardware address.
    pub mac: Mac,
    /// Low half of the serial, once known.
    pub serial: Option<Serial>,
    /// Board revision, once known.
    pub revision: Option<Revision>,
    /// Board family, once known.
    pub model: Option<Model>,
    /// The best reason to believe that it is a Pi.
    pub evidence: Evidence,
    /// Unix time in ms.
    pub first_seen_ms: i64,
    /// Unix time in ms.
    pub last_seen_ms: i64,
}

impl SeenPi {
    /// Its family, by the revision word where that is known.
    #[must_use]
    pub fn family(&self) -> Option<Model> {
        self.revision.and_then(|revision| revision.board().model).or(self.model)
    }

    /// What to call it: the board where the revision is known, else the family.
    #[must_use]
    pub fn board(&self) -> String {
        match (self.revision, self.model) {
            (Some(revision), _) => revision.to_string(),
            (None, Some(model)) => model.to_string(),
            (None, None) => "Raspberry Pi".to_owned(),
        }
    }
}

/// All Pis seen, and which of them changed since they were last stored.
#[derive(Debug, Default)]
pub struct Seen {
    pis: HashMap<Mac, SeenPi>,
    unsaved: Vec<Mac>,
}

impl Seen {
    /// Starts with what the store remembers.
    #[must_use]
    pub fn new(pis: Vec<SeenPi>) -> Self {
        Self { pis: pis.into_iter().map(|pi| (pi.mac, pi)).collect(), unsaved: Vec::new() }
    }

    /// Takes an identity read from a packet; true if the Pi is new here or told something new.
    pub fn take(&mut self, identity: &Identity, now_ms: i64) -> bool {
        let is_new = !self.pis.contains_key(&identity.mac);
        if is_new && self.pis.len() >= MAX_SEEN {
            // Weak evidence goes first, so that a flood of made-up addresses pushes out itself and not a real Pi.
            let oldest =
                self.pis.values().min_by_key(|pi| (std::cmp::Reverse(pi.evidence), pi.last_seen_ms)).map(|pi| pi.mac);
            oldest.and_then(|mac| self.pis.remove(&mac));
        }
        let pi = self.pis.entry(identity.mac).or_insert_with(|| SeenPi {
            mac: identity.mac,
            serial: None,
            revision: None,
            model: None,
            evidence: identity.evidence,
            first_seen_ms: now_ms,
            last_seen_ms: now_ms,
        });
        let before = (pi.serial, pi.revision, pi.model);
        pi.serial = identity.serial.or(pi.serial);
        pi.revision = identity.revision.or(pi.revision);
        pi.model = identity.model.or(pi.model);
        pi.evidence = pi.evidence.min(identity.evidence);
        pi.last_seen_ms = now_ms;
        let news = is_new || before != (pi.serial, pi.revision, pi.model);
        self.mark(identity.mac);
        news
    }

    /// A Pi showed its serial over TFTP; true if that was news.
    pub fn learn_serial(&mut self, mac: Mac, serial: Serial) -> bool {
        let Some(pi) = self.pis.get_mut(&mac).filter(|pi| pi.serial != Some(serial)) else { return false };
        pi.serial = Some(serial);
        self.mark(mac);
        true
    }

    fn mark(&mut self, mac: Mac) {
        if !self.unsaved.contains(&mac) {
            self.unsaved.push(mac);
        }
    }

    /// The Pi with this address.
    #[must_use]
    pub fn get(&self, mac: Mac) -> Option<&SeenPi> {
        self.pis.get(&mac)
    }

    /// The Pis that claim this serial; more than one only if somebody lies.
    #[must_use]
    pub fn by_serial(&self, serial: Serial) -> Vec<&SeenPi> {
        self.pis.values().filter(|pi| pi.serial == Some(serial)).collect()
    }

    /// All of them, those seen last first.
    #[must_use]
    pub fn list(&self) -> Vec<&SeenPi> {
        let mut pis: Vec<_> = self.pis.values().collect();
        pis.sort_by_key(|pi| (std::cmp::Reverse(pi.last_seen_ms), pi.mac));
        pis
    }

    /// These could not be stored: they come again with the next [`Seen::take_unsaved`].
    pub fn keep_unsaved(&mut self, pis: &[SeenPi]) {
        pis.iter().for_each(|pi| self.mark(pi.mac));
    }

    /// What changed since the last call, to be stored.
    pub fn take_unsaved(&mut self) -> Vec<SeenPi> {
        let macs = std::mem::take(&mut self.unsaved);
        macs.iter().filter_map(|mac| self.pis.get(mac).cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(n: u16, evidence: Evidence) -> Identity {
        let [high, low] = n.to_be_bytes();
        Identity { mac: Mac([0xb8, 0x27, 0xeb, 0, high, low]), serial: None, revision: None, model: None, evidence }
    }

    #[test]
    fn knowledge_only_grows() {
        let mut seen = Seen::default();
        let rom = Identity { model: Some(Model::Pi3), ..identity(1, Evidence::RomXid) };
        assert!(seen.take(&rom, 10));
        assert!(seen.learn_serial(rom.mac, Serial(5)) && !seen.learn_serial(rom.mac, Serial(5)));
        assert!(!seen.take(&identity(1, Evidence::Oui), 20));
        let pi = seen.get(rom.mac).unwrap();
        assert_eq!((pi.serial, pi.model, pi.evidence), (Some(Serial(5)), Some(Model::Pi3), Evidence::RomXid));
        assert_eq!((pi.first_seen_ms, pi.last_seen_ms), (10, 20));
        assert_eq!(seen.take_unsaved().len(), 1);
        assert!(seen.take_unsaved().is_empty());
    }

    #[test]
    fn made_up_addresses_do_not_push_out_a_real_pi() {
        let mut seen = Seen::default();
        let real = identity(0, Evidence::Guid);
        seen.take(&real, 0);
        for n in 1..5000 {
            seen.take(&identity(n, Evidence::Oui), i64::from(n));
        }
        assert_eq!(seen.list().len(), MAX_SEEN);
        assert!(seen.get(real.mac).is_some());
    }
}
