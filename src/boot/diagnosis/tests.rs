//! Each rule by a boot that fails its way, and boots of every model in which nothing is found at any moment.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::super::tracker::{Tracker, Who};
use super::*;
use crate::boot::BootState;
use crate::clock::Clock;
use crate::events::{ConsoleFrom, Dhcp, DhcpKind, Event, Nfs, Tftp, TftpEnd, What};
use crate::pi::{Evidence, Identity, Mac, Model, Serial};

const PI: Mac = Mac([0xb8, 0x27, 0xeb, 1, 2, 3]);
const IP: [u8; 4] = [192, 0, 2, 9];
const ROUTER: [u8; 4] = [192, 0, 2, 1];
const OTHER: [u8; 4] = [192, 0, 2, 254];

struct Lan;

impl Who for Lan {
    fn mac_of(&self, _: IpAddr) -> Option<Mac> {
        Some(PI)
    }

    fn device_of(&self, _: Mac) -> Option<String> {
        Some("lion".to_owned())
    }
}

struct Story {
    clock: Clock,
    tracker: Tracker,
    context: Context,
    model: Model,
    transfers: u32,
    /// Findings at any moment, and those of the last one.
    ever: BTreeSet<String>,
    now: Vec<String>,
}

impl Story {
    fn of(model: Model) -> Self {
        let clock = Clock::manual(1_000_000_000);
        let context = Context {
            server: Some(ROUTER.into()),
            readiness: Readiness::Ready,
            serial: Some(Serial(0x38c1_28c0)),
            ..Context::default()
        };
        let tracker = Tracker::new(clock.clone());
        Self { clock, tracker, context, model, transfers: 0, ever: BTreeSet::new(), now: Vec::new() }
    }

    fn see(&mut self, what: What) -> &mut Self {
        self.clock.advance(std::time::Duration::from_millis(1));
        let event = Event { at: self.clock.now(), what };
        self.tracker.take(&event, &Lan);
        self.examine()
    }

    /// Second by second, as the agent does.
    fn wait(&mut self, seconds: u32) -> &mut Self {
        for _ in 0..seconds {
            self.clock.advance(std::time::Duration::from_secs(1));
            self.examine();
        }
        self
    }

    fn examine(&mut self) -> &mut Self {
        let now = self.clock.now();
        if let Some(boot) = self.tracker.boot_mut(PI) {
            boot.findings = examine(boot, now, &self.context);
            self.now = boot.findings.iter().map(|finding| finding.id.clone()).collect();
            self.ever.extend(self.now.iter().cloned());
        }
        self
    }

    fn dhcp(&mut self, kind: DhcpKind, netboot: bool, edit: impl FnOnce(&mut Dhcp)) -> &mut Self {
        let rom = self.model == Model::Pi3;
        let evidence = if rom { Evidence::RomXid } else { Evidence::Guid };
        let identity = Identity { mac: PI, serial: None, revision: None, model: Some(self.model), evidence };
        let reply = matches!(kind, DhcpKind::Offer | DhcpKind::Ack);
        let mut message = Dhcp {
            mac: PI,
            kind,
            xid: 1,
            ip: reply.then(|| IP.into()),
            netboot,
            identity: (!reply).then_some(identity),
            hostname: None,
            server: reply.then(|| ROUTER.into()),
            boot_menu: reply,
            tftp: reply.then(|| ROUTER.into()),
        };
        edit(&mut message);
        self.see(What::Dhcp(message))
    }

    fn discover(&mut self) -> &mut Self {
        self.dhcp(DhcpKind::Discover, true, |_| ())
    }

    fn offer(&mut self) -> &mut Self {
        self.dhcp(DhcpKind::Offer, false, |_| ())
    }

    fn tftp(&mut self, event: Tftp) -> &mut Self {
        self.see(What::Tftp { peer: IP.into(), event })
    }

    fn open(&mut self, name: &str, size: u64) -> &mut Self {
        self.transfers += 1;
        let path = format!("38c128c0/{name}").into_bytes().into();
        self.tftp(Tftp::Open { transfer: self.transfers, path, size, blksize: 1024, windowsize: 1 })
    }

    fn close(&mut self, name: &str, end: TftpEnd, acknowledged: u64, seconds: u64, again: u32) -> &mut Self {
        let path = format!("38c128c0/{name}").into_bytes().into();
        let took = std::time::Duration::from_secs(seconds);
        self.tftp(Tftp::Closed {
            transfer: self.transfers,
            path,
            end,
            acknowledged,
            size: acknowledged,
            took,
            retransmissions: again,
        })
    }

    fn load(&mut self, name: &str) -> &mut Self {
        self.open(name, 5_000_000).wait(1).close(name, TftpEnd::Done, 5_000_000, 1, 0)
    }

    fn miss(&mut self, name: &str) -> &mut Self {
        self.tftp(Tftp::Miss { path: format!("38c128c0/{name}").into_bytes().into(), code: 1 })
    }

    fn nfs(&mut self, event: Nfs) -> &mut Self {
        self.see(What::Nfs { peer: IP.into(), event })
    }

    /// As far as the last offer before the files.
    fn until_tftp(&mut self) -> &mut Self {
        self.discover().wait(1).offer().wait(1);
        if self.model == Model::Pi3 {
            self.load("bootcode.bin").wait(1).discover().wait(2).offer().wait(1);
        }
        self
    }

    /// As far as the firmware's own files.
    fn until_firmware(&mut self) -> &mut Self {
        self.until_tftp();
        match self.model {
            Model::Pi5 => self.load("config.txt"),
            Model::Pi4 => self.load("config.txt").load("start4.elf").load("fixup4.dat").miss("recovery.elf"),
            _ => self.load("config.txt").load("start.elf").load("fixup.dat").miss("recovery.elf"),
        };
        self.miss("dt-blob.bin")
    }

    fn until_kernel(&mut self) -> &mut Self {
        let tree = match self.model {
            Model::Pi5 => "bcm2712-rpi-5-b.dtb",
            Model::Pi4 => "bcm2711-rpi-4-b.dtb",
            _ => "bcm2710-rpi-3-b.dtb",
        };
        self.until_firmware()
            .load(tree)
            .load("cmdline.txt")
            .load("initramfs8")
            .miss("kernel8-32.img")
            .load("kernel8.img")
    }

    fn until_linux(&mut self) -> &mut Self {
        self.until_kernel().wait(12).dhcp(DhcpKind::Discover, false, |_| ()).dhcp(DhcpKind::Ack, false, |_| ())
    }

    fn until_mount(&mut self) -> &mut Self {
        let (export, version) = (root(), 3);
        self.until_linux().wait(1).nfs(Nfs::Getport { program: 100_003, version, answered_port: 2049 });
        self.nfs(Nfs::Mounted { export: export.clone() }).nfs(Nfs::FirstRead { export })
    }

    fn until_running(&mut self) -> &mut Self {
        self.until_mount().wait(1).nfs(Nfs::Init { export: root() }).wait(8).nfs(Nfs::FirstWrite { export: root() })
    }
}

fn root() -> Arc<str> {
    "/lion/root".into()
}

fn tree(id: &'static str, hides_root: bool, stops_init: bool) -> TreeFinding {
    TreeFinding { id, hides_root, stops_init, text: "/etc/x is wrong".to_owned(), todo: "do this".to_owned() }
}

/// Boots that fail, and the one finding that they end with.
fn failures() -> Vec<(&'static str, Story)> {
    let mut stories = Vec::new();
    let mut add = |id, model, tell: fn(&mut Story)| {
        let mut story = Story::of(model);
        tell(&mut story);
        stories.push((id, story));
    };
    use Model::{Pi3, Pi3Plus, Pi4, Pi5};
    add("blocked", Pi4, |s| {
        s.context.readiness = Readiness::Blocked("image x is not there".to_owned());
        s.discover();
    });
    add("preparing", Pi4, |s| {
        s.context.readiness = Readiness::Preparing;
        s.discover();
    });
    add("no-offer", Pi4, |s| {
        s.discover().wait(4).discover().wait(5);
    });
    add("foreign-dhcp", Pi4, |s| {
        s.discover().dhcp(DhcpKind::Offer, false, |m| {
            (m.server, m.boot_menu, m.tftp) = (Some(OTHER.into()), false, None);
        });
        s.wait(11);
    });
    add("no-menu", Pi4, |s| {
        s.discover().dhcp(DhcpKind::Offer, false, |m| m.boot_menu = false).wait(11);
    });
    add("wrong-tftp-server", Pi4, |s| {
        s.discover().dhcp(DhcpKind::Offer, false, |m| m.tftp = Some(OTHER.into())).wait(11);
    });
    add("two-dhcp-servers", Pi3Plus, |s| {
        s.discover().offer().dhcp(DhcpKind::Offer, false, |m| (m.server, m.boot_menu) = (Some(OTHER.into()), false));
        s.wait(11);
    });
    add("rom-gave-up", Pi3, |s| {
        s.discover().offer().wait(5).discover().offer().wait(12);
    });
    add("rom-gave-up", Pi3, |s| {
        // Beside a server whose own offer is not seen.
        s.discover().dhcp(DhcpKind::Offer, false, |m| m.ip = None).wait(12);
    });
    add("silent-after-offer", Pi5, |s| {
        s.discover().offer().wait(11);
    });
    add("again-and-again", Pi4, |s| {
        for _ in 0..4 {
            s.until_kernel().wait(10);
        }
        s.discover();
    });
    add("wrong-serial", Pi4, |s| {
        s.context.serial = Some(Serial(7));
        s.until_tftp().miss("recovery.bin");
    });
    add("refused", Pi4, |s| {
        s.until_tftp().tftp(Tftp::Miss { path: b"38c128c0/config.txt".to_vec().into(), code: 2 });
    });
    add("disk-error", Pi4, |s| {
        let why = TftpEnd::ReadError("Input/output error".into());
        s.until_tftp().open("start4.elf", 9).close("start4.elf", why, 0, 0, 0);
    });
    add("no-bootcode", Pi3, |s| {
        s.discover().offer().miss("bootcode.bin").miss("bootcode.bin");
    });
    add("no-firmware", Pi4, |s| {
        s.until_tftp().miss("start4.elf").miss("start.elf").wait(3);
    });
    add("no-config", Pi5, |s| {
        s.until_tftp().miss("config.txt").miss("config.txt").wait(3);
    });
    add("no-fixup", Pi4, |s| {
        s.until_tftp().load("start4.elf").miss("fixup4.dat");
    });
    add("no-device-tree", Pi5, |s| {
        s.until_firmware().miss("bcm2712-rpi-5-b.dtb").wait(5);
    });
    add("no-kernel", Pi4, |s| {
        s.until_firmware().miss("kernel8.img").miss("kernel7l.img").miss("armstub.bin").wait(5);
    });
    add("too-large", Pi3, |s| {
        s.until_firmware().open("initramfs8", 70 << 20).wait(9);
        s.close("initramfs8", TftpEnd::Timeout, 65_535 * 1024, 9, 0);
    });
    add("too-slow", Pi4, |s| {
        s.until_firmware().open("kernel8.img", 20_000_000).wait(20);
    });
    add("cut-short", Pi4, |s| {
        s.until_firmware().open("initramfs8", 20_000_000).wait(2);
        s.close("initramfs8", TftpEnd::Timeout, 9_000_000, 2, 0).load("kernel8.img");
    });
    add("stalled-file", Pi4, |s| {
        s.until_firmware().open("kernel8.img", 20_000_000).wait(5);
        s.close("kernel8.img", TftpEnd::Timeout, 9_000_000, 5, 5).wait(4);
    });
    add("given-up-file", Pi4, |s| {
        let end = TftpEnd::Aborted { code: 3, message: (*b"disk full").into() };
        s.until_firmware().open("start4.elf", 20_000_000).close("start4.elf", end, 9_000, 1, 0).wait(4);
    });
    add("lossy-network", Pi4, |s| {
        s.until_firmware().open("cmdline.txt", 9).close("cmdline.txt", TftpEnd::Done, 5_000_000, 9, 300);
    });
    add("firmware-loop", Pi4, |s| {
        s.until_tftp();
        for _ in 0..13 {
            s.load("start4.elf");
        }
    });
    add("updating-bootloader", Pi4, |s| {
        s.until_tftp().load("config.txt").load("pieeprom.sig").load("pieeprom.upd").wait(12);
    });
    add("waits-after-file", Pi4, |s| {
        s.until_firmware().wait(9);
    });
    add("kernel-panic", Pi4, |s| {
        let line = (*b"[ 2.1] Kernel panic - not syncing: VFS").into();
        s.until_kernel().see(What::Console { mac: PI, from: ConsoleFrom::Kernel, line });
    });
    add("bad-cmdline", Pi4, |s| {
        s.context.trees = vec![tree("cmdline-option", true, false)];
        s.until_linux().wait(8);
    });
    add("no-nfs-port", Pi4, |s| {
        s.until_linux().nfs(Nfs::Getport { program: 100_003, version: 3, answered_port: 0 });
    });
    add("nfs-refused", Pi4, |s| {
        let (export, why) = ("/bear/root".into(), "it is another Pi's".into());
        s.until_linux().nfs(Nfs::Refused { export, why });
    });
    add("shared-address", Pi3, |s| {
        s.context.shares_address_with = Some("bear".to_owned());
        s.discover().offer();
    });
    add("no-mount", Pi4, |s| {
        s.until_linux().nfs(Nfs::Getport { program: 100_003, version: 3, answered_port: 2049 }).wait(21);
    });
    add("no-portmap", Pi4, |s| {
        s.until_linux().wait(21);
    });
    add("no-sign-of-life", Pi4, |s| {
        s.context.external = Some(OTHER.into());
        s.until_linux().wait(121);
    });
    add("kernel-silent", Pi4, |s| {
        s.until_kernel().wait(41);
    });
    add("disk", Pi4, |s| {
        s.context.disk = Some("the disk is full".to_owned());
        s.until_mount();
    });
    add("quota-full", Pi4, |s| {
        s.context.quota = Some("8.0 of its 8.0 GB".to_owned());
        s.until_mount();
    });
    add("init-missing", Pi4, |s| {
        s.context.trees = vec![tree("wrong-architecture", false, true)];
        s.until_mount().wait(6);
    });
    add("no-init", Pi4, |s| {
        s.until_mount().wait(21);
    });
    add("init-stuck", Pi4, |s| {
        s.until_mount().nfs(Nfs::Init { export: root() }).wait(61);
    });
    add("moved", Pi4, |s| {
        s.until_running().dhcp(DhcpKind::Ack, false, |m| m.ip = Some([192, 0, 2, 77].into()));
    });
    add("lost-soon", Pi4, |s| {
        s.until_running().wait(40).nfs(Nfs::Gone);
    });
    add("not-in-memory", Pi4, |s| {
        let said = b"[ 6.7] piboot: changes are not kept in memory, the system starts on a read-only root: no module";
        let line = said.to_vec().into();
        s.until_mount().nfs(Nfs::InitReadOnly { export: root() });
        s.see(What::Console { mac: PI, from: ConsoleFrom::Kernel, line });
    });
    add("swap-on-nfs", Pi4, |s| {
        s.context.trees = vec![tree("swap-on-nfs", false, false)];
        s.until_running();
    });
    stories
}

#[test]
fn every_rule_finds_its_failure_and_no_other_does() {
    let stories = failures();
    for (id, story) in &stories {
        assert_eq!(story.now, [*id], "{id}: {:#?}", story.tracker.boot(PI));
    }
    let told: BTreeSet<&str> = stories.iter().map(|(id, _)| *id).collect();
    let known: BTreeSet<&str> = rules().map(|rule| rule.id).collect();
    assert_eq!(told, known, "each rule has its story");
}

#[test]
fn healthy_boots_of_every_model_have_no_finding_at_any_moment() {
    for model in [Model::Pi3, Model::Pi3Plus, Model::Pi4, Model::Pi5] {
        let mut story = Story::of(model);
        story.until_running().wait(300);
        assert_eq!(story.ever, BTreeSet::new(), "{model}");
        story.nfs(Nfs::Shutdown { export: root() }).wait(30).nfs(Nfs::Gone).wait(60);
        assert_eq!(story.tracker.boot(PI).unwrap().state, BootState::Stopped);
        story.until_running().wait(30);
        assert_eq!(story.ever, BTreeSet::new(), "{model}, the second time");
    }
}

#[test]
fn what_was_in_the_way_goes_when_the_boot_goes_on() {
    let mut story = Story::of(Model::Pi4);
    story.until_kernel().wait(45);
    assert_eq!(story.now, ["kernel-silent"]);
    let at_ms = story.tracker.boot(PI).unwrap().findings[0].at_ms;
    story.wait(5);
    assert_eq!(story.tracker.boot(PI).unwrap().findings[0].at_ms, at_ms, "it was found then");
    story.dhcp(DhcpKind::Request, false, |_| ());
    assert_eq!(story.now, [""; 0]);
}

#[test]
fn findings_are_sentences() {
    for (id, story) in failures() {
        for finding in &story.tracker.boot(PI).unwrap().findings {
            for text in [&finding.cause, &finding.todo] {
                let first = text.split(' ').next().unwrap();
                let is_file =
                    first == "initramfs8" || first.contains('.') || first.starts_with('\'') || first.starts_with('/');
                assert!(is_file || first.starts_with(char::is_uppercase), "{id}: {text}");
                assert!(text.ends_with('.') && !text.contains(".."), "{id}: {text}");
            }
            assert!(!finding.source.is_empty());
        }
    }
}

#[test]
fn a_system_whose_root_is_elsewhere_runs_when_it_answers() {
    let mut story = Story::of(Model::Pi4);
    story.context.external = Some(OTHER.into());
    story.until_linux().wait(60);
    assert_eq!(story.ever, BTreeSet::new(), "what it asks the other server is not missed here");
    story.see(What::Answers { peer: IP.into(), how: "SSH answers" });
    let boot = story.tracker.boot(PI).unwrap();
    assert!(boot.state == BootState::Running && boot.reached(Stage::Ready), "{boot:?}");
    story.nfs(Nfs::Gone);
    assert_eq!(story.tracker.boot(PI).unwrap().state, BootState::Stopped);
}

#[test]
fn the_document_lists_every_rule_and_no_other() {
    let text = include_str!("../../../docs/diagnosis.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed: BTreeSet<&str> = rows.collect();
    let known: BTreeSet<&str> = rules().map(|rule| rule.id).collect();
    assert_eq!(listed, known);
}
