//! Small disk images, made with the tools that make real ones.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const SECTOR: u64 = 512;
const BOOT_START: u64 = 8192;
const BOOT_SECTORS: u64 = 48 * 2048;
const ROOT_MB: u64 = 32;

/// Bytes that differ in every block, so that a block out of place shows.
pub fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 31 + i / 509 + seed) % 251) as u8).collect()
}

/// The boot files of a small but complete image: name and content.
pub fn boot_files() -> Vec<(&'static str, Vec<u8>)> {
    let binary = [
        ("bootcode.bin", 52_456),
        ("start.elf", 300_000),
        ("fixup.dat", 7_000),
        ("start4.elf", 250_000),
        ("fixup4.dat", 5_120),
        ("bcm2710-rpi-3-b.dtb", 31_000),
        ("bcm2710-rpi-3-b-plus.dtb", 32_000),
        ("bcm2711-rpi-4-b.dtb", 53_000),
        ("bcm2712-rpi-5-b.dtb", 76_000),
        ("overlays/overlay_map.dtb", 2_000),
        ("overlays/vc4-kms-v3d.dtbo", 2_800),
        ("kernel8.img", 900_000),
        ("kernel_2712.img", 901_000),
        ("initramfs8", 1_468 * 300),
        ("initramfs_2712", 1_024 * 300),
    ];
    let mut files: Vec<_> = binary.into_iter().enumerate().map(|(n, (name, len))| (name, pattern(len, n))).collect();
    files.push(("config.txt", b"[all]\narm_64bit=1\nauto_initramfs=1\n".to_vec()));
    let cmdline = "console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4 fsck.repair=yes rootwait quiet\n";
    files.push(("cmdline.txt", cmdline.as_bytes().to_vec()));
    files
}

/// A disk image with a FAT boot partition and an ext4 root, laid out as Raspberry Pi OS has them.
pub fn small(dir: &Path) -> PathBuf {
    make(dir, "small", ROOT_MB, |_| ())
}

/// The same with a root of some 160 MB in 3000 files, so that there is a middle to be interrupted in.
pub fn large(dir: &Path) -> PathBuf {
    make(dir, "large", 256, |root| {
        for n in 0..30 {
            let dir = root.join(format!("usr/lib/{n}"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("large"), pattern(5 << 20, n)).unwrap();
            for m in 0..100 {
                fs::write(dir.join(format!("file-{m}")), pattern(3000, m)).unwrap();
            }
        }
    })
}

/// The same with a root of which `more` makes what it likes.
pub fn with_root(dir: &Path, name: &str, root_mb: u64, more: impl FnOnce(&Path)) -> PathBuf {
    make(dir, name, root_mb, more)
}

/// The same with more in its root.
pub fn with(dir: &Path, name: &str, more: impl FnOnce(&Path)) -> PathBuf {
    make(dir, name, 2 * ROOT_MB, more)
}

fn make(dir: &Path, name: &str, root_mb: u64, more: impl FnOnce(&Path)) -> PathBuf {
    let work = dir.join(format!("{name}-image"));
    let (boot, root) = (work.join("boot"), work.join("root"));
    for (name, content) in boot_files() {
        let path = boot.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    for (name, content) in [
        ("etc/hostname", "raspberrypi\n"),
        ("etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n"),
        ("etc/os-release", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n"),
        (
            "etc/fstab",
            "proc /proc proc defaults 0 0\nPARTUUID=4e639091-01 /boot/firmware vfat defaults 0 2\nPARTUUID=4e639091-02 / ext4 defaults,noatime 0 1\n",
        ),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\npi:x:1000:1000::/home/pi:/bin/bash\n"),
        ("etc/machine-id", "uninitialized\n"),
        ("home/pi/.profile", "# login\n"),
        ("sbin/init", "#!/bin/sh\n"),
    ] {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::create_dir_all(root.join("boot/firmware")).unwrap();
    for dir in ["home/pi", "home/pi/.profile"] {
        std::os::unix::fs::chown(root.join(dir), Some(1000), Some(1000)).unwrap();
    }
    more(&root);
    let image = dir.join(format!("{name}.img"));
    let (fat, ext4) = (work.join("fat"), work.join("ext4"));
    fs::File::create(&fat).unwrap().set_len(BOOT_SECTORS * SECTOR).unwrap();
    run(Command::new("mkfs.vfat").args(["-F", "32", "-n", "bootfs"]).arg(&fat));
    let entries = fs::read_dir(&boot).unwrap().map(|e| e.unwrap().path());
    run(Command::new("mcopy").arg("-s").arg("-i").arg(&fat).args(entries).arg("::"));
    let size = format!("{root_mb}M");
    run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-L", "rootfs", "-d"]).arg(&root).arg(&ext4).arg(size));
    assemble(&image, &fat, &ext4, root_mb);
    fs::remove_dir_all(&work).unwrap();
    image
}

fn assemble(image: &Path, fat: &Path, ext4: &Path, root_mb: u64) {
    let root_start = BOOT_START + BOOT_SECTORS;
    let mut file = fs::File::create(image).unwrap();
    let mut mbr = [0; 512];
    mbr[440..444].copy_from_slice(&0x4e63_9091_u32.to_le_bytes());
    for (n, (kind, start, sectors)) in
        [(0x0c, BOOT_START, BOOT_SECTORS), (0x83, root_start, root_mb * 2048)].into_iter().enumerate()
    {
        let entry = &mut mbr[446 + n * 16..][..16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&(start as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&(sectors as u32).to_le_bytes());
    }
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    file.write_all(&mbr).unwrap();
    for (part, start) in [(fat, BOOT_START), (ext4, root_start)] {
        file.seek(SeekFrom::Start(start * SECTOR)).unwrap();
        std::io::copy(&mut fs::File::open(part).unwrap(), &mut file).unwrap();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The same with kernel, initramfs and firmware as large as Raspberry Pi OS Lite's are (Bookworm, 64 bits), and a root that
/// says of the kernel what Raspberry Pi's says: NFS root and network ports are built in.
pub fn lite(dir: &Path) -> PathBuf {
    make(dir, "lite", ROOT_MB, |root| {
        let boot = root.parent().unwrap().join("boot");
        for (name, len) in [
            ("kernel8.img", 9_440_000),
            ("initramfs8", 11_100_000),
            ("start4.elf", 2_257_000),
            ("fixup4.dat", 5_450),
            ("bcm2711-rpi-4-b.dtb", 56_000),
        ] {
            fs::write(boot.join(name), pattern(len, len)).unwrap();
        }
        let release = "6.12.47+rpt-rpi-v8";
        let config = "CONFIG_IP_PNP_DHCP=y\nCONFIG_ROOT_NFS=y\nCONFIG_NFS_FS=y\nCONFIG_NFS_V3=y\nCONFIG_BCMGENET=y\nCONFIG_USB_DWCOTG=y\nCONFIG_USB_LAN78XX=y\nCONFIG_USB_NET_SMSC95XX=y\n";
        fs::create_dir_all(root.join("lib/modules").join(release)).unwrap();
        fs::write(root.join(format!("boot/config-{release}")), config).unwrap();
    })
}
