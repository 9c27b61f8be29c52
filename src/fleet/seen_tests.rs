use super::*;

fn identity(n: u32, evidence: Evidence) -> Identity {
    let [_, a, b, c] = n.to_be_bytes();
    Identity { mac: Mac([0xdc, 0xa6, 0x32, a, b, c]), serial: None, revision: None, model: None, evidence }
}

fn nobody(_: &SeenPi) -> bool {
    false
}

#[test]
fn knowledge_only_grows() {
    let mut seen = Seen::default();
    let rom = Identity { model: Some(Model::Pi3), ..identity(1, Evidence::RomXid) };
    assert!(seen.take(&rom, Asks::ToBoot, 10, nobody));
    assert!(seen.learn_serial(rom.mac, Serial(5)) && !seen.learn_serial(rom.mac, Serial(5)));
    assert!(!seen.take(&identity(1, Evidence::Oui), Asks::ForAnAddress, 20, nobody));
    assert!(!seen.learn_model(rom.mac, Model::Pi3Plus), "it said itself what it is");
    let pi = seen.get(rom.mac).unwrap();
    assert_eq!((pi.serial, pi.model, pi.evidence), (Some(Serial(5)), Some(Model::Pi3), Evidence::RomXid));
    assert_eq!((pi.first_seen_ms, pi.last_seen_ms, pi.asked, pi.asked_ms), (10, 20, 1, 10));
    assert_eq!(seen.take_unsaved().changed.len(), 1);
    assert!(seen.take_unsaved().is_empty());

    let plus = identity(2, Evidence::RomXid);
    seen.take(&plus, Asks::ToBoot, 10, nobody);
    assert!(seen.learn_model(plus.mac, Model::Pi3Plus));
    assert_eq!(seen.get(plus.mac).unwrap().board(), "Raspberry Pi 3+");
}

#[test]
fn a_pi_that_asks_for_hours_is_stored_once_a_minute() {
    let mut seen = Seen::default();
    let stored = (0..900).filter(|n| {
        seen.take(&identity(1, Evidence::Guid), Asks::ToBoot, n * 4000, nobody);
        !seen.take_unsaved().is_empty()
    });
    assert_eq!(stored.count(), 60);
    assert_eq!(seen.get(identity(1, Evidence::Guid).mac).unwrap().asked, 900);
}

/// As many made-up Pis as an agent lets in during hours of a flood, `times` DISCOVERs of each.
fn flood(seen: &mut Seen, evidence: Evidence, from_ms: i64, times: i64) {
    for n in 0..3000 {
        for time in 0..times {
            let now_ms = from_ms + i64::from(n) * 100 + time * 2000;
            seen.take(&identity(10_000 + n, evidence), Asks::ToBoot, now_ms, nobody);
        }
    }
}

/// Whether the nth Pi is listed, and how often it asked.
fn asked(seen: &Seen, n: u32) -> Option<u32> {
    seen.get(identity(n, Evidence::Oui).mac).map(|pi| pi.asked)
}

#[test]
fn made_up_pis_push_out_each_other_however_good_they_look() {
    for evidence in [Evidence::Guid, Evidence::Oui] {
        let mut seen = Seen::default();
        // More than there are seniors.
        for n in 0..300 {
            seen.take(&identity(n, Evidence::RomXid), Asks::ToBoot, 0, nobody);
            seen.take(&identity(n, Evidence::RomXid), Asks::ToBoot, 5000, nobody);
        }
        flood(&mut seen, evidence, 10_000, 1);
        assert_eq!(seen.list().len(), MAX_SEEN);
        assert!((0..300).all(|n| asked(&seen, n) == Some(2)), "{evidence:?}");
        // One that asks in the middle of it is still there when it asks again, and stays from then on.
        let late = 10_000 + 3000 * 100;
        seen.take(&identity(500, Evidence::RomXid), Asks::ToBoot, late, nobody);
        for n in 0..100 {
            seen.take(&identity(1000 + n, evidence), Asks::ToBoot, late + i64::from(n) * 50, nobody);
        }
        seen.take(&identity(500, Evidence::RomXid), Asks::ToBoot, late + 5000, nobody);
        flood(&mut seen, evidence, late + 5000, 1);
        assert_eq!(asked(&seen, 500), Some(2), "{evidence:?}");
    }
}

#[test]
fn made_up_pis_that_repeat_themselves_leave_those_who_were_there_before() {
    let mut seen = Seen::default();
    for n in 0..100 {
        seen.take(&identity(n, Evidence::RomXid), Asks::ToBoot, 0, nobody);
        seen.take(&identity(n, Evidence::RomXid), Asks::ToBoot, 5000, nobody);
    }
    flood(&mut seen, Evidence::Guid, 10_000, 2);
    assert_eq!(seen.list().len(), MAX_SEEN);
    assert!((0..100).all(|n| asked(&seen, n) == Some(2)));
}

#[test]
fn an_enrolled_pi_is_never_pushed_out_and_never_refused() {
    let mut seen = Seen::default();
    let enrolled = |pi: &SeenPi| pi.mac == identity(1, Evidence::Oui).mac;
    seen.take(&identity(1, Evidence::Oui), Asks::Nothing, 0, enrolled);
    for n in 100..10_000 {
        seen.take(&identity(n, Evidence::Guid), Asks::ToBoot, i64::from(n), enrolled);
    }
    assert_eq!(seen.list().len(), MAX_SEEN);
    assert!(seen.get(identity(1, Evidence::Oui).mac).is_some());
    let everybody = |_: &SeenPi| true;
    seen.take(&identity(2, Evidence::Oui), Asks::Nothing, 0, everybody);
    assert!(seen.get(identity(2, Evidence::Oui).mac).is_some());
}

#[test]
fn who_was_pushed_out_is_forgotten_in_the_store_too() {
    let mut seen = Seen::default();
    for n in 0..600 {
        seen.take(&identity(n, Evidence::Guid), Asks::ToBoot, i64::from(n), nobody);
    }
    let unsaved = seen.take_unsaved();
    assert_eq!((unsaved.changed.len(), unsaved.forgotten.len()), (MAX_SEEN, 600 - MAX_SEEN));
    seen.keep_unsaved(unsaved);
    assert_eq!(seen.take_unsaved().changed.len(), MAX_SEEN);
}
