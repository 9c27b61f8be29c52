use super::*;
use crate::config::uci;

fn read(text: &str) -> (Config, Vec<String>) {
    let (config, problems) = Config::from_sections(&uci::parse(text).unwrap());
    (config, problems.iter().map(ToString::to_string).collect())
}

#[test]
fn an_empty_file_is_all_defaults() {
    let (config, problems) = read("");
    assert_eq!((config, problems), (Config::default(), vec![]));
}

#[test]
fn the_whole_surface_is_read() {
    let (config, problems) = read(
        "config piboot 'main'\n\toption enabled '1'\n\tlist interface 'br-lan'\n\toption data_dir '/srv/pi'\n\toption dhcp 'dnsmasq'\n\toption unknown 'enroll'\n\toption default_image 'lite'\n\toption dnsmasq_confdir '/etc/dnsmasq.d'\n\toption sync '1'\nconfig device 'running_lion'\n\toption serial '38c128c0'\n\toption mac 'dc:a6:32:79:26:df'\n\toption hostname 'running-lion'\n\toption image 'raspios-lite'\n\toption root 'copy'\n\tlist ssh_key 'ssh-ed25519 AAAAC3Nz me'\n",
    );
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(config.main.interfaces, ["br-lan"]);
    assert_eq!((config.main.dhcp, config.main.unknown), (DhcpMode::Dnsmasq, UnknownPolicy::Enroll));
    let device = config.device("running_lion").unwrap();
    assert_eq!(device.serial, Some(Serial(0x38c1_28c0)));
    assert_eq!(device.ssh_keys.len(), 1);
}

#[test]
fn a_quirk_that_there_is_none_of_is_named_with_those_that_there_are() {
    let (config, problems) = read(
        "config piboot 'main'\n\tlist quirk_off 'wake_up'\n\tlist quirk_off 'wakeup'\n\tlist quirk_off 'reply_delay'\n\tlist quirk_off 'wake_up'\n",
    );
    assert_eq!(config.main.quirks_off, [Quirk::ReplyDelay, Quirk::WakeUp]);
    let expected =
        "piboot.main.quirk_off: 'wakeup' is no quirk; there are menu_spaces, reply_delay, wake_up, fixed_address";
    assert_eq!(problems, [expected]);
}

#[test]
fn a_wrong_value_is_named_and_the_rest_works() {
    let (config, problems) = read(
        "config piboot 'main'\n\toption dhcp 'dhcpd'\n\toption colour 'red'\n\toption data_dir 'srv'\nconfig device 'a'\n\toption mac 'dc:a6:32:79:26'\n\toption image 'x'\nconfig device 'b'\n\toption serial '1'\n\toption mac 'dc:a6:32:79:26:df'\n\toption image 'x'\nconfig device 'c'\n\toption mac 'dc:a6:32:79:26:df'\n\toption image 'x'\nconfig device 'd'\n\toption image 'x'\n",
    );
    assert_eq!(config.main.dhcp, DhcpMode::Auto);
    assert_eq!(config.devices.iter().map(|d| d.id.as_str()).collect::<Vec<_>>(), ["b"]);
    let expected = [
        "piboot.main.colour: is not an option of piboot",
        "piboot.main.data_dir: 'srv' is not an absolute path",
        "piboot.main.dhcp: 'dhcpd' is none of auto, dnsmasq, proxy, off",
        "piboot.a.mac: 'dc:a6:32:79:26' is not a MAC address",
        "piboot.b.serial: '1' is not a serial",
        "piboot.c.mac: 'dc:a6:32:79:26:df' is enrolled already, as b",
        "piboot.d.mac: neither mac nor serial is given",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(expected) {
        assert!(problem.starts_with(start), "{problem}");
    }
}

#[test]
fn a_fixed_address_is_one_devices_own() {
    let device = |id: &str, ip: &str| {
        let serial = format!("0000000{id}");
        format!("config device 'd{id}'\n\toption serial '{serial}'\n\toption image 'x'\n\toption ip '{ip}'\n")
    };
    let text: String = [("1", "192.168.1.50"), ("2", "192.168.1.50"), ("3", "224.0.0.1"), ("4", "lion")]
        .map(|(id, ip)| device(id, ip))
        .concat();
    let (config, problems) = read(&text);
    assert_eq!(config.devices.iter().filter_map(|d| d.ip).collect::<Vec<_>>(), [Ipv4Addr::new(192, 168, 1, 50)]);
    let expected = [
        "piboot.d2.ip: '192.168.1.50' is given already, to d1",
        "piboot.d3.ip: '224.0.0.1' is no address",
        "piboot.d4.ip: 'lion' is not an IPv4 address",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(expected) {
        assert!(problem.starts_with(start), "{problem}");
    }
}

#[test]
fn a_password_is_a_hash_and_what_is_none_is_not_repeated() {
    let device =
        |options: &str| format!("config device 'a'\n\toption serial '38c128c0'\n\toption image 'x'\n{options}");
    let (config, problems) = read(&device(
        "\toption user 'lion'\n\toption password '$6$salt$aaaaaaaaaaaaaaaaaaaaaaaa'\n\toption disabled '1'\n",
    ));
    assert_eq!(problems, Vec::<String>::new());
    let device_a = config.device("a").unwrap();
    assert_eq!((device_a.user.as_deref(), device_a.disabled), (Some("lion"), true));
    assert!(device_a.password.is_some() && !format!("{config:?}").contains("aaaa"), "{config:?}");
    let (config, problems) = read(&device("\toption user 'root'\n\toption password 'secret'\n"));
    let device_a = config.device("a").unwrap();
    assert_eq!((&device_a.user, &device_a.password), (&None, &None));
    assert!(problems[0].starts_with("piboot.a.user: 'root' is not a user name"), "{problems:?}");
    assert!(problems[1].starts_with("piboot.a.password: this is no hash"), "{problems:?}");
    assert!(!problems.concat().contains("secret"), "{problems:?}");
}

#[test]
fn while_a_configuration_is_in_force_a_wrong_value_changes_nothing() {
    let good = "config piboot 'main'\n\toption data_dir '/srv'\n\toption dhcp 'off'\nconfig device 'a'\n\toption mac 'dc:a6:32:79:26:df'\n\toption image 'x'\n";
    let (before, _) = read(good);
    let bad = good.replace("'/srv'", "'srv'").replace("'off'", "'of'").replace(":26:df", ":26");
    let (after, problems) = Config::from_sections_over(&uci::parse(&bad).unwrap(), &before);
    assert_eq!(after, before);
    assert_eq!(problems.len(), 3, "{problems:#?}");
    // What is gone from the file is gone, and an absent option is its default.
    let (empty, _) = Config::from_sections_over(&uci::parse("config piboot 'main'\n").unwrap(), &before);
    assert_eq!(empty, Config::default());
    // A device cannot stay what another has become.
    let taken = "config device 'b'\n\toption mac 'dc:a6:32:79:26:df'\n\toption image 'x'\n".to_owned() + &bad;
    let (after, _) = Config::from_sections_over(&uci::parse(&taken).unwrap(), &before);
    assert_eq!(after.devices.iter().map(|d| d.id.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_key_with_a_line_break_is_left_out() {
    let (config, problems) = read(
        "config device 'a'\n\toption mac 'dc:a6:32:79:26:df'\n\toption image 'x'\n\tlist ssh_key 'ssh-ed25519 AAAA a\nssh-rsa AAAA b'\n",
    );
    assert!(config.devices[0].ssh_keys.is_empty());
    assert!(problems[0].starts_with("piboot.a.ssh_key: "), "{problems:?}");
}

#[test]
fn enrolling_unknown_pis_needs_an_image() {
    let (config, problems) = read("config piboot 'main'\n\toption unknown 'enroll'\n");
    assert_eq!(config.main.unknown, UnknownPolicy::Ask);
    assert!(problems[0].starts_with("piboot.main.unknown: 'enroll' needs an image"));
}
