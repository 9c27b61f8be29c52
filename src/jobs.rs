//! Long work: low-priority worker threads, one a lane, and jobs with progress that can be cancelled.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::Clock;
use crate::progress::Progress;

/// Jobs that may wait; more is a mistake of the caller, not work.
const MAX_WAITING: usize = 64;
/// Finished jobs kept in memory to be asked about; older ones are in the store.
const MAX_FINISHED: usize = 64;
/// Niceness of the workers: a copy must not slow a boot.
const WORKER_NICE: i32 = 10;

/// What a job is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Import of an image.
    Import,
    /// Finding out which boards an image boots.
    Examine,
    /// Making a device's trees from an image.
    Provision,
    /// Deleting a device's or image's files.
    Delete,
    /// Taking a snapshot of a device.
    Snapshot,
    /// Making a device what it was in a snapshot.
    Rollback,
    /// Packing a device into a file.
    Backup,
    /// Making a device's trees from such a file.
    Restore,
    /// Making a device's trees anew, in the place of those that it has.
    Replace,
}

/// Jobs of one lane run one after the other: those on devices do not wait for an image that comes over a slow network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Images,
    Devices,
}

impl JobKind {
    const fn lane(self) -> Lane {
        match self {
            Self::Import | Self::Examine => Lane::Images,
            Self::Provision
            | Self::Delete
            | Self::Snapshot
            | Self::Rollback
            | Self::Backup
            | Self::Restore
            | Self::Replace => Lane::Devices,
        }
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Not begun.
    Waiting,
    /// Under way.
    Running,
    /// Ended well.
    Done,
    /// Ended badly; nothing of it is left.
    Failed,
    /// Cancelled; nothing of it is left.
    Cancelled,
    /// The agent was stopped or killed under it; nothing of it is left.
    Interrupted,
}

impl JobState {
    /// Whether it will not change any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}

/// A job as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its number.
    pub id: u32,
    /// What it is about.
    pub kind: JobKind,
    /// Image name or device id.
    pub subject: String,
    /// How far it is.
    pub state: JobState,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes in all, 0 while unknown.
    pub total_bytes: u64,
    /// Files and directories done.
    pub files: u64,
    /// Files and directories in all, 0 while unknown.
    pub total_files: u64,
    /// Result or reason, for people.
    pub message: String,
    /// Unix time in ms at which it was asked for.
    pub queued_ms: i64,
    /// Unix time in ms at which it ended, 0 before.
    pub finished_ms: i64,
}

/// The work of a job: says what came of it, or why it failed.
pub type Task = Box<dyn FnOnce(&Running) -> Result<String, String> + Send>;

/// Why a job was not taken or not cancelled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobsError {
    /// Too many wait.
    #[error("{MAX_WAITING} jobs are waiting already: try again when some are done")]
    Full,
    /// One for the same thing waits or runs.
    #[error("job {0} is already working on '{1}'")]
    Busy(u32, String),
    /// No such job.
    #[error("there is no job {0}")]
    Unknown(u32),
    /// It has ended.
    #[error("job {0} has ended already")]
    Ended(u32),
}

/// The jobs and their workers.
#[derive(Debug)]
pub struct Jobs {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    clock: Clock,
    state: Mutex<Table>,
    wake: Condvar,
    changed: UnboundedSender<u32>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

struct Table {
    next: u32,
    jobs: BTreeMap<u32, Job>,
    waiting: VecDeque<(u32, Lane, Task)>,
    cancels: BTreeMap<u32, Arc<AtomicBool>>,
    stopping: bool,
}

impl Table {
    fn active(&self, kind: JobKind, subject: &str) -> Option<u32> {
        let cancelled = |id: &u32| self.cancels.get(id).is_some_and(|cancel| cancel.load(Ordering::Relaxed));
        let mut works = self.jobs.values().filter(|j| j.kind == kind && j.subject == subject && !j.state.is_final());
        works.find(|j| !cancelled(&j.id)).map(|j| j.id)
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, id: u32, state: JobState, message: String) {
        let mut table = self.table();
        table.cancels.remove(&id);
        let now = self.clock.wall_ms();
        if let Some(job) = table.jobs.get_mut(&id) {
            (job.state, job.message, job.finished_ms) = (state, message, now);
        }
        let finished: Vec<u32> = table.jobs.values().filter(|j| j.state.is_final()).map(|j| j.id).collect();
        for old in finished.iter().rev().skip(MAX_FINISHED) {
            table.jobs.remove(old);
        }
        drop(table);
        // Whoever listened may be gone at shutdown.
        let _ = self.changed.send(id);
    }
}

impl Jobs {
    /// Starts the workers. Numbers begin at `first`; each job that ends is announced on `changed` (at most as many as
    /// were submitted, so the channel needs no bound of its own).
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(clock: Clock, first: u32, changed: UnboundedSender<u32>) -> std::io::Result<Self> {
        let table = Table {
            next: first,
            jobs: BTreeMap::new(),
            waiting: VecDeque::new(),
            cancels: BTreeMap::new(),
            stopping: false,
        };
        let shared = Arc::new(Shared { clock, state: Mutex::new(table), wake: Condvar::new(), changed });
        let mut jobs = Self { shared, workers: Vec::new() };
        for (name, lane) in [("jobs-images", Lane::Images), ("jobs-devices", Lane::Devices)] {
            let shared = jobs.shared.clone();
            let worker = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&shared, lane))?;
            jobs.workers.push(worker);
        }
        Ok(jobs)
    }

    /// Numbers given from now on are at least `first`: earlier runs used those below.
    pub fn number_from(&self, first: u32) {
        let mut table = self.shared.table();
        table.next = table.next.max(first);
    }

    /// Queues work on `subject`; after a job on the same that is being cancelled, it comes next.
    ///
    /// # Errors
    /// When too much waits or something works on the same subject.
    pub fn submit(&self, kind: JobKind, subject: &str, task: Task) -> Result<u32, JobsError> {
        let mut table = self.shared.table();
        if let Some(busy) = table.active(kind, subject) {
            return Err(JobsError::Busy(busy, subject.to_owned()));
        }
        if table.waiting.len() >= MAX_WAITING {
            return Err(JobsError::Full);
        }
        let id = table.next;
        table.next = table.next.wrapping_add(1).max(1);
        let job = Job {
            id,
            kind,
            subject: subject.to_owned(),
            state: JobState::Waiting,
            bytes: 0,
            total_bytes: 0,
            files: 0,
            total_files: 0,
            message: String::new(),
            queued_ms: self.shared.clock.wall_ms(),
            finished_ms: 0,
        };
        table.jobs.insert(id, job);
        table.cancels.insert(id, Arc::default());
        table.waiting.push_back((id, kind.lane(), task));
        drop(table);
        self.shared.wake.notify_all();
        Ok(id)
    }

    /// Asks a job to stop and undo what it did.
    ///
    /// # Errors
    /// When it is unknown or over.
    pub fn cancel(&self, id: u32) -> Result<(), JobsError> {
        let mut table = self.shared.table();
        let job = table.jobs.get(&id).ok_or(JobsError::Unknown(id))?;
        if job.state.is_final() {
            return Err(JobsError::Ended(id));
        }
        if job.state == JobState::Waiting {
            table.waiting.retain(|(waiting, ..)| *waiting != id);
            drop(table);
            self.shared.end(id, JobState::Cancelled, "cancelled before it began".to_owned());
        } else if let Some(cancel) = table.cancels.get(&id) {
            cancel.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// One job.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<Job> {
        self.shared.table().jobs.get(&id).cloned()
    }

    /// All jobs that wait or run, and the last that ended, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Job> {
        self.shared.table().jobs.values().cloned().collect()
    }

    /// The job that waits or runs for `subject`, and is not being cancelled.
    #[must_use]
    pub fn active(&self, kind: JobKind, subject: &str) -> Option<u32> {
        self.shared.table().active(kind, subject)
    }

    /// The jobs of whatever kind that wait or run for `subject`, those being cancelled too, oldest first.
    #[must_use]
    pub fn all_on(&self, subject: &str) -> Vec<u32> {
        let table = self.shared.table();
        table.jobs.values().filter(|j| j.subject == subject && !j.state.is_final()).map(|j| j.id).collect()
    }

    /// Cancels what runs, drops what waits, and waits for the workers to be done with undoing.
    pub fn stop(&mut self) {
        let mut table = self.shared.table();
        table.stopping = true;
        table.waiting.clear();
        for cancel in table.cancels.values() {
            cancel.store(true, Ordering::Relaxed);
        }
        drop(table);
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                log::error!("a job worker panicked");
            }
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A job's own view of itself.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    id: u32,
    cancel: Arc<AtomicBool>,
}

impl Running {
    /// Set once the job is cancelled: for what outlives a borrow, such as a reader that another thread has.
    #[must_use]
    pub fn cancel_flag(&self) -> Arc<AtomicBool> {
        self.cancel.clone()
    }
}

impl Progress for Running {
    fn add(&self, bytes: u64, files: u64) {
        if let Some(job) = self.shared.table().jobs.get_mut(&self.id) {
            job.bytes = job.bytes.saturating_add(bytes);
            job.files = job.files.saturating_add(files);
        }
    }

    fn set_total(&self, bytes: u64, files: u64) {
        if let Some(job) = self.shared.table().jobs.get_mut(&self.id) {
            (job.total_bytes, job.total_files) = (bytes, files);
        }
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

fn work(shared: &Arc<Shared>, lane: Lane) {
    // Linux applies niceness to the thread whose id is given; failing to be nice is no reason not to work.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), WORKER_NICE);
    loop {
        let mut table = shared.table();
        let (id, task) = loop {
            if table.stopping {
                return;
            }
            let next = table.waiting.iter().position(|(_, of, _)| *of == lane);
            if let Some((id, _, task)) = next.and_then(|next| table.waiting.remove(next)) {
                break (id, task);
            }
            table = shared.wake.wait(table).unwrap_or_else(PoisonError::into_inner);
        };
        if let Some(job) = table.jobs.get_mut(&id) {
            job.state = JobState::Running;
        }
        let cancel = table.cancels.get(&id).cloned().unwrap_or_default();
        drop(table);
        let running = Running { shared: shared.clone(), id, cancel };
        let result = catch_unwind(AssertUnwindSafe(|| task(&running)));
        match result {
            Ok(Ok(message)) => shared.end(id, JobState::Done, message),
            Ok(Err(why)) if running.cancelled() => shared.end(id, JobState::Cancelled, why),
            Ok(Err(why)) => shared.end(id, JobState::Failed, why),
            Err(_) => {
                shared.end(id, JobState::Failed, "a fault in piboot itself stopped this job; see the log".to_owned())
            }
        }
    }
}

#[cfg(test)]
#[path = "jobs_tests.rs"]
mod tests;
