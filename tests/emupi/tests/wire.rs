//! The boards against a server played by hand: what they do when it, or the network, misbehaves.

#![allow(clippy::unwrap_used)] // helpers of tests, not only the tests themselves

use emupi::arp;
use emupi::dhcp::{self, code, kind};
use emupi::frame::{self, ETHERTYPE_ARP, ETHERTYPE_IPV4};
use emupi::model::Eeprom;
use emupi::record::Fetched;
use emupi::{Boot, BootOptions, Link, Mac, Model, Outcome, Pi, boot, ip, udp};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const BOARD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// A packet of the board's TFTP client.
#[derive(Debug, Clone, PartialEq)]
struct Got {
    port: u16,
    server_port: u16,
    bytes: Vec<u8>,
}

/// A server that answers DHCP by itself and leaves TFTP to the test.
struct Server {
    wire: UnixDatagram,
    board: Mac,
    /// ARP requests of ours that the board answered.
    arp_answers: usize,
    /// What becomes of a DHCP reply with an address.
    reply: fn(dhcp::Message) -> Vec<dhcp::Message>,
    /// Servers that were sent a REQUEST.
    requested: Vec<Option<Ipv4Addr>>,
}

impl Server {
    fn send(&self, from: u16, to: u16, payload: &[u8]) {
        let datagram = udp::build((SERVER, from), (BOARD, to), payload, true);
        let packet = ip::build(SERVER, BOARD, ip::UDP, 64, &datagram);
        // The board may have ended already.
        let _ = self.wire.send(&frame::build(self.board, MAC, ETHERTYPE_IPV4, &packet));
    }

    fn ask_arp(&self) {
        let packet = arp::Packet {
            op: arp::Op::Request,
            sender_mac: MAC,
            sender_ip: SERVER,
            target_mac: Mac([0; 6]),
            target_ip: BOARD,
        };
        self.wire.send(&frame::build(Mac::BROADCAST, MAC, ETHERTYPE_ARP, &arp::build(&packet))).unwrap();
    }

    /// The next TFTP packet; `None` when the board has ended.
    fn next(&mut self) -> Option<Got> {
        let mut buffer = [0; 2000];
        loop {
            let len = self.wire.recv(&mut buffer).ok().filter(|len| *len > 0)?;
            let frame = frame::parse(&buffer[..len]).unwrap();
            self.board = frame.src;
            if frame.ethertype == ETHERTYPE_ARP {
                self.arp(frame.payload);
                continue;
            }
            let packet = ip::parse(frame.payload).unwrap();
            let datagram = udp::parse(packet.payload, packet.src, packet.dst, true).unwrap();
            if datagram.dst_port == 67 {
                self.dhcp(datagram.payload);
            } else {
                let (port, server_port) = (datagram.src_port, datagram.dst_port);
                return Some(Got { port, server_port, bytes: datagram.payload.to_vec() });
            }
        }
    }

    fn arp(&mut self, bytes: &[u8]) {
        let packet = arp::parse(bytes).unwrap();
        if packet.op == arp::Op::Reply {
            self.arp_answers += 1;
            return;
        }
        let answer = arp::Packet {
            op: arp::Op::Reply,
            sender_mac: MAC,
            sender_ip: SERVER,
            target_mac: packet.sender_mac,
            target_ip: packet.sender_ip,
        };
        self.wire.send(&frame::build(packet.sender_mac, MAC, ETHERTYPE_ARP, &arp::build(&answer))).unwrap();
    }

    fn dhcp(&mut self, bytes: &[u8]) {
        let ask = dhcp::parse(bytes).unwrap();
        let answer = if ask.kind() == Some(kind::DISCOVER) { kind::OFFER } else { kind::ACK };
        if answer == kind::ACK {
            self.requested.push(ask.address(code::SERVER_ID));
        }
        let mut reply = dhcp::Message::from_client(ask.chaddr, ask.xid)
            .with(code::MESSAGE_TYPE, [answer])
            .with(code::SERVER_ID, SERVER.octets());
        reply.op = 2;
        reply.yiaddr = BOARD;
        for reply in (self.reply)(reply) {
            self.send(67, 68, &reply.encode());
        }
    }

    fn data(&self, to: &Got, from: u16, block: u16, data: &[u8]) {
        let mut bytes = vec![0, 3];
        bytes.extend_from_slice(&block.to_be_bytes());
        bytes.extend_from_slice(data);
        self.send(from, to.port, &bytes);
    }

    fn oack(&self, to: &Got, from: u16, options: &[(&str, usize)]) {
        let mut bytes = vec![0, 6];
        options.iter().for_each(|(name, value)| bytes.extend_from_slice(format!("{name}\0{value}\0").as_bytes()));
        self.send(from, to.port, &bytes);
    }

    fn missing(&self, to: &Got) {
        self.send(5000, to.port, b"\0\x05\0\x01not found\0");
    }
}

fn with_menu(reply: dhcp::Message) -> Vec<dhcp::Message> {
    vec![reply.with(code::VENDOR_SPECIFIC, *b"Raspberry Pi Boot   ")]
}

fn options() -> BootOptions {
    BootOptions { speed: 100.0, seed: 1, ..BootOptions::default() }
}

/// Boots a board while `script` plays the server, then returns how it went.
fn play(pi: &Pi, options: &BootOptions, script: impl FnOnce(&mut Server) + Send) -> Boot {
    let (link, wire) = Link::wire().unwrap();
    std::thread::scope(|scope| {
        let end = wire.try_clone().unwrap();
        let mut server = Server { wire, board: pi.mac, arp_answers: 0, reply: with_menu, requested: vec![] };
        let script = scope.spawn(move || script(&mut server));
        let boot = boot(pi, &link, options, None).unwrap();
        // Wakes a script that waits for more.
        end.shutdown(std::net::Shutdown::Both).unwrap();
        script.join().unwrap();
        boot
    })
}

fn rrq(got: &Got) -> Option<&str> {
    let name = got.bytes.strip_prefix(b"\0\x01")?.split(|b| *b == 0).next()?;
    std::str::from_utf8(name).ok()
}

fn ack(block: u16) -> Vec<u8> {
    let [a, b] = block.to_be_bytes();
    vec![0, 4, a, b]
}

/// Serves a tree with blksize and tsize until the board has ended; `twist` may answer in its place.
fn serve(
    server: &mut Server,
    tree: &BTreeMap<&str, Vec<u8>>,
    mut twist: impl FnMut(&mut Server, &Got) -> bool,
) -> Vec<Got> {
    let mut current: Option<(Vec<u8>, usize)> = None;
    let mut all = Vec::new();
    while let Some(got) = server.next() {
        all.push(got.clone());
        if twist(server, &got) {
            continue;
        }
        if let Some(name) = rrq(&got) {
            let Some(content) = tree.get(name) else {
                server.missing(&got);
                continue;
            };
            let text = String::from_utf8_lossy(&got.bytes).into_owned();
            let block = text.split("blksize\0").nth(1).and_then(|t| t.split('\0').next()?.parse().ok()).unwrap_or(512);
            current = Some((content.clone(), block));
            if text.contains("blksize") {
                server.oack(&got, 6000, &[("tsize", content.len()), ("blksize", block)]);
            } else if text.contains("tsize") {
                server.oack(&got, 6000, &[("tsize", content.len())]);
            } else {
                server.data(&got, 6000, 1, &content[..content.len().min(512)]);
            }
        } else if let (Some([a, b]), Some((content, block))) = (got.bytes.strip_prefix(b"\0\x04"), &current) {
            let number = u16::from_be_bytes([*a, *b]);
            let start = usize::from(number) * block;
            if start <= content.len() {
                server.data(&got, 6000, number + 1, &content[start..content.len().min(start + block)]);
            }
        }
    }
    all
}

fn tree() -> BTreeMap<&'static str, Vec<u8>> {
    let mut tree = BTreeMap::new();
    for (name, len) in
        [("bootcode.bin", 1400), ("start.elf", 5000), ("start4.elf", 5000), ("kernel8.img", 4096), ("cmdline.txt", 0)]
    {
        tree.insert(name, (0..len).map(|i| (i * 7 / 3) as u8).collect());
    }
    tree.insert("config.txt", b"arm_64bit=1\ndevice_tree=\n".to_vec());
    tree
}

#[test]
fn duplicates_of_an_old_transfer_on_the_roms_only_port_do_no_harm() {
    let mut twisted = false;
    let boot = play(&Pi::new(Model::Pi3B, 1), &options(), |server| {
        serve(server, &tree(), |server, got| {
            if rrq(got) == Some("bootsig.bin") {
                // The last block again, as if its acknowledgement had been lost: same board port, old server port.
                server.data(got, 6000, 3, &[9; 376]);
                twisted = true;
            }
            false
        });
    });
    assert!(twisted && boot.ok(), "{}", boot.outcome);
    let bootsig = boot.requests().find(|r| r.path == "bootsig.bin").unwrap();
    assert!(matches!(bootsig.fetched, Fetched::Missing { code: 1, .. }), "{}", bootsig.fetched);
}

#[test]
fn a_duplicate_block_is_acknowledged_again_and_by_an_old_start4_elf_one_too_far() {
    for (ack_next, expected) in [(false, 1), (true, 2)] {
        let mut answer = None;
        let (mut armed, mut name) = (false, String::new());
        play(&Pi::new(Model::Pi4B, 1), &BootOptions { ack_next, ..options() }, |server| {
            serve(server, &tree(), |server, got| {
                if let Some(asked) = rrq(got) {
                    name = asked.to_owned();
                } else if armed && answer.is_none() {
                    answer = Some(got.bytes.clone());
                } else if !armed && name == "start4.elf" && got.bytes == ack(1) {
                    armed = true;
                    let first = &tree()["start4.elf"][..1468];
                    server.data(got, 6000, 1, first);
                    return true;
                }
                false
            });
        });
        assert_eq!(answer, Some(ack(expected)), "ack_next {ack_next}");
    }
}

#[test]
fn bootcode_gives_a_silent_file_up_and_goes_on() {
    let boot = play(&Pi::new(Model::Pi3B, 1), &options(), |server| {
        serve(server, &tree(), |_, got| rrq(got) == Some("autoboot.txt"));
    });
    assert!(boot.ok(), "{}", boot.outcome);
    let file = boot.requests().find(|r| r.path == "autoboot.txt").unwrap();
    assert_eq!((&file.fetched, file.resent), (&Fetched::GaveUp { bytes: 0 }, 0));
}

#[test]
fn the_3bs_rom_is_deaf_to_arp_and_bootcode_is_not() {
    let mut answers = Vec::new();
    play(&Pi::new(Model::Pi3B, 1), &options(), |server| {
        serve(server, &tree(), |server, got| {
            if let Some("bootcode.bin" | "bootsig.bin" | "config.txt" | "start.elf") = rrq(got) {
                server.ask_arp();
                answers.push((rrq(got).unwrap().to_owned(), server.arp_answers));
            }
            false
        });
    });
    // Each count is of the requests before it.
    assert_eq!(answers[..3].iter().map(|a| a.1).collect::<Vec<_>>(), [0, 0, 0], "{answers:?}");
    assert!(answers.last().unwrap().1 > 0, "{answers:?}");
}

#[test]
fn old_eeproms_ask_for_smaller_blocks() {
    for (eeprom, size) in [(Eeprom::Y2021, 1024), (Eeprom::Y2024, 1468), (Eeprom::Y2025, 1468)] {
        let pi = Pi { eeprom, ..Pi::new(Model::Pi4B, 1) };
        let boot = play(&pi, &options(), |server| drop(serve(server, &tree(), |_, _| false)));
        assert!(boot.ok(), "{}", boot.outcome);
        let sizes: Vec<u16> = boot.requests().filter(|r| r.path == "start4.elf").map(|r| r.block_size).collect();
        // A probe ends before a size is agreed on or after, but a fetch always agrees.
        assert!(sizes.contains(&size), "{eeprom:?}: {sizes:?}");
    }
}

#[test]
fn the_block_number_wraps_only_since_2025() {
    // 65536 blocks of 1468 bytes and a little more.
    let huge = 65_536 * 1468 + 10;
    for (eeprom, fits) in [(Eeprom::Y2024, false), (Eeprom::Y2025, true)] {
        let pi = Pi { eeprom, ..Pi::new(Model::Pi5, 1) };
        let mut next = 0;
        let block = [5; 1468];
        let boot = play(&pi, &BootOptions { keep: false, ..options() }, |server| {
            let tree = tree();
            let mut kernel = false;
            serve(server, &tree, |server, got| {
                if let Some(name) = rrq(got) {
                    kernel = name == "kernel8.img";
                    next = 0;
                    if kernel {
                        server.oack(got, 6000, &[("tsize", huge), ("blksize", 1468)]);
                    }
                } else if kernel && got.bytes.starts_with(b"\0\x04") {
                    next += 1;
                    // The last acknowledgement asks for nothing more.
                    if let Some(left) = usize::checked_sub(huge, (next - 1) * 1468) {
                        server.data(got, 6000, (next & 0xffff) as u16, &block[..left.min(1468)]);
                    }
                }
                kernel
            });
        });
        assert_eq!(boot.ok(), fits, "{eeprom:?}: {}", boot.outcome);
        if fits {
            assert_eq!(boot.ready().unwrap().kernel.bytes, huge as u64);
        }
    }
}

#[test]
fn a_server_that_answers_with_more_than_was_asked_is_refused() {
    for option in [("blksize", 1469), ("windowsize", 4)] {
        let boot = play(&Pi::new(Model::Pi4B, 1), &options(), |server| {
            serve(server, &tree(), |server, got| {
                let start = rrq(got) == Some("config.txt");
                if start {
                    server.oack(got, 6000, &[option]);
                }
                start
            });
        });
        let config = boot.requests().find(|r| r.path == "config.txt").unwrap();
        assert!(matches!(config.fetched, Fetched::Broken(_)), "{}", config.fetched);
    }
}

#[test]
fn a_file_cut_short_is_not_taken_for_whole() {
    let boot = play(&Pi::new(Model::Pi4B, 1), &options(), |server| {
        serve(server, &tree(), |server, got| {
            let fetch = rrq(got) == Some("start4.elf");
            if fetch {
                server.oack(got, 6000, &[("tsize", 5001), ("blksize", 1468)]);
            }
            fetch
        });
    });
    assert!(matches!(boot.outcome, Outcome::Failed { stage: "eeprom", led: Some((0, 4)), .. }), "{}", boot.outcome);
}

#[test]
fn lost_packets_are_made_up_for_by_a_server_that_resends() {
    // The server played here never resends; the EEPROM does, and that must be enough.
    let options = BootOptions { loss: emupi::tftp::client::Loss { rate: 0.03 }, ..options() };
    let boot = play(&Pi::new(Model::Pi4B, 1), &options, |server| drop(serve(server, &tree(), |_, _| false)));
    assert!(boot.ok(), "{}", boot.outcome);
    assert!(boot.requests().map(|r| r.resent).sum::<u32>() > 0);
    for file in &boot.ready().unwrap().files {
        assert_eq!(file.content.as_ref(), tree().get(file.path.as_str()), "{}", file.path);
    }
}

#[test]
fn a_pi_4_boots_with_option_66_alone_and_a_3b_does_not() {
    let reply = |reply: dhcp::Message| vec![reply.with(code::TFTP_SERVER, *b"10.0.0.1")];
    for (model, boots) in [(Model::Pi4B, true), (Model::Pi3B, false)] {
        let boot = play(&Pi::new(model, 1), &options(), |server| {
            server.reply = reply;
            serve(server, &tree(), |_, _| false);
        });
        assert_eq!(boot.ok(), boots, "{model}: {}", boot.outcome);
    }
}

#[test]
fn an_address_from_the_router_and_the_boot_from_a_proxy() {
    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    // The router names itself as next server, as some do; boards follow the proxy all the same (rpi-eeprom issue 687).
    let reply = |reply: dhcp::Message| {
        let mut proxy = reply.clone().with(code::VENDOR_SPECIFIC, *b"Raspberry Pi Boot   ");
        proxy.yiaddr = Ipv4Addr::UNSPECIFIED;
        let mut router = reply;
        router.options.retain(|(c, _)| *c != code::SERVER_ID);
        router = router.with(code::SERVER_ID, ROUTER.octets());
        router.siaddr = ROUTER;
        vec![proxy, router]
    };
    for model in [Model::Pi3B, Model::Pi3BPlus, Model::Pi4B, Model::Pi5] {
        let mut requested = Vec::new();
        let boot = play(&Pi::new(model, 1), &options(), |server| {
            server.reply = reply;
            serve(server, &tree(), |_, _| false);
            requested = std::mem::take(&mut server.requested);
        });
        assert!(boot.ok(), "{model}: {}", boot.outcome);
        assert_eq!((boot.ip, boot.server), (Some(BOARD), Some(SERVER)), "{model}");
        let eeprom = matches!(model, Model::Pi4B | Model::Pi5);
        assert_eq!(
            requested,
            if eeprom { vec![Some(ROUTER)] } else { vec![] },
            "{model}: only the EEPROM asks to keep it"
        );
    }
}

#[test]
fn a_board_with_an_eeprom_starts_over_and_a_3b_does_not() {
    for (model, boots) in [(Model::Pi4B, true), (Model::Pi3B, false)] {
        let boot = play(&Pi::new(model, 1), &BootOptions { restarts: 1, ..options() }, |server| {
            let mut starts = 0;
            let first = if model == Model::Pi4B { "00000001/start4.elf" } else { "bootcode.bin" };
            serve(server, &tree(), |server, got| {
                starts += usize::from(rrq(got) == Some(first));
                let refuse = starts < 2 && rrq(got).is_some();
                if refuse {
                    server.missing(got);
                }
                refuse
            });
        });
        assert_eq!(boot.ok(), boots, "{model}: {}", boot.outcome);
    }
}
