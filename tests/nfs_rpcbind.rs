//! A machine that runs rpcbind already: the server registers there, and takes that back when it stops.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod nfs_support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use nfs_support::calls::{MOUNT, NFS, encoded};
use nfs_support::device::{Device, word};
use nfs_support::{Raw, config, export, is_root, scratch, start_with};
use nfs3_types::portmap::mapping;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use piboot::nfs::{PORTMAP_PORT, PortmapState, ServerConfig};
use socket2::{Domain, Socket, Type};

const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), PORTMAP_PORT);

/// Debian's rpcbind, in a network and with a /run that only this test's threads see.
struct Rpcbind(Child);

impl Rpcbind {
    fn start() -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("run as root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        fs::create_dir("/run/rpcbind").unwrap();
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        Self::start_here()
    }

    /// In the network and with the /run that were made for another.
    fn start_here() -> Self {
        let child = Command::new("rpcbind").arg("-f").spawn().expect("rpcbind is installed (tests/setup.sh)");
        let started = Self(child);
        for _ in 0..1000 {
            if TcpStream::connect(HERE).is_ok() && Path::new("/run/rpcbind.sock").exists() {
                return started;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("rpcbind does not start");
    }

    fn rpcinfo(arguments: &[&str]) -> String {
        let output = Command::new("timeout").args(["20", "rpcinfo"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What rpcinfo shows of everybody but rpcbind itself: program, version, protocol, port.
    fn registered(&self) -> Vec<String> {
        let listing = Self::rpcinfo(&["-p", "127.0.0.1"]);
        let words = |line: &str| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ");
        let mut others: Vec<String> = listing.lines().skip(1).map(words).collect();
        others.retain(|line| !line.starts_with("100000 "));
        assert!(listing.contains("portmapper"));
        others.sort();
        others
    }
}

impl Drop for Rpcbind {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// GETPORT as a message.
fn question(program: u32, version: u32) -> Vec<u8> {
    Raw::message(7, 100_000, 2, 3, &encoded(&mapping { prog: program, vers: version, prot: 6, port: 0 }))
}

/// What clients are told over TCP and over UDP.
fn getport(program: u32, version: u32) -> u32 {
    let over_tcp = word(&Raw::connect(HERE).ask(&question(program, version)).unwrap()[24..]);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.send_to(&question(program, version), HERE).unwrap();
    let mut answer = [0; 100];
    assert_eq!(socket.recv(&mut answer).unwrap(), 28);
    assert_eq!(word(&answer[24..]), over_tcp);
    over_tcp
}

#[test]
fn rpcbind_knows_the_server_while_it_runs() {
    if !is_root() {
        return;
    }
    let rpcbind = Rpcbind::start();
    assert!(rpcbind.registered().is_empty());
    let dir = scratch();
    let start = || {
        let config = ServerConfig { portmap: Some(PORTMAP_PORT), ..config() };
        start_with(config, vec![export(1, "/pi/root", dir.path())])
    };
    let registered = |port| {
        let line = |program, version| format!("{program} {version} tcp {port}");
        vec![line(NFS, 3), line(MOUNT, 1), line(MOUNT, 3)]
    };

    let first = start();
    assert_eq!(first.server.portmap(), PortmapState::Registered(PORTMAP_PORT));
    let port = first.server.ports().nfs;
    assert_eq!(first.server.ports().portmap, None);
    assert_eq!(rpcbind.registered(), registered(port));
    let owners = Rpcbind::rpcinfo(&["127.0.0.1"]);
    let ours = owners.lines().filter(|line| line.contains(&NFS.to_string()) || line.contains(&MOUNT.to_string()));
    assert!(ours.clone().count() == 3 && ours.clone().all(|line| line.ends_with("superuser")), "{owners}");
    assert_eq!([getport(NFS, 3), getport(MOUNT, 3), getport(MOUNT, 1)], [u32::from(port); 3]);
    let told = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(getport(MOUNT, 3)).unwrap()));
    assert!(Device::new(Raw::connect(told)).mnt(b"/pi/root").is_ok());

    // Another server leaves it alone as long as this one answers, and when it stops as well.
    let second = start();
    let PortmapState::Unregistered(why) = second.server.portmap() else { panic!("{:?}", second.server.portmap()) };
    assert!(why.contains(&format!("another server of program {NFS} answers on port {port}")), "{why}");
    assert!(Device::new(Raw::connect(second.address())).mnt(b"/pi/root").is_ok(), "served all the same");
    second.server.stop();
    assert_eq!(rpcbind.registered(), registered(port));

    first.server.stop();
    assert!(rpcbind.registered().is_empty());
    assert_eq!([getport(NFS, 3), getport(MOUNT, 3)], [0; 2]);
}

/// Registers a port, as a server does.
fn set(program: u32, version: u32, port: u16) {
    change(1, program, version, port);
}

/// Takes a registration back, whosever it is.
fn unset(program: u32, version: u32) {
    change(2, program, version, 0);
}

fn change(procedure: u32, prog: u32, vers: u32, port: u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = (600..1024).find(|from| socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, *from)).into()).is_ok());
    assert!(from.is_some());
    socket.connect(&HERE.into()).unwrap();
    let entry = encoded(&mapping { prog, vers, prot: 6, port: port.into() });
    let answer = Raw(socket.into()).ask(&Raw::message(7, 100_000, 2, procedure, &entry)).unwrap();
    assert_eq!(word(&answer[24..]), 1);
}

#[test]
fn what_a_killed_server_left_behind_is_replaced() {
    if !is_root() {
        return;
    }
    let rpcbind = Rpcbind::start();
    let dir = scratch();
    let dead = {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap().port()
    };
    for (program, version) in [(NFS, 3), (MOUNT, 3), (MOUNT, 1)] {
        set(program, version, dead);
    }
    let config = ServerConfig { portmap: Some(PORTMAP_PORT), ..config() };
    let f = start_with(config, vec![export(1, "/pi/root", dir.path())]);
    assert_eq!(f.server.portmap(), PortmapState::Registered(PORTMAP_PORT));
    assert_eq!([getport(NFS, 3), getport(MOUNT, 3), getport(MOUNT, 1)], [u32::from(f.server.ports().nfs); 3]);

    // Somebody else took it over meanwhile: that is theirs to take back.
    let other = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let theirs = other.local_addr().unwrap().port();
    unset(NFS, 3);
    set(NFS, 3, theirs);
    f.server.stop();
    assert_eq!(rpcbind.registered(), [format!("{NFS} 3 tcp {theirs}")]);
}

#[test]
fn an_rpcbind_that_is_gone_does_not_keep_the_server_from_stopping() {
    if !is_root() {
        return;
    }
    let rpcbind = Rpcbind::start();
    let dir = scratch();
    let config = ServerConfig { portmap: Some(PORTMAP_PORT), ..config() };
    let f = start_with(config.clone(), vec![export(1, "/pi/root", dir.path())]);
    assert_eq!(f.server.portmap(), PortmapState::Registered(PORTMAP_PORT));
    drop(rpcbind);
    assert!(Device::new(Raw::connect(f.address())).mnt(b"/pi/root").is_ok(), "served on");
    f.server.stop();
    let f = start_with(config, vec![export(1, "/pi/root", dir.path())]);
    assert_eq!(f.server.portmap(), PortmapState::Own);
    assert_eq!(getport(NFS, 3), u32::from(f.server.ports().nfs));
}

/// Waits for what the server does by itself.
#[track_caller]
fn wait_until(what: &str, until: impl Fn() -> bool) {
    for _ in 0..3000 {
        if until() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what} did not come about");
}

#[test]
fn an_rpcbind_that_forgot_or_comes_back_is_told_again() {
    if !is_root() {
        return;
    }
    let rpcbind = Rpcbind::start();
    let dir = scratch();
    let config = ServerConfig { portmap: Some(PORTMAP_PORT), ..config() };
    let f = start_with(config, vec![export(1, "/pi/root", dir.path())]);
    let before = rpcbind.registered();
    assert_eq!(before.len(), 3);
    [(NFS, 3), (MOUNT, 1), (MOUNT, 3)].into_iter().for_each(|(program, version)| unset(program, version));
    wait_until("what was forgotten", || rpcbind.registered() == before);
    assert_eq!(f.server.portmap(), PortmapState::Registered(PORTMAP_PORT));

    drop(rpcbind);
    let is_missed =
        |state: &PortmapState| matches!(state, PortmapState::Unregistered(why) if why.contains("does not answer"));
    wait_until("its end to be noticed", || is_missed(&f.server.portmap()));
    let rpcbind = Rpcbind::start_here();
    wait_until("the new one to be told", || rpcbind.registered() == before);
    wait_until("the state", || f.server.portmap() == PortmapState::Registered(PORTMAP_PORT));
    f.server.stop();
    assert!(rpcbind.registered().is_empty());
}
