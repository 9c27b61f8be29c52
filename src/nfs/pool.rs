//! Threads for requests that may wait for the disk.
//!
//! Every connection has a thread of its own that reads requests and runs the quick ones itself: on slow cores waking
//! another thread costs as much as a GETATTR. A request that may sleep (WRITE, COMMIT, a READ that is not in the page
//! cache) is offered here, so that the next request of the same client need not wait for it. An offer is taken only if
//! a thread is idle and the client has not got its share of them; else the connection's own thread runs the request.
//! So there is no queue to wait in, and no client can hold up another.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::access::{Client, View};
use super::buffers::Lease;
use super::connection::Connection;

/// A received message that outlives the reader's buffer.
#[derive(Debug)]
pub(super) enum Message {
    Small(Vec<u8>),
    Large(Lease),
}

impl Message {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large(lease) => &lease.data,
        }
    }
}

/// A request to run.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) connection: Arc<Connection>,
    pub(super) message: Message,
    pub(super) view: Arc<View>,
}

#[derive(Debug, Default)]
struct State {
    handed: VecDeque<Job>,
    idle: usize,
    by_client: HashMap<Client, usize>,
    stopping: bool,
}

/// The meeting point of readers and workers.
#[derive(Debug)]
pub(super) struct Pool {
    state: Mutex<State>,
    wake: Condvar,
    share: usize,
}

impl Pool {
    /// For `workers` threads, half of which one client may have.
    pub(super) fn new(workers: usize) -> Self {
        Self { state: Mutex::default(), wake: Condvar::new(), share: workers.div_ceil(2).max(1) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an offer for `client` would be taken now: asked before a message is copied for it.
    pub(super) fn has_room(&self, client: Client) -> bool {
        let state = self.state();
        !state.stopping
            && state.idle > state.handed.len()
            && state.by_client.get(&client).is_none_or(|busy| *busy < self.share)
    }

    /// Hands a job to an idle thread, or back.
    pub(super) fn offer(&self, job: Job) -> Result<(), Job> {
        let client = job.connection.client;
        let mut state = self.state();
        let busy = state.by_client.get(&client).copied().unwrap_or(0);
        if state.stopping || state.idle <= state.handed.len() || busy >= self.share {
            return Err(job);
        }
        state.by_client.insert(client, busy + 1);
        state.handed.push_back(job);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// The next job of a worker; `None` when the server stops and nothing is left to do.
    pub(super) fn next(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if let Some(job) = state.handed.pop_front() {
                return Some(job);
            }
            if state.stopping {
                return None;
            }
            state.idle += 1;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// A worker is done with a job of `client`.
    pub(super) fn finished(&self, client: Client) {
        let mut state = self.state();
        if let Some(busy) = state.by_client.get_mut(&client) {
            *busy -= 1;
            if *busy == 0 {
                state.by_client.remove(&client);
            }
        }
    }

    /// Lets the workers end after what they have.
    pub(super) fn stop(&self) {
        self.state().stopping = true;
        self.wake.notify_all();
    }
}
