//! A third client: the tools of libnfs, which share no code with the kernel's client nor with ours.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod nfs_support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use nfs_support::random::Random;
use nfs_support::{Fixture, config, export, is_root, scratch, start, start_with};
use piboot::nfs::Export;

/// Runs a tool of libnfs-utils, for a minute at most.
fn run(tool: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", tool]).args(arguments);
    command.output().expect("coreutils are installed")
}

fn ran(tool: &str, arguments: &[&str]) -> Vec<u8> {
    let output = run(tool, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?} (libnfs-utils, see tests/setup.sh): {said}");
    output.stdout
}

/// The address of something below the export, for a client that asks no portmapper.
fn url(f: &Fixture, path: &str) -> String {
    let port = f.server.ports().nfs;
    format!("nfs://127.0.0.1/pi/root{path}?version=3&nfsport={port}&mountport={port}&uid=0&gid=0")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn files_go_in_and_out_byte_by_byte() {
    if !is_root() {
        return;
    }
    let (dir, local) = (scratch(), scratch());
    let f = start(dir.path());
    let mut random = Random(0x006c_6962);
    for length in [0, 1, 4095, 4096, (1 << 20) - 1, (1 << 20) + 3, 5_000_001] {
        let data = random.bytes(&[length]);
        let name = format!("{length} bytes äöü");
        let [source, copy] = ["source", "copy"].map(|name| local.path().join(name));
        fs::write(&source, &data).unwrap();
        ran("nfs-cp", &[text(&source), &url(&f, &format!("/{name}"))]);
        assert!(fs::read(dir.path().join(&name)).unwrap() == data, "{length} in");
        ran("nfs-cp", &[&url(&f, &format!("/{name}")), text(&copy)]);
        assert!(fs::read(&copy).unwrap() == data, "{length} out");
        assert!(ran("nfs-cat", &[&url(&f, &format!("/{name}"))]) == data, "{length} to a pipe");
        fs::remove_file(&copy).unwrap();
    }
}

#[test]
fn directories_are_listed() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    fs::create_dir_all(dir.path().join("etc/deep")).unwrap();
    fs::write(dir.path().join("etc/deep/file"), vec![0; 123_457]).unwrap();
    for n in 0..500 {
        fs::write(dir.path().join(format!("file-{n:060}")), b"").unwrap();
    }
    let f = start(dir.path());
    let listing = String::from_utf8(ran("nfs-ls", &["-R", &url(&f, "")])).unwrap();
    let lines = |end: &str| listing.lines().filter(|line| line.ends_with(end)).count();
    assert_eq!(listing.lines().filter(|line| line.contains("file-0")).count(), 500);
    assert_eq!(lines("deep/file"), 1, "{listing}");
    let file = listing.lines().find(|line| line.ends_with("deep/file")).unwrap();
    assert!(file.starts_with("-rw-r--r--") && file.contains("123457"), "{file}");
}

#[test]
fn refusals_are_understood() {
    if !is_root() {
        return;
    }
    let (dir, local) = (scratch(), scratch());
    fs::write(dir.path().join("f"), b"text").unwrap();
    let f = start_with(config(), vec![Export { read_only: true, ..export(1, "/pi/root", dir.path()) }]);
    assert_eq!(ran("nfs-cat", &[&url(&f, "/f")]), b"text");
    let source = local.path().join("source");
    fs::write(&source, b"other").unwrap();
    for (tool, arguments, wanted) in [
        ("nfs-cat", vec![url(&f, "/absent")], "NFS3ERR_NOENT"),
        ("nfs-cp", vec![text(&source).to_owned(), url(&f, "/f")], "NFS3ERR_ROFS"),
        ("nfs-ls", vec![url(&f, "").replace("/pi/root", "/other")], "MNT3ERR_NOENT"),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = run(tool, &arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(wanted), "{tool}: {said}");
    }
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"text");
}
