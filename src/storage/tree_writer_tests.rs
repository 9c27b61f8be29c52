//! Trees written, and what is refused.

use super::*;

#[test]
fn a_directory_can_be_entered_again_and_a_link_to_one_not() {
    let place = tempfile::tempdir().unwrap();
    let mut writer = writer(&place);
    let time = |seconds| Time { seconds, nanoseconds: 5 };
    let meta = Meta { mode: 0o2750, uid: 3, gid: 4, atime: time(7), mtime: time(8) };
    writer.enter(b"dir").unwrap();
    writer.leave(&meta, &[]).unwrap();
    writer.symlink(b"link", b"dir", &meta, &[]).unwrap();
    assert_eq!(writer.reenter(b"dir").unwrap(), (meta, Vec::new()));
    writer.file(b"late").unwrap().finish(0, &meta, &[]).unwrap();
    writer.leave(&meta, &[]).unwrap();
    assert!(place.path().join("dir/late").is_file());
    for name in [&b"link"[..], b"dir/late", b"..", b"missing"] {
        assert!(writer.reenter(name).is_err());
    }
}

fn writer(place: &tempfile::TempDir) -> TreeWriter {
    TreeWriter::new(rustix::fs::open(place.path(), DIRECTORY, Mode::empty()).unwrap()).unwrap()
}

#[test]
fn what_links_wait_for_is_counted_and_given_back() {
    let place = tempfile::tempdir().unwrap();
    let mut writer = writer(&place);
    let meta = Meta { mode: 0o755, uid: 0, gid: 0, atime: Time::default(), mtime: Time::default() };
    writer.enter(b"dir").unwrap();
    for id in 0..3 {
        let name = format!("first-{id}");
        writer.file(name.as_bytes()).unwrap().finish(0, &meta, &[]).unwrap();
        writer.remember(id, name.as_bytes(), 1).unwrap();
    }
    assert_eq!(writer.pending, 3 * (PENDING + 7) + "/dir".len(), "the path counts once");
    writer.leave(&meta, &[]).unwrap();
    for id in 0..3 {
        assert!(writer.link(id, format!("second-{id}").as_bytes()).unwrap());
    }
    assert_eq!(writer.pending, 0);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 4);
}

#[test]
fn links_that_never_find_their_others_run_into_a_limit() {
    let place = tempfile::tempdir().unwrap();
    let mut writer = writer(&place);
    let name = [b'x'; 200];
    let error = (0..1_000_000).find_map(|id| writer.remember(id, &name, 1).err()).expect("bounded");
    assert!(error.to_string().contains("several names"), "{error}");
    assert!(writer.links.len() * (PENDING + name.len()) <= MAX_PENDING);
}
