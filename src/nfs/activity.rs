//! Milestones of a mount, and refusals: what the boot timeline wants to know, without cost on the data path.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Moment;
use crate::events::{Nfs, Sink, What};

/// Mounts remembered at most, and refusals: beyond that the oldest is forgotten.
const MAX_REMEMBERED: usize = 512;
/// Refusals of one address at one export are told once in this time.
const REFUSAL_PAUSE: Duration = Duration::from_secs(60);
/// The end of one system is told once in so many seconds.
const SHUTDOWN_PAUSE: u32 = 5;

/// Something that is told once per mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Milestone {
    FirstRead = 1,
    Init = 2,
    FirstWrite = 4,
    /// Init of a root that is never written to.
    InitReadOnly = 8,
}

/// What has been told of one mount. Everything counts as told until a MNT is seen: clients that were mounted before
/// this server started are not booting.
#[derive(Debug)]
pub(super) struct Milestones {
    told: AtomicU8,
    /// When the end of the system was told last, in seconds of the clock and one more; 0: never.
    shutdown_told: AtomicU32,
    export: Arc<str>,
    peer: IpAddr,
    sink: Sink,
}

const ALL_TOLD: u8 = u8::MAX;

impl Milestones {
    /// Tells it if it was not told yet.
    pub(super) fn reach(&self, milestone: Milestone) {
        let bit = milestone as u8;
        // The plain load keeps the common case free of a locked instruction.
        if self.told.load(Ordering::Relaxed) & bit != 0 || self.told.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return;
        }
        let export = Arc::clone(&self.export);
        let event = match milestone {
            Milestone::FirstRead => Nfs::FirstRead { export },
            Milestone::Init => Nfs::Init { export },
            Milestone::FirstWrite => Nfs::FirstWrite { export },
            Milestone::InitReadOnly => Nfs::InitReadOnly { export },
        };
        self.sink.emit(What::Nfs { peer: self.peer, event });
    }
}

impl Milestones {
    /// The program that ends the system was looked up. Told whenever that happens, also of clients that were mounted before this
    /// server started; a client that does nothing else is heard once in a while.
    pub(super) fn shutdown(&self) {
        let now = u32::try_from(self.sink.clock().now().since_start().as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        let last = self.shutdown_told.load(Ordering::Relaxed);
        if last != 0 && now.saturating_sub(last) < SHUTDOWN_PAUSE {
            return;
        }
        self.shutdown_told.store(now, Ordering::Relaxed);
        let event = Nfs::Shutdown { export: Arc::clone(&self.export) };
        self.sink.emit(What::Nfs { peer: self.peer, event });
    }
}

#[derive(Debug)]
struct Mount {
    milestones: Arc<Milestones>,
    mounted: bool,
    used: Moment,
}

#[derive(Debug, Default)]
struct Known {
    mounts: HashMap<(u16, IpAddr), Mount>,
    refusals: HashMap<(IpAddr, Arc<str>), Moment>,
    /// Clients whose machines did not answer when they were heard of last.
    gone: HashSet<IpAddr>,
}

/// All mounts and recent refusals.
#[derive(Debug)]
pub(super) struct Activity {
    sink: Sink,
    known: Mutex<Known>,
}

impl Activity {
    pub(super) fn new(sink: Sink) -> Self {
        Self { sink, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The milestones of a client that may use an export.
    pub(super) fn milestones(&self, id: u16, export: &Arc<str>, peer: IpAddr) -> Arc<Milestones> {
        let now = self.sink.clock().now();
        let mut known = self.known();
        if known.mounts.len() >= MAX_REMEMBERED
            && !known.mounts.contains_key(&(id, peer))
            && let Some(oldest) = known.mounts.iter().min_by_key(|(_, mount)| mount.used).map(|(key, _)| *key)
        {
            known.mounts.remove(&oldest);
        }
        let mount = known.mounts.entry((id, peer)).or_insert_with(|| Mount {
            milestones: self.fresh(export, peer, ALL_TOLD),
            mounted: false,
            used: now,
        });
        mount.used = now;
        Arc::clone(&mount.milestones)
    }

    fn fresh(&self, export: &Arc<str>, peer: IpAddr, told: u8) -> Arc<Milestones> {
        Arc::new(Milestones {
            told: AtomicU8::new(told),
            shutdown_told: AtomicU32::new(0),
            export: Arc::clone(export),
            peer,
            sink: self.sink.clone(),
        })
    }

    /// MNT succeeded: a new mount, of which nothing has been told.
    pub(super) fn mounted(&self, id: u16, export: &Arc<str>, peer: IpAddr) {
        self.milestones(id, export, peer).told.store(0, Ordering::Relaxed);
        if let Some(mount) = self.known().mounts.get_mut(&(id, peer)) {
            mount.mounted = true;
        }
        self.emit(peer, Nfs::Mounted { export: Arc::clone(export) });
    }

    /// UMNT of one export, or UMNTALL for `None`.
    pub(super) fn unmounted(&self, id: Option<u16>, peer: IpAddr) {
        let mut exports = Vec::new();
        for ((mount_id, mount_peer), mount) in &mut self.known().mounts {
            if *mount_peer == peer && id.is_none_or(|id| id == *mount_id) && mount.mounted {
                mount.mounted = false;
                mount.milestones.told.store(ALL_TOLD, Ordering::Relaxed);
                exports.push(Arc::clone(&mount.milestones.export));
            }
        }
        for export in exports {
            self.emit(peer, Nfs::Unmounted { export });
        }
    }

    /// The exports that `peer` has mounted, as far as this server saw.
    pub(super) fn mounts_of(&self, peer: IpAddr) -> Vec<Arc<str>> {
        let known = self.known();
        let mine = known.mounts.iter().filter(|((_, mount_peer), mount)| *mount_peer == peer && mount.mounted);
        mine.map(|(_, mount)| Arc::clone(&mount.milestones.export)).collect()
    }

    /// How many mounts are known.
    pub(super) fn mount_count(&self) -> usize {
        self.known().mounts.values().filter(|mount| mount.mounted).count()
    }

    /// A request was refused; `why` is asked for only if it has to be told.
    pub(super) fn refused(&self, peer: IpAddr, export: &str, why: impl FnOnce() -> String) {
        let now = self.sink.clock().now();
        let export: Arc<str> = Arc::from(export);
        {
            let mut known = self.known();
            known.refusals.retain(|_, at| now.since(*at) < REFUSAL_PAUSE);
            let key = (peer, Arc::clone(&export));
            if known.refusals.contains_key(&key) || known.refusals.len() >= MAX_REMEMBERED {
                return;
            }
            known.refusals.insert(key, now);
        }
        let why = why();
        log::warn!("NFS: {peer} was refused {export}: {why}");
        self.emit(peer, Nfs::Refused { export, why: Arc::from(why) });
    }

    /// A client's machine does not answer any more.
    pub(super) fn gone(&self, peer: IpAddr) {
        let mut known = self.known();
        if known.gone.len() < MAX_REMEMBERED && known.gone.insert(peer) {
            drop(known);
            self.emit(peer, Nfs::Gone);
        }
    }

    /// A client that may use something has connected.
    pub(super) fn connected(&self, peer: IpAddr) {
        if self.known().gone.remove(&peer) {
            self.emit(peer, Nfs::Back);
        }
    }

    /// Reports an event as it is.
    pub(super) fn emit(&self, peer: IpAddr, event: Nfs) {
        self.sink.emit(What::Nfs { peer, event });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn each_milestone_is_told_once_per_mount_and_refusals_once_a_minute() {
        let clock = Clock::manual(0);
        let (sink, mut events) = Sink::new(clock.clone());
        let activity = Activity::new(sink);
        let (peer, export): (_, Arc<str>) = (IpAddr::from([192, 0, 2, 9]), Arc::from("/lion/root"));
        let mut told = move || {
            std::iter::from_fn(|| events.try_recv().ok())
                .map(|event| match event.what {
                    What::Nfs { event, .. } => format!("{event:?}").split(' ').next().unwrap().to_owned(),
                    other => panic!("{other:?}"),
                })
                .collect::<Vec<_>>()
        };
        let milestones = activity.milestones(1, &export, peer);
        milestones.reach(Milestone::FirstRead);
        assert!(told().is_empty(), "mounted before this server started");
        activity.mounted(1, &export, peer);
        for _ in 0..3 {
            milestones.reach(Milestone::FirstRead);
            milestones.reach(Milestone::Init);
            milestones.reach(Milestone::FirstWrite);
        }
        assert_eq!(told(), ["Mounted", "FirstRead", "Init", "FirstWrite"]);
        assert_eq!(activity.mounts_of(peer), std::slice::from_ref(&export));
        activity.mounted(1, &export, peer);
        milestones.reach(Milestone::FirstWrite);
        activity.unmounted(None, peer);
        milestones.reach(Milestone::FirstRead);
        assert_eq!(told(), ["Mounted", "FirstWrite", "Unmounted"]);
        activity.refused(peer, "/lion/root", || "a reason".to_owned());
        activity.refused(peer, "/lion/root", || panic!("told already"));
        activity.refused(peer, "/lion/boot", || "a reason".to_owned());
        clock.advance(REFUSAL_PAUSE);
        activity.refused(peer, "/lion/root", || "a reason".to_owned());
        assert_eq!(told().len(), 3);
        clock.advance(REFUSAL_PAUSE);
        milestones.shutdown();
        milestones.shutdown();
        activity.gone(peer);
        activity.gone(peer);
        activity.connected(peer);
        activity.connected(peer);
        clock.advance(Duration::from_secs(SHUTDOWN_PAUSE.into()));
        milestones.shutdown();
        assert_eq!(told(), ["Shutdown", "Gone", "Back", "Shutdown"]);
    }
}
