use std::fs;

use super::*;
use crate::image::adapt;

/// Trees that boot, made of as little as can be.
fn trees() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let boot = dir.path().join("boot");
    fs::create_dir_all(&boot).unwrap();
    fs::create_dir_all(dir.path().join("root/sbin")).unwrap();
    fs::create_dir_all(dir.path().join("root/etc")).unwrap();
    for name in ["bootcode.bin", "start.elf", "fixup.dat", "start4.elf", "fixup4.dat", "kernel8.img", "kernel_2712.img"]
    {
        fs::write(boot.join(name), name).unwrap();
    }
    for name in ["bcm2710-rpi-3-b.dtb", "bcm2711-rpi-4-b.dtb", "bcm2712-rpi-5-b.dtb"] {
        fs::write(boot.join(name), name).unwrap();
    }
    fs::write(boot.join("config.txt"), "arm_64bit=1\nauto_initramfs=1\n[pi4]\nmax_framebuffers=2\n").unwrap();
    fs::write(
        boot.join("cmdline.txt"),
        adapt::cmdline::edit("console=tty1", "192.0.2.1:/lion/root", adapt::cmdline::Root::Writable),
    )
    .unwrap();
    let mut elf = vec![0; 64];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = 183;
    fs::write(dir.path().join("root/sbin/init"), elf).unwrap();
    dir
}

fn of(model: Model) -> For<'static> {
    For { model: Some(model), server: Ipv4Addr::new(192, 0, 2, 1), root_export: "/lion/root" }
}

fn ids(dir: &Path, model: Model) -> Vec<&'static str> {
    check(&dir.join("boot"), &dir.join("root"), &of(model)).into_iter().map(|problem| problem.id).collect()
}

#[test]
fn what_adapting_makes_has_no_problem_on_any_board() {
    let dir = trees();
    for model in [Model::Pi3, Model::Pi3Plus, Model::Pi4, Model::Pi5] {
        assert_eq!(ids(dir.path(), model), [""; 0], "{model}");
    }
}

#[test]
fn each_missing_file_is_named_for_the_board_that_needs_it() {
    for (file, model, id) in [
        ("start4.elf", Model::Pi4, "no-firmware"),
        ("start.elf", Model::Pi3, "no-firmware"),
        ("fixup4.dat", Model::Pi4, "no-fixup"),
        ("bootcode.bin", Model::Pi3, "no-bootcode"),
        ("bcm2712-rpi-5-b.dtb", Model::Pi5, "no-device-tree"),
    ] {
        let dir = trees();
        fs::remove_file(dir.path().join("boot").join(file)).unwrap();
        assert_eq!(ids(dir.path(), model), [id], "{file}");
        let others = [Model::Pi3, Model::Pi4, Model::Pi5].into_iter().filter(|m| *m != model);
        assert!(others.clone().any(|m| ids(dir.path(), m).is_empty()), "{file} is no other board's business");
    }
    let dir = trees();
    fs::remove_file(dir.path().join("boot/kernel8.img")).unwrap();
    assert_eq!(ids(dir.path(), Model::Pi4), ["no-kernel"]);
    assert_eq!(ids(dir.path(), Model::Pi5), [""; 0], "it has one of its own");
    fs::write(dir.path().join("boot/config.txt"), "kernel=mine.img\n").unwrap();
    assert_eq!(ids(dir.path(), Model::Pi4), ["no-kernel"], "the firmware takes no other");
    fs::write(dir.path().join("boot/mine.img"), "mine").unwrap();
    assert_eq!(ids(dir.path(), Model::Pi4), [""; 0], "whoever names a kernel knows");
}

#[test]
fn a_hand_edited_command_line_is_read_as_the_initramfs_reads_it() {
    let dir = trees();
    for (line, expected) in [
        ("root=/dev/nfs nfsroot=192.0.2.1:/lion/root,vers=3,tcp rw ip=dhcp", None),
        ("root=/dev/nfs nfsroot=192.0.2.1:/lion/root,vers=3,tcp,nolock,rsize=65536 rw ip=dhcp", None),
        ("root=/dev/nfs nfsroot=192.0.2.1:/lion/root,vers=3,proto=tcp rw ip=dhcp", Some("cmdline-option")),
        ("root=/dev/nfs nfsroot=192.0.2.1:/lion/root,vers=4.1 rw ip=dhcp", Some("cmdline-option")),
        ("root=/dev/nfs nfsroot=192.0.2.7:/lion/root,vers=3 rw ip=dhcp", Some("cmdline-server")),
        ("root=/dev/nfs nfsroot=/lion/root,vers=3 rw ip=dhcp", Some("cmdline-server")),
        ("root=/dev/nfs nfsroot=192.0.2.1:/bear/root,vers=3 rw ip=dhcp", Some("cmdline-export")),
        ("root=nfs:192.0.2.1:/lion/root:vers=3 ip=dhcp", None),
        ("root=PARTUUID=4e639091-02 rootwait", Some("cmdline-root")),
        ("", Some("cmdline-root")),
        ("root=/dev/nfs nfsroot=192.0.2.1:/lion/root,vers=3 ip=dhcp\nquiet", Some("cmdline-lines")),
    ] {
        fs::write(dir.path().join("boot/cmdline.txt"), line).unwrap();
        assert_eq!(ids(dir.path(), Model::Pi4), expected.into_iter().collect::<Vec<_>>(), "{line}");
    }
    fs::remove_file(dir.path().join("boot/cmdline.txt")).unwrap();
    assert_eq!(ids(dir.path(), Model::Pi4), ["cmdline-missing"]);
}

#[test]
fn init_has_to_be_there_and_of_an_architecture_that_the_kernel_runs() {
    let dir = trees();
    let init = dir.path().join("root/sbin/init");
    let mut elf = fs::read(&init).unwrap();
    fs::rename(dir.path().join("boot/kernel8.img"), dir.path().join("boot/kernel7.img")).unwrap();
    fs::remove_file(dir.path().join("boot/kernel_2712.img")).unwrap();
    assert_eq!(ids(dir.path(), Model::Pi3), ["wrong-architecture"]);
    elf[18] = 62;
    fs::write(&init, elf).unwrap();
    assert_eq!(ids(dir.path(), Model::Pi3), ["wrong-architecture"]);
    fs::remove_file(&init).unwrap();
    assert_eq!(ids(dir.path(), Model::Pi3), ["no-init"]);
}

#[test]
fn sparse_giants_and_swap_files_are_found() {
    let dir = trees();
    let initramfs = fs::File::create(dir.path().join("boot/initramfs8")).unwrap();
    initramfs.set_len(70 << 20).unwrap();
    assert_eq!(ids(dir.path(), Model::Pi4), [""; 0]);
    assert_eq!(ids(dir.path(), Model::Pi3), ["too-large"]);
    initramfs.set_len(100 << 20).unwrap();
    assert_eq!(ids(dir.path(), Model::Pi4), ["too-large"]);
    initramfs.set_len(1).unwrap();
    fs::write(dir.path().join("root/etc/fstab"), "proc /proc proc defaults 0 0\n/var/swap none swap sw 0 0\n").unwrap();
    assert_eq!(ids(dir.path(), Model::Pi4), ["swap-on-nfs"]);
}

#[test]
fn links_out_of_the_tree_are_not_followed() {
    let dir = trees();
    fs::remove_file(dir.path().join("boot/cmdline.txt")).unwrap();
    std::os::unix::fs::symlink("/proc/cmdline", dir.path().join("boot/cmdline.txt")).unwrap();
    assert_eq!(ids(dir.path(), Model::Pi4), ["cmdline-missing"]);
}
