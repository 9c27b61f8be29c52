//! A Linux that boots from an ephemeral root of the agent's: what it changes is in its memory, and gone at its next boot.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use emupi::{Model, Pi};
use support::{Router, image};

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guest");

/// The system: what it finds and does, as process 1. Whatever shell and programs the root has, and whatever is mounted.
const INIT: &str = r#"#!/bin/sh
exec >/dev/ttyS1 2>&1
[ -e /proc/mounts ] || mount -t proc proc /proc
echo "begins as $$ by $0 with $*"
while read -r what where kind rest; do
    case $where in / | /proc | /sys | /dev | /run | /usr/lib/piboot/*) echo "mounted: $where $kind" ;; esac
done </proc/mounts
ls -d /x /etc/new 2>/dev/null && echo "something is left of an earlier boot"
touch /x && echo "made /x"
echo changed >/etc/hostname && read -r name </etc/hostname && echo "it is called $name"
mkdir /etc/new && mv /etc/hosts /etc/new && rm /etc/os-release && echo "moved and removed"
touch /usr/lib/piboot/image/x || echo "nobody writes to what is below"
read -r below </usr/lib/piboot/image/etc/hostname && echo "below it is called $below"
ls /usr/lib/piboot/memory/upper/x
# A directory of somebody else's, and permissions that are no mode.
touch /home/pi/new && [ ! -e /home/pi/absent ] && echo "made /home/pi/new"
[ ! -e /bin/busybox ] || su -s /bin/sh pi -c 'cat /etc/for-pi'
[ ! -e /bin/busybox ] || su -s /bin/sh nobody -c 'cat /etc/for-pi' || echo "not for nobody"
echo "guest: exit 0"
sleep 1
[ -e /proc/sysrq-trigger ] || mount -t proc proc /proc
echo o >/proc/sysrq-trigger
sleep 60
"#;

fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = fs::remove_file(path);
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Places that every root has, and the module that this kernel needs.
fn common(root: &Path, guest: &Path, with_module: bool) {
    for directory in ["proc", "sys", "dev", "run", "tmp", "bin", "lib", "usr/lib"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    program(&root.join("sbin/init"), INIT);
    let mut passwd = fs::read_to_string(root.join("etc/passwd")).unwrap();
    passwd += "nobody:x:65534:65534::/:/bin/sh\n";
    fs::write(root.join("etc/passwd"), passwd).unwrap();
    // u::rw-,u:1000:r--,g::---,m::r--,o::---
    let list = [(1, 6, !0), (2, 4, 1000), (4, 0, !0), (0x10, 4, !0), (0x20, 0, !0_u32)];
    let entries = list.map(|(kind, mode, id)| [&[kind, 0, mode, 0][..], &id.to_le_bytes()].concat());
    let value = [&2_u32.to_le_bytes()[..], &entries.concat()].concat();
    fs::write(root.join("etc/for-pi"), "for pi alone\n").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(root.join("etc/for-pi"), "system.posix_acl_access", &value, flags).unwrap();
    if with_module {
        let modules = guest.join("root-modules/lib/modules");
        said(Command::new("cp").arg("-r").arg(modules).arg(root.join("lib")));
    }
}

/// busybox, and nothing else.
fn busybox(root: &Path) {
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in said(Command::new("/bin/busybox").arg("--list")).lines() {
        if !matches!(applet, "busybox" | "init") {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
    }
}

/// dash, util-linux, coreutils and kmod: what Raspberry Pi OS has.
fn debian(root: &Path) {
    let programs = ["sh", "mount", "umount", "pivot_root", "mkdir", "modprobe", "touch", "ls", "mv", "rm", "sleep"];
    for name in programs {
        let at = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(|place| Path::new(place).join(name));
        let path = at.iter().find(|path| path.exists()).unwrap_or_else(|| panic!("no {name} here"));
        fs::copy(path, root.join("bin").join(name)).unwrap();
        for word in said(Command::new("ldd").arg(path)).split_ascii_whitespace().filter(|word| word.starts_with('/')) {
            let library = root.join(word.trim_start_matches('/'));
            fs::create_dir_all(library.parent().unwrap()).unwrap();
            fs::copy(word, library).unwrap();
        }
    }
}

struct Booted {
    lines: Vec<String>,
    console: String,
}

/// Boots it from `/ID/root`, with the command line that it was given as far as it goes.
fn boot(router: &Router, pi: &Pi, id: &str, tap: &str, more: &[&str]) -> Booted {
    let [script, console, out] = ["script", "console.log", "out"].map(|name| router.scratch(name));
    fs::write(&script, "").unwrap();
    let cmdline = fs::read_to_string(router.data_dir().join(format!("devices/{id}/boot/cmdline.txt"))).unwrap();
    let word = |key: &str| cmdline.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)).unwrap().to_owned();
    let (nfsroot, init) = (word("nfsroot="), word("init="));
    let (export, options) = nfsroot.split_once(',').unwrap();
    assert!(cmdline.contains(" ro "), "{cmdline}");
    let mut command = router.net.command(format!("{TESTS}/run.sh"));
    command.args(["--tap", tap, "--ip", "10.77.0.20/24", "--gw", "10.77.0.1", "--mac", &pi.mac.to_string()]);
    command.args(["--mount", export, "--opts", &format!("{options},nolock,ro"), "--root", "--init", &init]);
    command.args(["--timeout", "140"]).args(more).arg("--log").arg(&console).arg("--out").arg(&out).arg(&script);
    let mut guest = router.net.spawn("guest", command).unwrap();
    let ended = guest.wait().unwrap();
    let console = fs::read_to_string(&console).unwrap();
    assert!(ended.success(), "{:#?}\n{console}\n{}", guest.lines(), router.logs());
    let lines = fs::read_to_string(&out).unwrap().lines().map(|line| line.trim_end().to_owned()).collect();
    Booted { lines, console }
}

#[test]
fn what_a_guest_changes_is_gone_at_its_next_boot() {
    // Made before the guest goes where there is no network to make it from.
    let guest = PathBuf::from(said(&mut Command::new(format!("{TESTS}/x86.sh"))).trim());
    let mut router = Router::running();
    let tap = router.net.add_tap().unwrap();
    for (name, n) in ["busybox", "debian"].into_iter().zip(0..) {
        let file = image::with_root(router.net.scratch(), name, 96, |root| {
            common(root, &guest, true);
            if name == "busybox" { busybox(root) } else { debian(root) }
        });
        router.import(&file, name);
        let pi = Pi::new(Model::Pi4B, 0x5b15_4510 + n);
        let mac = pi.mac.to_string();
        router.piboot(&["enroll", "--mac", &mac, "--hostname", name, "--image", name, "--root", "ephemeral"]).unwrap();
        let root = router.data_dir().join(format!("devices/{name}/root"));
        let sums =
            || said(Command::new("sh").args(["-c", "find . -type f | sort | xargs sha256sum"]).current_dir(&root));
        let before = sums();
        // As an initramfs leaves it, and as a kernel that mounts its root by itself does.
        for more in [&[][..], &["--bare", "--append", "piboot.memory=64m single"]] {
            let Booted { lines, console } = boot(&router, &pi, name, &tap, more);
            let has = |text: &str| lines.iter().any(|line| line == text);
            let below = format!("below it is called {name}");
            for text in [
                "mounted: / overlay",
                "mounted: /proc proc",
                "mounted: /dev devtmpfs",
                "mounted: /usr/lib/piboot/image nfs",
                "mounted: /usr/lib/piboot/memory tmpfs",
                "made /x",
                "it is called changed",
                "moved and removed",
                "nobody writes to what is below",
                &below,
                "/usr/lib/piboot/memory/upper/x",
                "made /home/pi/new",
            ] {
                assert!(has(text), "{name} {more:?}: no '{text}' in {lines:#?}\n{console}");
            }
            let lists = ["for pi alone", "not for nobody"].map(has);
            assert!(name != "busybox" || lists == [true; 2], "{lines:#?}");
            assert!(!has("something is left of an earlier boot"), "{lines:#?}");
            assert!(lines.iter().any(|line| line.starts_with("begins as 1 by /sbin/init")), "{lines:#?}");
            assert!(console.contains("piboot: what this system changes is kept in memory"), "{console}");
            assert!(more.is_empty() == has("mounted: /run tmpfs"), "{lines:#?}");
            assert_eq!(sums(), before);
            assert!(!root.join("x").exists() && !root.join("etc/new").exists());
        }
    }

    // A program of the admin's own comes after ours; and where there is an overlay already, there is none over it.
    let pi = Pi::new(Model::Pi4B, 0x5b15_4511);
    let again = "[ -e /once ] || { touch /once && exec /usr/lib/piboot/ephemeral-init; }";
    let other = INIT.replace("begins as", "the other begins as").replacen('\n', &format!("\n{again}\n"), 1);
    program(&router.data_dir().join("devices/debian/root/sbin/other"), &other);
    let Booted { lines, console } = boot(&router, &pi, "debian", &tap, &["--append", "piboot.init=/sbin/other"]);
    assert!(lines.iter().any(|line| line.starts_with("the other begins as 1")), "{lines:#?}\n{console}");
    assert_eq!(lines.iter().filter(|line| *line == "mounted: / overlay").count(), 1, "{lines:#?}\n{console}");

    // Without the module it says so, and starts on what it has.
    let file = image::with_root(router.net.scratch(), "without", 32, |root| {
        common(root, &guest, false);
        busybox(root);
    });
    router.import(&file, "without");
    let pi = Pi::new(Model::Pi4B, 0x5b15_4520);
    let mac = pi.mac.to_string();
    let args = ["enroll", "--mac", &mac, "--hostname", "without", "--image", "without", "--root", "ephemeral"];
    router.piboot(&args).unwrap();
    let Booted { lines, console } = boot(&router, &pi, "without", &tap, &["--bare"]);
    let words = "piboot: changes are not kept in memory, the system starts on a read-only root: the kernel has no overlay file system";
    assert!(console.contains(words), "{console}");
    assert!(lines.iter().any(|line| line == "mounted: / nfs"), "{lines:#?}");
    assert!(!lines.iter().any(|line| line == "made /x"), "{lines:#?}");
    router.stop_agent();
}
