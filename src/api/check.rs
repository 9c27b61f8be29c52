//! Everything that could stop a boot, each with its cure: the same sentences in `status`, `check`, the log and the page.

use super::types::Finding;
use super::{Api, Servers};
use crate::clock::FIRST_DATE_MS;
use crate::config::Severity;
use crate::fleet::{DeviceState, QuotaLevel};
use crate::image::check::Bearing;

impl<S: Servers> Api<S> {
    /// What [`Api::findings`] says, and what a look at the devices' files and at the clock adds. Errors first.
    pub(super) fn check(&self) -> Vec<Finding> {
        let mut findings = self.findings();
        let fleet = &self.fleet;
        if fleet.clock().wall_ms() < FIRST_DATE_MS {
            findings.push(Finding::new(
                Severity::Warning,
                "clock".to_owned(),
                "the router does not know the time: the history of boots is in disorder until it does; see that it reaches an NTP server (System > System > Time Synchronization)".to_owned(),
            ));
        }
        for device in &fleet.config().devices {
            let model = device.mac.and_then(|mac| fleet.seen().get(mac)).and_then(crate::fleet::SeenPi::family);
            // What its own files hold is what counts, once it has some.
            if let Some(why) = model.and_then(|model| fleet.misfit(device, model)) {
                findings.push(Finding::new(Severity::Error, device.id.clone(), why));
            }
            for problem in fleet.tree_problems(device, model) {
                let severity = match problem.bearing {
                    Bearing::Firmware | Bearing::Root | Bearing::Init => Severity::Error,
                    Bearing::Spoils => Severity::Warning,
                };
                findings.push(Finding::new(severity, device.id.clone(), format!("{}; {}", problem.text, problem.todo)));
            }
        }
        findings.extend(self.rollback_findings());
        findings.sort_by_key(|f| f.severity != Severity::Error);
        findings
    }

    /// Errors first.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let fleet = &self.fleet;
        let mut findings: Vec<Finding> = fleet.problems().iter().cloned().map(Finding::from).collect();
        let error = |place: &str, text: String| Finding::new(Severity::Error, place.to_owned(), text);
        findings.extend(fleet.volume().problems.iter().map(|p| error("storage", p.to_string()).known_as(p.id())));
        let nearly_full =
            |text| Finding::new(Severity::Warning, "storage".to_owned(), text).known_as("disk-nearly-full");
        findings.extend(fleet.volume().warning().map(nearly_full));
        findings.extend(fleet.store_problem().map(|text| error("storage", text.to_owned())));
        findings.extend(fleet.automatic_problem().map(|(place, text)| error(place, text)));
        findings.extend(self.servers.findings());
        let volume_is_well = fleet.volume().problems.is_empty();
        for device in &fleet.config().devices {
            // What is wrong with the volume was said once; every device would repeat it.
            if let Some(DeviceState::Blocked { why }) = fleet.state(&device.id)
                && volume_is_well
            {
                findings.push(error(&device.id, why.clone()).known_as("device-blocked"));
            }
        }
        findings.extend(self.quota_findings());
        findings.sort_by_key(|f| f.severity != Severity::Error);
        findings
    }
    fn quota_findings(&self) -> Vec<Finding> {
        let fleet = &self.fleet;
        let mut findings = Vec::new();
        for device in &fleet.config().devices {
            let warning = |text| Finding::new(Severity::Warning, device.id.clone(), text);
            findings.extend(fleet.quota_problem(device).map(|text| warning(text).known_as("quota-without-effect")));
            findings
                .extend(fleet.quota_not_in_force(&device.id).map(|text| warning(text).known_as("quota-not-in-force")));
            let Some(quota) = fleet.quota_use(&device.id) else { continue };
            let id = if quota.level == QuotaLevel::Full { "quota-full" } else { "quota-nearly-full" };
            findings.extend(quota.warning(&device.id).map(|text| warning(text).known_as(id)));
        }
        findings
    }
}
