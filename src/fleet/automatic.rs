//! `option unknown 'enroll'`: a Pi that asks to boot is enrolled by itself, with the default image.
//!
//! Bounded, because anybody on the LAN can claim to be a Pi, and every enrolment copies an image.

use std::collections::HashSet;
use std::time::Duration;

use super::{EnrolError, Enrolment, Fleet, SeenPi};
use crate::clock::Moment;
use crate::config::UnknownPolicy;
use crate::image;
use crate::pace::Pace;
use crate::pi::{Evidence, Mac};

/// Pis enrolled by themselves in one run of the agent: two classrooms.
const MOST: usize = 64;
/// At most one in this time.
const ONE_IN: Duration = Duration::from_secs(2);

/// Space that is left to Pis that run, in bytes; at least a tenth of the disk.
const LEFT_FREE: u64 = 1 << 30;

/// What was enrolled by itself, and what was not.
#[derive(Debug)]
pub(super) struct Automatic {
    pace: Pace,
    enrolled: usize,
    /// Somebody unenrolled these: they would come back at their next DISCOVER.
    unenrolled: HashSet<Mac>,
    /// Why a Pi was not enrolled.
    problem: Option<String>,
}

impl Automatic {
    pub(super) fn new(now: Moment) -> Self {
        Self { pace: Pace::one_in(ONE_IN, now), enrolled: 0, unenrolled: HashSet::new(), problem: None }
    }

    /// Somebody unenrolled this Pi.
    pub(super) fn leave_alone(&mut self, mac: Mac) {
        self.unenrolled.insert(mac);
    }

    /// The configuration was read again: what stood in the way may not do so any more.
    pub(super) fn forget_problem(&mut self) {
        self.problem = None;
    }
}

impl Fleet {
    /// Whether this Pi is one that is enrolled by itself: it says more of itself than an address block, and nobody
    /// unenrolled it.
    #[must_use]
    pub fn enrols_by_itself(&self, pi: &SeenPi) -> bool {
        self.config.main.unknown == UnknownPolicy::Enroll
            && pi.evidence != Evidence::Oui
            && !self.automatic.unenrolled.contains(&pi.mac)
            && !self.config.devices.iter().any(|device| device.is(pi.mac, pi.serial))
    }

    /// What keeps Pis from being enrolled by themselves: the option, and the sentence.
    #[must_use]
    pub fn automatic_problem(&self) -> Option<(&'static str, String)> {
        let main = &self.config.main;
        let image = main.default_image.as_ref().filter(|_| main.unknown == UnknownPolicy::Enroll)?;
        if self.volume.is_present() && image::load_info(&self.layout.image(image)).is_err() {
            let error = EnrolError::UnknownImage(image.clone());
            return Some(("piboot.main.default_image", format!("Pis are not enrolled by themselves: {error}")));
        }
        self.automatic.problem.clone().map(|problem| ("piboot.main.unknown", problem))
    }

    /// Enrols a Pi that asked to boot, if it is to be; true if it was. Only one that asks again: made-up ones ask once.
    pub(super) fn enrol_by_itself(&mut self, mac: Mac) -> bool {
        let Some(pi) = self.seen.get(mac).filter(|pi| pi.is_steady() && self.enrols_by_itself(pi)) else {
            return false;
        };
        let board = pi.board();
        if self.automatic.enrolled >= MOST {
            self.automatic.problem = Some(format!(
                "{MOST} Pis were enrolled by themselves since piboot started, and no more are: {mac} ({board}) asks to boot. Enrol it with 'piboot enroll', or restart piboot to let {MOST} more in"
            ));
            return false;
        }
        let (free, total) = (self.volume.free_bytes, self.volume.total_bytes);
        if free < LEFT_FREE.max(total / 10) {
            self.automatic.problem = Some(format!(
                "{mac} ({board}) asks to boot and is not enrolled by itself: {} GB of the disk are free, and the last tenth of it is for Pis that run. Remove what nobody needs, or enrol it with 'piboot enroll'",
                free / 1_000_000_000
            ));
            return false;
        }
        if !self.automatic.pace.take(self.clock.now()) {
            return false;
        }
        let error = match self.enrol(Enrolment { mac: Some(mac), ..Enrolment::default() }) {
            Ok(device) => {
                log::info!("{} ({board}, {mac}) was enrolled by itself: option unknown is 'enroll'", device.id);
                self.automatic.enrolled = self.automatic.enrolled.saturating_add(1);
                self.automatic.problem = None;
                return true;
            }
            Err(error) => format!("{mac} ({board}) asks to boot and could not be enrolled by itself: {error}"),
        };
        if self.automatic.problem.as_ref() != Some(&error) {
            log::warn!("{error}");
        }
        self.automatic.problem = Some(error);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::events::{Dhcp, DhcpKind, Event, What};
    use crate::net::AddressBook;
    use crate::pi::Identity;

    /// A fleet with the policy and an empty image.
    fn fleet(clock: &Clock) -> (tempfile::TempDir, Fleet) {
        let dir = tempfile::tempdir().unwrap();
        let (config, data) = (dir.path().join("piboot"), dir.path().join("data"));
        std::fs::create_dir_all(data.join("images/lite")).unwrap();
        let info = "{\"name\":\"lite\",\"source\":\"\",\"sha256\":\"\",\"source_bytes\":0,\"disk_bytes\":0,\"imported_at\":0,\"disk_id\":\"\",\"root_entries\":0,\"root_bytes\":0,\"boot_entries\":0,\"boot_bytes\":0}";
        std::fs::write(data.join("images/lite/image.json"), info).unwrap();
        let main = "config piboot 'main'\n\toption unknown 'enroll'\n\toption default_image 'lite'\n\toption data_dir";
        std::fs::write(&config, format!("{main} '{}'\n", data.display())).unwrap();
        let (jobs, _) = tokio::sync::mpsc::unbounded_channel();
        let fleet =
            Fleet::open(config, dir.path().join("volume"), clock.clone(), AddressBook::observed_only(), jobs).unwrap();
        (dir, fleet)
    }

    /// A DISCOVER of the nth Pi.
    fn asks(fleet: &mut Fleet, n: u8, evidence: Evidence) {
        let mac = Mac([0xdc, 0xa6, 0x32, 0, 0, n]);
        let identity = Identity { mac, serial: None, revision: None, model: None, evidence };
        let message = Dhcp {
            mac,
            kind: DhcpKind::Discover,
            xid: 1,
            ip: None,
            netboot: true,
            identity: Some(identity),
            hostname: None,
            server: None,
            boot_menu: false,
            tftp: None,
        };
        let at = fleet.clock.now();
        fleet.take_event(&Event { at, what: What::Dhcp(message) });
    }

    #[test]
    fn so_many_are_enrolled_one_after_the_other_and_no_more() {
        let clock = Clock::manual(0);
        let (_dir, mut fleet) = fleet(&clock);
        let round = |fleet: &mut Fleet| (0..80).for_each(|n| asks(fleet, n, Evidence::Guid));
        round(&mut fleet);
        assert_eq!(fleet.config.devices.len(), 0, "made-up ones ask once");
        for n in 1..=70 {
            clock.advance(ONE_IN);
            round(&mut fleet);
            assert_eq!(fleet.config.devices.len(), n.min(MOST));
        }
        let (place, text) = fleet.automatic_problem().unwrap();
        assert!(place == "piboot.main.unknown" && text.contains("64 Pis were enrolled by themselves"), "{text}");

        // Unenrolled is unenrolled, by hand in the file too.
        let id = fleet.config.devices[0].id.clone();
        fleet.automatic.enrolled = 0;
        fleet.unenrol(&id, false).unwrap();
        let text = std::fs::read_to_string(&fleet.config_file).unwrap();
        let second = fleet.config.devices[0].id.clone();
        let edited = crate::config::remove_device(&text, &second).unwrap();
        std::fs::write(&fleet.config_file, edited).unwrap();
        fleet.reload().unwrap();
        for _ in 0..10 {
            clock.advance(ONE_IN);
            asks(&mut fleet, 0, Evidence::Guid);
            asks(&mut fleet, 1, Evidence::Guid);
        }
        assert_eq!(fleet.config.devices.len(), MOST - 2);
    }

    #[test]
    fn an_address_block_is_not_enough_and_what_is_in_the_way_is_said() {
        let clock = Clock::manual(0);
        let (_dir, mut fleet) = fleet(&clock);
        let pair = |fleet: &mut Fleet, n, evidence| {
            asks(fleet, n, evidence);
            clock.advance(ONE_IN);
            asks(fleet, n, evidence);
        };
        pair(&mut fleet, 1, Evidence::Oui);
        assert_eq!((fleet.config.devices.len(), fleet.automatic_problem()), (0, None));
        pair(&mut fleet, 2, Evidence::Guid);
        // The same name again: a device that somebody made by hand.
        fleet.config.devices[0].mac = Some(Mac([2; 6]));
        pair(&mut fleet, 2, Evidence::Guid);
        let (_, text) = fleet.automatic_problem().unwrap();
        assert!(text.contains("dc:a6:32:00:00:02") && text.contains("is enrolled already"), "{text}");
    }
}
