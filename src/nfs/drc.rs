//! Duplicate request cache: a repeat of a request that must run once gets the first one's answer.
//!
//! A client repeats a request when the connection broke before the answer came, from another port as a rule, so the key
//! holds the address without the port. Every address has its own lane: one client cannot push out another's answers.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::proto::Procedure;

/// Addresses with a lane; the one unused longest loses its.
const MAX_LANES: usize = 64;
/// Answers kept per address: more than a Linux client has requests under way (its slot table grows to 64k, but a
/// connection's window of them that were sent and not answered stays far below this).
const PER_LANE: usize = 128;
/// Longest answer kept. All answers of these procedures are shorter.
const MAX_REPLY: usize = 512;

/// What tells one request from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint {
    pub(super) xid: u32,
    pub(super) procedure: Procedure,
    /// Keyed hash of the first bytes of the message: a client may come to the same transaction id again.
    pub(super) content: u64,
}

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Run it, then call [`ReplyCache::done`].
    New,
    /// It is being run: say nothing, the answer is on its way.
    Running,
    /// It was run: this was the answer.
    Done(Box<[u8]>),
}

#[derive(Debug, Default)]
struct Lane {
    replies: HashMap<Fingerprint, Option<Box<[u8]>>>,
    order: VecDeque<Fingerprint>,
    used: u32,
}

#[derive(Debug, Default)]
struct Lanes {
    lanes: HashMap<IpAddr, Lane>,
    tick: u32,
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct ReplyCache(Mutex<Lanes>);

impl ReplyCache {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a request has arrived.
    pub(super) fn begin(&self, peer: IpAddr, request: Fingerprint) -> Seen {
        let mut lanes = self.lanes();
        lanes.tick = lanes.tick.wrapping_add(1);
        let tick = lanes.tick;
        if lanes.lanes.len() >= MAX_LANES
            && !lanes.lanes.contains_key(&peer)
            && let Some(oldest) =
                lanes.lanes.iter().max_by_key(|(_, lane)| tick.wrapping_sub(lane.used)).map(|(peer, _)| *peer)
        {
            lanes.lanes.remove(&oldest);
        }
        let lane = lanes.lanes.entry(peer).or_default();
        lane.used = tick;
        match lane.replies.get(&request) {
            Some(None) => return Seen::Running,
            Some(Some(reply)) => return Seen::Done(reply.clone()),
            None => {}
        }
        if lane.order.len() >= PER_LANE
            && let Some(oldest) = lane.order.pop_front()
        {
            lane.replies.remove(&oldest);
        }
        lane.order.push_back(request);
        lane.replies.insert(request, None);
        Seen::New
    }

    /// Keeps the answer of a request that [`ReplyCache::begin`] called new.
    pub(super) fn done(&self, peer: IpAddr, request: &Fingerprint, reply: &[u8]) {
        let mut lanes = self.lanes();
        let Some(lane) = lanes.lanes.get_mut(&peer) else { return };
        if reply.len() > MAX_REPLY {
            lane.replies.remove(request);
            lane.order.retain(|other| other != request);
        } else if let Some(place) = lane.replies.get_mut(request) {
            *place = Some(reply.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(xid: u32, content: u64) -> Fingerprint {
        Fingerprint { xid, procedure: Procedure::Remove, content }
    }

    #[test]
    fn a_repeat_waits_then_gets_the_first_answer() {
        let cache = ReplyCache::default();
        let (peer, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        assert_eq!(cache.begin(peer, request(1, 9)), Seen::New);
        assert_eq!(cache.begin(peer, request(1, 9)), Seen::Running);
        cache.done(peer, &request(1, 9), b"answer");
        assert_eq!(cache.begin(peer, request(1, 9)), Seen::Done((*b"answer").into()));
        assert_eq!(cache.begin(peer, request(1, 8)), Seen::New, "another request with the same xid");
        assert_eq!(cache.begin(other, request(1, 9)), Seen::New, "another client");
    }

    #[test]
    fn lanes_and_answers_are_bounded_and_separate() {
        let cache = ReplyCache::default();
        let quiet = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(cache.begin(quiet, request(7, 7)), Seen::New);
        cache.done(quiet, &request(7, 7), b"kept");
        let busy = IpAddr::from([192, 0, 2, 2]);
        for xid in 0..10_000 {
            assert_eq!(cache.begin(busy, request(xid, 0)), Seen::New);
            cache.done(busy, &request(xid, 0), &[0; 400]);
        }
        assert_eq!(cache.begin(quiet, request(7, 7)), Seen::Done((*b"kept").into()));
        assert_eq!(cache.lanes().lanes[&busy].replies.len(), PER_LANE);
        for host in 0..200 {
            cache.begin(IpAddr::from([198, 51, 100, host]), request(1, 1));
        }
        assert_eq!(cache.lanes().lanes.len(), MAX_LANES);
        cache.begin(busy, request(1, 2));
        cache.done(busy, &request(1, 2), &[0; MAX_REPLY + 1]);
        assert_eq!(cache.begin(busy, request(1, 2)), Seen::New, "too long to keep");
    }
}
