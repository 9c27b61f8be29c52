//! How enrolled Pis get their boot options, as far as the agent has a hand in it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::api::types::Finding;
use crate::config::{DhcpMode, Main, Severity};
use crate::dhcp::drop_in;
use crate::fleet::Wanted;
use crate::pi::Mac;

/// How a dnsmasq that systemd runs is restarted; nothing happens if it does not run.
const SYSTEMD_RESTART: [&str; 3] = ["systemctl", "try-restart", "dnsmasq.service"];

/// Keeps a dnsmasq drop-in in line with the enrolled Pis.
#[derive(Debug, Default)]
pub(super) struct BootOptions {
    mode: DhcpMode,
    confdir: Option<PathBuf>,
    restart: Vec<String>,
    restarts: Arc<Mutex<Restarts>>,
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
}

impl BootOptions {
    /// Takes the configuration.
    pub(super) fn configure(&mut self, main: &Main) {
        self.restart.clone_from(&main.dnsmasq_restart);
        if self.confdir != main.dnsmasq_confdir || self.mode != main.dhcp {
            self.withdraw();
            (self.mode, self.confdir) = (main.dhcp, main.dnsmasq_confdir.clone());
        }
    }

    fn drops_in(&self) -> Option<&PathBuf> {
        matches!(self.mode, DhcpMode::Auto | DhcpMode::Dnsmasq).then_some(self.confdir.as_ref()).flatten()
    }

    /// Removes a drop-in that is no longer wanted.
    fn withdraw(&self) {
        let Some(confdir) = self.drops_in() else { return };
        match drop_in::remove(confdir) {
            Ok(true) => self.restart_dnsmasq(),
            Ok(false) => {}
            Err(error) => log::error!("{error}"),
        }
    }

    /// Makes the drop-in say what is wanted.
    pub(super) fn apply(&mut self, wanted: &Wanted, server: Option<Ipv4Addr>) {
        let (Some(confdir), Some(server)) = (self.drops_in(), server) else { return };
        let enrolled: Vec<Mac> = wanted.enrolled.iter().map(|(mac, _)| *mac).collect();
        let result = drop_in::reconcile(confdir, server, &enrolled);
        if matches!(result, Ok(true)) {
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
            return;
        }
        if restarts.running {
            restarts.again = true;
            return;
        }
        restarts.running = true;
        let shared = self.restarts.clone();
        std::thread::spawn(move || keep_restarting(&command, &shared));
    }

    /// In words, for `status`.
    pub(super) fn describe(&self) -> String {
        match (self.mode, &self.confdir) {
            (DhcpMode::Off, _) => "off: somebody else gives the boot options".to_owned(),
            (DhcpMode::Proxy, _) => "proxy: not in this version".to_owned(),
            (_, Some(confdir)) => format!("dnsmasq, by a drop-in in {}", confdir.display()),
            (_, None) => "none: dnsmasq_confdir is not set".to_owned(),
        }
    }

    /// What is wrong with it.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let finding = |severity, option: &str, text: &str| Finding {
            severity,
            place: format!("piboot.main.{option}"),
            text: text.to_owned(),
        };
        let mut findings = Vec::new();
        match (self.mode, &self.confdir) {
            (DhcpMode::Proxy, _) => {
                let text = "'proxy' is not in this version: set it to 'dnsmasq' with dnsmasq_confdir, or to 'off'";
                findings.push(finding(Severity::Error, "dhcp", text));
            }
            (DhcpMode::Auto | DhcpMode::Dnsmasq, None) => {
                let text = "is not set: Pis get no boot options; name the directory of dnsmasq's conf-dir line (Debian: /etc/dnsmasq.d)";
                findings.push(finding(Severity::Error, "dnsmasq_confdir", text));
            }
            _ => {}
        }
        findings.extend(self.problem.iter().map(|text| finding(Severity::Error, "dnsmasq_confdir", text)));
        let restarts = self.restarts.lock().unwrap_or_else(PoisonError::into_inner);
        findings.extend(restarts.pending.iter().map(|text| finding(Severity::Warning, "dnsmasq_restart", text)));
        findings
    }
}

/// Restarts until nothing has changed meanwhile.
fn keep_restarting(command: &[String], shared: &Mutex<Restarts>) {
    loop {
        let problem = run(command);
        let mut restarts = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = &problem {
            log::error!("{problem}");
        }
        restarts.pending = problem;
        if !std::mem::take(&mut restarts.again) {
            restarts.running = false;
            return;
        }
    }
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
