//! TFTP to an IPv6 link-local address, where only the interface tells which link is meant.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod tftp_client;

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::process::Command;

use nix::net::if_::if_nametoindex;
use tftp_client::{Answer, Client, SERIAL, TestServer};

const SERVER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}

/// In a network namespace that lives as long as this test's threads: two links, the same addresses on both.
#[test]
fn the_answer_leaves_by_the_link_that_was_asked() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("run as root");
    ip("link set lo up");
    for link in 0..2 {
        ip(&format!("link add server{link} type veth peer name pi{link}"));
        for (end, address) in [(format!("server{link}"), SERVER), (format!("pi{link}"), CLIENT)] {
            ip(&format!("link set {end} addrgenmode none"));
            ip(&format!("link set {end} up"));
            ip(&format!("address add {address}/64 dev {end} nodad"));
        }
    }
    let server = TestServer::with(|config| config.listen = vec!["[::]:0".parse().unwrap()]);
    let bytes = server.file("kernel8.img", 50_000);
    for link in 0..2 {
        let scope = if_nametoindex(format!("pi{link}").as_str()).unwrap();
        let address = SocketAddr::V6(SocketAddrV6::new(SERVER, server.port(), 0, scope));
        let local = SocketAddr::V6(SocketAddrV6::new(CLIENT, 0, 0, scope));
        let mut client = Client::bound(address, local);
        let got = client.fetch(&format!("{SERIAL}/kernel8.img"), &[("blksize", "1024")]).unwrap();
        assert!(got == bytes, "link {link}");
        client.request("missing", &[]);
        assert!(matches!(client.answer(), Answer::Error(1, _)), "link {link}");
        let from = client.tid.unwrap();
        assert!(matches!(from, SocketAddr::V6(from) if *from.ip() == SERVER && from.scope_id() == scope), "{from}");
    }
}
