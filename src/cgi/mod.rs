//! `/cgi-bin/piboot-upload`: takes an image from a browser, in pieces, and hands it to the agent. The program is this one by
//! another name, started by uhttpd for each request.
//!
//! Why in pieces: uhttpd ends a CGI after a minute (`script_timeout`) and takes no body of 2 GiB or more (client.c). It also
//! waits for the CGI while that does not read its input, and serves nobody in the meantime (proc.c writes to a pipe that
//! blocks); so a piece is read at once, into memory, and only then handed on at the pace of the import.

mod request;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::DEFAULT_SOCKET;
use crate::ubus::{self, UbusError};
use request::{Refused, Request, Work};

/// The name by which the program is this.
pub const NAME: &str = "piboot-upload";
/// Longest piece. It is held in memory.
pub const MAX_PIECE: usize = 4 << 20;
/// The agent may take so long for a piece; uhttpd gives up after 60 s.
const AGENT: Duration = Duration::from_secs(45);
/// rpcd may take so long to say who may do what.
const RPCD: Duration = Duration::from_secs(10);

/// Answers one request: the environment says which, standard input has its body.
///
/// # Errors
/// When there is nobody to answer to.
pub fn run() -> io::Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    let socket = PathBuf::from(DEFAULT_SOCKET);
    let (status, answer) = match serve(&variable, io::stdin().lock(), Path::new(ubus::SOCKET), &socket) {
        Ok(answer) => ("200 OK", answer),
        Err(refused) => {
            (refused.status(), json!({ "error": { "code": refused.code(), "message": refused.to_string() } }))
        }
    };
    let mut out = io::stdout().lock();
    write!(out, "Status: {status}\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n\r\n{answer}\n")?;
    out.flush()
}

fn serve(
    variable: &dyn Fn(&str) -> Option<String>,
    mut body: impl Read,
    bus: &Path,
    agent: &Path,
) -> Result<Value, Refused> {
    let request = Request::read(variable)?;
    // Before anything else of the request is looked at.
    if !may(bus, &request.session)? {
        return Err(Refused::Denied);
    }
    let work = request.work?;
    let (method, params, piece) = match work {
        Work::Begin { name, file, size } => {
            let params = json!({ "name": name, "file": file, "size": size, "pieces": true });
            ("image_upload", params, Vec::new())
        }
        Work::Piece { job, offset, length } => {
            // What follows the announced length is not ours.
            let mut piece = Vec::with_capacity(length);
            body.by_ref().take(length as u64).read_to_end(&mut piece).map_err(|_| Refused::Broken)?;
            if piece.len() < length {
                return Err(Refused::Broken);
            }
            ("image_upload_piece", json!({ "job": job, "offset": offset, "length": length }), piece)
        }
    };
    ask_agent(agent, method, &params, &piece)
}

/// Whether a session may import images. Its number is all there is of it: no session, no rights.
fn may(bus: &Path, session: &str) -> Result<bool, Refused> {
    let question = json!({
        "ubus_rpc_session": session, "scope": "ubus", "object": "piboot", "function": "image_import",
    });
    match ubus::ask(bus, "session", "access", &question, RPCD) {
        Ok(answer) => Ok(answer["access"] == true),
        // A session that rpcd does not know, or knows no more.
        Err(UbusError::Status(_)) => Ok(false),
        Err(error) => Err(Refused::NoRpcd(error)),
    }
}

fn ask_agent(socket: &Path, method: &str, params: &Value, body: &[u8]) -> Result<Value, Refused> {
    let mut stream = UnixStream::connect(socket).map_err(|_| Refused::NoAgent)?;
    let limit = Some(AGENT);
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Refused::Busy,
        _ => Refused::NoAgent,
    };
    stream.set_read_timeout(limit).and_then(|()| stream.set_write_timeout(limit)).map_err(gone)?;
    let line = json!({ "method": method, "params": params }).to_string() + "\n";
    // An agent that takes no more of it says why.
    let sent = stream.write_all(line.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = String::new();
    let heard = BufReader::new(&stream).read_line(&mut answer);
    let mut answer: Value = match serde_json::from_str(&answer) {
        Ok(answer) => answer,
        Err(_) => return Err(sent.and(heard).err().map_or(Refused::NoAgent, gone)),
    };
    match (answer["error"]["code"].as_str(), answer["error"]["message"].as_str()) {
        (Some(code), Some(why)) => Err(Refused::Agent(code.to_owned(), why.to_owned())),
        _ => Ok(answer["result"].take()),
    }
}
