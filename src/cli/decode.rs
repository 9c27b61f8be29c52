//! A DHCP packet as people have it: a file of its bytes, or a dump of them in text.

use std::io::Read as _;
use std::path::Path;

use super::CliError;
use crate::dhcp::fingerprint;
use crate::events::Dhcp;
use crate::net::packet::udp_payload;

/// More than any dump of one packet has.
const MAX_TEXT: u64 = 64 << 10;
/// Bytes in a row of hexdump's.
const ROW: usize = 16;
/// Ethernet's header.
const ETHERNET: usize = 14;

/// What is in a packet: of a file, of standard input, or of the hex digits themselves.
pub(super) fn packet(named: Option<&str>) -> Result<Dhcp, CliError> {
    let path = named.map(Path::new).filter(|path| path.exists());
    let content = match (named, path) {
        (Some(digits), None) => Ok(digits.as_bytes().to_vec()),
        (_, Some(path)) => std::fs::File::open(path).and_then(limited),
        (None, None) => limited(std::io::stdin()),
    };
    let failed = |why: String| CliError::Failed(format!("{}: {why}", named.unwrap_or("standard input")));
    let content = content.map_err(|error| failed(error.to_string()))?;
    let bytes = match std::str::from_utf8(&content) {
        // A packet begins with 1 or 2, which is no text.
        Ok(text) if !text.contains(['\u{1}', '\u{2}']) => {
            let what = if path.is_none() && named.is_some() { "neither a file nor" } else { "no packet and not" };
            from_dump(text).ok_or_else(|| failed(format!("{what} the hex digits of one, in pairs")))?
        }
        _ => content,
    };
    // From its DHCP header on, from its IP header on, or a whole frame.
    let frame = bytes.get(ETHERNET..).and_then(udp_payload);
    let found = [Some(&bytes[..]), udp_payload(&bytes), frame].into_iter().flatten().find_map(fingerprint::read);
    found.ok_or_else(|| failed("this is no DHCP packet of an Ethernet client".to_owned()))
}

fn limited(from: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    from.take(MAX_TEXT).read_to_end(&mut content)?;
    Ok(content)
}

/// Bytes in hex, plain or as `xxd`, `hexdump -C` and `tcpdump -x` write them: with offsets before, and characters behind.
fn from_dump(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut repeats = false;
    for line in text.lines() {
        let line = line.trim();
        // hexdump: so many rows are as the one before, as the next offset says.
        if line == "*" {
            repeats = true;
            continue;
        }
        let (at, digits) = match (line.split_once(": "), line.split_once("  ")) {
            // xxd: the characters are two blanks away.
            (Some((at, rest)), _) if offset(at).is_some() => (offset(at), rest.trim_start().split("  ").next()),
            // hexdump: they are in bars.
            (_, Some((at, rest))) if offset(at).is_some() => (offset(at), rest.split('|').next()),
            // hexdump: how many there were.
            _ if repeats || offset(line) == Some(bytes.len()) => (offset(line), None),
            _ => (None, Some(line)),
        };
        if std::mem::take(&mut repeats) {
            let at = at.filter(|at| u64::try_from(*at).is_ok_and(|at| at < MAX_TEXT))?;
            let row = bytes.last_chunk::<ROW>()?.to_owned();
            let missing = at.checked_sub(bytes.len())?;
            bytes.extend(row.into_iter().cycle().take(missing));
        }
        let mut high = None;
        for c in digits.unwrap_or_default().chars().filter(|c| !c.is_whitespace() && *c != ':') {
            let digit = u8::try_from(c.to_digit(16)?).ok()?;
            match high.take() {
                None => high = Some(digit),
                Some(high) => bytes.push(high << 4 | digit),
            }
        }
        if high.is_some() {
            return None;
        }
    }
    Some(bytes)
}

/// What a dump counts its bytes with: `00000010`, `0x0010`.
fn offset(text: &str) -> Option<usize> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let looks_like_one = (4..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    looks_like_one.then(|| usize::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_of_all_kinds_give_the_same_bytes() {
        let expected: Vec<u8> = (0..34).map(|n| n * 7).collect();
        let hex = |bytes: &[u8], between: &str| bytes.iter().map(|b| format!("{b:02x}{between}")).collect::<String>();
        let rows = |row: fn(usize, &[u8]) -> String| {
            expected.chunks(16).enumerate().map(|(n, bytes)| row(n * 16, bytes) + "\n").collect::<String>()
        };
        let dumps = [
            hex(&expected, ""),
            hex(&expected, " "),
            hex(&expected, ":").trim_end_matches(':').to_owned(),
            expected.chunks(5).map(|row| hex(row, "") + "\n").collect(),
            rows(|at, row| format!("{at:08x}: {:40} ......a: b..", pairs(row))),
            rows(|at, row| format!("\t0x{at:04x}:  {}", pairs(row))),
            rows(|at, row| {
                format!("{at:08x}  {} |.a  b.........|", row.iter().map(|b| format!("{b:02x} ")).collect::<String>())
            }) + "00000022\n",
        ];
        for dump in &dumps {
            assert_eq!(from_dump(dump).as_ref(), Some(&expected), "{dump}");
        }
        let starred = "00000000  01 02 03 04 05 06 07 08  09 0a 0b 0c 0d 0e 0f 10  |................|\n*\n00000030  11\n00000031\n";
        let repeated: Vec<u8> = (1..=16).cycle().take(48).chain([17]).collect();
        assert_eq!(from_dump(starred), Some(repeated));
        for bad in [
            "0",
            "0g",
            "01 2",
            "no packet",
            "*\n0010",
            "00000000  01\n*\n00000020\n",
            &starred.replace("31\n", "31\n*\nffffffff\n"),
        ] {
            assert_eq!(from_dump(bad), None, "{bad}");
        }
    }

    /// Two bytes a word, as xxd has them.
    fn pairs(bytes: &[u8]) -> String {
        let word = |pair: &[u8]| pair.iter().map(|b| format!("{b:02x}")).collect::<String>();
        bytes.chunks(2).map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_packet_is_found_in_its_frame_and_by_itself() {
        let fixture = format!("{}/tests/emupi/fixtures/discover-4b.hex", env!("CARGO_MANIFEST_DIR"));
        let seen = packet(Some(&fixture)).unwrap();
        assert_eq!(seen.identity.as_ref().unwrap().serial.unwrap().to_string(), "5b154510");
        let payload = from_dump(&std::fs::read_to_string(&fixture).unwrap()).unwrap();
        let from = "0.0.0.0:68".parse().unwrap();
        let ip = crate::net::packet::udp_packet(from, "255.255.255.255:67".parse().unwrap(), &payload).unwrap();
        let frame = [&[0xff; 12][..], &[8, 0], &ip].concat();
        let dir = tempfile::tempdir().unwrap();
        for bytes in [payload, ip, frame] {
            let file = dir.path().join("packet");
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(packet(file.to_str()).unwrap(), seen);
        }
        assert!(packet(Some("01010600")).unwrap_err().to_string().contains("no DHCP packet"));
        assert!(packet(Some("nosuchfile")).unwrap_err().to_string().contains("neither a file nor"));
    }
}
