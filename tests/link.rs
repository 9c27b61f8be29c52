//! The cable: a boot begins when its port gets link, and what the network does to ports is said.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use emupi::dhcp::discover::Speaker;
use emupi::nic::{Nic, Style};
use emupi::{Link, Model, Pi};
use serde_json::Value;
use support::Router;

fn ask(link: &Link, pi: &Pi) {
    let mut nic = Nic::new(link.attach(pi.mac).unwrap(), Style { ttl: 64, checksum: true, answers_arp: false });
    let speaker = Speaker::first(pi.model);
    nic.broadcast(68, 67, &speaker.discover(pi, speaker.xid(pi.mac, 1)).encode()).unwrap();
}

/// The last boot of a Pi, once it has a stage `discover`.
fn boot(router: &Router, pi: &Pi) -> Value {
    let mac = pi.mac.to_string();
    let boots = router.wait_for(&["boots"], "a boot", |boots| {
        boots["boots"].as_array().unwrap().iter().any(|boot| boot["mac"] == mac)
    });
    let boot = boots["boots"].as_array().unwrap().iter().find(|boot| boot["mac"] == mac).unwrap().clone();
    router.json(&["boot", &boot["id"].to_string()])
}

#[test]
fn a_boot_begins_when_its_port_gets_link() {
    let mut router = Router::new();
    let (early, late) = (router.net.veth_link().unwrap(), router.net.veth_link().unwrap());
    router.start_agent();
    router.start_dnsmasq();

    // Up since before the agent: nobody knows since when.
    let known = Pi::new(Model::Pi4B, 0x5b15_4510);
    ask(&early, &known);
    let told = boot(&router, &known);
    assert_eq!(told["stages"][0]["stage"], "discover", "{told:#}");

    // The router's end goes down, and the other one with it, as when a cable is pulled; then a Pi is switched on.
    let set = |state: &str| router.net.exec("ip", &["link", "set", "veth1", state]).unwrap();
    set("down");
    set("up");
    router.wait_until("link", || router.said("veth1 has link") == 1);
    let fresh = Pi::new(Model::Pi5, 0x5b15_4511);
    ask(&late, &fresh);
    let told = boot(&router, &fresh);
    assert_eq!((&told["stages"][0]["stage"], &told["stages"][0]["at_ms"]), (&"link".into(), &0.into()), "{told:#}");
    assert_eq!(told["stages"][0]["detail"], "veth1", "{told:#}");
    assert_eq!(told["stages"][1]["stage"], "discover");

    // The next one behind the same port has nothing to do with it, nor have those behind others.
    let next = Pi::new(Model::Pi5, 0x5b15_4513);
    ask(&late, &next);
    assert_eq!(boot(&router, &next)["stages"][0]["stage"], "discover");
    let other = Pi::new(Model::Pi4B, 0x5b15_4512);
    ask(&early, &other);
    assert_eq!(boot(&router, &other)["stages"][0]["stage"], "discover");
}

#[test]
fn a_spanning_tree_on_the_bridge_is_a_warning_with_its_cure() {
    let router = Router::running();
    assert_eq!(router.json(&["check"])["findings"], serde_json::json!([]));
    router
        .net
        .exec("ip", &["link", "set", "br-lan", "type", "bridge", "forward_delay", "1500", "stp_state", "1"])
        .unwrap();
    router.assert_finding(&["warning: network", "STP delays every port of br-lan", "30 s", "stp_state 0"]);
    router.net.exec("ip", &["link", "set", "br-lan", "type", "bridge", "stp_state", "0"]).unwrap();
    assert_eq!(router.json(&["check"])["findings"], serde_json::json!([]));
}
