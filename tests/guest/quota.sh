#!/bin/bash
# A quota as the Linux kernel's own NFS client, in the x86-64 guest, shows it to programs: df, "Disk quota exceeded", and that
# what was removed is there to be used again.
set -euo pipefail
. "$(dirname "$0")/cell.sh"

prepare() {
    cat >"$work/script" <<'EOF'
set -e
cd /mnt
size=$(df -k /mnt | awk 'END { print $(NF - 4) }')
[ "$size" = 65536 ] || { echo "df shows $size KB of 65536"; df -k /mnt; exit 1; }
dd if=/dev/zero of=half bs=1M count=32 conv=fsync 2>/dev/null
left=$(df -k /mnt | awk 'END { print $(NF - 2) }')
[ "$left" -gt 32000 ] && [ "$left" -le 32768 ] || { echo "df shows $left KB left"; exit 1; }
if dd if=/dev/zero of=rest bs=1M count=64 conv=fsync 2>/tmp/said; then echo "64 MB fit into $left KB"; exit 1; fi
grep -qi 'quota exceeded' /tmp/said || { cat /tmp/said; exit 1; }
# What is there is written over, renamed and removed.
dd if=/dev/zero of=half bs=1M count=32 conv=fsync,notrunc 2>/dev/null
# So is what is there of a write that ends beyond it.
n=0
while dd if=/dev/zero of=fill$n bs=64k count=1 conv=fsync 2>/dev/null; do n=$((n + 1)); done
dd if=/dev/zero bs=256k count=2 2>/dev/null | tr '\0' x >/tmp/x
if dd if=/tmp/x of=half bs=256k seek=127 conv=fsync,notrunc 2>/tmp/said; then echo "half has grown"; exit 1; fi
grep -qi 'quota exceeded' /tmp/said || { cat /tmp/said; exit 1; }
echo 3 >/proc/sys/vm/drop_caches
new=$(dd if=half bs=256k skip=127 count=1 2>/dev/null | tr -d -c x | wc -c)
[ "$new" = 262144 ] || { echo "$new bytes of half were written over"; exit 1; }
mv half other
rm -f rest other fill*
sync
# What was refused is no longer in the way.
dd if=/dev/urandom of=new bs=1M count=60 conv=fsync 2>/dev/null
sum=$(md5sum <new)
echo 3 >/proc/sys/vm/drop_caches
[ "$(md5sum <new)" = "$sum" ] || { echo "new is damaged"; exit 1; }
used=$(df -k /mnt | awk 'END { print $(NF - 3) }')
du=$(du -sk /mnt | awk '{ print $1 }')
[ $((used - du)) -le 8 ] && [ $((du - used)) -le 8 ] || { echo "df says $used KB are used, du $du"; exit 1; }
echo "quota: df shows 64 MB, programs are told when they are full, df and du agree on $du KB"
EOF
}

inside() {
    start_server --portmap 111 --quota $((64 << 20))
    "$GUEST/run.sh" --mount 10.0.2.2:/export "$work/script"
}

cell "$@"
