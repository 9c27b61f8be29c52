//! What the firmware of a family of boards would load, and whether that comes as far as an init on an NFS root. Pure:
//! looks at [`Evidence`] only.

use super::drivers::{Built, Parts};
use super::evidence::{Evidence, Init, reachable};
use super::initramfs::Initramfs;
use super::settings::Settings;
use crate::pi::Model;

/// What the firmware loads last, by path in the boot tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Loads {
    /// `None` if there is none for it.
    pub(crate) kernel: Option<String>,
    /// Those that are there.
    pub(crate) initramfs: Vec<String>,
    /// Where it looks for the command line.
    pub(crate) cmdline: String,
}

/// Something that keeps a family from booting, or takes something from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issue {
    /// Stable name.
    pub(crate) id: &'static str,
    /// What is wrong.
    pub(crate) text: String,
}

/// What the rules find out of one family.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) loads: Loads,
    /// Whether the kernel mounts its root over this family's network without an initramfs.
    pub(crate) alone: Built,
    /// What keeps it from booting.
    pub(crate) issues: Vec<Issue>,
    /// What some boards of the family lack, or what could not be told.
    pub(crate) partial: Vec<Issue>,
}

/// The board that a family is called after first: name and device tree, then the others.
type Boards = &'static [(&'static str, &'static [&'static str])];

const PI1: Boards = &[
    ("1B+", &["bcm2708-rpi-b-plus.dtb"]),
    ("1B", &["bcm2708-rpi-b.dtb", "bcm2708-rpi-b-rev1.dtb"]),
    ("Zero", &["bcm2708-rpi-zero.dtb"]),
];
const PI2: Boards = &[("2B", &["bcm2709-rpi-2-b.dtb"]), ("2B v1.2", &["bcm2710-rpi-2-b.dtb"])];
const PI3: Boards = &[
    ("3B", &["bcm2710-rpi-3-b.dtb"]),
    ("CM3", &["bcm2710-rpi-cm3.dtb"]),
    ("Zero 2 W", &["bcm2710-rpi-zero-2-w.dtb", "bcm2710-rpi-zero-2.dtb"]),
];
// Its firmware makes do with the 3B's.
const PI3_PLUS: Boards =
    &[("3B+", &["bcm2710-rpi-3-b-plus.dtb", "bcm2710-rpi-3-b.dtb"]), ("CM3+", &["bcm2710-rpi-cm3.dtb"])];
const PI4: Boards =
    &[("4B", &["bcm2711-rpi-4-b.dtb"]), ("400", &["bcm2711-rpi-400.dtb"]), ("CM4", &["bcm2711-rpi-cm4.dtb"])];
const PI5: Boards = &[
    ("5", &["bcm2712-rpi-5-b.dtb", "bcm2712d0-rpi-5-b.dtb"]),
    ("500", &["bcm2712-rpi-500.dtb"]),
    ("CM5", &["bcm2712-rpi-cm5-cm5io.dtb", "bcm2712-rpi-cm5l-cm5io.dtb"]),
];

const fn boards(model: Model) -> Boards {
    match model {
        Model::Pi1 => PI1,
        Model::Pi2 => PI2,
        Model::Pi3 => PI3,
        Model::Pi3Plus => PI3_PLUS,
        Model::Pi4 => PI4,
        Model::Pi5 => PI5,
    }
}

/// What the same tree is called in kernels as kernel.org has them.
fn upstream_name(downstream: &str) -> String {
    match downstream {
        "bcm2710-rpi-cm3.dtb" => "bcm2837-rpi-cm3-io3.dtb".to_owned(),
        other => ["bcm2708-bcm2835", "bcm2709-bcm2836", "bcm2710-bcm2837"]
            .iter()
            .filter_map(|pair| pair.split_once('-'))
            .find_map(|(ours, theirs)| Some(format!("{theirs}{}", other.strip_prefix(ours)?)))
            .unwrap_or_else(|| other.to_owned()),
    }
}

/// Names of kernels, best first (config_txt/boot.adoc, "kernel" and "arm_64bit").
fn kernels(model: Model, settings: &Settings) -> Vec<&'static str> {
    let wanted = settings.flag("arm_64bit");
    match (model, wanted) {
        (Model::Pi1, _) => vec!["kernel.img"],
        (Model::Pi2 | Model::Pi3 | Model::Pi3Plus, Some(true)) => vec!["kernel8.img", "kernel7.img"],
        (Model::Pi2 | Model::Pi3 | Model::Pi3Plus, _) => vec!["kernel7.img", "kernel8.img"],
        (Model::Pi4, Some(false)) => vec!["kernel7l.img", "kernel7.img"],
        (Model::Pi4, _) => vec!["kernel8.img", "kernel7l.img", "kernel7.img"],
        (Model::Pi5, _) => vec!["kernel_2712.img", "kernel8.img"],
    }
}

/// Whether a family has a network port whose driver and what it hangs on are in reach; each group is alternatives.
const fn network(model: Model) -> &'static [&'static [&'static str]] {
    const USB: &[&str] = &["dwc_otg", "dwc2"];
    match model {
        Model::Pi1 | Model::Pi2 | Model::Pi3 => &[&["smsc95xx"], USB],
        Model::Pi3Plus => &[&["lan78xx"], USB],
        Model::Pi4 => &[&["genet"]],
        Model::Pi5 => &[&["macb"]],
    }
}

/// Where the firmware looks: below `os_prefix`, if a kernel and a device tree are there, or at the top.
struct Place<'a> {
    evidence: &'a Evidence,
    prefix: String,
}

impl Place<'_> {
    fn path(&self, name: &str) -> String {
        match name.strip_prefix('/') {
            Some(absolute) => absolute.to_owned(),
            None => format!("{}{name}", self.prefix),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.evidence.files.contains(&self.path(name))
    }
}

fn trees(model: Model, settings: &Settings) -> Vec<(&'static str, Vec<String>)> {
    let names = |names: &[&str]| -> Vec<String> {
        let upstream = names.iter().filter(|_| settings.on("upstream_kernel")).map(|name| upstream_name(name));
        upstream.chain(names.iter().map(|name| (*name).to_owned())).collect()
    };
    boards(model).iter().map(|(board, list)| (*board, names(list))).collect()
}

fn place<'a>(evidence: &'a Evidence, model: Model, settings: &Settings) -> Place<'a> {
    let Some(prefix) = settings.get("os_prefix") else { return Place { evidence, prefix: String::new() } };
    let place = Place { evidence, prefix: prefix.trim_start_matches('/').to_owned() };
    let kernel = match settings.get("kernel") {
        Some(named) => place.has(named),
        None => kernels(model, settings).into_iter().any(|name| place.has(name)),
    };
    let tree = match settings.get("device_tree") {
        Some(named) => place.has(named),
        None => trees(model, settings).iter().flat_map(|(_, names)| names).any(|name| place.has(name)),
    };
    // Otherwise the firmware leaves it out of account.
    if kernel && tree { place } else { Place { evidence, prefix: String::new() } }
}

/// What a family's firmware would load.
pub(super) fn loads(evidence: &Evidence, model: Model) -> Loads {
    let settings = evidence.settings(model);
    let place = place(evidence, model, &settings);
    let kernel = match settings.get("kernel") {
        Some(named) => Some(named.to_owned()).filter(|name| place.has(name)),
        None => kernels(model, &settings).into_iter().find(|name| place.has(name)).map(str::to_owned),
    };
    let initramfs = kernel.as_ref().map(|kernel| settings.initramfs_of(kernel)).unwrap_or_default();
    let initramfs = initramfs.iter().filter(|name| place.has(name)).map(|name| place.path(name)).collect();
    let cmdline = place.path(settings.get("cmdline").unwrap_or("cmdline.txt"));
    Loads { kernel: kernel.map(|kernel| place.path(&kernel)), initramfs, cmdline }
}

/// Judges one family.
pub(crate) fn judge(evidence: &Evidence, model: Model) -> Verdict {
    let settings = evidence.settings(model);
    let place = place(evidence, model, &settings);
    let loads = loads(evidence, model);
    let mut verdict = Verdict { loads, alone: Built::Unknown, issues: Vec::new(), partial: Vec::new() };
    if settings.on("boot_ramdisk") {
        let text = "config.txt has boot_ramdisk=1: what is in boot.img was not looked at".to_owned();
        verdict.partial.push(Issue { id: "boot-img", text });
        return verdict;
    }
    firmware(evidence, model, &settings, &mut verdict);
    kernel(&place, model, &settings, &mut verdict);
    device_tree(&place, model, &settings, &mut verdict);
    init(evidence, model, &mut verdict);
    root(evidence, model, &mut verdict);
    verdict
}

fn firmware(evidence: &Evidence, model: Model, settings: &Settings, verdict: &mut Verdict) {
    if matches!(model, Model::Pi2 | Model::Pi3 | Model::Pi3Plus) && !evidence.files.contains("bootcode.bin") {
        let text = format!("there is no bootcode.bin, the first that a {model} asks for");
        verdict.issues.push(Issue { id: "no-bootcode", text });
    }
    let Some((start, fixup)) = settings.firmware(model) else { return };
    if !evidence.files.contains(&start) {
        let text = format!("there is no {start}, the firmware of a {model}");
        verdict.issues.push(Issue { id: "no-firmware", text });
    } else if !evidence.files.contains(&fixup) {
        let text = format!("{start} has no {fixup} beside it: a {model} would see a part of its memory only");
        verdict.partial.push(Issue { id: "no-fixup", text });
    }
}

fn kernel(place: &Place<'_>, model: Model, settings: &Settings, verdict: &mut Verdict) {
    if verdict.loads.kernel.is_some() {
        return;
    }
    let text = match settings.get("kernel") {
        Some(named) => format!("config.txt names {} as the kernel, and there is no such file", place.path(named)),
        None => format!("there is no kernel for a {model} ({})", kernels(model, settings).join(" or ")),
    };
    verdict.issues.push(Issue { id: "no-kernel", text });
}

fn device_tree(place: &Place<'_>, model: Model, settings: &Settings, verdict: &mut Verdict) {
    if let Some(named) = settings.get("device_tree") {
        if !place.has(named) {
            let text = format!("config.txt names {named} as the device tree, and there is no such file");
            verdict.issues.push(Issue { id: "no-device-tree", text });
        }
        return;
    }
    let trees = trees(model, settings);
    let lacking: Vec<&str> =
        trees.iter().filter(|(_, names)| !names.iter().any(|name| place.has(name))).map(|(board, _)| *board).collect();
    if lacking.len() == trees.len() {
        let wanted = trees.first().and_then(|(_, names)| names.first()).map_or("", String::as_str);
        let upstream = !settings.on("upstream_kernel") && place.has(&upstream_name(wanted));
        let cure = if upstream {
            "; config.txt lacks upstream_kernel=1, with which it takes those that are there"
        } else {
            ""
        };
        let text = format!("there is no device tree for a {model} ({wanted}){cure}");
        verdict.issues.push(Issue { id: "no-device-tree", text });
    } else if !lacking.is_empty() {
        verdict
            .partial
            .push(Issue { id: "board", text: format!("no device tree for the {}", lacking.join(" and the ")) });
    }
}

/// Is there an init, and can the kernel run it?
fn init(evidence: &Evidence, model: Model, verdict: &mut Verdict) {
    let mut issue = |id, text: String| verdict.issues.push(Issue { id, text });
    let (path, architecture) = match &evidence.init {
        Init::Missing => {
            return issue("no-init", "the root has no /sbin/init: the kernel would have nothing to start".to_owned());
        }
        Init::Program(path, architecture) => (path, architecture.as_str()),
        Init::Unknown => return,
    };
    let Some(kernel) = verdict.loads.kernel.clone() else { return };
    if model == Model::Pi1 && evidence.bits(&kernel) == Some(64) {
        return issue("no-kernel", format!("{kernel} is a 64-bit kernel: a {model} starts none"));
    }
    match (architecture, evidence.bits(&kernel)) {
        ("aarch64", Some(32)) => {
            let has_64 =
                matches!(model, Model::Pi3 | Model::Pi3Plus | Model::Pi4) && evidence.files.contains("kernel8.img");
            let cure = if has_64 { ": set arm_64bit=1 in config.txt" } else { "" };
            issue(
                "wrong-architecture",
                format!("{path} is a 64-bit program and {kernel}, which a {model} starts, a 32-bit kernel{cure}"),
            );
        }
        ("armhf", Some(64)) if kernel.ends_with("kernel_2712.img") => {
            let text = format!(
                "{path} is a 32-bit program, and {kernel} has pages of 16 KB, with which not all of those run; kernel=kernel8.img in config.txt avoids that"
            );
            verdict.partial.push(Issue { id: "page-size", text });
        }
        ("aarch64" | "armhf", _) => {
            if model == Model::Pi2 && evidence.bits(&kernel) == Some(64) {
                let text = format!("{kernel} is a 64-bit kernel: only a 2B v1.2 starts it");
                verdict.partial.push(Issue { id: "board", text });
            }
        }
        (other, _) => {
            issue("wrong-architecture", format!("{path} is a program for {other}: no Raspberry Pi runs that"))
        }
    }
}

/// Can the kernel, by itself or with its initramfs, mount a root over the network?
fn root(evidence: &Evidence, model: Model, verdict: &mut Verdict) {
    let Some(kernel) = verdict.loads.kernel.clone() else { return };
    let (release, parts) = evidence.parts(&kernel);
    let called = release.as_ref().map_or_else(|| kernel.clone(), |release| format!("{kernel} ({release})"));
    verdict.alone = all([parts.nfs_root(), network_of(model, &parts, None)]);
    if verdict.alone == Built::In {
        return;
    }
    let Some(name) = verdict.loads.initramfs.first().cloned() else {
        let missing = missing(model, &parts, None);
        match verdict.alone {
            Built::Unknown => unknown(verdict, format!("whether {called} can mount a root over NFS could not be told")),
            _ => verdict.issues.push(Issue {
                id: "no-nfs-root",
                text: format!("{called} cannot mount a root over the network by itself ({missing}), and no initramfs is loaded that could"),
            }),
        }
        return;
    };
    let Some(Some(initramfs)) = evidence.initramfs.get(&name) else {
        // Not looked at, or packed with something else; what the image's own tools made is taken to work.
        if evidence.initramfs.contains_key(&name) {
            unknown(verdict, format!("{name} could not be read: whether it can mount a root over NFS is not known"));
        }
        return;
    };
    let mut initramfs = initramfs.clone();
    if release.is_some_and(|release| !initramfs.releases.is_empty() && !initramfs.releases.contains(&release)) {
        // Modules of another kernel are none.
        initramfs.modules.clear();
    }
    let initramfs = &initramfs;
    let with = all([
        network_of(model, &parts, Some(initramfs)),
        reachable("nfs", &parts, Some(initramfs)),
        reachable("nfsv3", &parts, Some(initramfs)),
        if initramfs.mounts_nfs { Built::In } else { Built::Absent },
    ]);
    match with {
        Built::In => {}
        Built::Unknown => {
            unknown(verdict, format!("whether {called} with {name} can mount a root over NFS could not be told"))
        }
        Built::Module | Built::Absent => verdict.issues.push(Issue {
            id: "no-nfs-root",
            text: format!(
                "{called} with {name} cannot mount a root over the network: {}",
                missing(model, &parts, Some(initramfs))
            ),
        }),
    }
}

fn unknown(verdict: &mut Verdict, text: String) {
    verdict.partial.push(Issue { id: "nfs-root-unknown", text });
}

fn all<const N: usize>(parts: [Built; N]) -> Built {
    if parts.iter().any(|built| matches!(built, Built::Absent | Built::Module)) {
        Built::Absent
    } else if parts.contains(&Built::Unknown) {
        Built::Unknown
    } else {
        Built::In
    }
}

fn network_of(model: Model, parts: &Parts, initramfs: Option<&Initramfs>) -> Built {
    let groups = network(model).iter().map(|group| {
        let built: Vec<Built> = group.iter().map(|part| reachable(part, parts, initramfs)).collect();
        [Built::In, Built::Unknown].into_iter().find(|wanted| built.contains(wanted)).unwrap_or(Built::Absent)
    });
    groups.fold(Built::In, |so_far, built| all([so_far, built]))
}

/// What is lacking, in words.
fn missing(model: Model, parts: &Parts, initramfs: Option<&Initramfs>) -> String {
    let lacks = |part: &&'static str| reachable(part, parts, initramfs) != Built::In;
    let mut words: Vec<String> = Vec::new();
    for group in network(model).iter().filter(|group| group.iter().all(&lacks)) {
        words.push(format!("no driver {}", group.join(" or ")));
    }
    for part in ["nfs", "nfsv3"].iter().filter(|part| lacks(part)) {
        words.push(format!("no {part}"));
    }
    match initramfs {
        Some(initramfs) if !initramfs.mounts_nfs => words.push("nothing in it that mounts NFS".to_owned()),
        None if parts.nfs_root() != Built::In => words.push("no NFS root built in".to_owned()),
        _ => {}
    }
    words.join(", ")
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
