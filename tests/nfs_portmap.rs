//! The portmapper, as the kernel (TCP) and klibc's nfsmount (UDP) use it, and a stranger on its port.

mod nfs_support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use nfs_support::{Raw, config, export, is_root, scratch, start, start_with};
use nfs3_types::portmap::mapping;
use nfs3_types::xdr_codec::Pack;
use piboot::events::Nfs;
use piboot::nfs::{PortmapState, ServerConfig};

#[tokio::test]
async fn getport_and_dump_over_tcp() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let mut f = start(dir.path());
    assert_eq!(f.server.portmap(), PortmapState::Own);
    let nfs = f.server.ports().nfs;
    let mut p = f.portmapper().await;
    p.null().await.unwrap();
    assert_eq!(p.getport(100_005, 3, 6).await.unwrap(), nfs);
    assert_eq!(p.getport(100_003, 3, 6).await.unwrap(), nfs);
    let registered = p.dump().await.unwrap();
    assert!(registered.iter().any(|m| (m.prog, m.vers, m.prot, m.port) == (100_003, 3, 6, u32::from(nfs))));
    assert_eq!(registered.len(), 5);
    let asked = |program| Nfs::Getport { program, version: 3, answered_port: nfs };
    assert_eq!(f.seen(), [asked(100_005), asked(100_003)]);
}

#[test]
fn getport_over_udp_answers_from_the_address_that_was_asked() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let listen = vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))];
    let f = start_with(ServerConfig { listen, ..config() }, vec![export(1, "/pi/root", dir.path())]);
    let mut args = Vec::new();
    mapping { prog: 100_003, vers: 3, prot: 6, port: 0 }.pack(&mut args).unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Connected: an answer from any other address would not be received.
    socket.connect((Ipv4Addr::new(127, 0, 0, 2), f.server.ports().portmap.unwrap())).unwrap();
    socket.send(&Raw::message(42, 100_000, 2, 3, &args)).unwrap();
    let mut answer = [0; 100];
    let length = socket.recv(&mut answer).unwrap();
    assert_eq!((length, &answer[..4]), (28, &42_u32.to_be_bytes()[..]));
    assert_eq!(answer[24..28], u32::from(f.server.ports().nfs).to_be_bytes());
    for bad in [&b"x"[..], &[0xff; 1000], b"GET / HTTP/1.1\r\n\r\n", &Raw::message(1, 100_000, 2, 3, &[])] {
        socket.send(bad).unwrap();
    }
    socket.send(&Raw::message(43, 100_000, 2, 0, &[])).unwrap();
    let replies: Vec<u8> = (0..2).map(|_| socket.recv(&mut answer).map(|_| answer[3]).unwrap()).collect();
    assert_eq!(replies, [1, 43], "GARBAGE_ARGS for the call without arguments, silence for what is no call");
}

#[tokio::test]
async fn a_portmapper_that_refuses_leaves_the_server_running() {
    if !is_root() {
        return;
    }
    // A server of ours has the port, and refuses SET as any program may (rpcbind itself: nfs_rpcbind.rs).
    let dir = scratch();
    let first = start(dir.path());
    let taken = first.server.ports().portmap;
    let second = start_with(ServerConfig { portmap: taken, ..config() }, vec![export(1, "/pi/root", dir.path())]);
    let PortmapState::Unregistered(why) = second.server.portmap() else { panic!("{:?}", second.server.portmap()) };
    assert!(why.contains("portmapper"), "{why}");
    assert!(second.mount("/pi/root").await.is_ok(), "served all the same, to who knows the port");
}
