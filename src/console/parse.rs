//! The lines in one datagram of a console. Pure: bytes in, lines out.

use crate::events::ConsoleFrom;

/// A line is cut here; the kernel's own are no longer than this.
pub const MAX_LINE: usize = 1024;

/// Who speaks. The bootloader ends each datagram with a NUL (rpi-eeprom issue 452); both send from port 6665.
#[must_use]
pub fn speaker(payload: &[u8]) -> ConsoleFrom {
    if payload.last() == Some(&0) { ConsoleFrom::Bootloader } else { ConsoleFrom::Kernel }
}

/// The lines of a datagram, without their ends and without empty ones. What is no text stays as it is: whoever shows it
/// makes it printable.
pub fn lines(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = payload.split(|byte| matches!(byte, b'\n' | b'\r' | 0));
    lines.filter(|line| !line.is_empty()).map(|line| line.get(..MAX_LINE).unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_of_the_bootloader_is_a_line_and_one_of_the_kernel_may_be_several() {
        let boot = b"RX: 240 IP: 0 IPV4: 240\n\0";
        assert_eq!(speaker(boot), ConsoleFrom::Bootloader);
        assert_eq!(lines(boot).collect::<Vec<_>>(), [&b"RX: 240 IP: 0 IPV4: 240"[..]]);
        let kernel = b"[    0.0] one\r\n\n[    0.1] two\nand a half";
        assert_eq!(speaker(kernel), ConsoleFrom::Kernel);
        assert_eq!(lines(kernel).collect::<Vec<_>>(), [&b"[    0.0] one"[..], b"[    0.1] two", b"and a half"]);
    }

    #[test]
    fn nothing_is_no_line_and_a_long_one_is_cut() {
        for nothing in [&b""[..], b"\n", b"\n\0", b"\0\0\r\n"] {
            assert_eq!(lines(nothing).count(), 0);
        }
        let long = [b'x'; 5000];
        assert_eq!(lines(&long).map(<[u8]>::len).collect::<Vec<_>>(), [MAX_LINE]);
        assert_eq!(lines(b"\x1b[2J\xff").collect::<Vec<_>>(), [b"\x1b[2J\xff"], "as it came");
    }
}
