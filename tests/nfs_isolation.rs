//! Clients do not wait for one another: a disk that hangs under one export holds up nobody else.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail like tests")]

mod nfs_support;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nfs_support::{
    Client, Fixture, Raw, auth, config, create, export, is_root, limits, lookup, read, scratch, start_with, write,
};
use nfs3_client::Nfs3Client;
use nfs3_client::tokio::TokioIo;
use nfs3_types::nfs3::{self, stable_how};
use nfs3_types::rpc::opaque_auth;
use nfs3_types::xdr_codec::Pack;
use piboot::nfs::{Limits, ServerConfig};

/// An ext4 image, mounted; thawed and unmounted at the end whatever happens.
struct Volume(PathBuf, Option<Child>);

impl Volume {
    /// On a disk that says it has 32 MiB, and has less: later writes fail.
    fn mount_on_false_disk(dir: &Path) -> Option<(Self, Self)> {
        let disk = dir.join("disk");
        std::fs::create_dir(&disk).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(&disk).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(())?;
        let disk = Self(disk, None);
        Some((Self::mount(&disk.0)?, disk))
    }

    fn mount(dir: &Path) -> Option<Self> {
        let (image, mounted) = (dir.join("image"), dir.join("mounted"));
        std::fs::create_dir(&mounted).unwrap();
        std::fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
        let ran = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let ready = ran(Command::new("mke2fs").args(["-q", "-t", "ext4"]).arg(&image))
            && ran(Command::new("mount").args(["-o", "loop"]).args([&image, &mounted]));
        if !ready {
            eprintln!("skipped: no loop device can be mounted here");
        }
        ready.then_some(Self(mounted, None))
    }

    /// From now on every change waits.
    fn freeze(&mut self) {
        // If this test is killed its threads would hang in the kernel for ever: somebody else thaws then.
        let thaw = format!(
            "for n in $(seq 60); do sleep 1; [ -d /proc/{} ] || break; done; fsfreeze -u \"$0\"",
            std::process::id()
        );
        let mut guard = Command::new("sh");
        guard.args(["-c", &thaw]).arg(&self.0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.1 = Some(guard.process_group(0).spawn().unwrap());
        assert!(Command::new("fsfreeze").arg("-f").arg(&self.0).status().unwrap().success());
    }

    fn thaw(&self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).output();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.thaw();
        if let Some(mut guard) = self.1.take() {
            let _ = guard.kill();
            let _ = guard.wait();
        }
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// A client with an address of its own.
async fn client_from(f: &Fixture, host: u8) -> Client {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0))).unwrap();
    let stream = socket.connect(f.address()).await.unwrap();
    Nfs3Client::new_with_auth(TokioIo::new(stream), auth(0, 0, &[]), opaque_auth::default())
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_only_its_own_client() {
    if !is_root() {
        return;
    }
    let (hanging, healthy) = (scratch(), scratch());
    let Some(mut volume) = Volume::mount(hanging.path()) else { return };
    let few = Limits { workers: 4, memory: 4 << 20, per_address: 16, ..limits() };
    let exports = vec![export(1, "/stuck/root", &volume.0), export(2, "/well/root", healthy.path())];
    let f = start_with(ServerConfig { limits: few, ..config() }, exports);
    let (stuck, well) = (f.mount("/stuck/root").await.unwrap(), f.mount("/well/root").await.unwrap());
    let victim = create(&mut client_from(&f, 7).await, &stuck, b"f", 0o600).await.unwrap();

    volume.freeze();
    let mut waiting = Vec::new();
    for n in 0..8_u8 {
        let mut c = client_from(&f, 7).await;
        let (victim, stuck) = (victim.clone(), stuck.clone());
        waiting.push(tokio::spawn(async move {
            if n % 2 == 0 {
                write(&mut c, &victim, 0, &vec![n; 200 << 10], stable_how::FILE_SYNC).await.map(|_| ())
            } else {
                create(&mut c, &stuck, format!("new{n}").as_bytes(), 0o600).await.map(|_| ())
            }
        }));
    }
    // They have all arrived: what is counted has been read from its connection.
    let arrived = async {
        // Two MNT, one CREATE, and these.
        while f.server.stats().requests < 3 + 8 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), arrived).await.expect("all requests arrive");

    let work = async {
        let c = &mut client_from(&f, 8).await;
        let file = create(c, &well, b"f", 0o600).await.unwrap();
        for n in 0..20_u8 {
            let data = vec![n; 700 << 10];
            write(c, &file, 0, &data, stable_how::UNSTABLE).await.unwrap();
            c.commit(&nfs3::COMMIT3args { file: file.clone(), offset: 0, count: 0 }).await.unwrap().unwrap();
            assert!(read(c, &file, 0, 1 << 20).await.unwrap().0 == data);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("the healthy export is served");
    assert!(waiting.iter().all(|task| !task.is_finished()), "the disk did hang all the time");

    volume.thaw();
    for task in waiting {
        tokio::time::timeout(Duration::from_secs(20), task).await.expect("goes on after the thaw").unwrap().unwrap();
    }
    f.server.stop();
}

#[tokio::test]
async fn a_sector_that_cannot_be_read_is_answered() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let Some(volume) = Volume::mount(dir.path()) else { return };
    std::fs::write(volume.0.join("f"), vec![7; 16 << 20]).unwrap();
    let written = std::fs::File::open(volume.0.join("f")).unwrap();
    written.sync_all().unwrap();
    rustix::fs::fadvise(&written, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    drop(written);
    let f = start_with(config(), vec![export(1, "/pi/root", &volume.0)]);
    let root = f.mount("/pi/root").await.unwrap();
    let file = lookup(&mut f.root().await, &root, b"f").await.unwrap();
    // The disk ends early from now on: reads behind its end fail.
    let image = std::fs::OpenOptions::new().write(true).open(dir.path().join("image")).unwrap();
    image.set_len(2 << 20).unwrap();
    let args = nfs3::READ3args { file, offset: 8 << 20, count: 1 << 20 };
    let mut body = Vec::new();
    args.pack(&mut body).unwrap();
    let mut raw = Raw::connect(f.address());
    raw.send(&Raw::message(1, 100_003, 3, 6, &body));
    let mut answer = Vec::new();
    // The connection breaks in the middle of the first answer.
    let _ = raw.0.read_to_end(&mut answer);
    assert!((1..1 << 20).contains(&answer.len()), "{} bytes", answer.len());
    let again = Raw::connect(f.address()).ask(&Raw::message(2, 100_003, 3, 6, &body)).unwrap();
    assert_eq!(again[24..28], 5_u32.to_be_bytes(), "NFS3ERR_IO");
}

#[tokio::test]
async fn what_was_written_and_lost_before_the_file_was_closed_is_asked_for_again() {
    if !is_root() {
        return;
    }
    let (dir, other) = (scratch(), scratch());
    let Some((volume, _disk)) = Volume::mount_on_false_disk(dir.path()) else { return };
    let f = start_with(config(), vec![export(1, "/pi/root", &volume.0), export(2, "/well/root", other.path())]);
    let (root, well) = (f.mount("/pi/root").await.unwrap(), f.mount("/well/root").await.unwrap());
    let c = &mut f.root().await;
    // The verifier is looked at on a healthy disk: the other may refuse everything after the error.
    let witness = create(c, &well, b"f", 0o600).await.unwrap();
    let verifier = write(c, &witness, 0, b"x", stable_how::UNSTABLE).await.unwrap().verf.0;
    let file = create(c, &root, b"f", 0o600).await.unwrap();
    for n in 0..16 {
        write(c, &file, n << 20, &vec![7; 1 << 20], stable_how::UNSTABLE).await.unwrap();
    }
    f.clock.advance(Duration::from_secs(30));
    let asked = async {
        // Each connection wakes the housekeeping.
        while write(&mut f.root().await, &witness, 0, b"x", stable_how::UNSTABLE).await.unwrap().verf.0 == verifier {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked).await.expect("clients learn that data may be lost");
}
