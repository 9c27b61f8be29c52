//! Shows the main job of piboot from end to end, as its user would do it, on one machine: a small network with a real
//! DHCP server, the agent, a real operating-system image, and an emulated Raspberry Pi that is powered on, enrolled,
//! and boots to its login prompt with its root on the agent's NFS. Ends with `demo: OK …` or with what failed.

mod console;
mod guest;
mod router;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use argh::FromArgs;

/// Boot an emulated Raspberry Pi from piboot and show its timeline.
#[derive(FromArgs, Debug)]
struct Args {
    /// the machine that runs what the Pi loaded: virt (fast) or raspi3b (QEMU's Raspberry Pi 3B, slow)
    #[argh(option, default = "String::from(\"virt\")")]
    board: String,
    /// how its root comes to be: auto, or ephemeral, which is booted twice to see that nothing stays
    #[argh(option, default = "String::from(\"auto\")")]
    root: String,
    /// the piboot program
    #[argh(option)]
    piboot: PathBuf,
    /// the image file to import
    #[argh(option)]
    image: PathBuf,
    /// where logs go
    #[argh(option)]
    logs: PathBuf,
}

/// What went wrong, in which stage.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    /// A failure with this reason.
    pub fn new(why: impl std::fmt::Display) -> Self {
        Self(why.to_string())
    }
}

fn main() -> ExitCode {
    let args: Args = argh::from_env();
    let begun = Instant::now();
    let mut stage = "set-up";
    match steps::run(&args, &mut stage) {
        Ok(summary) => {
            println!("demo: OK {summary}, {} s in all", begun.elapsed().as_secs());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("demo: FAILED in stage '{stage}': {failure}");
            println!("demo: logs are in {}", args.logs.display());
            ExitCode::FAILURE
        }
    }
}
