//! TFTP: piboot, dnsmasq and async-tftp serve emulated Pis over the loopback of a network namespace.

mod cases;
mod client;
mod servers;

use std::path::Path;

use crate::measure::{Error, Figures, Results};
use crate::stage;
use cases::{Case, Tree};
use servers::{Contestant, PEERS};

pub use servers::serve;

const ROUNDS: usize = 3;

/// Runs the cases whose name contains `filter`.
pub fn run(filter: &str) -> Result<(), Error> {
    // dnsmasq knows no other port than 69.
    stage::enter_namespaces()?;
    let _one_cpu = stage::OneCpu::stay()?;
    let tree = Tree::create()?;
    let contestants = [Contestant::Piboot, Contestant::Dnsmasq, Contestant::AsyncTftp];
    for case in cases::all().iter().filter(|case| case.name.contains(filter)) {
        let mut results = Results::default();
        for round in 0..ROUNDS {
            for turn in 0..contestants.len() {
                let contestant = contestants[(round + turn) % contestants.len()];
                if !results.has_failed(contestant.name()) {
                    results.add(contestant.name(), measure(case, contestant, &tree));
                }
            }
        }
        results.print(&format!("tftp/{}", case.name), case.metrics, &PEERS);
    }
    Ok(())
}

/// One run of one case against a fresh server.
fn measure(case: &Case, contestant: Contestant, tree: &Tree) -> Result<Figures, Error> {
    let mut server = contestant.start(tree.root())?;
    client::wait_until_served(|| server.is_alive())?;
    let before = server.cpu()?;
    let outcome = client::play(case, tree)?;
    let cpu = server.cpu()?.saturating_sub(before);
    let mut figures = Figures::new();
    figures.insert("cpu_ms_per_mb", cpu.as_secs_f64() * 1e3 / (outcome.bytes as f64 / 1e6));
    figures.insert("wall_s", outcome.wall.as_secs_f64());
    figures.insert("client_p50_s", outcome.client_p50.as_secs_f64());
    figures.insert("miss_p50_us", outcome.miss_p50.as_secs_f64() * 1e6);
    figures.insert("miss_cpu_us", cpu.as_secs_f64() * 1e6 / outcome.misses.max(1) as f64);
    Ok(figures)
}

/// The serial of the n-th emulated Pi: its directory.
fn serial(number: usize) -> String {
    format!("{:08x}", 0x1000_0000 + number)
}

/// The address of the n-th emulated Pi.
fn pi_ip(number: usize) -> std::net::Ipv4Addr {
    let number = u32::try_from(number).unwrap_or(0);
    std::net::Ipv4Addr::from(u32::from_be_bytes([127, 1, 0, 1]) + number)
}

fn boot_directory(root: &Path, number: usize) -> std::path::PathBuf {
    root.join(serial(number))
}
