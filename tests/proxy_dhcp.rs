//! The agent as a proxyDHCP server beside somebody else's DHCP server: enrolled Pis boot, and nobody else notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_types, reason = "test code")]

mod support;

#[path = "../fuzz/checks/dhcp.rs"]
mod checks;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::{Duration, Instant};

use emupi::dhcp::discover::Speaker;
use emupi::dhcp::{Message, code, kind, parse};
use emupi::nic::{Nic, Style};
use emupi::{BootOptions, Link, Model, Outcome, Pi, Until};
use serde_json::Value;
use support::{PATIENCE, Router, hurried, image};

const SERIAL: u64 = 0x1000_0000_5b15_4510;
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const MODELS: [Model; 4] = [Model::Pi3B, Model::Pi3BPlus, Model::Pi4B, Model::Pi5];
/// What dnsmasq's documented way to boot Pis looks like.
const DNSMASQ_AS_PROXY: &str = "dhcp-range=10.77.0.0,proxy\npxe-service=0,\"Raspberry Pi Boot   \"\n";

fn pi(n: usize) -> Pi {
    Pi::new(MODELS[n], SERIAL + n as u64)
}

/// Everything is done for boards that need it, the delay that other tests have no time for as well.
const QUIRK_OFF: &str = "\tlist quirk_off 'reply_delay'\n";

/// A router without a DHCP server, whose agent is to be a proxy.
fn proxy_router() -> Router {
    let router = Router::new();
    router.edit_config(|text| text.replace("option dhcp 'dnsmasq'", "option dhcp 'proxy'").replace(QUIRK_OFF, ""));
    router
}

fn enrol_all(router: &Router) {
    router.import(&image::small(router.net.scratch()), "small");
    for n in 0..MODELS.len() {
        router.enroll(&pi(n), &format!("pi-{n}"));
    }
}

/// The LAN's first cable, once the bridge sends on it: the kernel throws away what it is given before.
fn plugged_in(router: &Router) -> Link {
    let link = router.net.tap_link().unwrap();
    let bridge = router.net.bridge();
    router
        .wait_until("the bridge", || router.net.exec("ip", &["-br", "link", "show", bridge]).unwrap().contains(" UP "));
    link
}

/// A machine on the LAN that listens as well as asks.
struct Ear {
    pi: Pi,
    nic: Nic,
    /// What came for other ports than a DHCP client's: where to, and how much.
    other: Vec<(SocketAddrV4, usize)>,
}

impl Ear {
    fn new(link: &Link, pi: &Pi) -> Self {
        let style = Style { ttl: 64, checksum: true, answers_arp: false };
        Self { pi: pi.clone(), nic: Nic::new(link.attach(pi.mac).unwrap(), style), other: Vec::new() }
    }

    /// Sends the first DISCOVER of this machine.
    fn discover(&mut self) {
        let speaker = Speaker::first(self.pi.model);
        self.say(&speaker.discover(&self.pi, speaker.xid(self.pi.mac, 0x1234_5678)));
    }

    fn say(&mut self, message: &Message) {
        self.nic.broadcast(68, 67, &message.encode()).unwrap();
    }

    /// Every DHCP message for this machine that comes, until one satisfies `until`.
    fn hear_until(&mut self, until: impl Fn(&Message) -> bool) -> Vec<(Vec<u8>, Message)> {
        let (mut heard, deadline) = (Vec::new(), Instant::now() + PATIENCE);
        while let Some(datagram) = self.nic.receive(deadline).unwrap() {
            if datagram.dst.port() != 68 {
                self.other.push((datagram.dst, datagram.payload().len()));
                continue;
            }
            let message = parse(datagram.payload()).unwrap();
            if message.chaddr != self.pi.mac {
                continue;
            }
            let is_last = until(&message);
            heard.push((datagram.payload().to_vec(), message));
            if is_last {
                return heard;
            }
        }
        panic!("not heard, {:?}: {heard:?}", self.nic.faults());
    }

    /// What has come by now.
    fn heard(&mut self) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        while let Some(datagram) = self.nic.receive(Instant::now()).unwrap() {
            heard.push(datagram.payload().to_vec());
        }
        heard
    }
}

/// Whether an offer is that of a proxy: it says what to boot and gives no address.
fn is_proxys(message: &Message) -> bool {
    message.kind() == Some(kind::OFFER) && message.yiaddr.is_unspecified()
}

/// How a model has to be hurried: a Pi 3B's ROM waits 5 s for the offer that comes to it later on purpose. Nor does that Pi
/// answer ARP before its kernel runs, which is the worst that was heard of it.
fn options(model: Model, speed: f64) -> BootOptions {
    let is_3b = model == Model::Pi3B;
    BootOptions { speed: if is_3b { 2.0 } else { speed }, arp_silent: is_3b, ..hurried() }
}

#[track_caller]
fn assert_boots(router: &Router, link: &Link, pi: &Pi, speed: f64) -> emupi::Boot {
    let booted = emupi::boot(pi, link, &options(pi.model, speed), None).unwrap();
    if booted.ready().is_none() {
        booted.log.iter().for_each(|entry| eprintln!("{entry}"));
        panic!("{}: {}\n{}", pi.model, booted.outcome, router.logs());
    }
    booted
}

fn quirks(boot: &Value) -> Vec<String> {
    let quirks = boot["quirks"].as_array().cloned().unwrap_or_default();
    quirks.iter().map(|seen| seen["quirk"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_offer_has_the_options_that_dnsmasq_sends_as_a_proxy_and_goes_to_the_pi_alone() {
    let mut router = proxy_router();
    let link = plugged_in(&router);
    let mut bystander = Ear::new(&link, &Pi::new(Model::Laptop, SERIAL));
    let asked = |link: &Link, bystander: &mut Ear| -> Vec<(Message, usize)> {
        let ask = |n| {
            let mut ear = Ear::new(link, &pi(n));
            let mut offer = || {
                ear.discover();
                ear.hear_until(is_proxys).pop().unwrap().1
            };
            // With the second in, the first is wherever it was to come.
            let first = offer();
            assert_eq!(offer(), first);
            (first, bystander.heard().len())
        };
        (0..MODELS.len()).map(ask).collect()
    };
    let dnsmasq = router.net.dnsmasq(DNSMASQ_AS_PROXY).unwrap();
    let theirs = asked(&link, &mut bystander);
    dnsmasq.stop().unwrap();
    router.start_agent();
    enrol_all(&router);
    // The last of dnsmasq's may have come after it was counted.
    bystander.heard();
    let ours = asked(&link, &mut bystander);

    for ((theirs, broadcasts), (ours, to_all)) in theirs.into_iter().zip(ours) {
        assert!(broadcasts > 0, "dnsmasq tells everybody: {theirs:?}");
        assert_eq!(to_all, 0, "{ours:?}");
        // Beside their options, in their order, ours name the TFTP server twice more.
        let mut expected = Message { siaddr: ROUTER, flags: 0, ..theirs };
        expected.options.push((code::TFTP_SERVER, b"10.77.0.1".to_vec()));
        assert_eq!(ours, expected);
    }
}

#[test]
fn every_model_boots_beside_a_server_on_another_machine() {
    let mut router = proxy_router();
    router.start_agent();
    enrol_all(&router);
    // The address server is a machine of its own, which knows nothing of Pis. It names itself as next server, as dnsmasq does
    // if not told otherwise, and like one that asks first whether an address is free, it takes its time: a Pi 4 might go with
    // the first that it hears of.
    let server = router.net.add_host("02:00:00:00:00:fe".parse().unwrap(), [10, 77, 0, 254].into()).unwrap();
    let conf = router.scratch("other.conf");
    let text = format!(
        "port=0\nuser=root\ninterface=eth0\nbind-interfaces\nno-ping\ndhcp-reply-delay=1\ndhcp-range=10.77.0.50,10.77.0.200,1h\npid-file=\n\
         dhcp-option=3,10.77.0.254\ndhcp-leasefile={}\n",
        router.scratch("other.leases").display()
    );
    std::fs::write(&conf, text).unwrap();
    let mut dnsmasq = server
        .enter(|| {
            let mut command = std::process::Command::new("dnsmasq");
            command.arg("--keep-in-foreground").arg(format!("--conf-file={}", conf.display()));
            command.spawn().unwrap()
        })
        .unwrap();
    let link = plugged_in(&router);
    router.wait_until("the other server", || {
        let laptop = Pi::new(Model::Laptop, SERIAL);
        let dhcp = BootOptions { until: Until::Dhcp, speed: 1.0, ..hurried() };
        emupi::boot(&laptop, &link, &dhcp, None).unwrap().ip.is_some()
    });
    for (n, model) in MODELS.into_iter().enumerate() {
        let booted = assert_boots(&router, &link, &pi(n), 2.0);
        assert_eq!(booted.server, Some(ROUTER), "{model}");
        // The other server's offer went from its port of the bridge to the Pi's: it is not seen here, only taken.
        let boot = router.wait_for(&["boot", &format!("pi_{n}")], "its kernel", |boot| {
            boot["stages"].as_array().unwrap().iter().any(|s| s["stage"] == "kernel")
        });
        let ours =
            |offer: &Value| offer["ip"].is_null() && offer["server"] == "10.77.0.1" && offer["boot_menu"] == true;
        let taken = |offer: &Value| offer["server"] == "10.77.0.254" && offer["boot_menu"] == false;
        assert!(boot["offers"].as_array().unwrap().iter().all(|offer| ours(offer) || taken(offer)), "{boot:#}");
        assert!(boot["findings"].is_null(), "{boot:#}");
        let expected: &[&str] = if n == 0 { &["menu_spaces", "reply_delay", "wake_up"] } else { &[] };
        // Emulated boards are through before the last of it is told.
        let boot =
            router.wait_for(&["boot", &format!("pi_{n}")], "all quirks", |boot| quirks(boot).len() >= expected.len());
        let told: BTreeSet<String> = quirks(&boot).into_iter().collect();
        assert!(told.iter().eq(expected), "{model}: {told:?}");
    }
    dnsmasq.kill().unwrap();
    dnsmasq.wait().unwrap();
}

#[test]
fn who_is_not_enrolled_gets_byte_for_byte_what_it_got_without_piboot_and_nothing_else() {
    let mut router = proxy_router();
    router.start_dnsmasq();
    let link = plugged_in(&router);
    let others = [
        Pi::new(Model::Laptop, SERIAL),
        Pi::new(Model::X86Pxe, 0x76),
        Pi::new(Model::Pi3B, 0x77),
        Pi::new(Model::Pi4B, 0x77),
        Pi::new(Model::Pi5, 0x78),
    ];
    let mut ears = others.each_ref().map(|pi| Ear::new(&link, pi));
    let mut asked = || {
        ears.each_mut().map(|ear| {
            ear.discover();
            let (offer, _) = ear.hear_until(|m| m.kind() == Some(kind::OFFER)).pop().unwrap();
            offer
        })
    };
    let before = asked();
    router.start_agent();
    enrol_all(&router);
    let after = asked();
    for ((pi, before), after) in others.iter().zip(&before).zip(&after) {
        assert!(before == after, "{}:\n{before:02x?}\n{after:02x?}", pi.model);
    }
    // The observer takes one packet after the other: with the answer to the last, there is none to come to the others.
    let mut last = Ear::new(&link, &pi(2));
    last.discover();
    last.hear_until(is_proxys);
    for ear in &mut ears {
        let heard = ear.heard();
        assert!(
            heard.iter().all(|bytes| !parse(bytes).is_ok_and(|m| m.chaddr == ear.pi.mac)),
            "{}: {heard:02x?}",
            ear.pi.model
        );
    }
    drop(ears);
    for pi in &others[..2] {
        let got = emupi::boot(pi, &link, &hurried(), None).unwrap();
        assert_eq!(got.outcome, Outcome::NotAPi { boot_options: vec![] }, "{}", pi.model);
    }
    drop(last);
    // And those that are enrolled boot, with the server on the same machine.
    for n in 0..MODELS.len() {
        assert_boots(&router, &link, &pi(n), 20.0);
    }
    assert!(!router.confdir().join("piboot.conf").exists());
}

#[test]
fn a_3b_is_answered_later_and_woken_unless_that_is_switched_off() {
    let mut router = proxy_router();
    router.start_dnsmasq();
    router.start_agent();
    enrol_all(&router);
    let link = plugged_in(&router);
    let mut bystander = Ear::new(&link, &Pi::new(Model::Laptop, SERIAL));
    let mut rom = Ear::new(&link, &pi(0));
    let begun = Instant::now();
    rom.discover();
    let heard = rom.hear_until(is_proxys);
    assert!(begun.elapsed() >= Duration::from_millis(1400), "{:?}", begun.elapsed());
    assert!(!is_proxys(&heard[0].1), "the address came first; {:?} {:?}", rom.nic.faults(), link);
    let strict = b"Raspberry Pi Boot   ";
    let menu = heard.last().unwrap().1.option(code::VENDOR_SPECIFIC).unwrap().to_vec();
    assert!(menu.windows(strict.len()).any(|window| window == strict));
    // Something small, time and again, for it alone.
    while rom.other.len() < 4 {
        let datagram = rom.nic.receive(Instant::now() + PATIENCE).unwrap().expect("a packet that wakes it up");
        rom.other.push((datagram.dst, datagram.payload().len()));
    }
    assert_eq!(rom.other[..4], [("255.255.255.255:9".parse().unwrap(), 0); 4]);
    assert_eq!(bystander.heard(), [b""; 0]);
    let boot = router.wait_for(&["boot", "pi_0"], "what was done", |boot| quirks(boot).len() >= 3);
    let note = &boot["quirks"][0]["note"];
    assert!(note.as_str().is_some_and(|note| note.contains("small packets") || note.contains("boot menu")), "{boot:#}");
    drop(rom);

    let main = "config piboot 'main'\n";
    let off = ["reply_delay", "menu_spaces", "wakeup"].map(|name| format!("\tlist quirk_off '{name}'\n")).concat();
    router.edit_config(|text| text.replace(main, &format!("{main}{off}")));
    router.reload();
    router.assert_finding(&["error: piboot.main.quirk_off: 'wakeup' is no quirk", "wake_up"]);
    let mut rom = Ear::new(&link, &pi(0));
    rom.discover();
    let heard = rom.hear_until(is_proxys);
    let menu = heard.last().unwrap().1.option(code::VENDOR_SPECIFIC).unwrap().to_vec();
    assert!(!menu.windows(strict.len()).any(|window| window == strict), "{menu:02x?}");
    let delays = |boot: &Value| quirks(boot).iter().filter(|name| *name == "reply_delay").count();
    assert_eq!(delays(&router.json(&["boot", "pi_0"])), 1, "from before");
}

#[test]
fn dnsmasq_too_answers_a_3b_later_where_it_gives_the_options() {
    let mut router = Router::new();
    router.edit_config(|text| text.replace(QUIRK_OFF, ""));
    router.start_agent();
    router.start_dnsmasq();
    router.import(&image::small(router.net.scratch()), "small");
    router.enroll(&pi(0), "lion");
    router.wait_for_dnsmasq();
    let link = plugged_in(&router);
    let mut rom = Ear::new(&link, &pi(0));
    let begun = Instant::now();
    rom.discover();
    let offer = rom.hear_until(|m| m.kind() == Some(kind::OFFER)).pop().unwrap().1;
    // dnsmasq counts seconds of the clock.
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    assert!(offer.option(code::VENDOR_SPECIFIC).is_some(), "{offer:?}");
    drop(rom);
    assert_boots(&router, &link, &pi(0), 2.0);
}

#[test]
fn auto_is_the_proxy_until_dnsmasq_is_configured_and_each_way_is_taken_back() {
    let mut router = Router::new();
    let with_confdir = std::fs::read_to_string(router.config()).unwrap().replace("dhcp 'dnsmasq'", "dhcp 'auto'");
    let without = with_confdir.lines().filter(|line| !line.contains("dnsmasq_confdir")).collect::<Vec<_>>().join("\n");
    router.edit_config(|_| without);
    router.start_dnsmasq();
    router.start_agent();
    enrol_all(&router);
    let drop_in = router.confdir().join("piboot.conf");
    let status = |router: &Router| router.json(&["status"])["dhcp"].as_str().unwrap().to_owned();
    assert_eq!(status(&router), "proxy, because dnsmasq_confdir is not set");
    let link = plugged_in(&router);
    assert_boots(&router, &link, &pi(1), 20.0);
    assert!(!drop_in.exists());

    let option = format!("\n\toption dnsmasq_confdir '{}'\n\toption data_dir", router.confdir().display());
    router.edit_config(|text| text.replacen("\n\toption data_dir", &option, 1));
    router.reload();
    router.wait_until("the drop-in", || drop_in.exists());
    router.wait_for_dnsmasq();
    assert!(status(&router).starts_with("dnsmasq, by a drop-in"), "{}", status(&router));
    let mut ear = Ear::new(&link, &pi(1));
    ear.discover();
    let first = ear.hear_until(|m| m.kind() == Some(kind::OFFER)).pop().unwrap().1;
    assert!(!is_proxys(&first) && first.option(code::VENDOR_SPECIFIC).is_some(), "{first:?}");
    drop(ear);
    assert_boots(&router, &link, &pi(1), 20.0);

    router.edit_config(|text| text.replace("dhcp 'auto'", "dhcp 'proxy'"));
    router.reload();
    router.wait_until("the end of the drop-in", || !drop_in.exists());
    assert_eq!(status(&router), "proxy, beside the server that gives the addresses");
    router.wait_for_dnsmasq();
    let mut ear = Ear::new(&link, &pi(1));
    ear.discover();
    let heard = ear.hear_until(is_proxys);
    assert!(heard.iter().all(|(_, m)| is_proxys(m) || m.option(code::VENDOR_SPECIFIC).is_none()), "{heard:?}");
    drop(ear);
    assert_boots(&router, &link, &pi(1), 20.0);

    // Off, and only the address is left. (A Pi 4 would boot: dnsmasq names itself as next server.)
    router.edit_config(|text| text.replace("dhcp 'proxy'", "dhcp 'off'"));
    router.reload();
    assert!(!emupi::boot(&pi(1), &link, &hurried(), None).unwrap().ok());
}

#[test]
fn whatever_packet_comes_the_reply_is_for_the_one_who_asked_and_about_booting_alone() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/dhcp_proxy");
    let answered = ["discover-3b", "discover-3b-bootcode", "discover-3bplus", "discover-4b", "discover-5"];
    let mut stored = 0;
    let mut rng = emupi::rng::Rng::new(11);
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let (name, bytes) = (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
        assert_eq!(checks::offer(&bytes), answered.contains(&name.as_str()), "{name}");
        stored += 1;
        for _ in 0..2000 {
            let mut damaged = bytes.clone();
            for _ in 0..=rng.next_u32() % 4 {
                let at = rng.next_u32() as usize % damaged.len();
                damaged[at] = rng.next_u32() as u8;
            }
            damaged.truncate(damaged.len() - (rng.next_u32() as usize % 3) * (rng.next_u32() as usize % 40));
            checks::offer(&damaged);
        }
    }
    assert!(stored >= 9);
}
