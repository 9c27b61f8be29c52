//! The agent: starts the parts, carries events from the wire to the fleet and calls from the socket to the API,
//! reloads, and shuts down in order.

mod announce;
mod dhcp;
mod external;
mod network;
mod openwrt;
mod presence;
mod ready;
mod servers;
pub mod socket;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::api::Api;
use crate::api::call::Call;
use crate::clock::Clock;
use crate::config;
use crate::config::file::{is_package, package};
use crate::dhcp::openwrt::{OpenWrt, OpenWrtError};
use crate::events::{Event, Sink};
use crate::fleet::{Fleet, FleetError};
use crate::net::AddressBook;
use crate::net::neighbour::Watch;
use crate::storage::MountWatch;
use crate::ubus::{self, Notice};
use announce::Announcer;
use openwrt::Worker;
use presence::Presence;
use ready::ReadyWatch;
use servers::Wire;

/// Files that may be open: 512 transfers, 64 clients, and room to spare.
const DESCRIPTORS: u64 = 4096;
/// How often the volume and the interfaces are looked at, whatever was told of them, and what piled up is stored. SQLite is
/// not written more often.
const TICK: Duration = Duration::from_secs(5);
/// How often events are sent over ubus at most, for each thing that changes.
const ANNOUNCE: Duration = Duration::from_millis(500);
/// How often boots under way are looked at: people watch.
const LOOK: Duration = Duration::from_secs(1);
/// How often the interfaces are looked at because of what ubus told, at most.
const NETWORK: Duration = Duration::from_secs(1);
/// Calls that may wait for the control task; each transport holds back its own beyond that.
const CALLS: usize = 16;
/// What ubus told and nobody looked at yet.
const NOTICES: usize = 256;

/// How long an agent that was told to end may take: as long as procd lets it (term_timeout in the init script).
const END: Duration = Duration::from_secs(22);

/// What `piboot serve` is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// UCI file.
    pub config: PathBuf,
    /// Local socket.
    pub socket: PathBuf,
    /// Key of the NFS file handles.
    pub key: PathBuf,
    /// Socket of the ubus broker; it need not be there.
    pub ubus: PathBuf,
}

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// `option enabled '0'`
    #[error("piboot.main.enabled is '0' in {0}: set it to '1' to start the agent")]
    Disabled(PathBuf),
    /// The configuration cannot be read.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The local socket cannot be had.
    #[error(transparent)]
    Socket(#[from] socket::SocketError),
    /// The handle key cannot be had.
    #[error("cannot use the key of the NFS file handles {0}: {1}")]
    Key(PathBuf, String),
    /// The boot options cannot be taken back.
    #[error(transparent)]
    OpenWrt(#[from] OpenWrtError),
    /// The agent would bring back what is taken.
    #[error("the agent is running, and would put back what is taken: stop it first")]
    Running,
    /// The runtime cannot be had.
    #[error("cannot start: {0}")]
    Runtime(#[from] io::Error),
}

/// Runs the agent until it is told to stop (SIGTERM, SIGINT).
///
/// # Errors
/// When it cannot start; once it runs, it stays up and reports.
pub fn run(options: &Options) -> Result<(), AgentError> {
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(options))
}

/// Takes the boot options out of OpenWrt's configuration while no agent runs; true if there were any. Elsewhere than on
/// OpenWrt there is nothing to take.
///
/// # Errors
/// [`AgentError::Running`], and when the configuration cannot be changed.
pub fn withdraw(socket: &Path) -> Result<bool, AgentError> {
    // procd ends an agent and does not wait for that.
    let clock = Clock::system();
    let begun = clock.now();
    while std::os::unix::net::UnixStream::connect(socket).is_ok() {
        if clock.now().since(begun) >= END {
            return Err(AgentError::Running);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    if !is_package(&package("dhcp")) {
        return Ok(false);
    }
    let scratch = socket.parent().unwrap_or(Path::new("/var/run")).to_owned();
    let openwrt = OpenWrt::new(Box::new(openwrt::InitScript), clock, scratch);
    Ok(openwrt.withdraw()?)
}

/// A TFTP transfer takes two descriptors and an NFS client keeps files open; the usual 1024 do not go far.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = DESCRIPTORS.min(limit.maximum.unwrap_or(DESCRIPTORS));
    if limit.current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
    {
        log::warn!("cannot raise the number of files that may be open to {wanted}: {error}");
    }
}

async fn serve(options: &Options) -> Result<(), AgentError> {
    let clock = Clock::system();
    let (sink, mut events) = Sink::new(clock.clone());
    let addresses = AddressBook::new();
    let (job_sender, mut ended_jobs) = mpsc::unbounded_channel();
    // Signals first: a SIGHUP while the volume is looked through must not end the agent.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Then the socket: it keeps a second agent away from everything that follows.
    let (call_sender, mut calls) = mpsc::channel(CALLS);
    socket::listen(&options.socket, call_sender.clone())?;
    // Before the volume is looked at for the first time: it may come just after that.
    let mounts = watch_mounts();
    let fleet = match open_fleet(options, clock.clone(), addresses.clone(), job_sender) {
        Ok(fleet) => fleet,
        Err(error) => {
            socket::remove(&options.socket);
            return Err(error);
        }
    };
    let (notice_sender, mut notices) = mpsc::channel(NOTICES);
    let ubus = ubus::start(options.ubus.clone(), call_sender, notice_sender);
    let ubus = ubus.inspect_err(|error| log::error!("not on ubus: {error}")).ok();
    let openwrt = if is_package(&options.config) { Some(start_openwrt(options, clock, ubus.clone())?) } else { None };
    let wire = Wire::start(sink.clone(), addresses.clone(), &options.key, openwrt)?;
    let mut api = Api { fleet, servers: wire };
    refresh(&mut api);
    tokio::spawn(watch_neighbours(addresses));
    let mut announcer = Announcer::default();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut ready_watch, mut presence) = (ReadyWatch::default(), Presence::default());
    let mut announce = tokio::time::interval(ANNOUNCE);
    announce.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut network, mut network_changed) = (tokio::time::interval(NETWORK), false);
    network.set_missed_tick_behavior(MissedTickBehavior::Delay);
    log::info!("piboot {} serves {}", env!("CARGO_PKG_VERSION"), options.config.display());
    loop {
        let listening = ubus.as_ref().filter(|ubus| announcer.is_due && ubus.is_connected());
        tokio::select! {
            Some(event) = events.recv() => on_event(&mut api, &event),
            Some(call) = calls.recv() => answer(&mut api, call),
            Some(job) = ended_jobs.recv() => {
                api.fleet.job_ended(job);
                api.reconcile();
            }
            Some(notice) = notices.recv() => match on_notice(&api, &notice) {
                Heard::Configuration => if !reload(&mut api, &options.config) { break },
                Heard::Network => network_changed = true,
                Heard::Nothing => {}
            },
            _ = network.tick(), if network_changed => {
                network_changed = false;
                log::debug!("looking at the interfaces");
                refresh(&mut api);
            }
            () = mounted(mounts.as_ref()) => look_at_volume(&mut api),
            _ = tick.tick() => {
                on_tick(&mut api);
                presence.look(&api);
            }
            _ = look.tick(), if api.fleet.follows_boots() => {
                ready_watch.look(&api, &sink);
                // Between its first request and its mount are seconds.
                if api.fleet.can_adapt_now() {
                    api.reconcile();
                }
                let portmapper = api.servers.portmapper_problem();
                if !api.fleet.diagnose(portmapper.as_deref()) {
                    continue;
                }
            }
            _ = announce.tick(), if listening.is_some() => {
                if let Some(ubus) = listening {
                    announcer.announce(&api, ubus);
                }
                continue;
            }
            _ = hangup.recv() => if !reload(&mut api, &options.config) { break },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        announcer.is_due = true;
        if api.fleet.take_config_written() {
            api.servers.announce();
        }
    }
    log::info!("stopping");
    // Switched off for good, and told to end before it could read that.
    if is_package(&options.config) && config::load(&options.config, None).is_ok_and(|(config, _)| !config.main.enabled)
    {
        api.servers.withdraw();
    }
    api.servers.stop();
    api.fleet.stop();
    socket::remove(&options.socket);
    Ok(())
}

fn start_openwrt(options: &Options, clock: Clock, ubus: Option<ubus::Handle>) -> Result<Worker, AgentError> {
    let scratch = options.socket.parent().unwrap_or(Path::new("/var/run")).to_owned();
    Ok(Worker::start(OpenWrt::new(Box::new(openwrt::Procd(ubus)), clock, scratch))?)
}

fn open_fleet(
    options: &Options,
    clock: Clock,
    addresses: AddressBook,
    ended_jobs: mpsc::UnboundedSender<u32>,
) -> Result<Fleet, AgentError> {
    // With the key: both belong to this router and outlive its disk.
    let volume = options.key.with_extension("volume");
    let fleet = Fleet::open(options.config.clone(), volume, clock, addresses, ended_jobs)?;
    if !fleet.config().main.enabled {
        return Err(AgentError::Disabled(options.config.clone()));
    }
    for problem in fleet.problems() {
        log::warn!("{problem}");
    }
    Ok(fleet)
}

fn on_event(api: &mut Api<Wire>, event: &Event) {
    if api.fleet.take_event(event) {
        api.reconcile();
    }
}

fn answer(api: &mut Api<Wire>, call: Call) {
    match call.body {
        Some(body) => api.stream(&call.method, call.params, body, call.reply),
        // The caller may have hung up.
        None => drop(call.reply.send(api.call(&call.method, call.params))),
    }
}

/// The watch, or why there is none.
fn watch_mounts() -> Option<MountWatch> {
    let watch = MountWatch::start();
    watch
        .inspect_err(|error| log::warn!("cannot watch what is mounted ({error}): it is looked at every few seconds"))
        .ok()
}

/// Waits until something was mounted or unmounted; for ever without a watch.
async fn mounted(watch: Option<&MountWatch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

fn look_at_volume(api: &mut Api<Wire>) {
    log::debug!("something was mounted or unmounted");
    if api.fleet.check_volume() {
        api.reconcile();
    }
}

fn on_tick(api: &mut Api<Wire>) {
    let volume_changed = api.fleet.check_volume();
    let network_changed = api.servers.refresh(&api.fleet.config().main);
    if volume_changed || network_changed || api.fleet.lacks_address() {
        api.fleet.set_server(api.servers.address(), api.servers.addresses());
        api.reconcile();
    }
    if api.fleet.has_unsettled_layers() {
        api.reconcile();
    }
    let servers = &api.servers;
    if api.fleet.give_up_silent(|ip| servers.nfs_requests_of(ip).is_some())
        || api.fleet.waits_no_longer()
        || api.fleet.can_adapt_now()
    {
        api.reconcile();
    }
    api.fleet.keep_quotas();
}

/// What is to be done about what was told.
enum Heard {
    /// Read the configuration again.
    Configuration,
    /// Look at the interfaces.
    Network,
    Nothing,
}

/// Takes what was told on ubus.
fn on_notice(api: &Api<Wire>, notice: &Notice) -> Heard {
    match notice {
        Notice::ConfigChanged { package } if matches!(package.as_str(), "piboot" | "dhcp") => {
            return Heard::Configuration;
        }
        Notice::Interface { name, up } => {
            log::debug!("interface {name} went {}", if *up { "up" } else { "down" });
            return Heard::Network;
        }
        Notice::Lease { mac, ip, interface, present: true } => api.servers.lease(*ip, *mac, interface),
        // A released address is its holder's until another gets it, as after a RELEASE seen on the wire.
        Notice::Lease { .. } | Notice::ConfigChanged { .. } | Notice::Connected => {}
    }
    Heard::Nothing
}

/// Reads the configuration again; false if the agent is not to run any more.
fn reload(api: &mut Api<Wire>, config: &Path) -> bool {
    match api.fleet.reload() {
        Ok(()) => {
            for problem in api.fleet.problems() {
                log::warn!("{problem}");
            }
            log::info!("{} read again", config.display());
        }
        Err(error) => log::error!("the old configuration stays in force: {error}"),
    }
    let enabled = api.fleet.config().main.enabled;
    if enabled {
        refresh(api);
        api.servers.look_again();
    } else {
        log::info!("piboot.main.enabled is '0' now");
        api.servers.withdraw();
    }
    enabled
}

/// Looks at the interfaces, then brings everything in line.
fn refresh(api: &mut Api<Wire>) {
    api.servers.refresh(&api.fleet.config().main);
    api.fleet.set_server(api.servers.address(), api.servers.addresses());
    api.reconcile();
}

async fn watch_neighbours(addresses: AddressBook) {
    let watch = match Watch::open() {
        Ok(watch) => watch,
        Err(error) => {
            log::warn!("cannot watch the neighbour table ({error}): a change of address is noticed two seconds late");
            return;
        }
    };
    while watch.changed().await.is_ok() {
        addresses.changed();
    }
}
