//! How enrolled Pis get their boot options, as far as the agent has a hand in it.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::openwrt::{Plan, Worker};
use crate::api::types::Finding;
use crate::clock::{Clock, Moment};
use crate::config::{DhcpMode, Main, Severity, file};
use crate::dhcp::conflicts::{self, Packages};
use crate::dhcp::drop_in;
use crate::dhcp::sections::{self, Client};
use crate::fleet::Wanted;
use crate::pi::Mac;
use crate::pi::quirks::Quirk;

/// How a dnsmasq that systemd runs is restarted; nothing happens if it does not run.
const SYSTEMD_RESTART: [&str; 3] = ["systemctl", "try-restart", "dnsmasq.service"];

/// Whether it runs after that: `try-restart` succeeds even when systemd has given the service up.
const SYSTEMD_CHECK: [&str; 3] = ["systemctl", "is-active", "dnsmasq.service"];
/// systemd gives a service up that starts more than five times in ten seconds (systemd.unit(5), StartLimitBurst): so many
/// restarts at once are safe, and then one at a time.
const RESTARTS_AT_ONCE: usize = 3;
const RESTARTS_WITHIN: Duration = Duration::from_secs(12);

/// Decides who gives enrolled Pis their boot options, and keeps a dnsmasq that is to do so in line with them. The built-in
/// proxy is the observers' part: here it is said where it is to answer.
#[derive(Debug, Default)]
pub(super) struct BootOptions {
    /// OpenWrt's dnsmasq, where this is OpenWrt.
    openwrt: Option<Worker>,
    mode: DhcpMode,
    interfaces: Vec<String>,
    /// Those of them on which the built-in proxy answers.
    proxied: Vec<String>,
    confdir: Option<PathBuf>,
    /// Whether that dnsmasq is to answer some Pis later.
    reply_delay: bool,
    restart: Vec<String>,
    restarts: Arc<Mutex<Restarts>>,
    applied: bool,
    problem: Option<String>,
}

/// Restarts of dnsmasq, which happen on a thread of their own: they may take seconds.
#[derive(Debug, Default)]
struct Restarts {
    running: bool,
    /// Something changed since the one that runs began.
    again: bool,
    /// Why dnsmasq has not read the present drop-in.
    pending: Option<String>,
    /// Nobody but the admin can restart it.
    by_hand: bool,
}

impl BootOptions {
    /// On OpenWrt through its own dnsmasq, elsewhere by a drop-in.
    pub(super) fn new(openwrt: Option<Worker>) -> Self {
        Self { openwrt, ..Self::default() }
    }

    /// Takes the configuration, and looks at who serves DHCP; true if the boot options come another way from now on.
    pub(super) fn configure(&mut self, main: &Main) -> bool {
        self.restart.clone_from(&main.dnsmasq_restart);
        self.reply_delay = !main.quirks_off.contains(&Quirk::ReplyDelay);
        let proxied = self.to_be_proxied(main);
        self.interfaces.clone_from(&main.interfaces);
        if self.confdir == main.dnsmasq_confdir && self.mode == main.dhcp && self.proxied == proxied {
            return false;
        }
        if proxied != self.proxied && !proxied.is_empty() {
            log::info!("on {} Pis are told by piboot itself that they are to boot from it", proxied.join(", "));
        }
        self.remove(self.drops_in().map(PathBuf::as_path));
        (self.mode, self.confdir, self.proxied) = (main.dhcp, main.dnsmasq_confdir.clone(), proxied);
        if self.drops_in().is_none() {
            // One may be left from before a change that was made while no agent ran.
            self.remove(self.confdir.as_deref());
        }
        if let (None, Some(worker)) = (self.by_openwrt(), &self.openwrt) {
            worker.withdraw();
        }
        true
    }

    /// The interfaces on which dnsmasq is not to give the boot options, or cannot, because it is not the DHCP server there.
    fn to_be_proxied(&self, main: &Main) -> Vec<String> {
        match main.dhcp {
            DhcpMode::Proxy => main.interfaces.clone(),
            DhcpMode::Auto if main.dnsmasq_confdir.is_none() => match &self.openwrt {
                None => main.interfaces.clone(),
                Some(_) => match packages() {
                    Some(packages) => {
                        let others = |name: &&String| !conflicts::dnsmasq_serves(&packages, name);
                        main.interfaces.iter().filter(others).cloned().collect()
                    }
                    // Somebody is in the middle of writing them: what was right is right until they can be read.
                    None => self.proxied.iter().filter(|name| main.interfaces.contains(name)).cloned().collect(),
                },
            },
            DhcpMode::Auto | DhcpMode::Dnsmasq | DhcpMode::Off => Vec::new(),
        }
    }

    /// Whether the built-in proxy is to answer on an interface, by its name in the configuration.
    pub(super) fn is_proxied(&self, interface: &str) -> bool {
        self.proxied.iter().any(|name| name == interface)
    }

    /// The interfaces, by their names in the configuration, on which dnsmasq gives the boot options.
    fn by_dnsmasq(&self) -> impl Iterator<Item = &String> {
        self.interfaces.iter().filter(|name| !self.is_proxied(name))
    }

    /// OpenWrt's dnsmasq, if it is to have the boot options.
    fn by_openwrt(&self) -> Option<&Worker> {
        let wanted = match self.mode {
            DhcpMode::Auto => self.by_dnsmasq().next().is_some(),
            DhcpMode::Dnsmasq => true,
            DhcpMode::Proxy | DhcpMode::Off => false,
        };
        self.openwrt.as_ref().filter(|_| wanted && self.confdir.is_none())
    }

    /// Somebody may have changed the configuration of this router.
    pub(super) fn look_again(&self) {
        if let Some(worker) = self.by_openwrt() {
            worker.look_again();
        }
    }

    /// Lets what is under way come to its end.
    pub(super) fn finish(&self) {
        if let Some(worker) = &self.openwrt {
            worker.finish();
        }
    }

    /// The agent has changed its own configuration.
    pub(super) fn announce(&self) {
        if let Some(worker) = &self.openwrt {
            worker.announce();
        }
    }

    fn drops_in(&self) -> Option<&PathBuf> {
        matches!(self.mode, DhcpMode::Auto | DhcpMode::Dnsmasq).then_some(self.confdir.as_ref()).flatten()
    }

    /// Takes back whatever was done.
    pub(super) fn withdraw(&self) {
        self.remove(self.drops_in().map(PathBuf::as_path));
        if let Some(worker) = &self.openwrt {
            worker.withdraw();
        }
    }

    fn remove(&self, confdir: Option<&Path>) {
        let Some(confdir) = confdir else { return };
        match drop_in::remove(confdir) {
            Ok(true) => self.restart_dnsmasq(),
            Ok(false) => {}
            Err(error) => log::error!("{error}"),
        }
    }

    /// Makes the drop-in say what is wanted.
    pub(super) fn apply(&mut self, wanted: &Wanted, server: Option<Ipv4Addr>) {
        let Some(server) = server else { return };
        if let Some(worker) = self.by_openwrt() {
            let clients =
                wanted.enrolled.iter().map(|pi| Client { mac: pi.mac, hostname: pi.hostname.clone(), ip: pi.ip });
            worker.want(Plan { server, clients: clients.collect(), interfaces: self.by_dnsmasq().cloned().collect() });
        }
        let Some(confdir) = &self.drops_in().cloned() else { return };
        let clients: Vec<(Mac, Option<Ipv4Addr>)> = wanted.enrolled.iter().map(|pi| (pi.mac, pi.ip)).collect();
        let result = drop_in::reconcile(confdir, server, &clients, self.reply_delay);
        let is_first = !std::mem::replace(&mut self.applied, true);
        // An agent that ended between writing the file and the restart left it to this one.
        if matches!(result, Ok(true)) || is_first && result.is_ok() && drop_in::is_unread(confdir) {
            self.restart_dnsmasq();
        }
        let problem = result.err().map(|error| error.to_string());
        if problem.is_some() && problem != self.problem {
            log::error!("{}", problem.as_deref().unwrap_or_default());
        }
        self.problem = problem;
    }

    fn restart_dnsmasq(&self) {
        let command: Vec<String> = match &self.restart[..] {
            [] if Path::new("/run/systemd/system").exists() => SYSTEMD_RESTART.map(str::to_owned).to_vec(),
            configured => configured.to_vec(),
        };
        let mut restarts = self.restarts.lock().unwrap_or_else(PoisonError::into_inner);
        if command.is_empty() {
            let text = "dnsmasq has to be restarted, so that it reads which Pis are enrolled; dnsmasq_restart can name the command for that";
            log::warn!("{text}");
            restarts.pending = Some(text.to_owned());
            restarts.by_hand = true;
            return;
        }
        restarts.pending = Some("dnsmasq is being restarted, so that it reads which Pis are enrolled".to_owned());
        if restarts.running {
            restarts.again = true;
            return;
        }
        restarts.running = true;
        let (shared, confdir) = (self.restarts.clone(), self.confdir.clone());
        std::thread::spawn(move || keep_restarting(&command, confdir.as_deref(), &shared));
    }

    /// In words, for `status`.
    pub(super) fn describe(&self) -> String {
        let proxied = self.proxied.join(", ");
        match (self.mode, &self.confdir) {
            (DhcpMode::Off, _) => "off: somebody else gives the boot options".to_owned(),
            (DhcpMode::Proxy, _) => "proxy, beside the server that gives the addresses".to_owned(),
            (_, Some(confdir)) => format!("dnsmasq, by a drop-in in {}", confdir.display()),
            (_, None) if self.by_openwrt().is_some() => {
                let also = if proxied.is_empty() { String::new() } else { format!("; on {proxied} proxy") };
                format!("dnsmasq, by the sections {}* of /etc/config/dhcp{also}", sections::PREFIX)
            }
            (DhcpMode::Auto, None) if self.openwrt.is_some() => {
                format!("proxy, because dnsmasq is not the DHCP server on {proxied}")
            }
            (DhcpMode::Auto, None) => "proxy, because dnsmasq_confdir is not set".to_owned(),
            (DhcpMode::Dnsmasq, None) => "none: dnsmasq_confdir is not set".to_owned(),
        }
    }

    /// What is wrong with it.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let finding = |severity, option: &str, text: &str| {
            Finding::new(severity, format!("piboot.main.{option}"), text.to_owned())
        };
        let mut findings = Vec::new();
        if let (DhcpMode::Dnsmasq, None, None) = (self.mode, &self.confdir, &self.openwrt) {
            let text = "is not set: Pis get no boot options; name the directory of dnsmasq's conf-dir line (Debian: /etc/dnsmasq.d), or set dhcp to 'proxy'";
            findings.push(finding(Severity::Error, "dnsmasq_confdir", text));
        }
        if let (Some(_), false, Some(packages)) = (&self.openwrt, self.proxied.is_empty(), packages()) {
            findings.extend(conflicts::find_for_proxy(&packages, &self.proxied).into_iter().map(Finding::from));
        }
        findings.extend(self.by_openwrt().map(Worker::findings).unwrap_or_default());
        findings.extend(self.problem.iter().map(|text| finding(Severity::Error, "dnsmasq_confdir", text)));
        let mut restarts = self.restarts.lock().unwrap_or_else(PoisonError::into_inner);
        if restarts.by_hand && self.confdir.as_deref().is_some_and(|confdir| !drop_in::is_unread(confdir)) {
            (restarts.by_hand, restarts.pending) = (false, None);
        }
        findings.extend(restarts.pending.iter().map(|text| finding(Severity::Warning, "dnsmasq_restart", text)));
        findings
    }
}

/// OpenWrt's configuration, as far as it decides who serves DHCP.
fn packages() -> Option<Packages> {
    let read = |name: &str| file::sections(&file::package(name));
    // Without a firewall or a network package there is nothing to find in them.
    let (network, firewall) = (read("network").unwrap_or_default(), read("firewall").unwrap_or_default());
    read("dhcp").ok().map(|dhcp| Packages { dhcp, network, firewall })
}

/// Restarts until nothing has changed meanwhile.
fn keep_restarting(command: &[String], confdir: Option<&Path>, shared: &Mutex<Restarts>) {
    let clock = Clock::system();
    let mut last: VecDeque<Moment> = VecDeque::new();
    loop {
        if last.len() == RESTARTS_AT_ONCE
            && let Some(first) = last.pop_front()
        {
            std::thread::sleep(RESTARTS_WITHIN.saturating_sub(clock.now().since(first)));
            shared.lock().unwrap_or_else(PoisonError::into_inner).again = false;
        }
        last.push_back(clock.now());
        let problem = run(command).or_else(|| if command == SYSTEMD_RESTART { check_systemd() } else { None });
        let mut restarts = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = &problem {
            log::error!("{problem}");
        }
        if std::mem::take(&mut restarts.again) {
            continue;
        }
        if let (None, Some(confdir)) = (&problem, confdir) {
            drop_in::was_read(confdir);
        }
        restarts.pending = problem;
        restarts.running = false;
        return;
    }
}

fn check_systemd() -> Option<String> {
    let [program, arguments @ ..] = SYSTEMD_CHECK;
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    (!output.status.success()).then(|| {
        "dnsmasq does not run: 'systemctl status dnsmasq' says why, 'systemctl start dnsmasq' starts it".to_owned()
    })
}

fn run(command: &[String]) -> Option<String> {
    let (program, arguments) = command.split_first()?;
    let shown = command.join(" ");
    match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            log::info!("dnsmasq restarted ({shown})");
            None
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Some(format!("dnsmasq could not be restarted: '{shown}' failed ({}): {}", output.status, said.trim()))
        }
        Err(error) => Some(format!("dnsmasq could not be restarted: '{shown}': {error}")),
    }
}
