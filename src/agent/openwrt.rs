//! Boot options by OpenWrt's dnsmasq, on a thread of its own: a reload of dnsmasq is watched for seconds.

use std::fmt;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::api::types::Finding;
use crate::config::Severity;
use crate::config::uci::Section;
use crate::dhcp::conflicts::{self, Packages};
use crate::dhcp::openwrt::{Broker, OpenWrt, OpenWrtError};
use crate::dhcp::sections::{self, Client};
use crate::ubus;

/// What dnsmasq is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Where Pis load from.
    pub(super) server: Ipv4Addr,
    /// The enrolled Pis.
    pub(super) clients: Vec<Client>,
    /// The interfaces that are served, by their names in `/etc/config/network`.
    pub(super) interfaces: Vec<String>,
}

/// The thread, as the agent sees it.
pub(super) struct Worker {
    shared: Arc<Shared>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    openwrt: Mutex<OpenWrt>,
}

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    /// The plan, or what others have in the configuration, may have changed.
    look: bool,
    /// The agent has changed its own configuration.
    announce: bool,
    /// The last attempt failed for what may have passed by now.
    retry: bool,
    ended: bool,
    findings: Vec<Finding>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub(super) fn start(openwrt: OpenWrt) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), wake: Condvar::new(), openwrt: Mutex::new(openwrt) });
        let thread = Arc::clone(&shared);
        std::thread::Builder::new().name("dnsmasq".into()).spawn(move || thread.run())?;
        Ok(Self { shared })
    }

    /// Has dnsmasq brought in line with a plan, unless that is done already.
    pub(super) fn want(&self, plan: Plan) {
        let mut state = lock(&self.shared.state);
        if state.plan.as_ref() != Some(&plan) {
            state.plan = Some(plan);
            state.look = true;
            self.shared.wake.notify_one();
        }
    }

    /// Somebody may have changed the configuration of this router.
    pub(super) fn look_again(&self) {
        lock(&self.shared.state).look = true;
        self.shared.wake.notify_one();
    }

    /// The agent has changed its own configuration: procd is told, as after any other commit.
    pub(super) fn announce(&self) {
        lock(&self.shared.state).announce = true;
        self.shared.wake.notify_one();
    }

    /// Takes everything back, and waits for it.
    pub(super) fn withdraw(&self) {
        {
            let mut state = lock(&self.shared.state);
            state.plan = None;
            state.findings.clear();
        }
        match lock(&self.shared.openwrt).withdraw() {
            Ok(true) => log::info!("boot options taken out of /etc/config/dhcp"),
            Ok(false) => {}
            Err(error) => log::error!("{error}"),
        }
    }

    /// Ends the thread after what it is doing: a dnsmasq that does not come up would be left behind.
    pub(super) fn finish(&self) {
        lock(&self.shared.state).ended = true;
        self.shared.wake.notify_one();
        drop(lock(&self.shared.openwrt));
    }

    /// What is in the way.
    pub(super) fn findings(&self) -> Vec<Finding> {
        lock(&self.shared.state).findings.clone()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        lock(&self.shared.state).ended = true;
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        // A plan that dnsmasq did not start with is tried again when the plan, or what others wrote, is another one.
        let mut failed: Option<(Plan, Vec<Section>, String)> = None;
        while let Some(plan) = self.next() {
            let openwrt = lock(&self.openwrt);
            // Withdrawn, or replaced, while this waited.
            if lock(&self.state).plan.as_ref() != Some(&plan) {
                continue;
            }
            let packages = read_packages(&openwrt);
            let others = sections::without_ours(&packages.dhcp);
            let known = failed.take().filter(|(was, beside, _)| *was == plan && *beside == others);
            let result = match known {
                Some((.., why)) => Err((why, true)),
                None => openwrt.reconcile(plan.server, &plan.clients).map_err(|error| {
                    lock(&self.state).retry = error.is_passing();
                    (error.to_string(), matches!(error, OpenWrtError::TakenBack(_)))
                }),
            };
            drop(openwrt);
            let mut findings = Vec::new();
            match result {
                Ok(true) => log::info!("dnsmasq has the boot options of {} Pis", plan.clients.len()),
                Ok(false) => {}
                Err((why, is_final)) => {
                    findings.push(Finding::new(Severity::Error, "dhcp".to_owned(), why.clone()));
                    if is_final {
                        failed = Some((plan.clone(), others, why));
                    }
                }
            }
            // Of a package that cannot be read it is said why, and not what is missing from it.
            if !packages.dhcp.is_empty() {
                findings.extend(conflicts::find(&packages, &plan.interfaces).into_iter().map(Finding::from));
            }
            self.publish(findings);
        }
    }

    /// The plan, once there is something to do; `None` when the agent ends.
    fn next(&self) -> Option<Plan> {
        let mut state = lock(&self.state);
        loop {
            if state.ended {
                return None;
            }
            if std::mem::take(&mut state.announce) {
                drop(state);
                if let Err(why) = lock(&self.openwrt).announce("piboot") {
                    log::debug!("nobody was told that /etc/config/piboot changed: {why}");
                }
                state = lock(&self.state);
                continue;
            }
            if std::mem::take(&mut state.look)
                && let Some(plan) = state.plan.clone()
            {
                return Some(plan);
            }
            if !state.retry {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (guard, waited) = self.wake.wait_timeout(state, RETRY).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if waited.timed_out() {
                state.retry = false;
                state.look = true;
            }
        }
    }

    fn publish(&self, findings: Vec<Finding>) {
        let mut state = lock(&self.state);
        // Withdrawn meanwhile.
        if state.plan.is_none() {
            return;
        }
        for new in findings.iter().filter(|finding| !state.findings.contains(finding)) {
            match new.severity {
                Severity::Error => log::error!("{}: {}", new.place, new.text),
                Severity::Warning => log::warn!("{}: {}", new.place, new.text),
            }
        }
        state.findings = findings;
    }
}

/// What cannot be read is not in the way, as far as can be told.
fn read_packages(openwrt: &OpenWrt) -> Packages {
    let read = |name: &str| {
        openwrt.package(name).unwrap_or_else(|error| {
            log::debug!("{error}");
            Vec::new()
        })
    };
    Packages { dhcp: read("dhcp"), network: read("network"), firewall: read("firewall") }
}

/// When what failed in passing is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// How long procd has to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the bus has to come up when router and agent start.
const BUS: Duration = Duration::from_secs(5);

/// procd over ubus, and without a bus dnsmasq's init script.
pub(super) struct Procd(pub(super) Option<ubus::Handle>);

impl Broker for Procd {
    fn call(&self, object: &str, method: &str, arguments: Value) -> Result<Value, String> {
        let Some(ubus) = self.0.as_ref().filter(|ubus| ubus.wait_until_connected(BUS)) else {
            return InitScript.call(object, method, arguments);
        };
        ubus.call(object, method, &arguments, ANSWER).map_err(|error| error.to_string())
    }
}

/// Reloads dnsmasq by its init script, where procd cannot be reached over ubus.
#[derive(Debug, Clone, Copy)]
pub(super) struct InitScript;

impl Broker for InitScript {
    fn call(&self, object: &str, method: &str, arguments: Value) -> Result<Value, String> {
        const SCRIPT: &str = "/etc/init.d/dnsmasq";
        let package = arguments.get("data").and_then(|data| data.get("package")).and_then(Value::as_str);
        if (object, method, package) != ("service", "event", Some("dhcp")) {
            return Err("there is no connection to ubus".to_owned());
        }
        match Command::new(SCRIPT).arg("reload").stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => Ok(Value::Null),
            Ok(output) => Err(format!("'{SCRIPT} reload' failed ({})", output.status)),
            Err(error) => Err(format!("{SCRIPT}: {error}")),
        }
    }
}
