//! Any beginning of a disk: the partitions that are accepted lie after the table and do not overlap.

#![no_main]

use libfuzzer_sys::fuzz_target;
use piboot::image::partition::read;

fuzz_target!(|disk: &[u8]| {
    let Ok(table) = read(&disk) else { return };
    assert!((1..=1024).contains(&table.partitions.len()));
    for partition in &table.partitions {
        assert!(partition.start >= 512 && partition.size > 0);
        assert!(partition.start + partition.size <= table.end());
    }
    if let (Ok(boot), Ok(root)) = (table.boot(), table.root()) {
        assert!(boot.start + boot.size <= root.start || root.start + root.size <= boot.start);
    }
});
