//! `emupi`: power an emulated Raspberry Pi on at a tap or veth interface.

mod storm_command;

use argh::FromArgs;
use emupi::handoff::{self, Machine};
use emupi::json::Object;
use emupi::model::Eeprom;
use emupi::nic::Faults;
use emupi::record::Entry;
use emupi::rng::Rng;
use emupi::tftp::client::Loss;
use emupi::{Boot, BootOptions, Link, Mac, Model, Pi, Until, boot, many};
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// An emulated Raspberry Pi that boots from the network.
#[derive(FromArgs)]
struct Args {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Verb {
    Boot(BootArgs),
    Many(ManyArgs),
    Storm(storm_command::StormArgs),
}

/// Boot one board and show each step.
#[derive(FromArgs)]
#[argh(subcommand, name = "boot")]
struct BootArgs {
    /// tap interface to use, created if missing
    #[argh(option)]
    tap: Option<String>,
    /// end of a veth pair to use
    #[argh(option)]
    veth: Option<String>,
    /// board: 3b, 3b+, bootcode, 4, 400, cm4, 5, cm5, laptop or x86pxe
    #[argh(option)]
    model: Model,
    /// serial number, hexadecimal (default 5b154510)
    #[argh(option, default = "0x5b15_4510", from_str_fn(hexadecimal))]
    serial: u64,
    /// MAC address (default: from the serial number)
    #[argh(option)]
    mac: Option<Mac>,
    /// revision code, hexadecimal (default: a usual one for the model)
    #[argh(option, from_str_fn(hexadecimal))]
    revision: Option<u64>,
    /// release year of the EEPROM: 2021, 2024 or 2025 (default)
    #[argh(option, default = "Eeprom::Y2025", from_str_fn(eeprom))]
    eeprom: Eeprom,
    /// write what was fetched here, and the QEMU command lines that run it
    #[argh(option)]
    fetch_dir: Option<PathBuf>,
    /// word to add to the QEMU guest's command line; may be repeated
    #[argh(option)]
    append: Vec<String>,
    /// serial console of the QEMU guest, added as console=… (ttyAMA0 on either machine)
    #[argh(option)]
    append_console: Option<String>,
    /// divide DHCP's waits by this (default 1)
    #[argh(option, default = "1.0")]
    speed: f64,
    /// probability of losing a TFTP packet, 0 to 1
    #[argh(option, default = "0.0")]
    loss: f64,
    /// seed of everything random
    #[argh(option)]
    seed: Option<u64>,
    /// dhcp or kernel (default)
    #[argh(option, default = "Until::Kernel", from_str_fn(until))]
    until: Until,
    /// start over this often after a failure (boards with an EEPROM)
    #[argh(option, default = "0")]
    restarts: u32,
    /// never answer ARP after DHCP
    #[argh(switch)]
    arp_silent: bool,
    /// acknowledge N+1 when block N arrives twice, as an old start4.elf does
    #[argh(switch)]
    ack_next: bool,
    /// write every step here as JSON lines
    #[argh(option)]
    log: Option<PathBuf>,
}

/// Boot many boards at once and sum up.
#[derive(FromArgs)]
#[argh(subcommand, name = "many")]
struct ManyArgs {
    /// how many
    #[argh(positional)]
    count: u32,
    /// tap interface to use, created if missing
    #[argh(option)]
    tap: Option<String>,
    /// end of a veth pair to use
    #[argh(option)]
    veth: Option<String>,
    /// the model; may be repeated, boards take turns
    #[argh(option)]
    model: Vec<Model>,
    /// number of the first board
    #[argh(option, default = "0")]
    first: u32,
    /// the server's TFTP tree: every byte received is compared with it
    #[argh(option)]
    expect_dir: Option<PathBuf>,
    /// divide DHCP's waits by this (default 1)
    #[argh(option, default = "1.0")]
    speed: f64,
    /// probability of losing a TFTP packet, 0 to 1
    #[argh(option, default = "0.0")]
    loss: f64,
    /// seed of everything random
    #[argh(option)]
    seed: Option<u64>,
    /// dhcp or kernel (default)
    #[argh(option, default = "Until::Kernel", from_str_fn(until))]
    until: Until,
    /// only print serial number and MAC address of each board
    #[argh(switch)]
    list: bool,
    /// write every step here as JSON lines
    #[argh(option)]
    log: Option<PathBuf>,
}

fn hexadecimal(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map_err(|_| format!("'{text}' is not a hexadecimal number"))
}

fn eeprom(text: &str) -> Result<Eeprom, String> {
    match text {
        "2021" => Ok(Eeprom::Y2021),
        "2024" => Ok(Eeprom::Y2024),
        "2025" => Ok(Eeprom::Y2025),
        _ => Err(format!("'{text}': one of 2021, 2024, 2025")),
    }
}

fn until(text: &str) -> Result<Until, String> {
    match text {
        "dhcp" => Ok(Until::Dhcp),
        "kernel" => Ok(Until::Kernel),
        _ => Err(format!("'{text}': dhcp or kernel")),
    }
}

fn main() -> ExitCode {
    let args: Args = argh::from_env();
    let end = match args.verb {
        Verb::Boot(args) => one(args),
        Verb::Many(args) => all(&args),
        Verb::Storm(args) => storm_command::run(&args),
    };
    match end {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("emupi: {error}");
            ExitCode::from(2)
        }
    }
}

fn open(tap: Option<&str>, veth: Option<&str>) -> Result<Link, Box<dyn Error>> {
    match (tap, veth) {
        (Some(tap), None) => Ok(Link::tap(tap)?),
        (None, Some(veth)) => Ok(Link::veth(veth)?),
        _ => Err("name one interface: --tap NAME or --veth NAME".into()),
    }
}

fn one(args: BootArgs) -> Result<bool, Box<dyn Error>> {
    let mut pi = Pi::new(args.model, args.serial);
    pi.mac = args.mac.unwrap_or(pi.mac);
    pi.revision = args.revision.map_or(Ok(pi.revision), u32::try_from)?;
    pi.eeprom = args.eeprom;
    let options = BootOptions {
        until: args.until,
        speed: args.speed,
        loss: Loss { rate: args.loss },
        seed: args.seed.unwrap_or_else(Rng::random_seed),
        restarts: args.restarts,
        keep: args.fetch_dir.is_some(),
        frame_loss: 0.0,
        arp_silent: args.arp_silent,
        ack_next: args.ack_next,
    };
    let link = open(args.tap.as_deref(), args.veth.as_deref())?;
    println!("Raspberry Pi {} serial {:08x} {}", pi.model, pi.serial32(), pi.mac);
    let mut show = |entry: &Entry| println!("{entry}");
    let boot = boot(&pi, &link, &options, Some(&mut show))?;
    println!("{}", boot.outcome);
    if boot.faults != Faults::default() {
        println!("{} fragments and {} damaged packets ignored", boot.faults.fragments, boot.faults.damaged);
    }
    if let Some(path) = &args.log {
        write_log(path, std::slice::from_ref(&boot))?;
    }
    if let (Some(dir), Some(ready)) = (&args.fetch_dir, boot.ready()) {
        let handoff = handoff::write(ready, dir)?;
        let tap = args.tap.as_deref().unwrap_or("tap0");
        let console = args.append_console.map(|c| format!("console={c}"));
        let append: Vec<&str> = args.append.iter().chain(&console).map(String::as_str).collect();
        for machine in [Machine::Virt, Machine::Raspi3b] {
            let Ok(command) = handoff.qemu(machine, tap, pi.mac, "stdio", &append) else { continue };
            let name = if machine == Machine::Virt { "qemu-virt.sh" } else { "qemu-raspi3b.sh" };
            let quoted: Vec<String> = command.iter().map(|word| quote(word)).collect();
            std::fs::write(dir.join(name), format!("#!/bin/sh\nexec {}\n", quoted.join(" ")))?;
            println!("run it: sh {}", dir.join(name).display());
        }
    }
    Ok(boot.ok())
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn all(args: &ManyArgs) -> Result<bool, Box<dyn Error>> {
    if args.model.is_empty() {
        return Err("which --model?".into());
    }
    let models = args.model.iter().copied().cycle();
    let pis: Vec<Pi> = models.zip(args.first..args.first + args.count).map(|(m, i)| many::nth(m, i)).collect();
    if args.list {
        pis.iter().for_each(|pi| println!("{:08x} {} {}", pi.serial32(), pi.mac, pi.model));
        return Ok(true);
    }
    let options = BootOptions {
        until: args.until,
        speed: args.speed,
        loss: Loss { rate: args.loss },
        seed: args.seed.unwrap_or_else(Rng::random_seed),
        keep: false,
        ..BootOptions::default()
    };
    let link = open(args.tap.as_deref(), args.veth.as_deref())?;
    let boots = many::boot_all(&pis, &link, &options, &|boot| {
        println!("{:08x} {}: {}", boot.pi.serial32(), boot.pi.model, boot.outcome);
    })?;
    println!("{}", many::Summary::of(&boots));
    if link.dropped() > 0 {
        println!("{} frames dropped: this machine is too slow for so many boards", link.dropped());
    }
    let wrong = args.expect_dir.as_ref().map(|dir| many::compare(&boots, dir)).unwrap_or_default();
    wrong.iter().for_each(|what| println!("DIFFERS: {what}"));
    if let Some(path) = &args.log {
        write_log(path, &boots)?;
    }
    Ok(boots.iter().all(Boot::ok) && wrong.is_empty())
}

fn write_log(path: &PathBuf, boots: &[Boot]) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::new(File::create(path).map_err(|e| format!("cannot write {}: {e}", path.display()))?);
    for boot in boots {
        for entry in &boot.log {
            writeln!(out, "{}", entry.to_json(&boot.pi))?;
        }
        let end = Object::default()
            .text("mac", &boot.pi.mac.to_string())
            .text("serial", &format!("{:08x}", boot.pi.serial32()))
            .text("event", "end")
            .raw("ok", boot.ok())
            .text("outcome", &boot.outcome.to_string())
            .raw("fragments", boot.faults.fragments)
            .raw("damaged", boot.faults.damaged);
        writeln!(out, "{}", end.end())?;
    }
    Ok(out.flush()?)
}
