//! May a device's files be taken as they are, or replaced? Not while the Pi uses them, nor while a job does.

use std::time::Duration;

use super::Fleet;
use crate::boot::{BootState, Stage};
use crate::config::Device;

/// A Pi that loads its first files asks again within seconds; one that has been silent for longer is off.
const LOADING: Duration = Duration::from_secs(90);

/// What is planned for the files of a Pi that may be about to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// It is to be off.
    Off,
    /// It may be loading its boot files: until it has mounted its root it can be made to begin anew.
    NotMounted,
}

impl Fleet {
    /// Why the files of `device` cannot be touched now, for people; `None` if they can.
    pub(super) fn in_use(&self, device: &Device, plan: Plan) -> Option<String> {
        let id = &device.id;
        if let Some(job) = self.jobs.all_on(id).first().copied().or_else(|| self.claimed(id)) {
            return Some(format!("job {job} is working on the files of {id}: wait until it is done, or cancel it"));
        }
        self.used_by_pi(device, plan)
    }

    /// The same as far as the Pi is concerned.
    pub(super) fn used_by_pi(&self, device: &Device, plan: Plan) -> Option<String> {
        let id = &device.id;
        let now = self.clock.now();
        let boot = device.mac.and_then(|mac| self.tracker.boot(mac))?;
        // What another server does is not seen here.
        let is_external = self.config.main.nfs.external().is_some();
        let mounted = boot.reached(Stage::Mount) || (is_external && boot.reached(Stage::OsDhcp));
        match boot.state {
            BootState::Running => Some(format!(
                "{id} is running, and its files change while it does: shut it down first (sudo poweroff), then try again"
            )),
            BootState::Booting if mounted || (plan == Plan::Off && boot.silent_for(now) < LOADING) => {
                Some(format!("{id} is booting: wait until it is up and shut it down, or cut its power and wait"))
            }
            _ => None,
        }
    }

    /// Why nothing can be done to the files of `device` now, for people; `None` if something can.
    #[must_use]
    pub fn files_in_use(&self, device: &Device) -> Option<String> {
        self.in_use(device, Plan::Off)
    }

    /// The job that needs the files of device `id` as they are, though it is about something else.
    pub(super) fn claimed(&self, id: &str) -> Option<u32> {
        let job = *self.claims.get(id)?;
        self.jobs.get(job).filter(|job| !job.state.is_final()).map(|job| job.id)
    }

    /// The job that needs the files of device `id`, or a snapshot of it, for another.
    pub(super) fn needed_by(&self, id: &str) -> Option<u32> {
        let of_it =
            |claim: &&String| claim.as_str() == id || claim.strip_prefix(id).is_some_and(|rest| rest.starts_with('@'));
        let own = self.jobs.all_on(id);
        let mut jobs = self.claims.keys().filter(of_it).filter_map(|claim| self.claimed(claim));
        jobs.find(|job| !own.contains(job))
    }

    /// Keeps device `id` from being served until the job is over, so that it does not start meanwhile.
    pub(super) fn claim(&mut self, id: &str, job: u32) {
        self.claims.insert(id.to_owned(), job);
    }
}
