//! Jobs at work.

use super::*;
use std::sync::mpsc;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

fn start() -> (Jobs, UnboundedReceiver<u32>) {
    let (sender, receiver) = unbounded_channel();
    (Jobs::start(Clock::manual(7), 1, sender).unwrap(), receiver)
}

#[test]
fn a_job_runs_reports_and_ends() {
    let (jobs, mut ended) = start();
    let id = jobs
        .submit(
            JobKind::Import,
            "lite",
            Box::new(|job| {
                job.set_total(100, 2);
                job.add(100, 2);
                Ok("imported".to_owned())
            }),
        )
        .unwrap();
    assert_eq!(ended.blocking_recv(), Some(id));
    let job = jobs.get(id).unwrap();
    assert_eq!((job.state, job.bytes, job.total_files, job.finished_ms), (JobState::Done, 100, 2, 7));
    assert_eq!(jobs.cancel(id), Err(JobsError::Ended(id)));
}

#[test]
fn one_subject_one_job_and_cancel_reaches_both_kinds_of_waiting() {
    let (jobs, mut ended) = start();
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel::<()>();
    let first = jobs
        .submit(
            JobKind::Import,
            "a",
            Box::new(move |job| {
                begun.send(()).unwrap();
                let _ = wait.recv();
                if job.cancelled() { Err("undone".to_owned()) } else { Ok(String::new()) }
            }),
        )
        .unwrap();
    has_begun.recv().unwrap();
    let second = jobs.submit(JobKind::Import, "b", Box::new(|_| Ok(String::new()))).unwrap();
    let busy = jobs.submit(JobKind::Import, "a", Box::new(|_| Ok(String::new())));
    assert_eq!(busy, Err(JobsError::Busy(first, "a".to_owned())));
    jobs.cancel(second).unwrap();
    assert_eq!(ended.blocking_recv(), Some(second));
    jobs.cancel(first).unwrap();
    let again = jobs.submit(JobKind::Import, "a", Box::new(|_| Ok(String::new()))).unwrap();
    assert_eq!(jobs.active(JobKind::Import, "a"), Some(again), "the cancelled one does not count any more");
    go.send(()).unwrap();
    assert_eq!((ended.blocking_recv(), ended.blocking_recv()), (Some(first), Some(again)));
    assert_eq!(jobs.get(again).unwrap().state, JobState::Done);
    assert_eq!(jobs.get(first).unwrap().state, JobState::Cancelled);
    assert_eq!(jobs.get(second).unwrap().state, JobState::Cancelled);
}

#[test]
fn a_device_does_not_wait_for_an_image() {
    let (jobs, mut ended) = start();
    let (go, wait) = mpsc::channel::<()>();
    let image = jobs
        .submit(
            JobKind::Import,
            "a",
            Box::new(move |_| {
                let _ = wait.recv();
                Ok(String::new())
            }),
        )
        .unwrap();
    let device = jobs.submit(JobKind::Provision, "a", Box::new(|_| Ok(String::new()))).unwrap();
    assert_eq!(jobs.all_on("a"), [image, device]);
    assert_eq!(ended.blocking_recv(), Some(device));
    go.send(()).unwrap();
    assert_eq!(ended.blocking_recv(), Some(image));
    assert!(jobs.all_on("a").is_empty());
}

#[test]
fn a_fault_in_one_job_does_not_take_the_worker_along() {
    let (jobs, mut ended) = start();
    let bad = jobs.submit(JobKind::Delete, "a", Box::new(|_| panic!("test"))).unwrap();
    let good = jobs.submit(JobKind::Delete, "b", Box::new(|_| Ok(String::new()))).unwrap();
    assert_eq!((ended.blocking_recv(), ended.blocking_recv()), (Some(bad), Some(good)));
    assert_eq!(jobs.get(bad).unwrap().state, JobState::Failed);
    assert_eq!(jobs.get(good).unwrap().state, JobState::Done);
}
