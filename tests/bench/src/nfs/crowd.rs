//! Twenty-five clients at once: all but one stream a file of their own, one asks for attributes now and then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use piboot::nfs::proto::Procedure;
use piboot::nfs::xdr;

use super::client::{Connection, FileHandle, post_op_handle};
use super::servers::{Running, connect};
use crate::measure::{Error, Figures};
use crate::stage;

/// What is printed; lower is better for all.
pub const METRICS: [&str; 5] = ["wall_us_per_mib", "cpu_us_per_mib", "getattr_p50_us", "getattr_p99_us", "rss_peak_mb"];

const STREAMERS: u8 = 24;
const MIB: usize = 1 << 20;
/// Bytes of each file.
const FILE: usize = 8 * MIB;
/// How often each is read.
const PASSES: usize = 16;
/// What a Linux client has under way of a file that is read in sequence.
const WINDOW: usize = 4;

/// Between two questions of the one that asks: a client that does nothing else would take a CPU for itself.
const PAUSE: Duration = Duration::from_millis(1);

/// Runs them against a server.
pub fn run(server: &Running) -> Result<Figures, Error> {
    let mut clients = Vec::new();
    for number in 0..STREAMERS {
        let mut connection = connect(10 + number)?;
        let file = make(&mut connection, &server.root, number)?;
        clients.push((connection, file));
    }
    let mut watcher = connect(9)?;
    let watched = make(&mut watcher, &server.root, STREAMERS)?;
    let streaming = AtomicBool::new(true);
    let before = server.process.cpu()?;
    let begun = Instant::now();
    let (wall, mut latencies) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&mut watcher, &watched, &streaming));
        let streams: Vec<_> =
            clients.iter_mut().map(|(connection, file)| scope.spawn(move || stream(connection, file))).collect();
        let streamed: Result<Vec<()>, Error> = streams.into_iter().map(joined).collect();
        let wall = begun.elapsed();
        streaming.store(false, Ordering::Relaxed);
        let latencies = joined(watching)?;
        streamed.map(|_| (wall, latencies))
    })?;
    let cpu = server.process.cpu()?.saturating_sub(before);
    let volume = (usize::from(STREAMERS) * PASSES * FILE / MIB) as f64;
    latencies.sort_unstable();
    let quantile = |per_cent: usize| latencies[(latencies.len() - 1) * per_cent / 100].as_secs_f64() * 1e6;
    Ok(Figures::from([
        ("wall_us_per_mib", wall.as_secs_f64() * 1e6 / volume),
        ("cpu_us_per_mib", cpu.as_secs_f64() * 1e6 / volume),
        ("getattr_p50_us", quantile(50)),
        ("getattr_p99_us", quantile(99)),
        ("rss_peak_mb", server.process.peak_rss()?),
    ]))
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread.join().unwrap_or_else(|_| Err(Error::new("a client panicked")))
}

fn make(connection: &mut Connection, root: &[u8], number: u8) -> Result<FileHandle, Error> {
    let file = post_op_handle(&mut connection.call(Procedure::Create, |out| {
        xdr::put_opaque(out, root);
        xdr::put_opaque(out, format!("stream-{number}").as_bytes());
        // UNCHECKED, mode 0644, nothing else.
        for word in [0, 1, 0o644, 0, 0, 0, 0, 0] {
            xdr::put_u32(out, word);
        }
    })?)?;
    let data = vec![number; MIB];
    let arguments = |n: usize, out: &mut Vec<u8>| {
        xdr::put_opaque(out, &file);
        xdr::put_u64(out, (n * MIB) as u64);
        xdr::put_u32(out, MIB as u32);
        xdr::put_u32(out, 0);
        xdr::put_opaque(out, &data);
    };
    connection.run(Procedure::Write, FILE / MIB, 2, arguments, |_, _| Ok(()))?;
    Ok(file)
}

fn stream(connection: &mut Connection, file: &[u8]) -> Result<(), Error> {
    stage::be_nice(19)?;
    let arguments = |n: usize, out: &mut Vec<u8>| {
        xdr::put_opaque(out, file);
        xdr::put_u64(out, (n % (FILE / MIB) * MIB) as u64);
        xdr::put_u32(out, MIB as u32);
    };
    connection.run(Procedure::Read, PASSES * FILE / MIB, WINDOW, arguments, |_, _| Ok(()))
}

fn watch(connection: &mut Connection, file: &[u8], go_on: &AtomicBool) -> Result<Vec<Duration>, Error> {
    stage::be_nice(-20)?;
    let mut latencies = Vec::new();
    while go_on.load(Ordering::Relaxed) || latencies.is_empty() {
        let begun = Instant::now();
        connection.call(Procedure::GetAttr, |out| xdr::put_opaque(out, file))?;
        latencies.push(begun.elapsed());
        thread::sleep(PAUSE);
    }
    Ok(latencies)
}
