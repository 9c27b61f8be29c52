//! Boot options through OpenWrt's dnsmasq: our sections in its package, a reload by procd, and the way back if dnsmasq does
//! not come up with them. A LAN without DHCP and DNS is worse than a Pi that does not boot.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::sections::{self, Client};
use super::trial;
use crate::clock::Clock;
use crate::config::file;
use crate::config::uci::Section;
use crate::config::{FileError, replace_sections};

const PACKAGE: &str = "dhcp";
/// procd waits a second for more changes before it reloads a service, and dnsmasq takes moments to start.
const RELOAD: Duration = Duration::from_millis(2500);
/// So long has dnsmasq to run without a change of process before it is believed to have started.
const STEADY: Duration = Duration::from_secs(2);
/// After this time it has not.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often procd is asked meanwhile.
const GLANCE: Duration = Duration::from_millis(500);
/// Where the init script writes what it makes of the package.
const GENERATED: &str = "/var/etc";

/// procd as it is reached over ubus.
pub trait Broker: Send + Sync {
    /// Calls a method of an object.
    ///
    /// # Errors
    /// Why there is no answer.
    fn call(&self, object: &str, method: &str, arguments: Value) -> Result<Value, String>;
}

/// Why dnsmasq does not have what it should have.
#[derive(Debug, thiserror::Error)]
pub enum OpenWrtError {
    /// A configuration file could not be read or changed.
    #[error(transparent)]
    File(#[from] FileError),
    /// dnsmasq would not take our lines; nothing was changed.
    #[error("dnsmasq would refuse the boot options, so nothing was changed: {0}")]
    Refused(String),
    /// dnsmasq would not start any more, by somebody else's doing; nothing was changed.
    #[error(
        "/etc/config/dhcp has something that dnsmasq refuses, so it is left alone until that is mended, because dnsmasq would not start again: {0}"
    )]
    Broken(String),
    /// procd was not told: dnsmasq goes on with what it had.
    #[error("/etc/config/dhcp is changed, but procd could not be told ({0}): run '/etc/init.d/dnsmasq reload'")]
    NotTold(String),
    /// dnsmasq did not come up; the sections from before are back.
    #[error("dnsmasq did not start with the boot options, so they were taken back: {0}")]
    TakenBack(String),
}

impl OpenWrtError {
    /// Whether it may well work the next time.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::File(_) | Self::NotTold(_))
    }
}

/// What became of a reload.
enum Outcome {
    /// dnsmasq runs with what is there now.
    Up,
    /// It runs as before: nobody has reloaded it.
    Unmoved,
    /// It does not run.
    Down,
}

/// dnsmasq's package, and who reloads it.
pub struct OpenWrt {
    broker: Box<dyn Broker>,
    clock: Clock,
    scratch: PathBuf,
}

impl OpenWrt {
    /// For the machine that `broker` belongs to; `scratch` is a directory of the agent's own.
    #[must_use]
    pub fn new(broker: Box<dyn Broker>, clock: Clock, scratch: PathBuf) -> Self {
        Self { broker, clock, scratch }
    }

    /// The package as it is committed.
    ///
    /// # Errors
    /// [`OpenWrtError::File`].
    pub fn package(&self, name: &str) -> Result<Vec<Section>, OpenWrtError> {
        Ok(file::sections(&file::package(name))?)
    }

    /// Makes dnsmasq give these Pis what they need, and nobody else; true if that took a change. Takes seconds then.
    ///
    /// # Errors
    /// [`OpenWrtError`]; what it says about dnsmasq is the state at the end.
    pub fn reconcile(&self, server: Ipv4Addr, clients: &[Client]) -> Result<bool, OpenWrtError> {
        let package = self.package(PACKAGE)?;
        let ours = sections::wanted(&package, server, clients);
        if self.has(&ours)? {
            // An agent that ended in the middle, or could not reach procd, left the rest to be done.
            return if self.marker().exists() { self.see_through(&[], &[], 1).map(|()| true) } else { Ok(false) };
        }
        let others = sections::directives_of_others(&package);
        self.test_lines(&others).map_err(OpenWrtError::Broken)?;
        // Together: a line can be good by itself and a duplicate of another.
        self.test_lines(&format!("{others}{}", sections::directives(&ours))).map_err(OpenWrtError::Refused)?;
        self.replace(&ours)
    }

    /// Takes everything of ours out of the package; true if there was something.
    ///
    /// # Errors
    /// [`OpenWrtError`].
    pub fn withdraw(&self) -> Result<bool, OpenWrtError> {
        self.replace(&[])
    }

    /// Has dnsmasq check lines before it has to start with them.
    fn test_lines(&self, lines: &str) -> Result<(), String> {
        trial::check_lines(lines, &self.scratch.join("dnsmasq.trial"))
    }

    /// There while dnsmasq may not have read, or not have survived, what is in the package.
    fn marker(&self) -> PathBuf {
        self.scratch.join("dnsmasq.unread")
    }

    /// Whether these are our sections now.
    fn has(&self, ours: &[Section]) -> Result<bool, FileError> {
        let text = file::text(&file::package(PACKAGE))?;
        Ok(replace_sections(&text, sections::is_ours, ours)?.is_none())
    }

    fn replace(&self, ours: &[Section]) -> Result<bool, OpenWrtError> {
        if self.has(ours)? {
            return Ok(false);
        }
        let before: Vec<Section> = self.package(PACKAGE)?.into_iter().filter(sections::is_ours).collect();
        let ran = self.settled_processes();
        let marker = self.marker();
        crate::storage::write_beside(&marker, b"", 0o600).map_err(|e| FileError::Write(marker, e))?;
        self.write(ours)?;
        self.see_through(&before, &ran, ran.len())?;
        Ok(true)
    }

    /// Tells procd that the package changed, and watches until so many instances run without one of the old processes. If
    /// they do not come up, `before` takes the place of our sections.
    fn see_through(&self, before: &[Section], old: &[i64], count: usize) -> Result<(), OpenWrtError> {
        self.announce(PACKAGE).map_err(OpenWrtError::NotTold)?;
        // What did not run before is not ours to judge by.
        let outcome = if count == 0 { Outcome::Up } else { self.watch(old, count) };
        let result = match outcome {
            Outcome::Up => Ok(()),
            Outcome::Unmoved => return Err(OpenWrtError::NotTold("dnsmasq was not started anew".to_owned())),
            Outcome::Down => {
                let why = self.why_it_does_not_run();
                self.write(before)?;
                self.announce(PACKAGE).map_err(OpenWrtError::NotTold)?;
                Err(OpenWrtError::TakenBack(why))
            }
        };
        // It may be gone already.
        let _ = std::fs::remove_file(self.marker());
        result
    }

    /// Puts these sections in the place of ours; others may have changed theirs meanwhile, and keep them.
    fn write(&self, ours: &[Section]) -> Result<bool, FileError> {
        file::edit(&file::package(PACKAGE), |text| replace_sections(text, sections::is_ours, ours))
    }

    /// Tells procd that a package changed, as rpcd does after a commit.
    ///
    /// # Errors
    /// Why it could not be told.
    pub fn announce(&self, package: &str) -> Result<(), String> {
        let event = json!({ "type": "config.change", "data": { "package": package } });
        self.broker.call("service", "event", event).map(|_| ())
    }

    /// The processes of the dnsmasq instances that run: as procd says, or where it does not, by their name.
    fn processes(&self) -> Vec<i64> {
        let Ok(services) = self.broker.call("service", "list", json!({ "name": "dnsmasq" })) else {
            return by_name("dnsmasq");
        };
        let instances = services.get("dnsmasq").and_then(|service| service.get("instances")).and_then(Value::as_object);
        let process = |instance: &Value| {
            let runs = instance.get("running").and_then(Value::as_bool) == Some(true);
            if runs { instance.get("pid").and_then(Value::as_i64) } else { None }
        };
        let mut processes: Vec<i64> = instances.into_iter().flat_map(|all| all.values()).filter_map(process).collect();
        processes.sort_unstable();
        processes
    }

    /// The same; for a moment in which dnsmasq is being restarted, those that run after it.
    fn settled_processes(&self) -> Vec<i64> {
        let begun = self.clock.now();
        loop {
            let processes = self.processes();
            if !processes.is_empty() || self.clock.now().since(begun) >= RELOAD {
                return processes;
            }
            thread::sleep(GLANCE);
        }
    }

    /// Whether so many instances run, and go on running, without one of these processes.
    fn watch(&self, old: &[i64], count: usize) -> Outcome {
        thread::sleep(RELOAD);
        let begun = self.clock.now();
        let mut same = (self.processes(), begun);
        loop {
            let (processes, now) = (self.processes(), self.clock.now());
            if processes != same.0 {
                same = (processes, now);
            }
            let (enough, is_new) = (same.0.len() >= count, !same.0.iter().any(|process| old.contains(process)));
            if enough && is_new && now.since(same.1) >= STEADY {
                return Outcome::Up;
            }
            if now.since(begun) >= PATIENCE {
                return if enough && !is_new { Outcome::Unmoved } else { Outcome::Down };
            }
            thread::sleep(GLANCE);
        }
    }

    /// dnsmasq's own words about the files that its init script has generated.
    fn why_it_does_not_run(&self) -> String {
        let files = std::fs::read_dir(GENERATED).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_its =
            |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("dnsmasq.conf."));
        let refusals = files.filter(|path| is_its(path)).filter_map(|path| trial::check_file(&path).err());
        let refusals: Vec<String> = refusals.collect();
        if refusals.is_empty() { "'logread -e dnsmasq' may say why".to_owned() } else { refusals.join("; ") }
    }
}

/// Processes whose program has this name (proc(5): stat), in order.
fn by_name(name: &str) -> Vec<i64> {
    let marker = format!(" ({name}) ");
    let stats = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path().join("stat"));
    let texts = stats.filter_map(|path| std::fs::read_to_string(path).ok());
    let mut processes: Vec<i64> =
        texts.filter_map(|text| text.split_once(&marker).and_then(|(pid, _)| pid.parse().ok())).collect();
    processes.sort_unstable();
    processes
}
