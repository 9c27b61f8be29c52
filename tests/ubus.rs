//! The agent on ubus: its object, its events, what it hears, and that nobody waits for a broker.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::time::Duration;

use emupi::{Model, Pi};
use serde_json::{Value, json};
use support::bus::{Broker, Client, error};
use support::{Router, image, tftp};
use ubus_zero::blobmsg::BlobBuilder;

/// A router whose agent has found the broker, with the image `small`.
fn on_the_bus() -> (Router, Broker, Client) {
    let router = Router::running();
    let broker = Broker::start(&router.ubus());
    let mut client = broker.client();
    client.wait_for("piboot");
    router.import(&image::small(router.net.scratch()), "small");
    (router, broker, client)
}

/// What the local socket answers.
fn over_the_socket(router: &Router, method: &str, params: &Value) -> Value {
    let line = json!({ "method": method, "params": params }).to_string() + "\n";
    let mut said: Value = serde_json::from_str(&router.talk(line.as_bytes())).unwrap();
    if said.get("result").is_some() { said["result"].take() } else { said }
}

/// Takes out what changes by itself.
fn settled(mut said: Value) -> Value {
    for path in ["/uptime_s", "/storage/free_bytes", "/nfs/requests", "/age_ms"] {
        if let Some(value) = said.pointer_mut(path) {
            *value = Value::Null;
        }
    }
    // Sizes are measured in the background.
    for (list, size) in [("devices", "disk_bytes"), ("images", "used_bytes")] {
        for entry in said.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            entry.as_object_mut().unwrap().remove(size);
        }
    }
    if let Some(device) = said.as_object_mut() {
        device.remove("disk_bytes");
    }
    said
}

#[test]
fn the_object_shows_its_methods_with_their_parameters() {
    let (_router, _broker, mut client) = on_the_bus();
    let (string, integer, boolean, array) = (3, 5, 7, 1);
    let expected = json!({
        "status": {},
        "check": {},
        "devices": {},
        "device": { "id": string },
        "enroll": { "mac": string, "serial": string, "hostname": string, "image": string, "ip": string, "ssh_keys": array, "root": string, "user": string, "password": string, "password_hash": string, "quota": string },
        "device_edit": {
            "id": string, "hostname": string, "ip": string, "ssh_keys": array, "user": string, "password": string,
            "password_hash": string, "disabled": boolean, "image": string, "rollback_after": integer, "quota": string,
            "force": boolean,
        },
        "device_switch": { "id": string, "image": string, "keep": boolean, "force": boolean, "root": string },
        "device_reset": { "id": string, "keep": boolean, "force": boolean, "root": string },
        "device_clone": {
            "from": string, "snapshot": string, "mac": string, "serial": string, "hostname": string, "ip": string,
            "ssh_keys": array, "root": string,
        },
        "snapshot": { "id": string, "name": string },
        "snapshots": { "id": string },
        "snapshot_remove": { "id": string, "snapshot": string },
        "rollback": { "id": string, "snapshot": string, "discard": boolean },
        "unenroll": { "id": string, "delete": boolean },
        "images": {},
        "backup": { "id": string, "path": string, "live": boolean },
        "export": { "path": string, "live": boolean },
        "import_all": { "path": string },
        "restore": { "path": string, "id": string, "replace": boolean },
        "disks": {},
        "os_list": { "url": string, "board": string },
        "image_import": { "source": string, "name": string, "sha256": string, "size": integer },
        "image_remove": { "name": string },
        "volume_accept": {},
        "jobs": {},
        "job_cancel": { "job": integer },
        "boots": { "device": string, "limit": integer },
        "boot": { "boot": integer },
        "led": { "flashes": string },
        "boot_packets": { "boot": integer },
    });
    assert_eq!(client.wait_for("piboot").1, expected);
}

#[test]
fn every_verb_answers_as_on_the_local_socket() {
    let (router, _broker, mut client) = on_the_bus();
    let link = router.net.tap_link().unwrap();
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);

    // Verbs that change something, each by its effect.
    let session = "0123456789abcdef0123456789abcdef";
    let small = image::small(router.net.scratch());
    let (status, said) =
        client.call("image_import", &json!({ "source": small, "name": "other", "ubus_rpc_session": session }));
    assert_eq!(status, 0, "{said}");
    router.wait_until_settled();
    let job = said["job"].as_u64().unwrap();
    assert_eq!(router.job(job)["state"], "done");
    let enrol = json!({ "mac": pi.mac.to_string(), "hostname": "lion", "image": "other", "ssh_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5QmDtsYk2mJYtwFsNDVvxRCQQ5ZQDbCk7l8NvVgBHr x"], "ubus_rpc_session": session });
    let (status, said) = client.call("enroll", &enrol);
    assert_eq!((status, &said["id"]), (0, &json!("lion")), "{said}");
    router.wait_until_settled();
    router.assert_boots(&pi, &link);
    router.wait_for(&["boots"], "a boot", |said| said["boots"][0]["id"].as_i64().is_some_and(|id| id > 0));

    // Verbs that tell, and each way to be refused.
    let boot = router.json(&["boots"])["boots"][0]["id"].clone();
    let asked = [
        ("status", json!({})),
        ("check", json!({})),
        ("devices", json!({})),
        ("device", json!({ "id": "lion" })),
        ("device", json!({ "id": "bear" })),
        ("device", json!({})),
        ("device", json!({ "id": 7 })),
        ("enroll", json!({ "mac": "dc:a6:32" })),
        ("enroll", enrol),
        ("unenroll", json!({ "id": "bear", "delete": true })),
        ("images", json!({})),
        ("image_import", json!({ "source": "relative", "name": "x" })),
        ("image_import", json!({ "source": "http://", "name": "x" })),
        ("os_list", json!({ "url": "relative" })),
        ("disks", json!({})),
        ("image_remove", json!({ "name": "missing" })),
        ("jobs", json!({})),
        ("job_cancel", json!({ "job": job })),
        ("job_cancel", json!({ "job": -1 })),
        ("boots", json!({})),
        ("boots", json!({ "device": "lion", "limit": 1 })),
        ("boots", json!({ "device": "lion", "limit": null })),
        ("boot", json!({ "boot": boot })),
        ("boot", json!({ "boot": i64::MAX })),
        ("led", json!({})),
        ("led", json!({ "flashes": "4-3" })),
        ("led", json!({ "flashes": "9-9" })),
        ("led", json!({ "flashes": "x" })),
        ("boot_packets", json!({ "boot": boot })),
        ("boot_packets", json!({ "boot": i64::MAX })),
        ("reboot", json!({})),
    ];
    for (method, mut params) in asked {
        let expected = settled(over_the_socket(&router, method, &params));
        params["ubus_rpc_session"] = session.into();
        let (status, said) = client.call(method, &params);
        assert_eq!(settled(said), expected, "{method} {params}");
        let statuses = json!({ "invalid_argument": 2, "unknown_method": 3, "not_found": 4, "failed": 9 });
        let code = expected["error"]["code"].as_str();
        assert_eq!(json!(status), code.map_or(json!(0), |code| statuses[code].clone()), "{method} {params}");
    }

    let (status, said) = client.call("unenroll", &json!({ "id": "lion", "delete": true }));
    assert_eq!((status, &said["id"]), (0, &json!("lion")), "{said}");
    let (status, said) = client.call("image_remove", &json!({ "name": "other" }));
    assert_eq!(status, 0, "{said}");
    router.wait_until_settled();
    assert_eq!((router.names("images"), router.names("devices")), (vec!["small".to_owned()], Vec::new()));
}

#[test]
fn nonsense_is_refused_in_words_and_harms_nobody() {
    let (router, _broker, mut client) = on_the_bus();
    let (status, said) = client.call_raw("boots", b"\xde\xad\xbe\xef");
    assert_eq!((status, &said["error"]["code"]), (2, &json!("invalid_argument")), "{said}");
    assert!(said["error"]["message"].as_str().unwrap().contains("malformed"), "{said}");

    let mut deep = BlobBuilder::new();
    (0..5000).for_each(|_| deep.open_table(Some("a")));
    (0..5000).for_each(|_| deep.close_table());
    let (status, said) = client.call_raw("boots", &deep.finish());
    assert!(status == 2 && said["error"]["message"].as_str().unwrap().contains("nested deeper"), "{said}");

    let (status, said) = client.call("boots", &json!({ "device": "x".repeat(900 * 1024) }));
    assert!(status == 2 && said["error"]["message"].as_str().unwrap().contains("longer than"), "{said}");

    let (status, said) = client.call("boots", &json!({ "device": ["lion"], "limit": { "a": 1 } }));
    assert_eq!((status, &said["error"]["code"]), (2, &json!("invalid_argument")), "{said}");
    let (status, _) = client.call(&"x".repeat(4000), &json!({}));
    assert_eq!(status, 3);
    assert!(router.peak_rss_kb() < 64 * 1024, "{} kB", router.peak_rss_kb());
    assert_eq!(client.call("jobs", &json!({})).0, 0);
}

#[test]
fn an_answer_too_large_for_one_message_is_refused_not_cut() {
    let (router, _broker, mut client) = on_the_bus();
    // Names of files in the boot partition fill the answer up.
    let path = router.data_dir().join("images/small/image.json");
    let mut info: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let fill = |info: &mut Value, bytes: usize| info["boot_files"]["kernels"] = json!(["x".repeat(bytes)]);
    fill(&mut info, 1 << 19);
    fs::write(&path, info.to_string()).unwrap();
    let (status, said) = client.call("images", &json!({}));
    assert_eq!((status, settled(said)), (0, settled(over_the_socket(&router, "images", &json!({})))));

    let second = router.data_dir().join("images/second");
    fs::create_dir(&second).unwrap();
    info["name"] = "second".into();
    fs::write(second.join("image.json"), info.to_string()).unwrap();
    let (status, said) = client.call("images", &json!({}));
    let expected = "the answer of 'images' does not fit into one ubus message (1 MiB): 'piboot --json' gets it over the local socket";
    assert_eq!((status, said), (9, error("failed", expected)));
    let whole = router.json(&["images"]);
    assert_eq!(whole["images"].as_array().unwrap().len(), 2, "the way out leads out");
    assert_eq!(client.call("jobs", &json!({})).0, 0, "the broker did not drop the agent");
}

#[test]
fn many_calls_at_once_are_each_answered() {
    let (router, broker, mut client) = on_the_bus();
    let (id, _) = client.wait_for("piboot");
    let args = ubus_zero::BlobMsgTable::empty();
    let calls: Vec<u16> = (0..200).map(|_| client.0.send_invoke(id, "jobs", &args).unwrap()).collect();
    for seq in calls {
        client.0.recv_invoke_reply(seq).unwrap();
    }
    // And one that never reads what it asked for.
    let mut rude = broker.client();
    let calls = (0..100).map(|_| rude.0.send_invoke(id, "images", &args)).filter(Result::is_ok).count();
    assert!(calls > 0);
    assert_eq!(client.call("jobs", &json!({})).0, 0);
    assert_eq!(router.json(&["status"])["jobs"], 0);
}

#[test]
fn the_agent_comes_back_after_a_broker_and_needs_none() {
    let router = Router::running();
    assert!(router.said("not on ubus: there is no broker at") == 1, "{}", router.logs());
    router.import(&image::small(router.net.scratch()), "small");
    for round in 0..3 {
        let broker = Broker::start(&router.ubus());
        let mut client = broker.client();
        client.wait_for("piboot");
        assert_eq!(client.call("images", &json!({})).1["images"][0]["name"], "small", "round {round}");
        // Subscriptions come back, too.
        let dnsmasq = client.publish("dnsmasq");
        client.wait_for_subscriber(dnsmasq);
        drop(broker);
        assert_eq!(router.json(&["status"])["jobs"], 0);
    }
    router.wait_until("a line for each end", || router.said("not on ubus: the broker closed the connection") == 3);
}

#[test]
fn a_broker_that_hangs_delays_neither_the_socket_nor_tftp() {
    let (router, broker, mut client) = on_the_bus();
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    client.listen("piboot.*");
    broker.hang(true);
    router.enroll_with_serial(&pi, "5b154510", "lion");
    let host = router.net.add_host(pi.mac, "10.77.0.20".parse().unwrap()).unwrap();
    assert!(!tftp::fetch(&host, "5b154510/config.txt", |_| ()).unwrap().is_empty());
    assert_eq!(router.json(&["device", "lion"])["hostname"], "lion");
    // Calls that came before are answered after.
    broker.hang(false);
    assert_eq!(client.call("device", &json!({ "id": "lion" })).1["hostname"], "lion");
}

#[test]
fn one_that_accepts_and_says_nothing_delays_nobody_either() {
    let mut router = Router::new();
    let silent = std::os::unix::net::UnixListener::bind(router.ubus()).unwrap();
    router.start_agent();
    let (connection, _) = silent.accept().unwrap();
    assert_eq!(router.json(&["status"])["jobs"], 0);
    router.stop_agent();
    drop(connection);
}

#[test]
fn changes_are_told_as_events_and_to_subscribers() {
    let (router, broker, mut client) = on_the_bus();
    let mut subscriber = broker.client();
    client.listen("piboot.*");
    subscriber.subscribe("piboot");
    let link = router.net.tap_link().unwrap();
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    router.enroll(&pi, "lion");
    for listener in [&mut client, &mut subscriber] {
        // In the order in which they are looked at: the device, then the job that made it so.
        let told = listener.hear("the job's end", |id, job| {
            id == "piboot.job" && job["kind"] == "provision" && job["state"] == "done"
        });
        let mut devices = told.iter().filter(|(id, _)| id == "piboot.device").map(|(_, device)| device);
        assert!(devices.all(|device| device["id"] == "lion" && device["mac"] == pi.mac.to_string()), "{told:#?}");
    }
    router.assert_boots(&pi, &link);
    for listener in [&mut client, &mut subscriber] {
        let told = listener.hear("the kernel", |id, boot| {
            id == "piboot.boot" && boot["stage"] == router.json(&["boots"])["boots"][0]["stage"]
        });
        assert!(told.iter().any(|(id, device)| id == "piboot.device" && device["state"] == "booting"), "{told:#?}");
        let (_, boot) = told.last().unwrap();
        assert_eq!((&boot["device"], &boot["mac"]), (&json!("lion"), &json!(pi.mac.to_string())));
    }
    router.piboot(&["unenroll", "lion"]).unwrap();
    client
        .hear("the end", |id, device| id == "piboot.device" && *device == json!({ "id": "lion", "state": "removed" }));
}

#[test]
fn what_dnsmasq_procd_and_netifd_tell_is_heard() {
    let mut router = Router::new();
    let broker = Broker::start(&router.ubus());
    // One is there before the agent, the others come later.
    let mut early = broker.client();
    let dnsmasq = early.publish("dnsmasq");
    router.start_agent();
    early.wait_for_subscriber(dnsmasq);
    let lease = |mac, interface| json!({ "mac": mac, "ip": "10.77.0.30", "name": "lion", "interface": interface });
    early.notify(dnsmasq, "dhcp.ack", &lease("dc:a6:32:00:00:02", "eth9"));
    early.notify(dnsmasq, "dhcp.ack", &lease("nonsense", "br-lan"));
    early.notify(dnsmasq, "dhcp.ack", &json!({}));
    early.notify(dnsmasq, "dhcp.ack", &lease("dc:a6:32:00:00:01", "br-lan"));
    router.wait_until("the lease", || router.said("dc:a6:32:00:00:01 was given 10.77.0.30 on br-lan") == 1);
    assert_eq!(router.said("was given"), 1, "not on an interface where Pis are not served");

    let mut late = broker.client();
    let second = late.publish("dnsmasq.cfg01411c");
    late.wait_for_subscriber(second);
    late.notify(second, "dhcp.ack", &lease("dc:a6:32:00:00:03", "br-lan"));
    router.wait_until("the lease", || router.said("dc:a6:32:00:00:03 was given") == 1);

    let service = late.publish("service");
    late.wait_for_subscriber(service);
    late.notify(service, "config.change", &json!({ "config": "network" }));
    late.notify(service, "instance.start", &json!({ "service": "piboot", "instance": "main" }));
    router
        .edit_config(|text| text + "config device 'bear'\n\toption mac 'dc:a6:32:00:00:09'\n\toption image 'small'\n");
    late.notify(service, "config.change", &json!({ "config": "piboot" }));
    router.wait_for(&["devices"], "the device", |said| said["devices"][0]["id"] == "bear");
    assert_eq!(router.said("read again"), 1, "not for the network's configuration");

    late.send_event("network.interface", &json!({ "action": "ifup", "interface": "lan" }));
    router.wait_until("the interface", || router.said("interface lan went up") == 1);
    // Whoever knows a number can call an object; a lease counts only if its publisher may speak of leases, and an event
    // that nobody listens for is not even delivered.
    late.send_event("dhcp.ack", &lease("dc:a6:32:00:00:04", "br-lan"));
    late.send_event("network.interface", &json!({ "action": "ifdown", "interface": "lan" }));
    router.wait_until("the interface", || router.said("interface lan went down") == 1);
    assert_eq!(router.said("dc:a6:32:00:00:04"), 0);

    // Many at once are one.
    const MANY: usize = 150;
    let looked = router.said("looking at the interfaces");
    assert!(looked > 0);
    (0..MANY).for_each(|_| late.send_event("network.interface", &json!({ "action": "ifup", "interface": "wan" })));
    router.wait_until("the interfaces", || router.said("interface wan went up") == MANY);
    router.wait_until("a look", || router.said("looking at the interfaces") > looked);
    assert!(router.said("looking at the interfaces") < looked + MANY / 2);
}

mod in_this_process {
    //! The agent's end alone, against the broker.

    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use piboot::ubus::{self, Notice, UbusError};
    use tokio::sync::mpsc;
    use ubus_zero::server::UbusConnection;
    use ubus_zero::unix::UnixUbusTransport;
    use ubus_zero::{BlobMsgTable, UbusObject};

    use super::*;

    #[test]
    fn a_call_of_another_object_brings_its_answer_or_says_why_not() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("ubus.sock");
        let (notices, mut told) = mpsc::channel(8);
        let handle = ubus::start(socket.clone(), mpsc::channel(1).0, notices).unwrap();
        let call = |method, args: Value| handle.call("service", method, &args, support::PATIENCE);
        assert_eq!(call("list", json!({})), Err(UbusError::NotConnected));

        let broker = Broker::start(&socket);
        assert_eq!(told.blocking_recv(), Some(Notice::Connected));
        assert_eq!(call("list", json!({})), Err(UbusError::Status(4)), "no such object");
        let is_over = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let provider = std::thread::spawn({
            let (is_over, socket) = (is_over.clone(), socket.to_str().unwrap().to_owned());
            move || {
                let echo = |args: &[u8]| {
                    let got = ubus_zero::json::blobmsg_to_json(args)?;
                    ubus_zero::json::json_to_blobmsg(&json!({ "got": got }))
                };
                let object =
                    UbusObject::new("service").method("event", echo).method("list", |_| Ok(BlobMsgTable::empty()));
                let transport = UnixUbusTransport::connect(&socket).unwrap();
                let mut connection = UbusConnection::connect_and_register(transport, object).unwrap();
                ready.send(()).unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    connection.poll_one().unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        is_ready.recv().unwrap();
        let event = json!({ "type": "config.change", "data": { "package": "dhcp" } });
        assert_eq!(call("event", event.clone()), Ok(json!({ "got": event })));
        assert_eq!(call("list", json!({})), Ok(json!({})));
        assert_eq!(call("nothing", json!({})), Err(UbusError::Status(3)));
        assert!(matches!(call("event", json!([])), Err(UbusError::Value(_))));

        broker.hang(true);
        let brief = Duration::from_millis(50);
        assert_eq!(handle.call("service", "list", &json!({}), brief), Err(UbusError::Timeout));
        broker.hang(false);
        assert_eq!(
            call("event", json!({ "n": 1 })),
            Ok(json!({ "got": { "n": 1 } })),
            "the late answer is not taken for it"
        );
        is_over.store(true, Ordering::Relaxed);
        provider.join().unwrap();
    }
}
