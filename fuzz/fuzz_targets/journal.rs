//! Any journal in a small, sound ext3: the input takes the place of the journal's blocks.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use piboot::image::ext4::{Ext4, ROOT};

/// A file system of 1 KiB blocks with the smallest journal, marked as not shut down, and where its journal lies.
fn sound() -> &'static (Vec<u8>, usize) {
    static SOUND: OnceLock<(Vec<u8>, usize)> = OnceLock::new();
    SOUND.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("piboot-fuzz-{}", std::process::id()));
        let make = ["-q", "-F", "-t", "ext3", "-b", "1024", "-J", "size=1"];
        let status = std::process::Command::new("mke2fs").args(make).arg(&path).arg("4M").status();
        assert!(status.expect("mke2fs").success());
        let mut image = std::fs::read(&path).expect("made just now");
        let _ = std::fs::remove_file(&path);
        let at = (0..image.len()).step_by(1024).find(|at| image[*at..].starts_with(&[0xc0, 0x3b, 0x39, 0x98]));
        image[1024 + 0x60] |= 4;
        (image, at.expect("a journal"))
    })
}

fuzz_target!(|data: &[u8]| {
    let (image, at) = sound();
    let mut image = image.clone();
    let length = data.len().min(64 << 10);
    image[*at..at + length].copy_from_slice(&data[..length]);
    let disk = image.as_slice();
    if let Ok(fs) = Ext4::open(&disk) {
        let _ = fs.inode(ROOT).and_then(|root| fs.entries(&root)?.next_chunk(100));
    }
});
