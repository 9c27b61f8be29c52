//! Any packed image: what comes out is no more than its packing can make of it, and there is an end.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use piboot::image::Source;

/// What comes out is looked at no further.
const MOST: usize = 64 << 20;

fuzz_target!(|data: &[u8]| {
    let Ok(source) = Source::from_reader(Box::new(Cursor::new(data.to_vec())), None, "x".to_owned()) else { return };
    let Ok(mut stream) = source.into_stream() else { return };
    let head = stream.head().map(<[u8]>::to_vec);
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    while let Ok(length) = stream.read(&mut buffer) {
        if total == 0 && length > 0 {
            let head = head.as_ref().expect("what could be read could be looked at");
            let length = length.min(head.len());
            assert_eq!(buffer[..length], head[..length]);
        }
        total += length;
        if length == 0 || total > MOST {
            break;
        }
    }
    assert!(stream.consumed() <= data.len() as u64);
});
