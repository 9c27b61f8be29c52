//! Handles from the wire: nothing that was not sealed opens, and what opens is what was sealed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use piboot::nfs::handle::{HandleKey, KernelHandle};

fuzz_target!(|input: &[u8]| {
    let key = HandleKey::new(*b"a key to fuzz by");
    // Nobody guesses 64 bits of a keyed checksum: what opens has found a hole.
    assert!(key.open(input).is_err());
    if let Some((kind, bytes)) = input.split_first()
        && let Some(kernel) = KernelHandle::new(*kind, bytes)
    {
        let sealed = key.seal(7, 9, &kernel);
        let opened = key.open(sealed.bytes()).map(|opened| (opened.export, opened.tag, opened.kernel));
        assert_eq!(opened, Ok((7, 9, kernel)));
    }
});
