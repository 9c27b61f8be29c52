//! Serves one directory over NFS, for tests and trials:
//! `nfsd --dir DIR [--port 2049] [--portmap 111] [--export /export] [--client 127.0.0.1/8]… [--key FILE] [--sync] [--squash] [--read-only] [--quota BYTES]`
//! A quota begins at nothing: DIR is taken to be empty.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use piboot::clock::Clock;
use piboot::events::Sink;
use piboot::net::AddressBook;
use piboot::nfs::{AddressRange, Export, RootIs, Server, ServerConfig, Who, handle_support, load_or_create_key};
use piboot::quota::Quota;

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target().starts_with("piboot") {
            eprintln!("{} {}", record.level(), record.args());
        }
    }

    fn flush(&self) {}
}

/// A quota of what takes nothing yet.
fn empty(limit: u64) -> Quota {
    let quota = Quota::new(Some(limit));
    quota.census().end();
    quota
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = ServerConfig::new([0; 16]);
    let (mut port, mut dir, mut key) = (2049_u16, PathBuf::from("."), PathBuf::from("/run/nfsd-example.key"));
    config.portmap = None;
    // Trials come from QEMU's user networking, which is a process like any other.
    config.insecure_ports = true;
    let mut export = Export {
        id: 1,
        name: Arc::from("/export"),
        dir: dir.clone(),
        layered: None,
        read_only: false,
        root: RootIs::Root,
        holder: Who::Addresses(Vec::new()),
        quota: None,
    };
    let mut clients: Vec<AddressRange> = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{option} needs a value"));
        match option.as_str() {
            "--dir" => dir = value()?.into(),
            "--port" => port = value()?.parse()?,
            "--portmap" => config.portmap = Some(value()?.parse()?),
            "--export" => export.name = Arc::from(value()?),
            "--client" => clients.push(value()?.parse()?),
            "--key" => key = value()?.into(),
            "--sync" => config.sync = true,
            "--squash" => export.root = RootIs::Nobody,
            "--read-only" => export.read_only = true,
            "--quota" => export.quota = Some(empty(value()?.parse()?)),
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    if clients.is_empty() {
        clients.push("127.0.0.0/8".parse()?);
    }
    log::set_logger(&Stderr).map_err(|error| error.to_string())?;
    log::set_max_level(log::LevelFilter::Debug);
    config.handle_key = load_or_create_key(&key)?;
    config.listen = vec![SocketAddr::from(([0, 0, 0, 0], port))];
    eprintln!("{:?}", handle_support(&dir)?);
    export.dir = dir;
    export.holder = Who::Addresses(clients);
    let (sink, mut events) = Sink::new(Clock::system());
    // There from the first request on; set again below only to hear what is wrong with it.
    config.exports = vec![export.clone()];
    let server = Server::start(config, AddressBook::observed_only(), sink)?;
    if let Some(unavailable) = server.set_exports(vec![export]).pop() {
        return Err(unavailable.into());
    }
    eprintln!("ready: {:?}, portmapper: {:?}", server.ports(), server.portmap());
    while let Some(event) = events.blocking_recv() {
        eprintln!("{:?} {:?}", event.at.since_start(), event.what);
    }
    Ok(())
}
