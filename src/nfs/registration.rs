//! Keeps the server known to a portmapper that is not its own: one that is restarted has forgotten who registered.
//!
//! On a thread of its own, because a portmapper that hangs takes seconds to be given up.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::portmap::{Mapping, mappings};
use super::rpcbind::{self, RpcbindError};
use super::server::{PortmapState, STACK};

/// How often the portmapper is asked: a Pi that asks for the NFS port in vain tries again for longer than that.
const INTERVAL: Duration = Duration::from_secs(5);

/// A registration; dropping it takes it back.
#[derive(Debug)]
pub(super) struct Registration {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    port: u16,
    mappings: Vec<Mapping>,
    /// `None`: registered. Otherwise why not.
    problem: Mutex<Option<String>>,
    ended: Mutex<bool>,
    wake: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registration {
    /// Registers a server on `nfs_port` with the portmapper on `port`, now or as soon as that works.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(port: u16, nfs_port: u16) -> io::Result<Self> {
        let mappings = mappings(nfs_port, None);
        let problem = match rpcbind::register(port, &mappings) {
            Ok(()) => {
                log::info!("NFS: port {port} has a portmapper already: registered there");
                None
            }
            Err(error) => {
                log::error!("NFS: {error}. Clients will not find the NFS port by themselves");
                Some(error.to_string())
            }
        };
        let (problem, ended) = (Mutex::new(problem), Mutex::new(false));
        let shared = Arc::new(Shared { port, mappings, problem, ended, wake: Condvar::new() });
        let keeper = Arc::clone(&shared);
        let thread = thread::Builder::new().name("nfs-portmap".into()).stack_size(STACK).spawn(move || keeper.keep());
        // Dropped without a thread it still takes back what it did.
        let mut registration = Self { shared, thread: None };
        registration.thread = Some(thread?);
        Ok(registration)
    }

    pub(super) fn state(&self) -> PortmapState {
        match &*lock(&self.shared.problem) {
            None => PortmapState::Registered(self.shared.port),
            Some(why) => PortmapState::Unregistered(why.clone()),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        *lock(&self.shared.ended) = true;
        self.shared.wake.notify_one();
        // It must not register again what is taken back here.
        let _ = self.thread.take().map(JoinHandle::join);
        if lock(&self.shared.problem).is_none()
            && let Err(error) = rpcbind::unregister(self.shared.port, &self.shared.mappings)
        {
            log::warn!("NFS: {error}");
        }
    }
}

impl Shared {
    fn keep(&self) {
        loop {
            let ended = lock(&self.ended);
            let (ended, _) =
                self.wake.wait_timeout_while(ended, INTERVAL, |ended| !*ended).unwrap_or_else(PoisonError::into_inner);
            if *ended {
                return;
            }
            drop(ended);
            self.note(self.ensure());
        }
    }

    /// True if it had to be done again.
    fn ensure(&self) -> Result<bool, RpcbindError> {
        if rpcbind::is_registered(self.port, &self.mappings)? {
            return Ok(false);
        }
        rpcbind::register(self.port, &self.mappings).map(|()| true)
    }

    /// Says each thing once.
    fn note(&self, result: Result<bool, RpcbindError>) {
        let port = self.port;
        if matches!(result, Ok(true)) {
            log::warn!(
                "NFS: the portmapper on port {port} did not know this server (any more): registered there again"
            );
        }
        let problem = result.err().map(|error| error.to_string());
        let mut before = lock(&self.problem);
        if let Some(why) = problem.as_ref().filter(|_| *before != problem) {
            log::error!("NFS: {why}. Clients will not find the NFS port by themselves");
        }
        *before = problem;
    }
}
