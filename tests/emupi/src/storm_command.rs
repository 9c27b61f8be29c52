//! `emupi storm`: many boards at once, and how they fared.

use argh::FromArgs;
use emupi::rng::Rng;
use emupi::storm::{self, Report, Usage};
use emupi::{Boot, BootOptions, Model, Until, many};
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

/// Switch many boards on within a short time, and report how each stage went.
#[derive(FromArgs)]
#[argh(subcommand, name = "storm")]
pub(crate) struct StormArgs {
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
    /// the models 3b, 3b+, 4 and 5 in turns
    #[argh(switch)]
    mix: bool,
    /// number of the first board
    #[argh(option, default = "0")]
    first: u32,
    /// milliseconds within which all are switched on (default 1000)
    #[argh(option, default = "1000")]
    spread: u64,
    /// probability of losing a frame, 0 to 1, each way, DHCP and ARP included
    #[argh(option, default = "0.0")]
    loss: f64,
    /// divide DHCP's waits by this (default 1)
    #[argh(option, default = "1.0")]
    speed: f64,
    /// seed of everything random; the same one loses the same frames of each board
    #[argh(option)]
    seed: Option<u64>,
    /// dhcp or kernel (default)
    #[argh(option, default = "Until::Kernel", from_str_fn(super::until))]
    until: Until,
    /// start over this often after a failure (boards with an EEPROM)
    #[argh(option, default = "0")]
    restarts: u32,
    /// process whose CPU time and memory are told: the server
    #[argh(option)]
    pid: Option<i32>,
    /// the server's TFTP tree: every byte received is compared with it
    #[argh(option)]
    expect_dir: Option<PathBuf>,
    /// the report as one JSON object
    #[argh(switch)]
    json: bool,
    /// only print serial number and MAC address of each board
    #[argh(switch)]
    list: bool,
    /// write every step here as JSON lines
    #[argh(option)]
    log: Option<PathBuf>,
}

pub(crate) fn run(args: &StormArgs) -> Result<bool, Box<dyn Error>> {
    let models: &[Model] = match (args.mix, args.model.as_slice()) {
        (true, []) => &storm::MIX,
        (false, models @ [_, ..]) => models,
        _ => return Err("which boards? --model (may be repeated) or --mix".into()),
    };
    let pis = storm::boards(models, args.first, args.count);
    if args.list {
        pis.iter().for_each(|pi| println!("{:08x} {} {}", pi.serial32(), pi.mac, pi.model));
        return Ok(true);
    }
    let usage = |pid: i32| Usage::of(pid).ok_or_else(|| format!("there is no process {pid}"));
    let seed = args.seed.unwrap_or_else(Rng::random_seed);
    let options = BootOptions {
        until: args.until,
        speed: args.speed,
        frame_loss: args.loss,
        seed,
        restarts: args.restarts,
        keep: false,
        ..BootOptions::default()
    };
    let delays = storm::delays(pis.len(), Duration::from_millis(args.spread), seed);
    let link = super::open(args.tap.as_deref(), args.veth.as_deref())?;
    let before = args.pid.map(usage).transpose()?;
    let boots = many::boot_spread(&pis, &delays, &link, &options, &|_| ())?;
    let used = args.pid.zip(before).map(|(pid, before)| usage(pid).map(|now| now.since(before))).transpose()?;
    let report = Report::of(&boots, &delays);
    let wrong = args.expect_dir.as_ref().map(|dir| many::compare(&boots, dir)).unwrap_or_default();
    if args.json {
        println!("{}", report.to_json(used));
    } else {
        println!("{report}");
        if let Some(used) = used {
            println!("server: {:.3} s CPU, {} kB at most", used.cpu.as_secs_f64(), used.peak_rss_kb);
        }
    }
    if link.dropped() > 0 {
        eprintln!("{} frames dropped: this machine is too slow for so many boards", link.dropped());
    }
    wrong.iter().for_each(|what| eprintln!("DIFFERS: {what}"));
    if let Some(path) = &args.log {
        super::write_log(path, &boots)?;
    }
    Ok(boots.iter().all(Boot::ok) && wrong.is_empty() && report.twice.is_empty())
}
