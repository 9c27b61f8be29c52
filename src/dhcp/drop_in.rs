//! Boot options through a dnsmasq that is not OpenWrt's: one drop-in file in its `conf-dir`.
//!
//! Each enrolled hardware address gets a tag, and only the tag gets the options: nobody else on the LAN sees a change.
//!
//! dnsmasq reads such a file when it starts. Its files for changing hosts without a restart (`dhcp-hostsfile`,
//! `dhcp-hostsdir`) are no way out: dnsmasq 2.90 follows a dangling pointer (`dhcp_netid_free`) and dies on the first
//! SIGHUP after it answered a host with a tag from such a file, and the LAN's DHCP dies with it.
//!
//! Addresses are in such a file all the same, without tags: one that the admin has given to a host already is an error in
//! the log there, and his line holds. In the drop-in itself it would keep dnsmasq from starting.

use std::fmt::Write as _;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fingerprint::ROM_GUID;
use super::options::{boot_menu, hex};
use super::trial;
use crate::clock::Clock;
use crate::pi::Mac;

const TAG: &str = "piboot";
/// The boot ROM of a Pi 3B, by the option 97 that nothing else sends.
const ROM_TAG: &str = "piboot_rom";
const FILE: &str = "piboot.conf";
/// Addresses beside the drop-in; dnsmasq takes no names that start with a dot for configuration.
const HOSTS: &str = ".piboot.hosts";
/// Stands beside the drop-in while dnsmasq has not read it; dnsmasq skips names that start with a dot.
const UNREAD: &str = ".piboot.conf.unread";

/// Why the drop-in could not be brought about.
#[derive(Debug, thiserror::Error)]
pub enum DropInError {
    /// The directory does not exist.
    #[error(
        "dnsmasq_confdir '{0}' does not exist: name the directory of dnsmasq's conf-dir line (Debian: /etc/dnsmasq.d)"
    )]
    NoDirectory(PathBuf),
    /// A file could not be written.
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, io::Error),
    /// dnsmasq would not start with it.
    #[error("{0} was left as it was, because dnsmasq would refuse the new one: {1}")]
    Refused(PathBuf, String),
}

/// Makes the drop-in name exactly these Pis, with the address that each is to have, if any; true if that took a change, and
/// dnsmasq has to be restarted to read it. `delay` says whether the boot ROM of a Pi 3B is to be answered a second later
/// ([`Quirk::ReplyDelay`](crate::pi::quirks::Quirk::ReplyDelay)). dnsmasq answers nobody else's DHCP during that second.
///
/// # Errors
/// When the directory is missing or not writable, or dnsmasq would refuse the file; it is then as it was.
pub fn reconcile(
    confdir: &Path,
    server: Ipv4Addr,
    enrolled: &[(Mac, Option<Ipv4Addr>)],
    delay: bool,
) -> Result<bool, DropInError> {
    if !confdir.is_dir() {
        return Err(DropInError::NoDirectory(confdir.to_owned()));
    }
    let (path, hosts) = (confdir.join(FILE), confdir.join(HOSTS));
    let addresses = addresses(enrolled);
    let says = |path: &Path, text: &str| std::fs::read(path).is_ok_and(|old| old == text.as_bytes());
    let is_there = |text: &str| says(&path, text) && says(&hosts, &addresses);
    let mut text = content(server, &hosts, enrolled, delay);
    if is_there(&text) {
        return Ok(false);
    }
    match try_out(&path, &text) {
        // dnsmasq before 2.78 cannot wait.
        Err(DropInError::Refused(..)) if delay => {
            text = content(server, &hosts, enrolled, false);
            if is_there(&text) {
                return Ok(false);
            }
            try_out(&path, &text)?;
        }
        result => result?,
    }
    let write = |path: PathBuf, text: &str, mode| {
        crate::storage::write_beside(&path, text.as_bytes(), mode).map_err(|e| DropInError::Write(path, e))
    };
    write(confdir.join(UNREAD), "", 0o600)?;
    write(hosts, &addresses, 0o644)?;
    write(path, &text, 0o644)?;
    Ok(true)
}

/// Whether dnsmasq has not read the drop-in as it is now, as far as can be told: nobody said [`was_read`], and no
/// dnsmasq was started since it was written.
#[must_use]
pub fn is_unread(confdir: &Path) -> bool {
    let Ok(meta) = std::fs::metadata(confdir.join(UNREAD)) else { return false };
    let age_ms = Clock::system().wall_ms().saturating_sub(meta.mtime().saturating_mul(1000));
    if age_of_dnsmasq().is_some_and(|dnsmasq| dnsmasq.as_millis() < u128::try_from(age_ms).unwrap_or(0)) {
        was_read(confdir);
        return false;
    }
    true
}

/// dnsmasq was started after the drop-in was written.
pub fn was_read(confdir: &Path) {
    // It may be gone already.
    let _ = std::fs::remove_file(confdir.join(UNREAD));
}

/// How long ago the dnsmasq that was started last was started (proc(5): starttime, in hundredths of a second since boot).
fn age_of_dnsmasq() -> Option<Duration> {
    let uptime: f64 = std::fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()?;
    let stats = std::fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path().join("stat"));
    let starts = stats.filter_map(|path| {
        let stat = std::fs::read_to_string(path).ok()?;
        let (_, rest) = stat.split_once("(dnsmasq) ")?;
        rest.split(' ').nth(19)?.parse::<f64>().ok()
    });
    let ages = starts.filter_map(|hundredths| Duration::try_from_secs_f64((uptime - hundredths / 100.0).max(0.0)).ok());
    ages.min()
}

/// Takes the drop-in away; true if there was one, and dnsmasq has to be restarted.
///
/// # Errors
/// When it cannot be removed.
pub fn remove(confdir: &Path) -> Result<bool, DropInError> {
    was_read(confdir);
    let remove = |path: PathBuf| match std::fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DropInError::Write(path, error)),
    };
    let was_there = remove(confdir.join(FILE))?;
    remove(confdir.join(HOSTS))?;
    Ok(was_there)
}

fn content(server: Ipv4Addr, hosts: &Path, enrolled: &[(Mac, Option<Ipv4Addr>)], delay: bool) -> String {
    let mut text = format!(
        "# Written by piboot: boot options for enrolled Raspberry Pis, and for nobody else.\n\
         dhcp-hostsfile={}\n\
         dhcp-option-force=tag:{TAG},43,{}\n\
         dhcp-option-force=tag:{TAG},60,PXEClient\n\
         dhcp-option-force=tag:{TAG},66,{server}\n",
        hosts.display(),
        hex(&boot_menu()),
    );
    // Writing to a String cannot fail, here and below.
    if delay {
        let guid = hex(&[&[0][..], &ROM_GUID].concat());
        let _ = writeln!(text, "dhcp-match=set:{ROM_TAG},97,{guid}\ndhcp-reply-delay=tag:{TAG},tag:{ROM_TAG},1");
    }
    for (mac, ip) in enrolled {
        let _ = match ip {
            Some(ip) => writeln!(text, "dhcp-mac=set:{TAG},{mac} # always {ip}"),
            None => writeln!(text, "dhcp-mac=set:{TAG},{mac}"),
        };
    }
    text
}

/// Lines as of `dhcp-host`. Without tags: see the module's comment.
fn addresses(enrolled: &[(Mac, Option<Ipv4Addr>)]) -> String {
    let lines = enrolled.iter().filter_map(|(mac, ip)| ip.map(|ip| format!("{mac},{ip},infinite\n")));
    lines.collect()
}

/// Has dnsmasq check the file before it may see it.
fn try_out(path: &Path, text: &str) -> Result<(), DropInError> {
    // A running dnsmasq skips names that start with a dot.
    let trial = path.with_file_name(".piboot.conf.trial");
    trial::check_lines(text, &trial).map_err(|why| DropInError::Refused(path.to_owned(), why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_reconcile_does_nothing_and_removal_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let lion = ("dc:a6:32:79:26:df".parse().unwrap(), None);
        let server = Ipv4Addr::new(192, 168, 1, 1);
        assert!(reconcile(dir.path(), server, &[lion], true).unwrap());
        assert!(!reconcile(dir.path(), server, &[lion], true).unwrap());
        assert!(reconcile(dir.path(), Ipv4Addr::new(192, 168, 1, 2), &[lion], true).unwrap(), "the router moved");
        let fixed = (lion.0, Some(Ipv4Addr::new(192, 168, 1, 50)));
        assert!(reconcile(dir.path(), server, &[fixed], true).unwrap(), "it is to have an address of its own");
        let hosts = std::fs::read_to_string(dir.path().join(HOSTS)).unwrap();
        assert_eq!(hosts, "dc:a6:32:79:26:df,192.168.1.50,infinite\n");
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        let delay = "dhcp-match=set:piboot_rom,97,00:44:44:44:44:44:44:44:44:44:44:44:44:44:44:44:44\n\
                     dhcp-reply-delay=tag:piboot,tag:piboot_rom,1\n";
        assert!(text.contains(delay), "{text}");
        assert!(reconcile(dir.path(), server, &[fixed], false).unwrap());
        assert_eq!(std::fs::read_to_string(dir.path().join(FILE)).unwrap(), text.replace(delay, ""));
        assert!(remove(dir.path()).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(!remove(dir.path()).unwrap());
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = reconcile(Path::new("/nonexistent/dnsmasq.d"), Ipv4Addr::LOCALHOST, &[], true).unwrap_err();
        assert!(error.to_string().contains("'/nonexistent/dnsmasq.d' does not exist"));
    }

    #[test]
    fn a_file_that_dnsmasq_refuses_never_gets_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let refused = try_out(&path, "dhcp-option-force=tag:piboot,43,\"open\n");
        assert!(matches!(&refused, Err(DropInError::Refused(_, why)) if why.contains("line 1")), "{refused:?}");
        assert!(!path.exists());
    }
}
