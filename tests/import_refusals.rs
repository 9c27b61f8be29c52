//! What stops an import must be named, and must leave nothing behind.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "images/awkward.rs"]
mod awkward;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use awkward::{ROOT_START, Volume, files, image};
use piboot::image::{ImageInfo, ImportError, Source, sweep};
use piboot::progress::{NoProgress, Progress};

fn import(
    source: &Path,
    name: &str,
    images: &Path,
    scratch: &Path,
    wall_ms: i64,
    progress: &dyn Progress,
) -> Result<ImageInfo, ImportError> {
    piboot::image::import(Source::open(source)?, name, images, scratch, wall_ms, progress)
}

/// A place to import to that is large enough.
struct Place(Volume);

impl Place {
    fn new() -> Self {
        Self(Volume::new(300, &[]))
    }

    fn images(&self) -> PathBuf {
        self.0.path().join("images")
    }

    fn scratch(&self) -> PathBuf {
        self.0.path().join("scratch")
    }

    fn import(&self, source: &Path, progress: &dyn Progress) -> Result<(), ImportError> {
        import(source, "odd", &self.images(), &self.scratch(), 0, progress).map(drop)
    }

    fn assert_empty(&self) {
        for directory in [self.images(), self.scratch()] {
            assert_eq!(files(&directory).into_keys().collect::<Vec<_>>(), Vec::<PathBuf>::new());
        }
    }

    /// Imports what must be refused, and answers why.
    fn refused(&self, source: &Path) -> String {
        let error = self.import(source, &NoProgress).unwrap_err().to_string();
        self.assert_empty();
        error
    }
}

/// A copy of an awkward image with changed bytes.
fn changed(directory: &Path, name: &str, change: impl FnOnce(&File)) -> PathBuf {
    let path = directory.join(name);
    fs::copy(image("pigen", name.trim_start_matches("x.")), &path).unwrap();
    change(&File::options().write(true).read(true).open(&path).unwrap());
    path
}

#[test]
fn damaged_files_are_named_with_what_to_do() {
    let (place, other) = (Place::new(), tempfile::tempdir().unwrap());
    let half = changed(other.path(), "x.img.xz", |file| file.set_len(file.metadata().unwrap().len() / 2).unwrap());
    let error = place.refused(&half);
    assert!(error.contains("x.img.xz ends too early") && error.contains("fetch it again"), "{error}");

    let flipped = changed(other.path(), "x.img.xz", |file| {
        let at = file.metadata().unwrap().len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    });
    let error = place.refused(&flipped);
    assert!(error.contains("x.img.xz") && error.contains("damaged"), "{error}");

    let short = changed(other.path(), "x.img", |file| file.set_len(ROOT_START + (20 << 20)).unwrap());
    let error = place.refused(&short);
    assert!(error.contains("x.img") && error.contains("larger than its partition"), "{error}");

    let text = other.path().join("page.img");
    fs::write(&text, "<html>not found</html>").unwrap();
    assert!(place.refused(&text).contains("page.img is neither"));
    assert!(place.refused(other.path()).contains("neither a regular file nor a disk"));
    assert!(place.refused(&other.path().join("missing")).contains("missing"));
}

#[test]
fn what_the_superblock_refuses_is_refused_before_anything_is_written() {
    let (place, other) = (Place::new(), tempfile::tempdir().unwrap());
    let incompat = ROOT_START + 1024 + 0x60;
    for (feature, name) in [(0x1_0000_u32, "encrypt"), (0x4000_0000, "0x40000000")] {
        let path = changed(other.path(), "x.img", |file| {
            let mut word = [0; 4];
            file.read_exact_at(&mut word, incompat).unwrap();
            file.write_all_at(&(u32::from_le_bytes(word) | feature).to_le_bytes(), incompat).unwrap();
        });
        let error = place.refused(&path);
        assert!(error.contains("x.img: root partition") && error.contains(name), "{error}");
    }
    let path = changed(other.path(), "x.img", |file| file.write_all_at(&[0; 64], 446).unwrap());
    assert!(place.refused(&path).contains("partition table is empty"));
}

#[test]
fn names_are_checked_and_never_replaced() {
    let place = Place::new();
    let source = image("pigen", "img");
    let error = import(&source, "../x", &place.images(), &place.scratch(), 0, &NoProgress).unwrap_err();
    assert!(matches!(error, ImportError::Name(_)), "{error}");
    place.assert_empty();
    fs::create_dir(place.images().join("odd")).unwrap();
    fs::write(place.images().join("odd/kept"), "kept").unwrap();
    let error = place.import(&source, &NoProgress).unwrap_err();
    assert!(matches!(error, ImportError::Exists(ref name) if name == "odd"), "{error}");
    assert_eq!(fs::read_to_string(place.images().join("odd/kept")).unwrap(), "kept");
}

#[test]
fn a_place_that_cannot_take_the_image_is_refused_at_once() {
    let place = Place::new();
    let source = image("pigen", "img.xz");
    let never = CancelAt(AtomicUsize::new(1));
    for (images, why) in
        [(place.0.path().join("missing"), "missing"), (PathBuf::from("/dev"), "different file systems")]
    {
        let error = import(&source, "odd", &images, &place.scratch(), 0, &never).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        place.assert_empty();
    }
}

/// Cancels at the n-th question.
struct CancelAt(AtomicUsize);

impl Progress for CancelAt {
    fn add(&self, _bytes: u64, _files: u64) {}
    fn set_total(&self, _bytes: u64, _files: u64) {}
    fn cancelled(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) <= 1
    }
}

#[test]
fn a_cancelled_import_leaves_nothing() {
    let source = image("pigen", "img.xz");
    // While decoding, while writing the boot tree, while writing the root tree.
    for questions in [3, 620, 3000] {
        let place = Place::new();
        let error = place.import(&source, &CancelAt(AtomicUsize::new(questions))).unwrap_err();
        assert!(matches!(error, ImportError::Cancelled), "{error}");
        place.assert_empty();
    }
}

#[test]
fn too_small_a_volume_is_refused_with_figures() {
    let volume = Volume::new(16, &["-N", "8192", "-O", "^has_journal"]);
    for extension in ["img", "img.xz"] {
        let source = image("pigen", extension);
        let error =
            import(&source, "odd", &volume.path().join("images"), &volume.path().join("scratch"), 0, &NoProgress);
        let error = error.unwrap_err();
        assert!(matches!(error, ImportError::Space { .. }), "{error}");
        assert!(error.to_string().contains("MB needed") && error.to_string().contains("scratch"), "{error}");
        assert_eq!(volume.leftovers(), Vec::<PathBuf>::new());
    }
}

#[test]
fn too_few_inodes_are_refused_with_figures() {
    let volume = Volume::new(400, &["-N", "1000", "-O", "^has_journal"]);
    let source = image("pigen", "img");
    let error = import(&source, "odd", &volume.path().join("images"), &volume.path().join("scratch"), 0, &NoProgress);
    let error = error.unwrap_err();
    assert!(matches!(error, ImportError::Inodes { .. }), "{error}");
    assert_eq!(volume.leftovers(), Vec::<PathBuf>::new());
}

/// Takes the volume's space away while the import runs.
struct Eater(PathBuf);

impl Progress for Eater {
    fn add(&self, _bytes: u64, files: u64) {
        if files > 0 && !self.0.exists() {
            let mut file = File::create(&self.0).unwrap();
            while file.write_all(&[1; 65536]).is_ok() {}
        }
    }
    fn set_total(&self, _bytes: u64, _files: u64) {}
    fn cancelled(&self) -> bool {
        false
    }
}

#[test]
fn a_disk_that_fills_up_meanwhile_is_named() {
    let volume = Volume::new(300, &["-N", "20000", "-O", "^has_journal"]);
    let eater = Eater(volume.path().join("eaten"));
    let source = image("pigen", "img");
    let error =
        import(&source, "odd", &volume.path().join("images"), &volume.path().join("scratch"), 0, &eater).unwrap_err();
    assert!(error.to_string().contains("disk is full"), "{error}");
    fs::remove_file(&eater.0).unwrap();
    assert_eq!(volume.leftovers(), Vec::<PathBuf>::new());
}

/// Remembers how much of the unpacked image was on the disk at most and at last.
struct Watcher {
    scratch: PathBuf,
    blocks: Mutex<(u64, u64)>,
}

impl Progress for Watcher {
    fn add(&self, _bytes: u64, _files: u64) {
        use std::os::unix::fs::MetadataExt;
        let partial = fs::read_dir(&self.scratch).unwrap().next().unwrap().unwrap().path();
        if let Ok(meta) = fs::metadata(partial.join("disk.img")) {
            let mut blocks = self.blocks.lock().unwrap();
            *blocks = (blocks.0.max(meta.blocks()), meta.blocks());
        }
    }
    fn set_total(&self, _bytes: u64, _files: u64) {}
    fn cancelled(&self) -> bool {
        false
    }
}

#[test]
fn a_tight_volume_gets_the_scratch_space_back_while_copying() {
    let source = image("pigen", "img.xz");
    // 21 MB of content: 46 MB are not enough for the unpacked image, both trees and the reserve; 200 are.
    for (megabytes, tight) in [(46, true), (200, false)] {
        let volume = Volume::new(megabytes, &["-N", "8192", "-O", "^has_journal"]);
        let watcher = Watcher { scratch: volume.path().join("scratch"), blocks: Mutex::default() };
        import(&source, "odd", &volume.path().join("images"), &watcher.scratch, 0, &watcher).unwrap();
        let (most, last) = *watcher.blocks.lock().unwrap();
        // What stays is inode tables, the journal and the boot partition.
        assert_eq!(last < most * 2 / 3, tight, "{megabytes} MB: {most} blocks at most, {last} at last");
    }
}

/// What a child process of [`a_killed_import_leaves_no_half_image`] does.
#[test]
fn child_that_is_killed() {
    let Some(place) = std::env::var_os("PIBOOT_TEST_IMPORT_PLACE").map(PathBuf::from) else { return };
    struct Stall;
    impl Progress for Stall {
        fn add(&self, _bytes: u64, files: u64) {
            // In the middle of the root tree: say so and wait for the end.
            static SEEN: AtomicUsize = AtomicUsize::new(0);
            if files > 0 && SEEN.fetch_add(1, Ordering::Relaxed) == 1000 {
                println!("\nhalfway");
                std::io::stdin().read_exact(&mut [0]).ok();
            }
        }
        fn set_total(&self, _bytes: u64, _files: u64) {}
        fn cancelled(&self) -> bool {
            false
        }
    }
    import(&image("pigen", "img.xz"), "odd", &place.join("images"), &place.join("scratch"), 0, &Stall).unwrap();
}

#[test]
fn a_killed_import_leaves_no_half_image() {
    use std::io::BufRead;
    let place = Place::new();
    image("pigen", "img.xz");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_is_killed", "--nocapture"])
        .env("PIBOOT_TEST_IMPORT_PLACE", place.0.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    assert!(output.lines().any(|line| line.unwrap() == "halfway"), "the child ended early");
    assert_eq!(sweep(&place.scratch()), Vec::<String>::new(), "an import at work is not swept");
    assert_eq!(fs::read_dir(place.scratch()).unwrap().count(), 1);

    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read_dir(place.images()).unwrap().count(), 0);
    let partial = fs::read_dir(place.scratch()).unwrap().next().unwrap().unwrap().path();
    assert!(partial.join("root/odd").is_dir(), "nothing was written before the kill");
    let said = sweep(&place.scratch());
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("image 'odd' was interrupted") && said[0].contains(".partial"), "{said:?}");
    place.assert_empty();
    assert_eq!(sweep(&place.scratch()), Vec::<String>::new());
    place.import(&image("pigen", "img"), &NoProgress).unwrap();
}
