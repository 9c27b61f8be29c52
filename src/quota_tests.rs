use super::*;

const LIMIT: u64 = 1 << 20;

fn file(inode: u64) -> FileId {
    FileId { device: 1, inode }
}

/// A quota of which nothing is used.
fn empty() -> Quota {
    let quota = Quota::new(Some(LIMIT));
    quota.census().end();
    quota
}

fn begin(quota: &Quota, inode: u64, now: u64, more: u64) -> Change<'_> {
    quota.begin(file(inode), now, more).unwrap().unwrap()
}

#[test]
fn what_a_file_system_does_between_two_changes_counts_with_the_second() {
    let quota = empty();
    begin(&quota, 1, 0, 0).end(4096, || None);
    assert_eq!(quota.used(), Some(4096));
    for other in 2..40 {
        begin(&quota, other, 7, 0).end(7, || None);
    }
    // A block of book-keeping came meanwhile.
    begin(&quota, 1, 8192, 0).end(12_288, || None);
    assert_eq!(quota.used(), Some(12_288));
    // The number belongs to another file now.
    begin(&quota, 1, 0, 0).end(100, || None);
    assert_eq!(quota.used(), Some(100));
    drop(begin(&quota, 1, 100, 50));
    assert_eq!(quota.used(), Some(100), "nothing was changed");
}

#[test]
fn changes_of_one_file_at_a_time_count_once_in_whatever_order_they_are_told() {
    let quota = empty();
    let (first, second) = (begin(&quota, 1, 0, 0), begin(&quota, 1, 0, 0));
    // Both looked before either told, the second one later.
    second.end(8192, || Some(8192));
    first.end(4096, || Some(8192));
    assert_eq!(quota.used(), Some(8192));
    begin(&quota, 1, 8192, 0).end(0, || panic!("nobody else is at it"));
    assert_eq!(quota.used(), Some(0));
}

#[test]
fn what_is_promised_to_one_is_not_given_to_another() {
    let quota = empty();
    let first = begin(&quota, 1, 0, LIMIT - 4096);
    assert_eq!(quota.begin(file(2), 0, 8192).unwrap_err(), Full);
    assert!(quota.has_room(4096).is_ok());
    assert!(!quota.has_refused(), "that is for those to say who know no other way");
    quota.refuse();
    assert!(quota.has_refused());
    let second = begin(&quota, 2, 0, 4096);
    first.end(4096, || None);
    drop(second);
    assert_eq!((quota.used(), quota.has_room(LIMIT - 4096)), (Some(4096), Ok(())));
    // Whatever needs nothing more goes on, below the limit or above.
    quota.set_limit(Some(1));
    assert_eq!(quota.has_room(1), Err(Full));
    begin(&quota, 1, 4096, 0).end(8192, || None);
    assert_eq!(quota.used(), Some(8192));
}

#[test]
fn what_was_promised_does_not_count_beside_what_was_taken_of_it() {
    let quota = empty();
    let has_all = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for inode in 0..20_000 {
                begin(&quota, inode, 0, LIMIT / 2).end(LIMIT / 2, || None);
                begin(&quota, inode, LIMIT / 2, 0).end(0, || None);
            }
        });
        while !writer.is_finished() {
            if quota.has_room(LIMIT / 2).is_err() {
                has_all.store(false, Ordering::Relaxed);
            }
        }
    });
    assert!(has_all.load(Ordering::Relaxed), "half of it was free all the time");
}

#[test]
fn a_census_while_directories_move_takes_nothing_away() {
    let quota = empty();
    let fill = |quota: &Quota, takes| {
        let census = quota.census();
        assert!(census.find(file(1), takes));
        census
    };
    fill(&quota, 1000).end();
    // Before the census, while it lasts, and all the time.
    let before = quota.moving();
    let census = fill(&quota, 400);
    drop(before);
    census.end();
    assert_eq!((quota.used(), quota.doubt()), (Some(1000), Doubt::Changed), "the rest was elsewhere");
    let census = fill(&quota, 400);
    let under_way = begin(&quota, 1, 1000, 0);
    drop(quota.moving());
    census.end();
    under_way.end(1100, || None);
    assert_eq!((quota.used(), quota.doubt()), (Some(1100), Doubt::Changed));
    let census = fill(&quota, 5000);
    drop(quota.moving());
    census.end();
    assert_eq!((quota.used(), quota.doubt()), (Some(5000), Doubt::Changed), "more is there than was known");
    drop(quota.moving());
    fill(&quota, 400).end();
    assert_eq!((quota.used(), quota.doubt()), (Some(400), Doubt::None), "nothing moved");
    // What is known for the first time is better than nothing.
    quota.forget();
    let census = fill(&quota, 300);
    drop(quota.moving());
    census.end();
    assert_eq!((quota.used(), quota.doubt()), (Some(300), Doubt::Changed));
}

#[test]
fn a_census_and_changes_meanwhile_agree() {
    let quota = empty();
    let census = quota.census();
    let under_way = begin(&quota, 7, 0, 0);
    assert!(census.find(file(1), 100) && census.find(file(1), 100) && census.find(file(7), 50));
    // Changed after it was found, and before.
    begin(&quota, 1, 100, 0).end(300, || None);
    begin(&quota, 2, 1000, 0).end(0, || None);
    assert!(census.find(file(2), 1000), "found before it went, told afterwards");
    assert_eq!(quota.doubt(), Doubt::None, "one is being taken");
    census.end();
    assert_eq!(quota.used(), Some(350));
    under_way.end(80, || None);
    assert_eq!(quota.used(), Some(380), "it goes on from what was found");
    assert_eq!(quota.doubt(), Doubt::Changed);
}

#[test]
fn what_belongs_to_other_files_than_there_are_now_is_void() {
    for void in [Quota::forget, |quota: &Quota| {
        quota.set_limit(None);
        quota.set_limit(Some(LIMIT));
    }] {
        let quota = empty();
        let (census, change) = (quota.census(), begin(&quota, 1, 0, 10));
        void(&quota);
        assert!(!census.find(file(1), 10) && !census.is_wanted());
        census.end();
        change.end(10, || None);
        assert_eq!((quota.used(), quota.doubt()), (None, Doubt::Unknown));
        assert_eq!(quota.has_room(u64::MAX), Ok(()), "nobody knows");
        quota.census().end();
        assert_eq!(quota.has_room(LIMIT), Ok(()), "nothing is promised");
    }
}

#[test]
fn a_census_that_is_given_up_is_wanted_again_and_the_figures_stay() {
    let quota = empty();
    begin(&quota, 1, 0, 0).end(10, || None);
    drop(quota.census());
    assert_eq!((quota.used(), quota.doubt()), (Some(10), Doubt::Unknown));
    let (first, second) = (quota.census(), quota.census());
    assert!(!first.find(file(1), 5) && second.find(file(1), 20));
    first.end();
    assert_eq!(quota.used(), Some(10));
    second.end();
    assert_eq!((quota.used(), quota.doubt()), (Some(20), Doubt::None));
    quota.put_in_doubt();
    assert_eq!((quota.used(), quota.doubt()), (Some(20), Doubt::Unknown));
}

#[test]
fn files_that_were_changed_long_ago_are_not_kept() {
    let quota = empty();
    let open = begin(&quota, 0, 0, 0);
    for inode in 1..1000 {
        begin(&quota, inode, 0, 0).end(1, || None);
    }
    open.end(1, || None);
    assert_eq!((quota.used(), quota.account().recent.len()), (Some(1000), RECENT));
    assert!(Quota::default().begin(file(1), 0, 1).unwrap().is_none(), "without a limit nothing is");
}

#[test]
fn blocks_behind_the_end_of_a_file_do_not_count() {
    for (is_file, size, blocks, counted) in [
        (true, 0, 0, 0),
        (true, 1, 4096, 4096),
        (true, 5000, 131_072, 8192),
        (true, 1 << 30, 8192, 8192),
        (true, u64::MAX, 8192, 8192),
        (true, 0, 65_536, 0),
        (false, 6, 4096, 4096),
    ] {
        assert_eq!(takes(is_file, size, blocks), counted, "{size} {blocks}");
    }
}
