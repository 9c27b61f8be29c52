//! From the mount of the root to a system that runs, and what happens to that.

use super::Confidence::{Certain, Likely, Possible};
use super::Rule;
use super::kernel::sentence;
use crate::boot::session::{BootEnd, BootState};
use crate::boot::stage::Stage;
use crate::config::Severity::{Error, Warning};

/// An initramfs looks for init within a second of the mount.
const INIT: u64 = 20;
/// systemd writes within seconds of its start, on a slow Pi within twenty.
const FIRST_WRITE: u64 = 60;
/// A system that falls silent so soon after it came up was hardly switched off by somebody.
const SOON_MS: u32 = 120_000;

/// What image/adapt/ephemeral-init.sh says on the console.
const NOT_IN_MEMORY: &str = "piboot: changes are not kept in memory";

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "disk",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        after_start: false,
        source: "this router",
        symptom: |case| {
            let problem = case.context.disk.as_deref()?;
            (case.is_ours() && case.boot.state == BootState::Booting && case.reached(Stage::Mount))
                .then(|| format!("The Pi cannot write to its root: {problem}."))
        },
        todo: |_| "'piboot status' shows the disk; 'piboot images' and 'piboot devices' what could go.".to_owned(),
    },
    Rule {
        id: "quota-full",
        severity: Error,
        confidence: Likely,
        last_resort: false,
        after_start: false,
        source: "this router; RFC 1813 §2.6, NFS3ERR_DQUOT",
        symptom: |case| {
            let used = case.context.quota.as_deref()?;
            (case.is_ours() && case.boot.state == BootState::Booting && case.reached(Stage::Mount))
                .then(|| format!("The Pi may write no more to its root: it has used {used}, by option quota."))
        },
        todo: |case| {
            let id = case.section();
            format!(
                "Raise it ('piboot device edit {id} --quota SIZE'), or delete files of the Pi on the router, below devices/{id}/root."
            )
        },
    },
    Rule {
        id: "init-missing",
        severity: Error,
        confidence: Likely,
        last_resort: false,
        after_start: false,
        source: "kernel, init.rst: no working init found",
        symptom: |case| {
            let problem = (case.reached(Stage::Mount) && case.before(&[Stage::FirstWrite]) && case.waits(5))
                .then(|| case.tree(|tree| tree.stops_init))??;
            Some(format!("The root is mounted and init does not start: {}.", problem.text))
        },
        todo: |case| case.tree(|tree| tree.stops_init).map(|tree| sentence(&tree.todo)).unwrap_or_default(),
    },
    Rule {
        id: "no-init",
        severity: Error,
        confidence: Possible,
        last_resort: true,
        after_start: false,
        source: "kernel, init.rst",
        symptom: |case| {
            let stuck = case.is_ours()
                && case.reached(Stage::Mount)
                && case.before(&[Stage::Init, Stage::FirstWrite])
                && case.waits(INIT);
            stuck.then(|| {
                format!(
                    "The Pi has mounted its root and has not looked for an init for {} s.",
                    case.silence().as_secs()
                )
            })
        },
        todo: |_| {
            "A screen at the Pi shows what the initramfs complains of; an init= in cmdline.txt has to name a program that is there.".to_owned()
        },
    },
    Rule {
        id: "init-stuck",
        severity: Error,
        confidence: Possible,
        last_resort: true,
        after_start: false,
        source: "systemd(1)",
        symptom: |case| {
            let stuck = case.is_ours()
                && case.reached(Stage::Init)
                && case.before(&[Stage::FirstWrite])
                && case.waits(FIRST_WRITE);
            stuck.then(|| {
                format!(
                    "The Pi started init and has written nothing for {} s: its system does not come up.",
                    case.silence().as_secs()
                )
            })
        },
        todo: |_| {
            "A screen at the Pi shows where it hangs. The root may be mounted read-only ('ro' in cmdline.txt or in /etc/fstab).".to_owned()
        },
    },
    Rule {
        id: "moved",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        after_start: true,
        source: "RFC 2131 §4.4.5; a root over NFS hangs on its address",
        symptom: |case| {
            let (old, new) = (case.boot.ip?, case.boot.moved_to?);
            Some(format!(
                "DHCP gave the Pi the address {new} while its root is mounted from {old}: its system hangs as soon as it takes the new one."
            ))
        },
        todo: |case| {
            format!("Give the Pi a fixed address ({}) and restart it.", case.set(case.section(), "ip", "ADDRESS"))
        },
    },
    Rule {
        id: "lost-soon",
        severity: Error,
        confidence: Possible,
        last_resort: false,
        after_start: true,
        source: "systemd#21967, bookworm-feedback#93",
        symptom: |case| {
            let up = case.boot.stages.iter().find(|stage| stage.stage == Stage::FirstWrite)?;
            let ran = case
                .now_ms()
                .saturating_sub(up.at_ms)
                .saturating_sub(u32::try_from(case.silence().as_millis()).unwrap_or(0));
            (case.boot.end == Some(BootEnd::Lost) && ran < SOON_MS).then(|| {
                format!(
                    "The Pi fell silent {} s after its system had begun to come up, without shutting down.",
                    ran / 1000
                )
            })
        },
        todo: |_| {
            "A service on the Pi may have taken the network down (NetworkManager, dhcpcd, systemd-networkd, a VPN); the power supply may be too weak. 'piboot device' shows whether piboot's network rules are in place.".to_owned()
        },
    },
    Rule {
        id: "not-in-memory",
        severity: Warning,
        confidence: Certain,
        last_resort: false,
        after_start: true,
        source: "its ephemeral-init, over netconsole",
        symptom: |case| {
            let line = case.boot.console.iter().find(|line| line.text.contains(NOT_IN_MEMORY))?;
            let why = line.text.split_once("root: ").map_or(line.text.as_str(), |(_, why)| why);
            Some(format!(
                "The Pi's root is ephemeral, and its overlay was not mounted: {why}. The system runs on a read-only root."
            ))
        },
        todo: |_| {
            "The image's kernel needs the module overlay, and its root the programs mount, mkdir and pivot_root. 'piboot device reset ID --root auto' gives the Pi a root of its own.".to_owned()
        },
    },
    Rule {
        id: "swap-on-nfs",
        severity: Warning,
        confidence: Certain,
        last_resort: false,
        after_start: true,
        source: "kernel: swap over NFS needs memory to free memory",
        symptom: |case| {
            let tree = case.tree(|tree| tree.id == "swap-on-nfs")?;
            case.reached(Stage::Mount).then(|| format!("{}.", tree.text))
        },
        todo: |case| case.tree(|tree| tree.id == "swap-on-nfs").map(|tree| sentence(&tree.todo)).unwrap_or_default(),
    },
];
