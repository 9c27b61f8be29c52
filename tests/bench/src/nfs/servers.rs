//! The contestants, each as a process of its own, on port 2049.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use piboot::clock::Clock;
use piboot::events::Sink;
use piboot::net::AddressBook;
use piboot::nfs::{Export, RootIs, Server, ServerConfig, Who};

use super::client::{Connection, FileHandle};
use crate::measure::{Error, Process};

/// Those that piboot is compared with.
pub const PEERS: [&str; 1] = ["ganesha"];

const NFS_PORT: u16 = 2049;
/// Ganesha answers MOUNT on a port of its own.
const GANESHA_MOUNT_PORT: u16 = 20048;
/// A server that is not ready by then has failed.
const START: Duration = Duration::from_secs(30);

/// An NFS server to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    /// Ours.
    Piboot,
    /// The server in user space that people run, with its back end for local file systems.
    Ganesha,
}

/// A server that runs, and the root of its export.
pub struct Running {
    /// The process.
    pub process: Process,
    /// The root's handle.
    pub root: FileHandle,
}

impl Contestant {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Piboot => "piboot",
            Self::Ganesha => PEERS[0],
        }
    }

    /// Starts it on the tree `export`, which is also the name to mount, and waits until it answers.
    pub fn start(self, export: &Path, scratch: &Path) -> Result<Running, Error> {
        let (mut command, mount_port) = match self {
            Self::Piboot => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["serve-nfs"]).arg(export);
                // As in the router's binary: musl's allocator has one arena, and gives large blocks back. glibc's has one for
                // each of the first threads, which is what would be measured.
                command.env("MALLOC_ARENA_MAX", "1").env("MALLOC_MMAP_THRESHOLD_", "131072");
                (command, NFS_PORT)
            }
            Self::Ganesha => {
                let config = scratch.join("ganesha.conf");
                fs::write(&config, ganesha_config(export))?;
                let mut command = Command::new("ganesha.nfsd");
                command.args(["-F", "-N", "CRIT", "-L"]).arg(scratch.join("ganesha.log"));
                command.arg("-f").arg(&config).arg("-p").arg(scratch.join("ganesha.pid"));
                (command, GANESHA_MOUNT_PORT)
            }
        };
        let mut process = Process::start(&mut command)?;
        let begun = Instant::now();
        let path = export.to_string_lossy();
        loop {
            let mounted = Connection::open([127, 0, 0, 1].into(), mount_port).and_then(|mut c| c.mount(&path));
            match mounted {
                Ok(root) => return Ok(Running { process, root }),
                Err(error) if !process.is_alive() || begun.elapsed() > START => {
                    return Err(Error::new(format!("{} does not start: {error}", self.name())));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

/// Opens a connection for requests.
pub fn connect(client: u8) -> Result<Connection, Error> {
    Connection::open([127, 0, 0, client].into(), NFS_PORT)
}

/// NFSv3 alone, over TCP, root as root: what a root file system needs.
fn ganesha_config(export: &Path) -> String {
    format!(
        "NFS_CORE_PARAM {{ Protocols = 3; NFS_Port = {NFS_PORT}; MNT_Port = {GANESHA_MOUNT_PORT}; Enable_NLM = false;
            Enable_RQUOTA = false; mount_path_pseudo = false; }}
         EXPORT {{ Export_Id = 1; Path = {path}; Pseudo = {path}; Access_Type = RW; Squash = No_Root_Squash;
            Protocols = 3; Transports = TCP; SecType = sys, none; FSAL {{ Name = VFS; }} }}\n",
        path = export.display()
    )
}

/// Is piboot's server on `export` until killed.
pub fn serve(export: &Path) -> Result<(), Error> {
    let mut config = ServerConfig::new(*b"a key for a run.");
    config.listen = vec![([127, 0, 0, 1], NFS_PORT).into()];
    config.portmap = None;
    // The client opens no reserved ports.
    config.insecure_ports = true;
    let (sink, mut events) = Sink::new(Clock::system());
    let server = Server::start(config, AddressBook::observed_only(), sink)?;
    let export = Export {
        id: 1,
        name: export.to_string_lossy().into(),
        dir: export.to_owned(),
        layered: None,
        read_only: false,
        root: RootIs::Root,
        holder: Who::Addresses(vec!["127.0.0.0/8".parse()?]),
        quota: None,
    };
    if let Some(unavailable) = server.set_exports(vec![export]).pop() {
        return Err(unavailable.into());
    }
    // Somebody listens in the agent too.
    while events.blocking_recv().is_some() {}
    Ok(())
}
