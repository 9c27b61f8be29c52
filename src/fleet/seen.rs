//! Pis that were seen on the LAN, enrolled or not.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::pi::{self, Evidence, Identity, Mac, Model, Revision, Serial};

/// Pis remembered at most. Spoofed packets cannot grow memory or disk.
pub const MAX_SEEN: usize = 512;
/// Places that those have who asked only once, among them most of what is made up: they push out each other.
const NEWCOMERS: usize = 128;
/// Places of those who asked more than once and were here first. Nobody who comes later pushes them out.
const SENIORS: usize = 192;
/// A Pi that was not heard of for so long is no senior any more.
const SENIORITY_ENDS_MS: i64 = 30 * 24 * 3600 * 1000;
/// Whoever asks again after so long is no echo of the first time.
const AGAIN_AFTER_MS: i64 = 1000;
/// How long a Pi may be silent between two attempts: an EEPROM bootloader looks for other disks meanwhile.
const SAME_STREAK_MS: i64 = 90 * 1000;
/// That a known Pi was heard of again is stored no more often: one that asks for weeks must not write for weeks.
const STORE_EVERY_MS: i64 = 60 * 1000;

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
    /// How often it asked to boot.
    pub asked: u32,
    /// When it asked last, Unix time in ms.
    pub asked_ms: i64,
    /// Since when it has been asking without a break, Unix time in ms.
    #[serde(skip)]
    pub(super) asking_since_ms: i64,
    /// It has asked for an address in the way of a running system since.
    #[serde(skip)]
    pub(super) started: bool,
    /// When it was last marked to be stored.
    #[serde(skip)]
    pub(super) stored_ms: i64,
}

/// What a packet was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// It asks to boot.
    ToBoot,
    /// It asks for an address only: something runs on it.
    ForAnAddress,
    /// Neither.
    Nothing,
}

impl SeenPi {
    /// Its family, by the revision word where that is known.
    #[must_use]
    pub fn family(&self) -> Option<Model> {
        pi::family(self.revision, self.model)
    }

    pub(super) const fn new(mac: Mac, evidence: Evidence, now_ms: i64) -> Self {
        Self {
            mac,
            serial: None,
            revision: None,
            model: None,
            evidence,
            first_seen_ms: now_ms,
            last_seen_ms: now_ms,
            asked: 0,
            asked_ms: now_ms,
            asking_since_ms: now_ms,
            started: false,
            stored_ms: now_ms,
        }
    }

    /// What to call it: the board where the revision is known, else the family.
    #[must_use]
    pub fn board(&self) -> String {
        match (self.revision, self.model) {
            (Some(revision), _) => revision.to_string(),
            (None, Some(model)) => model.to_string(),
            // Boot ROM and bootcode.bin are the same on all of them.
            (None, None) if self.mac.follows_serial() => "Raspberry Pi (3+ or earlier)".to_owned(),
            (None, None) => "Raspberry Pi".to_owned(),
        }
    }

    /// Its memory, where it shows its revision.
    #[must_use]
    pub fn memory_mb(&self) -> Option<u32> {
        self.revision.and_then(|revision| revision.board().memory_mb)
    }

    /// What it has told so far, without how often.
    #[must_use]
    pub const fn told(&self) -> (Option<Serial>, Option<Revision>, Option<Model>, Evidence) {
        (self.serial, self.revision, self.model, self.evidence)
    }

    fn take(&mut self, identity: &Identity, asks: Asks, now_ms: i64) {
        self.serial = identity.serial.or(self.serial);
        self.revision = identity.revision.or(self.revision);
        let family = identity.revision.and_then(|revision| revision.board().model);
        self.model = family.or(identity.model).or(self.model);
        self.evidence = self.evidence.min(identity.evidence);
        self.last_seen_ms = now_ms;
        match asks {
            Asks::ToBoot => {
                if now_ms.saturating_sub(self.asked_ms) > SAME_STREAK_MS {
                    self.asking_since_ms = now_ms;
                }
                self.asked = self.asked.saturating_add(1);
                (self.asked_ms, self.started) = (now_ms, false);
            }
            Asks::ForAnAddress => self.started = true,
            Asks::Nothing => {}
        }
    }

    /// Asked more than once: what is made up hardly ever does.
    pub(super) const fn is_steady(&self) -> bool {
        self.asked >= 2 && self.asked_ms.saturating_sub(self.first_seen_ms) >= AGAIN_AFTER_MS
    }
}

/// What is to be stored.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unsaved {
    /// New, or changed.
    pub changed: Vec<SeenPi>,
    /// Made room for others.
    pub forgotten: Vec<Mac>,
}

impl Unsaved {
    /// Whether there is nothing to store.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.forgotten.is_empty()
    }
}

/// All Pis seen, and which of them changed since they were last stored.
#[derive(Debug, Default)]
pub struct Seen {
    pis: HashMap<Mac, SeenPi>,
    unsaved: HashSet<Mac>,
    forgotten: Vec<Mac>,
}

impl Seen {
    /// Starts with what the store remembers.
    #[must_use]
    pub fn new(pis: Vec<SeenPi>) -> Self {
        Self { pis: pis.into_iter().map(|pi| (pi.mac, pi)).collect(), ..Self::default() }
    }

    /// Takes an identity read from a packet; true if the Pi is new here or told something new. Where all places are taken,
    /// one whom `stays` does not name makes room.
    pub fn take(&mut self, identity: &Identity, asks: Asks, now_ms: i64, stays: impl Fn(&SeenPi) -> bool) -> bool {
        let mac = identity.mac;
        let is_new = !self.pis.contains_key(&mac);
        let newcomer = SeenPi::new(mac, identity.evidence, now_ms);
        if is_new && self.pis.len() >= MAX_SEEN {
            match self.who_goes(&stays, now_ms) {
                Some(goes) => self.forget(goes),
                None if stays(&newcomer) => {}
                None => return false,
            }
        }
        let pi = self.pis.entry(mac).or_insert(newcomer);
        let before = pi.told();
        pi.take(identity, asks, now_ms);
        let news = is_new || before != pi.told();
        if news || now_ms.saturating_sub(pi.stored_ms) >= STORE_EVERY_MS {
            self.mark(mac);
        }
        news
    }

    /// Newcomers beyond their share push out each other, then those who are neither newcomers nor seniors, by who was
    /// silent longest.
    fn who_goes(&self, stays: impl Fn(&SeenPi) -> bool, now_ms: i64) -> Option<Mac> {
        let others = self.pis.values().filter(|pi| !stays(pi));
        let (mut steady, newcomers): (Vec<_>, Vec<_>) = others.partition(|pi| pi.is_steady());
        // An address block alone is no reason to believe anything.
        let first_to_go = newcomers.iter().min_by_key(|pi| (Reverse(pi.evidence == Evidence::Oui), pi.last_seen_ms));
        if newcomers.len() >= NEWCOMERS {
            return first_to_go.map(|pi| pi.mac);
        }
        let is_old = |pi: &SeenPi| now_ms.saturating_sub(pi.last_seen_ms) > SENIORITY_ENDS_MS;
        steady.sort_by_key(|pi| (is_old(pi), pi.first_seen_ms));
        let juniors = steady.get(SENIORS..).unwrap_or_default();
        let silent = juniors.iter().min_by_key(|pi| pi.last_seen_ms);
        silent.or(first_to_go).or(steady.last()).map(|pi| pi.mac)
    }

    fn forget(&mut self, mac: Mac) {
        self.pis.remove(&mac);
        self.unsaved.remove(&mac);
        self.forgotten.push(mac);
    }

    /// The files a Pi asked for tell its board; true if that was news.
    pub fn learn_model(&mut self, mac: Mac, model: Model) -> bool {
        let Some(pi) = self.pis.get_mut(&mac).filter(|pi| pi.model.is_none()) else { return false };
        pi.model = Some(model);
        self.mark(mac);
        true
    }

    /// A Pi showed its serial over TFTP; true if that was news.
    pub fn learn_serial(&mut self, mac: Mac, serial: Serial) -> bool {
        let Some(pi) = self.pis.get_mut(&mac).filter(|pi| pi.serial != Some(serial)) else { return false };
        pi.serial = Some(serial);
        self.mark(mac);
        true
    }

    fn mark(&mut self, mac: Mac) {
        self.unsaved.insert(mac);
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

    /// This could not be stored: it comes again with the next [`Seen::take_unsaved`].
    pub fn keep_unsaved(&mut self, unsaved: Unsaved) {
        unsaved.changed.iter().for_each(|pi| self.mark(pi.mac));
        self.forgotten.extend(unsaved.forgotten);
    }

    /// What changed since the last call, to be stored.
    pub fn take_unsaved(&mut self) -> Unsaved {
        let mut changed = Vec::new();
        for mac in std::mem::take(&mut self.unsaved) {
            if let Some(pi) = self.pis.get_mut(&mac) {
                pi.stored_ms = pi.last_seen_ms;
                changed.push(pi.clone());
            }
        }
        let mut forgotten = std::mem::take(&mut self.forgotten);
        forgotten.retain(|mac| !self.pis.contains_key(mac));
        Unsaved { changed, forgotten }
    }
}

#[cfg(test)]
#[path = "seen_tests.rs"]
mod tests;
