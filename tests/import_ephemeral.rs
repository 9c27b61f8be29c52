//! The rules for a root whose files are the image's own, and which a Pi may not write to.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use piboot::config::{PasswordHash, Regional};
use piboot::image::adapt::{Earlier, Pass, Report, Target, adapt};
use piboot::pi::Mac;
use piboot::progress::NoProgress;
use piboot::storage::Links;
use piboot::storage::tree_copy::{Content, Copied, copy_tree_as};
use rustix::fs::{Mode, OFlags, XattrFlags};

const SYSTEM: &str = "root/usr/lib/systemd/system";
const WANTS: &str = "root/etc/systemd/system/multi-user.target.wants";
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An image that every rule finds something to do in: some of Bookworm, some of Trixie, some of it used before.
fn image() -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    let at = |path: &str| image.path().join(path);
    let put = |path: &str, text: &str| {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::write(at(path), text).unwrap();
    };
    for (path, text) in [
        (
            "boot/cmdline.txt",
            "console=tty1 root=PARTUUID=4e639091-02 rootwait init=/usr/lib/raspberrypi-sys-mods/firstboot\n",
        ),
        ("boot/config.txt", "auto_initramfs=1\narm_64bit=1\n"),
        ("boot/kernel8.img", "kernel"),
        ("boot/ssh", ""),
        ("boot/user-data", "#cloud-config\nusers: []\n"),
        ("boot/meta-data", "instance_id: rpi-image\n"),
        ("boot/network-config", "network: {version: 2}\n"),
        (
            "root/etc/fstab",
            "proc /proc proc defaults 0 0\nPARTUUID=4e639091-01 /boot/firmware vfat defaults 0 2\nPARTUUID=4e639091-02 / ext4 defaults,noatime 0 1\n",
        ),
        ("root/etc/hostname", "raspberrypi\n"),
        ("root/etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n"),
        ("root/etc/machine-id", "uninitialized\n"),
        ("root/var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n"),
        ("root/etc/passwd", "root:x:0:0:root:/root:/bin/bash\npi:x:1000:1000:,,,:/home/pi:/bin/bash\n"),
        ("root/etc/shadow", "root:*:19000:0:99999:7:::\npi:!:19000:0:99999:7:::\n"),
        ("root/etc/group", "root:x:0:\nsudo:x:27:pi\npi:x:1000:\n"),
        ("root/etc/gshadow", "root:*::\nsudo:*::pi\npi:!::\n"),
        ("root/etc/sudoers.d/010_pi-nopasswd", "pi ALL=(ALL) NOPASSWD: ALL\n"),
        ("root/etc/subuid", "pi:100000:65536\n"),
        ("root/home/pi/.ssh/authorized_keys", "ssh-rsa OWN own\n"),
        ("root/etc/initramfs-tools/initramfs.conf", "MODULES=dep\n"),
        ("root/etc/init.d/resize2fs_once", "#!/bin/sh\n"),
        ("root/etc/dphys-swapfile", "CONF_SWAPSIZE=100\n"),
        ("root/usr/sbin/dphys-swapfile", ""),
        ("root/var/swap", "swap"),
        ("root/etc/NetworkManager/NetworkManager.conf", "[main]\nplugins=ifupdown,keyfile\n"),
        ("root/etc/network/interfaces", "iface eth0 inet dhcp\n"),
        ("root/etc/resolv.conf", "nameserver 8.8.8.8\n"),
        ("root/etc/locale.gen", "# de_DE.UTF-8 UTF-8\n"),
        ("root/etc/default/locale", "LANG=en_GB.UTF-8\n"),
        ("root/etc/default/keyboard", "XKBLAYOUT=\"gb\"\n"),
        ("root/etc/timezone", "Europe/London\n"),
        ("root/usr/share/zoneinfo/Europe/Berlin", "TZif"),
        ("root/etc/ssh/sshd_config", ""),
        ("root/etc/ssh/ssh_host_rsa_key", "known to everybody"),
        ("root/etc/cloud/cloud.cfg", ""),
        ("root/var/lib/cloud/seed/nocloud/user-data", "#cloud-config\nusers: []\n"),
        ("root/usr/sbin/NetworkManager", ""),
        ("root/usr/sbin/sshd", ""),
        ("root/usr/bin/cloud-init", ""),
        ("root/usr/bin/ping", "program"),
        ("root/usr/lib/systemd/systemd", ""),
        ("root/usr/lib/systemd/systemd-networkd", ""),
        ("root/usr/lib/systemd/systemd-journald", ""),
        ("root/usr/lib/systemd/system-generators/rpi-swap-generator", ""),
        ("root/usr/lib/systemd/system.conf.d/70-rpi-enable-watchdog.conf", "[Manager]\nRuntimeWatchdogSec=16\n"),
    ] {
        put(path, text);
    }
    for unit in ["ssh.service", "regenerate_ssh_host_keys.service", "rpi-eeprom-update.service", "apt-daily.timer"] {
        put(&format!("{SYSTEM}/{unit}"), "[Unit]\n");
    }
    fs::create_dir_all(at(WANTS)).unwrap();
    for unit in ["regenerate_ssh_host_keys.service", "rpi-eeprom-update.service"] {
        symlink(format!("/usr/lib/systemd/system/{unit}"), at(WANTS).join(unit)).unwrap();
    }
    for (path, mode) in [("root/etc/shadow", 0o640), ("root/usr/bin/ping", 0o755)] {
        fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    rustix::fs::setxattr(at("root/usr/bin/ping"), "security.capability", &CAPABILITY, XattrFlags::empty()).unwrap();
    for path in ["root/home/pi", "root/home/pi/.ssh", "root/home/pi/.ssh/authorized_keys"] {
        std::os::unix::fs::chown(at(path), Some(1000), Some(1000)).unwrap();
    }
    image
}

/// Number, mode, owner, group, time of change and content.
type Looks = (u64, u32, u32, u32, i64, Vec<u8>);

/// Everything below a directory.
fn look(top: &Path) -> BTreeMap<PathBuf, Looks> {
    let mut found = BTreeMap::new();
    let mut directories = vec![top.to_owned()];
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = match () {
                () if meta.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                () if meta.is_file() => fs::read(&path).unwrap(),
                () => Vec::new(),
            };
            if meta.is_dir() {
                directories.push(path.clone());
            }
            let times = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
            found.insert(path, (meta.ino(), meta.mode(), meta.uid(), meta.gid(), times, content));
        }
    }
    found
}

/// A device's trees that are the image's own.
fn linked(image: &Path) -> tempfile::TempDir {
    let device = tempfile::tempdir_in(image.parent().unwrap()).unwrap();
    for tree in ["boot", "root"] {
        fs::create_dir(device.path().join(tree)).unwrap();
        copy(Content::Linked, &image.join(tree), &device.path().join(tree));
    }
    device
}

fn copy(content: Content, from: &Path, to: &Path) -> Copied {
    let open = |path: &Path| rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    copy_tree_as(content, Links::Names, open(from), open(to), &NoProgress).unwrap()
}

fn target() -> Target {
    Target {
        id: "lion".to_owned(),
        hostname: "lion".to_owned(),
        server: IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1)),
        root_export: "/lion/root".to_owned(),
        boot_export: "/lion/boot".to_owned(),
        mac: Some(Mac([0xdc, 0xa6, 0x32, 1, 2, 3])),
        ssh_keys: vec!["ssh-ed25519 AAAAC3Nza me@home".to_owned()],
        trim: true,
        ephemeral: true,
        user: None,
        password: None,
        regional: Regional::default(),
        earlier: None,
    }
}

fn run(device: &Path, target: &Target, pass: Pass) -> Report {
    adapt(&device.join("boot"), &device.join("root"), target, pass).unwrap()
}

/// What only follows its target: name, router, keys, user, language, all of them others.
fn another() -> Target {
    Target {
        hostname: "tiger".to_owned(),
        server: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        ssh_keys: vec![],
        trim: false,
        user: Some("someone".to_owned()),
        password: Some(
            "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/"
                .parse::<PasswordHash>()
                .unwrap(),
        ),
        regional: Regional {
            locale: Some("de_DE.UTF-8".to_owned()),
            timezone: Some("Europe/Berlin".to_owned()),
            keyboard: Some("de".to_owned()),
        },
        earlier: Some(Earlier { ssh_keys: target().ssh_keys, ..Earlier::default() }),
        ..target()
    }
}

#[test]
fn no_rule_writes_to_what_the_image_has_too() {
    let image = image();
    let before = look(image.path());
    let devices = [linked(image.path()), linked(image.path())];
    for device in &devices {
        let program = "root/usr/bin/cloud-init";
        let number = fs::metadata(device.path().join(program)).unwrap().ino();
        assert_eq!(number, before[&image.path().join(program)].0, "the same file");
        assert!(run(device.path(), &target(), Pass::Fresh).changes.len() > 25);
        assert_eq!(look(image.path()), before);
        assert!(run(device.path(), &another(), Pass::Again).changes.len() > 8);
        assert_eq!(look(image.path()), before);
    }
    let capability = |path: &Path| rustix::fs::getxattr(path, "security.capability", &mut [0; 64]).is_ok();
    for (path, mode) in [(image.path(), 0o755), (devices[0].path(), 0o4755)] {
        let ping = path.join("root/usr/bin/ping");
        assert_eq!(fs::metadata(&ping).unwrap().mode() & 0o7777, mode);
        assert!(capability(&ping));
    }
    // A copy that may be written to has nothing in common with either.
    let own = tempfile::tempdir().unwrap();
    for tree in ["boot", "root"] {
        fs::create_dir(own.path().join(tree)).unwrap();
        copy(Content::Copied, &devices[0].path().join(tree), &own.path().join(tree));
    }
    let numbers: Vec<u64> = before.values().map(|entry| entry.0).collect();
    let same_disk = fs::metadata(own.path()).unwrap().dev() == fs::metadata(image.path()).unwrap().dev();
    assert!(same_disk && look(own.path()).values().all(|entry| !numbers.contains(&entry.0)));
    for entry in fs::read_dir(own.path().join("root/etc")).unwrap() {
        let meta = entry.unwrap().metadata().unwrap();
        assert!(meta.is_dir() || meta.nlink() == 1);
    }
    drop(devices);
    assert_eq!(look(image.path()), before);
}

#[test]
fn a_root_that_forgets_is_the_same_at_every_boot() {
    let (image, read) = (image(), |top: &Path, path: &str| fs::read_to_string(top.join(path)).unwrap());
    let [lion, tiger] = [linked(image.path()), linked(image.path())];
    for device in [&lion, &tiger] {
        run(device.path(), &target(), Pass::Fresh);
        let top = device.path();
        assert_eq!(
            read(top, "boot/cmdline.txt"),
            "console=tty1 root=/dev/nfs nfsroot=192.168.1.1:/lion/root,vers=3,tcp,rsize=1048576,wsize=1048576,nocto,acregmin=600,acregmax=600,acdirmin=600,acdirmax=600 ro ip=dhcp rootwait init=/usr/lib/piboot/ephemeral-init\n"
        );
        assert_eq!(
            read(top, "root/etc/fstab"),
            "proc /proc proc defaults 0 0\n192.168.1.1:/lion/boot /boot/firmware nfs ro,vers=3,nolock,nofail,_netdev 0 0\n"
        );
        let script = top.join("root/usr/lib/piboot/ephemeral-init");
        assert_eq!(fs::metadata(&script).unwrap().mode() & 0o7777, 0o755);
        assert!(["root", "memory", "image"].iter().all(|place| script.with_file_name(place).is_dir()));
        // An id is made at a first boot only, and presets are applied then.
        let id = read(top, "root/etc/machine-id");
        assert!(
            id.len() == 33 && id.as_bytes()[12] == b'4' && id.trim().bytes().all(|b| b.is_ascii_hexdigit()),
            "{id}"
        );
        assert!(!top.join("root/var/lib/dbus/machine-id").exists());
        let keys = |suffix| top.join(format!("root/etc/ssh/ssh_host_ed25519_key{suffix}"));
        assert_eq!([keys(""), keys(".pub")].map(|path| fs::metadata(path).unwrap().mode() & 0o7777), [0o600, 0o644]);
        assert!(!top.join("root/etc/ssh/ssh_host_rsa_key").exists());
        let wanted: Vec<_> = fs::read_dir(top.join(WANTS)).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(wanted.iter().all(|name| name == "ssh.service"), "{wanted:?}");
        assert!(read(top, "root/etc/cloud/cloud.cfg.d/zz-netboot.cfg").contains("ssh_deletekeys: false\n"));
        assert!(!top.join("boot/ssh").exists() && image.path().join("boot/ssh").exists());
    }
    for path in ["root/etc/machine-id", "root/etc/ssh/ssh_host_ed25519_key"] {
        assert_ne!(read(lion.path(), path), read(tiger.path(), path), "{path}");
        let before = read(lion.path(), path);
        run(lion.path(), &another(), Pass::Again);
        assert_eq!(read(lion.path(), path), before, "{path} stays");
    }
    assert_eq!(run(lion.path(), &another(), Pass::Again).changes, []);
    // What is made from it, to be written to, is none any more.
    run(lion.path(), &Target { ephemeral: false, earlier: None, ..target() }, Pass::Fresh);
    assert!(read(lion.path(), "boot/cmdline.txt").ends_with(" rw ip=dhcp rootwait\n"));
    assert!(read(lion.path(), "root/etc/fstab").contains(" nfs defaults,"));
    assert!(!lion.path().join("root/usr/lib/piboot/ephemeral-init").exists());
    assert_eq!(read(lion.path(), "root/etc/machine-id"), "uninitialized\n");
    assert!(!lion.path().join("root/etc/ssh/ssh_host_ed25519_key").exists());
    assert!(lion.path().join(WANTS).join("regenerate_ssh_host_keys.service").is_symlink());
    assert!(!read(lion.path(), "root/etc/cloud/cloud.cfg.d/zz-netboot.cfg").contains("ssh_"));
}

/// All files of such a tree have several names, and memory for those whose other names are still to come is limited.
#[test]
fn a_tree_that_others_are_linked_to_is_copied_whatever_its_size() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let at = |path: &str| place.path().join(path);
    for tree in ["image", "linked", "copied"] {
        fs::create_dir(at(tree)).unwrap();
    }
    fs::write(at("image/a"), "one").unwrap();
    fs::hard_link(at("image/a"), at("image/z")).unwrap();
    // More than 16 MB of names, were all of them remembered.
    for n in 0..135 {
        let directory = at(&format!("image/{n}"));
        fs::create_dir(&directory).unwrap();
        for m in 0..1000 {
            fs::File::create(directory.join(m.to_string())).unwrap();
        }
    }
    let linked = copy(Content::Linked, &at("image"), &at("linked"));
    assert_eq!((linked.entries, linked.unshared), (135_137, 0));
    let meta = |path: &str| fs::metadata(at(path)).unwrap();
    assert_eq!(meta("linked/a").ino(), meta("image/z").ino());
    assert_eq!(copy(Content::Copied, &at("linked"), &at("copied")).entries, 135_137);
    let [a, z, first] = ["copied/a", "copied/z", "copied/0/0"].map(meta);
    assert_eq!((a.ino() == z.ino(), a.nlink(), first.nlink()), (true, 2, 1), "names of one file stay names of one");
    assert_ne!(a.ino(), meta("image/a").ino());
}

/// Where a file cannot have one name more it is copied.
#[test]
fn a_file_with_too_many_names_is_copied() {
    let place = tempfile::tempdir().unwrap();
    let at = |path: &str| place.path().join(path);
    for tree in ["image", "linked", "elsewhere"] {
        fs::create_dir(at(tree)).unwrap();
    }
    fs::write(at("image/file"), "content").unwrap();
    fs::write(at("image/other"), "content").unwrap();
    fs::set_permissions(at("image/file"), fs::Permissions::from_mode(0o4711)).unwrap();
    let mut names = 0;
    while fs::hard_link(at("image/file"), at("elsewhere").join(names.to_string())).is_ok() {
        names += 1;
        if names == 70_000 {
            eprintln!("skipped: this file system gives a file any number of names");
            return;
        }
    }
    let linked = copy(Content::Linked, &at("image"), &at("linked"));
    assert_eq!((linked.entries, linked.unshared), (2, 1));
    let meta = fs::metadata(at("linked/file")).unwrap();
    assert_eq!(
        (meta.nlink(), meta.mode() & 0o7777, fs::read(at("linked/file")).unwrap()),
        (1, 0o4711, b"content".to_vec())
    );
    assert_eq!(fs::metadata(at("linked/other")).unwrap().nlink(), 2);
}
