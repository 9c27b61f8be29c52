// What holds for any bytes taken for an archive.

use std::io::Cursor;

use piboot::archive::{Kind, Reader};

/// Reads all entries; how many there were before the end, or before what is wrong.
pub(crate) fn archive(bytes: &[u8]) -> usize {
    let mut reader = Reader::new(Cursor::new(bytes));
    let mut count = 0;
    while let Ok(Some(entry)) = reader.next_entry() {
        count += 1;
        let stays = |path: &[u8]| {
            !path.is_empty()
                && !path.contains(&0)
                && path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
        };
        assert!(stays(&entry.path));
        if let Kind::HardLink(target) = &entry.kind {
            assert!(stays(target));
        }
        assert!(entry.meta.mode <= 0o7777);
        let mut end = 0;
        for (offset, length) in &entry.extents {
            assert!(*offset >= end && offset + length <= entry.size);
            end = offset + length;
        }
        let (mut data, mut at) = (0_u64, 0);
        let read = reader.content(|offset, piece| {
            assert!(
                offset >= at && entry.extents.iter().any(|(from, length)| (*from..from + length).contains(&offset))
            );
            at = offset + piece.len() as u64;
            data += piece.len() as u64;
            Ok(())
        });
        assert!(data <= bytes.len() as u64);
        if read.is_err() {
            break;
        }
    }
    count
}
