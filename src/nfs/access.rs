//! Who may use what: the exports that one address may use now, worked out once and kept until something changes.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::activity::{Activity, Milestones};
use super::exports::{Entry, RootIs, Table, Volume, Who};
use super::proto::Status;
use crate::clock::{Clock, Moment};
use crate::net::AddressBook;
use crate::pi::Mac;

/// A view is worked out anew after this time even if nobody announced a change: the kernel's neighbour table does not.
const VIEW_LIFE: Duration = Duration::from_secs(2);

/// The same while it is not known who holds the address: that is over as soon as the kernel has asked.
const UNKNOWN_LIFE: Duration = Duration::from_millis(100);

/// One export as one client sees it.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) entry: Arc<Entry>,
    pub(super) milestones: Arc<Milestones>,
}

/// Ports below this one are given to root alone (ip(7), `ip_unprivileged_port_start`): what comes from there was sent by
/// the client's kernel, and its word for who the caller is counts. Kernels and klibc mount from there by default.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// Who is asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) ip: IpAddr,
    /// The machine itself is asking, not just any process on it.
    is_system: bool,
}

impl Peer {
    /// The other end of a connection; `insecure_ports`: any port will do.
    pub(super) fn new(address: SocketAddr, insecure_ports: bool) -> Self {
        Self { ip: address.ip().to_canonical(), is_system: insecure_ports || address.port() < FIRST_UNPRIVILEGED }
    }
}

/// Whom limits count: the device as far as it is known, because IPv6 gives one many addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Client {
    Device(Mac),
    Address(IpAddr),
}

/// What one address may use.
#[derive(Debug)]
pub(super) struct View {
    pub(super) peer: IpAddr,
    is_system: bool,
    mac: Option<Mac>,
    table: Arc<Table>,
    grants: Vec<Grant>,
}

impl View {
    /// Whether the address may use anything at all.
    pub(super) fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// Whether it may use something that it may not write to.
    pub(super) fn has_read_only(&self) -> bool {
        self.grants.iter().any(|grant| grant.entry.export.read_only)
    }

    /// Whether the export is for this address.
    fn is_holder(&self, entry: &Entry) -> bool {
        match &entry.export.holder {
            Who::Mac(holder) => self.mac == Some(*holder),
            Who::Addresses(ranges) => ranges.iter().any(|range| range.contains(self.peer)),
        }
    }

    /// Whether nobody knows at the moment who holds the address. The kernel forgets its neighbours when the carrier is
    /// lost, and a client that was let in before must not take that for a refusal.
    fn may_turn_out_yours(&self, entry: &Entry) -> bool {
        self.mac.is_none() && self.is_system && matches!(entry.export.holder, Who::Mac(_))
    }

    /// How long the view may be used if nothing is known to have changed.
    fn life(&self) -> Duration {
        let entries = self.table.entries();
        if entries.iter().any(|entry| self.may_turn_out_yours(entry)) { UNKNOWN_LIFE } else { VIEW_LIFE }
    }

    /// Whether the export may be used: it is for this address, and where callers can be root, no mere process asks.
    fn may_use(&self, entry: &Entry) -> bool {
        let for_system = entry.export.root == RootIs::Root || matches!(entry.export.holder, Who::Mac(_));
        self.is_holder(entry) && (self.is_system || !for_system)
    }

    /// Whom limits count.
    pub(super) fn client(&self) -> Client {
        self.mac.map_or(Client::Address(self.peer), Client::Device)
    }

    /// How many exports there are for all.
    pub(super) fn export_count(&self) -> usize {
        self.table.entries().len()
    }

    /// All exports that may be used.
    pub(super) fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The export with this id.
    ///
    /// # Errors
    /// STALE if there is none any more, ACCES if it is not for this address, JUKEBOX while its volume is away or
    /// the holder of the address is not known.
    pub(super) fn find(&self, id: u16) -> Result<(&Grant, &Volume), Refused<'_>> {
        let Some(grant) = self.grants.iter().find(|grant| grant.entry.export.id == id) else {
            return Err(match self.table.by_id(id) {
                Some(entry) if self.may_turn_out_yours(entry) => Refused::Unknown(entry),
                Some(entry) => Refused::NotYours(entry),
                None => Refused::NoExport,
            });
        };
        match &grant.entry.volume {
            Ok(volume) => Ok((grant, volume)),
            Err(_) => Err(Refused::Away),
        }
    }

    /// The export with this name; as [`View::find`].
    pub(super) fn find_name(&self, name: &[u8]) -> Result<(&Grant, &Volume), Refused<'_>> {
        let entry = self.table.by_name(name).ok_or(Refused::NoExport)?;
        self.find(entry.export.id)
    }

    /// Why the address may not use an export, for people.
    pub(super) fn why_not(&self, entry: &Entry) -> String {
        match &entry.export.holder {
            _ if self.is_holder(entry) => {
                "the call came from a port that any process may use (mount option noresvport?)".to_owned()
            }
            Who::Mac(mac) => match self.mac {
                Some(other) => format!("it belongs to {mac}, and {} is held by {other}", self.peer),
                None => format!("it belongs to {mac}, and {} is held by no known device", self.peer),
            },
            who @ Who::Addresses(_) => format!("it is for {who} only"),
        }
    }
}

/// Why a view does not give an export.
#[derive(Debug)]
pub(super) enum Refused<'a> {
    /// There is no such export.
    NoExport,
    /// It is for somebody else.
    NotYours(&'a Entry),
    /// It is for a device, and which one has this address is not known at the moment.
    Unknown(&'a Entry),
    /// Its volume is not there at the moment.
    Away,
}

impl Refused<'_> {
    pub(super) const fn status(&self) -> Status {
        match self {
            Self::NoExport => Status::Stale,
            Self::NotYours(_) => Status::Acces,
            Self::Unknown(_) | Self::Away => Status::Jukebox,
        }
    }
}

/// A view and the moment it was worked out; one per connection.
#[derive(Debug)]
pub(super) struct CachedView {
    view: Arc<View>,
    table_generation: u32,
    book_generation: u32,
    at: Moment,
    life: Duration,
}

/// The live export table and the address book.
#[derive(Debug)]
pub(super) struct Access {
    table: Mutex<Arc<Table>>,
    generation: AtomicU32,
    book: AddressBook,
    clock: Clock,
}

impl Access {
    pub(super) fn new(table: Table, book: AddressBook, clock: Clock) -> Self {
        Self { table: Mutex::new(Arc::new(table)), generation: AtomicU32::new(0), book, clock }
    }

    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a new table in force: it holds for every request that starts from now on.
    pub(super) fn replace(&self, table: Arc<Table>) {
        *self.table.lock().unwrap_or_else(PoisonError::into_inner) = table;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// What `peer` may use now.
    pub(super) fn view(&self, peer: Peer, cached: &mut Option<CachedView>, activity: &Activity) -> Arc<View> {
        let now = self.clock.now();
        // Read before the table and the book: a change meanwhile makes the view old at once.
        let (table_generation, book_generation) = (self.generation.load(Ordering::Acquire), self.book.generation());
        if let Some(c) = cached
            && (c.table_generation, c.book_generation) == (table_generation, book_generation)
            && now.since(c.at) < c.life
        {
            return Arc::clone(&c.view);
        }
        let view = Arc::new(self.work_out(peer, activity));
        let life = view.life();
        *cached = Some(CachedView { view: Arc::clone(&view), table_generation, book_generation, at: now, life });
        view
    }

    fn work_out(&self, peer: Peer, activity: &Activity) -> View {
        let Peer { ip: peer, is_system } = peer;
        let mut view = View { peer, is_system, mac: self.book.mac_of(peer), table: self.table(), grants: Vec::new() };
        let usable = view.table.entries().iter().filter(|entry| view.may_use(entry));
        view.grants = usable
            .map(|entry| Grant {
                entry: Arc::clone(entry),
                milestones: activity.milestones(entry.export.id, &entry.export.name, peer),
            })
            .collect();
        view
    }
}
