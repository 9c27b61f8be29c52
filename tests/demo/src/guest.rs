//! What the Pi loaded, run by QEMU.

use std::path::Path;
use std::time::Duration;

use emupi::handoff::{Machine, write};
use emupi::lab::{Net, Process};
use emupi::{Boot, Pi};

use crate::Failure;
use crate::console::Console;

/// A running guest; QEMU ends when it is dropped.
pub struct Guest {
    /// Its console.
    pub console: Console,
    _qemu: Process,
}

/// How long each phase may take on this machine.
pub struct Patience {
    /// From power-on to the login prompt.
    pub login: Duration,
    /// For one command.
    pub command: Duration,
}

impl Patience {
    /// QEMU's Raspberry Pi 3B has a network of 280 KB/s.
    pub fn of(machine: Machine) -> Self {
        let (login, command) = if machine == Machine::Virt { (240, 120) } else { (600, 300) };
        Self { login: Duration::from_secs(login), command: Duration::from_secs(command) }
    }
}

impl Guest {
    /// Starts QEMU with exactly what `boot` fetched, on the Pi's own network interface.
    pub fn start(net: &Net, tap: &str, machine: Machine, pi: &Pi, boot: &Boot, logs: &Path) -> Result<Self, Failure> {
        let ready = boot.ready().ok_or_else(|| Failure::new("the Pi did not load a kernel"))?;
        let handoff = write(ready, &logs.join("fetched")).map_err(Failure::new)?;
        let socket = net.scratch().join("console.sock");
        let serial = format!("unix:{},server=on,wait=off", socket.display());
        // What Raspberry Pi's firmware writes names the port as Raspberry Pi's kernel does; this one is Debian's.
        let append: &[&str] = match machine {
            Machine::Virt => &["console=ttyAMA0"],
            Machine::Raspi3b => &["8250.nr_uarts=2", "console=ttyS1,115200"],
        };
        let arguments = handoff.qemu(machine, tap, pi.mac, &serial, append).map_err(Failure::new)?;
        let (program, arguments) = arguments.split_first().ok_or_else(|| Failure::new("no QEMU command"))?;
        let mut command = net.command(program);
        command.args(arguments);
        let qemu = net.spawn("qemu", command).map_err(Failure::new)?;
        let console = Console::open(&socket, &logs.join("console.log"), Duration::from_secs(20))?;
        Ok(Self { console, _qemu: qemu })
    }

    /// Logs in as root.
    pub fn log_in(&mut self, patience: &Patience) -> Result<(), Failure> {
        self.console.wait("login:", patience.login)?;
        self.console.type_line("root")?;
        self.console.wait("assword:", patience.command)?;
        self.console.type_line("raspberry")?;
        // What is typed before the shell runs gets lost.
        self.console.wait("# ", patience.command)?;
        self.console.run("stty -echo cols 300; export TERM=dumb LC_ALL=C", patience.command).map(drop)
    }
}
