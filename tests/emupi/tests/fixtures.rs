//! The DISCOVERs in `fixtures/` are what the boards really send; other parts of the project use them as input.
//!
//! `EMUPI_WRITE_FIXTURES=1 cargo test -p emupi --test fixtures` writes them anew.

#![allow(clippy::unwrap_used)] // helpers of tests, not only the tests themselves

use emupi::dhcp::discover::Speaker;
use emupi::dhcp::parse;
use emupi::{Model, Pi};
use std::fs;
use std::path::Path;

fn boards() -> [(&'static str, Pi, Speaker); 7] {
    let four = Pi {
        mac: "dc:a6:32:2e:f8:ed".parse().unwrap(),
        revision: 0x00a0_3111,
        ..Pi::new(Model::Pi4B, 0x1000_0000_5b15_4510)
    };
    let five = Pi { mac: "d8:3a:dd:e8:27:1e".parse().unwrap(), ..Pi::new(Model::Pi5, 0x0c8f_7e5c_bd98_9ae1) };
    let three = Pi::new(Model::Pi3B, 0x5189_8158);
    [
        ("3b", three.clone(), Speaker::RomB),
        ("3b-bootcode", three, Speaker::Bootcode),
        ("3bplus", Pi::new(Model::Pi3BPlus, 0x06ef_1e54), Speaker::Bootcode),
        ("4b", four, Speaker::Eeprom),
        ("5", five, Speaker::Eeprom),
        ("x86pxe", Pi::new(Model::X86Pxe, 0x12_3456), Speaker::Pc),
        ("laptop", Pi::new(Model::Laptop, 0x65_4321), Speaker::Laptop),
    ]
}

/// 32 bytes a line, so that a change shows where it is.
fn hex(bytes: &[u8]) -> String {
    let line = |chunk: &[u8]| chunk.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}

#[test]
fn discovers_match_their_fixtures() {
    for (name, pi, speaker) in boards() {
        let bytes = speaker.discover(&pi, speaker.xid(pi.mac, 0x0a48_5863)).encode();
        assert!(parse(&bytes).is_ok());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/discover-{name}.hex"));
        if std::env::var_os("EMUPI_WRITE_FIXTURES").is_some() {
            fs::write(&path, hex(&bytes)).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap();
        assert_eq!(hex(&bytes), expected, "{name}");
    }
}
