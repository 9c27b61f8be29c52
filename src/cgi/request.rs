//! What is asked of the CGI, by the variables that uhttpd sets (proc.c).

use super::MAX_PIECE;
use crate::ubus::UbusError;

/// Why a request is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("this takes POST requests only")]
    Method,
    #[error("no session, or one that may not import images: log in again")]
    Denied,
    #[error("{0}")]
    Request(String),
    #[error("a piece may have {MAX_PIECE} bytes at most")]
    Large,
    #[error("the connection broke in the middle of a piece: send it again")]
    Broken,
    #[error("nobody can be asked for the rights of the session ({0}): is rpcd running?")]
    NoRpcd(UbusError),
    #[error("the agent is not running: start it, and begin again")]
    NoAgent,
    #[error("the import did not take the piece in time: send it again")]
    Busy,
    #[error("{1}")]
    Agent(String, String),
}

impl Refused {
    /// The HTTP status, as a CGI says it.
    pub(super) const fn status(&self) -> &'static str {
        match self {
            Self::Method => "405 Method Not Allowed",
            Self::Denied => "403 Forbidden",
            Self::Request(_) | Self::Broken => "400 Bad Request",
            Self::Large => "413 Payload Too Large",
            Self::NoRpcd(_) | Self::NoAgent | Self::Busy => "503 Service Unavailable",
            Self::Agent(..) => "409 Conflict",
        }
    }

    /// Stable word for programs.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Method | Self::Request(_) | Self::Large => "invalid_argument",
            Self::Denied => "denied",
            Self::Broken | Self::Busy => "again",
            Self::NoRpcd(_) | Self::NoAgent => "absent",
            Self::Agent(code, _) => code,
        }
    }
}

/// A request whose sender is not known yet.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) session: String,
    /// What is to be done, for whoever may have it done.
    pub(super) work: Result<Work, Refused>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    Begin { name: String, file: String, size: u64 },
    Piece { job: u32, offset: u64, length: usize },
}

impl Request {
    /// Reads the variables. The session has to be in the header `Authorization: Bearer …`: a browser sends that only where
    /// a page of the same origin says so, and it is in nobody's log.
    pub(super) fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, Refused> {
        if variable("REQUEST_METHOD").as_deref() != Some("POST") {
            return Err(Refused::Method);
        }
        let header = variable("HTTP_AUTHORIZATION").ok_or(Refused::Denied)?;
        let session = header.strip_prefix("Bearer ").map(str::trim).unwrap_or_default();
        // rpcd's sessions are 32 hexadecimal digits; the one of zeros is what everybody has.
        let is_session = session.len() == 32 && session.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_session || session.bytes().all(|b| b == b'0') {
            return Err(Refused::Denied);
        }
        let query = variable("QUERY_STRING").unwrap_or_default();
        let length = variable("CONTENT_LENGTH").unwrap_or_default();
        Ok(Self { session: session.to_owned(), work: Work::read(&query, &length) })
    }
}

impl Work {
    fn read(query: &str, content_length: &str) -> Result<Self, Refused> {
        let wrong = |what: &str| Refused::Request(format!("{what}: missing, or not what it has to be"));
        let number =
            |name: &str| parameter(query, name).and_then(|text| text.parse::<u64>().ok()).ok_or_else(|| wrong(name));
        let length: usize = match content_length {
            "" => 0,
            text => text.parse().map_err(|_| wrong("Content-Length"))?,
        };
        if length > MAX_PIECE {
            return Err(Refused::Large);
        }
        if parameter(query, "job").is_some() {
            let job = u32::try_from(number("job")?).map_err(|_| wrong("job"))?;
            return Ok(Self::Piece { job, offset: number("offset")?, length });
        }
        let name = parameter(query, "name").ok_or_else(|| wrong("name"))?;
        let file = parameter(query, "file").unwrap_or_default();
        // It is shown, and names no file here.
        let file =
            file.rsplit(['/', '\\']).next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect();
        Ok(Self::Begin { name, file, size: number("size")? })
    }
}

/// A parameter of a query, decoded; nothing if it is not there or no text.
fn parameter(query: &str, name: &str) -> Option<String> {
    let (_, value) = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(known, _)| *known == name)?;
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high << 4 | low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "0123456789abcdef0123456789ABCDEF";

    fn read(variables: &[(&str, &str)]) -> Result<Request, Refused> {
        let variable =
            |name: &str| variables.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Request::read(&variable)
    }

    #[test]
    fn who_shows_no_session_is_denied_before_anything_is_read() {
        let bearer = format!("Bearer {SESSION}");
        let status = |header: Option<&str>| {
            let mut variables = vec![("REQUEST_METHOD", "POST"), ("QUERY_STRING", "job=x"), ("HTTP_COOKIE", &bearer)];
            variables.extend(header.map(|header| ("HTTP_AUTHORIZATION", header)));
            read(&variables).map_or_else(|refused| refused.status(), |_| "read")
        };
        assert_eq!(status(Some(&bearer)), "read");
        let zeros = format!("Bearer {}", "0".repeat(32));
        let long = format!("{bearer}0");
        for header in
            [None, Some(""), Some("Bearer "), Some(SESSION), Some("Basic cm9vdDo="), Some(&zeros), Some(&long)]
        {
            assert_eq!(status(header), "403 Forbidden", "{header:?}");
        }
        assert_eq!(read(&[("REQUEST_METHOD", "GET")]).unwrap_err().status(), "405 Method Not Allowed");
    }

    #[test]
    fn queries_are_read_or_refused() {
        let begin = |name: &str, file: &str, size| Work::Begin { name: name.into(), file: file.into(), size };
        let good = [
            ("name=lite&file=a%20b%2Bc.img.xz&size=12345678901", "", begin("lite", "a b+c.img.xz", 12_345_678_901)),
            ("size=1&name=%C3%BC+x", "0", begin("ü x", "", 1)),
            ("name=x&size=1&file=..%2F..%5Cy%0A.img", "", begin("x", "y.img", 1)),
            ("job=7&offset=4294967296&name=x", "4194304", Work::Piece { job: 7, offset: 1 << 32, length: MAX_PIECE }),
            ("job=7&offset=0", "", Work::Piece { job: 7, offset: 0, length: 0 }),
        ];
        for (query, length, work) in good {
            assert_eq!(Work::read(query, length).unwrap(), work, "{query}");
        }
        let bad = [
            ("", ""),
            ("name=x", ""),
            ("name=x&size=-1", ""),
            ("name=%zz&size=1", ""),
            ("name=%f&size=1", ""),
            ("name=%ff&size=1", ""),
            ("job=4294967296&offset=0", ""),
            ("job=1&offset=18446744073709551616", ""),
            ("job=1", "5"),
            ("job=1&offset=0", "x"),
            ("job=1&offset=0", "-5"),
        ];
        for (query, length) in bad {
            assert_eq!(Work::read(query, length).unwrap_err().status(), "400 Bad Request", "{query} {length}");
        }
        assert_eq!(Work::read("job=1&offset=0", "4194305").unwrap_err().status(), "413 Payload Too Large");
    }
}
