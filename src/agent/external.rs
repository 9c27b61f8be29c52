//! Looks after an NFS server that is not this agent's: would a Pi get its root from there, and does it keep what a root
//! consists of?
//!
//! On a thread of its own: a server that hangs takes its time, and a mount of it may hold a thread for good.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::api::types::Finding;
use crate::clock::{Clock, Moment};
use crate::config::{ExternalNfs, Severity};
use crate::{nfs, storage};

/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(60);
/// And while something is wrong with it.
const AGAIN: Duration = Duration::from_secs(10);
/// A look that takes longer than this is stuck in the mount.
const STUCK: Duration = Duration::from_secs(45);

/// The watch over one server; ends when it is dropped.
#[derive(Debug)]
pub(super) struct ExternalWatch {
    of: ExternalNfs,
    data_dir: PathBuf,
    clock: Clock,
    state: Arc<Mutex<State>>,
    _ends: mpsc::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    problem: Option<String>,
    /// Since when the look that is under way goes on.
    looking_since: Option<Moment>,
}

impl ExternalWatch {
    /// Starts the thread.
    pub(super) fn start(of: &ExternalNfs, data_dir: PathBuf, clock: Clock) -> io::Result<Self> {
        let (ends, ended) = mpsc::channel();
        let watch = Self { of: of.clone(), data_dir, clock: clock.clone(), state: Arc::default(), _ends: ends };
        let (of, data_dir, state) = (of.clone(), watch.data_dir.clone(), Arc::clone(&watch.state));
        thread::Builder::new().name("nfs-external".to_owned()).spawn(move || {
            loop {
                lock(&state).looking_since = Some(clock.now());
                let problem = look(&of, &data_dir);
                let mut now = lock(&state);
                if let Some(why) = problem.as_ref().filter(|_| now.problem != problem) {
                    log::error!("nfs: {why}");
                }
                let pause = if problem.is_some() { AGAIN } else { INTERVAL };
                *now = State { problem, looking_since: None };
                drop(now);
                if !matches!(ended.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
                    return;
                }
            }
        })?;
        Ok(watch)
    }

    /// Whether it watches this server and directory.
    pub(super) fn is_of(&self, of: &ExternalNfs, data_dir: &std::path::Path) -> bool {
        self.of == *of && self.data_dir == data_dir
    }

    /// What is wrong.
    pub(super) fn finding(&self) -> Option<Finding> {
        let state = lock(&self.state);
        let stuck = state.looking_since.is_some_and(|since| self.clock.now().since(since) > STUCK);
        let hangs = || {
            format!(
                "data_dir {} does not answer: the NFS server {} hangs, or cannot be reached; Pis wait for it. Mounted with 'soft', it would say so sooner",
                self.data_dir.display(),
                self.of.server
            )
        };
        let text = if stuck { hangs() } else { state.problem.clone()? };
        Some(Finding::new(Severity::Error, "nfs".to_owned(), text))
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look(of: &ExternalNfs, data_dir: &std::path::Path) -> Option<String> {
    if let Err(error) = nfs::probe(of.server, &of.path) {
        return Some(format!("Pis cannot mount their roots: {error}"));
    }
    // Where something else is mounted, `storage` has it to say.
    if storage::check_external(data_dir, of.server, &of.path).is_some() {
        return None;
    }
    storage::keeps_attributes(data_dir)
        .err()
        .map(|why| format!("the NFS server {} does not keep what a root consists of: {why}", of.server))
}
