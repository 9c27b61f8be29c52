//! Any first sector: what is accepted must lie after the table and not overlap.

#![no_main]

use libfuzzer_sys::fuzz_target;
use piboot::image::partition::parse;

fuzz_target!(|sector: &[u8]| {
    let Ok(table) = parse(sector) else { return };
    assert!((1..=4).contains(&table.partitions.len()));
    for partition in &table.partitions {
        assert!(partition.start >= 512 && partition.size > 0);
        assert!(partition.start + partition.size <= table.end());
    }
    if let (Ok(boot), Ok(root)) = (table.boot(), table.root()) {
        assert!(boot.start + boot.size <= root.start || root.start + root.size <= boot.start);
    }
});
