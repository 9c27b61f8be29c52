//! As much of HTTP as a browser on the same machine needs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// Longest body that uhttpd takes for ubus.
const MAX_BODY: usize = 65536;

#[derive(Debug)]
pub struct Request {
    pub path: String,
    pub query: String,
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

/// Reads one request; `None` if the browser thought better of it.
pub fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let target = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok().filter(|length| *length <= MAX_BODY)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Some(Request { path: path.to_owned(), query: query.to_owned(), body })
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
