//! From the kernel's start to the mount of its root.

use super::Confidence::{Certain, Likely, Possible};
use super::{Case, Rule};
use crate::boot::classify::FileKind;
use crate::boot::session::{BootState, FileOutcome};
use crate::boot::stage::Stage;
use crate::config::Severity::{Error, Warning};

/// A slow Pi's kernel and initramfs ask for an address within 15 s; on a fast one it takes five.
const OS_DHCP: u64 = 40;
/// From the address to the portmapper or the mount it is a second.
const MOUNT: u64 = 20;
/// A system that comes up answers on its SSH port within a minute, the slowest within two.
const UP: u64 = 120;
/// What a kernel says when it goes no further.
const LAST_WORDS: [&str; 4] =
    ["Kernel panic", "VFS: Unable to mount root", "VFS: Cannot open root device", "Attempted to kill init"];

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "kernel-panic",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        after_start: true,
        source: "the kernel's own words, over netconsole",
        symptom: |case| {
            let said =
                case.boot.console.iter().find(|line| LAST_WORDS.iter().any(|words| line.text.contains(words)))?;
            Some(format!("The kernel stopped: \"{}\".", said.text.trim()))
        },
        todo: |_| "The lines before that one in the boot's console say what led to it.".to_owned(),
    },
    Rule {
        id: "bad-cmdline",
        severity: Error,
        confidence: Likely,
        last_resort: false,
        after_start: false,
        source: "doc#3205; klibc nfsmount; kernel, nfsroot.rst",
        symptom: |case| {
            let problem = (has_kernel(case) && case.before(&[Stage::Mount]) && case.waits(8))
                .then(|| case.tree(|tree| tree.hides_root))??;
            Some(format!("The kernel runs and does not find its root: {}.", problem.text))
        },
        todo: |case| case.tree(|tree| tree.hides_root).map(|tree| sentence(&tree.todo)).unwrap_or_default(),
    },
    Rule {
        id: "no-nfs-port",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        after_start: false,
        source: "klibc portmap.c: \"NFS over TCP not available\"; RFC 1833 §3",
        symptom: |case| {
            (case.boot.no_port && case.before(&[Stage::Mount])).then(|| {
                let why = case.context.portmapper.as_deref().unwrap_or("the portmapper of this router does not know it");
                format!("The Pi asked where NFS is, and was told: nowhere. {why}. On its screen stands \"NFS over TCP not available\".")
            })
        },
        todo: |_| {
            "Stop the rpcbind of this router ('service rpcbind stop; service rpcbind disable') or have piboot register there ('piboot check').".to_owned()
        },
    },
    Rule {
        id: "nfs-refused",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        after_start: false,
        source: "this router: a root is for the address that its Pi's MAC holds",
        symptom: |case| {
            let refusal = case.boot.refusals.last()?;
            (case.boot.state == BootState::Booting && case.before(&[Stage::FirstRead])).then(|| {
                let ip = case.boot.ip.map(|ip| format!(" at {ip}")).unwrap_or_default();
                format!("The Pi{ip} was refused {}: {}.", refusal.export, refusal.why)
            })
        },
        todo: |_| {
            "See in 'piboot device' which export is the Pi's, and in its cmdline.txt which one it asks for; two Pis with the same address are refused, too.".to_owned()
        },
    },
    Rule {
        id: "shared-address",
        severity: Error,
        confidence: Likely,
        last_resort: false,
        after_start: false,
        source: "fw#1067, fw#1120, fw#1303: a Pi up to 3 takes an address without asking for it",
        symptom: |case| {
            let other = case.context.shares_address_with.as_deref()?;
            let ip = case.boot.ip?;
            (case.boot.state == BootState::Booting)
                .then(|| format!("The Pi uses the address {ip}, and so does {other}: neither can boot like that."))
        },
        todo: |case| format!("Give one of them an address of its own: {}.", case.set(case.section(), "ip", "ADDRESS")),
    },
    Rule {
        id: "no-mount",
        severity: Error,
        confidence: Possible,
        last_resort: true,
        after_start: false,
        source: "nfs(5); this router",
        symptom: |case| {
            let stuck =
                case.is_ours() && case.reached(Stage::Portmap) && case.before(&[Stage::Mount]) && case.waits(MOUNT);
            stuck.then(|| {
                format!(
                    "The Pi asked where NFS is, was told, and has not mounted its root for {} s.",
                    case.silence().as_secs()
                )
            })
        },
        todo: |_| {
            "A firewall may drop TCP port 2049 ('piboot check' looks at this router's); a kernel of your own needs NFS v3 over TCP built in.".to_owned()
        },
    },
    Rule {
        id: "no-portmap",
        severity: Error,
        confidence: Possible,
        last_resort: true,
        after_start: false,
        source: "klibc nfsmount: portmapper on port 111",
        symptom: |case| {
            let stuck = case.is_ours()
                && case.context.external.is_none()
                && case.reached(Stage::OsDhcp)
                && case.before(&[Stage::Portmap, Stage::Mount])
                && case.waits(MOUNT);
            stuck.then(|| {
                format!(
                    "Linux has its address for {} s and has not asked {} for its root.",
                    case.silence().as_secs(),
                    case.server()
                )
            })
        },
        todo: |_| {
            "See that cmdline.txt names this router in nfsroot=, and that no firewall drops port 111; an initramfs of your own needs nfsmount (BOOT=nfs in initramfs.conf).".to_owned()
        },
    },
    Rule {
        id: "no-sign-of-life",
        // It may be up, and nobody there to answer.
        severity: Warning,
        confidence: Possible,
        last_resort: true,
        after_start: false,
        source: "this router sees nothing of a root on another server",
        symptom: |case| {
            let server = case.context.external?;
            let stuck = case.is_ours() && case.reached(Stage::OsDhcp) && case.before(&[Stage::Ready]) && case.waits(UP);
            stuck.then(|| {
                format!(
                    "Linux has its address for {} s and does not answer on the SSH port; its root is on {server}, and what it asks there is not seen here.",
                    case.silence().as_secs()
                )
            })
        },
        todo: |_| {
            "'piboot check' asks that server what a Pi would ask it, and the server's own log says what came of the Pi's mount. A system without SSH is well.".to_owned()
        },
    },
    Rule {
        id: "kernel-silent",
        severity: Error,
        confidence: Possible,
        last_resort: true,
        after_start: false,
        source: "fw#1472 and many reports",
        symptom: |case| {
            let stuck = case.is_ours()
                && has_kernel(case)
                && case.before(&[Stage::OsDhcp, Stage::Portmap, Stage::Mount])
                && case.waits(OS_DHCP);
            stuck.then(|| {
                format!(
                    "The Pi got its kernel, and Linux has not asked for an address for {} s.",
                    case.silence().as_secs()
                )
            })
        },
        todo: |_| {
            "The kernel has to fit the board (32 or 64 bit, device tree), have its network driver built in or in the initramfs, and read ip=dhcp in cmdline.txt. A screen shows how far it comes; netconsole= in cmdline.txt shows it here.".to_owned()
        },
    },
];

fn has_kernel(case: &Case<'_>) -> bool {
    case.files(FileKind::Kernel).any(|file| file.outcome == FileOutcome::Done)
}

/// With a capital letter and a full stop.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{}.", chars.as_str().trim_end_matches('.'))
}
