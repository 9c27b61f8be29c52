//! TFTP packets (RFC 1350 with the options of RFC 2347, 2348, 2349 and 7440): pure functions over bytes.

/// Smallest block a client may ask for (RFC 2348).
pub const MIN_BLKSIZE: u16 = 8;
/// Largest block a client may ask for (RFC 2348).
pub const MAX_BLKSIZE: u16 = 65464;
/// Block size without negotiation (RFC 1350 §2).
pub const DEFAULT_BLKSIZE: u16 = 512;
/// Bytes before the payload of a DATA packet.
pub const DATA_HEADER: usize = 4;

const RRQ: u16 = 1;
const WRQ: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// Error codes of RFC 1350 §5 as far as this server sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum ErrorCode {
    /// See the message.
    Undefined = 0,
    /// File not found.
    NotFound = 1,
    /// Access violation.
    AccessViolation = 2,
    /// Illegal TFTP operation.
    IllegalOperation = 4,
    /// Unknown transfer id.
    UnknownTransfer = 5,
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }
}

/// What a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Read request.
    Read(Request<'a>),
    /// Write request; nothing of it matters, it is always refused.
    Write,
    /// DATA, which no client of a read-only server has a reason to send.
    Data,
    /// Acknowledgement of the block with this number.
    Ack(u16),
    /// The client ends the transfer.
    Error {
        /// RFC 1350 §5, or anything else a client makes up.
        code: u16,
        /// Bytes before the terminating NUL, or all there are.
        message: &'a [u8],
    },
    /// OACK, which only servers send.
    Oack,
}

/// A read request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// The name asked for; not empty of surprises: any bytes but NUL.
    pub path: &'a [u8],
    /// Transfer mode.
    pub mode: Mode,
    /// The options that are understood and well formed, in the order asked.
    pub options: Options,
}

/// Transfer modes (RFC 1350 §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Bytes as they are.
    Octet,
    /// Text; every server in use sends the bytes as they are, and clients expect it.
    Netascii,
    /// `mail` or nonsense.
    Unknown,
}

/// One option of a request, or of the answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferOption {
    /// Bytes per block (RFC 2348), at least [`MIN_BLKSIZE`].
    BlockSize(u16),
    /// The client wants to know the file's size (RFC 2349).
    TransferSize,
    /// Blocks sent before an acknowledgement is awaited (RFC 7440), at least 1.
    WindowSize(u16),
    /// Seconds before a retransmission (RFC 2349), at least 1.
    Timeout(u8),
}

/// The options of a request in the order asked, each kind at most once (RFC 2347).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options([Option<TransferOption>; 4]);

impl Options {
    /// The options, in order.
    pub fn iter(&self) -> impl Iterator<Item = TransferOption> + '_ {
        self.0.iter().flatten().copied()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }

    /// Appends `option` unless its kind is there already: the first of a kind counts.
    pub fn push(&mut self, option: TransferOption) {
        let kind = std::mem::discriminant(&option);
        if self.iter().any(|present| std::mem::discriminant(&present) == kind) {
            return;
        }
        if let Some(free) = self.0.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(option);
        }
    }
}

/// Why bytes are no TFTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Fewer bytes than an opcode or the fields it demands.
    #[error("packet is cut short")]
    Short,
    /// An opcode that no RFC defines.
    #[error("opcode {0} does not exist")]
    Opcode(u16),
    /// A request without a terminated name and mode.
    #[error("request has no terminated file name and mode")]
    Request,
}

/// Reads one datagram.
///
/// # Errors
/// [`ParseError`] when the bytes are no TFTP packet. Malformed options are no error: RFC 2347 has them left out of the answer.
pub fn parse(datagram: &[u8]) -> Result<Packet<'_>, ParseError> {
    let (opcode, rest) = take_u16(datagram)?;
    match opcode {
        RRQ => Ok(Packet::Read(parse_request(rest)?)),
        WRQ => Ok(Packet::Write),
        DATA => Ok(Packet::Data),
        ACK => Ok(Packet::Ack(take_u16(rest)?.0)),
        ERROR => {
            let (code, text) = take_u16(rest)?;
            Ok(Packet::Error { code, message: take_string(text).map_or(text, |(message, _)| message) })
        }
        OACK => Ok(Packet::Oack),
        other => Err(ParseError::Opcode(other)),
    }
}

fn take_u16(bytes: &[u8]) -> Result<(u16, &[u8]), ParseError> {
    let (number, rest) = bytes.split_first_chunk::<2>().ok_or(ParseError::Short)?;
    Ok((u16::from_be_bytes(*number), rest))
}

/// The bytes before the next NUL, and those after it.
fn take_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&b| b == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn parse_request(bytes: &[u8]) -> Result<Request<'_>, ParseError> {
    let (path, rest) = take_string(bytes).ok_or(ParseError::Request)?;
    let (mode, mut rest) = take_string(rest).ok_or(ParseError::Request)?;
    let mode = if mode.eq_ignore_ascii_case(b"octet") {
        Mode::Octet
    } else if mode.eq_ignore_ascii_case(b"netascii") {
        Mode::Netascii
    } else {
        Mode::Unknown
    };
    let mut options = Options::default();
    // Bytes after the last complete pair are ignored: some clients pad.
    while let Some((name, after_name)) = take_string(rest)
        && let Some((value, after_value)) = take_string(after_name)
    {
        if let Some(option) = parse_option(name, value) {
            options.push(option);
        }
        rest = after_value;
    }
    Ok(Request { path, mode, options })
}

/// An option that is known and has a value its RFC allows. Too large a number is kept, for the server may answer with a smaller one.
fn parse_option(name: &[u8], value: &[u8]) -> Option<TransferOption> {
    let number = parse_number(value)?;
    if name.eq_ignore_ascii_case(b"blksize") {
        (number >= MIN_BLKSIZE).then_some(TransferOption::BlockSize(number))
    } else if name.eq_ignore_ascii_case(b"tsize") {
        Some(TransferOption::TransferSize)
    } else if name.eq_ignore_ascii_case(b"windowsize") {
        (number >= 1).then_some(TransferOption::WindowSize(number))
    } else if name.eq_ignore_ascii_case(b"timeout") {
        // RFC 2349: the answer must repeat the value, so one that is out of range cannot be agreed on.
        u8::try_from(number).ok().filter(|&seconds| seconds >= 1).map(TransferOption::Timeout)
    } else {
        None
    }
}

/// A decimal number; saturates, since all that follows is a clamp.
fn parse_number(text: &[u8]) -> Option<u16> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u16, |number, digit| {
        digit.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(u16::from(digit - b'0')))
    })
}

/// The four bytes before a block's payload.
#[must_use]
pub const fn data_header(block: u16) -> [u8; DATA_HEADER] {
    let [high, low] = block.to_be_bytes();
    [0, 3, high, low]
}

/// Writes an OACK for `options` to `out`; `size` answers `tsize`.
pub fn encode_oack(options: &Options, size: u64, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&OACK.to_be_bytes());
    for option in options.iter() {
        let (name, value) = match option {
            TransferOption::BlockSize(bytes) => ("blksize", u64::from(bytes)),
            TransferOption::TransferSize => ("tsize", size),
            TransferOption::WindowSize(blocks) => ("windowsize", u64::from(blocks)),
            TransferOption::Timeout(seconds) => ("timeout", u64::from(seconds)),
        };
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        push_decimal(value, out);
        out.push(0);
    }
}

fn push_decimal(mut number: u64, out: &mut Vec<u8>) {
    let at = out.len();
    loop {
        out.push(b'0' + u8::try_from(number % 10).unwrap_or(0));
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out[at..].reverse();
}

/// Writes an ERROR packet to `out`. `message` must not show a path of ours.
pub fn encode_error(code: ErrorCode, message: &str, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&ERROR.to_be_bytes());
    out.extend_from_slice(&code.number().to_be_bytes());
    out.extend_from_slice(message.as_bytes());
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(bytes: &[u8]) -> Request<'_> {
        match parse(bytes) {
            Ok(Packet::Read(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    fn options(bytes: &[u8]) -> Vec<TransferOption> {
        request(bytes).options.iter().collect()
    }

    #[test]
    fn a_pi_4_request_is_read_in_the_order_asked() {
        // rpi-eeprom issue 74 (tcpdump): `RRQ "38c128c0/start4.elf" octet tsize 0 blksize 1024`.
        let packet = b"\x00\x0138c128c0/start4.elf\0octet\0tsize\x000\0blksize\x001024\0";
        let request = request(packet);
        assert_eq!((request.path, request.mode), (&b"38c128c0/start4.elf"[..], Mode::Octet));
        let order: Vec<_> = request.options.iter().collect();
        assert_eq!(order, [TransferOption::TransferSize, TransferOption::BlockSize(1024)]);
    }

    #[test]
    fn names_of_options_and_modes_ignore_case_and_paths_are_bytes() {
        let request = request(b"\x00\x01\xff\xfe caf\xe9\0OcTeT\0BLKSIZE\x00512\0WindowSize\x008\0");
        assert_eq!((request.path, request.mode), (&b"\xff\xfe caf\xe9"[..], Mode::Octet));
        let order: Vec<_> = request.options.iter().collect();
        assert_eq!(order, [TransferOption::BlockSize(512), TransferOption::WindowSize(8)]);
    }

    #[test]
    fn options_out_of_range_or_malformed_are_left_out() {
        for value in ["7", "abc", "", "-8", "+9", " 512", "51 2"] {
            let packet = [b"\x00\x01f\0octet\0blksize\0", value.as_bytes(), b"\0timeout\x001\0"].concat();
            assert_eq!(options(&packet), [TransferOption::Timeout(1)], "blksize {value:?}");
        }
        assert_eq!(
            options(b"\x00\x01f\0octet\0windowsize\x000\0timeout\x00256\0timeout\x000\0multicast\0\0"),
            [],
            "out of range or unknown"
        );
        assert_eq!(
            options(b"\x00\x01f\0octet\0blksize\x0070000\0windowsize\x0099999999999999999999\0"),
            [TransferOption::BlockSize(u16::MAX), TransferOption::WindowSize(u16::MAX)],
            "too large is clamped later"
        );
    }

    #[test]
    fn the_first_of_a_repeated_option_counts_and_padding_is_ignored() {
        let packet = b"\x00\x01f\0octet\0blksize\x001024\0blksize\x008\0tsize";
        assert_eq!(options(packet), [TransferOption::BlockSize(1024)]);
    }

    #[test]
    fn malformed_packets_are_told_apart() {
        for (bytes, error) in [
            (&b""[..], ParseError::Short),
            (b"\x00", ParseError::Short),
            (b"\x00\x00", ParseError::Opcode(0)),
            (b"\x01\x01f\0octet\0", ParseError::Opcode(257)),
            (b"\x00\x07", ParseError::Opcode(7)),
            (b"\x00\x01", ParseError::Request),
            (b"\x00\x01name", ParseError::Request),
            (b"\x00\x01name\0", ParseError::Request),
            (b"\x00\x01name\0octet", ParseError::Request),
            (b"\x00\x04\x00", ParseError::Short),
            (b"\x00\x05\x00", ParseError::Short),
        ] {
            assert_eq!(parse(bytes), Err(error), "{bytes:?}");
        }
        assert_eq!(request(b"\x00\x01f\0mail\0").mode, Mode::Unknown);
        assert_eq!(request(b"\x00\x01\0octet\0").path, b"");
    }

    #[test]
    fn acks_and_errors() {
        assert_eq!(parse(b"\x00\x04\xff\xff"), Ok(Packet::Ack(65535)));
        assert_eq!(parse(b"\x00\x04\x00\x01trailing"), Ok(Packet::Ack(1)));
        let early = Packet::Error { code: 0, message: b"Early terminate" };
        assert_eq!(parse(b"\x00\x05\x00\x00Early terminate\0"), Ok(early.clone()));
        assert_eq!(parse(b"\x00\x05\x00\x00Early terminate"), Ok(early), "some clients forget the NUL");
        assert_eq!(parse(b"\x00\x02whatever"), Ok(Packet::Write));
        assert_eq!(parse(b"\x00\x03\x00\x01x"), Ok(Packet::Data));
        assert_eq!(parse(b"\x00\x06"), Ok(Packet::Oack));
    }

    #[test]
    fn answers_are_laid_out_as_the_rfcs_say() {
        let mut out = vec![1, 2, 3];
        let asked = request(b"\x00\x01f\0octet\0tsize\x000\0blksize\x001468\0timeout\x005\0windowsize\x008\0").options;
        encode_oack(&asked, 10_000_000_000, &mut out);
        assert_eq!(out, b"\x00\x06tsize\x0010000000000\0blksize\x001468\0timeout\x005\0windowsize\x008\0");
        encode_oack(&request(b"\x00\x01f\0octet\0tsize\x000\0").options, 0, &mut out);
        assert_eq!(out, b"\x00\x06tsize\x000\0");
        encode_error(ErrorCode::NotFound, "not found", &mut out);
        assert_eq!(out, b"\x00\x05\x00\x01not found\0");
        assert_eq!(data_header(0x1234), [0, 3, 0x12, 0x34]);
    }

    #[test]
    fn no_mutation_of_a_request_makes_the_parser_panic() {
        let seed = b"\x00\x0138c128c0/start4.elf\0octet\0tsize\x000\0blksize\x001024\0windowsize\x008\0".to_vec();
        let mut state = 0x9e37_79b9_u32;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        for _ in 0..20_000 {
            let mut packet = seed.clone();
            for _ in 0..random() % 6 {
                let at = random() as usize % packet.len();
                packet[at] = (random() & 0xff) as u8;
            }
            packet.truncate(random() as usize % (packet.len() + 1));
            if let Ok(Packet::Read(request)) = parse(&packet) {
                assert!(!request.path.contains(&0));
                for option in request.options.iter() {
                    assert!(!matches!(option, TransferOption::BlockSize(n) if n < MIN_BLKSIZE));
                    assert!(!matches!(option, TransferOption::WindowSize(0) | TransferOption::Timeout(0)));
                }
            }
        }
    }
}
