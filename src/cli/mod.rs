//! The command line: `piboot serve` starts the agent, every other subcommand asks a running one or looks at a file.

mod args;
mod capture;
mod client;
mod commands;
mod decode;
mod follow;
mod online;
mod password;
mod show;
mod timeline;
mod upload;
mod wait;

use std::io::Write;
use std::path::PathBuf;

use argh::FromArgs;

pub use self::args::Args;
use self::args::{Command, Serve};
use crate::printable::printable;

/// Where the agent listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/piboot/piboot.sock";
/// The configuration of OpenWrt.
pub const DEFAULT_CONFIG: &str = "/etc/config/piboot";
/// The handle key that belongs to it; `/etc/config` itself is UCI's.
const DEFAULT_KEY: &str = "/etc/piboot/handle.key";

/// What `-` stands for: argh takes it for an option. Where something is written, it is standard output.
const STANDARD_INPUT: &str = "/dev/stdin";

/// Reads the command line; prints help or what is wrong with it, and ends the program then.
#[must_use]
pub fn arguments() -> Args {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .map(|word| if word == "-" { STANDARD_INPUT.to_owned() } else { word })
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (program, rest) = words.split_first().map_or(("piboot", [].as_slice()), |(program, rest)| (*program, rest));
    let program = program.rsplit('/').next().unwrap_or(program);
    match Args::from_args(&[program], rest) {
        Ok(args) => args,
        Err(exit) if exit.status.is_ok() => {
            say(&exit.output);
            std::process::exit(0);
        }
        Err(exit) => {
            eprintln!("{}\nRun {program} --help for more information.", exit.output);
            std::process::exit(1);
        }
    }
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
