//! Is a Pi that runs still there? Its NFS connection says so while there is one; what stopped while the agent did, or
//! never connected again, nobody would tell of.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::servers::Wire;
use crate::api::Api;
use crate::boot::BootState;
use crate::clock::Moment;

/// A system that works comes back to its root within this time; Linux closes a connection that was idle for five minutes.
const NO_WORD: Duration = Duration::from_secs(20);
/// And so often one that is at rest is asked again.
const AGAIN: Duration = Duration::from_secs(60);
/// The kernel looks for who holds an address for 3 s, after it believed for 5 s what it knew (arp(7), `ucast_solicit`,
/// `delay_first_probe_time`).
const PATIENCE: Duration = Duration::from_secs(12);
/// Any port will do: a machine that is there accepts or refuses. Nobody is at this one (discard, RFC 863) to log it.
const PORT: u16 = 9;
/// Pis asked at the same time.
const AT_ONCE: usize = 16;
/// So often in a row must nobody hold its address: one lost packet is no power cut.
const TIMES: u32 = 2;

/// Asks after Pis that run and are not connected.
#[derive(Debug, Default)]
pub(super) struct Presence {
    questions: JoinSet<(IpAddr, bool)>,
    asked: HashSet<IpAddr>,
    unanswered: HashMap<IpAddr, Missing>,
}

/// When to ask after a Pi next, and how often nobody was there.
#[derive(Debug)]
struct Missing {
    next: Moment,
    times: u32,
}

impl Presence {
    /// Called every few seconds.
    pub(super) fn look(&mut self, api: &Api<Wire>) {
        let now = api.fleet.clock().now();
        while let Some(Ok((ip, is_there))) = self.questions.try_join_next() {
            self.asked.remove(&ip);
            if self.is_missing(ip, is_there, now) {
                api.servers.is_gone(ip);
            }
        }
        let runs = api.fleet.current_boots().filter(|boot| boot.state == BootState::Running);
        let missing: HashSet<IpAddr> =
            runs.filter_map(|boot| boot.ip).filter(|ip| api.servers.nfs_requests_of(*ip).is_none()).collect();
        self.unanswered.retain(|ip, _| missing.contains(ip));
        for ip in missing {
            let known = self.unanswered.entry(ip).or_insert(Missing { next: now.plus(NO_WORD), times: 0 });
            if now >= known.next && self.questions.len() < AT_ONCE && self.asked.insert(ip) {
                self.questions.spawn(async move { (ip, is_there(ip).await) });
            }
        }
    }

    /// Takes an answer; true if there have been enough of them.
    fn is_missing(&mut self, ip: IpAddr, is_there: bool, now: Moment) -> bool {
        let Some(known) = self.unanswered.get_mut(&ip) else { return false };
        (known.times, known.next) = if is_there { (0, now.plus(AGAIN)) } else { (known.times + 1, now) };
        known.times >= TIMES
    }
}

/// Whether a machine holds the address. Only the kernel's word that none does counts: a firewall may keep silent.
async fn is_there(ip: IpAddr) -> bool {
    match tokio::time::timeout(PATIENCE, TcpStream::connect(SocketAddr::new(ip, PORT))).await {
        Ok(Err(error)) => error.kind() != io::ErrorKind::HostUnreachable,
        Ok(Ok(_)) | Err(_) => true,
    }
}
