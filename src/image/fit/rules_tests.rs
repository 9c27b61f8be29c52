use super::*;
use std::collections::{BTreeMap, BTreeSet};

use super::super::MODELS;
use super::super::kernel::Kernel;

/// What linux-image-rpi-* build in (raspberrypi/linux bcm2709, bcm2711 and bcm2712_defconfig).
fn downstream() -> Parts {
    let parts = ["nfs-root", "ip-dhcp", "nfs", "nfsv3", "smsc95xx", "lan78xx", "genet", "macb", "dwc_otg", "dwc2"];
    Parts::default().with(&parts, Built::In)
}

/// What linux-image-arm64 builds: modules.
fn debian() -> Parts {
    let modules = ["nfs", "nfsv3", "smsc95xx", "lan78xx", "genet", "macb", "dwc2"];
    Parts::default().with(&modules, Built::Module).with(&["nfs-root", "ip-dhcp", "dwc_otg"], Built::Absent)
}

const FIRMWARE: &str = "bootcode.bin start.elf start_x.elf start_cd.elf start_db.elf start4.elf start4x.elf start4cd.elf \
                        start4db.elf fixup.dat fixup_x.dat fixup_cd.dat fixup_db.dat fixup4.dat fixup4x.dat fixup4cd.dat \
                        fixup4db.dat cmdline.txt config.txt issue.txt overlays";
const TREES: &str = "bcm2708-rpi-b.dtb bcm2708-rpi-b-plus.dtb bcm2708-rpi-b-rev1.dtb bcm2708-rpi-cm.dtb bcm2708-rpi-zero.dtb \
                     bcm2708-rpi-zero-w.dtb bcm2709-rpi-2-b.dtb bcm2710-rpi-2-b.dtb bcm2710-rpi-3-b.dtb \
                     bcm2710-rpi-3-b-plus.dtb bcm2710-rpi-cm3.dtb bcm2710-rpi-zero-2.dtb bcm2710-rpi-zero-2-w.dtb \
                     bcm2711-rpi-4-b.dtb bcm2711-rpi-400.dtb bcm2711-rpi-cm4.dtb bcm2711-rpi-cm4s.dtb bcm2712-rpi-5-b.dtb \
                     bcm2712d0-rpi-5-b.dtb bcm2712-rpi-500.dtb bcm2712-rpi-cm5-cm5io.dtb bcm2712-rpi-cm5l-cm5io.dtb";
const PI_OS: &str = "dtparam=audio=on\ncamera_auto_detect=1\nauto_initramfs=1\ndtoverlay=vc4-kms-v3d\nmax_framebuffers=2\n\
                     disable_fw_kms_setup=1\narm_64bit=1\narm_boost=1\n[cm4]\notg_mode=1\n[cm5]\ndtoverlay=dwc2,dr_mode=host\n[all]\n";

/// A boot tree, the parts of the one kernel in the root, and its init.
struct Image {
    evidence: Evidence,
}

impl Image {
    fn new(files: &[&str], config: &str, architecture: &str) -> Self {
        let files: BTreeSet<String> =
            files.iter().flat_map(|list| list.split_ascii_whitespace()).map(str::to_owned).collect();
        Self {
            evidence: Evidence {
                files,
                texts: [("config.txt".to_owned(), config.to_owned())].into(),
                init: Init::Program("/sbin/init".to_owned(), architecture.to_owned()),
                kernels: BTreeMap::new(),
                initramfs: BTreeMap::new(),
                releases: BTreeMap::new(),
            },
        }
    }

    fn kernel(mut self, path: &str, bits: u8, release: &str, parts: Parts) -> Self {
        let kernel = Kernel { bits: Some(bits), release: Some(release.to_owned()), ..Kernel::default() };
        self.evidence.kernels.insert(path.to_owned(), kernel);
        self.evidence.releases.insert(release.to_owned(), parts);
        self
    }

    fn initramfs(mut self, path: &str, release: &str, modules: &[&'static str]) -> Self {
        let initramfs = Initramfs {
            modules: modules.iter().copied().collect(),
            mounts_nfs: true,
            releases: [release.to_owned()].into(),
        };
        self.evidence.initramfs.insert(path.to_owned(), Some(initramfs));
        self
    }

    fn fitting(&self) -> Vec<&'static str> {
        MODELS
            .iter()
            .filter(|model| judge(&self.evidence, **model).issues.is_empty())
            .map(|model| model.name())
            .collect()
    }

    fn issues(&self, model: Model) -> Vec<&'static str> {
        judge(&self.evidence, model).issues.iter().map(|issue| issue.id).collect()
    }
}

/// Raspberry Pi OS, 64 bits; Bookworm's and Trixie's boot files have the same names.
fn pi_os_64() -> Image {
    let kernels = "kernel8.img kernel_2712.img initramfs8 initramfs_2712";
    let (v8, v2712) = ("6.12.47+rpt-rpi-v8", "6.12.47+rpt-rpi-2712");
    Image::new(&[FIRMWARE, TREES, kernels, "user-data meta-data network-config"], PI_OS, "aarch64")
        .kernel("kernel8.img", 64, v8, downstream())
        .kernel("kernel_2712.img", 64, v2712, downstream())
        .initramfs("initramfs8", v8, &[])
        .initramfs("initramfs_2712", v2712, &[])
}

fn pi_os_32() -> Image {
    let kernels = "kernel.img kernel7.img kernel7l.img kernel8.img initramfs initramfs7 initramfs7l initramfs8";
    let mut image = Image::new(&[FIRMWARE, TREES, kernels], &PI_OS.replace("arm_64bit=1\n", ""), "armhf");
    for (path, bits, release) in [
        ("kernel.img", 32, "6.12.47+rpt-rpi-v6"),
        ("kernel7.img", 32, "6.12.47+rpt-rpi-v7"),
        ("kernel7l.img", 32, "6.12.47+rpt-rpi-v7l"),
        ("kernel8.img", 64, "6.12.47+rpt-rpi-v8"),
    ] {
        image = image.kernel(path, bits, release, downstream());
    }
    image
}

/// Ubuntu's: its kernels have the drivers as modules, and a configuration that names everything.
fn ubuntu(prefix: &str) -> Image {
    let release = "6.8.0-1018-raspi";
    let files = format!("{prefix}vmlinuz {prefix}initrd.img");
    let trees: Vec<String> = TREES.split_ascii_whitespace().map(|tree| format!("{prefix}{tree}")).collect();
    let trees = trees.join(" ");
    let config = format!(
        "[all]\narm_64bit=1\nkernel=vmlinuz\ncmdline=cmdline.txt\ninitramfs initrd.img followkernel\n{}[tryboot]\nos_prefix=new/\n[all]\n",
        if prefix.is_empty() { String::new() } else { format!("os_prefix={prefix}\n") }
    );
    Image::new(&[FIRMWARE, &files, &trees], &config, "aarch64")
        .kernel(&format!("{prefix}vmlinuz"), 64, release, debian())
        .initramfs(
            &format!("{prefix}initrd.img"),
            release,
            &["nfs", "nfsv3", "smsc95xx", "lan78xx", "genet", "macb", "dwc2"],
        )
}

/// Debian's own images (raspi.debian.net).
fn debian_raspi(modules: &[&'static str]) -> Image {
    let release = "6.1.0-18-arm64";
    let trees = "bcm2837-rpi-3-a-plus.dtb bcm2837-rpi-3-b.dtb bcm2837-rpi-3-b-plus.dtb bcm2837-rpi-cm3-io3.dtb \
                 bcm2837-rpi-zero-2-w.dtb bcm2711-rpi-4-b.dtb bcm2711-rpi-400.dtb bcm2711-rpi-cm4-io.dtb";
    let files = format!("vmlinuz-{release} initrd.img-{release}");
    let config = format!(
        "arm_64bit=1\nenable_uart=1\nupstream_kernel=1\nkernel=vmlinuz-{release}\n# For details\ninitramfs initrd.img-{release}\n"
    );
    Image::new(&[FIRMWARE, trees, &files], &config, "aarch64")
        .kernel(&format!("vmlinuz-{release}"), 64, release, debian())
        .initramfs(&format!("initrd.img-{release}"), release, modules)
}

#[test]
fn each_distribution_boots_what_it_is_made_for() {
    let most = ["nfs", "nfsv3", "smsc95xx", "lan78xx", "genet", "dwc2"];
    for (what, image, boards) in [
        ("Raspberry Pi OS, 64 bits", pi_os_64(), &["pi2", "pi3", "pi3+", "pi4", "pi5"][..]),
        ("Raspberry Pi OS, 32 bits", pi_os_32(), &["pi1", "pi2", "pi3", "pi3+", "pi4", "pi5"]),
        ("Ubuntu 24.04", ubuntu(""), &["pi2", "pi3", "pi3+", "pi4", "pi5"]),
        ("Ubuntu 26.04", ubuntu("current/"), &["pi2", "pi3", "pi3+", "pi4", "pi5"]),
        ("Debian", debian_raspi(&most), &["pi3", "pi3+", "pi4"]),
        ("Debian, initramfs with MODULES=dep of a Pi 4", debian_raspi(&["nfs", "nfsv3", "genet"]), &["pi4"]),
        ("Debian, initramfs without NFS", debian_raspi(&["genet", "smsc95xx", "dwc2"]), &[]),
        (
            "DietPi: no initramfs, the drivers built in",
            Image::new(&[FIRMWARE, TREES, "kernel8.img kernel_2712.img dietpi.txt"], "arm_64bit=1\n", "aarch64")
                .kernel("kernel8.img", 64, "6.6.51+rpt-rpi-v8", downstream())
                .kernel("kernel_2712.img", 64, "6.6.51+rpt-rpi-2712", downstream()),
            &["pi2", "pi3", "pi3+", "pi4", "pi5"],
        ),
    ] {
        assert_eq!(image.fitting(), boards, "{what}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let without = |file: &str| {
        let mut image = pi_os_64();
        assert!(image.evidence.files.remove(file), "{file}");
        image
    };
    for (file, model, issues) in [
        ("start4.elf", Model::Pi4, &["no-firmware"][..]),
        ("start4.elf", Model::Pi5, &[]),
        ("start.elf", Model::Pi3, &["no-firmware"]),
        ("bootcode.bin", Model::Pi3Plus, &["no-bootcode"]),
        ("kernel8.img", Model::Pi3, &["no-kernel"]),
        ("kernel8.img", Model::Pi5, &[]),
        ("bcm2711-rpi-400.dtb", Model::Pi4, &[]),
        ("fixup4.dat", Model::Pi4, &[]),
    ] {
        assert_eq!(without(file).issues(model), issues, "{file} {model}");
    }
    let partial = |image: &Image, model| -> Vec<String> {
        judge(&image.evidence, model).partial.into_iter().map(|issue| issue.text).collect()
    };
    assert_eq!(partial(&without("bcm2711-rpi-400.dtb"), Model::Pi4), ["no device tree for the 400"]);
    assert_eq!(partial(&without("fixup4.dat"), Model::Pi4).len(), 1);
    assert_eq!(partial(&pi_os_64(), Model::Pi4), [""; 0]);
    assert_eq!(partial(&pi_os_64(), Model::Pi2), ["kernel8.img is a 64-bit kernel: only a 2B v1.2 starts it"]);
}

#[test]
fn config_txt_decides_what_is_loaded() {
    let with = |more: &str| {
        let mut image = pi_os_64();
        image.evidence.files.insert("kernel7.img".to_owned());
        image.evidence.texts.insert("config.txt".to_owned(), format!("{PI_OS}{more}"));
        image
    };
    let kernel = |more: &str, model| loads(&with(more).evidence, model).kernel;
    assert_eq!(kernel("", Model::Pi3).as_deref(), Some("kernel8.img"));
    assert_eq!(kernel("[pi3]\narm_64bit=0\n", Model::Pi3).as_deref(), Some("kernel7.img"));
    assert_eq!(with("arm_64bit=0\n").issues(Model::Pi3), ["wrong-architecture"]);
    assert_eq!(kernel("kernel=mine.img\n", Model::Pi4), None);
    assert_eq!(with("[pi4]\nkernel=mine.img\n").issues(Model::Pi4), ["no-kernel"]);
    assert_eq!(with("[pi4]\nkernel=mine.img\n").issues(Model::Pi5), [""; 0]);
    assert_eq!(with("os_prefix=nowhere/\n").issues(Model::Pi5), [""; 0], "the firmware ignores it");
    assert_eq!(with("start_file=mine.elf\n").issues(Model::Pi4), ["no-firmware"]);
    assert_eq!(with("boot_ramdisk=1\n").issues(Model::Pi1), [""; 0], "nothing is known of it");
    let debian = debian_raspi(&["nfs", "nfsv3", "genet"]);
    let text = debian.evidence.texts["config.txt"].replace("upstream_kernel=1\n", "");
    let mut lacking = Image { evidence: debian.evidence };
    lacking.evidence.texts.insert("config.txt".to_owned(), text);
    let found = judge(&lacking.evidence, Model::Pi3);
    assert!(found.issues.iter().any(|issue| issue.text.contains("lacks upstream_kernel=1")), "{found:?}");
}

#[test]
fn an_initramfs_is_superfluous_only_where_the_kernel_needs_none() {
    let alone = |image: &Image, model| judge(&image.evidence, model).alone;
    assert_eq!(alone(&pi_os_64(), Model::Pi4), Built::In);
    assert_eq!(alone(&ubuntu(""), Model::Pi4), Built::Absent);
    let mut nothing_known = pi_os_64();
    nothing_known.evidence.releases.clear();
    assert_eq!(alone(&nothing_known, Model::Pi4), Built::Unknown);
    assert!(nothing_known.issues(Model::Pi4).is_empty());
    let mut without_driver = pi_os_64();
    let parts = downstream().with(&["genet"], Built::Module);
    without_driver.evidence.releases.insert("6.12.47+rpt-rpi-v8".to_owned(), parts);
    assert_eq!(alone(&without_driver, Model::Pi4), Built::Absent);
    assert_eq!(without_driver.issues(Model::Pi4), ["no-nfs-root"], "its initramfs has it not either");
    assert_eq!(alone(&without_driver, Model::Pi3), Built::In);
    let other = debian_raspi(&["nfs", "nfsv3", "genet"]);
    let mut stale = Image { evidence: other.evidence };
    let old = stale.evidence.initramfs.values_mut().next().unwrap().as_mut().unwrap();
    old.releases = ["6.1.0-17-arm64".to_owned()].into();
    assert_eq!(stale.issues(Model::Pi4), ["no-nfs-root"], "modules of another kernel");
}

#[test]
fn no_pi_runs_a_program_for_another_machine() {
    let image =
        Image::new(&[FIRMWARE, TREES, "kernel8.img"], PI_OS, "x86_64").kernel("kernel8.img", 64, "6", downstream());
    assert_eq!(image.issues(Model::Pi4), ["wrong-architecture"]);
    let mut none = pi_os_64();
    none.evidence.init = Init::Missing;
    assert_eq!(none.issues(Model::Pi5), ["no-init"]);
}
