//! What it costs to watch a busy LAN: foreign packets, and made-up Pis, on the interface that the agent watches.

use std::time::{Duration, Instant};

use emupi::frame::{self, ETHERTYPE_IPV4, Mac};
use emupi::lab::Process;
use emupi::rng::Rng;
use emupi::{Link, Model, Pi, dhcp, ip, many, udp};

use crate::measure::Error;
use crate::storm::{Router, usage};

const PER_SECOND: u32 = 10_000;
const LASTS: Duration = Duration::from_secs(10);
/// Frames are sent in bursts this far apart.
const TICK: Duration = Duration::from_millis(1);
/// How long a real Pi may go unseen before the wait ends.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the agent is asked whom it has seen.
const POLL: Duration = Duration::from_millis(50);

/// Runs the cases whose name contains `filter`.
pub fn run(filter: &str) -> Result<(), Error> {
    if "10000pps".contains(filter) {
        let traffic = foreign()?;
        flood("10000pps", &mut |n, _| traffic[n as usize % traffic.len()].clone())?;
    }
    if "10000pps-spoofed".contains(filter) {
        flood("10000pps-spoofed", &mut |_, rng| {
            let pi = Pi { mac: mac(rng, [0xb8, 0x27, 0xeb]), ..Pi::new(Model::Pi3BPlus, rng.next_u64()) };
            discover(&pi, dhcp::discover::Speaker::Bootcode)
        })?;
    }
    if "10000pps-spoofed-pi4".contains(filter) {
        flood("10000pps-spoofed-pi4", &mut |_, rng| {
            let pi = Pi { mac: mac(rng, [0xdc, 0xa6, 0x32]), ..Pi::new(Model::Pi4B, rng.next_u64()) };
            discover(&pi, dhcp::discover::Speaker::Eeprom)
        })?;
    }
    Ok(())
}

/// Sends frames at the rate, and a real Pi's DISCOVER in the middle of them and another after them; prints what the agent
/// used.
fn flood(name: &str, next: &mut dyn FnMut(u32, &mut Rng) -> Vec<u8>) -> Result<(), Error> {
    let router = Router::new()?;
    let agent = router.start_agent("")?;
    let link = router.net.veth_link()?;
    let mut port = link.attach(Mac([2, 0, 0, 0, 0, 1]))?;
    let mut rng = Rng::new(7);
    let (before, rss, stored) = (usage(&agent)?, resident(&agent)?, database(&router));
    let (cpu, sent) = std::thread::scope(|scope| {
        let during = scope.spawn(|| {
            std::thread::sleep(LASTS / 2);
            // From here on our own questions cost the agent more than the packets.
            let cpu = usage(&agent)?.since(before).cpu;
            Ok::<_, Error>((cpu, seen_after(&router, &link, 0)?))
        });
        let begun = Instant::now();
        let mut sent = 0;
        while begun.elapsed() < LASTS {
            let due = (begun.elapsed().as_secs_f64() * f64::from(PER_SECOND)) as u32;
            while sent < due {
                port.send(&next(sent, &mut rng))?;
                sent += 1;
            }
            std::thread::sleep(TICK);
        }
        let (cpu, took) = during.join().map_err(|_| Error::new("panicked"))??;
        print(name, "seen_during_ms", took.map(|took| took.as_secs_f64() * 1e3));
        Ok::<_, Error>((cpu, sent))
    })?;
    let took = seen_after(&router, &link, 1)?;
    print(name, "seen_after_ms", took.map(|took| took.as_secs_f64() * 1e3));
    print(name, "sent_per_s", Some(f64::from(sent) / LASTS.as_secs_f64()));
    print(name, "cpu_percent", Some(cpu.as_secs_f64() / (LASTS / 2).as_secs_f64() * 100.0));
    // What is stored is stored within seconds.
    std::thread::sleep(Duration::from_secs(6));
    print(name, "rss_growth_mb", Some((resident(&agent)? - rss) / 1024.0));
    print(name, "peak_rss_mb", Some(usage(&agent)?.peak_rss_kb as f64 / 1024.0));
    print(name, "database_growth_kb", Some((database(&router) as f64 - stored as f64) / 1024.0));
    let status: String = router.ask("status")?.split_whitespace().collect();
    let dropped =
        status.split("\"events_dropped\":").nth(1).and_then(|rest| rest.split([',', '}']).next()?.parse().ok());
    print(name, "events_dropped", dropped);
    Ok(())
}

fn print(name: &str, metric: &str, value: Option<f64>) {
    println!(
        "bench: observe/{name} {metric} piboot={}",
        value.map_or("never".to_owned(), |value| format!("{value:.2}"))
    );
}

/// Powers a real Pi on, as far as its DISCOVER; how long until the agent lists it.
fn seen_after(router: &Router, link: &Link, number: u32) -> Result<Option<Duration>, Error> {
    let pi = many::nth(Model::Pi4B, number);
    let mut port = link.attach(pi.mac)?;
    let begun = Instant::now();
    port.send(&discover(&pi, dhcp::discover::Speaker::Eeprom))?;
    while begun.elapsed() < PATIENCE {
        if router.ask("devices")?.contains(&pi.mac.to_string()) {
            return Ok(Some(begun.elapsed()));
        }
        std::thread::sleep(POLL);
    }
    Ok(None)
}

fn discover(pi: &Pi, speaker: dhcp::discover::Speaker) -> Vec<u8> {
    let message = speaker.discover(pi, speaker.xid(pi.mac, 0x1234_5678)).encode();
    let (none, all) = (std::net::Ipv4Addr::UNSPECIFIED, std::net::Ipv4Addr::BROADCAST);
    datagram(pi.mac, Mac::BROADCAST, (none, 68), (all, 67), &message)
}

fn datagram(
    from: Mac,
    to: Mac,
    src: (std::net::Ipv4Addr, u16),
    dst: (std::net::Ipv4Addr, u16),
    payload: &[u8],
) -> Vec<u8> {
    let packet = ip::build(src.0, dst.0, ip::UDP, 64, &udp::build(src, dst, payload, true));
    frame::build(to, from, ETHERTYPE_IPV4, &packet)
}

fn mac(rng: &mut Rng, block: [u8; 3]) -> Mac {
    let [a, b, c, _] = rng.next_u32().to_be_bytes();
    Mac([block[0], block[1], block[2], a, b, c])
}

/// A LAN's traffic: of a hundred packets forty UDP and fifty TCP ones to this router, nine multicasts, one DISCOVER of a laptop.
fn foreign() -> Result<Vec<Vec<u8>>, Error> {
    const TCP: u8 = 6;
    let router: Mac = "02:70:69:62:6f:6f".parse()?;
    let mut rng = Rng::new(3);
    let address = |n: u32| std::net::Ipv4Addr::from(0x0a4d_0400 + (n & 0xff));
    let frames = (0..1000).map(|n: u32| {
        let laptop = mac(&mut rng, [0x3c, 0x97, 0x0e]);
        let own = address(n);
        match n % 100 {
            0 => discover(&Pi { mac: laptop, ..Pi::new(Model::Laptop, 1) }, dhcp::discover::Speaker::Laptop),
            1..10 => {
                let group = std::net::Ipv4Addr::new(224, 0, 0, 251);
                datagram(laptop, Mac([1, 0, 0x5e, 0, 0, 251]), (own, 5353), (group, 5353), &[0; 200])
            }
            10..50 => datagram(laptop, router, (own, 4000), (address(1), 443), &[0; 1200]),
            _ => frame::build(router, laptop, ETHERTYPE_IPV4, &ip::build(own, address(1), TCP, 64, &[0; 1000])),
        }
    });
    Ok(frames.collect())
}

fn resident(agent: &Process) -> Result<f64, Error> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or(Error::new("no VmRSS"))?.parse()?)
}

/// Bytes of the database and its journal.
fn database(router: &Router) -> u64 {
    let size = |name: &str| std::fs::metadata(router.data_dir().join(name)).map_or(0, |meta| meta.len());
    size("piboot.db") + size("piboot.db-wal")
}
