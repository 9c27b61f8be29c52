//! The story, stage by stage.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use emupi::handoff::Machine;
use emupi::lab::Net;
use emupi::{Boot, BootOptions, Link, Model, Outcome, Pi, boot};
use serde_json::Value;

use crate::guest::{Guest, Patience};
use crate::router::Router;
use crate::{Args, Failure};

const SERIAL: u64 = 0x38c1_28c0;
const HOSTNAME: &str = "running-lion";
const DEVICE: &str = "running_lion";
const IMAGE: &str = "raspios-lite";
/// How long a Pi is without power at least when somebody power-cycles it.
const POWER_CYCLE: Duration = Duration::from_secs(9);
const MARK: &str = "written by the Pi over NFS";
/// Stages that a boot from the agent must have gone through.
const STAGES: [&str; 14] = [
    "discover",
    "offer",
    "tftp",
    "firmware",
    "config",
    "device_tree",
    "initramfs",
    "kernel",
    "os_dhcp",
    "portmap",
    "mount",
    "init",
    "first_write",
    "ready",
];
/// A Pi that was shut down says no goodbye: that its kernel answers no more is known half a minute later.
const GONE: Duration = Duration::from_secs(90);
/// How often the agent is asked for what cannot announce itself here.
const POLL: Duration = Duration::from_millis(500);

/// Runs the demo; `stage` names what is being done, for the message of a failure.
pub fn run(args: &Args, stage: &mut &'static str) -> Result<String, Failure> {
    let machine = match args.board.as_str() {
        "virt" => Machine::Virt,
        "raspi3b" => Machine::Raspi3b,
        other => return Err(Failure::new(format!("'{other}' is no board: virt or raspi3b"))),
    };
    fs::create_dir_all(&args.logs).map_err(|e| Failure::new(format!("{}: {e}", args.logs.display())))?;
    begin(stage, "start the router", "a network with dnsmasq, and the agent");
    let mut router = Router::start(&args.piboot)?;
    let told = story(args, machine, &mut router, stage);
    router.save_logs(&args.logs);
    let summary = told?;
    begin(stage, "stop the agent", "as an init system would");
    router.stop_agent()?;
    Ok(summary)
}

fn begin(stage: &mut &'static str, name: &'static str, what: &str) {
    *stage = name;
    println!("\n==> {name}: {what}");
}

fn story(args: &Args, machine: Machine, router: &mut Router, stage: &mut &'static str) -> Result<String, Failure> {
    begin(stage, "import", "unpack a real image without mounting anything");
    let image = args.image.to_string_lossy();
    router.show(&["image", "import", &image, "--name", IMAGE])?;
    router.show(&["images"])?;

    begin(stage, "power on", "a Raspberry Pi 3B that nobody knows yet");
    let pi = Pi::new(Model::Pi3B, SERIAL);
    let mac = pi.mac.to_string();
    let tap = router.net.add_tap().map_err(Failure::new)?;
    let first = power_on(&router.net, &tap, &pi, 20.0)?;
    if first.ok() {
        return Err(Failure::new("the Pi booted although nobody enrolled it"));
    }
    let unplugged = Instant::now();
    router.show(&["devices"])?;

    begin(stage, "enrol", "its own copy of the image, adapted to boot from the network");
    router.show(&["enroll", "--mac", &mac, "--hostname", HOSTNAME, "--image", IMAGE, "--root", &args.root])?;
    let ephemeral = args.root == "ephemeral";
    router.show(&["device", HOSTNAME])?;

    begin(stage, "boot: firmware", "the Pi is powered on again and loads firmware, kernel and initramfs over TFTP");
    // Nobody pulls a plug and puts it back faster; piboot takes an earlier DISCOVER for a repetition of the last.
    std::thread::sleep(POWER_CYCLE.saturating_sub(unplugged.elapsed()));
    let begun = Instant::now();
    let booted = power_on(&router.net, &tap, &pi, 1.0)?;
    if let Outcome::Failed { .. } = &booted.outcome {
        return Err(Failure::new(format!("{}; the board's log is above", booted.outcome)));
    }
    println!("{} bytes in {:.1} s: {}", booted.bytes(), begun.elapsed().as_secs_f64(), booted.outcome);

    begin(stage, "boot: Linux", "QEMU runs exactly what the Pi loaded; its root comes over NFS");
    let patience = Patience::of(machine);
    let mut guest = Guest::start(&router.net, &tap, machine, &pi, &booted, &args.logs)?;
    let handed_over = Instant::now();
    guest.log_in(&patience)?;
    let to_login = handed_over.elapsed().as_secs();
    println!("login prompt {to_login} s after the kernel was started");

    begin(stage, "look inside", "what the Pi says of itself");
    if ephemeral {
        look_inside_ephemeral(&mut guest, &patience, "1")?;
        check_ephemeral_from_outside(router)?;
    } else {
        look_inside(&mut guest, machine, &patience)?;
        check_from_outside(router)?;
    }
    wait_for(router, &["boot", DEVICE], "the stage 'ready'", |boot| stages(boot).contains(&"ready"))?;

    begin(stage, "timeline", "the boot as the agent saw it");
    router.show(&["devices"])?;
    router.show(&["boots", DEVICE])?;
    router.show(&["boot", DEVICE])?;
    check_timeline(&router.json(&["boot", DEVICE])?, ephemeral)?;
    router.show(&["status"])?;

    begin(stage, "shut down", "the agent tells it from a power cut by what the Pi looks up last");
    guest.console.type_line("poweroff")?;
    if machine == Machine::Virt {
        // What nobody reads stops who writes it.
        guest.console.wait("Power down", patience.command)?;
    }
    wait_for(router, &["device", DEVICE], "the state 'off'", |device| device["state"] == "off")?;
    router.show(&["devices"])?;
    if ephemeral {
        drop(guest);
        begin(stage, "boot again", "what the Pi had changed is gone");
        let booted = power_on(&router.net, &tap, &pi, 1.0)?;
        let mut guest = Guest::start(&router.net, &tap, machine, &pi, &booted, &args.logs)?;
        guest.log_in(&patience)?;
        look_inside_ephemeral(&mut guest, &patience, "2")?;
        check_ephemeral_from_outside(router)?;
    }
    Ok(format!("{HOSTNAME} ({mac}) booted {} on {}: login after {to_login} s", IMAGE, args.board))
}

/// The Pi's cable is plugged in only as long as its firmware runs; then QEMU takes it over.
fn power_on(net: &Net, tap: &str, pi: &Pi, speed: f64) -> Result<Boot, Failure> {
    let link = net.enter(|| Link::tap(tap)).map_err(Failure::new)?.map_err(Failure::new)?;
    let options = BootOptions { speed, keep: true, ..BootOptions::default() };
    let booted = boot(pi, &link, &options, None).map_err(Failure::new)?;
    if speed == 1.0 && !booted.ok() {
        booted.log.iter().for_each(|entry| println!("{entry}"));
    }
    Ok(booted)
}

fn look_inside(guest: &mut Guest, machine: Machine, patience: &Patience) -> Result<(), Failure> {
    let mut say = |command: &str| -> Result<String, Failure> {
        let output = guest.console.run(command, patience.command)?;
        println!("guest# {command}");
        output.lines().for_each(|line| println!("  {line}"));
        Ok(output)
    };
    let hostname = say("hostname")?;
    if hostname != HOSTNAME {
        return Err(Failure::new(format!("the guest calls itself '{hostname}'")));
    }
    let root = say("grep ' / nfs' /proc/mounts")?;
    if !root.contains(&format!("/{DEVICE}/root")) {
        return Err(Failure::new(format!("its root is not the agent's export: {root}")));
    }
    say(&format!("echo '{MARK}' > /home/pi/mark && chown 1000:1000 /home/pi/mark && sync"))?;
    if machine == Machine::Raspi3b {
        let model = say("tr -d '\\0' < /proc/device-tree/model; echo")?;
        if !model.contains("Raspberry Pi 3 Model B") {
            return Err(Failure::new(format!("its device tree says '{model}'")));
        }
        return Ok(());
    }
    say("dpkg -i /var/cache/piboot-demo/*.deb")?;
    say("hello")?;
    say("findmnt -n -o SOURCE,FSTYPE /boot/firmware && ls /boot/firmware | head -3")?;
    say("systemctl --failed --no-legend --plain | cat; uptime").map(drop)
}

/// What it writes is there, until it is booted again; what makes it itself stays.
fn look_inside_ephemeral(guest: &mut Guest, patience: &Patience, boot: &str) -> Result<(), Failure> {
    let mut say = |command: &str| -> Result<String, Failure> {
        let output = guest.console.run(command, patience.command)?;
        println!("guest# {command}");
        output.lines().for_each(|line| println!("  {line}"));
        Ok(output)
    };
    let mut expect = |command: &str, expected: &str| {
        let said = say(command)?;
        if said.contains(expected) {
            return Ok(());
        }
        Err(Failure::new(format!("boot {boot}: '{command}' said '{said}', and not '{expected}'")))
    };
    expect("hostname", HOSTNAME)?;
    expect("findmnt -n -o FSTYPE /", "overlay")?;
    expect("findmnt -n -o SOURCE,FSTYPE /usr/lib/piboot/image", &format!("/{DEVICE}/root"))?;
    expect("findmnt -n -o OPTIONS /boot/firmware", "ro,")?;
    expect("ls -A /home/pi/mark || echo no mark", "no mark")?;
    expect(&format!("echo '{MARK}' > /home/pi/mark && sync; cat /home/pi/mark"), MARK)?;
    expect("touch /usr/lib/piboot/image/x; echo status $?", "status 1")?;
    expect("dpkg -i /var/cache/piboot-demo/*.deb >/dev/null 2>&1; hello", "Hello")?;
    expect("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub; systemctl is-active ssh", "active")?;
    expect("systemctl --failed --no-legend --plain | wc -l", "0")?;
    expect("systemctl --failed --no-legend --plain | cat; df -h / | tail -n 1; dmesg | grep piboot", "kept in memory")
}

fn check_ephemeral_from_outside(router: &Router) -> Result<(), Failure> {
    let root = router.data_dir().join("devices").join(DEVICE).join("root");
    if root.join("home/pi/mark").exists() || root.join("usr/bin/hello").exists() {
        return Err(Failure::new(format!("what the Pi wrote is in {}", root.display())));
    }
    println!("on the router: {} has nothing of it", root.display());
    Ok(())
}

fn check_from_outside(router: &Router) -> Result<(), Failure> {
    let path = router.data_dir().join("devices").join(DEVICE).join("root/home/pi/mark");
    let text = fs::read_to_string(&path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    let owner = fs::metadata(&path).map_err(Failure::new)?.uid();
    if text.trim() != MARK || owner != 1000 {
        return Err(Failure::new(format!("{} holds '{}' and belongs to {owner}", path.display(), text.trim())));
    }
    println!("on the router: {} says '{}' and belongs to uid {owner}", path.display(), text.trim());
    Ok(())
}

fn stages(boot: &Value) -> Vec<&str> {
    boot["stages"].as_array().into_iter().flatten().filter_map(|s| s["stage"].as_str()).collect()
}

/// Asks the agent until its answer is as expected.
fn wait_for(router: &Router, args: &[&str], what: &str, until: impl Fn(&Value) -> bool) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        let answer = router.json(args)?;
        if until(&answer) {
            return Ok(());
        }
        if begun.elapsed() > GONE {
            return Err(Failure::new(format!("{what} did not come about; the agent says: {answer:#}")));
        }
        std::thread::sleep(POLL);
    }
}

fn check_timeline(boot: &Value, ephemeral: bool) -> Result<(), Failure> {
    if let Some(finding) = boot["findings"].as_array().and_then(|findings| findings.first()) {
        return Err(Failure::new(format!("something was found wrong with a good boot: {finding:#}")));
    }
    let stages = stages(boot);
    // What it writes goes nowhere.
    let expected = |stage: &&str| !(ephemeral && *stage == "first_write");
    match STAGES.iter().copied().filter(expected).find(|stage| !stages.contains(stage)) {
        Some(missing) => Err(Failure::new(format!("the timeline has no stage '{missing}': {}", stages.join(", ")))),
        None => Ok(()),
    }
}
