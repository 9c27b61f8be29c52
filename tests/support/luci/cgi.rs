//! How uhttpd runs a program (its proc.c and cgi.c): variables, the body on standard input, at its pace, and its answer.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use super::http::{self, Answer, Head};
use crate::openwrt::{Entrance, OpenWrt};

/// The program of the package, below the web server's root.
pub const UPLOAD: &str = "/cgi-bin/piboot-upload";
/// Longest body that uhttpd takes (client.c).
const MAX_LENGTH: u64 = i32::MAX as u64;
/// Bytes that it carries at once.
const BLOCK: usize = 4096;
/// The headers that become variables, `HTTP_` and their name; and two that do not get that.
const HEADERS: [&str; 12] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "authorization",
    "connection",
    "cookie",
    "host",
    "origin",
    "referer",
    "user-agent",
    "x-http-method-override",
];
const PLAIN_HEADERS: [&str; 2] = ["content-type", "content-length"];

/// The web server's root on a router, as far as it has programs.
pub struct Cgi {
    router: Entrance,
    root: String,
}

impl Cgi {
    /// Installs the link that the package has. Where it leads on a router is where it leads from here.
    pub fn install(router: &OpenWrt) -> Self {
        let scratch = router.net.scratch();
        let (www, sbin) = (scratch.join("www/cgi-bin"), scratch.join("usr/sbin"));
        std::fs::create_dir_all(&www).unwrap();
        std::fs::create_dir_all(&sbin).unwrap();
        let link = std::fs::read_link(Path::new(super::APP).join("htdocs/cgi-bin/piboot-upload")).unwrap();
        std::os::unix::fs::symlink(link, www.join("piboot-upload")).unwrap();
        std::os::unix::fs::symlink("/usr/sbin/piboot", sbin.join("piboot")).unwrap();
        Self { router: router.inside(), root: scratch.join("www").to_str().unwrap().to_owned() }
    }

    /// Answers a request by the program. With `fail` half of the body gets there, and no answer comes back.
    pub fn run(&self, head: &Head, body: &mut BufReader<&TcpStream>, mut stream: &TcpStream, fail: bool) {
        let Some(length) = head.length().filter(|length| *length <= MAX_LENGTH) else {
            return http::write(stream, &Answer { status: "400 Bad Request", kind: "text/html", body: Vec::new() });
        };
        // uhttpd before 2022-10-31 may do this, by the time at which the last bytes come.
        if length > 0 && length % BLOCK as u64 == 0 {
            return http::write(
                stream,
                &Answer { status: "413 Request Entity Too Large", kind: "text/html", body: Vec::new() },
            );
        }
        let script = format!("{}{UPLOAD}", self.root);
        let mut variables = vec![
            ("PATH".to_owned(), "/sbin:/usr/sbin:/bin:/usr/bin".to_owned()),
            ("GATEWAY_INTERFACE".to_owned(), "CGI/1.1".to_owned()),
            ("SERVER_SOFTWARE".to_owned(), "uhttpd".to_owned()),
            ("SCRIPT_NAME".to_owned(), UPLOAD.to_owned()),
            ("SCRIPT_FILENAME".to_owned(), script.clone()),
            ("DOCUMENT_ROOT".to_owned(), self.root.clone()),
            ("QUERY_STRING".to_owned(), head.query.clone()),
            ("REQUEST_URI".to_owned(), head.target.clone()),
            ("SERVER_PROTOCOL".to_owned(), "HTTP/1.1".to_owned()),
            ("REQUEST_METHOD".to_owned(), head.method.clone()),
            ("REDIRECT_STATUS".to_owned(), "200".to_owned()),
        ];
        let variable = |name: &str| name.to_uppercase().replace('-', "_");
        for (name, value) in &head.headers {
            if HEADERS.contains(&name.as_str()) {
                variables.push((format!("HTTP_{}", variable(name)), value.clone()));
            } else if PLAIN_HEADERS.contains(&name.as_str()) {
                variables.push((variable(name), value.clone()));
            }
        }
        let mut command = self.router.command("env");
        command.arg("-i").args(variables.iter().map(|(name, value)| format!("{name}={value}"))).arg(&script);
        let mut program = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = program.stdin.take();
        let mut left = if fail { length / 2 } else { length };
        let mut block = [0; BLOCK];
        while left > 0 {
            let most = block.len().min(usize::try_from(left).unwrap());
            let read = body.read(&mut block[..most]).unwrap_or(0);
            if read == 0 {
                break;
            }
            left -= read as u64;
            // A program that reads no more is sent the rest all the same.
            if input.as_mut().is_some_and(|input| input.write_all(&block[..read]).is_err()) {
                input = None;
            }
        }
        if fail || left > 0 {
            // The client went: uhttpd kills the program.
            program.kill().unwrap();
            program.wait().unwrap();
            return;
        }
        drop(input);
        let output = program.wait_with_output().unwrap().stdout;
        let text = String::from_utf8_lossy(&output).into_owned();
        let Some((fields, answer)) = text.split_once("\r\n\r\n") else {
            return http::write(stream, &Answer { status: "502 Bad Gateway", kind: "text/html", body: Vec::new() });
        };
        let mut status = "200 OK".to_owned();
        let mut rest = String::new();
        for field in fields.split("\r\n") {
            match field.strip_prefix("Status: ") {
                Some(said) => status = said.to_owned(),
                None => rest.push_str(&format!("{field}\r\n")),
            }
        }
        let head = format!("HTTP/1.1 {status}\r\n{rest}Content-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(answer.as_bytes()));
    }
}
