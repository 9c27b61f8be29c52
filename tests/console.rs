//! What Pis say on their network consoles, from the bytes of a datagram to the boot that it belongs to.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "../fuzz/checks/console.rs"]
mod checks;
mod support;

use std::net::Ipv4Addr;
use std::path::Path;

use emupi::dhcp::discover::Speaker;
use emupi::link::Port;
use emupi::{Link, Mac, Model, Pi, frame, ip, udp};
use serde_json::Value;
use support::{Router, image};

#[test]
fn stored_and_damaged_datagrams_hold_what_fuzzing_checks() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/console");
    let stored: Vec<Vec<u8>> =
        std::fs::read_dir(directory).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(stored.len() >= 6);
    assert_eq!(stored.iter().map(|bytes| checks::datagram(bytes)).sum::<usize>(), 6);
    let mut rng = emupi::rng::Rng::new(7);
    for bytes in stored {
        for _ in 0..2000 {
            let mut damaged = bytes.repeat(1 + rng.next_u32() as usize % 40);
            for _ in 0..8 {
                let at = rng.next_u32() as usize % damaged.len();
                damaged[at] = [0, b'\n', b'\r', 0xff, b'x'][rng.next_u32() as usize % 5];
            }
            checks::datagram(&damaged);
        }
    }
}

/// A frame to the console port, as the bootloader sends it: broadcast, but to the hardware address of nobody.
fn say(port: &mut Port, to: Mac, payload: &[u8]) {
    let (src, dst) = ((Ipv4Addr::new(10, 77, 0, 60), 6665), (Ipv4Addr::BROADCAST, 6666));
    let packet = ip::build(src.0, dst.0, ip::UDP, 64, &udp::build(src, dst, payload, true));
    port.send(&frame::build(to, port.mac(), frame::ETHERTYPE_IPV4, &packet)).unwrap();
}

/// Begins a boot: without one there is nothing that a console belongs to.
fn discover(port: &mut Port, pi: &Pi) {
    let speaker = Speaker::first(pi.model);
    let message = speaker.discover(pi, 0x1234_5678).encode();
    let (src, dst) = ((Ipv4Addr::UNSPECIFIED, 68), (Ipv4Addr::BROADCAST, 67));
    let packet = ip::build(src.0, dst.0, ip::UDP, 64, &udp::build(src, dst, &message, true));
    port.send(&frame::build(Mac::BROADCAST, port.mac(), frame::ETHERTYPE_IPV4, &packet)).unwrap();
}

const NOBODY: Mac = Mac([0; 6]);

/// A router whose agent listens on both cables, with a Pi enrolled.
fn listening() -> (Router, Link, Link, Pi) {
    let mut router = Router::new();
    let cables = (router.net.veth_link().unwrap(), router.net.veth_link().unwrap());
    router.start_agent();
    router.start_dnsmasq();
    router.wait_until("ears", || router.said("listening for consoles on 2 ports") == 1);
    router.import(&image::small(router.net.scratch()), "small");
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    router.enroll(&pi, "lion");
    (router, cables.0, cables.1, pi)
}

fn console(boot: &Value) -> Vec<(&str, &str)> {
    let lines = boot["console"].as_array().map(Vec::as_slice).unwrap_or_default();
    lines.iter().map(|line| (line["from"].as_str().unwrap(), line["text"].as_str().unwrap())).collect()
}

#[test]
fn what_bootloader_and_kernel_say_is_kept_with_the_boot() {
    let (router, cable, other, pi) = listening();
    let mut port = cable.attach(pi.mac).unwrap();
    // Before it asks for an address.
    say(&mut port, NOBODY, b"NET_BOOT: wait for link\n\0");
    discover(&mut port, &pi);
    router.wait_for(&["boots", "lion"], "the boot", |boots| boots["boots"][0]["id"].as_i64().is_some_and(|id| id > 0));
    // A stranger, an escape sequence, several lines, the end.
    let mut stranger = other.attach("02:00:00:00:00:01".parse().unwrap()).unwrap();
    say(&mut stranger, NOBODY, b"I am not a Pi\n\0");
    say(&mut port, NOBODY, b"LINK STATUS: speed: 1000 full duplex\n\0");
    say(&mut port, NOBODY, b"\x1b[2Jred\xff\n\0");
    say(&mut port, Mac::BROADCAST, b"[    0.1] first\n[    0.2] second\n");
    say(&mut port, "02:70:69:62:6f:6f".parse().unwrap(), b"[    0.3] Kernel panic\n");
    let boot = router.wait_for(&["boot", "lion"], "the panic", |boot| {
        console(boot).last().is_some_and(|(_, text)| text.contains("panic"))
    });
    let expected = [
        ("bootloader", "NET_BOOT: wait for link"),
        ("bootloader", "LINK STATUS: speed: 1000 full duplex"),
        ("bootloader", "\u{fffd}[2Jred\u{fffd}"),
        ("kernel", "[    0.1] first"),
        ("kernel", "[    0.2] second"),
        ("kernel", "[    0.3] Kernel panic"),
    ];
    assert_eq!(console(&boot), expected, "each once, and nobody else's");
}

#[test]
fn a_burst_of_64_kilobytes_is_heard_and_a_pi_that_never_stops_harms_nobody() {
    let (router, cable, other, pi) = listening();
    let mut port = cable.attach(pi.mac).unwrap();
    discover(&mut port, &pi);
    router.wait_for(&["boots", "lion"], "the boot", |boots| boots["boots"][0]["id"].as_i64().is_some_and(|id| id > 0));
    // The log of a kernel that dies: 1000 lines of 64 bytes.
    for n in 0..1000 {
        say(&mut port, NOBODY, format!("[{n:5}] {:<55}\n", "something went wrong").as_bytes());
    }
    let boot = router.wait_for(&["boot", "lion"], "the end of it", |boot| {
        console(boot).last().is_some_and(|(_, text)| text.starts_with("[  999]"))
    });
    let (kept, dropped) = (console(&boot).len() as u64, boot["console_dropped"].as_u64().unwrap_or(0));
    assert_eq!(kept + dropped, 1000, "none was lost on the way; the boot keeps 48 KB");
    assert!(console(&boot)[0].1.starts_with("[    0]"));

    // 100 000 lines as fast as they can be sent, and a boot beside it.
    std::thread::scope(|scope| {
        scope.spawn(move || (0..100_000).for_each(|n| say(&mut port, NOBODY, format!("noise {n}\n\0").as_bytes())));
        let bear = Pi::new(Model::Pi5, 0x38c1_28c0);
        router.enroll(&bear, "bear");
        router.assert_boots(&bear, &other);
        let boot = router.wait_for(&["boot", "bear"], "its story", |boot| {
            boot["stages"].as_array().unwrap().iter().any(|stage| stage["stage"] == "kernel")
        });
        assert_eq!(console(&boot), []);
    });
    assert_eq!(router.json(&["status"])["events_dropped"], 0);
    assert!(router.peak_rss_kb() < 32 << 10, "{} kB", router.peak_rss_kb());
}
