//! Is the system of a Pi up? It is when it answers on the SSH port, or when the traffic of its start has died down.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::servers::Wire;
use crate::api::Api;
use crate::boot::{Boot, BootState, Stage};
use crate::clock::Moment;
use crate::events::{Sink, What};

/// Where SSH answers (RFC 4253 §4.1).
const SSH: u16 = 22;
/// How long a Pi on the same network may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pis asked at the same time.
const AT_ONCE: usize = 16;
/// A system that does not come to rest within this time is at work.
const GIVE_UP: Duration = Duration::from_secs(600);
/// A system at rest still writes a log line now and then: so many NFS requests a second are rest,
const AT_REST: u32 = 10;
/// for so long.
const REST: Duration = Duration::from_secs(10);

/// Looks after the Pis whose systems are coming up.
#[derive(Debug, Default)]
pub(super) struct ReadyWatch {
    probes: JoinSet<()>,
    calm: HashMap<IpAddr, Calm>,
}

/// How busy a Pi is.
#[derive(Debug, Clone, Copy)]
struct Calm {
    requests: u32,
    since: Moment,
}

impl ReadyWatch {
    /// Called once a second.
    pub(super) fn look(&mut self, api: &Api<Wire>, sink: &Sink) {
        while self.probes.try_join_next().is_some() {}
        let now = api.fleet.clock().now();
        let elsewhere = api.servers.serves_elsewhere();
        let is_up_to_something = |boot: &Boot| match boot.state {
            BootState::Running => true,
            // A root that is read-only is never written to.
            BootState::Booting => boot.reached(Stage::Mount) || elsewhere && boot.reached(Stage::OsDhcp),
            BootState::Stopped | BootState::Abandoned => false,
        };
        let coming_up =
            |boot: &&Boot| is_up_to_something(boot) && !boot.reached(Stage::Ready) && boot.silent_for(now) < GIVE_UP;
        let boots = api.fleet.current_boots().filter(coming_up);
        let waiting: Vec<(IpAddr, bool)> =
            boots.filter_map(|boot| Some((boot.ip?, boot.state == BootState::Running))).collect();
        self.calm.retain(|ip, _| waiting.iter().any(|(other, _)| other == ip));
        for (ip, has_written) in waiting {
            let requests = api.servers.nfs_requests_of(ip).unwrap_or(0);
            let calm = self.calm.entry(ip).or_insert(Calm { requests, since: now });
            if requests.wrapping_sub(calm.requests) > AT_REST {
                calm.since = now;
            }
            calm.requests = requests;
            if has_written && !elsewhere && now.since(calm.since) >= REST {
                sink.emit(What::Answers { peer: ip, how: "the traffic of its start has died down" });
            } else if self.probes.len() < AT_ONCE {
                self.probes.spawn(ask(ip, sink.clone()));
            }
        }
    }
}

async fn ask(ip: IpAddr, sink: Sink) {
    let answer = tokio::time::timeout(PATIENCE, TcpStream::connect(SocketAddr::new(ip, SSH))).await;
    if matches!(answer, Ok(Ok(_))) {
        sink.emit(What::Answers { peer: ip, how: "SSH answers" });
    }
}
