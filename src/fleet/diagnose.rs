//! What the rules of diagnosis are told of a device, and when they are asked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::{DeviceState, Fleet};
use crate::boot::diagnosis::{self, Context, Readiness, TreeFinding};
use crate::boot::{Boot, BootEnd, BootState, Finding, GIVEN_UP, Stage};
use crate::clock::Moment;
use crate::config::{self, Device};
use crate::image::check::{self, Bearing, TreeProblem};
use crate::pi::{Mac, Model};

/// A boot that goes on needs no look at the device's files.
const STUCK: Duration = Duration::from_secs(4);
/// Two Pis with one address boot at about the same time.
const RECENT: Duration = Duration::from_secs(60);
/// How long what was found in a device's files holds.
const FILES_LOOKED_AT: Duration = Duration::from_secs(15);

/// What was found in the files of devices.
#[derive(Debug, Default)]
pub(super) struct TreeChecks(BTreeMap<String, (Moment, Vec<TreeFinding>)>);

impl Fleet {
    /// Whether a boot is under way, or was until a moment ago.
    #[must_use]
    pub fn follows_boots(&self) -> bool {
        let now = self.clock.now();
        self.tracker.boots().any(|boot| is_suspect(boot, now))
    }

    /// Asks the rules about every boot that may have something in its way; true if a finding came or went. `portmapper`:
    /// why Pis do not find the NFS port, if they do not.
    pub fn diagnose(&mut self, portmapper: Option<&str>) -> bool {
        let now = self.clock.now();
        let by_uci = config::file::is_package(&self.config_file);
        // Apart from the fleet while it is looked at, because it is added to.
        let mut tree_checks = std::mem::take(&mut self.tree_checks);
        let suspects: Vec<Mac> =
            self.tracker.boots().filter(|boot| is_suspect(boot, now)).map(|boot| boot.mac).collect();
        let mut news = false;
        for mac in suspects {
            let Some(boot) = self.tracker.boot(mac) else { continue };
            let context = Context {
                by_uci,
                portmapper: portmapper.map(str::to_owned),
                ..self.context(boot, now, &mut tree_checks)
            };
            let findings = diagnosis::examine(boot, now, &context);
            if findings == boot.findings {
                continue;
            }
            for finding in findings.iter().filter(|f| !boot.findings.iter().any(|old| old.id == f.id)) {
                let who = boot.device.clone().unwrap_or_else(|| boot.mac.to_string());
                log::warn!("{who}: {} {}", finding.cause, finding.todo);
            }
            let ids = |findings: &[Finding]| findings.iter().map(|f| f.id.clone()).collect::<Vec<_>>();
            let came_or_went = ids(&findings) != ids(&boot.findings);
            news |= came_or_went;
            if let Some(boot) = self.tracker.boot_mut(mac) {
                // That a wait gets longer is not stored every few seconds.
                boot.unsaved |= came_or_went;
                boot.findings = findings;
            }
        }
        self.tree_checks = tree_checks;
        news
    }

    /// What the fleet knows of a boot's Pi.
    fn context(&self, boot: &Boot, now: Moment, tree_checks: &mut TreeChecks) -> Context {
        let device = self.config.devices.iter().find(|d| d.mac == Some(boot.mac));
        let Some(device) = device else { return Context { server: self.server, ..Context::default() } };
        let readiness = match self.state(&device.id) {
            Some(DeviceState::Ready) => Readiness::Ready,
            // Something new cannot be made of it; what it has is served.
            Some(DeviceState::Blocked { .. }) if self.volume.is_present() && self.served.contains_key(&device.id) => {
                Readiness::Ready
            }
            Some(DeviceState::Blocked { why }) => Readiness::Blocked(why.clone()),
            Some(DeviceState::Disabled) => Readiness::Blocked("it is disabled".to_owned()),
            Some(DeviceState::Preparing { .. }) | None => Readiness::Preparing,
        };
        let model = boot.model.or_else(|| self.seen.get(boot.mac).and_then(super::SeenPi::family));
        let wants_files =
            readiness == Readiness::Ready && (boot.silent_for(now) >= STUCK || boot.reached(Stage::Mount));
        let trees = if wants_files { self.looked_at(device, model, now, tree_checks) } else { Vec::new() };
        Context {
            server: self.server,
            own: self.own_addresses.clone(),
            readiness,
            serial: device.serial,
            trees,
            // Who writes nothing needs no space.
            disk: if self.is_served_read_only(&device.id) {
                None
            } else {
                self.volume.problems.first().map(ToString::to_string)
            },
            quota: self.quota_full(&device.id),
            external: self.config.main.nfs.external().map(|external| external.server),
            shares_address_with: boot.ip.and_then(|ip| self.other_at(ip, boot.mac)),
            ..Context::default()
        }
    }

    fn looked_at(
        &self,
        device: &Device,
        model: Option<Model>,
        now: Moment,
        TreeChecks(held): &mut TreeChecks,
    ) -> Vec<TreeFinding> {
        held.retain(|_, (at, _)| now.since(*at) < FILES_LOOKED_AT);
        if let Some((_, findings)) = held.get(&device.id) {
            return findings.clone();
        }
        let findings: Vec<TreeFinding> = self.tree_problems(device, model).into_iter().map(finding).collect();
        held.insert(device.id.clone(), (now, findings.clone()));
        findings
    }

    /// What is wrong with a device's files, as far as that can be seen before it boots.
    #[must_use]
    pub fn tree_problems(&self, device: &Device, model: Option<Model>) -> Vec<TreeProblem> {
        let (Some(at), Some(served)) = (self.exported(), self.served.get(&device.id)) else { return Vec::new() };
        let export = at.root(&device.id);
        check::check(&served.boot, &served.root, &check::For { model, server: at.server, root_export: &export })
    }

    /// Another Pi that boots or runs with this address.
    fn other_at(&self, ip: IpAddr, mac: Mac) -> Option<String> {
        let is_up = |boot: &&Boot| matches!(boot.state, BootState::Booting | BootState::Running);
        let others = self.tracker.boots().filter(|boot| boot.mac != mac && boot.ip == Some(ip)).filter(is_up);
        // Who holds the address now shares it with nobody who held it once.
        let holder = self.addresses.mac_of(ip);
        let recent = |boot: &&Boot| boot.silent_for(self.clock.now()) < RECENT || holder == Some(boot.mac);
        others.filter(recent).map(|boot| boot.device.clone().unwrap_or_else(|| boot.mac.to_string())).next()
    }
}

/// Whether the rules could have something to say that they did not say before.
fn is_suspect(boot: &Boot, now: Moment) -> bool {
    let recent = boot.silent_for(now) < GIVEN_UP;
    match boot.state {
        BootState::Booting | BootState::Running => boot.device.is_some() && recent,
        BootState::Stopped => boot.end == Some(BootEnd::Lost) && boot.device.is_some() && recent,
        BootState::Abandoned => false,
    }
}

fn finding(problem: TreeProblem) -> TreeFinding {
    TreeFinding {
        id: problem.id,
        hides_root: problem.bearing == Bearing::Root,
        stops_init: problem.bearing == Bearing::Init,
        text: problem.text,
        todo: problem.todo,
    }
}
