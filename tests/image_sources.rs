//! Images that are sent to the agent, or that it fetches: what comes is what the file holds, and what does not come whole
//! leaves nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use emupi::{Model, Pi};
use serde_json::{Value, json};
use support::web::Web;
use support::{PATIENCE, PIBOOT, Router, image};

fn packed(file: &Path) -> PathBuf {
    let status = Command::new("xz").args(["-0", "--keep"]).arg(file).status().unwrap();
    assert!(status.success());
    file.with_extension("img.xz")
}

fn web(router: &Router) -> Web {
    let address = (router.net.address(), 0);
    Web::start(router.net.enter(|| TcpListener::bind(address).unwrap()).unwrap())
}

/// The images are one image under several names.
fn assert_same(router: &Router, names: &[&str]) {
    let images = router.json(&["images"]);
    let told = |name: &str| {
        let image = images["images"].as_array().unwrap().iter().find(|image| image["name"] == name);
        let image = image.unwrap_or_else(|| panic!("no {name} in {images:#}\n{}", router.logs()));
        ["sha256", "source_bytes", "disk_bytes", "root_entries", "root_bytes", "boot_entries", "boot_bytes"]
            .map(|member| image[member].clone())
    };
    for name in names {
        assert_eq!(told(name), told(names[0]), "{name}");
    }
}

fn assert_nothing_left(router: &Router) {
    router.wait_until("the end of the job", || router.json(&["status"])["jobs"] == 0);
    assert_eq!((router.names("images"), router.names("scratch")), (vec![], vec![]));
}

/// Sends a request; the connection, and its answer.
fn request(router: &Router, method: &str, params: &Value) -> (UnixStream, Value) {
    let mut stream = ask(router, method, params, b"");
    let answer = answer(&mut stream);
    (stream, answer)
}

fn ask(router: &Router, method: &str, params: &Value, bytes: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(router.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let line = json!({ "method": method, "params": params }).to_string() + "\n";
    stream.write_all(&[line.as_bytes(), bytes].concat()).unwrap();
    stream
}

fn answer(stream: &mut UnixStream) -> Value {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
}

#[test]
fn an_image_is_the_same_wherever_it_comes_from() {
    let router = Router::running();
    let plain = image::small(router.net.scratch());
    let file = packed(&plain);
    router.import(&file, "file");

    // Standard input, of which the size is known, or is not.
    let import = |name: &str| {
        let mut command = Command::new(PIBOOT);
        command.arg("--socket").arg(router.socket()).args(["image", "import", "-", "--name", name]);
        command
    };
    let status = import("redirected").stdin(File::open(&file).unwrap()).status().unwrap();
    assert!(status.success());
    let mut piped = import("piped").stdin(Stdio::piped()).spawn().unwrap();
    let mut pipe = piped.stdin.take().unwrap();
    std::io::copy(&mut File::open(&file).unwrap(), &mut pipe).unwrap();
    drop(pipe);
    assert!(piped.wait().unwrap().success());
    let status = import("unwatched").arg("--no-wait").stdin(File::open(&file).unwrap()).status().unwrap();
    assert!(status.success());

    // A web server, also one that breaks off in the middle.
    let web = web(&router);
    let bytes = std::fs::read(&file).unwrap();
    let address = web.serve("/images/small.img.xz?sign=1", bytes.clone());
    router.import(Path::new(&address), "web");
    router.import(&plain, "plain");
    let address = web.serve("/small.img", std::fs::read(&plain).unwrap());
    web.break_after("/small.img", 20_000_000);
    router.import(Path::new(&address), "broken");
    let asked = web.requests();
    assert_eq!(asked.last().unwrap(), &format!("GET /small.img {}-", 20_000_000 - 65536), "{asked:?}");

    // In pieces, of which one is sent twice.
    let begin = json!({ "name": "pieces", "size": bytes.len(), "file": "small.img.xz", "pieces": true });
    let job = request(&router, "image_upload", &begin).1["result"]["job"].clone();
    let piece = |offset: usize, length: usize| {
        let params = json!({ "job": job, "offset": offset, "length": length });
        let mut stream = ask(&router, "image_upload_piece", &params, &bytes[offset..offset + length]);
        answer(&mut stream)
    };
    let (all, step) = (bytes.len(), bytes.len() / 4);
    assert_eq!(piece(0, 2 * step), json!({ "result": { "received": 2 * step } }));
    assert_eq!(piece(step, 2 * step), json!({ "result": { "received": 3 * step } }));
    let gap = piece(all - 10, 10)["error"]["message"].clone();
    assert_eq!(gap, format!("the bytes from {} on are wanted, not those from {}", 3 * step, all - 10));
    let other = request(&router, "image_upload", &json!({ "name": "other", "size": 7, "pieces": true })).1;
    assert!(other["error"]["message"].as_str().unwrap().contains("'pieces' is being imported"), "{other}");
    assert_eq!(piece(3 * step, all - 3 * step), json!({ "result": { "received": all } }));
    router.piboot(&["job", "wait", &job.to_string()]).unwrap();
    let late = piece(0, 10)["error"]["message"].clone();
    assert!(late.as_str().unwrap().starts_with("image pieces imported"), "{late}");

    assert_same(&router, &["file", "redirected", "piped", "unwatched", "web", "pieces"]);
    assert_same(&router, &["plain", "broken"]);
    let images = router.json(&["images"]);
    let source = |name: &str| {
        let image = images["images"].as_array().unwrap().iter().find(|image| image["name"] == name).unwrap();
        image["source"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (source("piped"), source("web"), source("pieces")),
        ("standard input".into(), "small.img.xz".into(), "small.img.xz".into())
    );
}

#[test]
fn what_does_not_come_whole_leaves_nothing() {
    let router = Router::running();
    let bytes = std::fs::read(packed(&image::small(router.net.scratch()))).unwrap();
    let half = &bytes[..bytes.len() / 2];
    let failed = |job: &Value, words: &str| {
        let said = router.piboot(&["job", "wait", &job.to_string()]).unwrap_err();
        assert!(said.contains(words), "{words}: {said}");
        assert_nothing_left(&router);
    };

    // Its sender is killed, with the size known or not; or closes in order too early; or sends something else.
    for (params, in_order, words) in [
        (json!({ "name": "a", "size": bytes.len() }), false, "the upload ended after"),
        (json!({ "name": "a" }), false, "the connection broke after"),
        (
            json!({ "name": "a", "size": bytes.len(), "file": "a.img.xz" }),
            true,
            "cannot read a.img.xz: the upload ended after",
        ),
        (json!({ "name": "a" }), true, "ends too early"),
    ] {
        let (mut stream, said) = request(&router, "image_upload", &params);
        stream.write_all(half).unwrap();
        if in_order {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let kept = in_order.then_some(stream);
        failed(&said["result"]["job"], words);
        drop(kept);
    }
    let (_stream, said) = request(&router, "image_upload", &json!({ "name": "../a" }));
    assert!(said["error"]["message"].as_str().unwrap().contains("image name"), "{said}");

    // Cancelling hangs up.
    let (mut stream, said) = request(&router, "image_upload", &json!({ "name": "a" }));
    stream.write_all(half).unwrap();
    let job = &said["result"]["job"];
    router.wait_for_middle(job.as_u64().unwrap(), 1, 0);
    router.piboot(&["job", "cancel", &job.to_string()]).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    failed(job, "");
    assert_eq!(router.job(job.as_u64().unwrap())["state"], "cancelled");

    // A transport that carries no bytes has no such verb.
    let said = router.talk(b"{\"method\":\"image_upload_piece\",\"params\":{\"job\":7,\"offset\":0,\"length\":0}}\n");
    assert!(said.contains("there is no job 7"), "{said}");
}

#[test]
fn a_download_is_what_was_asked_for_or_nothing() {
    let router = Router::running();
    let bytes = std::fs::read(packed(&image::small(router.net.scratch()))).unwrap();
    let (web, path) = (web(&router), "/small.img.xz");
    let address = web.serve(path, bytes.clone());
    let wrong = "0".repeat(64);
    router.assert_refused(
        &["image", "import", &address, "--name", "a", "--sha256", &wrong],
        &["this is not the file that was asked for", &wrong],
    );
    assert_nothing_left(&router);
    router.assert_refused(&["image", "import", &address, "--name", "a", "--sha256", "xyz"], &["is no SHA-256 digest"]);
    router.assert_refused(&["image", "import", "http://a b", "--name", "a"], &["blanks and special characters"]);
    let missing = format!("http://{}/no.img", web.address);
    router.assert_refused(&["image", "import", &missing, "--name", "a"], &["cannot read", "404"]);
    assert_nothing_left(&router);

    // It stops in the middle. Pis do not wait for it, and cancelling ends the program that downloads.
    let file = router.scratch("small.img");
    router.import(&file, "small");
    web.hold_after(path, Some(bytes.len() / 2));
    let job = router.begin(&["image", "import", &address, "--name", "a"]);
    web.wait_held();
    router.enroll(&Pi::new(Model::Pi4B, 0x5b15_4510), "lion");
    assert_eq!(router.job(job)["state"], "running");
    assert_eq!(router.job(job)["total_bytes"], bytes.len(), "the server was asked");
    router.piboot(&["job", "cancel", &job.to_string()]).unwrap();
    web.wait_left();
    router.wait_until("its end", || router.job(job)["state"] == "cancelled");
    assert_eq!((router.names("images"), router.names("scratch")), (vec!["small".to_owned()], vec![]));

    // The right digest.
    web.hold_after(path, None);
    let images = Command::new("sha256sum").arg(router.scratch("small.img.xz")).output().unwrap();
    let sum = String::from_utf8(images.stdout).unwrap()[..64].to_owned();
    let said = router.piboot(&["image", "import", &address, "--name", "a", "--sha256", &sum]);
    assert!(said.as_ref().is_ok_and(|said| said.contains("imported")), "{said:?}");
}

#[test]
fn the_list_of_systems_is_fetched_once_and_filtered_by_board() {
    let router = Router::running();
    let (web, path) = (web(&router), "/list.json");
    let list = include_bytes!("data/os_list.json");
    let part = json!({ "os_list": [{ "name": "Bootloader", "url": format!("http://{}/boot.img", web.address), "devices": ["pi4-64bit"] }] });
    let misc = web.serve("/misc.json", part.to_string().into_bytes());
    let text = String::from_utf8(list.to_vec()).unwrap().replace("https://example.org/misc.json", &misc);
    let address = web.serve(path, text.into_bytes());
    router.edit_config(|config| {
        config.replace("option enabled '1'", &format!("option enabled '1'\n\toption os_list '{address}'"))
    });
    router.reload();

    let names = |args: &[&str]| -> Vec<String> {
        let answer = router.json(&[&["image", "list-online"], args].concat());
        answer["systems"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&[]).len(), 6);
    assert_eq!(names(&["--board", "pi5"]).len(), 4);
    assert_eq!(names(&["--board", "Raspberry Pi 1"]), ["Raspberry Pi OS Lite (32-bit)"]);
    assert_eq!(names(&["--board", "pi4"]).last().unwrap(), "Bootloader", "of a part that is elsewhere");
    assert_eq!(web.requests(), ["GET /list.json", "GET /misc.json"]);
    router.assert_refused(&["image", "list-online", "--board", "pi9"], &["knows no board 'pi9'", "Raspberry Pi 5"]);
    let said = router.piboot(&["image", "list-online", "--board", "pi1"]).unwrap();
    assert!(said.contains("Raspberry Pi OS (other)") && said.contains("(2026-06-18, 549.0 MB)"), "{said}");

    let other = web.serve("/no-list.json", b"<html>".to_vec());
    router.assert_refused(&["image", "list-online", "--list", &other], &["no list of systems", "no-list.json"]);
    router
        .assert_refused(&["image", "list-online", "--list", "file:///etc/passwd"], &["is no address to download from"]);

    // What is a disk here is not for a test to say, but the answer is one.
    assert!(router.json(&["image", "disks"])["disks"].is_array());
    router.piboot(&["image", "disks"]).unwrap();
}
