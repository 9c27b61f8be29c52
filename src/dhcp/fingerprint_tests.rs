use super::*;

/// A DISCOVER with the given options, as a Pi would send it.
fn discover(mac: [u8; 6], xid: u32, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut packet = vec![0; 236];
    packet[..4].copy_from_slice(&[1, 1, 6, 0]);
    packet[4..8].copy_from_slice(&xid.to_be_bytes());
    packet[28..34].copy_from_slice(&mac);
    packet.extend([99, 130, 83, 99, 53, 1, 1]);
    for (code, data) in options {
        packet.extend([*code, u8::try_from(data.len()).unwrap()]);
        packet.extend(*data);
    }
    packet.push(255);
    packet
}

const PXE: (u8, &[u8]) = (60, b"PXEClient:Arch:00000:UNDI:002001");

#[test]
fn a_pi_4_tells_model_revision_serial_and_mac() {
    // Bytes of a published dnsmasq log of a Pi 4B that then asked for 5b154510/start4.elf.
    let guid = [0, 0x52, 0x50, 0x69, 0x34, 0x11, 0x31, 0xa0, 0, 0x32, 0x2e, 0xf8, 0xed, 0x10, 0x45, 0x15, 0x5b];
    let mac = [0xdc, 0xa6, 0x32, 0x2e, 0xf8, 0xed];
    let seen = read(&discover(mac, 7, &[PXE, (97, &guid)])).unwrap();
    assert!(seen.netboot);
    let identity = seen.identity.unwrap();
    assert_eq!(identity.serial.unwrap().to_string(), "5b154510");
    assert_eq!(identity.revision.unwrap().to_string(), "Raspberry Pi 4B v1.1, 1 GB");
    assert_eq!((identity.model, identity.evidence), (Some(Model::Pi4), Evidence::Guid));
}

#[test]
fn the_3b_rom_is_known_by_its_transaction_id_and_hides_its_serial() {
    let guid = [&[0][..], &ROM_GUID].concat();
    let identity =
        read(&discover([0xb8, 0x27, 0xeb, 1, 2, 3], ROM_XID, &[PXE, (97, &guid)])).unwrap().identity.unwrap();
    assert_eq!((identity.model, identity.serial, identity.evidence), (Some(Model::Pi3), None, Evidence::RomXid));
}

#[test]
fn a_serial_four_times_over_counts_only_with_the_matching_mac() {
    let guid = [&[0][..], &[0x54, 0x1e, 0xef, 0x06].repeat(4)].concat();
    let own = read(&discover([0xb8, 0x27, 0xeb, 0xef, 0x1e, 0x54], 9, &[PXE, (97, &guid)])).unwrap();
    assert_eq!(own.identity.as_ref().unwrap().serial.unwrap().to_string(), "06ef1e54");
    assert_eq!(own.identity.unwrap().evidence, Evidence::SerialGuid);
    let other = read(&discover([0xb8, 0x27, 0xeb, 1, 2, 3], 9, &[PXE, (97, &guid)])).unwrap();
    assert_eq!(other.identity.unwrap().evidence, Evidence::Oui);
}

#[test]
fn x86_pxe_clients_and_laptops_are_no_pis() {
    let guid =
        [&[0][..], &[0x4c, 0x4c, 0x45, 0x44, 0, 0x31, 0x10, 0x46, 0x80, 0x4a, 0xb6, 0xc0, 0x4f, 0x4d, 0x44, 0x32]]
            .concat();
    let pc = read(&discover([0x52, 0x54, 0, 1, 2, 3], 9, &[PXE, (97, &guid)])).unwrap();
    assert!(pc.netboot && pc.identity.is_none());
    let laptop = read(&discover([0x52, 0x54, 0, 1, 2, 3], 9, &[(60, b"MSFT 5.0"), (12, b"<img src=x>")])).unwrap();
    assert!(!laptop.netboot && laptop.identity.is_none());
    assert_eq!(laptop.hostname.as_deref(), Some(&b"<img src=x>"[..]), "raw: whoever shows it escapes it");
}

#[test]
fn broken_packets_are_nothing() {
    let whole = discover([0xb8, 0x27, 0xeb, 1, 2, 3], ROM_XID, &[PXE, (97, &[0; 17])]);
    for end in 0..whole.len() {
        let _ = read(&whole[..end]);
    }
    for hlen in [0, 5, 16, 213, 255] {
        let mut packet = whole.clone();
        packet[2] = hlen;
        assert!(read(&packet[..240]).is_none(), "hardware address of {hlen} bytes");
        assert!(read(&packet).is_none());
    }
    assert!(read(&discover([0xff; 6], 1, &[PXE])).is_none(), "nobody's address");
}

#[test]
fn replies_are_about_the_client_and_show_the_menu() {
    let mut offer =
        discover([0xb8, 0x27, 0xeb, 1, 2, 3], ROM_XID, &[(54, &[10, 0, 0, 1]), (43, b"Raspberry Pi Boot   ")]);
    offer[0] = 2;
    offer[16..20].copy_from_slice(&[10, 0, 0, 9]);
    let seen = read(&offer).unwrap();
    assert_eq!((seen.ip, seen.server), (Some([10, 0, 0, 9].into()), Some([10, 0, 0, 1].into())));
    assert!(seen.boot_menu && seen.identity.is_none());
}

/// The board and who speaks, from the packet that each really sends.
#[test]
fn every_captured_discover_is_recognised_and_no_other_machine_is() {
    macro_rules! capture {
        ($name:literal) => {
            include_str!(concat!("../../tests/emupi/fixtures/discover-", $name, ".hex"))
        };
    }
    let seen = |hex: &str| {
        let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect();
        read(&bytes).unwrap()
    };
    for (hex, model, serial, evidence, board) in [
        (capture!("3b"), Some(Model::Pi3), None, Evidence::RomXid, None),
        (capture!("3b-bootcode"), None, Some(0x5189_8158), Evidence::RomXid, None),
        (capture!("3bplus"), None, Some(0x06ef_1e54), Evidence::RomXid, None),
        (capture!("4b"), Some(Model::Pi4), Some(0x5b15_4510), Evidence::Guid, Some("Raspberry Pi 4B v1.1, 1 GB")),
        (capture!("5"), Some(Model::Pi5), Some(0xbd98_9ae1), Evidence::Guid, Some("Raspberry Pi 5 v1.0, 4 GB")),
    ] {
        let message = seen(hex);
        assert!(message.netboot && message.kind == DhcpKind::Discover);
        let identity = message.identity.unwrap();
        assert_eq!(
            (identity.model, identity.serial, identity.evidence),
            (model, serial.map(Serial), evidence),
            "{hex}"
        );
        assert_eq!(identity.revision.map(|r| r.to_string()).as_deref(), board);
    }
    for other in [capture!("x86pxe"), capture!("laptop")] {
        assert_eq!(seen(other).identity, None);
    }
}

#[test]
fn other_forms_of_the_eeproms_identifier_are_read_too() {
    let mac = [0xdc, 0xa6, 0x32, 0x2e, 0xf8, 0xed];
    let guid = |fourcc: &[u8; 4], revision: u32, mac: &[u8], serial: u32| {
        [&[0][..], fourcc, &revision.to_le_bytes(), mac, &serial.to_le_bytes()].concat()
    };
    let identity = |mac, guid: &[u8]| read(&discover(mac, 7, &[PXE, (97, guid)])).unwrap().identity;
    let four = 0x00a0_3111;
    for (what, guid, model, serial, evidence) in [
        ("magic the other way round", guid(b"4iPR", four, &mac[2..], 5), Some(Model::Pi4), Some(5), Evidence::Guid),
        ("DHCP_OPTION97", guid(b"acme", four, &mac[2..], 5), Some(Model::Pi4), Some(5), Evidence::Guid),
        ("EEPROM of 2020-03-04", guid(b"RPi4", four, &[0; 4], 5), Some(Model::Pi4), Some(5), Evidence::Guid),
        ("a board to come", guid(b"RPi6", 0x00a0_4ff0, &mac[2..], 5), Some(Model::Pi5), Some(5), Evidence::Guid),
        ("another's address", guid(b"RPi4", four, &[9; 4], 5), Some(Model::Pi4), None, Evidence::Guid),
        ("EEPROM before 2020-03", [&[0][..], &[7, 0, 0, 0].repeat(4)].concat(), None, Some(7), Evidence::SerialGuid),
    ] {
        let got = identity(mac, &guid).unwrap();
        assert_eq!((got.model, got.serial, got.evidence), (model, serial.map(Serial), evidence), "{what}");
    }
    // A prefix of somebody's own without the rest is nobody's.
    assert_eq!(identity([0x52, 0x54, 0, 1, 2, 3], &guid(b"acme", four, &mac[2..], 5)), None);
    assert_eq!(identity([0x52, 0x54, 0, 1, 2, 3], &guid(b"acme", 0x0000_000e, &[0, 1, 2, 3], 5)), None);
    // The address may be set to any (MAC_ADDRESS), the identifier still tells.
    let own = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];
    assert_eq!(identity(own, &guid(b"RPi5", 0x00c0_4170, &own[2..], 5)).unwrap().model, Some(Model::Pi5));
}
