//! The contestants, each as a process of its own on port 69.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use piboot::clock::Clock;
use piboot::events::Sink;
use piboot::net::AddressBook;
use piboot::pi::Mac;
use piboot::tftp::{Device, Limits, Routes, Server, ServerConfig};

use super::cases::MAX_PIS;
use super::{boot_directory, pi_ip, serial};
use crate::measure::{Error, Process};

/// Where every contestant listens.
pub const ADDRESS: &str = "127.0.0.1:69";
/// Those that piboot is compared with.
pub const PEERS: [&str; 2] = ["dnsmasq", "async-tftp"];

/// A TFTP server to measure.
#[derive(Debug, Clone, Copy)]
pub enum Contestant {
    /// Ours.
    Piboot,
    /// What people use today.
    Dnsmasq,
    /// The library a Rust program would take.
    AsyncTftp,
}

impl Contestant {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Piboot => "piboot",
            Self::Dnsmasq => PEERS[0],
            Self::AsyncTftp => PEERS[1],
        }
    }

    /// Starts it on the tree below `root`.
    pub fn start(self, root: &Path) -> Result<Process, Error> {
        let mut command;
        if let Self::Dnsmasq = self {
            command = Command::new("dnsmasq");
            command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=0", "--user=root"]);
            command.args(["--enable-tftp", "--tftp-max=300"]);
            command.arg(format!("--tftp-root={}", root.display()));
        } else {
            command = Command::new(std::env::current_exe()?);
            command.args(["serve", self.name()]).arg(root);
        }
        Process::start(&mut command)
    }
}

/// Is the server called `name` until killed.
pub fn serve(name: &str, root: &Path) -> Result<(), Error> {
    match name {
        "piboot" => serve_piboot(root),
        "async-tftp" => futures_lite::future::block_on(async {
            let server =
                async_tftp::server::TftpServerBuilder::with_dir_ro(root)?.bind(ADDRESS.parse()?).build().await?;
            Ok(server.serve().await?)
        }),
        other => Err(Error::new(format!("there is no server '{other}'"))),
    }
}

/// As the agent runs it: every Pi enrolled with serial and MAC, files given only to the address that the MAC holds.
fn serve_piboot(root: &Path) -> Result<(), Error> {
    let book = AddressBook::observed_only();
    let devices = (0..MAX_PIS).map(|number| {
        let [_, _, c, d] = u32::try_from(number).unwrap_or(0).to_be_bytes();
        let mac = Mac([0xdc, 0xa6, 0x32, 0, c, d]);
        book.observe(pi_ip(number).into(), mac);
        Ok(Device {
            id: serial(number),
            serial: Some(serial(number).parse()?),
            mac: Some(mac),
            boot: boot_directory(root, number),
        })
    });
    let routes = Routes::new(devices.collect::<Result<_, Error>>()?, None);
    let limits = Limits { requests_per_second: 1_000_000, request_burst: 1_000_000, ..Limits::default() };
    let config = ServerConfig { listen: vec![ADDRESS.parse()?], interfaces: Vec::new(), limits };
    let (sink, mut events) = Sink::new(Clock::system());
    let _server = Server::start(config, Arc::new(routes), book, sink)?;
    // Somebody listens in the agent too.
    while events.blocking_recv().is_some() {}
    Ok(())
}
