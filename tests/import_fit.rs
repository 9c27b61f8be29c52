//! Which boards an image boots, told of Debian's own kernel, initramfs and firmware.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::{Path, PathBuf};
use std::process::Command;

use piboot::image::fit::Fit;
use piboot::image::{self, ImageInfo};
use piboot::pi::Model;
use piboot::progress::NoProgress;

fn import(source: &Path, volume: &Path) -> ImageInfo {
    let (images, scratch) = (volume.join("images"), volume.join("scratch"));
    for directory in [&images, &scratch] {
        std::fs::create_dir_all(directory).unwrap();
    }
    image::import(image::Source::open(source).unwrap(), "real", &images, &scratch, 0, &NoProgress).unwrap()
}

fn boots(fits: &[Fit]) -> Vec<&'static str> {
    fits.iter().filter(|fit| fit.ok).map(|fit| fit.model.name()).collect()
}

/// What a script below tests/images prints last.
fn built(script: &str, arguments: &[&str]) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images").join(script);
    let built = Command::new(script).args(arguments).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    PathBuf::from(String::from_utf8(built.stdout).unwrap().trim())
}

/// Debian's kernel has nothing built in; its initramfs has NFS, the drivers of USB network ports and klibc's nfsmount.
#[test]
fn debians_kernel_needs_its_initramfs() {
    let volume = tempfile::tempdir().unwrap();
    let info = import(&built("real.sh", &["slim"]), volume.path());
    let fit = |model| info.fit(model).unwrap();
    assert!(fit(Model::Pi1).why.contains("no kernel for a Raspberry Pi 1 or Zero"), "{:?}", fit(Model::Pi1));
    assert!(!fit(Model::Pi1).ok && fit(Model::Pi3).ok && fit(Model::Pi3Plus).ok);
    assert_eq!(fit(Model::Pi5).kernel.as_deref(), Some("kernel_2712.img"));
    // This root, of busybox alone, has neither modules nor a configuration that could tell.
    let unknown = "whether kernel8.img (6.1.0-";
    assert!(fit(Model::Pi4).partial.iter().any(|text| text.starts_with(unknown)), "{:?}", fit(Model::Pi4));

    // The root that the kernel came with tells what is built in, and that the initramfs lacks the drivers of the rest.
    let boot = volume.path().join("images/real/boot");
    let root = std::fs::File::open(built("root.sh", &[]).join("root")).unwrap().into();
    let fits = image::fit::examine(&std::fs::File::open(&boot).unwrap().into(), &root);
    assert_eq!(boots(&fits), ["pi3", "pi3+"], "{fits:#?}");
    let why = |model| &fits.iter().find(|fit| fit.model == model).unwrap().why;
    for (model, driver) in [(Model::Pi4, "no driver genet"), (Model::Pi5, "no driver macb")] {
        assert!(why(model).ends_with(&format!("cannot mount a root over the network: {driver}")), "{}", why(model));
    }

    let directory = volume.path().join("images/real");
    let stored = image::load_info(&directory).unwrap();
    assert_eq!(stored, info, "what is answered is what is stored");
    // An earlier version's has none, and they are found again.
    let old = ImageInfo { fits: None, ..info.clone() };
    std::fs::write(directory.join("image.json"), serde_json::to_vec(&old).unwrap()).unwrap();
    assert!(image::info::note_fits(&directory).unwrap());
    assert!(!image::info::note_fits(&directory).unwrap(), "once");
    assert_eq!(image::load_info(&directory).unwrap(), info);

    // Without what it loads, the kernel finds no root.
    std::fs::write(directory.join("boot/config.txt"), "arm_64bit=1\n").unwrap();
    let fits = image::fit::examine_in(&directory).unwrap();
    assert_eq!(boots(&fits), [""; 0]);
    let why = &fits.iter().find(|fit| fit.model == Model::Pi4).unwrap().why;
    assert!(why.contains("-arm64) cannot mount a root over the network by itself"), "{why}");
}
