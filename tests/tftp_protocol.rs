//! The TFTP server's protocol, as clients see it on the wire.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod tftp_client;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use piboot::events::{Tftp, TftpEnd};
use tftp_client::{Answer, Client, LOCALHOST, SERIAL, TestServer, oack, read_request};

/// Long enough to be sure that a packet on loopback would have come.
const QUIET: Duration = Duration::from_millis(100);

fn path(name: &str) -> String {
    format!("{SERIAL}/{name}")
}

#[test]
fn files_of_every_awkward_length_arrive_byte_for_byte() {
    let server = TestServer::start();
    for size in [0, 1, 511, 512, 513, 1024, 100_000] {
        let bytes = server.file("f", size);
        let mut client = Client::new(server.address());
        assert_eq!(client.fetch(&path("f"), &[]).unwrap(), bytes, "{size} bytes, no options");
        for (blksize, window) in [("8", "1"), ("1024", "1"), ("1468", "1"), ("1468", "8"), ("512", "64")] {
            let options = [("tsize", "0"), ("blksize", blksize), ("windowsize", window)];
            assert_eq!(client.fetch(&path("f"), &options).unwrap(), bytes, "{size} bytes, {options:?}");
        }
    }
}

#[test]
fn options_are_answered_as_their_rfcs_say() {
    let server = TestServer::start();
    server.file("f", 5000);
    for (asked, answered) in [
        (&[("tsize", "0"), ("blksize", "1024")][..], &[("tsize", "5000"), ("blksize", "1024")][..]),
        (&[("blksize", "1468"), ("TSIZE", "0")], &[("blksize", "1468"), ("tsize", "5000")]),
        (&[("blksize", "65464")], &[("blksize", "1468")]),
        (&[("blksize", "70000")], &[("blksize", "1468")]),
        (&[("windowsize", "70000"), ("timeout", "3")], &[("windowsize", "64"), ("timeout", "3")]),
        (&[("multicast", ""), ("tsize", "0"), ("timeout", "0")], &[("tsize", "5000")]),
    ] {
        let mut client = Client::new(server.address());
        client.request(&path("f"), asked);
        assert_eq!(client.answer(), oack(answered), "{asked:?}");
    }
    for refused in [("blksize", "7"), ("blksize", "abc"), ("windowsize", "0"), ("timeout", "256")] {
        let mut client = Client::new(server.address());
        client.request(&path("f"), &[refused]);
        assert!(matches!(client.answer(), Answer::Data(1, data) if data.len() == 512), "{refused:?}: served without");
    }
}

#[test]
fn every_bad_request_is_answered_at_once() {
    let server = TestServer::start();
    std::fs::create_dir(server.boot.join("overlays")).unwrap();
    server.file("f", 10);
    for (packet, code) in [
        (read_request(b"38c128c0/missing", &[]), 1),
        (read_request(b"nowhere", &[]), 1),
        (read_request(b"38c128c0/overlays", &[]), 1),
        (read_request(b"38c128c0", &[]), 1),
        (read_request(b"", &[]), 1),
        (read_request(b"38c128c0/\xff\xfe", &[]), 1),
        (read_request(b"38c128c0/../f", &[]), 2),
        (read_request(b"../../etc/passwd", &[]), 2),
        (b"\x00\x02f\0octet\0".to_vec(), 2),
        (b"\x00\x0138c128c0/f\0mail\0".to_vec(), 4),
        (b"\x00\x01no terminator".to_vec(), 4),
        (b"\x00\x01f\0octet".to_vec(), 4),
        (b"\x00\x63".to_vec(), 4),
        (b"\x00\x04\x00\x01".to_vec(), 5),
    ] {
        let mut client = Client::new(server.address());
        client.request_raw(&packet);
        match client.answer() {
            Answer::Error(got, message) => {
                assert_eq!(got, code, "{} -> {message}", packet.escape_ascii());
                assert!(!message.contains('/'), "no path of ours: {message}");
            }
            other => panic!("{} -> {other:?}", packet.escape_ascii()),
        }
    }
    let mut client = Client::new(server.address());
    for silent in [&b""[..], b"\x00", b"\x00\x05\x00\x00stop\0", b"\x00\x05"] {
        client.request_raw(silent);
    }
    assert_eq!(client.answer_within(QUIET), None, "nothing is said to errors and scraps");
    assert_eq!(client.fetch(&path("f"), &[]).unwrap().len(), 10, "and the server lives");
}

#[test]
fn netascii_and_padding_are_served_as_octet() {
    let server = TestServer::start();
    let bytes = b"line\r\nline\n".to_vec();
    std::fs::write(server.boot.join("f"), &bytes).unwrap();
    for packet in [
        &b"\x00\x0138c128c0/f\0NetAscii\0"[..],
        b"\x00\x0138c128c0/f\0octet\0\0\0\0",
        b"\x00\x01/38c128c0//f\0octet\0pad",
    ] {
        let mut client = Client::new(server.address());
        client.request_raw(packet);
        assert_eq!(client.answer(), Answer::Data(1, bytes.clone()), "{}", packet.escape_ascii());
    }
}

#[test]
fn a_probe_is_an_abort_and_the_port_is_free_at_once() {
    let mut server = TestServer::start();
    let bytes = server.file("start4.elf", 2000);
    let mut client = Client::new(server.address());
    client.request(&path("start4.elf"), &[("tsize", "0"), ("blksize", "1024")]);
    assert_eq!(client.answer(), oack(&[("tsize", "2000"), ("blksize", "1024")]));
    client.early_terminate();
    assert_eq!(client.answer_within(QUIET * 6), None, "an aborted transfer sends nothing more");
    assert_eq!(client.fetch(&path("start4.elf"), &[]).unwrap(), bytes);

    let (peer, opened) = server.event();
    assert_eq!(peer, LOCALHOST);
    let asked = path("start4.elf").into_bytes();
    let Tftp::Open { transfer, path, size, blksize, windowsize } = opened else { panic!("{opened:?}") };
    assert_eq!((&path[..], size, blksize, windowsize), (&asked[..], 2000, 1024, 1));
    match server.closed() {
        Tftp::Closed { transfer: closed, end, acknowledged, size, .. } => {
            assert_eq!((closed, acknowledged, size), (transfer, 0, 2000));
            assert_eq!(end, TftpEnd::Aborted { code: 0, message: b"Early terminate"[..].into() });
        }
        other => panic!("{other:?}"),
    }
    match server.closed() {
        Tftp::Closed { end: TftpEnd::Done, acknowledged: 2000, size: 2000, .. } => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_miss_is_an_event_with_its_code() {
    let mut server = TestServer::start();
    Client::new(server.address()).fetch("recovery.elf", &[]).unwrap_err();
    assert_eq!(server.event(), (LOCALHOST, Tftp::Miss { path: b"recovery.elf"[..].into(), code: 1 }));
}

/// raspberrypi/firmware issues 745 and 1700: the same few ports in every boot, most transfers aborted.
#[test]
fn two_boots_from_the_same_four_ports_are_answered_in_full() {
    let server = TestServer::start();
    for name in ["bootcode.bin", "start.elf", "config.txt", "kernel7.img"] {
        server.file(name, 20_000);
    }
    let mut clients: Vec<_> = (0..4).map(|_| Client::new(server.address())).collect();
    for _boot in 0..2 {
        for (client, name) in clients.iter_mut().zip(["bootcode.bin", "start.elf", "config.txt", "kernel7.img"]) {
            client.request(&path(name), &[("tsize", "0")]);
            assert_eq!(client.answer(), oack(&[("tsize", "20000")]), "{name}");
            client.early_terminate();
        }
    }
    // The same without the abort arriving: power was cut in the middle of a file.
    for _boot in 0..2 {
        for (client, name) in clients.iter_mut().zip(["bootcode.bin", "start.elf", "config.txt", "kernel7.img"]) {
            client.request(&path(name), &[]);
            assert!(matches!(client.answer(), Answer::Data(1, _)), "{name}");
            client.ack(1);
            assert!(matches!(client.answer(), Answer::Data(2, _)), "{name}");
        }
    }
}

#[test]
fn the_rom_asks_for_two_files_from_one_port() {
    let mut server = TestServer::start();
    server.file("bootcode.bin", 5000);
    server.file("bootsig.bin", 5000);
    let mut client = Client::new(server.address());
    client.request(&path("bootcode.bin"), &[]);
    assert!(matches!(client.answer(), Answer::Data(1, _)));
    let first = client.tid;
    client.request(&path("bootsig.bin"), &[]);
    assert!(matches!(client.answer(), Answer::Data(1, _)), "the new request replaces the old transfer");
    assert_ne!(client.tid, first);
    assert!(matches!(server.closed(), Tftp::Closed { end: TftpEnd::Replaced, .. }));
}

#[test]
fn the_same_request_twice_makes_one_transfer() {
    let server = TestServer::start();
    server.file("f", 5000);
    let mut client = Client::new(server.address());
    let request = read_request(path("f").as_bytes(), &[("tsize", "0")]);
    client.request_raw(&request);
    client.request_raw(&request);
    assert_eq!(client.answer(), oack(&[("tsize", "5000")]));
    client.tid = None; // so that an answer from a second transfer would be seen
    assert_eq!(client.answer_within(QUIET), None);
    assert_eq!(server.handle.stats().transfers, 1);
}

#[test]
fn three_hundred_files_from_one_port() {
    let server = TestServer::start();
    let bytes = server.file("config.txt", 700);
    let mut client = Client::new(server.address());
    for round in 0..300 {
        assert_eq!(client.fetch(&path("config.txt"), &[("tsize", "0")]).unwrap(), bytes, "request {round}");
    }
}

#[test]
fn duplicate_acks_cause_no_resend() {
    let server = TestServer::start();
    server.file("f", 5000);
    let mut client = Client::new(server.address());
    client.request(&path("f"), &[]);
    assert!(matches!(client.answer(), Answer::Data(1, _)));
    for _ in 0..3 {
        client.ack(1);
    }
    assert!(matches!(client.answer(), Answer::Data(2, _)));
    assert_eq!(client.answer_within(QUIET), None);
}

#[test]
fn answers_come_from_the_address_that_was_asked() {
    let server = TestServer::start();
    server.file("f", 5000);
    for ip in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 8, 9, 10)] {
        let mut client = Client::new(server.at(ip));
        client.request(&path("f"), &[]);
        assert!(matches!(client.answer(), Answer::Data(1, _)));
        assert_eq!(client.tid.unwrap().ip(), ip, "DATA");
        assert_ne!(client.tid.unwrap().port(), server.port(), "a transfer id of its own (RFC 1350 §4)");
        client.request(&path("missing"), &[]);
        assert!(matches!(client.answer(), Answer::Error(1, _)));
        assert_eq!(client.tid.unwrap().ip(), ip, "ERROR");
    }
}

#[test]
fn ipv6_is_served_beside_ipv4_on_the_same_port() {
    let server = TestServer::with(|config| {
        // A port that both families have free.
        let probe = std::net::UdpSocket::bind("[::]:0").unwrap();
        let port = probe.local_addr().unwrap().port();
        config.listen = vec![format!("0.0.0.0:{port}").parse().unwrap(), format!("[::]:{port}").parse().unwrap()];
    });
    let bytes = server.file("f", 100_000);
    for ip in ["127.0.0.1", "::1"] {
        let address = SocketAddr::new(ip.parse().unwrap(), server.port());
        let mut client = Client::new(address);
        assert_eq!(client.fetch(&path("f"), &[("blksize", "1024")]).unwrap(), bytes, "{ip}");
        assert_eq!(client.tid.unwrap().ip(), address.ip());
        client.request(&path("missing"), &[]);
        assert!(matches!(client.answer(), Answer::Error(1, _)));
        assert_eq!(client.tid.unwrap().ip(), address.ip());
    }
    let mut client = Client::new(SocketAddr::new("::1".parse().unwrap(), server.port()));
    client.request(&path("f"), &[("blksize", "1468")]);
    assert_eq!(client.answer(), oack(&[("blksize", "1448")]), "what fits an Ethernet frame over IPv6");
}

#[test]
fn unanswered_packets_are_resent_and_then_given_up() {
    let mut server = TestServer::with(|config| config.limits.retransmit_after = Duration::from_millis(5));
    server.file("f", 5000);
    let mut client = Client::new(server.address());
    client.request(&path("f"), &[("tsize", "0")]);
    for send in 0..9 {
        assert_eq!(client.answer(), oack(&[("tsize", "5000")]), "sending {send}");
    }
    match server.closed() {
        Tftp::Closed { end: TftpEnd::Timeout, acknowledged: 0, retransmissions: 8, .. } => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_closed_port_ends_the_transfer() {
    let mut server = TestServer::with(|config| config.limits.retransmit_after = Duration::from_millis(5));
    server.file("f", 5000);
    let mut client = Client::new(server.address());
    client.request(&path("f"), &[]);
    assert!(matches!(client.answer(), Answer::Data(1, _)));
    drop(client); // the next DATA, a retransmission, meets a closed port
    assert!(matches!(server.closed(), Tftp::Closed { end: TftpEnd::Gone, .. }));
}

#[test]
fn a_stranger_cannot_disturb_a_transfer() {
    let server = TestServer::start();
    let bytes = server.file("f", 700);
    let mut client = Client::new(server.address());
    client.request(&path("f"), &[]);
    assert!(matches!(client.answer(), Answer::Data(1, _)));
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(b"\x00\x05\x00\x00die\0", client.tid.unwrap()).unwrap();
    stranger.send_to(b"\x00\x04\x00\x01", client.tid.unwrap()).unwrap();
    client.ack(1);
    assert_eq!(client.answer(), Answer::Data(2, bytes[512..].to_vec()));
}

#[test]
fn limits_hold_and_a_client_can_only_crowd_out_itself() {
    let mut server = TestServer::with(|config| {
        config.limits.transfers_per_client = 2;
        config.limits.transfers = 3;
    });
    server.file("f", 5000);
    let from = |ip: [u8; 4]| SocketAddr::from((ip, 0));
    let mut clients: Vec<_> = (0..4).map(|_| Client::bound(server.address(), from([127, 0, 0, 1]))).collect();
    for client in &mut clients {
        client.request(&path("f"), &[]);
        assert!(matches!(client.answer(), Answer::Data(1, _)));
    }
    for _ in 0..2 {
        assert!(matches!(server.closed(), Tftp::Closed { end: TftpEnd::Replaced, .. }));
    }
    let mut other = Client::bound(server.address(), from([127, 0, 0, 5]));
    other.request(&path("f"), &[]);
    assert!(matches!(other.answer(), Answer::Data(1, _)));
    let mut one_too_many = Client::bound(server.address(), from([127, 0, 0, 6]));
    one_too_many.request(&path("f"), &[]);
    assert_eq!(one_too_many.answer_within(QUIET), None, "silence makes it ask again");
    assert_eq!(server.handle.stats().dropped, 1);
    other.early_terminate();
    assert!(matches!(server.closed(), Tftp::Closed { end: TftpEnd::Aborted { .. }, .. }));
    one_too_many.request(&path("f"), &[]);
    assert!(matches!(one_too_many.answer(), Answer::Data(1, _)));
}

#[test]
fn a_machine_with_many_addresses_has_one_share() {
    let mut server = TestServer::with(|config| config.limits.transfers_per_client = 2);
    server.file("f", 5000);
    let machine = piboot::pi::Mac([0xdc, 0xa6, 0x32, 0, 0, 9]);
    let mut clients = Vec::new();
    for n in 11..15 {
        // It takes one address after the other.
        let ip = Ipv4Addr::new(127, 0, 0, n);
        server.book.observe(ip.into(), machine);
        let mut client = Client::bound(server.address(), SocketAddr::from((ip, 0)));
        client.request(&path("f"), &[]);
        assert!(matches!(client.answer(), Answer::Data(1, _)));
        clients.push(client);
    }
    for _ in 0..2 {
        assert!(matches!(server.closed(), Tftp::Closed { end: TftpEnd::Replaced, .. }));
    }
}

#[test]
fn a_flood_of_requests_is_cut_to_its_share() {
    let server = TestServer::with(|config| {
        config.limits.request_burst = 5;
        config.limits.requests_per_second = 0;
    });
    let mut client = Client::new(server.address());
    for _ in 0..20 {
        client.request("missing", &[]);
    }
    let mut answers = 0;
    while client.answer_within(QUIET).is_some() {
        answers += 1;
    }
    assert_eq!(answers, 5);
    let mut other = Client::bound(server.address(), SocketAddr::from(([127, 0, 0, 9], 0)));
    other.request("missing", &[]);
    assert!(matches!(other.answer(), Answer::Error(1, _)), "others are served");
}

#[test]
fn requests_through_another_interface_are_ignored() {
    let elsewhere = TestServer::with(|config| config.interfaces = vec!["nosuch0".to_owned()]);
    let mut client = Client::new(elsewhere.address());
    client.request("missing", &[]);
    assert_eq!(client.answer_within(QUIET), None);
    let here = TestServer::with(|config| config.interfaces = vec!["nosuch0".to_owned(), "lo".to_owned()]);
    let mut client = Client::new(here.address());
    client.request("missing", &[]);
    assert!(matches!(client.answer(), Answer::Error(1, _)));
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let server = TestServer::start();
    let config = piboot::tftp::ServerConfig { listen: vec![server.at([0, 0, 0, 0])], ..Default::default() };
    let (sink, _events) = piboot::events::Sink::new(piboot::clock::Clock::system());
    let error = piboot::tftp::Server::start(config, Default::default(), server.book.clone(), sink).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&server.port().to_string()) && text.contains("another TFTP server"), "{text}");
}

#[test]
fn stopping_ends_transfers_without_a_word() {
    let server = TestServer::start();
    server.file("f", 5000);
    let mut client = Client::new(server.address());
    client.request(&path("f"), &[]);
    assert!(matches!(client.answer(), Answer::Data(1, _)));
    let TestServer { handle, mut events, .. } = server;
    let port = handle.addresses()[0].port();
    handle.stop();
    assert_eq!(client.answer_within(QUIET), None);
    let mut last = None;
    while let Ok(event) = events.try_recv() {
        last = Some(event.what);
    }
    let piboot::events::What::Tftp { event: Tftp::Closed { end, .. }, .. } = last.unwrap() else { panic!() };
    assert_eq!(end, TftpEnd::Stopped);
    assert!(std::net::UdpSocket::bind(("0.0.0.0", port)).is_ok(), "the port is free again");
}
