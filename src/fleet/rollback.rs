//! Rolling back by itself: a device whose boots fail one after the other becomes what it was in its newest snapshot, once.

use super::at_rest::Plan;
use super::record::{DeviceRecord, RolledBack};
use super::{BEFORE_ROLLBACK, Fleet};
use crate::boot::{Boot, BootEnd, BootState, Stage};
use crate::config::{self, RootKind};
use crate::pi::Mac;

/// Boots among which one that came up is looked for.
const LOOK_BACK: u32 = 100;

impl Fleet {
    /// A boot of this Pi is over: if it was one too many that failed, its device is rolled back. True if that began.
    pub(super) fn roll_back_if_it_fails(&mut self, mac: Mac) -> bool {
        let device = self.config.devices.iter().find(|d| d.mac == Some(mac) && d.rollback_after > 0);
        let Some(device) = device.cloned() else { return false };
        let (id, wanted) = (&device.id, device.rollback_after);
        let Ok(Some(record)) = DeviceRecord::load(&self.layout.device(id)) else { return false };
        let boots = match self.store.boots(Some(mac), LOOK_BACK) {
            Ok(boots) => boots,
            Err(error) => {
                self.note_store_problem(Some(error.to_string()));
                return false;
            }
        };
        // Boots that the router itself failed are nothing against the files.
        let Some(served_since) = self.served_since.get(id) else { return false };
        if !has_failed(&boots, id, wanted, record.rolled_back.as_ref(), record.made_ms.max(*served_since)) {
            return false;
        }
        let newest = self.snapshots(id).into_iter().rfind(|snapshot| snapshot.name != BEFORE_ROLLBACK);
        let Some(snapshot) = newest else {
            log::warn!("{id}: {wanted} boots in a row failed, and there is no snapshot to go back to");
            return false;
        };
        let begun = self
            .at_rest(id, Plan::NotMounted)
            .and_then(|device| self.begin_rollback(&device, &snapshot.name, false, wanted));
        let job = match begun {
            Ok(job) => job,
            Err(error) => {
                log::warn!("{id}: {wanted} boots in a row failed, but it is not rolled back: {error}");
                return false;
            }
        };
        let note = format!("{wanted} boots in a row failed: it is rolled back to snapshot {}", snapshot.name);
        log::warn!("{id}: {note} (job {job})");
        let now = self.clock.now();
        if let Some(boot) = self.tracker.boot_mut(mac) {
            boot.on_quirk(now, "rollback_after", &note);
            boot.unsaved = true;
        }
        true
    }

    /// The device's files are those of a snapshot now.
    pub(super) fn after_rollback(&mut self, id: &str) {
        self.failed.remove(id);
        self.follow_record(id);
    }

    /// A device's files are others now, perhaps of another image: the configuration follows.
    pub(super) fn follow_record(&mut self, id: &str) {
        let Ok(Some(record)) = DeviceRecord::load(&self.layout.device(id)) else { return };
        if let Some(kind) = self.other_kind(id, &record)
            && let Err(error) = self.configure_root(id, kind)
        {
            log::error!("cannot note how the root of {id} was made: {error}");
        }
        let Some(device) = self.config.devices.iter_mut().find(|d| d.id == id) else { return };
        if device.image == record.image {
            return;
        }
        log::info!("{id} is of image {} now, as its files are", record.image);
        device.image.clone_from(&record.image);
        let image = [("image", config::Setting::One(record.image))];
        if let Err(error) = self.edit_config(|text| config::set_options(text, id, &image)) {
            log::error!("cannot note the image of {id}: {error}");
        }
    }

    /// How the root of a device came to be, if that is to be written to and is not, or the other way round.
    fn other_kind(&self, id: &str, record: &DeviceRecord) -> Option<RootKind> {
        let wanted = self.config.device(id)?.root == RootKind::Ephemeral;
        match (wanted, record.is_ephemeral()) {
            (false, true) => Some(RootKind::Ephemeral),
            (true, false) => Some(RootKind::Auto),
            _ => None,
        }
    }

    /// That a device's root is of another kind than is configured: whoever thinks that changes stay, or go, is wrong.
    #[must_use]
    pub fn root_note(&self, id: &str) -> Option<String> {
        let record = DeviceRecord::load(&self.layout.device(id)).ok().flatten()?;
        let kind = self.other_kind(id, &record)?;
        let (is, what) = match kind {
            RootKind::Ephemeral => ("is ephemeral", "what it changes is gone at its next boot"),
            _ => ("is its own", "what it changes stays"),
        };
        let configured = self.config.device(id)?.root.word();
        Some(format!(
            "its root {is}: {what}. option root is '{configured}' by now, which a new root follows ('piboot device reset {id}')"
        ))
    }

    /// What there is to say about rolling a device back: what was done unasked, and what could not be.
    #[must_use]
    pub fn rollback_notes(&self, id: &str) -> Vec<String> {
        let mut notes = Vec::new();
        let snapshots = self.snapshots(id);
        let record = DeviceRecord::load(&self.layout.device(id)).ok().flatten();
        if let Some(RolledBack { to, after_failed, .. }) = record.and_then(|record| record.rolled_back)
            && after_failed > 0
            && snapshots.iter().any(|snapshot| snapshot.name == BEFORE_ROLLBACK)
        {
            notes.push(format!(
                "{after_failed} boots in a row failed, and it was rolled back to snapshot {to}. What it was is snapshot {BEFORE_ROLLBACK}: look into it, or remove it ('piboot snapshot remove {id} {BEFORE_ROLLBACK}')"
            ));
        }
        let wants = self.config.device(id).is_some_and(|device| device.rollback_after > 0);
        if wants && !snapshots.iter().any(|snapshot| snapshot.name != BEFORE_ROLLBACK) {
            notes.push(format!(
                "it is to be rolled back when its boots fail, and has no snapshot: take one while it works ('piboot snapshot take {id}')"
            ));
        }
        notes
    }
}

/// Whether the last `wanted` boots (newest first) of device `id` failed, all of them since its files are what they are, and
/// it was not rolled back for that already.
fn has_failed(boots: &[Boot], id: &str, wanted: u32, before: Option<&RolledBack>, made_ms: i64) -> bool {
    let since = before.map_or(made_ms, |before| before.at_ms.max(made_ms));
    let is_over = |boot: &&Boot| matches!(boot.state, BootState::Stopped | BootState::Abandoned);
    let own: Vec<&Boot> = boots
        .iter()
        .filter(|boot| boot.device.as_deref() == Some(id) && boot.started_ms > since)
        .filter(is_over)
        .collect();
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    // A snapshot that does not boot either is not tried for ever.
    let once = before.is_none_or(|before| before.after_failed == 0) || own.iter().any(|boot| came_up(boot));
    once && own.len() >= wanted && own.iter().take(wanted).all(|boot| !came_up(boot))
}

/// Whether a boot came to a running system, or was ended by one.
fn came_up(boot: &Boot) -> bool {
    boot.reached(Stage::Ready) || matches!(boot.end, Some(BootEnd::ShutDown | BootEnd::Rebooted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::StageSeen;

    fn boot(started_ms: i64, what: char) -> Boot {
        let mac = "dc:a6:32:00:00:01".parse().unwrap();
        let mut boot = Boot::new(mac, Some("lion".to_owned()), crate::clock::Clock::manual(0).now(), started_ms);
        (boot.state, boot.end) = match what {
            'r' => (BootState::Booting, None),
            'd' => (BootState::Stopped, Some(BootEnd::ShutDown)),
            'x' => (BootState::Stopped, Some(BootEnd::Reset)),
            _ => (BootState::Abandoned, Some(BootEnd::StartedOver)),
        };
        if what == 'g' {
            boot.stages.push(StageSeen { stage: Stage::Ready, at_ms: 9, detail: None });
        }
        boot
    }

    /// Boots one second apart, oldest first: g came up, d was shut down, f failed, x ran and was reset before it was up, r is
    /// under way.
    fn story(story: &str) -> Vec<Boot> {
        let mut boots: Vec<Boot> = story.chars().zip(1..).map(|(what, n)| boot(n * 1000, what)).collect();
        boots.reverse();
        boots
    }

    #[test]
    fn only_boots_that_fail_in_a_row_count_and_only_once() {
        let asked = |at_ms| RolledBack { to: "a".into(), at_ms, after_failed: 0 };
        let unasked = |at_ms| RolledBack { after_failed: 3, ..asked(at_ms) };
        for (boots, before, expected) in [
            ("fff", None, true),
            ("fffr", None, true),
            ("ff", None, false),
            ("ffdf", None, false),
            ("fgff", None, false),
            ("gfxf", None, true),
            ("rrr", None, false),
            // Boots of what it was before it was rolled back.
            ("fff", Some(asked(2500)), false),
            ("fffff", Some(asked(2500)), true),
            ("ffffff", Some(unasked(2500)), false),
            ("ffgfff", Some(unasked(2500)), true),
            ("ggffff", Some(unasked(2500)), false),
        ] {
            assert_eq!(has_failed(&story(boots), "lion", 3, before.as_ref(), 0), expected, "{boots} {before:?}");
        }
        assert!(!has_failed(&story("fff"), "tiger", 3, None, 0), "another's");
        assert!(!has_failed(&story("fff"), "lion", 3, None, 1500), "of the files that it had before");
    }
}
