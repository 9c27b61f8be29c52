//! The TFTP server under many clients, loss and files larger than block numbers: every byte must arrive.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod tftp_client;

use std::net::SocketAddr;
use std::time::Duration;

use piboot::events::{Tftp, TftpEnd};
use piboot::tftp::transfer::RETRANSMIT_AFTER;
use tftp_client::{Client, SERIAL, TestServer};

/// An address of its own for each emulated Pi.
fn pi_address(number: usize) -> SocketAddr {
    let [high, low] = u16::try_from(number + 1).unwrap().to_be_bytes();
    SocketAddr::from(([127, 1, high, low], 0))
}

fn fetch_all(clients: usize, options: &[(&str, &str)]) {
    let server = TestServer::with(|config| config.limits.retransmit_after = RETRANSMIT_AFTER);
    let bytes = server.file("kernel8.img", 300_001);
    std::thread::scope(|scope| {
        for number in 0..clients {
            let (server, bytes) = (server.address(), &bytes);
            scope.spawn(move || {
                let mut client = Client::bound(server, pi_address(number));
                let got = client.fetch(&format!("{SERIAL}/kernel8.img"), options).unwrap();
                assert!(got == *bytes, "client {number} got {} bytes of {}", got.len(), bytes.len());
            });
        }
    });
    let stats = server.handle.stats();
    assert_eq!(stats.transfers as usize, clients);
}

#[test]
fn clients_1_25_and_100_get_every_byte_at_each_block_size() {
    for clients in [1, 25, 100] {
        fetch_all(clients, &[]);
        for blksize in ["1024", "1468"] {
            fetch_all(clients, &[("tsize", "0"), ("blksize", blksize)]);
        }
    }
}

#[test]
fn one_percent_loss_each_way_never_loses_the_file() {
    let server = TestServer::with(|config| config.limits.retransmit_after = Duration::from_millis(20));
    let bytes = server.file("initramfs8", 400_000);
    std::thread::scope(|scope| {
        for (number, window) in (1..).zip(["1", "1", "1", "1", "8", "8", "64", "64"]) {
            let (server, bytes) = (server.address(), &bytes);
            scope.spawn(move || {
                let mut client = Client::bound(server, pi_address(number as usize)).lossy(10, number * 7919);
                let options = [("blksize", "1024"), ("windowsize", window)];
                let got = client.fetch(&format!("{SERIAL}/initramfs8"), &options).unwrap();
                assert!(got == *bytes, "window {window}, seed {number}");
            });
        }
    });
}

#[test]
fn forty_megabytes_at_512_roll_the_block_number_over() {
    let mut server = TestServer::start();
    let size = 40_000_000_usize;
    let file = std::fs::File::create(server.boot.join("initramfs8")).unwrap();
    file.set_len(size as u64).unwrap();
    // A mark beyond block 65535 shows that blocks behind the wrap are not those of the beginning.
    let at = 65_540 * 512_u64;
    std::os::unix::fs::FileExt::write_all_at(&file, b"behind the wrap", at).unwrap();
    let mut client = Client::new(server.address());
    let got = client.fetch(&format!("{SERIAL}/initramfs8"), &[]).unwrap();
    let at = usize::try_from(at).unwrap();
    assert_eq!((got.len(), &got[at..at + 15]), (size, &b"behind the wrap"[..]));
    assert_eq!(got.iter().filter(|&&b| b != 0).count(), 15);
    match server.closed() {
        Tftp::Closed { end: TftpEnd::Done, acknowledged, .. } => assert_eq!(acknowledged, size as u64),
        other => panic!("{other:?}"),
    }
    assert_eq!(server.handle.stats().acknowledged, size as u64);
}
