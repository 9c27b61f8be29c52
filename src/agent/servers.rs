//! The data path as the API sees it: TFTP, NFS, the DHCP observers and the boot options, kept in line with what is wanted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use super::AgentError;
use super::dhcp::BootOptions;
use super::external::ExternalWatch;
use super::network;
use super::openwrt::Worker;
use crate::api::Servers;
use crate::api::types::{Finding, NfsStatus, TftpStatus};
use crate::config::{Main, NfsMode, Severity};
use crate::console::Listener;
use crate::dhcp::observe::{Interest, Observer, Station};
use crate::dhcp::respond::{Orders, Responder};
use crate::events::{Nfs, Sink, What};
use crate::fleet::{ExportedAt, Wanted};
use crate::net::AddressBook;
use crate::net::interface::{self, Interface};
use crate::net::link::{self, Links};
use crate::pi::Mac;
use crate::storage::{CLIENT_RESERVE, overlay};
use crate::{nfs, tftp};

/// Everything that touches the wire.
#[derive(Debug)]
pub(super) struct Wire {
    sink: Sink,
    addresses: AddressBook,
    handle_key: [u8; 16],
    interest: Interest,
    links: Links,
    /// Keeps them true; absent if netlink is not to be had.
    _link_watch: Option<link::Watch>,
    orders: Orders,
    boot_options: BootOptions,
    interfaces: Vec<Interface>,
    /// What the configured interfaces may be called.
    names: Vec<String>,
    observers: Vec<(u32, Observer)>,
    /// Per interface its ports, and who listens there for consoles.
    consoles: Vec<(u32, Vec<u32>, Listener)>,
    tftp: Option<tftp::Handle>,
    /// The interfaces on which it answers.
    serving_on: Vec<String>,
    nfs: Option<nfs::Handle>,
    /// Looks after the server that is there instead.
    external: Option<ExternalWatch>,
    /// What NFS was started with and cannot change while it runs.
    sync: bool,
    wanted: Wanted,
    main: Main,
    /// What could not be started, by place.
    problems: Vec<(String, String)>,
}

impl Wire {
    /// Prepares everything; [`Wire::refresh`] starts it.
    pub(super) fn start(
        sink: Sink,
        addresses: AddressBook,
        key: &Path,
        openwrt: Option<Worker>,
    ) -> Result<Self, AgentError> {
        let links = Links::default();
        let link_watch = link::Watch::start(links.clone(), sink.clock().clone())
            .inspect_err(|error| log::warn!("cannot watch the ports ({error}): boots begin with their first packet"));
        let handle_key = nfs::load_or_create_key(key).map_err(|e| AgentError::Key(key.to_owned(), e.to_string()))?;
        Ok(Self {
            sink,
            addresses,
            handle_key,
            interest: Interest::default(),
            links,
            _link_watch: link_watch.ok(),
            orders: Orders::default(),
            boot_options: BootOptions::new(openwrt),
            interfaces: Vec::new(),
            names: Vec::new(),
            observers: Vec::new(),
            consoles: Vec::new(),
            tftp: None,
            serving_on: Vec::new(),
            nfs: None,
            external: None,
            sync: false,
            main: Main::default(),
            wanted: Wanted::default(),
            problems: Vec::new(),
        })
    }

    /// Follows the configuration and the machine: interfaces that came or went, servers whose port was taken.
    /// True if the address that Pis are told changed, or who tells them.
    pub(super) fn refresh(&mut self, main: &Main) -> bool {
        let before = self.address();
        let mut problems = Vec::new();
        self.interfaces.clear();
        self.names.clear();
        let mut addresses = Vec::new();
        for name in &main.interfaces {
            let device = network::device(name);
            self.names.extend(interface::candidates(name, device.as_deref()));
            match interface::find(name, device.as_deref()) {
                Ok(found) if found.ipv4().is_none() => {
                    let why = format!("'{}' has no IPv4 address: Pis cannot be served there", found.name);
                    problems.push(("piboot.main.interface".to_owned(), why));
                    self.interfaces.push(found);
                }
                Ok(found) => {
                    addresses.extend(found.ipv4().map(|ip| (name, found.index, ip)));
                    self.interfaces.push(found);
                }
                Err(error) => problems.push(("piboot.main.interface".to_owned(), error.to_string())),
            }
        }
        self.main = main.clone();
        let mut indexes: Vec<u32> = self.interfaces.iter().map(|i| i.index).collect();
        if indexes.is_empty() {
            // An empty list would mean all; no interface has this number.
            indexes.push(0);
        }
        self.addresses.set_interfaces(indexes);
        let other_way = self.boot_options.configure(main);
        let proxied = addresses.into_iter().filter(|(name, ..)| self.boot_options.is_proxied(name));
        self.orders.set_proxied(proxied.map(|(_, index, ip)| (index, ip)));
        self.orders.set_quirks_off(&main.quirks_off);
        self.refresh_observers(&mut problems);
        self.refresh_consoles();
        self.refresh_servers(main, &mut problems);
        self.refresh_external(main, &mut problems);
        self.note_problems(problems);
        other_way || self.address() != before
    }

    fn note_problems(&mut self, problems: Vec<(String, String)>) {
        for (place, why) in problems.iter().filter(|p| !self.problems.contains(p)) {
            log::error!("{place}: {why}");
        }
        self.problems = problems;
    }

    /// Another program says that DHCP gave `ip` to `mac`: as good as having seen it, where Pis are served.
    pub(super) fn lease(&self, ip: IpAddr, mac: Mac, interface: &str) {
        if self.interfaces.iter().any(|i| i.name == interface) {
            log::debug!("{mac} was given {ip} on {interface}");
            self.addresses.observe(ip, mac);
        }
    }

    /// NFS requests over the open connections of a Pi.
    pub(super) fn nfs_requests_of(&self, ip: IpAddr) -> Option<u32> {
        self.nfs.as_ref()?.requests_of(ip)
    }

    /// A Pi that is not connected was found not to be there any more.
    pub(super) fn is_gone(&self, ip: IpAddr) {
        if let Some(nfs) = &self.nfs {
            nfs.is_gone(ip);
        } else if self.serves_elsewhere() {
            self.sink.emit(What::Nfs { peer: ip, event: Nfs::Gone });
        }
    }

    /// Whether the roots come from another server, so that nothing is seen of what Pis ask it.
    pub(super) fn serves_elsewhere(&self) -> bool {
        self.main.nfs.external().is_some()
    }

    /// Keeps watch over the other server, if there is one.
    fn refresh_external(&mut self, main: &Main, problems: &mut Vec<(String, String)>) {
        let Some(of) = main.nfs.external() else {
            self.external = None;
            return;
        };
        if self.external.as_ref().is_some_and(|watch| watch.is_of(of, &main.data_dir)) {
            return;
        }
        match ExternalWatch::start(of, main.data_dir.clone(), self.sink.clock().clone()) {
            Ok(watch) => self.external = Some(watch),
            Err(error) => problems.push(("nfs".to_owned(), format!("cannot watch {}: {error}", of.server))),
        }
    }

    /// Why Pis do not find the NFS port, if they do not.
    pub(super) fn portmapper_problem(&self) -> Option<String> {
        match self.nfs.as_ref()?.portmap() {
            nfs::PortmapState::Unregistered(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// Every address of this router where Pis are served.
    pub(super) fn addresses(&self) -> Vec<Ipv4Addr> {
        self.interfaces.iter().filter_map(Interface::ipv4).collect()
    }

    /// The address that Pis are told.
    pub(super) fn address(&self) -> Option<Ipv4Addr> {
        self.interfaces.iter().find_map(Interface::ipv4)
    }

    fn refresh_observers(&mut self, problems: &mut Vec<(String, String)>) {
        let interfaces = &self.interfaces;
        self.observers
            .retain(|(index, observer)| interfaces.iter().any(|i| i.index == *index) && !observer.has_ended());
        for interface in interfaces {
            if self.observers.iter().any(|(index, _)| *index == interface.index) {
                continue;
            }
            let (interest, links) = (self.interest.clone(), self.links.clone());
            let responder = Responder::new(interface.index, self.orders.clone(), self.sink.clone());
            let (addresses, sink) = (self.addresses.clone(), self.sink.clone());
            let station = |responder| Station { interest, links, addresses, sink, responder };
            match responder.and_then(|responder| Observer::start(interface.index, station(responder))) {
                Ok(observer) => self.observers.push((interface.index, observer)),
                Err(error) => {
                    let why = format!("cannot watch DHCP on '{}': {error}", interface.name);
                    problems.push(("piboot.main.interface".to_owned(), why));
                }
            }
        }
        if self.observers.is_empty() {
            problems.push(("piboot.main.interface".to_owned(), "no interface to watch: no Pi will be seen".to_owned()));
        }
    }

    /// Ports come and go; who listens is made anew then.
    fn refresh_consoles(&mut self) {
        let wanted: Vec<(u32, Vec<u32>)> =
            self.interfaces.iter().map(|i| (i.index, self.links.wired_ports(i.index))).collect();
        self.consoles.retain(|(index, ports, listener)| {
            wanted.iter().any(|wanted| (wanted.0, &wanted.1) == (*index, ports)) && !listener.has_ended()
        });
        for (index, ports) in wanted {
            if ports.is_empty() || self.consoles.iter().any(|(listening, ..)| *listening == index) {
                continue;
            }
            match Listener::start(&ports, self.interest.clone(), self.sink.clone()) {
                Ok(listener) => self.consoles.push((index, ports, listener)),
                // A port may have gone since; nothing else depends on it.
                Err(error) => log::debug!("cannot listen for consoles: {error}"),
            }
        }
    }

    fn refresh_servers(&mut self, main: &Main, problems: &mut Vec<(String, String)>) {
        if self.sync != main.sync {
            // Clients reconnect by themselves, and their handles stay good.
            self.nfs.take().into_iter().for_each(nfs::Handle::stop);
            self.sync = main.sync;
        }
        if !self.wanted.ready {
            // Not served is better than "no such file": a Pi would go on without it.
            return;
        }
        let anywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        if self.is_elsewhere() {
            self.tftp.take().into_iter().for_each(tftp::Handle::stop);
            self.nfs.take().into_iter().for_each(nfs::Handle::stop);
        }
        // An empty list would mean all interfaces, the way to the Internet among them.
        if self.interfaces.is_empty() {
            return;
        }
        if self.tftp.is_none() && self.nfs.is_none() {
            self.serving_on = self.interfaces.iter().map(|i| i.name.clone()).collect();
        }
        if self.tftp.is_none() {
            let config = tftp::ServerConfig {
                listen: anywhere.map(|ip| SocketAddr::new(ip, tftp::PORT)).to_vec(),
                interfaces: self.serving_on.clone(),
                limits: tftp::Limits::default(),
            };
            let routes = Arc::new(routes(&self.wanted));
            match tftp::Server::start(config, routes, self.addresses.clone(), self.sink.clone()) {
                Ok(handle) => self.tftp = Some(handle),
                Err(error) => problems.push(("tftp".to_owned(), error.to_string())),
            }
        }
        if self.serves_elsewhere() {
            // Theirs is the port, and the portmapper.
            self.nfs.take().into_iter().for_each(nfs::Handle::stop);
        } else if self.nfs.is_none() {
            let config = nfs::ServerConfig {
                sync: main.sync,
                reserve: CLIENT_RESERVE,
                exports: exports(&self.wanted),
                interfaces: self.serving_on.clone(),
                ..nfs::ServerConfig::new(self.handle_key)
            };
            match nfs::Server::start(config, self.addresses.clone(), self.sink.clone()) {
                Ok(handle) => self.nfs = Some(handle),
                Err(error) => problems.push(("nfs".to_owned(), error.to_string())),
            }
        }
    }

    /// Whether the servers have to start anew: an interface came, or one is no longer configured. One that merely went away may
    /// come back, and transfers on the others go on.
    fn is_elsewhere(&self) -> bool {
        let is_new = |found: &Interface| !self.serving_on.contains(&found.name);
        self.interfaces.iter().any(is_new) || !self.serving_on.iter().all(|served| self.names.contains(served))
    }

    fn apply_exports(&mut self) {
        if let Some(nfs) = &self.nfs {
            for refused in nfs.set_exports(exports(&self.wanted)) {
                log::error!("{refused}");
            }
        }
    }

    /// The agent has changed its own configuration.
    pub(super) fn announce(&self) {
        self.boot_options.announce();
    }

    /// Somebody may have changed the configuration of this router.
    pub(super) fn look_again(&self) {
        self.boot_options.look_again();
    }

    /// Takes the boot options back, for an agent that is not to serve any more.
    pub(super) fn withdraw(&self) {
        self.boot_options.withdraw();
    }

    /// Ends what runs: transfers are cut, NFS requests under way are finished.
    pub(super) fn stop(&mut self) {
        self.observers.clear();
        self.consoles.clear();
        if let Some(tftp) = self.tftp.take() {
            tftp.stop();
        }
        if let Some(nfs) = self.nfs.take() {
            nfs.stop();
        }
        self.boot_options.finish();
    }
}

impl Servers for Wire {
    fn apply(&mut self, wanted: &Wanted) {
        self.boot_options.apply(wanted, self.address());
        if self.wanted == *wanted {
            return;
        }
        self.wanted = wanted.clone();
        self.interest.set_enrolled(wanted.enrolled.iter().map(|pi| pi.mac));
        self.orders.set_enrolled(wanted.enrolled.iter().map(|pi| pi.mac));
        if let Some(tftp) = &self.tftp {
            tftp.set_routes(Arc::new(routes(wanted)));
        }
        self.apply_exports();
        let serves_nfs = self.nfs.is_some() || self.serves_elsewhere();
        if wanted.ready && (self.tftp.is_none() || !serves_nfs) {
            let mut problems = self.problems.clone();
            problems.retain(|(place, _)| place != "tftp" && place != "nfs");
            self.refresh_servers(&self.main.clone(), &mut problems);
            self.note_problems(problems);
        }
    }

    fn tftp(&self) -> TftpStatus {
        let Some(stats) = self.tftp.as_ref().map(tftp::Handle::stats) else { return TftpStatus::default() };
        TftpStatus {
            serving: true,
            active: stats.active,
            transfers: stats.transfers.into(),
            bytes: stats.acknowledged,
            retransmissions: stats.retransmissions.into(),
        }
    }

    fn nfs(&self) -> NfsStatus {
        let external = self.main.nfs.external().map(|of| format!("{}:{}", of.server, of.path));
        let Some(nfs) = &self.nfs else { return NfsStatus { external, ..NfsStatus::default() } };
        let stats = nfs.stats();
        let portmapper = nfs.portmap().to_string();
        NfsStatus { serving: true, connections: stats.connections, requests: stats.requests, portmapper, external }
    }

    fn dhcp(&self) -> String {
        self.boot_options.describe()
    }

    fn findings(&self) -> Vec<Finding> {
        let problems = self.problems.iter();
        let mut findings: Vec<Finding> =
            problems.map(|(place, text)| Finding::new(Severity::Error, place.clone(), text.clone())).collect();
        if let Some(nfs::PortmapState::Unregistered(why)) = self.nfs.as_ref().map(nfs::Handle::portmap) {
            let text = format!("{why}. Without it Pis do not find their root");
            findings.push(Finding::new(Severity::Error, "nfs".to_owned(), text));
        }
        findings.extend(self.external.as_ref().and_then(ExternalWatch::finding));
        findings.extend(self.interest.flood(self.sink.clock().now()).map(network::flood));
        findings.extend(self.interfaces.iter().filter_map(|interface| network::spanning_tree(&interface.name)));
        findings.extend(self.boot_options.findings());
        findings
    }

    fn events_dropped(&self) -> u32 {
        self.sink.dropped()
    }
}

fn routes(wanted: &Wanted) -> tftp::Routes {
    let devices = wanted.served.iter().map(|served| tftp::Device {
        id: served.id.clone(),
        serial: served.serial,
        mac: served.mac,
        boot: served.boot.clone(),
    });
    tftp::Routes::new(devices.collect(), wanted.bootcode.clone())
}

/// Two exports a device, each for the address that its Pi holds.
fn exports(wanted: &Wanted) -> Vec<nfs::Export> {
    let mut exports = Vec::new();
    let own = ExportedAt::of(&NfsMode::Builtin, Ipv4Addr::UNSPECIFIED);
    for served in &wanted.served {
        // Without a hardware address nobody can be told from anybody else, and a root is nobody's business.
        let Some(mac) = served.mac else { continue };
        let first = served.export_pair.saturating_mul(2);
        let index = |dir: &Path| served.layered.then(|| overlay::index(dir));
        let export = |id, name: String, dir: &Path| nfs::Export {
            id,
            name: name.into(),
            dir: dir.to_owned(),
            layered: index(dir),
            read_only: served.read_only,
            root: nfs::RootIs::Root,
            holder: nfs::Who::Mac(mac),
            quota: Some(served.quota.clone()),
        };
        exports.push(export(first, own.root(&served.id), &served.root));
        exports.push(export(first.saturating_add(1), own.boot(&served.id), &served.boot));
    }
    exports
}
