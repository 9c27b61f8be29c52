//! Quotas of devices: from the configuration to the servers, and what is used of each.

use std::time::Duration;

use super::Fleet;
use super::usage::Look;
use crate::config::Device;
use crate::quota::{Doubt, Quota};

/// A census that could not be taken is tried again after this time, and after twice as long each time.
const AGAIN: Duration = Duration::from_secs(60);
/// How old what is known may be when somebody was refused room: it may not be up to date, and the Pi is stuck.
const STUCK: Duration = Duration::from_secs(600);
/// How old it may be while files change; and no census waits longer than this for the next try.
const DRIFTED: Duration = Duration::from_secs(3600);

/// What a device uses of its quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaUse {
    /// Bytes that it may use.
    pub limit: u64,
    /// Bytes that it uses.
    pub used: u64,
    /// How bad that is.
    pub level: QuotaLevel,
}

/// How much of a quota is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuotaLevel {
    /// Less than nine tenths.
    Well,
    /// Nearly all.
    NearlyFull,
    /// All, or the Pi was refused what it wanted more.
    Full,
}

impl QuotaUse {
    fn of(quota: &Quota) -> Option<Self> {
        let (limit, used) = quota.figures()?;
        let is_low = used >= limit - limit / 10;
        let level = match () {
            () if used >= limit || is_low && quota.has_refused() => QuotaLevel::Full,
            () if is_low => QuotaLevel::NearlyFull,
            () => QuotaLevel::Well,
        };
        Some(Self { limit, used, level })
    }

    /// `7.9 of its 8.0 GB`
    fn amount(&self) -> String {
        let (unit, name) = if self.limit >= 1_000_000_000 { (100_000_000, "GB") } else { (100_000, "MB") };
        let tenths = |bytes: u64| format!("{}.{}", bytes / unit / 10, bytes / unit % 10);
        format!("{} of its {} {name}", tenths(self.used), tenths(self.limit))
    }

    /// What is to be said of it, for people; `None` while all is well.
    #[must_use]
    pub fn warning(&self, id: &str) -> Option<String> {
        let amount = self.amount();
        let state = match self.level {
            QuotaLevel::Well => return None,
            QuotaLevel::NearlyFull => format!("Pi {id} has used {amount}"),
            QuotaLevel::Full => format!("Pi {id} has used {amount} and cannot write more"),
        };
        Some(format!("{state}: delete files on it or raise option quota ('piboot device edit {id} --quota SIZE')"))
    }
}

/// Whether a census should be begun: why, how many came to nothing in a row, and how long ago the last one was begun.
fn is_due(doubt: Doubt, failures: u32, since: Option<Duration>) -> bool {
    let age = match doubt {
        Doubt::None => return false,
        Doubt::Changed => DRIFTED,
        Doubt::Refused => STUCK,
        // Files that cannot be counted, by whatever their Pi does, are not gone through all the time.
        Doubt::Unknown => AGAIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(DRIFTED),
    };
    since.is_none_or(|since| since >= age)
}

/// The worst level since all was well: each is said once until then.
fn worst(before: QuotaLevel, now: QuotaLevel) -> QuotaLevel {
    if now == QuotaLevel::Well { now } else { now.max(before) }
}

impl Fleet {
    /// The quota of a configured device, with a limit or without.
    pub(super) fn quota(&self, id: &str) -> Quota {
        self.measured.quotas.get(id).cloned().unwrap_or_default()
    }

    /// What a device uses of its quota, once that is known; `None` where it has none.
    #[must_use]
    pub fn quota_use(&self, id: &str) -> Option<QuotaUse> {
        self.measured.quotas.get(id).and_then(QuotaUse::of)
    }

    /// How much of its quota a device has used that cannot write because of it.
    pub(super) fn quota_full(&self, id: &str) -> Option<String> {
        self.quota_use(id).filter(|quota| quota.level == QuotaLevel::Full).map(|quota| quota.amount())
    }

    /// Puts what is configured in force.
    pub(super) fn set_quotas(&mut self) {
        // Somebody else serves the roots then, and asks nobody here.
        let is_ours = self.config.main.nfs.external().is_none();
        let quotas = &mut self.measured.quotas;
        quotas.retain(|id, _| self.config.devices.iter().any(|device| device.id == *id));
        for device in &self.config.devices {
            // Who cannot write takes nothing.
            let writes = is_ours && !self.served.get(&device.id).is_some_and(|served| served.read_only);
            let limit = device.quota.map(|size| size.0).filter(|_| writes);
            quotas.entry(device.id.clone()).or_default().set_limit(limit);
        }
        self.measured.retain_failures();
    }

    /// Why the quota of a device is not kept.
    #[must_use]
    pub fn quota_problem(&self, device: &Device) -> Option<String> {
        if self.is_served_read_only(&device.id) {
            let why = "its root is ephemeral, and nothing that the Pi writes is on the disk";
            return device.quota.map(|quota| format!("quota '{quota}' has no effect: {why}"));
        }
        let external = self.config.main.nfs.external()?;
        device.quota.map(|quota| {
            format!(
                "quota '{quota}' has no effect: {} serves the roots, and piboot cannot limit what is written there; set a quota there, or nfs to 'builtin'",
                external.server
            )
        })
    }

    /// Why a device's quota does not hold, although it is to: nobody could count its files.
    #[must_use]
    pub fn quota_not_in_force(&self, id: &str) -> Option<String> {
        self.measured.quotas.get(id).filter(|quota| quota.has_limit() && quota.used().is_none())?;
        let failure = self.measured.failure(id)?;
        Some(format!("the quota of {id} is not in force: {}", failure.why))
    }

    /// Has files counted where it is not known well enough what they take, and says in the log whose quota runs out.
    pub fn keep_quotas(&mut self) {
        self.log_quotas();
        if !self.volume.is_present() {
            return;
        }
        let now = self.clock.now();
        let is_busy = self.measured.is_busy();
        let is_due = |id: &String, quota: &Quota| {
            let failures = self.measured.failure(id).map_or(0, |failure| failure.times);
            let since = self.measured.censuses.get(id).map(|begun| now.since(*begun));
            // Where nothing is known, nobody waits for all the images that somebody has measured.
            let has_time = !is_busy || quota.used().is_none();
            has_time && is_due(quota.doubt(), failures, since) && self.can_be_counted(id)
        };
        let quotas = self.measured.quotas.iter();
        let due: Vec<String> = quotas.filter(|(id, quota)| is_due(id, quota)).map(|(id, _)| id.clone()).collect();
        if due.is_empty() {
            return;
        }
        let looks: Vec<Look> = due.iter().map(|id| self.look_at_device(id)).collect();
        self.measured.look(looks, self.clock.wall_ms());
        self.measured.censuses.extend(due.into_iter().map(|id| (id, now)));
    }

    /// What a job works on is counted when it is done.
    pub(super) fn can_be_counted(&self, id: &str) -> bool {
        self.served.contains_key(id) && self.claimed(id).is_none()
    }

    fn log_quotas(&mut self) {
        let uses: Vec<(String, QuotaUse)> =
            self.measured.quotas.iter().filter_map(|(id, quota)| Some((id.clone(), QuotaUse::of(quota)?))).collect();
        let said = &mut self.measured.quotas_said;
        said.retain(|id, _| uses.iter().any(|(other, _)| other == id));
        for (id, now) in uses {
            let before = said.get(&id).copied().unwrap_or(QuotaLevel::Well);
            if let Some(warning) = now.warning(&id).filter(|_| now.level > before) {
                log::warn!("{warning}");
            }
            said.insert(id, worst(before, now.level));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_quota_names_figures_and_a_cure() {
        let of = |used, limit, level| QuotaUse { limit, used, level };
        assert_eq!(of(1, 2, QuotaLevel::Well).warning("lion"), None);
        let said = of(7_950_000_000, 8_000_000_000, QuotaLevel::NearlyFull).warning("lion").unwrap();
        assert!(
            said.starts_with("Pi lion has used 7.9 of its 8.0 GB: delete files on it or raise option quota"),
            "{said}"
        );
        let said = of(64_000_000, 64_000_000, QuotaLevel::Full).warning("lion").unwrap();
        assert!(said.starts_with("Pi lion has used 64.0 of its 64.0 MB and cannot write more: "), "{said}");
    }

    #[test]
    fn a_census_is_due_the_sooner_the_less_is_known() {
        let due_after = |doubt, failures| {
            assert_eq!(is_due(doubt, failures, None), doubt != Doubt::None, "never counted");
            (0..100_000).find(|seconds| is_due(doubt, failures, Some(Duration::from_secs(*seconds))))
        };
        for (doubt, failures, seconds) in [
            (Doubt::None, 0, None),
            (Doubt::None, 9, None),
            (Doubt::Changed, 0, Some(3600)),
            (Doubt::Refused, 0, Some(600)),
            (Doubt::Unknown, 0, Some(60)),
            (Doubt::Unknown, 1, Some(60)),
            (Doubt::Unknown, 2, Some(120)),
            (Doubt::Unknown, 6, Some(1920)),
            (Doubt::Unknown, 7, Some(3600)),
            (Doubt::Unknown, u32::MAX, Some(3600)),
        ] {
            assert_eq!(due_after(doubt, failures), seconds, "{doubt:?} {failures}");
        }
    }

    #[test]
    fn a_level_is_said_once_until_all_was_well() {
        use QuotaLevel::{Full, NearlyFull, Well};
        let mut before = Well;
        let said =
            [Well, NearlyFull, Full, NearlyFull, Full, NearlyFull, Well, Full, NearlyFull, Full, Well, NearlyFull]
                .into_iter()
                .filter(|now| {
                    let is_said = *now > before;
                    before = worst(before, *now);
                    is_said
                });
        assert_eq!(said.collect::<Vec<_>>(), [NearlyFull, Full, Full, NearlyFull]);
    }

    #[test]
    fn a_quota_is_nearly_full_from_nine_tenths_on() {
        use crate::quota::FileId;
        let quota = Quota::new(Some(1000));
        assert_eq!(QuotaUse::of(&quota), None, "nobody has counted");
        for (takes, level) in [
            (0, QuotaLevel::Well),
            (899, QuotaLevel::Well),
            (900, QuotaLevel::NearlyFull),
            (1000, QuotaLevel::Full),
            (5000, QuotaLevel::Full),
        ] {
            let census = quota.census();
            assert!(census.find(FileId { device: 1, inode: 1 }, takes));
            census.end();
            assert_eq!(QuotaUse::of(&quota).unwrap().level, level, "{takes}");
        }
        let census = quota.census();
        assert!(census.find(FileId { device: 1, inode: 1 }, 950));
        census.end();
        assert!(quota.has_room(51).is_err());
        quota.refuse();
        assert_eq!(QuotaUse::of(&quota).unwrap().level, QuotaLevel::Full, "what the Pi wants does not fit");
    }
}
