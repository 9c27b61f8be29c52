//! What others on the LAN notice of the agent, and what they can do to it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_types, reason = "test code")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use emupi::dhcp::discover::Speaker;
use emupi::nic::{Nic, Style};
use emupi::rng::Rng;
use emupi::{Link, Model, Outcome, Pi};
use support::{Router, image, nfs, tftp};

const SERIAL: u64 = 0x1000_0000_5b15_4510;
const SERVER: &str = "10.77.0.1";

/// The OFFER for a machine, as the bytes that arrive.
fn offer(link: &Link, pi: &Pi) -> Vec<u8> {
    let style = Style { ttl: 64, checksum: true, answers_arp: false };
    let mut nic = Nic::new(link.attach(pi.mac).unwrap(), style);
    let speaker = Speaker::first(pi.model);
    let discover = speaker.discover(pi, speaker.xid(pi.mac, 0x1234_5678)).encode();
    nic.broadcast(68, 67, &discover).unwrap();
    let answer = nic.receive(Instant::now() + support::PATIENCE).unwrap().unwrap();
    answer.payload().to_vec()
}

#[test]
fn who_is_not_enrolled_gets_byte_for_byte_what_it_got_without_piboot() {
    let mut router = Router::new();
    router.start_dnsmasq();
    let link = router.net.tap_link().unwrap();
    let others =
        [Model::Laptop, Model::X86Pxe, Model::Pi3B, Model::Pi4B, Model::Pi5].map(|model| Pi::new(model, SERIAL));
    let before = others.each_ref().map(|pi| offer(&link, pi));

    router.start_agent();
    router.import(&image::small(router.net.scratch()), "small");
    let pi = Pi::new(Model::Pi4B, 0x38c1_28c0);
    router.enroll(&pi, "lion");
    router.assert_boots(&pi, &link);
    let after = others.each_ref().map(|pi| offer(&link, pi));
    for ((pi, before), after) in others.iter().zip(&before).zip(&after) {
        assert!(before == after, "{}:\n{before:02x?}\n{after:02x?}", pi.model);
    }
    assert_ne!(offer(&link, &pi), before[3]);
    for (model, pi) in [(Model::Laptop, &others[0]), (Model::X86Pxe, &others[1])] {
        let got = emupi::boot(pi, &link, &support::hurried(), None).unwrap();
        assert_eq!(got.outcome, Outcome::NotAPi { boot_options: vec![] }, "{model}");
    }
    // None but the Pis are listed.
    let pending = router.wait_for(&["devices"], "those that wait", |d| d["pending"].as_array().unwrap().len() == 3);
    let text = pending.to_string();
    assert!(!text.contains(&others[0].mac.to_string()), "{text}");

    // Unenrolled, it is one of them.
    router.piboot(&["unenroll", "lion"]).unwrap();
    router.wait_for_dnsmasq();
    assert!(!emupi::boot(&pi, &link, &support::hurried(), None).unwrap().ok());
}

#[test]
fn a_pi_enrolled_by_its_serial_is_bound_to_its_address_at_first_sight() {
    let router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    let link = router.net.tap_link().unwrap();
    let pi = Pi::new(Model::Pi4B, SERIAL);
    router.piboot(&["enroll", "--serial", "5b154510", "--hostname", "lion", "--image", "small"]).unwrap();
    assert!(router.json(&["device", "lion"])["mac"].is_null());
    // The first attempt may be over before dnsmasq has read about it.
    let _ = emupi::boot(&pi, &link, &support::hurried(), None).unwrap();
    router.wait_for(&["device", "lion"], "the address", |device| device["mac"] == pi.mac.to_string());
    router.assert_boots(&pi, &link);
    let text = std::fs::read_to_string(router.config()).unwrap();
    assert!(text.contains(&format!("option mac '{}'", pi.mac)), "{text}");

    // Somebody else who claims the serial gets nothing by it, and takes nothing away.
    let thief = Pi { mac: "dc:a6:32:66:66:66".parse().unwrap(), ..pi.clone() };
    assert!(!emupi::boot(&thief, &link, &support::hurried(), None).unwrap().ok());
    assert_eq!(router.json(&["device", "lion"])["mac"], pi.mac.to_string());
    router.assert_boots(&pi, &link);
}

#[test]
fn a_pis_files_are_for_that_pi_alone_and_the_door_closes_at_once() {
    let router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    let (lion, bear) = (Pi::new(Model::Pi4B, SERIAL), Pi::new(Model::Pi4B, 0x38c1_28c0));
    for (pi, name) in [(&lion, "lion"), (&bear, "bear")] {
        let (mac, serial) = (pi.mac.to_string(), pi.prefix().replace('/', ""));
        router.piboot(&["enroll", "--mac", &mac, "--serial", &serial, "--hostname", name, "--image", "small"]).unwrap();
    }
    let host = |mac: &str, last: u8| router.net.add_host(mac.parse().unwrap(), [10, 77, 0, last].into()).unwrap();
    let (pi, other, laptop) =
        (host(&lion.mac.to_string(), 20), host(&bear.mac.to_string(), 21), host("3c:97:0e:00:00:01", 22));

    let kernel = std::fs::read(router.data_dir().join("devices/lion/boot/kernel8.img")).unwrap();
    assert!(tftp::fetch(&pi, "5b154510/kernel8.img", |_| ()).unwrap() == kernel);
    for export in ["/lion/root", "/lion/boot"] {
        nfs::use_export(&pi, export, || ()).unwrap();
        for stranger in [&other, &laptop] {
            let refused = nfs::use_export(stranger, export, || ()).unwrap_err();
            assert!(refused.starts_with("mount: ") && refused.contains("ACCES"), "{export}: {refused}");
        }
    }
    for (stranger, who) in [(&other, "bear"), (&laptop, "laptop")] {
        for name in ["5b154510/kernel8.img", "dc-a6-32-15-45-10/kernel8.img", "5b154510/../5b154510/cmdline.txt"] {
            assert_eq!(tftp::fetch(stranger, name, |_| ()), Err(2), "{who} and {name}");
        }
    }
    // Nobody gets out of a tree, or finds what is beside it.
    for name in ["5b154510/../../../piboot.db", "../piboot.db", "/etc/passwd", "5b154510/../../bear/boot/cmdline.txt"] {
        assert!(tftp::fetch(&pi, name, |_| ()).is_err(), "{name}");
    }
    assert!(nfs::use_export(&pi, "/lion/root/etc", || ()).is_err());
    assert!(nfs::use_export(&pi, "/nosuch/root", || ()).is_err());

    // Unenrolled while it has its root mounted.
    let cut = nfs::use_export(&pi, "/lion/root", || drop(router.piboot(&["unenroll", "lion"]).unwrap()));
    assert!(cut.as_ref().is_err_and(|why| why.starts_with("getattr: ")), "{cut:?}");
    assert!(nfs::use_export(&pi, "/lion/root", || ()).unwrap_err().starts_with("mount: "));
    assert!(tftp::fetch(&pi, "5b154510/kernel8.img", |_| ()).is_err());
    nfs::use_export(&other, "/bear/root", || ()).unwrap();
}

/// Packets that are none: random bytes, and good beginnings cut off or spoilt.
fn garbage(rng: &mut Rng, good: &[u8]) -> Vec<u8> {
    let kind = rng.next_u32() % 3;
    let length = rng.next_u32() as usize % 1400;
    let mut bytes = match kind {
        0 => (0..length).map(|_| rng.next_u32() as u8).collect(),
        1 => good[..length.min(good.len())].to_vec(),
        _ => good.to_vec(),
    };
    for _ in 0..kind * 4 {
        let at = rng.next_u32() as usize % bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = rng.next_u32() as u8;
        }
    }
    bytes
}

#[test]
fn garbage_on_every_port_harms_nobody() {
    const ROUNDS: usize = 3000;
    let router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    let pi = Pi::new(Model::Pi4B, SERIAL);
    router.enroll(&pi, "lion");
    let link = router.net.tap_link().unwrap();
    let mut rng = Rng::new(7);

    // DHCP: whatever a machine on the bridge can broadcast, as client and as server.
    let speaker = Speaker::first(Model::Pi4B);
    let style = Style { ttl: 64, checksum: true, answers_arp: false };
    let mut nic = Nic::new(link.attach("dc:a6:32:00:00:01".parse().unwrap()).unwrap(), style);
    for n in 0..ROUNDS {
        let pi = Pi::new(Model::Pi4B, n as u64);
        let discover = speaker.discover(&pi, rng.next_u32()).encode();
        let (from, to) = if n % 2 == 0 { (68, 67) } else { (67, 68) };
        nic.broadcast(from, to, &garbage(&mut rng, &discover)).unwrap();
    }

    // TFTP and RPC, from a stranger and from a Pi that is enrolled.
    let hosts = [("3c:97:0e:00:00:01", 22), (&*pi.mac.to_string(), 20)]
        .map(|(mac, last)| router.net.add_host(mac.parse().unwrap(), [10, 77, 0, last].into()).unwrap());
    let null_call = |program: u32, version: u32| -> Vec<u8> {
        [0x1234_5678, 0, 2, program, version, 0, 0, 0, 0, 0].iter().flat_map(|word: &u32| word.to_be_bytes()).collect()
    };
    let request = b"\0\x015b154510/config.txt\0octet\x00tsize\x000\x00blksize\x001468\x00windowsize\x004\x00";
    for host in &hosts {
        host.enter(|| {
            let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
            for _ in 0..ROUNDS {
                udp.send_to(&garbage(&mut rng, request), (SERVER, 69)).unwrap();
                udp.send_to(&garbage(&mut rng, &null_call(100_000, 2)), (SERVER, 111)).unwrap();
            }
            for (port, program, version) in [(111, 100_000, 2), (2049, 100_003, 3)] {
                for n in 0..150 {
                    let Ok(mut tcp) = TcpStream::connect((SERVER, port)) else { continue };
                    let call = garbage(&mut rng, &null_call(program, version));
                    let length = match n % 3 {
                        // A record of the right length, one that promises 2 GB, and none at all.
                        0 => call.len() as u32 | 1 << 31,
                        1 => u32::MAX,
                        _ => rng.next_u32(),
                    };
                    // It may hang up in the middle.
                    let _ = tcp.write_all(&length.to_be_bytes()).and_then(|()| tcp.write_all(&call));
                    let _ = tcp.shutdown(std::net::Shutdown::Write);
                    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                    let mut answer = Vec::new();
                    // An answer, an end or a reset; anything but silence.
                    if let Err(error) = tcp.take(1 << 20).read_to_end(&mut answer) {
                        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "port {port} is silent");
                    }
                }
            }
        })
        .unwrap();
    }

    assert!(router.peak_rss_kb() < 32 << 10, "{} kB", router.peak_rss_kb());
    router.piboot(&["status"]).unwrap();
    // Made-up serials that came with made-up addresses did not become anybody's.
    let device = router.json(&["device", "lion"]);
    assert_eq!(device["mac"], pi.mac.to_string());
    nfs::use_export(&hosts[1], "/lion/root", || ()).unwrap();
    drop(hosts);
    router.assert_boots(&pi, &link);
    assert!(router.peak_rss_kb() < 32 << 10, "{} kB", router.peak_rss_kb());
}

#[test]
fn who_tells_pis_the_nfs_port_is_said_and_a_port_that_is_taken_is_found() {
    let mut router = Router::new();
    let portmapper = |router: &Router| router.json(&["status"])["nfs"]["portmapper"].as_str().unwrap().to_owned();
    router.start_agent();
    router.wait_until("NFS", || !portmapper(&router).is_empty());
    assert_eq!(portmapper(&router), "its own portmapper");
    router.stop_agent();

    // With a /run of its own: the machine's may have one too.
    let mut command = router.net.command("unshare");
    let private = "mount -t tmpfs tmpfs /run && mkdir /run/rpcbind && exec rpcbind -f";
    command.args(["--mount", "--propagation", "private", "sh", "-c", private]);
    let first = router.net.spawn("rpcbind", command).unwrap();
    router.wait_until("rpcbind", || router.net.exec("rpcinfo", &["-p", "127.0.0.1"]).is_ok());
    router.start_agent();
    router.wait_until("NFS", || !portmapper(&router).is_empty());
    assert_eq!(portmapper(&router), "registered with the portmapper on port 111");
    router.stop_agent();
    drop(first);

    // Somebody who is no portmapper.
    let taken = router.net.enter(|| std::net::TcpListener::bind(("0.0.0.0", 111)).unwrap()).unwrap();
    router.start_agent();
    router.assert_finding(&["error: nfs", "does not answer", "Pis do not find their root"]);
    drop(taken);
}
