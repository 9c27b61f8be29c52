//! The main job, up to the kernel: a Pi shows up, is enrolled from the command line, and loads what was imported.

mod support;

use emupi::{BootOptions, Model, Outcome, Pi, boot};
use support::{Router, image};

fn options() -> BootOptions {
    support::hurried()
}

fn mac(pi: &Pi) -> String {
    pi.mac.to_string()
}

#[test]
fn every_model_is_seen_enrolled_and_boots_to_its_kernel() {
    let router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    let link = router.net.tap_link().unwrap();
    for (n, model) in [Model::Pi3B, Model::Pi3BPlus, Model::Pi4B, Model::Pi5].into_iter().enumerate() {
        let pi = Pi::new(model, 0x1000_0000_5b15_4510 + n as u64);
        // Not enrolled, it gets an address at most, and shows up.
        let refused = boot(&pi, &link, &options(), None).unwrap();
        assert!(matches!(refused.outcome, Outcome::Failed { .. }), "{}", refused.outcome);
        let seen = router.wait_for(&["devices"], "the Pi in the list of those waiting", |d| {
            d["pending"].as_array().unwrap().iter().any(|p| p["mac"] == mac(&pi))
        });
        let pending = seen["pending"].as_array().unwrap().iter().find(|p| p["mac"] == mac(&pi)).unwrap().clone();
        if model == Model::Pi3B {
            assert!(pending["serial"].is_null(), "a 3B hides it: {pending}");
        } else {
            assert_eq!(pending["serial"], pi.prefix().trim_end_matches('/'), "{pending}");
        }
        let name = format!("pi-{n}");
        let said = router.piboot(&["enroll", "--mac", &mac(&pi), "--hostname", &name, "--image", "small"]).unwrap();
        assert!(said.contains("boots from a copy of small"), "{said}");
        // People know their Pis by host name.
        let detail = router.json(&["device", &name]);
        assert_eq!(detail["id"], format!("pi_{n}"));
        assert!(detail["changes"].as_array().unwrap().iter().any(|c| c["rule"] == "cmdline"), "{detail}");
        router.wait_for_dnsmasq();
        let booted = boot(&pi, &link, &options(), None).unwrap();
        let Some(ready) = booted.ready() else {
            booted.log.iter().for_each(|entry| eprintln!("{entry}"));
            panic!("{model:?}: {}\n{}", booted.outcome, router.logs());
        };
        for file in &ready.files {
            let path = file.path.strip_prefix(&pi.prefix()).unwrap_or(&file.path);
            let device = router.data_dir().join(format!("devices/pi_{n}/boot")).join(path);
            assert!(*file.content.as_ref().unwrap() == std::fs::read(&device).unwrap(), "{path} differs");
        }
        let original = image::boot_files();
        let kernel = original.iter().find(|(name, _)| ready.kernel.path.ends_with(name)).unwrap();
        assert!(*ready.kernel.content.as_ref().unwrap() == kernel.1, "the kernel is the one in the image file");
        let timeline = router.wait_for(&["boot", &format!("pi_{n}")], "a timeline up to the kernel", |boot| {
            boot["stages"].as_array().unwrap().iter().any(|s| s["stage"] == "kernel")
        });
        let stages: Vec<&str> =
            timeline["stages"].as_array().unwrap().iter().map(|s| s["stage"].as_str().unwrap()).collect();
        // The cable is new; its link belongs to the first that asked over it.
        let link: &[&str] = if n == 0 { &["link"] } else { &[] };
        assert!(stages.starts_with(&[link, &["discover", "offer"]].concat()), "{stages:?}");
        assert_eq!(timeline["findings"], serde_json::Value::Null, "nothing is wrong with a good boot: {timeline:#}");
        router.assert_nothing_stands_in_the_way();
        // By now even a 3B has shown its serial, and it is in the configuration.
        let text = std::fs::read_to_string(router.config()).unwrap();
        assert!(text.contains(&format!("option serial '{}'", pi.prefix().trim_end_matches('/'))), "{text}");
    }
}
