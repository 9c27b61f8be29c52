//! The netboot edits on trees laid out as Raspberry Pi OS lays them out (pi-gen, raspberrypi-sys-mods).

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use piboot::config::{PasswordHash, Regional};
use piboot::image::adapt::{AdaptError, Earlier, Pass, Report, Target, adapt, rule_names};
use piboot::pi::Mac;

struct Trees(tempfile::TempDir);

impl Trees {
    fn new(files: &[(&str, &str)], links: &[(&str, &str)]) -> Self {
        let trees = Self(tempfile::tempdir().unwrap());
        for directory in ["boot", "root/etc", "root/usr/lib/systemd/system"] {
            fs::create_dir_all(trees.path(directory)).unwrap();
        }
        for (path, content) in files {
            trees.put(path, content);
        }
        for (path, target) in links {
            fs::create_dir_all(trees.path(path).parent().unwrap()).unwrap();
            symlink(target, trees.path(path)).unwrap();
        }
        trees
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn put(&self, path: &str, content: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), content).unwrap();
    }

    fn get(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    fn mode(&self, path: &str) -> u32 {
        fs::symlink_metadata(self.path(path)).unwrap().mode() & 0o7777
    }

    fn target(&self, path: &str) -> String {
        fs::read_link(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}")).to_str().unwrap().to_owned()
    }

    fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.path(path)).is_ok()
    }

    fn adapt(&self, pass: Pass) -> Report {
        self.adapt_for(&device(), pass)
    }

    fn adapt_for(&self, target: &Target, pass: Pass) -> Report {
        adapt(&self.path("boot"), &self.path("root"), target, pass).unwrap()
    }

    /// Everything in both trees: mode, owner, content or link target.
    fn snapshot(&self) -> BTreeMap<PathBuf, (u32, u32, u32, Vec<u8>)> {
        fn walk(at: &Path, out: &mut BTreeMap<PathBuf, (u32, u32, u32, Vec<u8>)>) {
            for entry in fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                let content = match () {
                    () if meta.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                    () if meta.is_file() => fs::read(&path).unwrap(),
                    () => Vec::new(),
                };
                if meta.is_dir() {
                    walk(&path, out);
                }
                out.insert(path, (meta.mode(), meta.uid(), meta.gid(), content));
            }
        }
        let mut out = BTreeMap::new();
        walk(self.0.path(), &mut out);
        out
    }
}

fn device() -> Target {
    Target {
        id: "running_lion".to_owned(),
        hostname: "running-lion".to_owned(),
        server: IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1)),
        root_export: "/running_lion/root".to_owned(),
        boot_export: "/running_lion/boot".to_owned(),
        mac: Some(Mac([0xdc, 0xa6, 0x32, 1, 2, 3])),
        ssh_keys: vec!["ssh-ed25519 AAAAC3Nza me@home".to_owned()],
        trim: true,
        ephemeral: false,
        user: None,
        password: None,
        regional: Regional::default(),
        earlier: None,
    }
}

const CMDLINE: &str =
    "console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4 fsck.repair=yes rootwait";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\npi:x:1000:1000:,,,:/home/pi:/bin/bash\n";
const HOSTS: &str = "127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n";
const FSTAB: &str = "proc /proc proc defaults 0 0\nPARTUUID=4e639091-01 /boot/firmware vfat defaults 0 2\nPARTUUID=4e639091-02 / ext4 defaults,noatime 0 1\n";
const SYSTEM: &str = "root/usr/lib/systemd/system";
const ETC: &str = "root/etc/systemd/system";

fn common() -> Vec<(&'static str, String)> {
    let mut files: Vec<(&str, String)> = [
        ("root/etc/fstab", FSTAB),
        ("root/etc/hostname", "raspberrypi\n"),
        ("root/etc/hosts", HOSTS),
        ("root/etc/passwd", PASSWD),
        ("root/etc/machine-id", "uninitialized\n"),
        ("root/etc/initramfs-tools/initramfs.conf", "MODULES=dep\nBUSYBOX=auto\n"),
        ("root/etc/NetworkManager/NetworkManager.conf", "[main]\nplugins=ifupdown,keyfile\n"),
        ("root/usr/sbin/NetworkManager", ""),
        ("root/usr/sbin/sshd", ""),
        ("root/usr/sbin/mount.nfs", ""),
        ("root/usr/lib/systemd/systemd", ""),
        ("root/usr/lib/systemd/systemd-networkd", ""),
        ("root/usr/lib/systemd/systemd-journald", ""),
        ("root/etc/resolv.conf", "nameserver 8.8.8.8\n"),
        ("root/home/pi/.bashrc", ""),
        ("root/boot/firmware/.keep", ""),
    ]
    .map(|(path, text)| (path, text.to_owned()))
    .to_vec();
    for unit in [
        "ssh.service",
        "regenerate_ssh_host_keys.service",
        "NetworkManager-wait-online.service",
        "apt-daily.timer",
        "man-db.timer",
        "fstrim.timer",
    ] {
        files.push((Box::leak(format!("{SYSTEM}/{unit}").into_boxed_str()), "[Unit]\n".to_owned()));
    }
    files
}

fn trees(extra: &[(&str, &str)], links: &[(&str, &str)]) -> Trees {
    let common = common();
    let mut files: Vec<(&str, &str)> = common.iter().map(|(path, text)| (*path, text.as_str())).collect();
    files.extend(extra);
    let trees = Trees::new(&files, links);
    std::os::unix::fs::chown(trees.path("root/home/pi"), Some(1000), Some(1000)).unwrap();
    trees
}

fn bookworm() -> Trees {
    let cmdline = format!("{CMDLINE} quiet init=/usr/lib/raspberrypi-sys-mods/firstboot\n");
    trees(
        &[
            ("boot/cmdline.txt", &cmdline),
            ("boot/config.txt", "auto_initramfs=1\narm_64bit=1\n"),
            ("root/etc/init.d/resize2fs_once", "#!/bin/sh\n"),
            ("root/etc/dphys-swapfile", "CONF_SWAPSIZE=100\n"),
            ("root/usr/sbin/dphys-swapfile", ""),
            ("root/usr/lib/systemd/system/dphys-swapfile.service", "[Unit]\n"),
            ("root/var/swap", "swap"),
            ("root/usr/bin/ping", "program"),
            ("root/usr/bin/dumpcap", "program"),
        ],
        &[
            ("root/etc/rc3.d/S01resize2fs_once", "../init.d/resize2fs_once"),
            (
                "root/etc/systemd/system/multi-user.target.wants/dphys-swapfile.service",
                "/lib/systemd/system/dphys-swapfile.service",
            ),
            ("root/bin", "usr/bin"),
        ],
    )
}

fn trixie() -> Trees {
    let cmdline = format!("{CMDLINE} resize ds=nocloud;i=rpi\n");
    trees(
        &[
            ("boot/cmdline.txt", &cmdline),
            ("boot/user-data", "#cloud-config\nusers: []\n"),
            ("boot/meta-data", "instance_id: rpi-image\ndsmode: local\n"),
            ("boot/network-config", "network: {version: 2}\n"),
            ("root/usr/bin/cloud-init", ""),
            (
                "root/etc/cloud/cloud.cfg.d/99_raspberry-pi.cfg",
                "datasource: {NoCloud: {seedfrom: 'file:///boot/firmware'}}\n",
            ),
            ("root/usr/lib/systemd/system/rpi-resize.service", "[Unit]\n"),
            ("root/usr/lib/systemd/system-generators/rpi-swap-generator", ""),
            ("root/usr/lib/systemd/system.conf.d/70-rpi-enable-watchdog.conf", "[Manager]\nRuntimeWatchdogSec=16\n"),
        ],
        &[(
            "root/etc/systemd/system/sysinit.target.wants/rpi-resize.service",
            "/usr/lib/systemd/system/rpi-resize.service",
        )],
    )
}

#[test]
fn bookworm_boots_from_nfs() {
    let trees = bookworm();
    for (name, mode) in [("ping", 0o755), ("dumpcap", 0o750)] {
        let path = trees.path("root/usr/bin").join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let value = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        rustix::fs::setxattr(&path, "security.capability", &value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    let report = trees.adapt(Pass::Fresh);
    assert_eq!(
        trees.get("boot/cmdline.txt"),
        "console=serial0,115200 console=tty1 quiet root=/dev/nfs nfsroot=192.168.1.1:/running_lion/root,vers=3,tcp,rsize=1048576,wsize=1048576 rw ip=dhcp rootwait\n"
    );
    assert_eq!(trees.get("boot/config.txt"), "auto_initramfs=1\narm_64bit=1\n");
    assert_eq!(
        trees.get("root/etc/fstab"),
        "proc /proc proc defaults 0 0\n192.168.1.1:/running_lion/boot /boot/firmware nfs defaults,vers=3,nolock,nofail,_netdev 0 0\n"
    );
    assert_eq!(trees.get("root/etc/initramfs-tools/initramfs.conf"), "MODULES=most\nBUSYBOX=auto\nBOOT=nfs\n");
    for gone in ["root/etc/init.d/resize2fs_once", "root/etc/rc3.d/S01resize2fs_once", "root/var/swap"] {
        assert!(!trees.exists(gone), "{gone}");
    }
    assert!(!trees.exists(&format!("{ETC}/multi-user.target.wants/dphys-swapfile.service")));
    for masked in [
        "dphys-swapfile.service",
        "NetworkManager-wait-online.service",
        "apt-daily.timer",
        "man-db.timer",
        "fstrim.timer",
    ] {
        assert_eq!(trees.target(&format!("{ETC}/{masked}")), "/dev/null");
    }
    assert!(!trees.exists(&format!("{ETC}/e2scrub_all.timer")), "there is no such unit to mask");
    assert_eq!(trees.get("root/etc/hostname"), "running-lion\n");
    assert_eq!(trees.get("root/etc/hosts"), "127.0.0.1\tlocalhost\n127.0.1.1\trunning-lion\n");
    assert_eq!(trees.get("root/etc/machine-id"), "uninitialized\n");
    let network_manager = trees.get("root/etc/NetworkManager/conf.d/10-netboot.conf");
    assert!(
        network_manager.contains("unmanaged-devices=mac:dc:a6:32:01:02:03;interface-name:eth0\n"),
        "{network_manager}"
    );
    assert!(trees.get("root/etc/systemd/network/00-netboot.network").contains("Name=eth0\n"));
    assert!(trees.get("root/etc/systemd/network/00-netboot-mac.network").contains("MACAddress=dc:a6:32:01:02:03\n"));
    assert!(trees.get("root/etc/systemd/journald.conf.d/netboot.conf").contains("Storage=volatile"));
    assert!(!trees.exists("root/etc/systemd/system.conf.d"), "Bookworm sets no watchdog");
    assert!(!trees.exists("root/etc/cloud") && !trees.exists("root/etc/rpi"), "nothing of Trixie's");

    let mode = |path: &str| fs::metadata(trees.path(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("root/usr/bin/ping"), mode("root/usr/bin/dumpcap")), (0o4755, 0o750));
    let noted: Vec<_> = report.notes.iter().map(|note| note.path.as_str()).collect();
    assert_eq!(noted, ["root/usr/bin/dumpcap"]);
    assert!(rustix::fs::getxattr(trees.path("root/usr/bin/ping"), "security.capability", &mut [0; 64]).is_ok());
    let rules: Vec<_> = rule_names().collect();
    assert!(report.changes.iter().all(|change| rules.contains(&change.rule.as_str()) && !change.what.is_empty()));
}

#[test]
fn trixie_boots_from_nfs() {
    let trees = trixie();
    trees.adapt(Pass::Fresh);
    assert_eq!(
        trees.get("boot/cmdline.txt"),
        "console=serial0,115200 console=tty1 ds=nocloud;i=rpi root=/dev/nfs nfsroot=192.168.1.1:/running_lion/root,vers=3,tcp,rsize=1048576,wsize=1048576 rw ip=dhcp rootwait\n"
    );
    assert_eq!(trees.target(&format!("{ETC}/rpi-resize.service")), "/dev/null");
    assert!(!trees.exists(&format!("{ETC}/sysinit.target.wants/rpi-resize.service")));
    assert_eq!(trees.get("root/etc/rpi/swap.conf.d/90-netboot.conf"), "[Main]\nMechanism=zram\n");
    assert!(trees.get("root/etc/systemd/system.conf.d/99-netboot.conf").contains("RuntimeWatchdogSec=5min"));
    let seed = "root/var/lib/cloud/seed/nocloud";
    assert_eq!(trees.get(&format!("{seed}/user-data")), "#cloud-config\nusers: []\n");
    assert_eq!(trees.get(&format!("{seed}/network-config")), "network: {version: 2}\n");
    for name in ["user-data", "network-config"] {
        assert_eq!(trees.mode(&format!("{seed}/{name}")), 0o600, "it may hold passwords");
        assert!(!trees.exists(&format!("boot/{name}")), "nor is it served over TFTP");
    }
    assert_eq!(
        trees.get(&format!("{seed}/meta-data")),
        "dsmode: local\ninstance-id: piboot-running_lion\nlocal-hostname: running-lion\n"
    );
    let mut configs: Vec<_> =
        fs::read_dir(trees.path("root/etc/cloud/cloud.cfg.d")).unwrap().map(|e| e.unwrap().file_name()).collect();
    configs.sort();
    assert_eq!(configs, ["99_raspberry-pi.cfg", "zz-netboot.cfg"], "ours must be read last");
    assert!(!trees.exists("root/var/swap"));
}

/// What DietPi's image of 2026 for the Pi has of its own (its .build/images/dietpi-installer and dietpi-imager).
const DIETPI: &str = "AUTO_SETUP_GLOBAL_PASSWORD=dietpi\nAUTO_SETUP_LOCALE=C.UTF-8\nAUTO_SETUP_TIMEZONE=UTC\n\
    AUTO_SETUP_NET_USESTATIC=1\nAUTO_SETUP_NET_HOSTNAME=DietPi\nAUTO_SETUP_SWAPFILE_SIZE=1\nAUTO_SETUP_SWAPFILE_LOCATION=/var/swap\n";
const DIETPI_RESIZE: &str = "root/etc/systemd/system/dietpi-fs_partition_resize.service";

fn dietpi() -> Trees {
    trees(
        &[
            (
                "boot/cmdline.txt",
                "root=PARTUUID=4e639091-02 rootfstype=ext4 rootwait fsck.repair=yes net.ifnames=0 logo.nologo console=serial0,115200 console=tty1\n",
            ),
            ("boot/dietpi.txt", &format!("{DIETPI}# edited on another computer\n")),
            ("boot/dietpi-wifi.txt", "aWIFI_KEY[0]='secret'\n"),
            ("root/boot/dietpi.txt", DIETPI),
            ("root/boot/dietpi/preboot", "#!/bin/dash\n"),
            ("root/etc/shadow", "root:$6$image:1::::::\ndietpi:$6$image:1::::::\n"),
            ("root/etc/passwd", "root:x:0:0:root:/root:/bin/bash\ndietpi:x:1000:1000::/home/dietpi:/bin/bash\n"),
            ("root/home/dietpi/.bashrc", ""),
            ("root/etc/network/interfaces", "allow-hotplug eth0\niface eth0 inet dhcp\naddress 192.168.0.100\n"),
            (DIETPI_RESIZE, "[Service]\n"),
        ],
        &[(
            "root/etc/systemd/system/local-fs.target.wants/dietpi-fs_partition_resize.service",
            "../dietpi-fs_partition_resize.service",
        )],
    )
}

#[test]
fn dietpi_sets_up_this_device_at_its_first_boot() {
    let trees = dietpi();
    let berlin = Regional { timezone: Some("Europe/Berlin".to_owned()), ..Regional::default() };
    let target = Target { user: Some("dietpi".to_owned()), password: hash(), regional: berlin, ..device() };
    trees.adapt_for(&target, Pass::Fresh);
    let settings = "AUTO_SETUP_GLOBAL_PASSWORD=\nAUTO_SETUP_LOCALE=C.UTF-8\nAUTO_SETUP_TIMEZONE=Europe/Berlin\n\
        AUTO_SETUP_NET_USESTATIC=0\nAUTO_SETUP_NET_HOSTNAME=running-lion\nAUTO_SETUP_SWAPFILE_SIZE=1\n\
        AUTO_SETUP_SWAPFILE_LOCATION=zram\n# edited on another computer\nAUTO_SETUP_DHCP_TO_STATIC=0\n";
    assert_eq!(trees.get("root/boot/dietpi.txt"), settings);
    assert_eq!(trees.get("root/boot/dietpi-wifi.txt"), "aWIFI_KEY[0]='secret'\n");
    assert_eq!(trees.mode("root/boot/dietpi-wifi.txt"), 0o600);
    for name in ["boot/dietpi.txt", "boot/dietpi-wifi.txt"] {
        assert!(!trees.exists(name), "{name} would be served over TFTP");
    }
    let shadow = trees.get("root/etc/shadow");
    assert_eq!(shadow.matches(hash().unwrap().as_str()).count(), 2, "{shadow}");
    let drop_in = trees.get(&format!("{DIETPI_RESIZE}.d/10-netboot.conf"));
    assert!(
        drop_in.contains("!root=/dev/nfs") && trees.get("boot/cmdline.txt").contains(" root=/dev/nfs "),
        "{drop_in}"
    );
    assert!(trees.get("root/etc/network/interfaces").contains("iface eth0 inet manual\n"));
    // Without a password of the device's own DietPi's stays in force; /boot was the FAT partition once.
    let old = dietpi();
    fs::remove_dir_all(old.path("root/boot")).unwrap();
    fs::create_dir(old.path("root/boot")).unwrap();
    old.put("boot/dietpi/preboot", "#!/bin/dash\n");
    old.adapt(Pass::Fresh);
    let settings = old.get("boot/dietpi.txt");
    assert!(settings.contains("PASSWORD=dietpi\n") && settings.contains("HOSTNAME=running-lion\n"), "{settings}");
    assert!(old.get("root/etc/fstab").contains("/running_lion/boot /boot/firmware nfs"));
}

#[test]
fn dietpi_keeps_a_password_that_somebody_chose_and_says_what_the_known_one_is_used_for() {
    let known = "gets the password 'dietpi'";
    let chosen = "the first boot makes it the password of root and dietpi, too";
    for (password, automated, own, line, note) in [
        ("dietpi", "0", true, "PASSWORD=\n", None),
        ("dietpi", "1", true, "PASSWORD=\n", Some(known)),
        ("", "1", true, "PASSWORD=\n", Some(known)),
        ("geheim", "1", true, "PASSWORD=geheim\n", Some(chosen)),
        ("geheim", "0", true, "PASSWORD=geheim\n", Some(chosen)),
        ("dietpi", "1", false, "PASSWORD=dietpi\n", None),
        ("geheim", "1", false, "PASSWORD=geheim\n", None),
    ] {
        let trees = dietpi();
        let settings = format!(
            "#AUTO_SETUP_GLOBAL_PASSWORD=no\nAUTO_SETUP_GLOBAL_PASSWORD={password}\nAUTO_SETUP_AUTOMATED={automated}\n"
        );
        trees.put("boot/dietpi.txt", &settings);
        let password = hash().filter(|_| own);
        let report = trees.adapt_for(&Target { user: Some("dietpi".to_owned()), password, ..device() }, Pass::Fresh);
        let new = trees.get("root/boot/dietpi.txt");
        assert!(new.contains(&format!("\nAUTO_SETUP_GLOBAL_{line}")), "{new}");
        let notes: Vec<_> = report.notes.iter().filter(|note| note.rule == "dietpi").map(|note| &*note.what).collect();
        assert_eq!(notes.len(), usize::from(note.is_some()), "{settings}{notes:?}");
        assert!(note.is_none_or(|note| notes[0].contains(note)), "{settings}{notes:?}");
    }
}

#[test]
fn a_boot_file_too_large_to_be_moved_is_named_and_stands_in_nobodys_way() {
    let large = "x".repeat((1 << 20) + 1);
    for (trees, names) in [
        (dietpi(), ["Automation_Custom_Script.sh", "Automation_Custom_PreScript.sh"].as_slice()),
        (bookworm(), &["userconf.txt", "custom.toml", "firstrun.sh", "user-data"]),
        (trixie(), &["user-data", "network-config"]),
    ] {
        for name in names {
            trees.put(&format!("boot/{name}"), &large);
        }
        let report = trees.adapt(Pass::Fresh);
        for name in names {
            let is_of_it = |note: &&piboot::image::adapt::Change| note.path == format!("boot/{name}");
            let note = report.notes.iter().find(is_of_it).unwrap();
            assert!(note.what.starts_with("too large to be moved"), "{note:?}");
            assert_eq!(fs::metadata(trees.path(&format!("boot/{name}"))).unwrap().len(), (1 << 20) + 1);
        }
    }
}

#[test]
fn applying_again_changes_nothing() {
    for trees in [bookworm(), trixie(), dietpi()] {
        assert!(trees.adapt(Pass::Fresh).changes.len() > 15);
        let before = trees.snapshot();
        for pass in [Pass::Fresh, Pass::Again] {
            assert_eq!(trees.adapt(pass).changes, []);
            assert_eq!(trees.snapshot(), before);
        }
    }
}

#[test]
fn the_first_user_can_log_in_and_host_keys_are_the_devices_own() {
    let trees = bookworm();
    trees.put("root/etc/ssh/ssh_host_rsa_key", "known to everybody");
    trees.put("root/etc/ssh/ssh_host_rsa_key.pub", "known to everybody");
    trees.put("root/etc/ssh/sshd_config", "");
    trees.put("root/etc/ssh/sshd_not_to_be_run", "");
    trees.adapt(Pass::Fresh);
    assert_eq!(trees.get("root/home/pi/.ssh/authorized_keys"), "ssh-ed25519 AAAAC3Nza me@home\n");
    for (path, mode) in [("root/home/pi/.ssh", 0o700), ("root/home/pi/.ssh/authorized_keys", 0o600)] {
        let meta = fs::metadata(trees.path(path)).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1000, 1000, mode), "{path}");
    }
    let left: Vec<_> = fs::read_dir(trees.path("root/etc/ssh")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["sshd_config"]);
    let wants = format!("{ETC}/multi-user.target.wants");
    assert_eq!(trees.target(&format!("{wants}/ssh.service")), "/usr/lib/systemd/system/ssh.service");
    let regenerate = "regenerate_ssh_host_keys.service";
    assert_eq!(trees.target(&format!("{wants}/{regenerate}")), format!("/usr/lib/systemd/system/{regenerate}"));
}

#[test]
fn plain_debian_gets_a_unit_that_makes_host_keys() {
    let trees = bookworm();
    fs::remove_file(trees.path(&format!("{SYSTEM}/regenerate_ssh_host_keys.service"))).unwrap();
    trees.put("root/etc/network/interfaces", "iface eth0 inet dhcp\n");
    trees.adapt(Pass::Fresh);
    let unit = trees.target(&format!("{ETC}/multi-user.target.wants/netboot-ssh-host-keys.service"));
    assert!(trees.get(&format!("root{unit}")).contains("ExecStart=/usr/bin/ssh-keygen -A\n"));
    assert_eq!(trees.get("root/etc/network/interfaces"), "iface eth0 inet manual\n");
}

#[test]
fn what_the_device_and_its_user_made_stays() {
    let trees = bookworm();
    trees.adapt(Pass::Fresh);
    trees.put("root/etc/ssh/ssh_host_ed25519_key", "the device's");
    trees.put("root/etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    fs::remove_file(trees.path(&format!("{ETC}/apt-daily.timer"))).unwrap();
    fs::remove_file(trees.path("root/etc/resolv.conf")).unwrap();
    trees.put("root/etc/resolv.conf", "nameserver 9.9.9.9\n");
    let keys = "root/home/pi/.ssh/authorized_keys";
    trees.put(keys, &format!("{}ssh-rsa OWN own\n", trees.get(keys)));
    let before = trees.snapshot();
    assert_eq!(trees.adapt(Pass::Again).changes, []);
    assert_eq!(trees.snapshot(), before);

    let moved = Target { server: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), hostname: "new".into(), ..device() };
    let report = adapt(&trees.path("boot"), &trees.path("root"), &moved, Pass::Again).unwrap();
    let changed: Vec<_> = report.changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(changed, ["boot/cmdline.txt", "root/etc/fstab", "root/etc/hostname", "root/etc/hosts"]);
    assert!(trees.get("boot/cmdline.txt").contains("nfsroot=10.0.0.1:/running_lion/root,"));
}

#[test]
fn a_booted_image_loses_its_machine_id() {
    let trees = bookworm();
    trees.put("root/etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    trees.put("root/var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n");
    trees.adapt(Pass::Fresh);
    assert_eq!(trees.get("root/etc/machine-id"), "uninitialized\n");
    assert!(!trees.exists("root/var/lib/dbus/machine-id"));
}

#[test]
fn name_servers_come_from_the_lease() {
    let trees = bookworm();
    trees.adapt(Pass::Fresh);
    assert_eq!(trees.target("root/etc/resolv.conf"), "/run/netboot/resolv.conf");
    let script = trees.get("root/usr/local/sbin/netboot-resolv");
    let run = |files: &[(&str, &str)]| {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("run")).unwrap();
        for (name, text) in files {
            fs::write(place.path().join(name), text).unwrap();
        }
        let at = place.path().display();
        let moved = script.replace("/run/", &format!("{at}/run/")).replace("/proc/net/pnp", &format!("{at}/pnp"));
        assert!(Command::new("sh").args(["-c", &moved]).status().unwrap().success());
        fs::read_to_string(place.path().join("run/netboot/resolv.conf")).unwrap()
    };
    let pnp = "#PROTO: DHCP\ndomain lan\nnameserver 192.168.1.1\nnameserver 0.0.0.0\nbootserver 192.168.1.1\n";
    assert_eq!(run(&[("pnp", pnp)]), "domain lan\nnameserver 192.168.1.1\n");
    let ipconfig = "DEVICE='eth0'\nIPV4DNS0='10.0.0.53'\nIPV4DNS1='0.0.0.0'\nDNSDOMAIN='lan'\n";
    assert_eq!(run(&[("run/net-eth0.conf", ipconfig)]), "nameserver 10.0.0.53\nsearch lan\n");
    assert_eq!(run(&[]), "nameserver 192.168.1.1\n");
}

#[test]
fn text_in_another_encoding_is_edited_and_the_rest_of_it_kept() {
    let trees = bookworm();
    let latin1 = |path: &str, text: &[u8]| {
        trees.put(path, "");
        fs::write(trees.path(path), text).unwrap();
    };
    latin1("root/etc/passwd", b"root:x:0:0:root:/root:/bin/bash\npi:x:1000:1000:M\xfcller:/home/pi:/bin/bash\n");
    latin1("root/etc/fstab", b"# Sch\xf6n\nPARTUUID=4e639091-02 / ext4 defaults 0 1\n");
    latin1("root/etc/network/interfaces.d/eth\x1b[2J", b"# f\xfcr\niface eth0 inet dhcp\n");
    let report = trees.adapt(Pass::Fresh);
    assert!(trees.exists("root/home/pi/.ssh/authorized_keys"));
    let bytes = |path: &str| fs::read(trees.path(path)).unwrap();
    assert!(bytes("root/etc/fstab").starts_with(b"# Sch\xf6n\n192.168.1.1:"));
    assert_eq!(bytes("root/etc/network/interfaces.d/eth\x1b[2J"), b"# f\xfcr\niface eth0 inet manual\n");
    let change = report.changes.iter().find(|change| change.rule == "ifupdown").unwrap();
    assert_eq!(change.path, "root/etc/network/interfaces.d/eth\\u{1b}[2J");
}

#[test]
fn settings_of_the_imager_are_applied_or_named_as_not_applied() {
    for (name, text, words) in [
        ("firstrun.sh", "#!/bin/bash\n", "not applied"),
        ("custom.toml", "[user\n", "not understood"),
        ("custom.toml", "[wlan]\nssid = 'home'\n", "not applied: wlan.ssid"),
        ("userconf.txt", "anna:geheim\n", "not applied"),
        ("user-data", "#cloud-config\nusers: []\n", "has no cloud-init"),
    ] {
        let trees = bookworm();
        trees.put(&format!("boot/{name}"), text);
        let report = trees.adapt(Pass::Fresh);
        let note = report.notes.iter().find(|note| note.path == format!("boot/{name}")).unwrap();
        assert!(note.what.contains(words), "{}", note.what);
        assert!(!trees.adapt(Pass::Again).notes.iter().any(|again| again.path == note.path), "once is enough");
        assert!(!trees.exists(&format!("boot/{name}")), "no password is served over TFTP");
        if !words.contains("wlan") {
            let kept = format!("root/var/lib/raspberrypi/{name}");
            assert_eq!((trees.get(&kept).as_str(), trees.mode(&kept)), (text, 0o600));
        }
    }
    assert!(!bookworm().adapt(Pass::Fresh).notes.iter().any(|note| note.rule == "imager"));

    let custom = format!("[user]\nname = \"anna\"\npassword = \"{HASH}\"\n[locale]\ntimezone = \"Europe/Berlin\"\n");
    for (name, text) in [("custom.toml", custom), ("userconf.txt", format!("anna:{HASH}\n"))] {
        let trees = with_users();
        trees.put(&format!("boot/{name}"), &text);
        let report = trees.adapt(Pass::Fresh);
        assert!(!trees.exists(&format!("boot/{name}")), "no password is served over TFTP");
        assert!(trees.get("root/etc/passwd").contains("anna:x:1000:1000:,,,:/home/anna:"));
        assert!(trees.get("root/etc/shadow").contains(&format!("anna:{HASH}:")));
        assert!(!format!("{report:?}").contains(HASH), "no report has it");
        // What is configured for the device counts more, and its password is not anna's.
        let trees = with_users();
        trees.put(&format!("boot/{name}"), &text);
        trees.adapt_for(&Target { user: Some("lion".into()), ..device() }, Pass::Fresh);
        assert!(trees.get("root/etc/shadow").contains("lion:!:"), "{}", trees.get("root/etc/shadow"));
    }
}

const HASH: &str = "$6$saltsalt$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn hash() -> Option<PasswordHash> {
    HASH.parse().ok()
}

/// Bookworm with what else goes by its user's name, and the questions of its first boot.
fn with_users() -> Trees {
    let trees = bookworm();
    for (path, text) in [
        ("root/etc/shadow", "root:*:19000:0:99999:7:::\npi:!:0:0:99999:7:::\n"),
        ("root/etc/group", "adm:x:4:pi\nsudo:x:27:pi\npi:x:1000:\n"),
        ("root/etc/gshadow", "adm:*::pi\nsudo:*::pi\npi:!::\n"),
        ("root/etc/subuid", "pi:100000:65536\n"),
        ("root/etc/subgid", "pi:100000:65536\n"),
        ("root/etc/sudoers.d/010_pi-nopasswd", "pi ALL=(ALL) NOPASSWD: ALL\n"),
        (
            "root/etc/systemd/system/getty@tty1.service.d/autologin.conf",
            "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin pi --noclear %I $TERM\n",
        ),
        ("root/etc/lightdm/lightdm.conf", "[Seat:*]\nautologin-user=pi\n"),
        ("root/etc/ssh/sshd_config.d/rename_user.conf", "Banner /usr/share/userconf-pi/sshd_banner\n"),
        ("root/usr/lib/systemd/system/userconfig.service", "[Unit]\n"),
        ("root/usr/lib/systemd/system/getty@tty1.service", "[Unit]\n"),
        ("root/usr/share/zoneinfo/Europe/Berlin", "TZif"),
        ("root/etc/timezone", "Europe/London\n"),
        ("root/etc/default/keyboard", "XKBMODEL=\"pc105\"\nXKBLAYOUT=\"gb\"\n"),
    ] {
        trees.put(path, text);
    }
    trees
}

#[test]
fn the_first_user_gets_another_name_wherever_it_stands() {
    let trees = with_users();
    let target = Target { user: Some("lion".into()), password: hash(), ..device() };
    trees.adapt_for(&target, Pass::Fresh);
    for (path, text) in [
        ("root/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nlion:x:1000:1000:,,,:/home/lion:/bin/bash\n".to_owned()),
        ("root/etc/shadow", format!("root:*:19000:0:99999:7:::\nlion:{HASH}::0:99999:7:::\n")),
        ("root/etc/group", "adm:x:4:lion\nsudo:x:27:lion\nlion:x:1000:\n".to_owned()),
        ("root/etc/gshadow", "adm:*::lion\nsudo:*::lion\nlion:!::\n".to_owned()),
        ("root/etc/subuid", "lion:100000:65536\n".to_owned()),
        ("root/etc/subgid", "lion:100000:65536\n".to_owned()),
        ("root/etc/sudoers.d/010_pi-nopasswd", "lion ALL=(ALL) NOPASSWD: ALL\n".to_owned()),
        ("root/etc/lightdm/lightdm.conf", "[Seat:*]\nautologin-user=lion\n".to_owned()),
        ("root/home/lion/.ssh/authorized_keys", "ssh-ed25519 AAAAC3Nza me@home\n".to_owned()),
    ] {
        assert_eq!(trees.get(path), text, "{path}");
    }
    assert!(trees.get("root/etc/systemd/system/getty@tty1.service.d/autologin.conf").contains("--autologin lion "));
    assert!(trees.exists("root/home/lion/.bashrc") && !trees.exists("root/home/pi"));
    assert_eq!(trees.target(&format!("{ETC}/userconfig.service")), "/dev/null");
    assert!(!trees.exists("root/etc/ssh/sshd_config.d/rename_user.conf"));
    assert_eq!(
        trees.target(&format!("{ETC}/getty.target.wants/getty@tty1.service")),
        "/usr/lib/systemd/system/getty@tty1.service"
    );
    let before = trees.snapshot();
    for pass in [Pass::Fresh, Pass::Again] {
        assert_eq!(trees.adapt_for(&target, pass).changes, []);
    }
    assert_eq!(trees.snapshot(), before);

    // Later: only what is asked for anew, from whatever the Pi's user made of it.
    let earlier = Earlier {
        user: Some("lion".into()),
        password: hash(),
        ssh_keys: target.ssh_keys.clone(),
        ..Earlier::default()
    };
    let shadow = trees.get("root/etc/shadow").replace(HASH, "$y$own");
    trees.put("root/etc/shadow", &shadow);
    let again = Target { earlier: Some(earlier.clone()), ..target.clone() };
    assert_eq!(trees.adapt_for(&again, Pass::Again).changes, [], "its own password stays");
    let other: Option<PasswordHash> = HASH.replace("salt", "SALT").parse().ok();
    trees.adapt_for(&Target { user: Some("bear".into()), password: other, ..again }, Pass::Again);
    assert!(trees.get("root/etc/shadow").contains("bear:$6$SALTSALT$"), "{}", trees.get("root/etc/shadow"));
    assert!(trees.get("root/etc/passwd").contains("bear:x:1000:1000:,,,:/home/bear:"));
    assert!(trees.exists("root/home/bear/.bashrc"));
}

#[test]
fn an_interrupted_renaming_is_completed() {
    let trees = with_users();
    fs::rename(trees.path("root/home/pi"), trees.path("root/home/lion")).unwrap();
    trees.adapt_for(&Target { user: Some("lion".into()), ..device() }, Pass::Again);
    assert!(
        trees.get("root/etc/passwd").contains("lion:x:1000:1000:,,,:/home/lion:"),
        "{}",
        trees.get("root/etc/passwd")
    );
}

#[test]
fn a_user_is_made_where_there_is_none_and_a_system_users_name_is_refused() {
    let trees = with_users();
    let passwd = "root:x:0:0:root:/root:/bin/bash\ngames:x:5:60:games:/usr/games:/usr/sbin/nologin\n";
    trees.put("root/etc/passwd", passwd);
    trees.put("root/etc/skel/.profile", "# login\n");
    let refused = |user: &str| {
        let target = Target { user: Some(user.into()), ..device() };
        adapt(&trees.path("boot"), &trees.path("root"), &target, Pass::Fresh)
    };
    assert!(matches!(refused("games"), Err(AdaptError::User(_))));
    trees.adapt_for(&Target { user: Some("lion".into()), password: hash(), ..device() }, Pass::Fresh);
    assert_eq!(
        trees.get("root/etc/passwd"),
        format!("{passwd}lion:x:1001:1001::/home/lion:/bin/sh\n"),
        "1000 is a group's"
    );
    assert!(trees.get("root/etc/shadow").ends_with(&format!("lion:{HASH}::0:99999:7:::\n")));
    assert!(trees.get("root/etc/group").contains("sudo:x:27:pi,lion\n"));
    assert!(trees.get("root/etc/group").ends_with("lion:x:1001:\n"));
    for (path, mode) in
        [("root/home/lion", 0o700), ("root/home/lion/.profile", 0o644), ("root/home/lion/.ssh/authorized_keys", 0o600)]
    {
        let meta = fs::metadata(trees.path(path)).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1001, 1001, mode), "{path}");
    }
    let sudoers = fs::metadata(trees.path("root/etc/sudoers.d/010_lion-nopasswd")).unwrap();
    assert_eq!((sudoers.uid(), sudoers.mode() & 0o7777), (0, 0o440));
}

#[test]
fn keys_that_are_not_configured_any_more_go_and_the_users_own_stay() {
    let trees = bookworm();
    trees.adapt(Pass::Fresh);
    let keys = "root/home/pi/.ssh/authorized_keys";
    trees.put(keys, &format!("{}ssh-rsa OWN own\n", trees.get(keys)));
    let earlier = Earlier { ssh_keys: device().ssh_keys, ..Earlier::default() };
    let target =
        Target { ssh_keys: vec!["ssh-ed25519 AAAANEW you".into()], earlier: Some(earlier.clone()), ..device() };
    trees.adapt_for(&target, Pass::Again);
    assert_eq!(trees.get(keys), "ssh-rsa OWN own\nssh-ed25519 AAAANEW you\n");
    let earlier = Earlier { ssh_keys: target.ssh_keys, ..earlier };
    trees.adapt_for(&Target { ssh_keys: vec![], earlier: Some(earlier), ..device() }, Pass::Again);
    assert_eq!(trees.get(keys), "ssh-rsa OWN own\n");
}

#[test]
fn language_and_time_are_set_where_they_are_asked_for() {
    let trees = with_users();
    let before = trees.snapshot();
    trees.adapt(Pass::Again);
    assert_eq!(before.get(&trees.path("root/etc/timezone")), trees.snapshot().get(&trees.path("root/etc/timezone")));
    let regional = Regional {
        locale: Some("de_DE.UTF-8".into()),
        timezone: Some("Europe/Berlin".into()),
        keyboard: Some("de".into()),
    };
    let target = Target { regional: regional.clone(), ..device() };
    let report = trees.adapt_for(&target, Pass::Again);
    assert_eq!(trees.target("root/etc/localtime"), "/usr/share/zoneinfo/Europe/Berlin");
    assert_eq!(trees.get("root/etc/timezone"), "Europe/Berlin\n");
    assert_eq!(trees.get("root/etc/default/locale"), "LANG=de_DE.UTF-8\n");
    assert_eq!(trees.get("root/etc/default/keyboard"), "XKBMODEL=\"pc105\"\nXKBLAYOUT=\"de\"\n");
    assert!(report.notes.iter().any(|note| note.rule == "locale" && note.what.contains("dpkg-reconfigure locales")));
    // Changed on the Pi, it stays.
    trees.put("root/etc/timezone", "Europe/Paris\n");
    let earlier = Some(Earlier { regional: regional.clone(), ssh_keys: device().ssh_keys, ..Earlier::default() });
    assert_eq!(trees.adapt_for(&Target { earlier, ..target.clone() }, Pass::Again).changes, []);
    let nowhere = Regional { timezone: Some("Mars/Base".into()), ..Regional::default() };
    let report = trees.adapt_for(&Target { regional: nowhere, ..device() }, Pass::Again);
    assert!(report.notes.iter().any(|note| note.what.contains("Mars/Base")), "{report:?}");
}

#[test]
fn cloud_init_settings_that_come_later_leave_the_boot_files_and_nothing_is_lost() {
    let trees = trixie();
    trees.adapt(Pass::Fresh);
    let data = "root/var/lib/cloud/seed/nocloud/user-data";
    let own = trees.get(data);
    fs::set_permissions(trees.path(data), fs::Permissions::from_mode(0o644)).unwrap();
    trees.put("boot/user-data", "#cloud-config\nruncmd: [date]\n");
    trees.adapt(Pass::Again);
    assert_eq!((trees.get(data), trees.mode(data)), (own, 0o600));
    assert!(!trees.exists("boot/user-data"));
    let kept = format!("{data}.from-boot");
    assert_eq!(trees.get(&kept), "#cloud-config\nruncmd: [date]\n");
    assert_eq!(trees.mode(&kept), 0o600);
    assert!(!trees.adapt(Pass::Again).changes.iter().any(|change| change.rule == "cloud-init"));
}

#[test]
fn cloud_init_makes_no_user_beside_the_devices_own() {
    let trees = trixie();
    trees.put("boot/user-data", "#cloud-config\nchpasswd: {users: [{name: ubuntu, password: ubuntu, type: text}]}\n");
    trees.adapt_for(&Target { user: Some("lion".into()), ..device() }, Pass::Fresh);
    let data = trees.get("root/var/lib/cloud/seed/nocloud/user-data");
    assert!(data.contains("name: ubuntu") && data.contains("users: []"), "{data}");
    let before = trees.snapshot();
    trees.adapt_for(&Target { user: Some("lion".into()), ..device() }, Pass::Again);
    assert_eq!(trees.snapshot(), before);
}

#[test]
fn links_in_the_image_cannot_lead_an_edit_outside() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("hostname"), "the router's").unwrap();
    fs::write(outside.path().join("ssh_host_rsa_key"), "the router's").unwrap();
    let trees = bookworm();
    fs::remove_file(trees.path("root/etc/hostname")).unwrap();
    symlink(outside.path().join("hostname"), trees.path("root/etc/hostname")).unwrap();
    symlink(outside.path(), trees.path("root/etc/ssh")).unwrap();
    trees.adapt(Pass::Fresh);
    assert_eq!(trees.get("root/etc/hostname"), "running-lion\n");

    let evil = bookworm();
    fs::remove_dir_all(evil.path("root/home/pi")).unwrap();
    symlink(outside.path(), evil.path("root/home/pi")).unwrap();
    let error = adapt(&evil.path("boot"), &evil.path("root"), &device(), Pass::Fresh).unwrap_err();
    assert!(error.to_string().contains("root/home/pi/.ssh"), "{error}");
    let mut left: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["hostname", "ssh_host_rsa_key"]);
    assert_eq!(fs::read_to_string(outside.path().join("hostname")).unwrap(), "the router's");
}

#[test]
fn a_target_that_makes_no_sense_is_refused_before_anything_is_touched() {
    let trees = bookworm();
    let before = trees.snapshot();
    let refused = |target: Target| adapt(&trees.path("boot"), &trees.path("root"), &target, Pass::Fresh).unwrap_err();
    assert!(matches!(refused(Target { server: "fe80::1".parse().unwrap(), ..device() }), AdaptError::Ipv6(_)));
    for name in ["", "-a", "a-", "a b", "a\n", "a.b", &"a".repeat(64), "é"] {
        assert!(matches!(refused(Target { hostname: name.into(), ..device() }), AdaptError::Hostname(_)), "{name:?}");
    }
    for export in ["x", "/a b", "/a\n", "/a,rw", "/a\"b"] {
        assert!(
            matches!(refused(Target { root_export: export.into(), ..device() }), AdaptError::Export(_)),
            "{export:?}"
        );
        assert!(
            matches!(refused(Target { boot_export: export.into(), ..device() }), AdaptError::Export(_)),
            "{export:?}"
        );
    }
    for key in ["", "ssh-rsa", "ssh-rsa A\nssh-rsa B", "# ssh-rsa A"] {
        assert!(matches!(refused(Target { ssh_keys: vec![key.into()], ..device() }), AdaptError::Key(_)), "{key:?}");
    }
    assert_eq!(trees.snapshot(), before);
}
