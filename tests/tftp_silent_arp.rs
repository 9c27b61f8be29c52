//! A Pi 3B stops answering ARP while it loads (raspberrypi/documentation, boot-net.adoc): the server must not need it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod tftp_client;

use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use tftp_client::{Answer, Client, SERIAL, TestServer};

fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).output().expect("installed");
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn set(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).expect(name);
}

fn new_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("run as root");
    run("ip", "link set lo up");
}

#[test]
fn a_client_that_ignores_arp_is_served_to_the_end() {
    let (send_thread, pi_thread) = mpsc::channel();
    let (send_port, server_port) = mpsc::channel();
    let pi = std::thread::spawn(move || {
        new_namespace();
        send_thread.send(nix::unistd::gettid()).unwrap();
        let port: u16 = server_port.recv().unwrap();
        run("ip", "address add 192.0.2.2/24 dev pi");
        run("ip", "link set pi up");
        let mut client = Client::new(format!("192.0.2.1:{port}").parse().unwrap());
        client.request(&format!("{SERIAL}/kernel8.img"), &[]);
        let mut received = 0;
        while let Answer::Data(number, data) = client.answer_within(Duration::from_secs(10)).expect("served on") {
            assert_eq!(number, received + 1);
            received = number;
            // From now on no address of ours is told to anybody (arp_ignore = 8).
            set("conf/pi/arp_ignore", "8");
            // The pace of a slow Pi: the neighbour entry must have the time to expire.
            std::thread::sleep(Duration::from_millis(2));
            client.ack(number);
            if data.len() < 512 {
                return received;
            }
        }
        panic!("the server gave up at block {received}");
    });

    new_namespace();
    run("ip", "link add server type veth peer name pi");
    run("ip", &format!("link set pi netns {}", pi_thread.recv().unwrap()));
    run("ip", "address add 192.0.2.1/24 dev server");
    run("ip", "link set server up");
    // Seconds of the kernel's defaults shortened, so that what takes half a minute on a router shows here.
    for (name, value) in [
        ("base_reachable_time_ms", "100"),
        ("delay_first_probe_time", "1"),
        ("retrans_time_ms", "50"),
        ("ucast_solicit", "1"),
        ("mcast_solicit", "1"),
    ] {
        set(&format!("neigh/server/{name}"), value);
    }
    let server = TestServer::start();
    server.file("kernel8.img", 512 * 1500);
    send_port.send(server.port()).unwrap();
    assert_eq!(pi.join().unwrap(), 1501);
}
