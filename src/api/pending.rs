//! The Pis that ask to boot and nobody enrolled.

use super::types::PendingInfo;
use super::{Api, Servers};
use crate::config::UnknownPolicy;
use crate::fleet::SeenPi;

impl<S: Servers> Api<S> {
    /// The Pis that ask to boot and nobody enrolled, those seen last first.
    pub(crate) fn strangers(&self) -> impl Iterator<Item = &SeenPi> {
        let config = self.fleet.config();
        let shown = config.main.unknown != UnknownPolicy::Ignore;
        let enrolled = |pi: &SeenPi| config.devices.iter().any(|device| device.is(pi.mac, pi.serial));
        self.fleet.seen().list().into_iter().filter(move |pi| shown && !enrolled(pi))
    }

    pub(super) fn pending(&self) -> Vec<PendingInfo> {
        let now_ms = self.fleet.clock().wall_ms();
        self.strangers().map(|pi| self.pending_info(pi, now_ms)).collect()
    }

    pub(crate) fn pending_info(&self, pi: &SeenPi, now_ms: i64) -> PendingInfo {
        let mut info = PendingInfo::new(pi, now_ms);
        if self.fleet.enrols_by_itself(pi) && self.fleet.automatic_problem().is_none() {
            info.waits_for = "asks to boot; it is enrolled by itself when it asks again".to_owned();
        }
        info
    }
}

impl PendingInfo {
    /// What is told of a Pi at `now_ms` (Unix time in ms).
    #[must_use]
    pub fn new(pi: &SeenPi, now_ms: i64) -> Self {
        let outlook = pi.outlook(now_ms);
        Self {
            mac: pi.mac,
            serial: pi.serial,
            board: pi.board(),
            model: pi.model,
            memory_mb: pi.memory_mb(),
            evidence: pi.evidence,
            sure: pi.evidence.text().to_owned(),
            waits_for: outlook.waits_for,
            asked: pi.asked,
            asks_again: outlook.asks_again,
            next: outlook.next,
            first_seen_ms: pi.first_seen_ms,
            last_seen_ms: pi.last_seen_ms,
        }
    }
}
