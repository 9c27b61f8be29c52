//! What nobody should send, and more of it than anybody should: the server answers or closes, and stays small.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod nfs_support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nfs_support::attacks::{Attack, one_packet_attacks};
use nfs_support::{Fixture, Raw, config, export, is_root, limits, scratch, start, start_with};
use nfs3_types::xdr_codec::Pack;
use piboot::nfs::{Limits, ServerConfig};

const NFS: (u32, u32) = (100_003, 3);
const MOUNT: (u32, u32) = (100_005, 3);
const PORTMAP: (u32, u32) = (100_000, 2);

/// One test at a time: they look at the memory of the process that they share.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resident memory of this process, in which the server runs, in KB.
fn resident_kb() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn one_packet_does_not_take_memory() {
    if !is_root() {
        return;
    }
    let _alone = alone();
    let dir = scratch();
    let f = start(dir.path());
    let before = resident_kb();
    let ports = [(f.address(), NFS, 1), (f.address(), MOUNT, 1), (f.portmap_address(), PORTMAP, 3)];
    for (address, program, procedure) in ports {
        for Attack { what, bytes } in one_packet_attacks(program.0, program.1, procedure) {
            let mut raw = Raw::connect(address);
            raw.0.write_all(&bytes).unwrap();
            // Either refused in words or closed; a client that waits for more gets neither.
            if let Some(reply) = raw.receive() {
                assert_eq!(reply[..8], [0, 0, 0, 1, 0, 0, 0, 1], "{what}: a reply to the call");
                assert_ne!(reply[8..], [0; 16], "{what}: not a success");
            }
        }
    }
    let grown = resident_kb().saturating_sub(before);
    assert!(grown < 4096, "{grown} KB more than before");
    let mut raw = Raw::connect(f.address());
    let null = raw.ask(&Raw::message(5, NFS.0, NFS.1, 0, &[])).unwrap();
    assert_eq!(null[20..], [0; 4], "and serves on");
}

#[test]
fn what_is_not_served_is_refused_by_its_name() {
    if !is_root() {
        return;
    }
    let _alone = alone();
    let dir = scratch();
    let f = start(dir.path());
    let mut raw = Raw::connect(f.address());
    for (program, version, procedure, wanted) in [
        (100_227, 3, 0, &[1][..]),
        (100_021, 4, 0, &[1]),
        (100_003, 4, 0, &[2, 3, 3]),
        (100_003, 3, 22, &[3]),
        (100_003, 3, 1, &[4]),
        (100_005, 2, 0, &[2, 1, 3]),
        (100_005, 1, 0, &[0]),
        (100_005, 3, 9, &[3]),
    ] {
        let reply = raw.ask(&Raw::message(9, program, version, procedure, &[])).unwrap();
        let words: Vec<u32> = reply[20..].chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words, wanted, "{program} {version} {procedure}");
    }
    raw.send(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(raw.receive(), None, "closed");
}

#[test]
fn fragments_are_put_together_and_pipelined_calls_answered() {
    if !is_root() {
        return;
    }
    let _alone = alone();
    let dir = scratch();
    let f = start(dir.path());
    let mut raw = Raw::connect(f.address());
    let message = Raw::message(3, NFS.0, NFS.1, 0, &[]);
    let (head, tail) = message.split_at(10);
    let mut bytes = vec![0, 0, 0, 10];
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(&(u32::try_from(tail.len()).unwrap() | 1 << 31).to_be_bytes());
    bytes.extend_from_slice(tail);
    for byte in &bytes {
        raw.0.write_all(std::slice::from_ref(byte)).unwrap();
    }
    assert_eq!(raw.receive().unwrap()[..4], 3_u32.to_be_bytes());
    for xid in 0..200 {
        raw.send(&Raw::message(xid, NFS.0, NFS.1, 0, &[0; 400]));
    }
    for xid in 0..200_u32 {
        assert_eq!(raw.receive().unwrap()[..4], xid.to_be_bytes());
    }
    let empty = [0_u8; 4];
    let mut endless = Raw::connect(f.address());
    let _ = endless.0.write_all(&empty.repeat(1000));
    assert_eq!(endless.receive(), None, "fragments of nothing without end");
}

#[test]
fn a_client_with_too_many_connections_loses_the_one_it_used_least_lately() {
    if !is_root() {
        return;
    }
    let _alone = alone();
    let dir = scratch();
    let few = Limits { per_address: 3, ..limits() };
    let f = start_with(ServerConfig { limits: few, ..config() }, vec![export(1, "/pi/root", dir.path())]);
    let null = Raw::message(5, NFS.0, NFS.1, 0, &[]);
    let mut open: Vec<Raw> = (0..3).map(|_| Raw::connect(f.address())).collect();
    for n in [1, 0, 2, 0] {
        f.clock.advance(Duration::from_millis(1));
        assert!(open[n].ask(&null).is_some());
    }
    let mut fourth = Raw::connect(f.address());
    assert!(fourth.ask(&null).is_some(), "a client that crashed and came back is not locked out by its past");
    assert_eq!(open[1].receive(), None);
    for n in [0, 2] {
        assert!(open[n].ask(&null).is_some());
    }
    assert_eq!(f.server.stats().turned_away, 0);
    // However fast it comes back, it holds what one client may.
    let crowd: Vec<Raw> = (0..50).map(|_| Raw::connect(f.address())).collect();
    assert!(f.server.stats().connections <= 6);
    drop(crowd);
}

#[test]
fn a_connection_whose_client_vanished_is_noticed_and_many_exports_have_many_connections() {
    if !is_root() {
        return;
    }
    let _alone = alone();
    let dir = scratch();
    let few = Limits { connections: 2, per_address: 100, ..limits() };
    let exports = (1..=3).map(|n| export(n, &format!("/pi{n}/root"), dir.path())).collect();
    let f = start_with(ServerConfig { limits: few, ..config() }, exports);
    let null = Raw::message(5, NFS.0, NFS.1, 0, &[]);
    let mut open: Vec<Raw> = (0..12).map(|_| Raw::connect(f.address())).collect();
    assert!(open.iter_mut().all(|raw| raw.ask(&null).is_some()), "four for each export");
    assert_eq!(Raw::connect(f.address()).receive(), None);
    assert_eq!(f.server.stats().turned_away, 1);
    // /proc/net/tcp: the timer "02" of the server's end is the keepalive (proc(5)).
    let port = format!("0100007F:{:04X}", f.server.ports().nfs);
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let ours: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let timers: Vec<&str> = ours.iter().filter(|l| l[1] == port && l[3] == "01").map(|l| &l[5][..2]).collect();
    assert!(timers.len() >= 12 && timers.iter().all(|timer| matches!(*timer, "01" | "02")), "{timers:?}");
}

#[test]
fn a_request_that_never_completes_does_not_hold_its_connection() {
    if !is_root() {
        return;
    }
    let _alone = alone();
    let dir = scratch();
    // The server looks at the clock every 25 ms; the clock stands still until it is moved.
    let hasty = Limits { partial: Duration::from_millis(50), idle: Duration::from_secs(10), ..limits() };
    let f = start_with(ServerConfig { limits: hasty, ..config() }, vec![export(1, "/pi/root", dir.path())]);
    let mut quiet = Raw::connect(f.address());
    let null = Raw::message(5, NFS.0, NFS.1, 0, &[]);
    // A WRITE of a megabyte and a NULL that stop in the middle, at the record mark, and before its end.
    let mark = |length: usize| (0x8000_0000_u32 | u32::try_from(length).unwrap()).to_be_bytes();
    let write = [&mark(1 << 20)[..], &Raw::message(1, NFS.0, NFS.1, 7, &[0; 50_000])].concat();
    let short = [&mark(null.len())[..], &null].concat();
    for begun in [&write[..], &write[..4], &short[..30], &short[..4], &short[..2]] {
        let mut raw = Raw::connect(f.address());
        // Once something was answered, it is known that the rest has arrived too.
        raw.0.write_all(&[&short, begun].concat()).unwrap();
        assert!(raw.receive().is_some());
        assert!(quiet.ask(&null).is_some(), "others are served meanwhile");
        until_closed(&f, &mut raw, Duration::from_millis(50), Duration::from_secs(5));
    }
    assert!(quiet.ask(&null).is_some(), "who asks for nothing is not broken off so soon");
    until_closed(&f, &mut quiet, Duration::from_secs(1), Duration::from_secs(60));
}

/// Moves the clock on, by steps up to a span, until the server has closed the connection.
fn until_closed(f: &Fixture, raw: &mut Raw, step: Duration, span: Duration) {
    raw.0.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    let mut moved = Duration::ZERO;
    loop {
        match raw.0.read(&mut [0]) {
            Ok(0) => return,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && moved < span => {}
            other => panic!("{other:?} after {moved:?}"),
        }
        f.clock.advance(step);
        moved += step;
    }
}

#[test]
fn garbage_for_every_procedure_is_answered_or_closed() {
    if !is_root() {
        return;
    }
    let _alone = alone();
    let dir = scratch();
    let f = start(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let root = runtime.block_on(f.mount("/pi/root")).unwrap();
    let mut handle = Vec::new();
    root.pack(&mut handle).unwrap();
    let mut state = 0x9e37_79b9_u32;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let before = resident_kb();
    let mut raw = Raw::connect(f.address());
    for round in 0..4000_u32 {
        let mut args = if round % 2 == 0 { handle.clone() } else { Vec::new() };
        for _ in 0..random() % 60 {
            args.extend_from_slice(&(random() & [0xff, 0xffff_ffff, 3, 0][(random() % 4) as usize]).to_be_bytes());
        }
        let procedure = random() % 23;
        let reply = raw.ask(&Raw::message(round, NFS.0, NFS.1, procedure, &args)).unwrap();
        assert_eq!(reply[..4], round.to_be_bytes());
    }
    let grown = resident_kb().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KB more than before");
}
