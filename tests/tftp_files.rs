//! Whose files the TFTP server gives to whom, and what it does when the file system plays tricks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod tftp_client;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::sync::Arc;

use piboot::events::{Tftp, TftpEnd};
use piboot::pi::Mac;
use piboot::tftp::Routes;
use tftp_client::{Answer, Client, SERIAL, TestServer, device, known_bytes, open_device};

const LION: Mac = Mac([0xdc, 0xa6, 0x32, 0, 0, 1]);
const PANDA: Mac = Mac([0xb8, 0x27, 0xeb, 0, 0, 2]);
const LION_IP: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
const PANDA_IP: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 2);
const STRANGER_IP: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 3);

/// Two devices with a file each, their addresses known, and a `bootcode.bin` for the rest.
fn two_devices() -> TestServer {
    let server = TestServer::start();
    let boots = ["lion", "panda"].map(|id| {
        let boot = server.outside().join(id);
        fs::create_dir(&boot).unwrap();
        fs::write(boot.join("whoami"), id).unwrap();
        boot
    });
    let fallback = server.outside().join("image");
    fs::create_dir(&fallback).unwrap();
    fs::write(fallback.join("bootcode.bin"), "second stage").unwrap();
    let devices =
        vec![device("lion", Some(SERIAL), Some(LION), &boots[0]), device("panda", None, Some(PANDA), &boots[1])];
    server.handle.set_routes(Arc::new(Routes::new(devices, Some(fallback))));
    server.book.observe(LION_IP.into(), LION);
    server.book.observe(PANDA_IP.into(), PANDA);
    server
}

/// What `path` is to the client at `ip`: the content, or the error's number.
fn ask(server: &TestServer, ip: Ipv4Addr, path: &str) -> Result<String, u16> {
    let mut client = Client::bound(server.address(), SocketAddr::from((ip, 0)));
    let fetched = client.fetch(path, &[("tsize", "0")]).map_err(|(code, _)| code)?;
    Ok(String::from_utf8(fetched).unwrap())
}

#[test]
fn a_device_gets_its_own_files_and_nobody_elses() {
    let server = two_devices();
    for (ip, path, answer) in [
        (LION_IP, "38c128c0/whoami", Ok("lion")),
        (LION_IP, "dc-a6-32-00-00-01/whoami", Ok("lion")),
        (LION_IP, "whoami", Ok("lion")),
        (PANDA_IP, "whoami", Ok("panda")),
        (PANDA_IP, "38c128c0/whoami", Err(2)),
        (PANDA_IP, "dc-a6-32-00-00-01/whoami", Err(2)),
        (STRANGER_IP, "38c128c0/whoami", Err(2)),
        (STRANGER_IP, "whoami", Err(1)),
        (STRANGER_IP, "bootcode.bin", Ok("second stage")),
        (LION_IP, "bootcode.bin", Ok("second stage")),
        (LION_IP, "38c128c0/bootcode.bin", Err(1)),
    ] {
        assert_eq!(ask(&server, ip, path).as_deref(), answer.as_ref().copied(), "{path} asked by {ip}");
    }
}

#[test]
fn the_fallback_follows_no_link() {
    let server = two_devices();
    let fallback = server.outside().join("image/bootcode.bin");
    fs::rename(&fallback, server.outside().join("image/other")).unwrap();
    std::os::unix::fs::symlink("other", &fallback).unwrap();
    assert_eq!(ask(&server, STRANGER_IP, "bootcode.bin"), Err(2));
    fs::remove_file(&fallback).unwrap();
    assert_eq!(ask(&server, STRANGER_IP, "bootcode.bin"), Err(1));
}

#[test]
fn a_device_enrolled_by_mac_is_served_and_shows_its_serial() {
    let mut server = two_devices();
    assert_eq!(ask(&server, PANDA_IP, "0badcafe/whoami").unwrap(), "panda");
    let (peer, event) = server.event();
    assert_eq!(peer, IpAddr::V4(PANDA_IP));
    assert!(matches!(&event, Tftp::Open { path, .. } if **path == *b"0badcafe/whoami"), "{event:?}");
}

#[test]
fn rights_follow_the_address_when_it_changes_hands() {
    let server = two_devices();
    assert_eq!(ask(&server, LION_IP, "38c128c0/whoami").unwrap(), "lion");
    server.book.observe(STRANGER_IP.into(), LION);
    assert_eq!(ask(&server, STRANGER_IP, "38c128c0/whoami").unwrap(), "lion");
    assert_eq!(ask(&server, LION_IP, "38c128c0/whoami"), Err(2));
}

#[test]
fn nothing_outside_the_tree_can_be_had() {
    let server = TestServer::start();
    fs::write(server.outside().join("secret"), "secret").unwrap();
    symlink("../secret", server.boot.join("relative")).unwrap();
    symlink("/etc/passwd", server.boot.join("absolute")).unwrap();
    symlink("..", server.boot.join("up")).unwrap();
    server.file("f", 10);
    symlink("f", server.boot.join("inside")).unwrap();
    let mut client = Client::new(server.address());
    for name in ["relative", "absolute", "up/secret", "../secret", "x/../../secret"] {
        let (code, _) = client.fetch(&format!("{SERIAL}/{name}"), &[]).unwrap_err();
        assert_eq!(code, 2, "{name}");
    }
    assert_eq!(client.fetch(&format!("{SERIAL}/inside"), &[]).unwrap().len(), 10);
}

#[test]
fn names_from_fat_match_whatever_their_case() {
    let server = TestServer::start();
    fs::create_dir(server.boot.join("Overlays")).unwrap();
    fs::write(server.boot.join("Overlays/VC4-KMS-V3D.dtbo"), "overlay").unwrap();
    fs::write(server.boot.join("CONFIG.TXT"), "config").unwrap();
    let mut client = Client::new(server.address());
    for (name, content) in [("config.txt", "config"), ("overlays/vc4-kms-v3d.dtbo", "overlay")] {
        assert_eq!(client.fetch(&format!("{SERIAL}/{name}"), &[]).unwrap(), content.as_bytes(), "{name}");
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_ends_in_an_error_not_in_a_short_file() {
    let mut server = TestServer::start();
    server.file("kernel8.img", 1_000_000); // more than is read ahead
    let mut client = Client::new(server.address());
    client.request(&format!("{SERIAL}/kernel8.img"), &[("blksize", "1024")]);
    assert!(matches!(client.answer(), Answer::Oack(_)));
    client.ack(0);
    assert!(matches!(client.answer(), Answer::Data(1, data) if data.len() == 1024));
    fs::OpenOptions::new().write(true).open(server.boot.join("kernel8.img")).unwrap().set_len(100_000).unwrap();
    for block in 1.. {
        client.ack(block);
        match client.answer() {
            Answer::Data(number, data) => assert_eq!((number, data.len()), (block + 1, 1024), "no short block"),
            answer => {
                assert_eq!(answer, Answer::Error(0, "read error".to_owned()));
                break;
            }
        }
    }
    match server.closed() {
        Tftp::Closed { end: TftpEnd::ReadError(why), acknowledged, size: 1_000_000, .. } => {
            assert!(acknowledged <= 100_000);
            assert!(why.contains("shorter"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_is_replaced_while_it_is_sent_arrives_as_it_was() {
    let server = TestServer::start();
    let old = server.file("config.txt", 1000);
    let mut client = Client::new(server.address());
    client.request(&format!("{SERIAL}/config.txt"), &[]);
    assert_eq!(client.answer(), Answer::Data(1, old[..512].to_vec()));
    let beside = server.outside().join("new");
    fs::write(&beside, known_bytes(1000, 99)).unwrap();
    fs::rename(&beside, server.boot.join("config.txt")).unwrap();
    client.ack(1);
    assert_eq!(client.answer(), Answer::Data(2, old[512..].to_vec()));
}

#[test]
fn new_routes_hold_from_the_next_request_on_and_drop_no_transfer() {
    let mut server = TestServer::start();
    let old = server.file("kernel8.img", 1000);
    let mut client = Client::new(server.address());
    client.request(&format!("{SERIAL}/kernel8.img"), &[]);
    assert_eq!(client.answer(), Answer::Data(1, old[..512].to_vec()));

    server.handle.set_routes(Arc::new(Routes::default()));
    let mut other = Client::new(server.address());
    assert_eq!(other.fetch(&format!("{SERIAL}/kernel8.img"), &[]).unwrap_err().0, 1);
    client.ack(1);
    assert_eq!(client.answer(), Answer::Data(2, old[512..].to_vec()));
    client.ack(2);
    assert!(matches!(server.closed(), Tftp::Closed { end: TftpEnd::Done, acknowledged: 1000, .. }));

    server.handle.set_routes(Arc::new(Routes::new(vec![open_device(&server.boot)], None)));
    assert_eq!(other.fetch(&format!("{SERIAL}/kernel8.img"), &[]).unwrap(), old);
}

#[test]
fn a_missing_boot_directory_is_a_miss_and_the_server_stays() {
    let server = TestServer::start();
    let absent = server.outside().join("absent");
    server.handle.set_routes(Arc::new(Routes::new(vec![open_device(&absent)], None)));
    let mut client = Client::new(server.address());
    assert_eq!(client.fetch(&format!("{SERIAL}/config.txt"), &[]).unwrap_err().0, 1);
    fs::create_dir(&absent).unwrap();
    fs::write(absent.join("config.txt"), "back").unwrap();
    assert_eq!(client.fetch(&format!("{SERIAL}/config.txt"), &[]).unwrap(), b"back");
}
