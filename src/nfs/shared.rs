//! What all threads of the server share, and what each has for itself.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::access::Access;
use super::activity::Activity;
use super::buffers::{Buffers, Lease};
use super::creds::Switcher;
use super::drc::ReplyCache;
use super::files::{OpenFile, OpenFiles};
use super::fs::ProcFds;
use super::handle::HandleKey;
use super::known::KnownHandles;
use super::objects::Objects;
use super::pool::Pool;
use super::server::Ports;
use super::space::Space;
use crate::clock::Clock;
use crate::random;

/// Bounds on what clients can make the server hold.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time; more where there are many exports: four for each.
    pub connections: usize,
    /// Connections of one client: a device as far as it is known, or an address. One more takes the place of the one that
    /// was used least lately.
    pub per_address: usize,
    /// Connections from all addresses together that may use no export.
    pub strangers: usize,
    /// Bytes of one READ or WRITE.
    pub max_transfer: u32,
    /// Bytes of large requests and answers under way, for all clients.
    pub memory: usize,
    /// Threads for requests that may wait for the disk.
    pub workers: usize,
    /// A connection without requests is closed after this time; clients connect again by themselves.
    pub idle: Duration,
    /// A request that began to arrive must be complete after this time.
    pub partial: Duration,
    /// A client that takes nothing of an answer for this time is disconnected.
    pub send: Duration,
}

impl Limits {
    /// Fit for a machine with this many bytes of memory and this many processors.
    #[must_use]
    pub fn for_machine(memory: u64, processors: usize) -> Self {
        let small = memory <= 128 << 20;
        Self {
            connections: 64,
            per_address: 8,
            strangers: 16,
            max_transfer: if small { 256 << 10 } else { 1 << 20 },
            memory: if small { 2 << 20 } else { 8 << 20 },
            workers: (2 * processors).clamp(4, 8),
            idle: Duration::from_secs(360),
            partial: Duration::from_secs(60),
            send: Duration::from_secs(30),
        }
    }

    /// Longest record taken: the largest WRITE with its header.
    pub(super) fn max_record(&self) -> usize {
        usize::try_from(self.max_transfer).unwrap_or(usize::MAX).saturating_add(4096)
    }
}

impl Default for Limits {
    /// Fit for this machine.
    fn default() -> Self {
        let info = rustix::system::sysinfo();
        // The fields' C types differ between architectures.
        #[allow(clippy::useless_conversion, reason = "32 bits wide on some targets")]
        let memory = u64::from(info.totalram).saturating_mul(u64::from(info.mem_unit));
        Self::for_machine(memory, std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }
}

/// The write verifier (RFC 1813 §3.3.7): tells clients that unstable writes may be lost, so that they send them again.
/// Random, because a router's clock may read the same after each boot.
#[derive(Debug)]
pub(super) struct Verifier(Mutex<[u8; 8]>);

impl Verifier {
    pub(super) fn new() -> Result<Self, Errno> {
        let verifier = Self(Mutex::new([0; 8]));
        verifier.randomise()?;
        Ok(verifier)
    }

    pub(super) fn get(&self) -> [u8; 8] {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A flush failed: what was written and not committed may be lost, for whichever client.
    pub(super) fn change(&self) {
        if self.randomise().is_err() {
            let mut value = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *value = u64::from_be_bytes(*value).wrapping_add(1).to_be_bytes();
        }
    }

    fn randomise(&self) -> Result<(), Errno> {
        let mut fresh = [0; 8];
        random::fill(&mut fresh).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

/// Counters since start; they wrap.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicUsize,
    pub(super) failures: AtomicUsize,
    pub(super) replays: AtomicUsize,
    pub(super) garbage: AtomicUsize,
    pub(super) turned_away: AtomicUsize,
}

impl Counters {
    pub(super) fn count(counter: &AtomicUsize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What all threads share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) access: Access,
    pub(super) activity: Activity,
    pub(super) buffers: Arc<Buffers>,
    pub(super) clock: Clock,
    pub(super) counters: Counters,
    pub(super) files: OpenFiles,
    /// Clients may use ports that are not reserved for their kernels.
    pub(super) insecure_ports: bool,
    pub(super) key: HandleKey,
    pub(super) known: KnownHandles,
    pub(super) limits: Limits,
    pub(super) objects: Objects,
    pub(super) pool: Pool,
    pub(super) ports: Ports,
    pub(super) proc: ProcFds,
    pub(super) replies: ReplyCache,
    pub(super) space: Space,
    pub(super) stopping: AtomicBool,
    /// Name-space operations wait for the disk.
    pub(super) sync: bool,
    pub(super) verifier: Arc<Verifier>,
}

impl Shared {
    /// Closes the files that are no longer kept, until there are no more.
    pub(super) fn close_files(&self, files: &Receiver<Arc<OpenFile>>) {
        for file in files {
            // A server that starts again has another verifier in any case.
            if !self.is_stopping()
                && let Err(errno) = file.last_flush()
            {
                log::error!("NFS: what was written to a file did not all reach the disk: {errno}");
                self.verifier.change();
            }
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// What follows the bytes of a reply: file data that the kernel sends itself.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) file: Arc<OpenFile>,
    pub(super) offset: u64,
    pub(super) length: usize,
}

/// What each thread that runs requests has.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) creds: Switcher,
    /// The reply that is being made, record mark included.
    pub(super) reply: Vec<u8>,
    /// File data to send after `reply`.
    pub(super) tail: Option<Tail>,
    /// Leave to hold a large `reply`; its vector is the small one meanwhile.
    pub(super) lease: Option<Lease>,
}

impl Worker {
    pub(super) fn for_this_thread() -> Result<Self, Errno> {
        let creds = Switcher::for_this_thread()?;
        Ok(Self { creds, reply: Vec::with_capacity(1024), tail: None, lease: None })
    }

    /// Exchanges a large reply buffer for the small one; what the small one held is still there.
    pub(super) fn give_lease_back(&mut self) {
        if let Some(mut lease) = self.lease.take() {
            std::mem::swap(&mut self.reply, &mut lease.data);
        }
    }

    /// Whether the reply is its bytes alone, and those hold none of the memory that is shared.
    pub(super) fn is_small(&self) -> bool {
        self.tail.is_none() && self.lease.is_none()
    }

    /// Makes ready for the next reply.
    pub(super) fn reply_sent(&mut self) {
        self.tail = None;
        self.give_lease_back();
        self.reply.clear();
        // A READDIR of 64 KiB needs no lease, but is not worth keeping either.
        self.reply.shrink_to(32 << 10);
    }
}
