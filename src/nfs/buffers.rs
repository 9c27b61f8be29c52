//! Memory for large requests and answers: bounded for all clients together and for each, reused while there is traffic.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::access::Client;
use crate::clock::Clock;

/// How long a client waits for others, or for its own requests that wait for a disk. It is told to come again then, or
/// loses its connection and comes back.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often one who waits looks at the clock.
const TICK: Duration = Duration::from_millis(500);
/// Buffers kept for reuse.
const MAX_SPARE: usize = 4;

#[derive(Debug, Default)]
struct Pool {
    used: usize,
    by_client: HashMap<Client, usize>,
    spare: Vec<Vec<u8>>,
    closed: bool,
}

/// The budget.
#[derive(Debug)]
pub(super) struct Buffers {
    limit: usize,
    clock: Clock,
    pool: Mutex<Pool>,
    freed: Condvar,
}

impl Buffers {
    /// At most `limit` bytes at a time, and half of that for one client.
    pub(super) fn new(limit: usize, clock: Clock) -> Self {
        Self { limit, clock, pool: Mutex::default(), freed: Condvar::new() }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leave to hold `bytes`, and an empty vector for them: waits until there is room. A client that holds nothing may
    /// always take one buffer of any size up to the limit. `None` if there is
    /// none for some seconds, or once [`Buffers::close`] was called.
    pub(super) fn take(self: &Arc<Self>, client: Client, bytes: usize) -> Option<Lease> {
        let bytes = bytes.min(self.limit);
        let begun = self.clock.now();
        let mut pool = self.pool();
        loop {
            if pool.closed {
                return None;
            }
            let mine = pool.by_client.get(&client).copied().unwrap_or(0);
            if pool.used + bytes <= self.limit && (mine == 0 || mine + bytes <= self.limit / 2) {
                break;
            }
            if self.clock.now().since(begun) >= PATIENCE {
                return None;
            }
            pool = self.freed.wait_timeout(pool, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
        pool.used += bytes;
        *pool.by_client.entry(client).or_default() += bytes;
        let data = pool.spare.pop().unwrap_or_default();
        Some(Lease { buffers: Arc::clone(self), client, bytes, data })
    }

    /// Frees the buffers that nobody uses.
    pub(super) fn trim(&self) {
        let spare = std::mem::take(&mut self.pool().spare);
        drop(spare);
    }

    /// Ends all waiting.
    pub(super) fn close(&self) {
        self.pool().closed = true;
        self.freed.notify_all();
    }
}

/// Leave to hold some bytes, given back on drop.
#[derive(Debug)]
pub(super) struct Lease {
    buffers: Arc<Buffers>,
    client: Client,
    bytes: usize,
    /// The buffer.
    pub(super) data: Vec<u8>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut data = std::mem::take(&mut self.data);
        data.clear();
        let mut pool = self.buffers.pool();
        pool.used = pool.used.saturating_sub(self.bytes);
        if let Some(mine) = pool.by_client.get_mut(&self.client) {
            *mine = mine.saturating_sub(self.bytes);
            if *mine == 0 {
                pool.by_client.remove(&self.client);
            }
        }
        if pool.spare.len() < MAX_SPARE && data.capacity() > 0 {
            pool.spare.push(data);
        }
        drop(pool);
        self.buffers.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pi::Mac;

    #[test]
    fn nobody_waits_for_ever() {
        let clock = Clock::manual(0);
        let buffers = Arc::new(Buffers::new(1000, clock.clone()));
        let client = Client::Device(Mac([2, 0, 0, 0, 0, 1]));
        let _first = buffers.take(client, 500).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| buffers.take(client, 1).is_none());
            while !waiting.is_finished() {
                clock.advance(PATIENCE);
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(waiting.join().unwrap());
        });
        assert_eq!(buffers.pool().used, 500);
    }

    #[test]
    fn a_client_gets_half_and_waits_for_more_while_another_is_served() {
        let buffers = Arc::new(Buffers::new(1000, Clock::manual(0)));
        let [greedy, other] = [1, 2].map(|n| Client::Address([192, 0, 2, n].into()));
        let first = buffers.take(greedy, 500).unwrap();
        std::thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::channel();
            let buffers = &buffers;
            scope.spawn(move || {
                let lease = buffers.take(greedy, 100);
                sender.send(()).unwrap();
                drop(lease);
            });
            let others = buffers.take(other, 500).unwrap();
            assert!(receiver.try_recv().is_err(), "over its half");
            drop(others);
            drop(first);
            receiver.recv().unwrap();
        });
        assert_eq!(buffers.pool().used, 0);
        assert!(buffers.pool().by_client.is_empty());
        buffers.close();
        assert!(buffers.take(other, 1).is_none());
    }
}
