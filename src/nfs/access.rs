//! Who may use what: the exports that one address may use now, worked out once and kept until something changes.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::activity::{Activity, Milestones};
use super::exports::{Entry, Table, Volume, Who};
use super::proto::Status;
use crate::clock::{Clock, Moment};
use crate::net::AddressBook;

/// A view is worked out anew after this time even if nobody announced a change: the kernel's neighbour table does not.
const VIEW_LIFE: Duration = Duration::from_secs(2);

/// One export as one client sees it.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) entry: Arc<Entry>,
    pub(super) milestones: Arc<Milestones>,
}

/// What one address may use.
#[derive(Debug)]
pub(super) struct View {
    pub(super) peer: IpAddr,
    table: Arc<Table>,
    grants: Vec<Grant>,
    holder: String,
}

impl View {
    /// Whether the address may use anything at all.
    pub(super) fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// All exports that may be used.
    pub(super) fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The export with this id.
    ///
    /// # Errors
    /// STALE if there is none any more, ACCES if it is not for this address, JUKEBOX while its volume is away.
    pub(super) fn find(&self, id: u16) -> Result<(&Grant, &Volume), Refused<'_>> {
        let Some(grant) = self.grants.iter().find(|grant| grant.entry.export.id == id) else {
            return Err(match self.table.by_id(id) {
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
            Who::Mac(mac) => format!("it belongs to {mac}, and {} is held by {}", self.peer, self.holder),
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
    /// Its volume is not there at the moment.
    Away,
}

impl Refused<'_> {
    pub(super) const fn status(&self) -> Status {
        match self {
            Self::NoExport => Status::Stale,
            Self::NotYours(_) => Status::Acces,
            Self::Away => Status::Jukebox,
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
    pub(super) fn new(book: AddressBook, clock: Clock) -> Self {
        Self { table: Mutex::default(), generation: AtomicU32::new(0), book, clock }
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
    pub(super) fn view(&self, peer: IpAddr, cached: &mut Option<CachedView>, activity: &Activity) -> Arc<View> {
        let now = self.clock.now();
        // Read before the table and the book: a change meanwhile makes the view old at once.
        let (table_generation, book_generation) = (self.generation.load(Ordering::Acquire), self.book.generation());
        if let Some(c) = cached
            && (c.table_generation, c.book_generation) == (table_generation, book_generation)
            && now.since(c.at) < VIEW_LIFE
        {
            return Arc::clone(&c.view);
        }
        let view = Arc::new(self.work_out(peer, activity));
        *cached = Some(CachedView { view: Arc::clone(&view), table_generation, book_generation, at: now });
        view
    }

    fn work_out(&self, peer: IpAddr, activity: &Activity) -> View {
        let table = self.table();
        let mac = self.book.mac_of(peer);
        let may = |entry: &&Arc<Entry>| match &entry.export.holder {
            Who::Mac(holder) => mac == Some(*holder),
            Who::Addresses(ranges) => ranges.iter().any(|range| range.contains(peer)),
        };
        let grants = table
            .entries()
            .iter()
            .filter(may)
            .map(|entry| Grant {
                entry: Arc::clone(entry),
                milestones: activity.milestones(entry.export.id, &entry.export.name, peer),
            })
            .collect();
        let holder = mac.map_or_else(|| "no known device".to_owned(), |mac| mac.to_string());
        View { peer, table, grants, holder }
    }
}
