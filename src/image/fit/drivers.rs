//! What a kernel can do, told from its configuration or from the lists beside its modules.

use std::collections::BTreeMap;

/// Where a part of the kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Built {
    /// In the kernel itself.
    In,
    /// In a module, which has to come from an initramfs as long as there is no root.
    Module,
    /// Nowhere.
    Absent,
    /// Nothing tells.
    Unknown,
}

/// The overlay file system: what a root needs whose changes stay in memory.
pub(super) const OVERLAY: &str = "overlay";
/// Modules that matter for a root over the network, with the option that builds each.
const PARTS: [(&str, &str); 9] = [
    ("nfs", "CONFIG_NFS_FS"),
    ("nfsv3", "CONFIG_NFS_V3"),
    ("smsc95xx", "CONFIG_USB_NET_SMSC95XX"),
    ("lan78xx", "CONFIG_USB_LAN78XX"),
    ("genet", "CONFIG_BCMGENET"),
    ("macb", "CONFIG_MACB"),
    ("dwc_otg", "CONFIG_USB_DWCOTG"),
    ("dwc2", "CONFIG_USB_DWC2"),
    (OVERLAY, "CONFIG_OVERLAY_FS"),
];
/// What has no module: the kernel mounts its root over NFS, and gets itself an address by DHCP.
const NFS_ROOT: (&str, &str) = ("nfs-root", "CONFIG_ROOT_NFS");
const IP_DHCP: (&str, &str) = ("ip-dhcp", "CONFIG_IP_PNP_DHCP");

/// Whether a module's name is one that matters.
pub(super) fn part_of_module(path: &str) -> Option<&'static str> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split_once(".ko").map(|(stem, _)| stem)?.replace('-', "_");
    PARTS.iter().map(|(name, _)| *name).find(|name| *name == stem)
}

/// The parts of one kernel that are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parts(BTreeMap<&'static str, Built>);

impl Parts {
    pub(super) fn get(&self, name: &str) -> Built {
        self.0.get(name).copied().unwrap_or(Built::Unknown)
    }

    /// Whether the kernel itself mounts an NFS root, its own drivers for NFS included.
    pub(super) fn nfs_root(&self) -> Built {
        let all = [NFS_ROOT.0, IP_DHCP.0, "nfs", "nfsv3"].map(|name| self.get(name));
        if all.iter().any(|built| matches!(built, Built::Module | Built::Absent)) {
            Built::Absent
        } else if all.contains(&Built::Unknown) {
            Built::Unknown
        } else {
            Built::In
        }
    }

    /// From `config-RELEASE` or the copy that a kernel carries: all that is not set is absent.
    pub(super) fn from_config(text: &str) -> Self {
        let options = || PARTS.iter().chain([&NFS_ROOT, &IP_DHCP]);
        let mut parts: BTreeMap<_, _> = options().map(|(name, _)| (*name, Built::Absent)).collect();
        for (option, value) in text.lines().filter_map(|line| line.split_once('=')) {
            if let Some((name, _)) = options().find(|(_, of)| *of == option) {
                parts.insert(name, if value.trim() == "y" { Built::In } else { Built::Module });
            }
        }
        Self(parts)
    }

    /// From modules.builtin and modules.dep, which say nothing of parts that are never modules.
    pub(super) fn from_lists(builtin: &str, dep: &str) -> Self {
        let mut parts: BTreeMap<_, _> = PARTS.iter().map(|(name, _)| (*name, Built::Absent)).collect();
        // What is built in has the last word.
        for (list, built) in [(dep, Built::Module), (builtin, Built::In)] {
            let paths = list.lines().map(|line| line.split(':').next().unwrap_or(line));
            parts.extend(paths.filter_map(part_of_module).map(|name| (name, built)));
        }
        Self(parts)
    }

    /// Sets one part, for tests of what is made of it.
    #[cfg(test)]
    pub(super) fn with(mut self, names: &[&'static str], built: Built) -> Self {
        self.0.extend(names.iter().map(|name| (*name, built)));
        self
    }

    /// Adds what the strings in the kernel itself show: fs/nfs/nfsroot.c and net/ipv4/ipconfig.c have messages of their
    /// own. Its DHCP is built wherever somebody builds the latter; Debian builds neither.
    pub(super) fn add_strings(&mut self, nfs_root: bool, ip_config: bool) {
        for (name, found) in [(NFS_ROOT.0, nfs_root), (IP_DHCP.0, ip_config)] {
            self.0.entry(name).or_insert(if found { Built::In } else { Built::Absent });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_names_each_part() {
        // Of linux-image-rpi-v8's and of Debian's linux-image-arm64's.
        let downstream = "CONFIG_IP_PNP=y\nCONFIG_IP_PNP_DHCP=y\nCONFIG_NFS_FS=y\nCONFIG_NFS_V3=y\nCONFIG_ROOT_NFS=y\nCONFIG_BCMGENET=y\n";
        let parts = Parts::from_config(downstream);
        assert_eq!((parts.nfs_root(), parts.get("genet"), parts.get("macb")), (Built::In, Built::In, Built::Absent));
        let debian = "# CONFIG_IP_PNP is not set\nCONFIG_NFS_FS=m\nCONFIG_NFS_V3=m\nCONFIG_BCMGENET=m\n";
        let parts = Parts::from_config(debian);
        assert_eq!((parts.nfs_root(), parts.get("genet")), (Built::Absent, Built::Module));
    }

    #[test]
    fn lists_of_modules_tell_where_a_driver_is_and_strings_the_rest() {
        let builtin =
            "kernel/fs/nfs/nfs.ko\nkernel/fs/nfs/nfsv3.ko\nkernel/drivers/net/ethernet/broadcom/genet/genet.ko\n";
        let dep =
            "kernel/drivers/net/usb/lan78xx.ko.xz: kernel/drivers/net/phy/x.ko.xz\nkernel/a-b.ko.zst: kernel/macb.ko\n";
        let mut parts = Parts::from_lists(builtin, dep);
        for (name, built) in
            [("genet", Built::In), ("lan78xx", Built::Module), ("macb", Built::Absent), ("nfsv3", Built::In)]
        {
            assert_eq!(parts.get(name), built, "{name}");
        }
        assert_eq!(parts.nfs_root(), Built::Unknown);
        parts.add_strings(true, true);
        assert_eq!(parts.nfs_root(), Built::In);
        let mut none = Parts::default();
        assert_eq!(none.nfs_root(), Built::Unknown);
        none.add_strings(false, true);
        assert_eq!(none.nfs_root(), Built::Absent);
    }
}
