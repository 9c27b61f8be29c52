//! Any datagram to the TFTP server: parsing, agreeing on options, answering and finding the file must hold what they promise.

#![no_main]

use libfuzzer_sys::fuzz_target;
use piboot::tftp::transfer::{MAX_WINDOW_BYTES, MAX_WINDOWSIZE, Terms};
use piboot::tftp::tree::RelativePath;
use piboot::tftp::wire::{Packet, TransferOption, encode_oack, parse};

fuzz_target!(|datagram: &[u8]| {
    let Ok(Packet::Read(request)) = parse(datagram) else { return };
    assert!(!request.path.contains(&0));

    let terms = Terms::agree(&request.options, 1468);
    assert!((8..=1468).contains(&terms.blksize));
    assert!((1..=MAX_WINDOWSIZE).contains(&terms.windowsize));
    assert!(usize::from(terms.blksize) * usize::from(terms.windowsize) <= MAX_WINDOW_BYTES);
    for (asked, accepted) in request.options.iter().zip(terms.accepted.iter()) {
        match (asked, accepted) {
            (TransferOption::BlockSize(asked), TransferOption::BlockSize(accepted)) => assert!(accepted <= asked),
            (TransferOption::WindowSize(asked), TransferOption::WindowSize(accepted)) => assert!(accepted <= asked),
            (asked, accepted) => assert_eq!(asked, accepted),
        }
    }
    let mut oack = Vec::new();
    encode_oack(&terms.accepted, u64::MAX, &mut oack);
    assert_eq!(parse(&oack), Ok(Packet::Oack));

    if let Ok(path) = RelativePath::new(request.path) {
        assert!(path.components().iter().all(|name| !matches!(*name, b"" | b"." | b"..") && !name.contains(&b'/')));
    }
});
