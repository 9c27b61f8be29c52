//! `piboot-bench [AREA [FILTER]]`: measures piboot and its peers in the same run and prints one line per case, metric and peer:
//! `bench: <area>/<case> <metric> piboot=<n> <peer>=<n> ratio=<n>`, lower is better.

#![allow(clippy::disallowed_types, reason = "a benchmark measures real time")]

mod import;
mod measure;
mod nfs;
mod observe;
mod roots;
mod stage;
mod storm;
mod tftp;

use std::process::ExitCode;

/// A name and what runs the cases whose name contains the filter.
type Area = (&'static str, fn(&str) -> Result<(), measure::Error>);

/// The areas there are.
const AREAS: [Area; 6] = [
    ("import", import::run),
    ("nfs", nfs::run),
    ("observe", observe::run),
    ("roots", roots::run),
    ("storm", storm::run),
    ("tftp", tftp::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // The program is its own set of servers, so that each is measured as a process of its own.
    let result = match words[..] {
        ["import-once", contestant, image, volume] => import::once(contestant, image.as_ref(), volume.as_ref()),
        ["serve-nfs", directory] => nfs::serve(directory.as_ref()),
        ["serve", server, directory] => tftp::serve(server, directory.as_ref()),
        [] => AREAS.iter().try_for_each(|(_, run)| run("")),
        [area] => run(area, ""),
        [area, filter] => run(area, filter),
        _ => Err(measure::Error::new("usage: piboot-bench [AREA [FILTER]]")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(area: &str, filter: &str) -> Result<(), measure::Error> {
    match AREAS.iter().find(|(name, _)| *name == area) {
        Some((_, run)) => run(filter),
        None => {
            let names: Vec<_> = AREAS.iter().map(|(name, _)| *name).collect();
            Err(measure::Error::new(format!("there is no area '{area}'; there are: {}", names.join(", "))))
        }
    }
}
