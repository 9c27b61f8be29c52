//! The contestants in a router's network namespace. Both leave DHCP to a dnsmasq that gives every Pi an address of its own.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use emupi::Pi;
use emupi::lab::{Net, Process};
use emupi::storm::Usage;
use piboot::config::NfsMode;
use piboot::fleet::{AdaptedFor, DeviceRecord, ExportedAt};

use super::files::Tree;
use crate::measure::Error;

/// Who piboot is compared with.
pub const PEERS: [&str; 1] = ["dnsmasq"];
/// How long a server may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// What makes every Pi boot: a PXE menu with "Raspberry Pi Boot" and three spaces (documentation, "Network booting").
const BOOT_OPTIONS: &str = "dhcp-option-force=43,06:01:03:0a:04:00:50:58:45:09:17:00:00:14:52:61:73:70:62:65:72:72:79:20:50:69:20:42:6f:6f:74:20:20:20:ff\n\
     dhcp-option-force=60,PXEClient\ndhcp-option-force=66,10.77.0.1\n";

/// A network with room for a storm, and where a router keeps its files.
pub struct Router {
    /// The network.
    pub net: Net,
}

impl Router {
    /// A network without servers.
    pub fn new() -> Result<Self, Error> {
        let router = Self { net: Net::with_address(SERVER, 16)? };
        fs::create_dir_all(router.data_dir().join("devices"))?;
        fs::create_dir_all(router.confdir())?;
        Ok(router)
    }

    pub(super) fn image(&self) -> PathBuf {
        self.data_dir().join("images/small")
    }

    /// Where the agent keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        self.net.scratch().join("data")
    }

    fn confdir(&self) -> PathBuf {
        self.net.scratch().join("dnsmasq.d")
    }

    fn socket(&self) -> PathBuf {
        self.net.scratch().join("piboot.sock")
    }

    /// Starts the agent with these sections of devices.
    pub fn start_agent(&self, devices: &str) -> Result<Process, Error> {
        let config = self.write_config(devices)?;
        let mut command = self.server(agent()?);
        command.arg("--socket").arg(self.socket()).args(["serve", "--config"]).arg(config);
        command.arg("--ubus").arg(self.net.scratch().join("ubus.sock"));
        let agent = self.net.spawn("piboot", command)?;
        agent.wait_line("serves", PATIENCE)?;
        Ok(agent)
    }

    fn write_config(&self, devices: &str) -> Result<PathBuf, Error> {
        let path = self.net.scratch().join("piboot.conf");
        let main = format!(
            "config piboot 'main'\n\toption enabled '1'\n\tlist interface 'br-lan'\n\toption data_dir '{}'\n\
             \toption dhcp 'dnsmasq'\n\toption dnsmasq_confdir '{}'\n\tlist dnsmasq_restart 'true'\n{devices}",
            self.data_dir().display(),
            self.confdir().display(),
        );
        fs::write(&path, main)?;
        Ok(path)
    }

    /// What the agent answers to a command.
    pub fn ask(&self, verb: &str) -> Result<String, Error> {
        let output = Command::new(agent()?).arg("--socket").arg(self.socket()).args(["--json", verb]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until a command is answered with these words.
    pub fn wait_for(&self, verb: &str, words: &str) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            let answer = self.ask(verb)?;
            if answer.split_whitespace().collect::<String>().contains(words) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(Error::new(format!("piboot {verb} does not say {words}: {answer}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A command that shares a CPU with the Pis (sched(7), SCHED_BATCH): it does not interrupt them for each packet that
    /// they send, but finds several when they wait, as a server does that many machines keep busy.
    fn server(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.net.command("chrt");
        command.args(["--batch", "0"]).arg(program);
        command
    }

    fn start_dnsmasq(&self, conf: &str) -> Result<Process, Error> {
        let path = self.net.scratch().join("dnsmasq.conf");
        let leases = self.net.scratch().join("dnsmasq.leases");
        fs::write(
            &path,
            format!(
                "port=0\nuser=root\ninterface=br-lan\nbind-interfaces\nexcept-interface=lo\nno-ping\nquiet-dhcp\nquiet-tftp\n\
                 dhcp-range=10.77.1.0,10.77.3.250,255.255.0.0,1h\ndhcp-leasefile={}\n{conf}",
                leases.display()
            ),
        )?;
        let mut command = self.server("dnsmasq");
        command.args(["--keep-in-foreground", "--log-facility=-", "--pid-file="]);
        command.arg(format!("--conf-file={}", path.display()));
        let dnsmasq = self.net.spawn("dnsmasq", command)?;
        dnsmasq.wait_line("started", PATIENCE)?;
        Ok(dnsmasq)
    }
}

/// The program itself, built beside this one.
fn agent() -> Result<PathBuf, Error> {
    Ok(std::env::current_exe()?.with_file_name("piboot"))
}

/// Who serves the files.
#[derive(Debug, Clone, Copy)]
pub enum Contestant {
    /// The agent, as a router runs it.
    Piboot,
    /// The dnsmasq that does DHCP, with `enable-tftp`.
    Dnsmasq,
}

impl Contestant {
    /// As it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Piboot => "piboot",
            Self::Dnsmasq => PEERS[0],
        }
    }

    /// Starts everything, every Pi enrolled.
    pub fn start(self, router: &Router, tree: &Tree, pis: &[Pi]) -> Result<Servers, Error> {
        if let Self::Dnsmasq = self {
            let hosts: String =
                (0..).zip(pis).map(|(n, pi)| format!("dhcp-host={},{}\n", pi.mac, address(n))).collect();
            let root = tree.as_served().display();
            let tftp = format!("{BOOT_OPTIONS}{hosts}enable-tftp\ntftp-max=1000\ntftp-root={root}\n");
            return Ok(Servers(vec![router.start_dnsmasq(&tftp)?]));
        }
        enrol(router, tree, pis)?;
        let agent = router.start_agent(&sections(pis)?)?;
        router.wait_for("status", &format!("\"devices_ready\":{}", pis.len()))?;
        Ok(Servers(vec![agent, router.start_dnsmasq(&format!("conf-dir={}\n", router.confdir().display()))?]))
    }
}

fn sections(pis: &[Pi]) -> Result<String, Error> {
    let mut sections = String::new();
    for (n, pi) in (0..).zip(pis) {
        let (serial, mac, ip) = (pi.serial32(), pi.mac, address(n));
        writeln!(
            sections,
            "config device 'pi_{n}'\n\toption serial '{serial:08x}'\n\toption mac '{mac}'\n\toption ip '{ip}'\n\toption image 'small'"
        )?;
    }
    Ok(sections)
}

/// Puts the trees of all Pis where the agent would have put them.
fn enrol(router: &Router, tree: &Tree, pis: &[Pi]) -> Result<(), Error> {
    let (config, _) = piboot::config::load(&router.write_config(&sections(pis)?)?, None)?;
    for (export_pair, device) in (1..).zip(&config.devices) {
        let directory = router.data_dir().join("devices").join(&device.id);
        fs::create_dir_all(directory.join("root"))?;
        symlink(tree.boot(), directory.join("boot"))?;
        let exported = ExportedAt::of(&NfsMode::Builtin, SERVER);
        let adapted_for = AdaptedFor::of(device, &exported, &config.main.regional);
        let image = device.image.clone();
        let record = DeviceRecord {
            export_pair,
            image,
            image_sha256: String::new(),
            root: None,
            switched_from: None,
            made_ms: 0,
            adapted_for,
            changes: vec![],
            rolled_back: None,
            notes: vec![],
            spared_bytes: 0,
        };
        record.save(&directory)?;
    }
    Ok(())
}

/// The address of the n-th Pi.
fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 2, n)
}

/// What serves in one run.
pub struct Servers(Vec<Process>);

impl Servers {
    /// CPU time and memory of all of them.
    pub fn usage(&self) -> Result<Usage, Error> {
        let mut all = Usage { cpu: Duration::ZERO, peak_rss_kb: 0 };
        for process in &self.0 {
            let usage = usage(process)?;
            (all.cpu, all.peak_rss_kb) = (all.cpu + usage.cpu, all.peak_rss_kb + usage.peak_rss_kb);
        }
        Ok(all)
    }
}

/// CPU time and memory of a server.
pub fn usage(process: &Process) -> Result<Usage, Error> {
    let pid = i32::try_from(process.pid())?;
    Usage::of(pid).ok_or_else(|| Error::new(format!("the server ended: {}", process.lines().join("\n"))))
}
