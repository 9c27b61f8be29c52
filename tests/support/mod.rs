//! A router for tests: a network of its own with a real dnsmasq and the real agent, driven through its command line.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_types,
    dead_code,
    unreachable_pub,
    reason = "helpers of tests, shared by several"
)]

pub mod bus;
pub mod disk;
pub mod image;
pub mod layers;
pub mod nfs;
pub mod tftp;
pub mod web;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use emupi::lab::{DnsmasqService, Net, Process};
use emupi::{BootOptions, Link, Pi};
use nix::sys::signal::Signal;
use serde_json::Value;

/// How long anything may take on a loaded machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a state is asked for while waiting for it.
const POLL: Duration = Duration::from_millis(20);

/// The program under test.
pub const PIBOOT: &str = env!("CARGO_BIN_EXE_piboot");

/// A router that is taken apart when dropped.
pub struct Router {
    agent: Option<Process>,
    dnsmasq: DnsmasqService,
    data_dir: PathBuf,
    pub net: Net,
}

/// How emulated Pis boot in these tests: hurried where only they wait.
pub fn hurried() -> BootOptions {
    BootOptions { speed: 20.0, seed: 7, ..BootOptions::default() }
}

impl Router {
    /// A network, an empty data directory and a configuration; nothing runs yet.
    pub fn new() -> Self {
        let mut router = Self::without_data_dir();
        router.data_dir = router.scratch("data");
        fs::create_dir(router.data_dir()).unwrap();
        router.edit_config(|text| text.replace("/nonexistent", router.data_dir().to_str().unwrap()));
        router
    }

    /// The same with its data somewhere else, for example on a disk of its own.
    pub fn with_data_dir(data_dir: PathBuf) -> Self {
        let mut router = Self::without_data_dir();
        router.edit_config(|text| text.replace("/nonexistent", data_dir.to_str().unwrap()));
        router.data_dir = data_dir;
        router
    }

    fn without_data_dir() -> Self {
        let net = Net::new().unwrap();
        let dnsmasq = net.dnsmasq_service().unwrap();
        let router = Self { agent: None, data_dir: PathBuf::new(), dnsmasq, net };
        // Without the one quirk that takes a second of what hurried Pis do not have.
        let config = format!(
            "config piboot 'main'\n\toption enabled '1'\n\tlist interface 'br-lan'\n\toption data_dir '/nonexistent'\n\toption dhcp 'dnsmasq'\n\toption dnsmasq_confdir '{}'\n\tlist dnsmasq_restart '{}'\n\tlist quirk_off 'reply_delay'\n",
            router.confdir().display(),
            router.dnsmasq.restart.display(),
        );
        fs::write(router.config(), config).unwrap();
        router
    }

    /// A router whose agent and dnsmasq run.
    pub fn running() -> Self {
        let mut router = Self::new();
        router.start_agent();
        router.start_dnsmasq();
        router
    }

    pub fn scratch(&self, name: &str) -> PathBuf {
        self.net.scratch().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.scratch("piboot.conf")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    pub fn confdir(&self) -> PathBuf {
        self.dnsmasq.confdir.clone()
    }

    /// Where the agent looks for a ubus broker.
    pub fn ubus(&self) -> PathBuf {
        self.scratch("ubus.sock")
    }

    /// The agent's local socket.
    pub fn socket(&self) -> PathBuf {
        self.scratch("piboot.sock")
    }

    /// Starts the agent and waits until it serves. Mounts that it makes go with it.
    pub fn start_agent(&mut self) {
        self.start_agent_by(self.net.command(PIBOOT));
    }

    /// The same where its mounts are seen here, and stay when it is killed.
    pub fn start_agent_here(&mut self) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.net.router_ns())).arg(PIBOOT);
        self.start_agent_by(command);
    }

    fn start_agent_by(&mut self, mut command: Command) {
        command.arg("--socket").arg(self.socket()).args(["serve", "--verbose", "--config"]).arg(self.config());
        command.arg("--ubus").arg(self.ubus());
        let agent = self.net.spawn("piboot", command).unwrap();
        agent.wait_line("serves", PATIENCE).unwrap();
        self.agent = Some(agent);
    }

    /// Starts dnsmasq the way an admin would: its own configuration, and the drop-in directory.
    pub fn start_dnsmasq(&self) {
        self.net.exec(self.dnsmasq.restart.to_str().unwrap(), &[]).unwrap();
    }

    /// Gives a board a fixed address. For boards that never send a REQUEST, many at once.
    pub fn fix_address(&self, pi: &Pi, last: u8) {
        let path = &self.dnsmasq.conf;
        let text = fs::read_to_string(path).unwrap() + &format!("dhcp-host={},10.77.0.{last}\n", pi.mac);
        fs::write(path, text).unwrap();
    }

    /// Changes the configuration the way an admin's editor does.
    pub fn edit_config(&self, edit: impl FnOnce(String) -> String) {
        fs::write(self.config(), edit(fs::read_to_string(self.config()).unwrap())).unwrap();
    }

    /// Has the agent read its configuration again (SIGHUP) and waits until it did.
    pub fn reload(&self) {
        let count = || self.said("read again") + self.said("stays in force:");
        let before = count();
        self.agent().signal(Signal::SIGHUP).unwrap();
        self.wait_until("an answer to SIGHUP", || count() > before);
    }

    /// How many lines of the agent's log contain `words`.
    pub fn said(&self, words: &str) -> usize {
        self.agent().lines().iter().filter(|line| line.contains(words)).count()
    }

    /// Waits for what cannot announce itself.
    pub fn wait_until(&self, what: &str, mut until: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !until() {
            assert!(begun.elapsed() < PATIENCE, "{what} did not come about\n{}", self.logs());
            std::thread::sleep(POLL);
        }
    }

    /// Waits until no job is left and dnsmasq has read what it has to.
    pub fn wait_until_settled(&self) {
        self.wait_until("rest", || {
            let status = self.json(&["status"]);
            let restarting = |f: &Value| f["place"] == "piboot.main.dnsmasq_restart";
            status["jobs"] == 0 && !status["findings"].as_array().unwrap().iter().any(restarting)
        });
    }

    /// The most memory the agent has used, in kB.
    pub fn peak_rss_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.agent().pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Sends bytes to the local socket; the first line of the answer.
    pub fn talk(&self, request: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // A request that is too long may be refused before all of it is sent.
        let _ = stream.write_all(request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    }

    /// The sentences of `piboot check`.
    pub fn findings(&self) -> Vec<String> {
        let text = self.piboot(&["check"]);
        text.unwrap_or_else(|said| said).lines().map(str::to_owned).collect()
    }

    /// Asserts that `piboot check` has a line with all these words.
    #[track_caller]
    pub fn assert_finding(&self, words: &[&str]) {
        let findings = self.findings();
        assert!(findings.iter().any(|line| words.iter().all(|w| line.contains(w))), "{words:?} not in {findings:#?}");
    }

    /// Asserts that `piboot check` finds nothing.
    #[track_caller]
    pub fn assert_nothing_stands_in_the_way(&self) {
        let said = self.piboot(&["check"]);
        assert!(said.as_ref().is_ok_and(|text| text.contains("nothing stands in the way")), "{said:?}");
    }

    /// Asserts that a command fails with all these words.
    #[track_caller]
    pub fn assert_refused(&self, args: &[&str], words: &[&str]) {
        let said = self.piboot(args).expect_err("refused");
        assert!(words.iter().all(|w| said.contains(w)), "{args:?}: {words:?} not in '{said}'");
    }

    /// Enrols a Pi by both that it is known by, with image `small`, and waits for its copy.
    #[track_caller]
    pub fn enroll_with_serial(&self, pi: &Pi, serial: &str, hostname: &str) {
        let mac = pi.mac.to_string();
        let said =
            self.piboot(&["enroll", "--mac", &mac, "--serial", serial, "--hostname", hostname, "--image", "small"]);
        assert!(said.is_ok(), "{said:?}\n{}", self.logs());
    }

    /// Enrols a Pi with image `small` and waits for its copy.
    #[track_caller]
    pub fn enroll(&self, pi: &Pi, hostname: &str) {
        let said = self.piboot(&["enroll", "--mac", &pi.mac.to_string(), "--hostname", hostname, "--image", "small"]);
        assert!(said.is_ok(), "{said:?}\n{}", self.logs());
    }

    /// One job, by its number.
    pub fn job(&self, id: u64) -> Value {
        let jobs = self.json(&["jobs"]);
        let job = jobs["jobs"].as_array().unwrap().iter().find(|j| j["id"] == id).cloned();
        job.unwrap_or_else(|| panic!("no job {id} in {jobs:#}"))
    }

    /// Starts a command that becomes a job; its number.
    pub fn begin(&self, args: &[&str]) -> u64 {
        let said = self.piboot(&[args, &["--no-wait"]].concat()).unwrap();
        said.split_once("job ").unwrap().1.split(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until a job is in the middle of its work, having done so much of it.
    pub fn wait_for_middle(&self, id: u64, bytes: u64, files: u64) {
        let begun = Instant::now();
        loop {
            let job = self.job(id);
            assert_eq!(job["finished_ms"], 0, "too late to interrupt it: {job:#}");
            if job["bytes"].as_u64().unwrap() >= bytes && job["files"].as_u64().unwrap() >= files {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{job:#}");
        }
    }

    /// Names in a directory below the data directory.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.data_dir().join(directory)).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Asserts that a Pi boots to its kernel.
    #[track_caller]
    pub fn assert_boots(&self, pi: &Pi, link: &Link) {
        self.wait_for_dnsmasq();
        let booted = emupi::boot(pi, link, &hurried(), None).unwrap();
        if booted.ready().is_none() {
            booted.log.iter().for_each(|entry| eprintln!("{entry}"));
            panic!("{}: {}\n{}", pi.model, booted.outcome, self.logs());
        }
    }

    /// Waits until dnsmasq answers by what the agent wrote last: it restarts in its own time, and hurried Pis do not wait.
    pub fn wait_for_dnsmasq(&self) {
        let text = |path: PathBuf| fs::read(path).unwrap_or_default();
        let (written, read) = (self.confdir().join("piboot.conf"), &self.dnsmasq.read);
        self.wait_until("dnsmasq", || text(written.clone()) == text(read.clone()));
    }

    /// What agent and dnsmasq said, for a test that fails.
    pub fn logs(&self) -> String {
        let agent: Vec<String> = self.agent.iter().flat_map(Process::lines).collect();
        let dnsmasq = fs::read_to_string(&self.dnsmasq.log).unwrap_or_default();
        let dnsmasq: Vec<&str> = dnsmasq.lines().filter(|l| l.contains("DHCP") || l.contains("tags:")).collect();
        format!("agent:\n{}\ndnsmasq:\n{}", agent.join("\n"), dnsmasq.join("\n"))
    }

    pub fn agent(&self) -> &Process {
        self.agent.as_ref().expect("the agent runs")
    }

    /// Kills the agent without warning.
    pub fn kill_agent(&mut self) {
        let mut agent = self.agent.take().expect("the agent runs");
        agent.signal(Signal::SIGKILL).unwrap();
        agent.wait().unwrap();
    }

    /// Ends the agent the way procd does; it must end well.
    pub fn stop_agent(&mut self) -> Vec<String> {
        let mut agent = self.agent.take().expect("the agent runs");
        agent.signal(Signal::SIGTERM).unwrap();
        let status = agent.wait().unwrap();
        assert!(status.success(), "{status}: {:#?}", agent.lines());
        agent.lines()
    }

    /// Runs a `piboot` command; its output, or its error message.
    pub fn piboot(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new(PIBOOT).arg("--socket").arg(self.socket()).args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stdout) + &text(&output.stderr))
        }
    }

    /// Runs a command that reads `input`; its output.
    pub fn piboot_given(&self, args: &[&str], input: &str) -> String {
        let mut command = Command::new(PIBOOT);
        command.arg("--socket").arg(self.socket()).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The agent's answer as JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.piboot(&[&["--json"], args].concat()).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// Waits until the agent's answer satisfies `until`.
    pub fn wait_for(&self, args: &[&str], what: &str, until: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let answer = self.json(args);
            if until(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < PATIENCE, "{what} did not come about; last answer: {answer:#}");
            std::thread::sleep(POLL);
        }
    }

    /// Imports an image file.
    pub fn import(&self, file: &Path, name: &str) {
        let said = self.piboot(&["image", "import", file.to_str().unwrap(), "--name", name]);
        assert!(said.as_ref().is_ok_and(|s| s.contains("imported")), "{said:?}");
    }
}
