//! Downloads from a server that breaks off, by the programs that are installed here.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

/// What the server does with one request.
#[derive(Clone, Copy, Debug)]
struct Act {
    /// Of what it is to send it sends so much.
    send: usize,
    ranges: bool,
    /// Which of the contents.
    content: usize,
}

const ALL: Act = Act { send: usize::MAX, ranges: true, content: 0 };

struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

/// A server that acts like this on one GET after the other; the last is repeated.
fn serve(contents: Vec<Vec<u8>>, acts: Vec<Act>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/a.img.xz", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (noted, served) = (requests.clone(), AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (head, range) = read_head(&stream);
            let is_get = head.starts_with("GET");
            if is_get {
                noted.lock().unwrap().push(range.map_or_else(|| "all".to_owned(), |from| from.to_string()));
            }
            let n = if is_get { served.fetch_add(1, Ordering::Relaxed) } else { 0 };
            let act = acts[n.min(acts.len() - 1)];
            answer(stream, &contents[act.content], act, range.filter(|_| act.ranges), is_get);
        }
    });
    Server { address, requests }
}

fn read_head(stream: &TcpStream) -> (String, Option<usize>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let head = lines.next().unwrap_or_default();
    let range = lines.find_map(|line| {
        let range = line.to_lowercase().strip_prefix("range: bytes=")?.trim_end_matches('-').parse();
        range.ok()
    });
    (head, range)
}

fn answer(mut stream: TcpStream, content: &[u8], act: Act, from: Option<usize>, is_get: bool) {
    let rest = &content[from.unwrap_or(0).min(content.len())..];
    let status = match from {
        Some(from) => {
            let (last, all) = (content.len() - 1, content.len());
            format!("206 Partial Content\r\nContent-Range: bytes {from}-{last}/{all}")
        }
        None => "200 OK".to_owned(),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len());
    let body = if is_get { &rest[..act.send.min(rest.len())] } else { &[] };
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

fn bytes(length: usize, seed: u32) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// curl and wget, and the directories that name them.
fn tools() -> [(Tool, tempfile::TempDir); 2] {
    ["curl", "wget"].map(|name| {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(Path::new("/usr/bin").join(name), dir.path().join(name)).unwrap();
        (Tool::find_in(dir.path().as_os_str()).unwrap(), dir)
    })
}

fn download(tool: &Tool, server: &Server, size: Option<u64>) -> Result<Vec<u8>, String> {
    let url = Url::parse(&server.address).unwrap();
    let pauses = vec![Duration::from_millis(1); 3];
    let mut download = Download::new(tool.clone(), url, size, Cancel::default()).with_pauses(pauses);
    let mut all = Vec::new();
    download.read_to_end(&mut all).map(|_| all).map_err(|e| e.to_string())
}

#[test]
fn what_breaks_off_goes_on_where_it_was() {
    let content = bytes(3_000_000, 0);
    let broken = Act { send: 1_000_000, ..ALL };
    for (tool, _dir) in tools() {
        for size in [None, Some(3_000_000)] {
            let server = serve(vec![content.clone()], vec![broken, broken, ALL]);
            assert!(download(&tool, &server, size).as_ref() == Ok(&content), "{tool:?}");
            let (first, second) = (1_000_000 - OVERLAP, 2_000_000 - 2 * OVERLAP);
            let asked = ["all".to_owned(), first.to_string(), second.to_string()];
            assert_eq!(*server.requests.lock().unwrap(), asked, "{tool:?}");
        }
    }
}

#[test]
fn a_server_without_ranges_sends_all_again_and_none_of_it_comes_twice() {
    let content = bytes(3_000_000, 0);
    let broken = Act { send: 2_000_000, ranges: false, ..ALL };
    for (tool, _dir) in tools() {
        let server = serve(vec![content.clone()], vec![broken, Act { ranges: false, ..ALL }]);
        assert!(download(&tool, &server, None).as_ref() == Ok(&content), "{tool:?}");
    }
}

#[test]
fn a_file_that_was_replaced_meanwhile_is_noticed() {
    let contents = vec![bytes(3_000_000, 0), bytes(3_000_000, 1)];
    for ranges in [true, false] {
        let broken = Act { send: 2_000_000, ranges, content: 0 };
        let other = Act { send: usize::MAX, ranges, content: 1 };
        for (tool, _dir) in tools() {
            let server = serve(contents.clone(), vec![broken, other]);
            let error = download(&tool, &server, None).unwrap_err();
            assert!(error.contains("replaced"), "{tool:?} {ranges}: {error}");
        }
    }
}

#[test]
fn what_cannot_be_had_is_said_in_the_words_of_the_program() {
    for (tool, _dir) in tools() {
        let server = serve(vec![bytes(3_000_000, 0)], vec![Act { send: 100_000, ..ALL }]);
        let nobody = Server { address: "http://127.0.0.1:9/x".into(), requests: Arc::default() };
        let error = download(&tool, &nobody, None).unwrap_err();
        assert!(error.starts_with(&tool.name()) && error.len() > 20, "{error}");
        // It makes a little progress each time, and none once the overlap is all that comes.
        let dead = serve(vec![bytes(3_000_000, 0)], vec![Act { send: 100_000, ..ALL }, Act { send: 10_000, ..ALL }]);
        let error = download(&tool, &dead, None).unwrap_err();
        assert!(error.contains("cannot be taken up again"), "{error}");
        let error = download(&tool, &server, Some(50_000)).unwrap_err();
        assert!(error.contains("larger than 50000 bytes"), "{error}");
        let whole = serve(vec![bytes(200_000, 0)], vec![ALL]);
        let error = download(&tool, &whole, Some(200_001)).unwrap_err();
        assert_eq!(error, "the file has only 200000 bytes, and was to have 200001");
        assert_eq!(whole.requests.lock().unwrap().len(), 1, "asking again gives no more");
    }
}

#[test]
fn the_size_is_known_before() {
    let server = serve(vec![bytes(12_345, 0)], vec![ALL]);
    for (tool, _dir) in tools() {
        assert_eq!(tool.size(&Url::parse(&server.address).unwrap(), &Cancel::default()), Some(12_345), "{tool:?}");
    }
}

#[test]
fn a_size_that_drips_in_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (script, pid) = (dir.path().join("curl"), dir.path().join("pid"));
    let text = format!("#!/bin/sh\necho $$ >{}\nwhile :; do echo x; sleep 0.01; done\n", pid.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (tool, url) = (Tool::like_curl(&script), Url::parse("http://host/x").unwrap());
    assert_eq!(tool.size_within(&url, &Cancel::default(), Duration::from_millis(500)), None);
    let program = std::fs::read_to_string(&pid).unwrap();
    assert!(!Path::new(&format!("/proc/{}", program.trim())).exists());
    let cancel = Cancel::default();
    cancel.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(tool.size_within(&url, &cancel, Duration::from_secs(3600)), None);
}

#[test]
fn cancelling_ends_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let (script, pid) = (dir.path().join("curl"), dir.path().join("pid"));
    std::fs::write(&script, format!("#!/bin/sh\necho $$ >{}\necho begun\nexec sleep 1000\n", pid.display())).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let cancel = Cancel::default();
    let url = Url::parse("http://host/x").unwrap();
    let mut download = Download::new(Tool::like_curl(&script), url, None, cancel.clone());
    assert_eq!(download.read(&mut [0; 100]).unwrap(), 6);
    let program = std::fs::read_to_string(pid).unwrap();
    cancel.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(download.read(&mut [0; 100]).unwrap_err().to_string(), "cancelled");
    drop(download);
    assert!(!Path::new(&format!("/proc/{}", program.trim())).exists());
}
