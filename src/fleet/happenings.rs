//! What happens to the fleet: events from the wire, jobs that end, and what of it is stored.

use std::net::IpAddr;

use super::seen::{Asks, SeenPi};
use super::{Fleet, Store, StoreError};
use crate::boot::{Stage, Update, Who};
use crate::config::{Config, Device};
use crate::events::{Dhcp, DhcpKind, Event, What};
use crate::jobs::{JobKind, JobState};
use crate::net::AddressBook;
use crate::pi::{Mac, Serial};

impl Fleet {
    /// Takes an event from the wire; true if a device told something that the servers should know.
    pub fn take_event(&mut self, event: &Event) -> bool {
        let mut news = false;
        if let What::Dhcp(message) = &event.what {
            news |= self.see(message);
        }
        let who = Directory { config: &self.config, addresses: &self.addresses };
        let update = self.tracker.take(event, &who);
        news |= self.after(update);
        news
    }

    /// Takes what a DHCP message tells of the Pi that sent it.
    fn see(&mut self, message: &Dhcp) -> bool {
        let Some(identity) = &message.identity else { return false };
        let asks = match message.kind {
            DhcpKind::Discover if message.netboot => Asks::ToBoot,
            DhcpKind::Discover => Asks::ForAnAddress,
            _ => Asks::Nothing,
        };
        // A Pi that boots from its SD card asks for no menu, and is nobody's to enrol.
        if asks != Asks::ToBoot && self.seen.get(identity.mac).is_none() {
            return false;
        }
        let devices = &self.config.devices;
        let stays = |pi: &SeenPi| devices.iter().any(|device| device.is(pi.mac, pi.serial));
        self.seen.take(identity, asks, self.clock.wall_ms(), stays);
        let known = identity.serial.is_some_and(|serial| self.learn_serial(identity.mac, serial));
        known | (asks == Asks::ToBoot && self.enrol_by_itself(identity.mac))
    }

    fn after(&mut self, update: Update) -> bool {
        let ended = update.ended.as_ref().map(|boot| boot.mac);
        let news = self.store_update(update);
        ended.is_some_and(|mac| self.roll_back_if_it_fails(mac)) | news
    }

    fn store_update(&mut self, update: Update) -> bool {
        if let Some(mut ended) = update.ended {
            self.log_store_error(|store| {
                store.save_boot(&mut ended)?;
                store.save_packets_of(&mut ended)
            });
        }
        if update.notable {
            self.note_spared(update.boot);
        }
        if update.notable
            && let Some(boot) = update.boot.and_then(|mac| self.tracker.boot_mut(mac))
            && let Err(error) = self.store.save_boot(boot)
        {
            boot.unsaved = true;
            self.note_store_problem(Some(error.to_string()));
        }
        let boot = update.boot.and_then(|mac| self.tracker.boot(mac));
        if let Some((mac, model)) = boot.and_then(|boot| Some((boot.mac, boot.model?))) {
            self.seen.learn_model(mac, model);
        }
        update.serial.is_some_and(|(mac, serial)| self.learn_serial(mac, serial))
    }

    /// A kernel that is loaded without an initramfs spares the boot what rule `trim` left out.
    fn note_spared(&mut self, mac: Option<Mac>) {
        let Some(boot) = mac.and_then(|mac| self.tracker.boot_mut(mac)) else { return };
        if boot.reached(Stage::Kernel) && !boot.reached(Stage::Mount) {
            let served = boot.device.as_ref().and_then(|id| self.served.get(id));
            let spares = !boot.reached(Stage::Initramfs);
            boot.spared_bytes = served.filter(|_| spares).map_or(0, |served| served.spared_bytes);
        }
    }

    /// Completes the identity of a device that was enrolled by only half of it; true if that was news for the servers.
    ///
    /// Only a Pi that showed itself as one over DHCP, and whose serial fits its address, is believed; and only where no
    /// other device is known by either.
    fn learn_serial(&mut self, mac: Mac, serial: Serial) -> bool {
        if self.seen.get(mac).is_none() || !serial.may_belong_to(mac) {
            return false;
        }
        self.seen.learn_serial(mac, serial);
        let known_by = |d: &Device| d.mac == Some(mac) || d.serial == Some(serial);
        let mut known = self.config.devices.iter_mut().filter(|d| known_by(d));
        let (Some(device), None) = (known.next(), known.next()) else { return false };
        let is_half_known = device.mac.is_none() || device.serial.is_none();
        if !is_half_known || device.mac.is_some_and(|m| m != mac) || device.serial.is_some_and(|s| s != serial) {
            return false;
        }
        (device.mac, device.serial) = (Some(mac), Some(serial));
        let id = device.id.clone();
        log::info!("{id} is the Pi with serial {serial} and address {mac}");
        if let Err(error) = self.note_identity(&id, mac, serial) {
            log::error!("cannot note the identity of {id}: {error}");
        }
        true
    }

    /// Stores what piled up in memory; called every few seconds. What cannot be stored is kept for the next time.
    pub fn save(&mut self) {
        let unsaved = self.seen.take_unsaved();
        let mut tried = !unsaved.is_empty();
        let mut saved = if tried { self.store.save_pis(&unsaved.changed, &unsaved.forgotten) } else { Ok(()) };
        if saved.is_err() {
            self.seen.keep_unsaved(unsaved);
        }
        for boot in self.tracker.boots_to_save() {
            tried = true;
            if let Err(error) = self.store.save_boot(boot).and_then(|()| self.store.save_packets_of(boot)) {
                boot.unsaved = true;
                saved = Err(error);
            }
        }
        if tried && self.store_on_volume {
            self.note_store_problem(saved.err().map(|e| e.to_string()));
        }
    }

    /// Ends the boots of Pis that are not heard of any more, but for those that are connected all the same; true if a
    /// device is rolled back for it.
    pub fn give_up_silent(&mut self, is_connected: impl Fn(IpAddr) -> bool) -> bool {
        let given_up = self.tracker.give_up_silent(is_connected);
        // They are looked for in the store.
        self.save();
        given_up.into_iter().fold(false, |begun, mac| self.roll_back_if_it_fails(mac) | begun)
    }

    fn log_store_error(&mut self, act: impl FnOnce(&mut Store) -> Result<(), StoreError>) {
        if let Err(error) = act(&mut self.store) {
            self.note_store_problem(Some(error.to_string()));
        }
    }

    /// A job ended: stores it and remembers a failure so that it is not tried over and over.
    pub fn job_ended(&mut self, id: u32) {
        let Some(job) = self.jobs.get(id) else { return };
        match job.state {
            JobState::Done => log::info!("job {id}: {}", job.message),
            _ => log::warn!("job {id} ({:?} of '{}') {:?}: {}", job.kind, job.subject, job.state, job.message),
        }
        // A device that was unenrolled, and perhaps enrolled anew, has nothing to do with its old job's end.
        let concerns = self.config.device(&job.subject).is_some() && self.jobs.active(job.kind, &job.subject).is_none();
        if job.kind == JobKind::Provision && job.state != JobState::Done && concerns {
            self.failed.insert(job.subject.clone(), job.message.clone());
        }
        self.claims.retain(|_, claimed_by| *claimed_by != id);
        if job.kind == JobKind::Rollback && job.state == JobState::Done {
            self.after_rollback(&job.subject);
        }
        if job.kind == JobKind::Replace && job.state == JobState::Done {
            self.after_switch(&job.subject);
        }
        if matches!(job.kind, JobKind::Rollback | JobKind::Replace | JobKind::Restore) {
            // Its exports are those of another directory, and the old ones are not gone back to.
            if job.state == JobState::Done {
                self.served.remove(&job.subject);
            }
            self.volume_changes = self.volume_changes.wrapping_add(1);
        }
        match job.kind {
            JobKind::Provision => self.measured.put_in_doubt(&job.subject),
            JobKind::Restore | JobKind::Rollback | JobKind::Replace => self.measured.forget(&job.subject),
            _ => {}
        }
        self.take_restored();
        self.log_store_error(|store| store.save_job(&job));
    }

    /// Stops the jobs and stores everything.
    pub fn stop(&mut self) {
        self.jobs.stop();
        for job in self.jobs.list() {
            self.log_store_error(|store| store.save_job(&job));
        }
        self.take_layers_apart();
        self.save();
    }
}

/// Answers the tracker's questions.
struct Directory<'a> {
    config: &'a Config,
    addresses: &'a AddressBook,
}

impl Who for Directory<'_> {
    fn mac_of(&self, ip: IpAddr) -> Option<Mac> {
        self.addresses.mac_of(ip)
    }

    fn device_of(&self, mac: Mac) -> Option<String> {
        self.config.devices.iter().find(|d| d.mac == Some(mac)).map(|d| d.id.clone())
    }
}
