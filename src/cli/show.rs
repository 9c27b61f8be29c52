//! Answers as text for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::api::types::{Boots, DeviceDetail, DeviceInfo, Devices, Finding, Images, JobList, Snapshots, Status};
use crate::config::Severity;
use crate::events::{Dhcp, DhcpKind};
use crate::fleet::Snapshot;
use crate::image::fit::Fit;
use crate::jobs::Job;

/// `25.8 MB`
pub(super) fn megabytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / 1_000_000;
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{} kB", bytes / 1000),
        1_000_000..1_000_000_000 => format!("{}.{} MB", tenths / 10, tenths % 10),
        _ => format!("{}.{} GB", tenths / 10_000, tenths / 1000 % 10),
    }
}

/// `3 min ago`
pub(super) fn ago(then_ms: i64, now_ms: i64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        ..5 => "just now".to_owned(),
        5..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

pub(super) fn seconds(ms: u32) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

fn or_dash<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

fn space(measured: Option<u64>) -> String {
    measured.map_or_else(|| "-".to_owned(), megabytes)
}

/// `1.2 GB of 8.0 GB` where there is a quota.
fn space_of(device: &DeviceInfo) -> String {
    match device.quota {
        Some(quota) => format!("{} of {}", space(device.used), megabytes(quota)),
        None => space(device.disk_bytes),
    }
}

/// Columns as wide as their widest cell; nothing at all for no rows.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head: Vec<String> = head.iter().map(|h| (*h).to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let width =
        |column: usize| lines.iter().filter_map(|l| l.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

pub(super) fn findings(findings: &[Finding]) -> String {
    findings.iter().fold(String::new(), |mut text, finding| {
        let word = if finding.severity == Severity::Error { "error" } else { "warning" };
        let _ = writeln!(text, "{word}: {}: {}", finding.place, finding.text);
        text
    })
}

pub(super) fn status(status: &Status) -> String {
    let storage = &status.storage;
    let on_off = |serving: bool| if serving { "serving" } else { "not serving" };
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:9} {value}");
    };
    line(
        "piboot",
        format!("{}, up {} s, address {}", status.version, status.uptime_s, or_dash(status.server.as_ref())),
    );
    line("dhcp", status.dhcp.clone());
    let tftp = &status.tftp;
    line(
        "tftp",
        format!(
            "{}, {} transfers under way, {} since start ({})",
            on_off(tftp.serving),
            tftp.active,
            tftp.transfers,
            megabytes(tftp.bytes)
        ),
    );
    let nfs = &status.nfs;
    line(
        "nfs",
        match nfs.serving {
            true => format!(
                "on, {} connections, {} requests since start, {}",
                nfs.connections, nfs.requests, nfs.portmapper
            ),
            false => nfs.external.as_ref().map_or_else(|| on_off(false).to_owned(), |at| format!("on {at}")),
        },
    );
    line(
        "storage",
        format!(
            "{} ({}), {} free of {}",
            storage.data_dir,
            storage.file_system.as_deref().unwrap_or("?"),
            megabytes(storage.free_bytes),
            megabytes(storage.total_bytes)
        ),
    );
    line(
        "pis",
        format!(
            "{} enrolled ({} ready), {} waiting to be enrolled",
            status.devices, status.devices_ready, status.pending
        ),
    );
    line("jobs", status.jobs.to_string());
    if status.events_dropped > 0 {
        line("dropped", format!("{} events: boot timelines have gaps", status.events_dropped));
    }
    text + &findings(&status.findings)
}

pub(super) fn devices(devices: &Devices, now_ms: i64) -> String {
    let rows: Vec<Vec<String>> = devices.devices.iter().map(|d| device_row(d, now_ms)).collect();
    let mut text =
        table(&["DEVICE", "STATE", "MAC", "SERIAL", "BOARD", "IMAGE", "SPACE", "ADDRESS", "LAST BOOT"], &rows);
    for device in &devices.devices {
        if let Some(why) = &device.why {
            let _ = writeln!(text, "{}: {why}", device.id);
        }
    }
    if !devices.pending.is_empty() {
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "waiting to be enrolled:");
        let rows: Vec<Vec<String>> = devices
            .pending
            .iter()
            .map(|p| {
                let asked = if p.asked == 1 { "once".to_owned() } else { format!("{} times", p.asked) };
                let seen = ago(p.last_seen_ms, now_ms);
                vec![p.mac.to_string(), or_dash(p.serial.as_ref()), p.board.clone(), asked, seen, p.sure.clone()]
            })
            .collect();
        text += &table(&["MAC", "SERIAL", "BOARD", "ASKED", "LAST SEEN", "IS A PI"], &rows);
        // Boards of one kind do the same.
        let mut outlooks: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
        for p in &devices.pending {
            outlooks.entry((&p.waits_for, &p.next)).or_default().push(p.mac.to_string());
        }
        for ((waits_for, next), macs) in outlooks {
            let _ = writeln!(text, "{}: {waits_for}; {next}", macs.join(", "));
        }
    }
    if text.is_empty() {
        text = "no Pi is enrolled and none was seen yet\n".to_owned();
    }
    text
}

fn device_row(device: &DeviceInfo, now_ms: i64) -> Vec<String> {
    vec![
        device.id.clone(),
        device.job.map_or_else(|| device.state.clone(), |job| format!("{} (job {job})", device.state)),
        or_dash(device.mac.as_ref()),
        or_dash(device.serial.as_ref()),
        or_dash(device.board.as_ref()),
        if device.ephemeral { format!("{}, ephemeral", device.image) } else { device.image.clone() },
        space_of(device),
        or_dash(device.ip.as_ref()),
        device.boot.as_ref().map_or_else(|| "-".to_owned(), |b| ago(b.started_ms, now_ms)),
    ]
}

pub(super) fn device(detail: &DeviceDetail, now_ms: i64) -> String {
    let mut text = devices(&Devices { devices: vec![detail.info.clone()], pending: Vec::new() }, now_ms);
    let _ = writeln!(text, "\nhost name       {}", detail.info.hostname);
    if let Some(ip) = detail.fixed_ip {
        let _ = writeln!(text, "address         {ip}, always");
    }
    let password = if detail.has_password { "a password is configured" } else { "password as in the image" };
    let _ = writeln!(text, "user            {}, {password}", detail.user.as_deref().unwrap_or("as in the image"));
    for key in &detail.ssh_keys {
        let _ = writeln!(text, "ssh key         {key}");
    }
    let how = detail.made_by.as_deref().map(|how| format!("root made by {how}"));
    let began = detail.clone_of.as_ref().map(|original| format!("began as {original}"));
    let kept = (detail.snapshots > 0).then(|| format!("{} snapshots", detail.snapshots));
    let rolls =
        (detail.rollback_after > 0).then(|| format!("rolled back after {} failed boots", detail.rollback_after));
    let facts: Vec<String> = [how, began, kept, rolls].into_iter().flatten().collect();
    if !facts.is_empty() {
        let _ = writeln!(text, "{}", facts.join(", "));
    }
    if !detail.changes.is_empty() {
        let _ = writeln!(text, "\nchanged in its copy of the image:");
        let rows: Vec<Vec<String>> =
            detail.changes.iter().map(|c| vec![c.rule.to_string(), c.path.to_string(), c.what.to_string()]).collect();
        text += &table(&["RULE", "FILE", "CHANGE"], &rows);
    }
    for note in &detail.notes {
        let _ = writeln!(text, "note: {}: {}", note.path, note.what);
    }
    text
}

pub(super) fn images(images: &Images) -> String {
    let rows: Vec<Vec<String>> = images
        .images
        .iter()
        .map(|i| {
            let used_by = if i.used_by.is_empty() { "-".to_owned() } else { i.used_by.join(", ") };
            let boots = or_dash(i.info.fits.as_ref().map(|fits| boots_of(fits)).as_ref());
            vec![
                i.info.name.clone(),
                or_dash(i.info.os.as_ref()),
                megabytes(i.info.root_bytes),
                space(i.used_bytes),
                boots,
                used_by,
            ]
        })
        .collect();
    match table(&["IMAGE", "SYSTEM", "ROOT", "SPACE", "BOOTS", "USED BY"], &rows) {
        text if text.is_empty() => {
            "no image was imported yet: 'piboot image import FILE --name NAME' does it\n".to_owned()
        }
        text => text,
    }
}

/// `pi3 pi3+ pi4`, or that it boots none.
fn boots_of(fits: &[Fit]) -> String {
    let names: Vec<&str> = fits.iter().filter(|fit| fit.ok).map(|fit| fit.model.name()).collect();
    if names.is_empty() { "no Pi".to_owned() } else { names.join(" ") }
}

/// Each family, whether an image boots it, and why not.
pub(super) fn fits(fits: &[Fit]) -> String {
    let row = |fit: &Fit| {
        let words: Vec<&str> = std::iter::once(fit.why.as_str())
            .chain(fit.partial.iter().map(String::as_str))
            .filter(|w| !w.is_empty())
            .collect();
        let boots = if fit.ok { "yes" } else { "no" };
        vec![fit.model.to_string(), boots.to_owned(), or_dash(fit.kernel.as_ref()), words.join("; ")]
    };
    table(&["BOARD", "BOOTS", "KERNEL", "BECAUSE"], &fits.iter().map(row).collect::<Vec<_>>())
}

pub(super) fn jobs(jobs: &JobList, now_ms: i64) -> String {
    let row = |j: &Job| {
        let when = if j.finished_ms > 0 { ago(j.finished_ms, now_ms) } else { "-".to_owned() };
        vec![
            j.id.to_string(),
            word(&j.kind),
            j.subject.clone(),
            word(&j.state),
            megabytes(j.bytes),
            when,
            j.message.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = jobs.jobs.iter().map(row).collect();
    match table(&["JOB", "KIND", "OF", "STATE", "DONE", "ENDED", "RESULT"], &rows) {
        text if text.is_empty() => "there were no jobs yet\n".to_owned(),
        text => text,
    }
}

/// The word serde writes for a unit variant.
pub(super) fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

pub(super) fn boots(boots: &Boots, now_ms: i64) -> String {
    let rows: Vec<Vec<String>> = boots
        .boots
        .iter()
        .map(|b| {
            vec![
                b.id.to_string(),
                b.device.clone().unwrap_or_else(|| b.mac.to_string()),
                ago(b.started_ms, now_ms),
                word(&b.state),
                format!("{} after {}", b.stage, seconds(b.took_ms)),
                megabytes(b.tftp_bytes),
                b.finding.clone().or_else(|| b.end.map(|end| end.text().to_owned())).unwrap_or_default(),
            ]
        })
        .collect();
    match table(&["BOOT", "DEVICE", "BEGAN", "STATE", "GOT AS FAR AS", "TFTP", ""], &rows) {
        text if text.is_empty() => "no boot was seen yet\n".to_owned(),
        text => text,
    }
}

pub(super) fn dhcp(seen: &Dhcp) -> String {
    let mut text = format!("{:?} of {}, transaction {:08x}\n", seen.kind, seen.mac, seen.xid);
    let ip = |ip: Option<std::net::Ipv4Addr>| ip.map_or_else(|| "none".to_owned(), |ip| ip.to_string());
    if matches!(seen.kind, DhcpKind::Offer | DhcpKind::Ack | DhcpKind::Nak) {
        let menu = if seen.boot_menu { "Raspberry Pi Boot" } else { "none for Pis" };
        let _ = writeln!(
            text,
            "server  {}\naddress {}\ntftp    {}\nmenu    {menu}",
            ip(seen.server),
            ip(seen.ip),
            ip(seen.tftp)
        );
        return text;
    }
    match &seen.identity {
        Some(pi) => {
            let board = pi.revision.map(|r| r.to_string()).or_else(|| pi.model.map(|m| m.to_string()));
            let _ = writeln!(text, "a Raspberry Pi, told by {}", word(&pi.evidence));
            let _ = writeln!(text, "board   {}", board.unwrap_or_else(|| "not told".to_owned()));
            let _ = writeln!(text, "serial  {}", pi.serial.map_or_else(|| "not told".to_owned(), |s| s.to_string()));
        }
        None => text.push_str("no Raspberry Pi\n"),
    }
    let _ = writeln!(text, "{}", if seen.netboot { "asks to boot from the network" } else { "does not ask to boot" });
    text
}

pub(super) fn snapshots(of: &Snapshots, now_ms: i64) -> String {
    let row = |s: &Snapshot| {
        vec![
            s.name.clone(),
            ago(s.made_ms, now_ms),
            s.image.clone(),
            megabytes(s.copied_bytes),
            if s.whole { "all".to_owned() } else { megabytes(s.shared_bytes) },
        ]
    };
    let rows: Vec<Vec<String>> = of.snapshots.iter().map(row).collect();
    match table(&["SNAPSHOT", "TAKEN", "IMAGE", "COPIED", "SHARED"], &rows) {
        text if text.is_empty() => format!("{} has no snapshots: 'piboot snapshot take {}' takes one\n", of.id, of.id),
        text => text,
    }
}

/// Blink codes, a line each.
pub(super) fn leds(codes: &[crate::pi::LedCode]) -> String {
    let row = |code: &crate::pi::LedCode| {
        vec![code.long.to_string(), code.short.to_string(), code.meaning.to_owned(), code.todo.to_owned()]
    };
    table(&["LONG", "SHORT", "MEANS", "WHAT TO DO"], &codes.iter().map(row).collect::<Vec<_>>())
}

/// `name: value` lines of an object, for answers that are a list of facts.
pub(super) fn members(value: &Value) -> String {
    let mut text = String::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _ = writeln!(text, "{name}: {shown}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_well() {
        for (bytes, text) in [(0, "0 B"), (1500, "1 kB"), (25_800_000, "25.8 MB"), (1_290_000_000, "1.2 GB")] {
            assert_eq!(megabytes(bytes), text);
        }
        assert_eq!(ago(0, 4_000), "just now");
        assert_eq!(ago(0, 125_000), "2 min ago");
        assert_eq!(ago(10, 0), "just now", "a clock that was set back");
    }
}
