//! An image of a Pi that runs. The Pi is a directory of this machine, with a `ssh` that enters it instead of a network.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{PIBOOT, Router, image};

/// Runs what it is told in a root whose programs are this machine's, and whose boot files are a file system of their own.
const SSH: &str = r#"#!/bin/bash
printf '%s\n' "${@:1:$#-1}" >"$PI/args"
if [ -e "$PI/refuse" ]; then echo 'Permission denied (publickey).' >&2; exit 255; fi
[ ! -e "$PI/break" ] || { tar -C "$PI/root" -c etc home | head -c 20480; exit 2; }
command="${!#}" exec unshare --mount sh -c '
mount -t overlay -o "lowerdir=/usr:$PI/empty" none "$PI/root/usr" && mount -t tmpfs none "$PI/root/boot/firmware" &&
cp -R "$PI/firmware/." "$PI/root/boot/firmware" && mount -t proc none "$PI/root/proc" &&
exec chroot "$PI/root" sh -c "$command"'
"#;

/// A Pi below this directory.
fn pi(dir: &Path) -> PathBuf {
    let pi = dir.join("pi");
    let root = pi.join("root");
    for dir in ["usr", "proc", "etc", "boot/firmware", "home/pi", "tmp", "lost+found", "var"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for dir in ["bin", "lib", "lib64", "sbin"] {
        symlink(Path::new("usr").join(dir), root.join(dir)).unwrap();
    }
    fs::write(root.join("etc/os-release"), "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n").unwrap();
    fs::write(root.join("etc/hostname"), "captured\n").unwrap();
    fs::write(root.join("etc/shadow"), "root:*:1::::::\n").unwrap();
    fs::set_permissions(root.join("etc/shadow"), PermissionsExt::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(root.join("etc/shadow"), Some(0), Some(42)).unwrap();
    fs::write(root.join("home/pi/a file\nof two lines"), image::pattern(300_000, 1)).unwrap();
    std::os::unix::fs::chown(root.join("home/pi"), Some(1000), Some(1000)).unwrap();
    fs::hard_link(root.join("etc/hostname"), root.join("etc/mailname")).unwrap();
    fs::write(root.join("var/swap"), vec![0; 100]).unwrap();
    fs::write(root.join("boot/firmware/hidden"), "below the mount\n").unwrap();
    for (name, content) in image::boot_files() {
        let path = pi.join("firmware").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::create_dir(pi.join("bin")).unwrap();
    fs::create_dir(pi.join("empty")).unwrap();
    fs::write(pi.join("bin/ssh"), SSH).unwrap();
    fs::set_permissions(pi.join("bin/ssh"), PermissionsExt::from_mode(0o755)).unwrap();
    pi
}

fn capture(router: &Router, pi: &Path, args: &[&str]) -> Output {
    let path = format!("{}:{}", pi.join("bin").display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(PIBOOT);
    command.arg("--socket").arg(router.socket()).args(["image", "capture"]).args(args);
    command.env("PATH", path).env("PI", pi).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_pi_that_runs_becomes_an_image() {
    let router = Router::running();
    let pi = pi(router.net.scratch());
    let said = capture(&router, &pi, &["--from", "pi@lion", "--port", "2222", "--name", "lion"]);
    assert!(said.status.success(), "{}{}", text(&said.stdout), text(&said.stderr));
    assert_eq!(fs::read_to_string(pi.join("args")).unwrap(), "-p\n2222\npi@lion\n");

    let image = router.data_dir().join("images/lion");
    let (root, boot) = (image.join("root"), image.join("boot"));
    for name in ["etc/hostname", "etc/shadow", "home/pi/a file\nof two lines"] {
        let (new, old) = (root.join(name), pi.join("root").join(name));
        assert_eq!(fs::read(&new).unwrap(), fs::read(&old).unwrap(), "{name}");
        let attributes = |path: &Path| {
            let m = path.metadata().unwrap();
            (m.mode(), m.uid(), m.gid(), m.mtime())
        };
        assert_eq!(attributes(&new), attributes(&old), "{name}");
    }
    assert_eq!(
        root.join("etc/mailname").metadata().unwrap().ino(),
        root.join("etc/hostname").metadata().unwrap().ino()
    );
    assert_eq!(fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
    // What is mounted there is no part of it, but for the boot files; nor is what the Pi makes anew.
    for name in ["usr", "proc", "boot/firmware"] {
        assert_eq!(fs::read_dir(root.join(name)).unwrap().count(), 0, "{name}");
    }
    assert!(!root.join("var/swap").exists() && !root.join("lost+found").exists());
    for (name, content) in image::boot_files() {
        assert!(fs::read(boot.join(name)).unwrap() == content, "{name}");
    }
    assert!(!boot.join("hidden").exists());
    let images = router.json(&["images"]);
    assert_eq!(
        (&images["images"][0]["source"], &images["images"][0]["os"]),
        (&"lion.tar".into(), &"Debian GNU/Linux 12 (bookworm)".into())
    );
}

#[test]
fn what_goes_wrong_on_the_way_leaves_nothing() {
    let router = Router::running();
    let pi = pi(router.net.scratch());
    let refused = |args: &[&str], words: &[&str]| {
        let said = capture(&router, &pi, args);
        let all = text(&said.stdout) + &text(&said.stderr);
        assert!(!said.status.success() && words.iter().all(|words| all.contains(words)), "{args:?}: {all}");
        router.wait_until("the end of the job", || router.json(&["status"])["jobs"] == 0);
        assert_eq!((router.names("images"), router.names("scratch")), (vec![], vec![]));
    };
    refused(&["--from", "-oProxyCommand=touch", "--name", "x"], &["is no host for ssh"]);
    refused(&["--from", "a b", "--name", "x"], &["is no host for ssh"]);
    fs::write(pi.join("break"), "").unwrap();
    refused(&["--from", "pi@lion", "--name", "x"], &["status 2, see above"]);
    fs::write(pi.join("refuse"), "").unwrap();
    refused(&["--from", "pi@lion", "--name", "x"], &["Permission denied", "status 255, see above"]);
    assert_eq!(router.json(&["jobs"])["jobs"].as_array().unwrap().len(), 1, "no job before the Pi lets one in");
}
