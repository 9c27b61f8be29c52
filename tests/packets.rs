//! The packets of a boot, for whoever knows tcpdump better than piboot.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::process::Command;

use emupi::{Model, Pi};
use support::{Router, image};

/// What tcpdump reads in the packets of a boot: a line a packet.
fn tcpdump(router: &Router, boot: &str, how: &[&str]) -> Vec<String> {
    let file = router.scratch("boot.pcap");
    let said = router.piboot(&["boot", boot, "--pcap", file.to_str().unwrap()]).unwrap();
    let output = Command::new("tcpdump").arg("-nn").args(how).arg("-r").arg(&file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert!(said.starts_with(&format!("{} packets", lines.len())), "{said}: {text}");
    lines
}

#[test]
fn the_packets_of_a_boot_are_kept_and_read_by_tcpdump() {
    let mut router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    let link = router.net.tap_link().unwrap();
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    router.enroll(&pi, "lion");
    router.assert_boots(&pi, &link);
    router.wait_for(&["boot", "lion"], "its kernel", |boot| {
        boot["files"].as_array().unwrap().iter().any(|f| f["name"] == "kernel8.img" && f["outcome"] == "done")
    });
    let lines = tcpdump(&router, "lion", &[]);
    let count = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
    assert_eq!((count("BOOTP/DHCP, Request"), count("BOOTP/DHCP, Reply")), (2, 2), "{lines:#?}");
    assert!(lines[0].contains("Request from dc:a6:32:15:45:10"), "{lines:#?}");
    // Whatever the port.
    let lines = tcpdump(&router, "lion", &["-T", "tftp"]);
    let count = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
    let ask = |line: &&String| line.contains("RRQ \"5b154510/start4.elf\" octet tsize 0 blksize 1468");
    let asked = lines.iter().find(ask).unwrap_or_else(|| panic!("{lines:#?}"));
    assert!(asked.contains("> 10.77.0.1.69"), "{asked}");
    assert!(count("OACK tsize") > 10 && count("ERROR") > 3, "{lines:#?}");
    assert_eq!((count("DATA"), count("ACK block")), (0, 0), "{lines:#?}");
    let times: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");

    // They are there for the next run of the agent, too.
    router.stop_agent();
    router.start_agent();
    assert_eq!(tcpdump(&router, "lion", &["-T", "tftp"]), lines);
    router.assert_refused(&["boot", "4711", "--pcap", "/dev/null"], &["there is no boot 4711"]);
}
