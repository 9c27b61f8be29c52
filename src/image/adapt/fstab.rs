//! Rule `fstab`: the kernel has mounted the root already; the boot files come from their own export, so that kernel
//! upgrades on the device reach what the next boot fetches.

use super::AdaptError;
use super::editor::{Editor, Side};

const PATH: &str = "etc/fstab";

pub(super) fn apply(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    let old = editor.text(Side::Root, PATH)?.unwrap_or_default();
    let default = if editor.exists("boot/firmware")? || !editor.exists("boot")? { "/boot/firmware" } else { "/boot" };
    let boot = format!("{}:{}", editor.server, editor.target.boot_export);
    let new = edit(&old, &boot, default, editor.target.ephemeral);
    editor.write(Side::Root, PATH, &new, "no partitions; the boot files over NFS")?;
    let mount = ["usr/sbin/mount.nfs", "sbin/mount.nfs"];
    if !editor.exists(mount[0])? && !editor.exists(mount[1])? {
        let why = "no mount.nfs: the boot files are not mounted and kernel upgrades do not reach the next boot; \
                   install nfs-common on the device";
        editor.note(Side::Root, mount[0], why.to_owned());
    }
    Ok(())
}

/// Whether what `source` names was on the card. One by UUID or label may be another disk, if the table says that it may
/// be missing.
fn is_of_card(source: &str, options: Option<&&str>) -> bool {
    let may_be_missing = options.is_some_and(|options| options.split(',').any(|option| option == "nofail"));
    let names = ["UUID=", "LABEL=", "PARTLABEL=", "/dev/mmcblk", "/dev/disk/"];
    source.starts_with("PARTUUID=") || (!may_be_missing && names.iter().any(|name| source.starts_with(name)))
}

/// The table with the boot files from `nfs` (`address:/export`), mounted where the old table has them or at
/// `default`.
#[must_use]
pub fn edit(old: &str, nfs: &str, default: &str, read_only: bool) -> String {
    let mut point = default;
    let mut kept = Vec::new();
    // Once there is no line for the root any more, partitions are disks that the user attached to the device.
    let is_root = |line: &str| line.split_ascii_whitespace().nth(1) == Some("/") && !line.starts_with('#');
    let is_card = old.lines().any(is_root);
    for line in old.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields.as_slice() {
            [first, ..] if first.starts_with('#') => kept.push(line),
            [_, "/", ..] => {}
            [_, mount @ ("/boot/firmware" | "/boot"), ..] => point = mount,
            // Partitions of the SD card that is not there: systemd would wait 90 s for each.
            [source, _, kind, rest @ ..] if is_card && (*kind == "swap" || is_of_card(source, rest.first())) => {}
            _ => kept.push(line),
        }
    }
    // nofail: a Pi that boots without its boot files is better than one in emergency mode. nolock: no rpc.statd.
    let mode = if read_only { "ro" } else { "defaults" };
    let boot = format!("{nfs} {point} nfs {mode},vers=3,nolock,nofail,_netdev 0 0");
    kept.push(&boot);
    kept.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "10.0.0.1:/lion/boot /boot/firmware nfs defaults,vers=3,nolock,nofail,_netdev 0 0\n";

    #[test]
    fn partitions_go_and_the_rest_stays() {
        let old = "proc            /proc           proc    defaults          0       0
PARTUUID=4e639091-01  /boot/firmware  vfat    defaults          0       2
PARTUUID=4e639091-02  /               ext4    defaults,noatime  0       1
# a swapfile is not a swap partition, no line here
tmpfs /tmp tmpfs size=100M 0 0
nas:/media /media nfs defaults 0 0
";
        let new = "proc            /proc           proc    defaults          0       0
# a swapfile is not a swap partition, no line here
tmpfs /tmp tmpfs size=100M 0 0
nas:/media /media nfs defaults 0 0
";
        let once = edit(old, "10.0.0.1:/lion/boot", "/boot/firmware", false);
        assert_eq!(once, format!("{new}{BOOT}"));
        assert_eq!(edit(&once, "10.0.0.1:/lion/boot", "/boot/firmware", false), once);
        assert_eq!(
            edit(&once, "10.0.0.2:/x", "/boot/firmware", false),
            once.replace("10.0.0.1:/lion/boot", "10.0.0.2:/x")
        );
    }

    #[test]
    fn disks_the_user_attached_later_stay() {
        let own = format!("PARTUUID=1234-01 /mnt/usb ext4 nofail 0 0\nUUID=5 none swap sw 0 0\n{BOOT}");
        assert_eq!(edit(&own, "10.0.0.1:/lion/boot", "/boot/firmware", false), own);
        let card = format!("{own}PARTUUID=4e639091-02 / ext4 defaults 0 1\n");
        assert_eq!(edit(&card, "10.0.0.1:/lion/boot", "/boot/firmware", false), BOOT);
    }

    #[test]
    fn other_partitions_of_the_card_go_and_disks_that_may_be_missing_stay() {
        let root = "UUID=1 / ext4 defaults 0 1\n";
        for gone in
            ["UUID=7 /boot/efi vfat defaults 0 1", "LABEL=data /data ext4", "/dev/mmcblk0p3 /srv ext4 noatime 0 2"]
        {
            assert_eq!(
                edit(&format!("{root}{gone}\n"), "10.0.0.1:/lion/boot", "/boot/firmware", false),
                BOOT,
                "{gone}"
            );
        }
        let stays = "UUID=7 /mnt/usb ext4 noatime,nofail 0 2\n";
        let kept = edit(&format!("{root}{stays}"), "10.0.0.1:/lion/boot", "/boot/firmware", false);
        assert_eq!(kept, format!("{stays}{BOOT}"));
    }

    #[test]
    fn an_old_mount_point_is_kept_and_an_empty_table_gets_the_default() {
        let old = "UUID=1 / ext4 defaults 0 1\nLABEL=boot /boot vfat defaults 0 2\nUUID=2 none swap sw 0 0\n";
        assert_eq!(edit(old, "10.0.0.1:/lion/boot", "/boot/firmware", false), BOOT.replace("/boot/firmware", "/boot"));
        assert_eq!(edit("", "10.0.0.1:/lion/boot", "/boot/firmware", false), BOOT);
    }
}
