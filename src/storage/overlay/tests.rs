use std::fs;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, mount_change};

use super::*;
use crate::progress::NoProgress;
use crate::storage::Links;
use crate::storage::tree_copy::{Content, copy_tree_as};

/// Mounts of its own, which nobody else sees.
fn alone() {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("run as root");
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
}

/// A volume whose path has everything in it that means something in options of a mount, with an image and a device.
fn volume() -> (tempfile::TempDir, Layout, PathBuf) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let layout = Layout::new(dir.path().join("a,b:c\\d e=f"));
    fs::create_dir_all(layout.data_dir()).unwrap();
    layout.create().unwrap();
    for tree in TREES {
        let tree = layout.image("lite").join(tree);
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::write(tree.join("etc/name"), "lower").unwrap();
        fs::hard_link(tree.join("etc/name"), tree.join("etc/again")).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", tree.join("link")).unwrap();
        fs::set_permissions(&tree, Permissions::from_mode(0o751)).unwrap();
    }
    let device = layout.device("lion");
    fs::create_dir(&device).unwrap();
    (dir, layout, device)
}

fn held(layout: &Layout) {
    let partial = layout.scratch().join("held");
    fs::create_dir(&partial).unwrap();
    hold(layout, "lite", &partial, &NoProgress).unwrap();
}

#[test]
fn layers_are_mounted_taken_over_and_unmounted() {
    alone();
    let (_dir, layout, device) = volume();
    create(&layout, &device, "lite").unwrap();
    assert!(is_layered(&device) && !is_mounted(&device));
    // Without the links nothing is mounted: what is changed could be lost.
    assert!(matches!(mount(&layout, &device, "lite", BUSY), Err(OverlayError::Lower(_))));
    held(&layout);
    assert_eq!(fs::read_dir(layout.image("lite").join(HELD)).unwrap().count(), 4, "two files and two links");
    assert!(mount(&layout, &device, "lite", BUSY).unwrap());
    assert!(!mount(&layout, &device, "lite", BUSY).unwrap(), "it is mounted");
    assert!(is_mounted(&device));
    assert_eq!(fs::metadata(device.join("root")).unwrap().mode() & 0o7777, 0o751);
    fs::write(device.join("root/etc/name"), "upper").unwrap();
    assert_eq!(fs::read_to_string(layout.image("lite").join("root/etc/again")).unwrap(), "lower");
    // Another image is not taken for it.
    assert!(matches!(mount(&layout, &device, "other", BUSY), Err(OverlayError::Mount { .. })));
    assert_eq!(mounted_below(layout.data_dir()).len(), 2);
    let open = fs::File::open(device.join("root/etc/name")).unwrap();
    assert_eq!(unmount(&device), Err(Errno::BUSY));
    // Moved with what is mounted in it, as by a deletion; then whoever has it open does not keep it.
    let aside = layout.scratch().join("deleted");
    fs::rename(&device, &aside).unwrap();
    release(&aside, Duration::from_millis(50)).unwrap();
    assert!(mounted_below(layout.data_dir()).is_empty() && !is_mounted(&aside));
    drop(open);
    fs::rename(&aside, &device).unwrap();
    {
        let _in_use = InUse::begin(&layout, &device, "lite", true).unwrap();
        assert_eq!(fs::read_to_string(device.join("root/etc/name")).unwrap(), "upper");
        assert_eq!(unmount(&device), Err(Errno::BUSY));
    }
    assert!(!is_mounted(&device));
    unmount(&device).unwrap();
    // Something else in its place, and an upper layer that is gone, are not covered up.
    rustix::mount::mount("tmpfs", device.join("root"), "tmpfs", MountFlags::empty(), None).unwrap();
    assert!(matches!(mount(&layout, &device, "lite", BUSY), Err(OverlayError::Mount { .. })));
    rustix::mount::unmount(device.join("root"), UnmountFlags::DETACH).unwrap();
    fs::rename(device.join("overlay/root/upper"), device.join("away")).unwrap();
    assert!(matches!(mount(&layout, &device, "lite", BUSY), Err(OverlayError::Upper(..))));
    release(layout.data_dir(), Duration::ZERO).unwrap();
    assert!(mounted_below(layout.data_dir()).is_empty());
}

#[test]
fn an_image_with_what_stands_for_deleted_files_is_no_lower_layer() {
    let (_dir, layout, _) = volume();
    let path = layout.image("lite").join("root/etc/gone");
    let made = Command::new("mknod").arg(&path).args(["c", "0", "0"]).status().unwrap();
    assert!(made.success());
    let partial = layout.scratch().join("held");
    fs::create_dir(&partial).unwrap();
    let refused = hold(&layout, "lite", &partial, &NoProgress).unwrap_err().to_string();
    assert!(refused.contains("etc/gone") && refused.contains("use 'clone' or 'copy'"), "{refused}");
    assert!(!layout.image("lite").join(HELD).exists());
}

#[test]
fn who_keeps_layers_in_a_view_of_its_own_is_named() {
    alone();
    let (_dir, layout, device) = volume();
    create(&layout, &device, "lite").unwrap();
    held(&layout);
    mount(&layout, &device, "lite", BUSY).unwrap();
    // Begun while they are mounted, by somebody who is told of nothing that is unmounted.
    let mut other = Command::new("unshare").args(["--mount", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let table = format!("/proc/{}/ns/mnt", other.id());
    while fs::read_link(&table).unwrap() == fs::read_link("/proc/thread-self/ns/mnt").unwrap() {
        std::thread::yield_now();
    }
    unmount(&device).unwrap();
    let refused = mount(&layout, &device, "lite", Duration::ZERO).unwrap_err().with_holder().to_string();
    assert!(refused.contains(&format!("(process {})", other.id())) && refused.contains("restart or end"), "{refused}");
    drop(other.stdin.take());
    other.wait().unwrap();
    mount(&layout, &device, "lite", Duration::from_secs(60)).unwrap();
    unmount(&device).unwrap();
}

#[test]
fn a_copy_has_the_names_and_not_the_links_that_hold() {
    alone();
    let (_dir, layout, device) = volume();
    create(&layout, &device, "lite").unwrap();
    held(&layout);
    mount(&layout, &device, "lite", BUSY).unwrap();
    fs::write(device.join("root/own"), "upper").unwrap();
    fs::hard_link(device.join("root/own"), device.join("root/own-too")).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let open = |path: &Path| rustix::fs::open(path, flags, Mode::empty()).unwrap();
    let links = |path: PathBuf| fs::symlink_metadata(path).unwrap().nlink();
    let is_held = crate::nfs::trial::is_held;
    for (tree, names) in
        [(layout.image("lite").join("root"), Links::Held), (device.join("root"), Links::Layers(is_held))]
    {
        // What has names that do not come is remembered; here nothing has.
        let count = |name: &str| {
            let (file, name) = (open(&tree), std::ffi::CString::new(name).unwrap());
            let stat = rustix::fs::statat(&file, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
            names.names(std::os::fd::AsFd::as_fd(&file), &name, &stat)
        };
        assert_eq!((count("etc/name"), count("link")), (2, 1), "{names:?}");
        let copy = layout.scratch().join("copy");
        fs::create_dir(&copy).unwrap();
        copy_tree_as(Content::Copied, names, open(&tree), open(&copy), &NoProgress).unwrap();
        let copied = ["etc/name", "etc/again", "link"].map(|name| links(copy.join(name)));
        assert_eq!(copied, [2, 2, 1], "{names:?}");
        if copy.join("own").exists() {
            assert_eq!((links(copy.join("own")), count("own")), (2, 2));
        }
        fs::remove_dir_all(&copy).unwrap();
    }
    unmount(&device).unwrap();
}

#[test]
fn only_plain_names_below_the_volume_are_layers() {
    let layout = Layout::new("/data,x".into());
    let good = options(&layout, &layout.device("lion"), "lite-1.0_a", "root").unwrap();
    assert!(good.starts_with("lowerdir=images/lite-1.0_a/root,upperdir=devices/lion/overlay/root/upper,"), "{good}");
    for bad in ["/elsewhere/lion", "/data,x/devices/a:b", "/data,x/devices/a,b", "/data,x/devices/a\\b"] {
        assert!(matches!(options(&layout, Path::new(bad), "lite", "root"), Err(OverlayError::Path(_))), "{bad}");
    }
}

#[test]
fn what_the_kernel_shows_is_compared_with_what_was_wanted() {
    let shown = |options: &str| Mount {
        options: format!("rw,{options}"),
        ..mountinfo::all("1 0 0:5 / /a rw - overlay piboot rw").next().unwrap()
    };
    let wanted = "lowerdir=a,upperdir=b/upper,workdir=b/work,index=on,nfs_export=on";
    assert!(shown(wanted).is_ours(wanted));
    assert!(!shown(&wanted.replace("a,", "c,")).is_ours(wanted), "another image");
    assert!(!shown(&wanted.replace("nfs_export=on", "nfs_export=off")).is_ours(wanted));
    assert!(!Mount { source: "overlay".to_owned(), ..shown(wanted) }.is_ours(wanted), "somebody else's");
}

#[test]
fn what_lost_its_last_name_is_marked_and_what_has_no_count_is_kept() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let make = |name: &str, value: Option<&[u8]>| {
        let path = dir.path().join(name);
        fs::write(&path, name).unwrap();
        if let Some(value) = value {
            rustix::fs::lsetxattr(&path, repair::NLINK, value, XattrFlags::empty()).unwrap();
        }
    };
    make("00deleted", Some(b"U+0"));
    make("00by-handle", Some(b"U+1"));
    make("00half-done", None);
    make("#temporary", Some(b"U+0"));
    make("00named", Some(b"U+0"));
    fs::hard_link(dir.path().join("00named"), dir.path().join("#its-name")).unwrap();
    fs::create_dir(dir.path().join("00directory")).unwrap();
    for expected in [(1, 1), (0, 0)] {
        assert_eq!(repair::repair(dir.path()).unwrap(), expected);
        let mut value = [0; 8];
        let mut count = |name: &str| {
            let length = rustix::fs::lgetxattr(dir.path().join(name), repair::NLINK, &mut value[..]).unwrap();
            String::from_utf8(value[..length].to_vec()).unwrap()
        };
        let counts = ["00deleted", "00by-handle", "00half-done", "#temporary", "00named"].map(&mut count);
        assert_eq!(counts, ["U-1", "U+1", "L+0", "U+0", "U+0"]);
    }
    assert_eq!(repair::repair(&dir.path().join("none")).unwrap(), (0, 0));
}
