//! A Linux that has its files on the agent, while the agent is killed under it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use emupi::{Model, Pi};
use support::{Router, image};

/// QEMU's processor is emulated on a machine that may be busy.
const GUEST: Duration = Duration::from_secs(150);

/// Writes numbered files, each brought to the disk before the next; keeps one open over all that happens; then reads
/// everything back past its cache.
const SCRIPT: &str = r#"set -e
cd /mnt
mkdir work
exec 3>work/log
n=0
while [ ! -e stop ]; do
    n=$((n + 1))
    echo "file $n" >work/new
    dd if=/dev/urandom bs=4k count=16 2>/dev/null >>work/new
    sync work/new 2>/dev/null || sync
    md5sum <work/new >/tmp/sum
    mv work/new "work/$n"
    echo "$n $(cat /tmp/sum)" >&3
    sync
    [ "$n" -lt 5000 ] || { echo "nobody stopped it"; exit 1; }
done
exec 3>&-
echo 3 >/proc/sys/vm/drop_caches
while read -r number sum dash; do
    [ "$(md5sum <"work/$number")" = "$sum  -" ] || { echo "file $number is damaged"; exit 1; }
done <work/log
echo "verified $n"
"#;

#[test]
fn the_agent_may_be_killed_under_a_running_guest() {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guest");
    // Made before the guest goes where there is no network to make it from.
    let made = Command::new(format!("{tests}/x86.sh")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let mut router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    router.enroll(&pi, "lion");
    let (script, console) = (router.scratch("script"), router.scratch("console.log"));
    fs::write(&script, SCRIPT).unwrap();
    let mut command = router.net.command(format!("{tests}/run.sh"));
    command.args(["--tap", &router.net.add_tap().unwrap(), "--ip", "10.77.0.20/24", "--gw", "10.77.0.1"]);
    command.args(["--mac", &pi.mac.to_string(), "--mount", "10.77.0.1:/lion/root", "--timeout", "140"]);
    command.arg("--log").arg(&console).arg(&script);
    let mut guest = router.net.spawn("guest", command).unwrap();

    let root = router.data_dir().join("devices/lion/root");
    let written = || fs::read_dir(root.join("work")).map_or(0, Iterator::count);
    for _ in 0..3 {
        let enough = written() + 8;
        router.wait_until("files of the guest", || written() >= enough);
        router.kill_agent();
        router.start_agent();
    }
    let enough = written() + 8;
    router.wait_until("files of the guest", || written() >= enough);
    // Committed is what the log names: it was synchronised after each line.
    let committed = fs::read_to_string(root.join("work/log")).unwrap();
    router.kill_agent();
    for line in committed.lines() {
        let number = line.split(' ').next().unwrap();
        assert!(root.join("work").join(number).exists(), "{number} was committed");
    }
    router.start_agent();
    fs::write(root.join("stop"), "").unwrap();

    let verified = guest.wait_line("verified", GUEST);
    assert!(verified.is_ok(), "{verified:?}\n{}\n{}", fs::read_to_string(&console).unwrap(), router.logs());
    assert!(guest.wait().unwrap().success(), "{:#?}", guest.lines());
    let console = fs::read_to_string(&console).unwrap();
    assert!(!console.contains("I/O error") && !console.contains("Stale file handle"), "{console}");
    let log = fs::read_to_string(root.join("work/log")).unwrap();
    assert!(log.starts_with(&committed) && log.lines().count() >= 32, "{log}");
}
