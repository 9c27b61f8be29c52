//! A web server that breaks off, or stops in the middle, when it is told to.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// What is served under a path.
#[derive(Clone, Default)]
struct File {
    bytes: Arc<Vec<u8>>,
    /// The next answer ends after so many bytes.
    break_after: Option<usize>,
    /// Answers stop after so many bytes, until the other side goes.
    hold_after: Option<usize>,
}

#[derive(Default)]
struct State {
    files: HashMap<String, File>,
    requests: Vec<String>,
    /// Answers that are held, and those whose other side went meanwhile.
    held: usize,
    left: usize,
}

/// It answers until the process ends.
pub struct Web {
    pub address: SocketAddr,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Web {
    /// Serves on a listener, which may be of another network namespace.
    pub fn start(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let shared: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let server = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = server.clone();
                std::thread::spawn(move || answer(&stream, &shared));
            }
        });
        Self { address, shared }
    }

    /// Serves bytes; the address of them.
    pub fn serve(&self, path: &str, bytes: Vec<u8>) -> String {
        self.change(path, |file| *file = File { bytes: Arc::new(bytes), ..File::default() });
        format!("http://{}{path}", self.address)
    }

    /// The next answer with a body breaks off.
    pub fn break_after(&self, path: &str, bytes: usize) {
        self.change(path, |file| file.break_after = Some(bytes));
    }

    /// Answers stop there.
    pub fn hold_after(&self, path: &str, bytes: Option<usize>) {
        self.change(path, |file| file.hold_after = bytes);
    }

    /// Waits until an answer is being held.
    pub fn wait_held(&self) {
        self.wait("an answer that is held", |state| state.held > 0);
    }

    /// Waits until whoever was being held went.
    pub fn wait_left(&self) {
        self.wait("the end of a connection", |state| state.left > 0);
    }

    /// The requests so far: method, path, and the range if one was asked for.
    pub fn requests(&self) -> Vec<String> {
        self.shared.0.lock().unwrap().requests.clone()
    }

    fn change(&self, path: &str, change: impl FnOnce(&mut File)) {
        change(self.shared.0.lock().unwrap().files.entry(path.to_owned()).or_default());
    }

    fn wait(&self, what: &str, until: impl Fn(&State) -> bool) {
        let state = self.shared.0.lock().unwrap();
        let (_state, timeout) =
            self.shared.1.wait_timeout_while(state, super::PATIENCE, |state| !until(state)).unwrap();
        assert!(!timeout.timed_out(), "{what} did not come about");
    }
}

fn answer(mut stream: &TcpStream, shared: &(Mutex<State>, Condvar)) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let Some(first) = lines.next() else { return };
    let mut words = first.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return };
    let range: Option<usize> =
        lines.find_map(|line| line.to_lowercase().strip_prefix("range: bytes=")?.trim_end_matches('-').parse().ok());
    let file = {
        let mut state = shared.0.lock().unwrap();
        state.requests.push(format!("{method} {path}{}", range.map(|from| format!(" {from}-")).unwrap_or_default()));
        let file = state.files.get_mut(&path);
        let now = file.as_deref().cloned();
        if let Some(file) = file.filter(|_| method == "GET") {
            file.break_after = None;
        }
        now
    };
    let Some(file) = file else {
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let all = file.bytes.len();
    let rest = &file.bytes[range.unwrap_or(0).min(all)..];
    let status = match range {
        Some(from) => format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{all}", all - 1),
        None => "200 OK".to_owned(),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len());
    let length =
        if method == "GET" { file.break_after.or(file.hold_after).unwrap_or(rest.len()).min(rest.len()) } else { 0 };
    if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&rest[..length])).is_ok()
        && method == "GET"
        && file.hold_after.is_some()
    {
        let tell = |change: fn(&mut State)| {
            change(&mut shared.0.lock().unwrap());
            shared.1.notify_all();
        };
        tell(|state| state.held += 1);
        let _ = stream.read(&mut [0]);
        tell(|state| state.left += 1);
    }
}
