//! TFTP (RFC 1350, 2347–2349) as boot firmware speaks it: packets here, the transfer in [`client`].

pub mod client;

/// What a server may send.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A block.
    Data {
        /// Its number.
        block: u16,
        /// Its bytes.
        data: &'a [u8],
    },
    /// Options accepted: name, value.
    OptionAck(Vec<(&'a str, &'a str)>),
    /// The end.
    Error {
        /// Error code.
        code: u16,
        /// In words.
        message: String,
    },
}

/// What is wrong with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TftpError {
    /// Too short, or option strings that do not end.
    #[error("malformed TFTP packet")]
    Malformed,
    /// An opcode no server sends to a reader.
    #[error("unexpected TFTP opcode {0}")]
    Opcode(u16),
}

/// Reads a packet from a server.
///
/// # Errors
/// See [`TftpError`].
pub fn parse(bytes: &[u8]) -> Result<Packet<'_>, TftpError> {
    let (opcode, body) = bytes.split_first_chunk::<2>().ok_or(TftpError::Malformed)?;
    let number = |body: &[u8]| body.first_chunk::<2>().map(|b| u16::from_be_bytes(*b)).ok_or(TftpError::Malformed);
    match u16::from_be_bytes(*opcode) {
        3 => Ok(Packet::Data { block: number(body)?, data: &body[2..] }),
        5 => {
            let code = number(body)?;
            let text = body[2..].split(|&b| b == 0).next().unwrap_or_default();
            Ok(Packet::Error { code, message: String::from_utf8_lossy(text).into_owned() })
        }
        6 => options(body).map(Packet::OptionAck).ok_or(TftpError::Malformed),
        other => Err(TftpError::Opcode(other)),
    }
}

fn options(body: &[u8]) -> Option<Vec<(&str, &str)>> {
    let body = std::str::from_utf8(body.strip_suffix(&[0])?).ok()?;
    let mut parts = body.split('\0');
    let mut list = Vec::new();
    while let Some(name) = parts.next() {
        list.push((name, parts.next()?));
    }
    Some(list)
}

/// A read request in octet mode.
pub fn read_request(name: &str, options: &[(&str, String)]) -> Vec<u8> {
    let mut out = vec![0, 1];
    for text in [name, "octet"].into_iter().chain(options.iter().flat_map(|(k, v)| [*k, v.as_str()])) {
        out.extend_from_slice(text.as_bytes());
        out.push(0);
    }
    out
}

/// An acknowledgement.
pub fn ack(block: u16) -> Vec<u8> {
    let [a, b] = block.to_be_bytes();
    vec![0, 4, a, b]
}

/// An error; code 0 with "Early terminate" is how the firmware ends a transfer it never wanted.
pub fn error(code: u16, message: &str) -> Vec<u8> {
    let [a, b] = code.to_be_bytes();
    let mut out = vec![0, 5, a, b];
    out.extend_from_slice(message.as_bytes());
    out.push(0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_as_captured() {
        // RRQ of a Raspberry Pi 2 running bootcode.bin: 35 bytes (firmware issue 1041).
        let bytes = read_request("e1ffda08/start.elf", &[("tsize", "0".into())]);
        assert_eq!(bytes, b"\0\x01e1ffda08/start.elf\0octet\0tsize\x000\0");
        assert_eq!(bytes.len(), 35);
        assert_eq!(read_request("bootcode.bin", &[]).len(), 21);
    }

    #[test]
    fn packets_of_a_server() {
        assert_eq!(parse(b"\0\x03\x01\x02abc"), Ok(Packet::Data { block: 258, data: b"abc" }));
        assert_eq!(
            parse(b"\0\x06tsize\x001234\0blksize\x001024\0"),
            Ok(Packet::OptionAck(vec![("tsize", "1234"), ("blksize", "1024")]))
        );
        assert_eq!(parse(b"\0\x05\0\x01no\0"), Ok(Packet::Error { code: 1, message: "no".into() }));
        // Some servers forget the NUL at the end of the message.
        assert_eq!(parse(b"\0\x05\0\x01no"), Ok(Packet::Error { code: 1, message: "no".into() }));
        for bad in [&b""[..], b"\0", b"\0\x03\0", b"\0\x05", b"\0\x06tsize\0", b"\0\x06tsize"] {
            assert_eq!(parse(bad), Err(TftpError::Malformed), "{bad:?}");
        }
        assert_eq!(parse(b"\0\x01x\0"), Err(TftpError::Opcode(1)));
    }
}
