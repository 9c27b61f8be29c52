//! The router of the demo: network, dnsmasq, agent, and the `piboot` command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use emupi::lab::{DnsmasqService, Net, Process};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::Failure;

const START: Duration = Duration::from_secs(20);

/// A router whose agent and DHCP server run; taken apart when dropped.
pub struct Router {
    agent: Option<Process>,
    program: PathBuf,
    dnsmasq: DnsmasqService,
    /// The network.
    pub net: Net,
}

impl Router {
    /// Builds the network, starts dnsmasq and the agent.
    pub fn start(program: &Path) -> Result<Self, Failure> {
        let net = Net::new().map_err(Failure::new)?;
        let program = program.canonicalize().map_err(|e| Failure::new(format!("{}: {e}", program.display())))?;
        let dnsmasq = net.dnsmasq_service().map_err(Failure::new)?;
        let mut router = Self { agent: None, program, dnsmasq, net };
        router.write_files().map_err(Failure::new)?;
        let restart = router.dnsmasq.restart.display().to_string();
        router.net.exec(&restart, &[]).map_err(Failure::new)?;
        router.start_agent()?;
        Ok(router)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.net.scratch().join(name)
    }

    /// Where the agent keeps its trees.
    pub fn data_dir(&self) -> PathBuf {
        self.file("data")
    }

    fn write_files(&self) -> std::io::Result<()> {
        let scratch = self.net.scratch().display();
        fs::create_dir(self.data_dir())?;
        let config = format!(
            "config piboot 'main'\n\toption enabled '1'\n\tlist interface 'br-lan'\n\toption data_dir '{scratch}/data'\n\
             \toption dhcp 'dnsmasq'\n\toption dnsmasq_confdir '{scratch}/dnsmasq.d'\n\tlist dnsmasq_restart '{scratch}/restart-dnsmasq'\n"
        );
        fs::write(self.file("piboot.conf"), config)
    }

    fn start_agent(&mut self) -> Result<(), Failure> {
        let mut command = self.net.command(&self.program);
        command.arg("--socket").arg(self.file("piboot.sock")).args(["serve", "--config"]).arg(self.file("piboot.conf"));
        let agent = self.net.spawn("piboot", command).map_err(Failure::new)?;
        agent.wait_line("serves", START).map_err(Failure::new)?;
        self.agent = Some(agent);
        Ok(())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--socket").arg(self.file("piboot.sock")).args(args);
        command
    }

    /// Runs a `piboot` command for the person who watches: shows it and what it prints.
    pub fn show(&self, args: &[&str]) -> Result<(), Failure> {
        println!("$ piboot {}", args.join(" "));
        let status = self.command(args).status().map_err(Failure::new)?;
        if status.success() { Ok(()) } else { Err(Failure::new(format!("'piboot {}' failed", args.join(" ")))) }
    }

    /// The agent's answer as JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value, Failure> {
        let output = self.command(&["--json"]).args(args).output().map_err(Failure::new)?;
        if !output.status.success() {
            return Err(Failure::new(String::from_utf8_lossy(&output.stderr).trim()));
        }
        serde_json::from_slice(&output.stdout).map_err(Failure::new)
    }

    /// Keeps what agent and dnsmasq said.
    pub fn save_logs(&self, logs: &Path) {
        let said = self.agent.iter().flat_map(Process::lines).collect::<Vec<_>>().join("\n");
        // Missing logs must not hide the failure they belong to.
        let _ = fs::write(logs.join("agent.log"), said + "\n");
        let _ = fs::copy(&self.dnsmasq.log, logs.join("dnsmasq.log"));
    }

    /// Ends the agent the way an init system does.
    pub fn stop_agent(&mut self) -> Result<(), Failure> {
        let Some(mut agent) = self.agent.take() else { return Ok(()) };
        agent.signal(Signal::SIGTERM).map_err(Failure::new)?;
        let status = agent.wait().map_err(Failure::new)?;
        if status.success() { Ok(()) } else { Err(Failure::new(format!("the agent ended with {status}"))) }
    }
}
