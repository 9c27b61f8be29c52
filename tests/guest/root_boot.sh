#!/bin/sh
# Runs in the guest as a service of systemd, which has booted from the root that came over NFS.
cat /proc/1/comm
stat -f -c 'root: %T' /
# Also waits until the boot is over.
state=$(systemctl is-system-running --wait)
echo "state: $state, up for $(cut -d ' ' -f 1 /proc/uptime) s"
[ "$state" = running ] || { systemctl --failed --no-legend; journalctl -q -p err -n 20; exit 1; }
systemctl is-active multi-user.target dbus.service systemd-logind.service && busctl list >/dev/null
