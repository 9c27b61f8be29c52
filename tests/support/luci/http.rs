//! As much of HTTP as a browser on the same machine needs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// Longest body that uhttpd takes for ubus.
const MAX_BODY: usize = 65536;

/// What comes before a body.
#[derive(Debug, Clone, Default)]
pub struct Head {
    pub method: String,
    pub target: String,
    pub path: String,
    pub query: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn length(&self) -> Option<u64> {
        self.header("content-length").map_or(Some(0), |text| text.parse().ok())
    }
}

#[derive(Debug)]
pub struct Request {
    pub path: String,
    pub query: String,
    /// The page that asks.
    pub referer: String,
    pub body: Vec<u8>,
}

pub struct Answer {
    pub status: &'static str,
    pub kind: &'static str,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn ok(kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status: "200 OK", kind, body: body.into() }
    }

    pub fn not_found() -> Self {
        Self { status: "404 Not Found", kind: "text/plain", body: b"not here".to_vec() }
    }
}

/// Reads up to the body of a request; `None` if the browser thought better of it.
pub fn read_head(reader: &mut BufReader<&TcpStream>) -> Option<Head> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    Some(Head { method, target, path, query, headers })
}

/// Reads the body of a request that is not for a program.
pub fn read_body(head: Head, reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let length = head.length().and_then(|length| usize::try_from(length).ok()).filter(|length| *length <= MAX_BODY)?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let referer = head.header("referer").unwrap_or_default().to_owned();
    Some(Request { path: head.path, query: head.query, referer, body })
}

/// Writes the answer and ends the connection.
pub fn write(mut stream: &TcpStream, answer: &Answer) {
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.kind,
        answer.body.len()
    );
    // A browser that has gone elsewhere does not want it any more.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&answer.body));
}
