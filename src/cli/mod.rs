//! The command line: `piboot serve` starts the agent, every other subcommand asks a running one or looks at a file.

mod client;
mod commands;
mod decode;
mod follow;
mod show;
mod timeline;
mod wait;

use std::io::Write;
use std::path::PathBuf;

use argh::FromArgs;

use crate::pi::{Flashes, Mac, Serial};
use crate::printable::printable;

/// Where the agent listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/piboot/piboot.sock";
/// The configuration of OpenWrt.
pub const DEFAULT_CONFIG: &str = "/etc/config/piboot";
/// The handle key that belongs to it; `/etc/config` itself is UCI's.
const DEFAULT_KEY: &str = "/etc/piboot/handle.key";

/// Network-boot server for Raspberry Pis.
#[derive(FromArgs, Debug)]
pub struct Args {
    /// socket of the agent (default: $PIBOOT_SOCKET or /var/run/piboot/piboot.sock)
    #[argh(option)]
    socket: Option<PathBuf>,
    /// print what the agent answers as JSON
    #[argh(switch)]
    json: bool,
    /// print the version
    #[argh(switch)]
    version: bool,
    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum Command {
    Serve(Serve),
    Withdraw(Withdraw),
    Status(Status),
    Check(Check),
    Devices(Devices),
    Device(DeviceOne),
    Enroll(Enroll),
    Unenroll(Unenroll),
    Images(Images),
    Image(Image),
    Volume(Volume),
    Jobs(Jobs),
    Job(Job),
    Boots(Boots),
    Boot(Boot),
    Led(Led),
    Dhcp(Dhcp),
}

/// Run the agent.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "serve")]
struct Serve {
    /// configuration in UCI's format (default: /etc/config/piboot)
    #[argh(option)]
    config: Option<PathBuf>,
    /// file with the key of the NFS file handles, made if missing (default: /etc/piboot/handle.key, or CONFIG.key)
    #[argh(option)]
    key: Option<PathBuf>,
    /// socket of the ubus broker, used while there is one (default: /var/run/ubus/ubus.sock)
    #[argh(option)]
    ubus: Option<PathBuf>,
    /// log more
    #[argh(switch, short = 'v')]
    verbose: bool,
}

/// Take piboot's sections out of OpenWrt's /etc/config/dhcp; for when the agent will not run again.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "withdraw")]
struct Withdraw {}

/// Show what the agent does and what is wrong.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "status")]
struct Status {}

/// Say everything that could stop a boot, with its cure; exit code 1 if there is an error.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "check")]
struct Check {}

/// List enrolled Pis and those that wait to be enrolled.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "devices")]
struct Devices {}

/// Show one enrolled Pi, and what was changed in its copy of the image.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "device")]
struct DeviceOne {
    /// device id or host name
    #[argh(positional)]
    id: String,
}

/// Enrol a Pi: from then on it boots from this router.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "enroll")]
struct Enroll {
    /// hardware address
    #[argh(option)]
    mac: Option<Mac>,
    /// serial (last eight digits)
    #[argh(option)]
    serial: Option<Serial>,
    /// host name (default: made from model and serial)
    #[argh(option)]
    hostname: Option<String>,
    /// image (default: option default_image)
    #[argh(option)]
    image: Option<String>,
    /// address that dnsmasq is always to give it (default: any)
    #[argh(option)]
    ip: Option<std::net::Ipv4Addr>,
    /// public key line for the first user; may be repeated
    #[argh(option)]
    ssh_key: Vec<String>,
    /// return at once instead of waiting for the copy of the image
    #[argh(switch)]
    no_wait: bool,
}

/// Unenrol a Pi; its files are kept unless --delete is given.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "unenroll")]
struct Unenroll {
    /// device id or host name
    #[argh(positional)]
    id: String,
    /// delete its root file system too; there is no way back
    #[argh(switch)]
    delete: bool,
}

/// List images.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "images")]
struct Images {}

/// Import, inspect or remove an image.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "image")]
struct Image {
    #[argh(subcommand)]
    command: ImageCommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum ImageCommand {
    Import(ImageImport),
    Inspect(ImageInspect),
    Remove(ImageRemove),
}

/// Import an image file (.img, .img.xz).
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "import")]
struct ImageImport {
    /// the file
    #[argh(positional)]
    file: PathBuf,
    /// name the image gets
    #[argh(option)]
    name: String,
    /// return at once instead of waiting for the import
    #[argh(switch)]
    no_wait: bool,
}

/// Say what is in an image file; needs no agent.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "inspect")]
struct ImageInspect {
    /// the file
    #[argh(positional)]
    file: PathBuf,
}

/// Remove an image that nobody uses.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "remove")]
struct ImageRemove {
    /// its name
    #[argh(positional)]
    name: String,
}

/// Decide about the disk.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "volume")]
struct Volume {
    #[argh(subcommand)]
    command: VolumeCommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum VolumeCommand {
    Accept(VolumeAccept),
}

/// Go on with the disk that is there, though it is another than before: the enrolled Pis' files are made anew on it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "accept")]
struct VolumeAccept {}

/// List jobs.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "jobs")]
struct Jobs {}

/// Cancel a job or wait for it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "job")]
struct Job {
    #[argh(subcommand)]
    command: JobCommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum JobCommand {
    Cancel(JobCancel),
    Wait(JobWait),
}

/// Cancel a job; what it made is removed.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "cancel")]
struct JobCancel {
    /// its number
    #[argh(positional)]
    job: u32,
}

/// Wait for a job and show its progress.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "wait")]
struct JobWait {
    /// its number
    #[argh(positional)]
    job: u32,
}

/// List the last boots, of one Pi or of all.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "boots")]
struct Boots {
    /// device id, host name or MAC address
    #[argh(positional)]
    device: Option<String>,
    /// at most so many (default 20)
    #[argh(option)]
    limit: Option<u32>,
}

/// Show the timeline of one boot.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "boot")]
struct Boot {
    /// its number, or a device id for that Pi's last boot
    #[argh(positional)]
    boot: String,
    /// tell it while it happens; for a device also a boot that is yet to come
    #[argh(switch, short = 'f')]
    follow: bool,
    /// write its DHCP packets, and those with which its TFTP transfers began, to this file, for tcpdump or Wireshark
    #[argh(option)]
    pcap: Option<PathBuf>,
}

/// Say what the green LED of a Pi that does not boot means; needs no agent.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "led")]
struct Led {
    /// flashes: 7, or long and short ones: 4-3 (default: list all)
    #[argh(positional)]
    flashes: Option<Flashes>,
}

/// Look at DHCP packets; needs no agent.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "dhcp")]
struct Dhcp {
    #[argh(subcommand)]
    command: DhcpCommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum DhcpCommand {
    Decode(DhcpDecode),
}

/// Say which Pi sent a DHCP packet, or what a reply tells one.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "decode")]
struct DhcpDecode {
    /// a file with the packet, as it is or as a hex dump, or its hex digits (default: standard input)
    #[argh(positional)]
    packet: Option<String>,
}

/// Prints to standard output. Whoever reads it may have had enough (`| head`): then the command is over, and not in error.
/// Control characters, which names from the network and from images may hold, are shown and not obeyed.
fn say(text: &str) {
    let shown: String = text.split('\n').map(|line| printable(line.as_bytes())).collect::<Vec<_>>().join("\n");
    let mut out = std::io::stdout().lock();
    if out.write_all(shown.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// The same with a line end.
fn say_line(text: &str) {
    say(&format!("{text}\n"));
}

/// Why a command failed; the text is for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The agent said no, or a file could not be used.
    #[error("{0}")]
    Failed(String),
    /// There is nothing to say that was not printed already.
    #[error("")]
    Said,
}

/// Runs what the command line asks for.
///
/// # Errors
/// With the sentence to print.
pub fn run(args: Args) -> Result<(), CliError> {
    if args.version {
        say_line(concat!("piboot ", env!("CARGO_PKG_VERSION")));
        return Ok(());
    }
    let socket = args
        .socket
        .or_else(|| std::env::var_os("PIBOOT_SOCKET").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
    let Some(command) = args.command else {
        return Err(CliError::Failed("what shall be done? 'piboot --help' lists the commands".to_owned()));
    };
    match command {
        Command::Serve(serve) => start_agent(serve, socket),
        Command::Withdraw(_) => withdraw(&socket),
        command => commands::run(command, &client::Client::new(socket, args.json)),
    }
}

fn withdraw(socket: &std::path::Path) -> Result<(), CliError> {
    crate::logging::init(log::LevelFilter::Info);
    match crate::agent::withdraw(socket) {
        Ok(true) => say_line("boot options taken out of /etc/config/dhcp"),
        Ok(false) => say_line("there was nothing of piboot's in /etc/config/dhcp"),
        Err(error) => return Err(CliError::Failed(error.to_string())),
    }
    Ok(())
}

fn start_agent(serve: Serve, socket: PathBuf) -> Result<(), CliError> {
    crate::logging::init(if serve.verbose { log::LevelFilter::Debug } else { log::LevelFilter::Info });
    let config = serve.config.unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG));
    let key = serve.key.unwrap_or_else(|| {
        if config == std::path::Path::new(DEFAULT_CONFIG) {
            return PathBuf::from(DEFAULT_KEY);
        }
        let mut name = config.clone().into_os_string();
        name.push(".key");
        PathBuf::from(name)
    });
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let ubus = serve.ubus.unwrap_or_else(|| PathBuf::from(crate::ubus::SOCKET));
    let options = crate::agent::Options {
        config: absolute(config),
        socket: absolute(socket),
        key: absolute(key),
        ubus: absolute(ubus),
    };
    crate::agent::run(&options).map_err(|e| CliError::Failed(e.to_string()))
}
