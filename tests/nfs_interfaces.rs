//! Clients are served at the interfaces that were named, and known by the hardware addresses seen there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod nfs_support;

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::process::Command;
use std::time::Duration;

use nfs_support::{Raw, config, export, is_root, scratch};
use nix::net::if_::if_nametoindex;
use piboot::clock::Clock;
use piboot::events::Sink;
use piboot::net::AddressBook;
use piboot::nfs::{Export, Server, ServerConfig, Who};
use piboot::pi::Mac;
use socket2::{Domain, Socket, Type};

const SERVER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}

/// In a network namespace that lives as long as this test's threads: two links, on each a client with an address and a
/// hardware address of its own.
#[test]
fn a_client_behind_another_interface_is_nobody() {
    if !is_root() {
        return;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("run as root");
    ip("link set lo up");
    for link in 0..2 {
        ip(&format!("link add server{link} type veth peer name pi{link}"));
        ip(&format!("link set pi{link} address 02:00:00:00:00:0{link}"));
        for (end, address) in [(format!("server{link}"), SERVER), (format!("pi{link}"), client(link))] {
            ip(&format!("link set {end} addrgenmode none"));
            ip(&format!("link set {end} up"));
            ip(&format!("address add {address}/64 dev {end} nodad"));
        }
    }
    let dir = scratch();
    let exports = (0..2).map(|link| Export {
        holder: Who::Mac(Mac([2, 0, 0, 0, 0, u8::try_from(link).unwrap()])),
        quota: None,
        ..export(link, &format!("/pi{link}/root"), dir.path())
    });
    let exports: Vec<Export> = exports.collect();
    let start = |interfaces: Vec<String>, book: AddressBook| {
        let listen = vec!["[::]:0".parse().unwrap()];
        let (sink, _events) = Sink::new(Clock::manual(0));
        Server::start(ServerConfig { listen, interfaces, exports: exports.clone(), ..config() }, book, sink).unwrap()
    };

    let server = start(vec!["server0".to_owned()], AddressBook::new());
    let ports = server.ports();
    assert_eq!(mount(0, ports.nfs), Some(0));
    assert_eq!(mount(1, ports.nfs), None, "closed without an answer");
    assert!(knows_the_port(0, ports.portmap.unwrap()));
    assert!(!knows_the_port(1, ports.portmap.unwrap()));
    server.stop();

    let book = AddressBook::new();
    let server = start(Vec::new(), book.clone());
    let port = server.ports().nfs;
    assert_eq!((mount(0, port), mount(1, port)), (Some(0), Some(0)));
    book.set_interfaces(vec![if_nametoindex("server0").unwrap()]);
    assert_eq!((mount(0, port), mount(1, port)), (Some(0), Some(13)), "MNT3ERR_ACCES: its neighbours do not count");
}

fn client(link: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2 + link)
}

fn ends(link: u16, port: u16) -> (SocketAddr, SocketAddr) {
    let scope = if_nametoindex(format!("pi{link}").as_str()).unwrap();
    (SocketAddrV6::new(client(link), 0, 0, scope).into(), SocketAddrV6::new(SERVER, port, 0, scope).into())
}

/// The status of MNT for the export of the client on this link; `None` if the server closes.
fn mount(link: u16, port: u16) -> Option<u32> {
    let (local, remote) = ends(link, port);
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.bind(&local.into()).unwrap();
    socket.connect(&remote.into()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let path = format!("\0\0\0\u{9}/pi{link}/root\0\0\0");
    let message = Raw::message(1, 100_005, 3, 1, path.as_bytes());
    let mark = u32::try_from(message.len()).unwrap() | 1 << 31;
    let mut raw = Raw(socket.into());
    // The server may have closed already.
    let _ = std::io::Write::write_all(&mut raw.0, &[&mark.to_be_bytes()[..], &message].concat());
    raw.receive().map(|reply| u32::from_be_bytes(reply[24..28].try_into().unwrap()))
}

/// Whether the portmapper answers a NULL over UDP. After the question comes the same on loopback, which is answered: the
/// server has seen both by then.
fn knows_the_port(link: u16, port: u16) -> bool {
    let (local, remote) = ends(link, port);
    let null = Raw::message(1, 100_000, 2, 0, &[]);
    let asking = UdpSocket::bind(local).unwrap();
    asking.send_to(&null, remote).unwrap();
    let witness = UdpSocket::bind("[::1]:0").unwrap();
    witness.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    witness.send_to(&null, ("::1", port)).unwrap();
    let mut answer = [0; 100];
    witness.recv(&mut answer).unwrap();
    asking.set_nonblocking(true).unwrap();
    asking.recv(&mut answer).is_ok()
}
