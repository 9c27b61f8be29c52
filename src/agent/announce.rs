//! Says over ubus what changed: devices, Pis that wait to be enrolled, boots, jobs.
//!
//! Looks at the state instead of being told of each change: what changes in many places is announced from one, and what
//! changes a hundred times a second once. After a start everything is news, once.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use super::servers::Wire;
use crate::api::Api;
use crate::api::types::BootSummary;
use crate::boot::{Boot, BootState};
use crate::fleet::DeviceState;
use crate::jobs::{Job, JobState};
use crate::pi::{Evidence, Mac, Model, Revision, Serial};
use crate::ubus::Handle;

/// Pis announced in one turn at most: what the broker does not take in time is lost.
const PENDING_AT_ONCE: usize = 64;

/// What a Pi told of itself.
type Told = (Option<Serial>, Option<Revision>, Option<Model>, Evidence);

/// What was announced last.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    /// Something may have changed since.
    pub(super) is_due: bool,
    devices: BTreeMap<String, (Option<DeviceState>, Option<BootState>)>,
    pending: BTreeMap<Mac, Told>,
    /// State, stages and findings of each.
    boots: BTreeMap<(Mac, i64), (BootState, usize, Vec<String>)>,
    jobs: BTreeMap<u32, (JobState, u64, u64)>,
}

impl Announcer {
    /// Announces what changed since the last time. Events are hints: who misses one asks.
    pub(super) fn announce(&mut self, api: &Api<Wire>, ubus: &Handle) {
        let jobs = api.fleet.jobs().list();
        // The progress of a job makes no noise.
        self.is_due = jobs.iter().any(|job| !job.state.is_final());
        self.announce_devices(api, ubus);
        self.announce_pending(api, ubus);
        let boots = api.fleet.current_boots();
        let ids = |b: &Boot| b.findings.iter().map(|finding| finding.id.clone()).collect();
        let boots: BTreeMap<_, _> = boots.map(|b| ((b.mac, b.started_ms), (b.state, b.stages.len(), ids(b)))).collect();
        for boot in api.fleet.current_boots() {
            let key = (boot.mac, boot.started_ms);
            if self.boots.get(&key) != boots.get(&key) {
                send(ubus, "piboot.boot", &BootSummary::from(boot));
            }
        }
        self.boots = boots;
        let progress = |job: &Job| (job.state, job.bytes, job.files);
        for job in &jobs {
            if self.jobs.get(&job.id) != Some(&progress(job)) {
                send(ubus, "piboot.job", job);
            }
        }
        self.jobs = jobs.iter().map(|job| (job.id, progress(job))).collect();
    }

    /// How often a Pi asks makes no noise, either; only what it tells of itself.
    fn announce_pending(&mut self, api: &Api<Wire>, ubus: &Handle) {
        let now_ms = api.fleet.clock().wall_ms();
        let mut pending = BTreeMap::new();
        let mut sent = 0;
        for pi in api.strangers() {
            if self.pending.get(&pi.mac) != Some(&pi.told()) {
                if sent == PENDING_AT_ONCE {
                    // The rest the next time.
                    self.is_due = true;
                    continue;
                }
                send(ubus, "piboot.pending", &api.pending_info(pi, now_ms));
                sent += 1;
            }
            pending.insert(pi.mac, pi.told());
        }
        for mac in self.pending.keys().filter(|mac| !pending.contains_key(mac)) {
            ubus.event("piboot.pending", json!({ "mac": mac, "state": "removed" }));
        }
        self.pending = pending;
    }

    fn announce_devices(&mut self, api: &Api<Wire>, ubus: &Handle) {
        let booting: BTreeMap<Mac, BootState> = api.fleet.current_boots().map(|boot| (boot.mac, boot.state)).collect();
        let devices = &api.fleet.config().devices;
        let state = |device: &crate::config::Device| {
            let boot = device.mac.and_then(|mac| booting.get(&mac)).copied();
            (api.fleet.state(&device.id).cloned(), boot)
        };
        let states: BTreeMap<_, _> = devices.iter().map(|device| (device.id.clone(), state(device))).collect();
        for device in devices {
            if self.devices.get(&device.id) != states.get(&device.id) {
                send(ubus, "piboot.device", &api.device_info(device));
            }
        }
        for id in self.devices.keys().filter(|id| !states.contains_key(*id)) {
            ubus.event("piboot.device", json!({ "id": id, "state": "removed" }));
        }
        self.devices = states;
    }
}

fn send(ubus: &Handle, id: &'static str, what: &impl Serialize) {
    // They are answers of the API, too, where an error would show.
    if let Ok(data) = serde_json::to_value(what) {
        ubus.event(id, data);
    }
}
