//! What has to hold of any bytes that come for the console port: the body of the fuzz target, and of tests/console.rs for
//! the stored inputs.

use piboot::console::parse;

/// A datagram; how many lines it has.
pub(crate) fn datagram(payload: &[u8]) -> usize {
    let lines: Vec<&[u8]> = parse::lines(payload).collect();
    for line in &lines {
        assert!((1..=parse::MAX_LINE).contains(&line.len()));
        assert!(!line.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)));
    }
    // Nothing is made up and nothing is told twice.
    assert!(lines.iter().map(|line| line.len() + 1).sum::<usize>() <= payload.len() + 1);
    let _ = parse::speaker(payload);
    lines.len()
}
