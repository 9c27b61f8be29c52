//! Waiting for a job with its progress on the terminal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::client::Client;
use super::show::megabytes;
use super::{CliError, say_line};
use crate::api::types::JobList;
use crate::jobs::{Job, JobState};

/// How often the agent is asked.
const POLL: Duration = Duration::from_millis(300);
/// How often a line is printed where no line can be rewritten.
const LINE_EVERY: u32 = 30;

/// Waits until the job ends; its failure is this command's failure.
pub(super) fn for_job(client: &Client, id: u32) -> Result<(), CliError> {
    say_line(&end_of(client, id)?);
    Ok(())
}

/// The same, with what came of it on standard error.
pub(super) fn for_job_quietly(client: &Client, id: u32) -> Result<(), CliError> {
    let message = end_of(client, id)?;
    eprintln!("{message}");
    Ok(())
}

/// What came of a job, once it has ended.
fn end_of(client: &Client, id: u32) -> Result<String, CliError> {
    let terminal = std::io::stderr().is_terminal();
    let mut polls = 0;
    loop {
        let jobs: JobList = client.call("jobs", serde_json::json!({}))?;
        let job = jobs.jobs.into_iter().find(|job| job.id == id);
        let Some(job) = job else { return Err(CliError::Failed(format!("there is no job {id}"))) };
        if terminal {
            eprint!("\r\x1b[K{}", line(&job));
            // A terminal that is gone gets no progress.
            let _ = std::io::stderr().flush();
        } else if polls % LINE_EVERY == 0 && !job.state.is_final() {
            eprintln!("{}", line(&job));
        }
        if job.state.is_final() {
            if terminal {
                eprint!("\r\x1b[K");
            }
            return match job.state {
                JobState::Done => Ok(job.message),
                _ => Err(CliError::Failed(job.message)),
            };
        }
        polls += 1;
        std::thread::sleep(POLL);
    }
}

fn line(job: &Job) -> String {
    let done = megabytes(job.bytes);
    match job.total_bytes {
        0 => format!("job {}: {} — {done}, {} files", job.id, job.subject, job.files),
        total => {
            let percent = job.bytes.saturating_mul(100) / total.max(1);
            format!(
                "job {}: {} — {}% ({done} of {}), {} files",
                job.id,
                job.subject,
                percent.min(100),
                megabytes(total),
                job.files
            )
        }
    }
}
