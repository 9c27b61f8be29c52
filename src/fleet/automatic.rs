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
