//! Boot options through a dnsmasq that is not OpenWrt's: a drop-in file in its `conf-dir`.
//!
//! `piboot.conf` is written once and again only when the router's address changes; which Pis are enrolled stands in a
//! directory that dnsmasq watches (`dhcp-hostsdir`), so that enrolling needs no restart. Only enrolled hardware
//! addresses get the tag, and only the tag gets the options: nobody else on the LAN sees a change.

use std::fmt::Write as _;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::options::{boot_menu, hex};
use crate::pi::Mac;

const TAG: &str = "piboot";

/// An enrolled Pi as dnsmasq is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its hardware address.
    pub mac: Mac,
    /// Its host name, checked by `config` (letters, digits, `-`).
    pub hostname: String,
}

/// What a reconcile did, and what is left to do by hand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Files were written.
    pub changed: bool,
    /// dnsmasq reads `piboot.conf` only when it starts: it has to be restarted once.
    pub restart_needed: bool,
}

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
}

/// Makes the drop-in say exactly this; does nothing when it does already.
///
/// # Errors
/// When the directory is missing or not writable.
pub fn reconcile(confdir: &Path, server: Ipv4Addr, hosts: &[Host]) -> Result<Outcome, DropInError> {
    if !confdir.is_dir() {
        return Err(DropInError::NoDirectory(confdir.to_owned()));
    }
    let hosts_dir = confdir.join("piboot-hosts.d");
    // Before piboot.conf: dnsmasq refuses to start when a directory it shall watch is missing.
    std::fs::create_dir_all(&hosts_dir).map_err(|e| DropInError::Write(hosts_dir.clone(), e))?;
    let hosts_changed = write_if_changed(&hosts_dir.join("enrolled"), &hosts_file(hosts))?;
    let restart_needed = write_if_changed(&confdir.join("piboot.conf"), &conf_file(&hosts_dir, server))?;
    Ok(Outcome { changed: hosts_changed || restart_needed, restart_needed })
}

/// Takes the drop-in away; true if there was one. dnsmasq has to be restarted then.
///
/// # Errors
/// When a file cannot be removed.
pub fn remove(confdir: &Path) -> Result<bool, DropInError> {
    let conf = confdir.join("piboot.conf");
    let hosts_dir = confdir.join("piboot-hosts.d");
    let gone = |path: &Path, result: io::Result<()>| match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DropInError::Write(path.to_owned(), error)),
    };
    // The file first: it must never name a directory that is gone.
    let had_conf = gone(&conf, std::fs::remove_file(&conf))?;
    let had_hosts = gone(&hosts_dir, std::fs::remove_dir_all(&hosts_dir))?;
    Ok(had_conf || had_hosts)
}

/// Has a running dnsmasq read its hosts anew (SIGHUP), which is how it forgets removed ones.
/// False when the process id file names no running dnsmasq.
#[must_use]
pub fn reload(pidfile: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(pidfile) else { return false };
    let Ok(pid) = text.trim().parse::<i32>() else { return false };
    // A stale file may name a process that is something else by now.
    let is_dnsmasq = std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "dnsmasq");
    pid > 1 && is_dnsmasq && kill(Pid::from_raw(pid), Signal::SIGHUP).is_ok()
}

fn conf_file(hosts_dir: &Path, server: Ipv4Addr) -> String {
    format!(
        "# Written by piboot: boot options for enrolled Raspberry Pis, and for nobody else.\n\
         dhcp-hostsdir={}\n\
         dhcp-option-force=tag:{TAG},43,{}\n\
         dhcp-option-force=tag:{TAG},60,PXEClient\n\
         dhcp-option-force=tag:{TAG},66,{server}\n",
        hosts_dir.display(),
        hex(&boot_menu()),
    )
}

fn hosts_file(hosts: &[Host]) -> String {
    let mut text = String::new();
    for host in hosts {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{},set:{TAG},{}", host.mac, host.hostname);
    }
    text
}

/// Replaces `path` atomically unless it says `text` already; true if it was written.
fn write_if_changed(path: &Path, text: &str) -> Result<bool, DropInError> {
    if std::fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(false);
    }
    // dnsmasq skips names that start with a dot, so it never reads a half-written file.
    crate::storage::write_beside(path, text.as_bytes(), 0o644).map_err(|e| DropInError::Write(path.to_owned(), e))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_reconcile_does_nothing_and_removal_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = [Host { mac: "dc:a6:32:79:26:df".parse().unwrap(), hostname: "lion".to_owned() }];
        let server = Ipv4Addr::new(192, 168, 1, 1);
        let first = reconcile(dir.path(), server, &hosts).unwrap();
        assert_eq!(first, Outcome { changed: true, restart_needed: true });
        assert_eq!(reconcile(dir.path(), server, &hosts).unwrap(), Outcome::default());
        let without = reconcile(dir.path(), server, &[]).unwrap();
        assert_eq!(without, Outcome { changed: true, restart_needed: false }, "enrolling needs no restart");
        assert!(remove(dir.path()).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(!remove(dir.path()).unwrap());
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = reconcile(Path::new("/nonexistent/dnsmasq.d"), Ipv4Addr::LOCALHOST, &[]).unwrap_err();
        assert!(error.to_string().contains("'/nonexistent/dnsmasq.d' does not exist"));
    }

    #[test]
    fn only_a_running_dnsmasq_is_signalled() {
        let dir = tempfile::tempdir().unwrap();
        let pidfile = dir.path().join("pid");
        for text in ["", "nonsense", "1", "-1", &std::process::id().to_string()] {
            std::fs::write(&pidfile, text).unwrap();
            assert!(!reload(&pidfile), "{text}");
        }
    }
}
