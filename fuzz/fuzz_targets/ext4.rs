//! Any file system: the walk must end, and give no more data than there is.

#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use piboot::image::ext4::{Ext4, Ext4Error, Kind, ROOT};

fuzz_target!(|data: &[u8]| {
    let _ = walk(data);
});

fn walk(data: &[u8]) -> Result<(), Ext4Error> {
    let fs = Ext4::open(&data)?;
    let mut seen = HashSet::from([ROOT]);
    let mut directories = vec![ROOT];
    let mut claimed = 0;
    while let Some(number) = directories.pop() {
        let Ok(directory) = fs.inode(number) else { continue };
        let _ = fs.xattrs(&directory);
        let Ok(mut entries) = fs.entries(&directory) else { continue };
        while let Ok(chunk) = entries.next_chunk(256) {
            if chunk.is_empty() {
                break;
            }
            for entry in chunk {
                assert!(!entry.name.is_empty() && !entry.name.iter().any(|byte| matches!(byte, b'/' | 0)));
                let Ok(inode) = fs.inode(entry.inode) else { continue };
                let _ = fs.xattrs(&inode);
                match inode.kind {
                    Kind::Directory if seen.insert(entry.inode) => directories.push(entry.inode),
                    Kind::Symlink => {
                        if let Ok(target) = fs.symlink(&inode) {
                            assert!(!target.contains(&0) && target.len() < 4096);
                        }
                    }
                    Kind::File => {
                        let mut runs = fs.runs(&inode)?;
                        while let Ok(Some(run)) = runs.next() {
                            fs.claim(inode.number, run.count)?;
                            claimed += run.count;
                            assert!(run.physical + run.count <= fs.superblock().blocks);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(claimed <= fs.superblock().blocks || fs.superblock().shares_blocks());
    Ok(())
}
