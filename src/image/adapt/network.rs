//! Rules that keep everybody's hands off the interface the root hangs on: `network-manager`, `networkd`, `ifupdown`,
//! `resolv-conf`. Who takes it down or asks for another address stops the system (systemd issues 300, 21967).

use super::AdaptError;
use super::editor::{Editor, Side};
use super::tree::{Owner, Tree};

/// Names a Pi's Ethernet interface gets: `eth0` on Raspberry Pi OS, systemd's names elsewhere.
const NAMES: [&str; 3] = ["eth0", "end0", "en*"];

pub(super) fn network_manager(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    if !editor.exists("usr/sbin/NetworkManager")? && !editor.exists("etc/NetworkManager")? {
        return Ok(());
    }
    let devices = match editor.target.mac {
        Some(mac) => format!("mac:{mac};interface-name:eth0"),
        None => NAMES.map(|name| format!("interface-name:{name}")).join(";"),
    };
    let text = format!("[main]\nno-auto-default=*\ndns=none\n\n[keyfile]\nunmanaged-devices={devices}\n");
    let what = "NetworkManager leaves the interface of the root alone";
    editor.write(Side::Root, "etc/NetworkManager/conf.d/10-netboot.conf", &text, what)?;
    editor.mask("NetworkManager-wait-online.service", "the network is up before the system starts")
}

pub(super) fn networkd(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    if !editor.exists("usr/lib/systemd/systemd-networkd")? && !editor.exists("lib/systemd/systemd-networkd")? {
        return Ok(());
    }
    // Before every file an image may bring: the first that matches wins (systemd.network(5)).
    let mut files = vec![("00-netboot.network", format!("Name={}", NAMES.join(" ")))];
    if let Some(mac) = editor.target.mac {
        files = vec![
            ("00-netboot.network", "Name=eth0".to_owned()),
            ("00-netboot-mac.network", format!("MACAddress={mac}")),
        ];
    }
    for (name, matching) in files {
        let text = format!("[Match]\n{matching}\n\n[Link]\nUnmanaged=yes\n\n[Network]\nKeepConfiguration=yes\n");
        let what = "systemd-networkd leaves the interface of the root alone";
        editor.write(Side::Root, &format!("etc/systemd/network/{name}"), &text, what)?;
    }
    editor.mask("systemd-networkd-wait-online.service", "the network is up before the system starts")
}

pub(super) fn ifupdown(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    let mut files = vec!["etc/network/interfaces".to_owned()];
    let more = editor.look("etc/network/interfaces.d", Tree::list)?;
    files.extend(more.into_iter().map(|name| format!("etc/network/interfaces.d/{name}")));
    for path in files {
        if let Some(old) = editor.text(Side::Root, &path)? {
            editor.write(
                Side::Root,
                &path,
                &edit_interfaces(&old),
                "ifupdown leaves the interface of the root alone",
            )?;
        }
    }
    Ok(())
}

/// `manual`: the interface stays known, but nothing is done to it (interfaces(5)).
fn edit_interfaces(old: &str) -> String {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["iface", name, family @ ("inet" | "inet6"), "dhcp" | "static" | "auto", ..] if is_ethernet(name) => {
                format!("iface {name} {family} manual\n")
            }
            _ => format!("{line}\n"),
        }
    };
    old.lines().map(line).collect()
}

fn is_ethernet(name: &str) -> bool {
    name.starts_with("eth") || name.starts_with("en")
}

/// Name servers come with the lease that the kernel or the initramfs got; they are kept where nobody else looks.
pub(super) fn resolv_conf(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    if !editor.exists("usr/lib/systemd/systemd")? && !editor.exists("lib/systemd/systemd")? {
        return Ok(());
    }
    const SCRIPT: &str = "usr/local/sbin/netboot-resolv";
    const UNIT: &str = "netboot-resolv.service";
    let what = "name servers from the lease of the boot";
    // The kernel leaves its lease in /proc/net/pnp, klibc's ipconfig in /run/net-*.conf.
    let script = format!(
        "#!/bin/sh\n\
         # Writes the name servers of the lease this system booted with.\n\
         mkdir -p /run/netboot\n\
         {{\n\
         \tgrep -hE '^(nameserver|search|domain) ' /proc/net/pnp 2>/dev/null | grep -v ' 0\\.0\\.0\\.0$'\n\
         \tfor lease in /run/net-*.conf; do\n\
         \t\t[ -r \"$lease\" ] || continue\n\
         \t\tIPV4DNS0= IPV4DNS1= DNSDOMAIN=\n\
         \t\t. \"$lease\"\n\
         \t\tfor server in $IPV4DNS0 $IPV4DNS1; do\n\
         \t\t\t[ \"$server\" = 0.0.0.0 ] || echo \"nameserver $server\"\n\
         \t\tdone\n\
         \t\t[ -z \"$DNSDOMAIN\" ] || echo \"search $DNSDOMAIN\"\n\
         \tdone\n\
         }} | awk '!seen[$0]++' > /run/netboot/resolv.conf.new\n\
         grep -q '^nameserver' /run/netboot/resolv.conf.new || echo 'nameserver {}' >> /run/netboot/resolv.conf.new\n\
         mv /run/netboot/resolv.conf.new /run/netboot/resolv.conf\n",
        editor.server
    );
    let unit = format!(
        "[Unit]\nDescription=Name servers from the lease of the boot\nDefaultDependencies=no\n\
         After=local-fs.target\nBefore=network.target\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart=/{SCRIPT}\n\n[Install]\nWantedBy=sysinit.target\n"
    );
    editor.write_as(Side::Root, SCRIPT, &script, Owner { uid: 0, gid: 0, mode: 0o755 }, what)?;
    editor.write(Side::Root, &format!("etc/systemd/system/{UNIT}"), &unit, what)?;
    editor.enable(UNIT, "sysinit.target")?;
    editor.link("etc/resolv.conf", "/run/netboot/resolv.conf", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_become_manual() {
        let old = "auto lo eth0\niface lo inet loopback\nallow-hotplug eth0\niface eth0 inet dhcp\niface end0 inet6 auto\niface wlan0 inet dhcp\n";
        let new = "auto lo eth0\niface lo inet loopback\nallow-hotplug eth0\niface eth0 inet manual\niface end0 inet6 manual\niface wlan0 inet dhcp\n";
        assert_eq!(edit_interfaces(old), new);
        assert_eq!(edit_interfaces(new), new);
    }
}
