//! NFS: piboot and NFS-Ganesha serve the same file system over the loopback of a network namespace.

mod cases;
mod client;
mod crowd;
mod servers;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::measure::{Error, Figures, Process, Results};
use crate::stage;
use cases::{CASES, Case, Scene};
use servers::{Contestant, PEERS, connect};

pub use servers::serve;

const ROUNDS: usize = 3;
/// Enough for what the cases write, and for Ganesha's journal of recovery.
const VOLUME: &str = "1200M";

/// Runs the cases whose name contains `filter`.
pub fn run(filter: &str) -> Result<(), Error> {
    stage::enter_namespaces()?;
    let lab = Lab::new()?;
    // What the others list and remove has to be made in any case.
    let cases: Vec<&Case> = CASES.iter().filter(|case| case.name.contains(filter) || case.name == "create").collect();
    let mut single: Vec<Results> = cases.iter().map(|_| Results::default()).collect();
    let (mut memory, mut crowd) = (Results::default(), Results::default());
    let contestants = [Contestant::Piboot, Contestant::Ganesha];
    for round in 0..ROUNDS {
        for turn in 0..contestants.len() {
            let contestant = contestants[(round + turn) % contestants.len()];
            match lab.one_client(contestant, &cases) {
                Ok((figures, rss)) => {
                    single.iter_mut().zip(figures).for_each(|(results, f)| results.add(contestant.name(), Ok(f)));
                    memory.add(contestant.name(), Ok(rss));
                }
                Err(error) => {
                    single.iter_mut().for_each(|results| results.add(contestant.name(), Err(error.clone())));
                }
            }
            if "crowd".contains(filter) {
                crowd.add(contestant.name(), lab.many_clients(contestant));
            }
        }
    }
    for (case, results) in cases.iter().zip(&single).filter(|(case, _)| case.name.contains(filter)) {
        let (cpu, wall) = case.unit.metrics();
        results.print(&format!("nfs/{}", case.name), &[cpu, wall], &PEERS);
    }
    if filter.is_empty() {
        memory.print("nfs/memory-1-client", &["rss_peak_mb"], &PEERS);
    }
    if "crowd".contains(filter) {
        crowd.print("nfs/crowd-25", &crowd::METRICS, &PEERS);
    }
    Ok(())
}

/// Where the servers run: an ext4 volume in memory, so that no disk's mood is measured.
struct Lab {
    scratch: tempfile::TempDir,
    _rpcbind: Process,
}

impl Lab {
    fn new() -> Result<Self, Error> {
        // In the mount namespace of this program only.
        stage::mount_tmpfs(Path::new("/run"))?;
        let scratch = tempfile::tempdir()?;
        stage::mount_tmpfs(scratch.path())?;
        let rpcbind = Process::start(Command::new("rpcbind").args(["-f", "-w"]))?;
        std::fs::create_dir_all("/run/ganesha")?;
        Ok(Self { scratch, _rpcbind: rpcbind })
    }

    /// A fresh volume. Unmounted when dropped.
    fn volume(&self) -> Result<Volume, Error> {
        let (image, mount) = (self.scratch.path().join("disk"), self.scratch.path().join("export"));
        let _ = std::fs::remove_file(&image);
        std::fs::create_dir_all(&mount)?;
        tool(Command::new("truncate").args(["-s", VOLUME]).arg(&image))?;
        tool(
            Command::new("mke2fs")
                .args(["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
                .arg(&image),
        )?;
        tool(Command::new("mount").args(["-o", "loop,noatime"]).arg(&image).arg(&mount))?;
        Ok(Volume(mount))
    }

    /// The cases with one client: figures for each, and the memory that the server needed.
    fn one_client(&self, contestant: Contestant, cases: &[&Case]) -> Result<(Vec<Figures>, Figures), Error> {
        let _one_cpu = stage::OneCpu::stay()?;
        let volume = self.volume()?;
        let server = contestant.start(&volume.0, self.scratch.path())?;
        let mut connection = connect(1)?;
        let mut scene = Scene::new(&mut connection, &server.root)?;
        let mut all = Vec::new();
        for case in cases {
            let before = server.process.cpu()?;
            let outcome = scene.run(case)?;
            let cpu = server.process.cpu()?.saturating_sub(before);
            let (cpu_name, wall_name) = case.unit.metrics();
            let per_unit = |time: std::time::Duration| time.as_secs_f64() * 1e6 / outcome.units as f64;
            all.push(Figures::from([(cpu_name, per_unit(cpu)), (wall_name, per_unit(outcome.wall))]));
        }
        let rss = Figures::from([("rss_peak_mb", server.process.peak_rss()?)]);
        Ok((all, rss))
    }

    /// Twenty-five clients, on all CPUs.
    fn many_clients(&self, contestant: Contestant) -> Result<Figures, Error> {
        let volume = self.volume()?;
        let server = contestant.start(&volume.0, self.scratch.path())?;
        crowd::run(&server)
    }
}

/// A mounted file system.
struct Volume(PathBuf);

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a server that was killed a moment ago may still hold it. Goes with the namespace in any case.
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn tool(command: &mut Command) -> Result<(), Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| Error::new(format!("cannot start {name}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
