use super::*;

fn look(name: &str, quota: Option<&Quota>) -> Look {
    Look { name: name.to_owned(), path: PathBuf::from("/nowhere"), quota: quota.cloned() }
}

#[test]
fn what_a_quota_has_to_know_is_looked_at_first() {
    let (known, unknown, without) = (Quota::new(Some(1)), Quota::new(Some(1)), Quota::new(None));
    known.census().end();
    let measured = Measurements::default();
    // Somebody is at it, so that nothing is taken.
    measured.shared.queue().is_busy = true;
    measured.look(vec![look("images/lite", None), look("devices/cat", Some(&without))], 1);
    measured.look(vec![look("devices/dog", Some(&known)), look("devices/lion", Some(&unknown))], 2);
    measured.look(vec![look("devices/lion", Some(&unknown))], 3);
    let order: Vec<(String, i64)> = std::iter::from_fn(|| measured.shared.next()).map(|(l, at)| (l.name, at)).collect();
    let expected = [("devices/lion", 3), ("images/lite", 1), ("devices/cat", 1), ("devices/dog", 2)];
    assert_eq!(order, expected.map(|(name, at)| (name.to_owned(), at)));
    assert!(!measured.is_busy());
    measured.look(vec![look("images/lite", None)], 4);
    measured.shared.stop.store(true, Ordering::Relaxed);
    assert!(measured.shared.next().is_none(), "stopped");
}

#[test]
fn a_census_that_comes_to_nothing_says_why_until_one_does_not() {
    let place = tempfile::tempdir().unwrap();
    let quota = Quota::new(Some(1 << 30));
    let mut measured = Measurements::default();
    measured.quotas.insert("lion".to_owned(), quota.clone());
    let lion = || Look { name: device("lion"), path: place.path().to_owned(), quota: Some(quota.clone()) };
    for times in 1..4 {
        lion().run(&measured.shared);
        let failure = measured.failure("lion").unwrap();
        assert_eq!((failure.times, quota.used()), (times, None));
        assert!(failure.why.starts_with(&place.path().display().to_string()), "{failure:?}");
    }
    measured.retain_failures();
    assert!(measured.failure("lion").is_some());
    for tree in TREES {
        std::fs::create_dir(place.path().join(tree)).unwrap();
    }
    lion().run(&measured.shared);
    assert_eq!(measured.failure("lion"), None);
    assert!(quota.used().is_some());
    // Nested deeper than anybody looks.
    let mut deep = std::fs::File::open(place.path().join(TREES[0])).unwrap();
    let mut top = Vec::new();
    for _ in 0..2100 {
        rustix::fs::mkdirat(&deep, "d", rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY;
        let next = rustix::fs::openat(&deep, "d", flags, rustix::fs::Mode::empty()).unwrap();
        top.push(std::mem::replace(&mut deep, next.into()));
    }
    lion().run(&measured.shared);
    assert!(measured.failure("lion").unwrap().why.contains("nested"));
    for dir in top.into_iter().rev() {
        rustix::fs::unlinkat(&dir, "d", rustix::fs::AtFlags::REMOVEDIR).unwrap();
    }
}
