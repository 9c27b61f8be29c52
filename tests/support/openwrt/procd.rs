//! What procd does here: it has the ubus object `service`, runs dnsmasq by the generated configuration, and starts over
//! whom a changed package concerns.
//!
//! Unlike the real one it does not start a dnsmasq again that has ended by itself: what ended is seen to have ended.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use emupi::lab::{Net, Process};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use ubus_zero::json::{blobmsg_to_json, json_to_blobmsg};
use ubus_zero::{UbusError, UbusObject};

use super::dnsmasq::{self, Instance};
use super::namespace::Entrance;
use super::ubus::{Bus, Served};
use super::{PATIENCE, uci};

/// Something that happened, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// `service event` was called.
    Event { kind: String, data: Value },
    /// A dnsmasq was started, for the first time or anew. `runs` says whether it got as far as serving.
    Started { instance: String, runs: bool },
    /// A dnsmasq whose configuration is the same was only told to look at its files (SIGHUP).
    Kept { instance: String },
    /// A dnsmasq was ended because its section is gone.
    Ended { instance: String },
    /// The agent was told that its configuration changed (SIGHUP).
    Signalled,
}

#[derive(Debug, Default)]
struct State {
    happenings: Vec<Happening>,
    services: BTreeMap<String, Running>,
    agent: Option<u32>,
    /// Words that no dnsmasq shall take.
    refused: Option<String>,
    /// Packages that changed, and when that is seen to.
    due: BTreeMap<String, Instant>,
    busy: bool,
    end: bool,
}

#[derive(Debug)]
struct Running {
    conf: String,
    pid: u32,
    /// Not here while it starts or ends.
    process: Option<Process>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
    net: Arc<Net>,
    inside: Entrance,
    delay: Duration,
}

/// The stand-in; it ends what it runs when dropped.
#[derive(Debug)]
pub struct Procd {
    shared: Arc<Shared>,
    object: Option<Served>,
    worker: Option<JoinHandle<()>>,
}

impl Procd {
    /// Puts `service` on the bus. A change is acted upon when it is `delay` old.
    pub fn new(net: &Arc<Net>, inside: Entrance, bus: &Bus, delay: Duration) -> Self {
        let (state, news) = Default::default();
        let shared = Arc::new(Shared { state, news, net: Arc::clone(net), inside, delay });
        let (serves, works) = (Arc::clone(&shared), Arc::clone(&shared));
        let object = Served::new(bus, move || serves.object());
        Self { shared, object: Some(object), worker: Some(std::thread::spawn(move || works.work())) }
    }

    /// Everything that has happened so far.
    pub fn happenings(&self) -> Vec<Happening> {
        self.shared.lock().happenings.clone()
    }

    /// Waits until something has happened that satisfies `what`, `after` of what happened left out.
    pub fn wait_for(&self, after: usize, limit: Duration, what: impl Fn(&Happening) -> bool) -> Option<Happening> {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = state.happenings.iter().skip(after).find(|h| what(h)) {
                return Some(found.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.shared.news.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits until every change has been acted upon.
    pub fn wait_until_settled(&self) {
        let busy = |state: &mut State| state.busy || !state.due.is_empty();
        let (_state, timeout) = self.shared.news.wait_timeout_while(self.shared.lock(), PATIENCE, busy).unwrap();
        assert!(!timeout.timed_out(), "procd is still busy");
    }

    /// Acts as if the event had come, at once.
    pub fn reload(&self, package: &str) {
        self.shared.changed(package, Duration::ZERO);
        self.wait_until_settled();
    }

    /// Whose process is to be signalled when the package `piboot` changes.
    pub fn set_agent(&self, pid: Option<u32>) {
        self.shared.lock().agent = pid;
    }

    /// From now on a dnsmasq whose configuration contains these words does not start.
    pub fn refuse(&self, words: Option<&str>) {
        self.shared.lock().refused = words.map(str::to_owned);
    }

    /// What the dnsmasqs that run, or ran last, have said.
    pub fn said(&self) -> Vec<String> {
        self.shared.lock().services.values().filter_map(|r| r.process.as_ref()).flat_map(Process::lines).collect()
    }
}

impl Drop for Procd {
    fn drop(&mut self) {
        self.object = None;
        // A lock that was poisoned by a failed test is still good for this.
        self.shared.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).end = true;
        self.shared.news.notify_all();
        let _ = self.worker.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn happened(&self, what: Happening) {
        self.lock().happenings.push(what);
        self.news.notify_all();
    }

    fn changed(&self, package: &str, delay: Duration) {
        self.lock().due.insert(package.to_owned(), Instant::now() + delay);
        self.news.notify_all();
    }

    fn object(self: &Arc<Self>) -> UbusObject {
        let (events, lists) = (Arc::clone(self), Arc::clone(self));
        UbusObject::new("service")
            .method("event", move |args| {
                let args = blobmsg_to_json(args)?;
                let kind = args["type"].as_str().ok_or(UbusError::Status(INVALID_ARGUMENT))?.to_owned();
                let data = args["data"].clone();
                let package = data["package"].as_str().filter(|_| kind == "config.change").map(str::to_owned);
                events.happened(Happening::Event { kind, data });
                if let Some(package) = package {
                    events.changed(&package, events.delay);
                }
                json_to_blobmsg(&json!({}))
            })
            .method("list", move |args| {
                let args = blobmsg_to_json(args)?;
                json_to_blobmsg(&lists.list(args["name"].as_str()))
            })
    }

    /// The answer of `service list`.
    fn list(&self, name: Option<&str>) -> Value {
        let mut state = self.lock();
        let mut instances = serde_json::Map::new();
        for (name, running) in &mut state.services {
            let path = format!("/var/etc/dnsmasq.conf.{name}");
            let mut instance = json!({
                "running": false,
                "command": ["/usr/sbin/dnsmasq", "-C", path, "-k", "-x", pid_file(name)],
                "term_timeout": 5,
                "respawn": { "threshold": 3600, "timeout": 5, "retry": 5 },
            });
            match running.exit() {
                None => {
                    instance["running"] = json!(true);
                    instance["pid"] = json!(running.pid);
                }
                Some(code) => instance["exit_code"] = json!(code),
            }
            instances.insert(name.clone(), instance);
        }
        let mut services = json!({ "dnsmasq": { "instances": instances } });
        if let Some(pid) = state.agent {
            let command = ["/usr/sbin/piboot", "serve"];
            services["piboot"] =
                json!({ "instances": { "piboot": { "running": true, "pid": pid, "command": command } } });
        }
        match name {
            Some(name) => services.get(name).map_or(json!({}), |found| json!({ name: found })),
            None => services,
        }
    }

    /// Acts upon changes until the end.
    fn work(&self) {
        let mut state = self.lock();
        while !state.end {
            let now = Instant::now();
            let next = state.due.iter().min_by_key(|(_, at)| **at).map(|(package, at)| (package.clone(), *at));
            match next {
                Some((package, at)) if at <= now => {
                    state.due.remove(&package);
                    state.busy = true;
                    drop(state);
                    self.act(&package);
                    state = self.lock();
                    state.busy = false;
                    self.news.notify_all();
                }
                Some((_, at)) => state = self.news.wait_timeout(state, at - now).unwrap().0,
                None => state = self.news.wait(state).unwrap(),
            }
        }
        state.services.clear();
    }

    fn act(&self, package: &str) {
        match package {
            // The init script names these as its triggers; the interface trigger comes to the same as `network`.
            "dhcp" | "network" => {
                self.dnsmasq();
                self.signal_agent();
            }
            "system" => self.dnsmasq(),
            "piboot" => self.signal_agent(),
            _ => {}
        }
    }

    fn signal_agent(&self) {
        let agent = self.lock().agent;
        if let Some(pid) = agent {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGHUP);
            self.happened(Happening::Signalled);
        }
    }

    /// What `/etc/init.d/dnsmasq reload` does.
    fn dnsmasq(&self) {
        // Of a file that uci cannot read the script sees nothing, and there is no section to run a dnsmasq for.
        let export = |package| {
            let output = self.inside.output("uci", &["-S", "-n", "export", package]);
            let read = output.status.success();
            if read { uci::parse(&String::from_utf8(output.stdout).unwrap()) } else { Vec::new() }
        };
        let mut wanted = dnsmasq::generate(&export("dhcp"), &export("network"));
        if let Some(words) = self.lock().refused.clone() {
            wanted.iter_mut().filter(|i| i.conf.contains(&words)).for_each(|i| i.conf.push_str("no-such-option\n"));
        }
        let gone = |name: &String| !wanted.iter().any(|instance| instance.name == *name);
        let ended: Vec<String> = self.lock().services.keys().filter(|name| gone(name)).cloned().collect();
        for instance in ended {
            self.end(&instance);
            self.happened(Happening::Ended { instance });
        }
        for instance in &wanted {
            self.instance(instance);
        }
    }

    fn instance(&self, instance: &Instance) {
        fs::create_dir_all(self.inside.outside(&instance.confdir)).unwrap();
        if let Some(extra) = &instance.extra {
            fs::write(self.inside.outside(&instance.confdir).join("extraconfig.conf"), extra).unwrap();
        }
        if self.keep(instance) {
            self.happened(Happening::Kept { instance: instance.name.clone() });
            return;
        }
        self.end(&instance.name);
        fs::write(self.inside.outside(&instance.path()), &instance.conf).unwrap();
        // OpenWrt's user for it is not there, and neither is a system log.
        let mut command = self.inside.command("dnsmasq");
        command.args(["-C", &instance.path(), "-k", "-x", &pid_file(&instance.name)]);
        command.args(["--user=root", "--log-facility=-"]);
        let mut process = self.net.spawn("dnsmasq", command).unwrap();
        let running = Running { conf: instance.conf.clone(), pid: process.pid(), process: None };
        self.lock().services.insert(instance.name.clone(), running);
        // It says so when its sockets are bound.
        let runs = process.wait_line("started", PATIENCE).is_ok();
        if !runs {
            let _ = process.signal(Signal::SIGKILL);
            process.wait().unwrap();
        }
        self.lock().services.get_mut(&instance.name).unwrap().process = Some(process);
        self.happened(Happening::Started { instance: instance.name.clone(), runs });
    }

    /// Tells a dnsmasq whose configuration is the same to look at its files; whether it is.
    fn keep(&self, instance: &Instance) -> bool {
        let mut state = self.lock();
        let Some(running) = state.services.get_mut(&instance.name) else { return false };
        let same = running.conf == instance.conf && running.exit().is_none();
        if same && let Some(process) = &running.process {
            process.signal(Signal::SIGHUP).unwrap();
        }
        same
    }

    /// Ends a dnsmasq. Until it has written its leases it is still listed.
    fn end(&self, name: &str) {
        let process = self.lock().services.get_mut(name).and_then(|running| running.process.take());
        if let Some(mut process) = process {
            let _ = process.signal(Signal::SIGTERM);
            process.wait().unwrap();
        }
        self.lock().services.remove(name);
    }
}

impl Running {
    /// The exit code of one that has ended.
    fn exit(&mut self) -> Option<i32> {
        let status = self.process.as_mut()?.exited().unwrap()?;
        Some(status.code().unwrap_or(-1))
    }
}

/// "Invalid argument" among ubus's status codes.
const INVALID_ARGUMENT: i32 = 2;

fn pid_file(instance: &str) -> String {
    format!("/var/run/dnsmasq/dnsmasq.{instance}.pid")
}
