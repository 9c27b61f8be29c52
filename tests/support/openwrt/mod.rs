//! A router for tests that is OpenWrt as far as `/etc/config`, `uci`, ubus and dnsmasq go.
//!
//! In a network and a mount namespace of its own: OpenWrt's `uci`, a real ubus broker, Debian's dnsmasq with the
//! configuration that OpenWrt makes of `/etc/config/dhcp`, and a procd that starts it over when that changes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_types,
    dead_code,
    unreachable_pub,
    reason = "helpers of tests, shared by several"
)]

pub mod dnsmasq;
mod files;
pub mod namespace;
pub mod offer;
pub mod procd;
pub mod ubus;
pub mod uci;

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use emupi::lab::{Net, Process};
use emupi::{Link, Pi};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

pub use namespace::{Entrance, Namespace};
pub use offer::Offer;
pub use procd::{Happening, Procd};

/// How long anything may take on a loaded machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a state is asked for while waiting for it.
const POLL: Duration = Duration::from_millis(20);
/// How long procd lets changes gather. A second on a router; tests need not wait so long.
const GATHER: Duration = Duration::from_millis(200);
/// Long enough for an OFFER that comes at all: dnsmasq answers at once.
const NO_OFFER: Duration = Duration::from_secs(3);
/// The address of a fresh router.
pub const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

/// The program under test.
pub const PIBOOT: &str = env!("CARGO_BIN_EXE_piboot");

/// What is different from a fresh router: lines of UCI appended to its files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extra<'a> {
    pub dhcp: &'a str,
    pub network: &'a str,
    pub firewall: &'a str,
    pub piboot: &'a str,
    /// How long procd lets changes gather before it acts; not given, a fifth of what it takes on a router.
    pub gather: Option<Duration>,
}

/// A router that is taken apart when dropped.
#[derive(Debug)]
pub struct OpenWrt {
    // In this order: the agent may talk to procd to its end, and all are gone before their namespaces.
    agent: Option<Process>,
    pub procd: Procd,
    pub bus: Bus,
    namespace: Namespace,
    pub net: Arc<Net>,
}

use ubus::Bus;

impl OpenWrt {
    /// A fresh router whose dnsmasq runs; the agent does not.
    pub fn new() -> Self {
        Self::with(&Extra::default())
    }

    /// The same with more in its configuration.
    pub fn with(extra: &Extra) -> Self {
        let net = Arc::new(Net::with_address(LAN, 24).unwrap());
        files::write(net.scratch(), extra);
        let namespace = Namespace::new(&net, net.scratch());
        let bus = Bus::new(&net.scratch().join("tmp/run/ubus/ubus.sock"));
        let procd = Procd::new(&net, namespace.entrance(), &bus, extra.gather.unwrap_or(GATHER));
        procd.reload("dhcp");
        Self { agent: None, procd, bus, namespace, net }
    }

    /// The way in, for programs that are to run on the router.
    pub fn inside(&self) -> Entrance {
        self.namespace.entrance()
    }

    /// A file or directory of the router, as it is reached from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        self.inside().outside(path)
    }

    /// The bytes of a file of the router.
    pub fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// The same as text.
    pub fn text(&self, path: &str) -> String {
        String::from_utf8(self.read(path)).unwrap()
    }

    // --- configuration

    /// Runs `uci`; what it prints. It must succeed.
    #[track_caller]
    pub fn uci(&self, args: &[&str]) -> String {
        self.inside().run("uci", args)
    }

    /// Runs `uci`, which may fail.
    pub fn try_uci(&self, args: &[&str]) -> Output {
        self.inside().output("uci", args)
    }

    /// Runs commands of `uci batch`, one a line, quoted as for a shell. It prints its errors and goes on: none may come.
    #[track_caller]
    pub fn uci_batch(&self, commands: &str) {
        // A name that no other batch has: tests may have several at a time.
        let file = tempfile::NamedTempFile::new_in(self.net.scratch()).unwrap();
        fs::write(file.path(), commands).unwrap();
        let output = self.inside().output("uci", &["-f", file.path().to_str().unwrap(), "batch"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.is_empty(), "{commands}: {said}");
    }

    /// What procd is told when somebody has committed a package.
    pub fn config_changed(&self, package: &str) {
        let event = json!({ "type": "config.change", "data": { "package": package } });
        self.bus.call("service", "event", &event).unwrap();
    }

    /// `uci commit`, and what LuCI and `reload_config` do after it; waits until all is done that comes of it.
    pub fn commit_and_reload(&self, package: &str) {
        self.uci(&["commit", package]);
        self.config_changed(package);
        self.procd.wait_until_settled();
    }

    /// Has the user give the router another address on its LAN, and does what netifd does with it: the bridge has it, and
    /// the interface trigger starts dnsmasq over.
    pub fn set_lan_address(&self, address: Ipv4Addr) {
        self.uci(&["set", &format!("network.lan.ipaddr={address}")]);
        self.uci(&["commit", "network"]);
        let device = self.net.bridge();
        self.inside().run("ip", &["-4", "addr", "flush", "dev", device]);
        self.inside().run("ip", &["addr", "add", &format!("{address}/24"), "brd", "+", "dev", device]);
        self.procd.reload("network");
    }

    /// Has the user write a section that makes dnsmasq refuse its configuration.
    pub fn break_dnsmasq(&self) {
        self.uci_batch("set dhcp.broken=mac\nset dhcp.broken.networkid=x\nset dhcp.broken.mac=no-address\n");
        self.commit_and_reload("dhcp");
    }

    /// Has the user take it out again.
    pub fn mend_dnsmasq(&self) {
        self.uci(&["delete", "dhcp.broken"]);
        self.commit_and_reload("dhcp");
    }

    // --- dnsmasq

    /// From now on dnsmasq does not start if these words are in its configuration: what somebody writes who takes it for
    /// good is refused all the same. `None` takes it back. A dnsmasq that runs goes on.
    pub fn refuse(&self, words: Option<&str>) {
        self.procd.refuse(words);
    }

    /// The names of the sections `config dnsmasq`, which are those of its instances.
    pub fn instances(&self) -> Vec<String> {
        let dhcp = uci::parse(&self.uci(&["-n", "export", "dhcp"]));
        dhcp.into_iter().filter(|section| section.kind == "dnsmasq").map(|section| section.name).collect()
    }

    /// What dnsmasq was started with last.
    pub fn dnsmasq_conf(&self) -> String {
        self.instances().iter().map(|name| self.text(&format!("/var/etc/dnsmasq.conf.{name}"))).collect()
    }

    /// What `dnsmasq --test` says of it.
    pub fn dnsmasq_test(&self) -> String {
        let test = |name: &String| {
            let conf = format!("/var/etc/dnsmasq.conf.{name}");
            String::from_utf8(self.inside().output("dnsmasq", &["--test", "-C", &conf]).stderr).unwrap()
        };
        self.instances().iter().map(test).collect()
    }

    /// Whether every dnsmasq runs, by `service list`.
    pub fn dnsmasq_runs(&self) -> bool {
        let list = self.service("dnsmasq");
        let instances = list["dnsmasq"]["instances"].as_object().unwrap();
        !instances.is_empty() && instances.values().all(|instance| instance["running"] == true)
    }

    /// `ubus call service list`.
    pub fn service(&self, name: &str) -> Value {
        self.bus.call("service", "list", &json!({ "name": name })).unwrap()
    }

    /// The OFFER to the first DISCOVER of a machine; one has to come.
    #[track_caller]
    pub fn offer(&self, link: &Link, pi: &Pi) -> Offer {
        let offer = offer::ask(link, pi, PATIENCE);
        offer.unwrap_or_else(|| panic!("no OFFER for {}\n{}", pi.mac, self.logs()))
    }

    /// Asserts that a machine is offered nothing.
    #[track_caller]
    pub fn assert_no_offer(&self, link: &Link, pi: &Pi) {
        assert_eq!(offer::ask(link, pi, NO_OFFER), None);
    }

    // --- the agent

    /// Starts the agent as its init script does, and waits until it serves.
    pub fn start_agent(&mut self) {
        let mut command = self.inside().command("piboot");
        command.args(["serve", "--verbose"]);
        let agent = self.net.spawn("piboot", command).unwrap();
        agent.wait_line("serves", PATIENCE).unwrap();
        self.procd.set_agent(Some(agent.pid()));
        self.agent = Some(agent);
    }

    pub fn agent(&self) -> &Process {
        self.agent.as_ref().expect("the agent runs")
    }

    /// Ends the agent the way procd does; it must end well. Everything it said.
    pub fn stop_agent(&mut self) -> Vec<String> {
        let mut agent = self.forget_agent();
        agent.signal(Signal::SIGTERM).unwrap();
        let status = agent.wait().unwrap();
        assert!(status.success(), "{status}: {:#?}", agent.lines());
        agent.lines()
    }

    /// Kills the agent without warning.
    pub fn kill_agent(&mut self) {
        let mut agent = self.forget_agent();
        agent.signal(Signal::SIGKILL).unwrap();
        agent.wait().unwrap();
    }

    fn forget_agent(&mut self) -> Process {
        self.procd.set_agent(None);
        self.agent.take().expect("the agent runs")
    }

    /// Runs a `piboot` command; its output, or its error message.
    pub fn piboot(&self, args: &[&str]) -> Result<String, String> {
        let output = self.inside().output("piboot", args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stdout) + &text(&output.stderr))
        }
    }

    /// The agent's answer as JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.piboot(&[&["--json"], args].concat()).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// How many lines of the agent's log contain `words`.
    pub fn said(&self, words: &str) -> usize {
        self.agent().lines().iter().filter(|line| line.contains(words)).count()
    }

    // --- what happened

    /// Everything that has happened to procd so far.
    pub fn happenings(&self) -> Vec<Happening> {
        self.procd.happenings()
    }

    /// Waits until something happens to procd that satisfies `what`; `after` of what happened is left out.
    #[track_caller]
    pub fn wait_for(&self, after: usize, what: impl Fn(&Happening) -> bool) -> Happening {
        let found = self.procd.wait_for(after, PATIENCE, what);
        found.unwrap_or_else(|| panic!("it did not happen: {:#?}\n{}", self.happenings(), self.logs()))
    }

    /// Waits for what cannot announce itself.
    #[track_caller]
    pub fn wait_until(&self, what: &str, until: impl Fn() -> bool) {
        let begun = Instant::now();
        while !until() {
            assert!(begun.elapsed() < PATIENCE, "{what} did not come about\n{}", self.logs());
            std::thread::sleep(POLL);
        }
    }

    /// What agent and dnsmasq said, for a test that fails.
    pub fn logs(&self) -> String {
        let agent: Vec<String> = self.agent.iter().flat_map(Process::lines).collect();
        format!("agent:\n{}\ndnsmasq:\n{}", agent.join("\n"), self.procd.said().join("\n"))
    }
}
