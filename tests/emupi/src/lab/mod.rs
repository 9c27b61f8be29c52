//! A small network to boot in: a router's namespace with a bridge, the boards' ends of cables, a DHCP server.
//!
//! Everything is made by the test that needs it and removed when the [`Net`] is dropped. What a killed test left behind
//! is removed by the next one: names carry the process id of their owner.

mod host;
mod process;

pub use host::Host;
pub use process::Process;

use crate::link::{Link, LinkError};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Names of namespaces and scratch directories begin with this and the owner's process id.
const PREFIX: &str = "pb-";
/// The router's hardware address.
const BRIDGE_MAC: &str = "02:70:69:62:6f:6f";
const RUN_NETNS: &str = "/run/netns";
/// How long a server may take to start on a loaded machine.
const START: Duration = Duration::from_secs(20);

/// Why the lab could not be built or used.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program failed.
    #[error("`{command}` failed: {why}")]
    Command {
        /// The command line.
        command: String,
        /// Its error output, or why it could not start.
        why: String,
    },
    /// A server did not say what it should in time.
    #[error("{name} did not say \"{expected}\" within {seconds} s; it said:\n{said}")]
    Silent {
        /// The server.
        name: String,
        /// The words waited for.
        expected: String,
        /// How long.
        seconds: u64,
        /// What it said instead.
        said: String,
    },
    /// A file or system call.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The boards' side.
    #[error(transparent)]
    Link(#[from] LinkError),
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
    let what = what.into();
    move |source| LabError::System { what, source }
}

/// The network.
#[derive(Debug)]
pub struct Net {
    name: String,
    address: Ipv4Addr,
    prefix_len: u8,
    scratch: PathBuf,
    cables: AtomicU32,
}

impl Net {
    /// A router 10.77.0.1/24 with an empty bridge `br-lan`. Needs root.
    ///
    /// # Errors
    /// When a namespace cannot be made.
    pub fn new() -> Result<Net, LabError> {
        Net::with_address(Ipv4Addr::new(10, 77, 0, 1), 24)
    }

    /// The same with another address.
    ///
    /// # Errors
    /// When a namespace cannot be made.
    pub fn with_address(address: Ipv4Addr, prefix_len: u8) -> Result<Net, LabError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let scratch = std::env::temp_dir().join(&name);
        fs::create_dir_all(&scratch).map_err(system(format!("create {}", scratch.display())))?;
        // From here on dropping `net` cleans up, however far building came.
        let net = Net { name, address, prefix_len, scratch, cables: AtomicU32::new(0) };
        let (router, boards) = (net.router_ns(), net.boards_ns());
        for ns in [&router, &boards] {
            run("ip", &["netns", "add", ns])?;
            run("ip", &["-n", ns, "link", "set", "lo", "up"])?;
        }
        // The boards' stack is ours; the kernel's, on the same interface, must keep quiet.
        in_netns(&boards, || fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"))?
            .map_err(system("disable IPv6 on the boards' side"))?;
        // With an address of its own: else it has the lowest of its ports', which changes when a cable is pulled.
        let bridge = ["address", BRIDGE_MAC, "type", "bridge", "stp_state", "0", "forward_delay", "0"];
        run("ip", &[&["-n", &router, "link", "add", "br-lan"], &bridge[..]].concat())?;
        run("ip", &["-n", &router, "addr", "add", &format!("{address}/{prefix_len}"), "dev", "br-lan"])?;
        run("ip", &["-n", &router, "link", "set", "br-lan", "up"])?;
        Ok(net)
    }

    /// The namespace of the router, as `ip netns` knows it. Servers run here.
    pub fn router_ns(&self) -> String {
        format!("{}-r", self.name)
    }

    fn boards_ns(&self) -> String {
        format!("{}-b", self.name)
    }

    /// The router's address on the bridge.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Length of the network's prefix.
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// The bridge the boards are connected to.
    pub fn bridge(&self) -> &'static str {
        "br-lan"
    }

    /// A directory for files of this network; removed with it.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Adds a tap interface to the bridge; its name is for [`Link::tap`] inside [`Net::enter`], or for a QEMU that runs in
    /// the router's namespace.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn add_tap(&self) -> Result<String, LabError> {
        let tap = format!("tap{}", self.cables.fetch_add(1, Ordering::Relaxed));
        let ns = self.router_ns();
        run("ip", &["-n", &ns, "tuntap", "add", "dev", &tap, "mode", "tap"])?;
        self.plug(&tap)?;
        Ok(tap)
    }

    /// Adds a veth pair with one end in the bridge; the name returned is the other end's, in the boards' namespace.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn add_veth(&self) -> Result<String, LabError> {
        let number = self.cables.fetch_add(1, Ordering::Relaxed);
        let (here, there) = (format!("veth{number}"), format!("pi{number}"));
        let (ns, boards) = (self.router_ns(), self.boards_ns());
        run("ip", &["-n", &ns, "link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &boards])?;
        self.plug(&here)?;
        Ok(there)
    }

    fn plug(&self, interface: &str) -> Result<(), LabError> {
        run("ip", &["-n", &self.router_ns(), "link", "set", interface, "master", self.bridge(), "up"]).map(drop)
    }

    /// A new tap interface, open and ready for boards.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn tap_link(&self) -> Result<Link, LabError> {
        let tap = self.add_tap()?;
        Ok(self.enter(|| Link::tap(&tap))??)
    }

    /// A new veth end, open and ready for boards.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn veth_link(&self) -> Result<Link, LabError> {
        let end = self.add_veth()?;
        Ok(in_netns(&self.boards_ns(), || Link::veth(&end))??)
    }

    /// Runs a closure on a thread inside the router's namespace. Sockets it opens, and programs it starts, stay there.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        in_netns(&self.router_ns(), work)
    }

    /// A command that will run in the router's namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.router_ns()]).arg(program);
        command
    }

    /// Runs a program in the router's namespace and returns its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn exec(&self, program: &str, args: &[&str]) -> Result<String, LabError> {
        let ns = self.router_ns();
        let mut all = vec!["netns", "exec", &ns, program];
        all.extend(args);
        run("ip", &all)
    }

    /// Starts a program in the router's namespace; it is killed when the [`Process`] is dropped. Take the command from
    /// [`Net::command`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process, LabError> {
        Process::start(name, command)
    }

    /// Starts Debian's dnsmasq with this configuration (besides interface, lease file and log, which are set here) and
    /// waits until it listens.
    ///
    /// # Errors
    /// When it refuses the configuration.
    pub fn dnsmasq(&self, conf: &str) -> Result<Process, LabError> {
        let path = self.scratch.join("dnsmasq.conf");
        let leases = self.scratch.join("dnsmasq.leases");
        let fixed = format!(
            "port=0\nuser=root\ninterface={}\nbind-interfaces\nexcept-interface=lo\ndhcp-leasefile={}\nlog-dhcp\nno-ping\n",
            self.bridge(),
            leases.display()
        );
        fs::write(&path, fixed + conf).map_err(system(format!("write {}", path.display())))?;
        let mut command = self.command("dnsmasq");
        // Without one the pid file is the machine's, which several labs at once would fight for.
        command
            .args(["--keep-in-foreground", "--log-facility=-", "--pid-file="])
            .arg(format!("--conf-file={}", path.display()));
        let process = self.spawn("dnsmasq", command)?;
        // It says so after its sockets are bound.
        process.wait_line("started", START)?;
        Ok(process)
    }
}

/// A dnsmasq that runs as a machine's service does: in the background, restarted by a script, with a drop-in directory.
/// It ends with the network.
#[derive(Debug, Clone)]
pub struct DnsmasqService {
    /// Its own configuration; lines may be added before a restart.
    pub conf: PathBuf,
    /// Its `conf-dir`.
    pub confdir: PathBuf,
    /// What it logs.
    pub log: PathBuf,
    /// The program that starts or restarts it.
    pub restart: PathBuf,
    /// The drop-in `piboot.conf` as it was when dnsmasq last started, empty if there was none.
    pub read: PathBuf,
}

impl Net {
    /// Writes the files of a [`DnsmasqService`] for the bridge; it does not run yet.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn dnsmasq_service(&self) -> Result<DnsmasqService, LabError> {
        let scratch = self.scratch.display();
        let file = |name: &str| self.scratch.join(name);
        let service = DnsmasqService {
            conf: file("dnsmasq.conf"),
            confdir: file("dnsmasq.d"),
            log: file("dnsmasq.log"),
            restart: file("restart-dnsmasq"),
            read: file("dnsmasq.read"),
        };
        let conf = format!(
            "port=0\nuser=root\ninterface=br-lan\nbind-interfaces\nexcept-interface=lo\nno-ping\nlog-dhcp\n\
             dhcp-range=10.77.0.50,10.77.0.200,1h\nconf-dir={scratch}/dnsmasq.d\npid-file={scratch}/dnsmasq.pid\n\
             dhcp-leasefile={scratch}/dnsmasq.leases\nlog-facility={scratch}/dnsmasq.log\n"
        );
        // The lock: several may want it at the same time. A zombie, which nobody may reap in a container, counts as gone.
        let script = format!(
            "#!/bin/sh\ncd {scratch}\nexec 9>dnsmasq.lock\nflock 9\n\
             if [ -e dnsmasq.pid ]; then pid=$(cat dnsmasq.pid); kill $pid; \
             while grep -qs '^State:.[^Z]' /proc/$pid/status; do sleep 0.02; done; fi\n\
             cp dnsmasq.d/piboot.conf dnsmasq.next || : >dnsmasq.next\n\
             dnsmasq --conf-file=dnsmasq.conf 9>&- && mv dnsmasq.next dnsmasq.read\n"
        );
        let write = || -> io::Result<()> {
            fs::create_dir(&service.confdir)?;
            fs::write(&service.conf, conf)?;
            fs::write(&service.restart, script)?;
            fs::set_permissions(&service.restart, fs::Permissions::from_mode(0o755))
        };
        write().map_err(system("write the files of dnsmasq"))?;
        Ok(service)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for ns in [self.router_ns(), self.boards_ns()] {
            remove_netns(&ns);
        }
        if std::thread::panicking() {
            eprintln!("lab: files kept in {}", self.scratch.display());
        } else {
            let _ = fs::remove_dir_all(&self.scratch);
        }
    }
}

fn in_netns<T: Send>(ns: &str, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
    let path = Path::new(RUN_NETNS).join(ns);
    let file = fs::File::open(&path).map_err(system(format!("open {}", path.display())))?;
    // A namespace belongs to a thread, so the work gets one of its own.
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).map_err(|e| system("enter the namespace")(e.into()))?;
            Ok(work())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn run(program: &str, args: &[&str]) -> Result<String, LabError> {
    let fail = |why: String| LabError::Command { command: format!("{program} {}", args.join(" ")), why };
    let output = Command::new(program).args(args).output().map_err(|e| fail(e.to_string()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(fail(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
    }
}

/// Kills what still runs inside, then removes the namespace with all its interfaces.
fn remove_netns(ns: &str) {
    if !Path::new(RUN_NETNS).join(ns).exists() {
        return;
    }
    // A script that was killed may just have started something: until nobody is left, but not for ever.
    for _ in 0..100 {
        let pids = run("ip", &["netns", "pids", ns]).unwrap_or_default();
        let pids: Vec<i32> = pids.lines().filter_map(|line| line.trim().parse().ok()).filter(|pid| *pid > 1).collect();
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = run("ip", &["netns", "delete", ns]);
}

/// Removes what owners that no longer live have left behind.
fn sweep() {
    let dead = |name: &str| -> bool {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
    };
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|e| e.file_name().into_string().ok()).filter(|name| dead(name)).collect()
    };
    for ns in names(Path::new(RUN_NETNS)) {
        remove_netns(&ns);
    }
    let temp = std::env::temp_dir();
    for dir in names(&temp) {
        let _ = fs::remove_dir_all(temp.join(dir));
    }
}
