//! The memory of a server that has a process to itself: what one packet can take, and in what a router leaves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod nfs_support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nfs_support::attacks::one_packet_attacks;
use nfs_support::calls::{About, MOUNT, NFS, NFS_PROCEDURES, nfs_args};
use nfs_support::device::{Device, word};
use nfs_support::{Raw, is_root, scratch};

const PORTMAP: u32 = 100_000;
/// Address space of a router's process: whoever reserves what a packet announces dies of it.
const ROUTER: &str = "--as=1200000000";
/// Most that the server may ever have had in memory, in KB.
const MOST: u64 = 10 << 10;

/// examples/nfsd.rs, running.
struct Nfsd {
    child: Child,
    nfs: SocketAddr,
    portmap: SocketAddr,
}

impl Nfsd {
    fn start(dir: &Path, limit: Option<&str>) -> Self {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--example", "nfsd"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if cfg!(not(debug_assertions)) {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
        let this = std::env::current_exe().unwrap();
        let nfsd = this.parent().and_then(Path::parent).unwrap().join("examples/nfsd");
        let mut command = Command::new("prlimit");
        command.args(limit).arg(nfsd).args(["--port", "0", "--portmap", "0"]);
        command.arg("--dir").arg(dir).arg("--key").arg(dir.join("key"));
        let mut child = command.stderr(Stdio::piped()).spawn().expect("util-linux is installed");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with("ready")).expect("it starts");
        // What it says later is thrown away, and does not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let mut ports = ready.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
        let mut port = || SocketAddr::from((Ipv4Addr::LOCALHOST, ports.next().unwrap()));
        Self { nfs: port(), portmap: port(), child }
    }

    /// The most it ever had in memory, in KB.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("it is alive");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn answers(&self) {
        for (address, program, version) in [(self.nfs, NFS, 3), (self.nfs, MOUNT, 3), (self.portmap, PORTMAP, 2)] {
            let null = Raw::connect(address).ask(&Raw::message(5, program, version, 0, &[])).unwrap();
            assert_eq!(word(&null[20..]), 0, "{program}");
        }
    }
}

impl Drop for Nfsd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends each of the messages to every program, over TCP and, where it is spoken, UDP.
fn attack(server: &Nfsd) {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    udp.connect(server.portmap).unwrap();
    let programs = [
        (server.nfs, NFS, 3, 1),
        (server.nfs, NFS, 3, 7),
        (server.nfs, MOUNT, 3, 1),
        (server.nfs, MOUNT, 3, 3),
        (server.portmap, PORTMAP, 2, 3),
        (server.portmap, PORTMAP, 2, 4),
    ];
    for (address, program, version, procedure) in programs {
        for attack in one_packet_attacks(program, version, procedure) {
            let what = attack.what;
            let mut raw = Raw::connect(address);
            raw.0.write_all(&attack.bytes).unwrap();
            if let Some(reply) = raw.receive() {
                assert_eq!(reply[..8], [0, 0, 0, 1, 0, 0, 0, 1], "{what}: a reply to the call");
                let success = program == PORTMAP && procedure == 4 && what.starts_with("handle");
                assert!(success || reply[8..12] != [0; 4] || reply[20..24] != [0; 4], "{what}: a refusal");
            }
            if address == server.portmap && !attack.message().is_empty() {
                udp.send(attack.message()).unwrap();
                let mut reply = [0; 400];
                let length = udp.recv(&mut reply).unwrap();
                assert!(length >= 20 && reply[..8] == [0, 0, 0, 1, 0, 0, 0, 1], "{what}: over UDP");
            }
        }
        // And some of what was announced does come.
        let mut raw = TcpStream::connect(address).unwrap();
        let flood = [&[0xff; 4][..], &vec![0; 1 << 20]].concat();
        let sent = (0..64).take_while(|_| raw.write_all(&flood).is_ok()).count();
        assert!(sent < 64, "hung up on");
    }
}

#[test]
fn one_packet_takes_no_memory_from_a_server_of_its_own() {
    if !is_root() {
        return;
    }
    for limit in [None, Some(ROUTER)] {
        let dir = scratch();
        let server = Nfsd::start(dir.path(), limit);
        let before = server.peak();
        for _ in 0..10 {
            attack(&server);
        }
        server.answers();
        let peak = server.peak();
        println!("memory with {}: {before} KB at the start, at most {peak} KB", limit.unwrap_or("no limit"));
        assert!(peak < MOST, "{peak} KB");
    }
}

#[test]
fn within_the_limit_it_works() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    fs::write(dir.path().join("f"), vec![7; 9 << 20]).unwrap();
    let server = Nfsd::start(dir.path(), Some(ROUTER));
    let mut device = Device::new(Raw::connect(server.nfs));
    let root = device.mnt(b"/export").unwrap();
    let file = device.lookup(&root, b"f").unwrap();
    for procedure in NFS_PROCEDURES {
        for object in [&root, &file] {
            device.call(NFS, procedure, &nfs_args(procedure, &About { object, other: &root, name: b"f", new: b"g" }));
        }
    }
    attack(&server);
    assert_eq!(device.status(1, &nfs_args(1, &About { object: &root, other: &root, name: b"", new: b"" })), 0);
    assert!(server.peak() < MOST, "{} KB", server.peak());
}
