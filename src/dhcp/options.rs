//! The bytes that make a Pi boot.

use super::fingerprint::BOOT_MENU_TEXT;

/// Option 43 as every Pi accepts it: the PXE vendor options (PXE 2.1 §2.2.3) that dnsmasq's
/// `pxe-service=0,"Raspberry Pi Boot   "` emits, as raspberrypi/documentation tells users to write it.
///
/// The three trailing spaces are for the 3B's ROM, which compares a fixed length; the others look for the text.
#[must_use]
pub fn boot_menu() -> Vec<u8> {
    menu(&[BOOT_MENU_TEXT, b"   "].concat())
}

/// The same without the spaces, for everybody but the 3B's ROM.
#[must_use]
pub fn boot_menu_without_spaces() -> Vec<u8> {
    menu(BOOT_MENU_TEXT)
}

fn menu(text: &[u8]) -> Vec<u8> {
    // Both lengths fit a byte: the text is 20 bytes long at most.
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    let mut bytes = vec![
        6, 1, 3, // discovery control: neither broadcast nor multicast
        10, 4, 0, b'P', b'X', b'E', // prompt: wait 0 s, then take the first entry
    ];
    bytes.extend([9, length.saturating_add(3), 0, 0, length]); // menu: type 0 = boot from this server
    bytes.extend(text);
    bytes.push(255);
    bytes
}

/// Bytes as dnsmasq takes them in any option, free of every quoting trap: `06:01:03:…`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_menu_is_byte_for_byte_what_dnsmasq_sends_for_the_documented_line() {
        // Received from dnsmasq 2.90 with `pxe-service=0,"Raspberry Pi Boot   "`.
        let expected =
            "06:01:03:0a:04:00:50:58:45:09:17:00:00:14:52:61:73:70:62:65:72:72:79:20:50:69:20:42:6f:6f:74:20:20:20:ff";
        assert_eq!(hex(&boot_menu()), expected);
    }
}
