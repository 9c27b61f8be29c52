//! The jobs, of this run of the agent and earlier ones.

use rusqlite::params;

use super::{Store, StoreError, from_word, word};
use crate::jobs::{Job, JobKind, JobState};

/// Jobs kept.
const JOBS_KEPT: u32 = 200;

impl Store {
    /// Stores a job as it is now.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn save_job(&self, job: &Job) -> Result<(), StoreError> {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.connection
            .execute(
                "INSERT OR REPLACE INTO job VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    job.id,
                    word(job.kind),
                    job.subject,
                    word(job.state),
                    job.message,
                    number(job.bytes),
                    number(job.files),
                    job.queued_ms,
                    job.finished_ms
                ],
            )
            .and_then(|_| {
                let sql = "DELETE FROM job WHERE id NOT IN (SELECT id FROM job ORDER BY id DESC LIMIT ?1)";
                self.connection.execute(sql, [JOBS_KEPT])
            })
            .map(drop)
            .map_err(|e| self.error(e))
    }

    /// The jobs stored, oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn jobs(&self) -> Result<Vec<Job>, StoreError> {
        let load = || -> rusqlite::Result<Vec<Job>> {
            let sql =
                "SELECT id, kind, subject, state, message, bytes, files, queued_ms, finished_ms FROM job ORDER BY id";
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement.query_map([], |row| {
                let number = |at: usize| row.get::<_, i64>(at).map(|n| u64::try_from(n).unwrap_or(0));
                let (bytes, files) = (number(5)?, number(6)?);
                Ok(Job {
                    id: row.get(0)?,
                    kind: from_word(&row.get::<_, String>(1)?).unwrap_or(JobKind::Import),
                    subject: row.get(2)?,
                    state: from_word(&row.get::<_, String>(3)?).unwrap_or(JobState::Failed),
                    bytes,
                    total_bytes: 0,
                    files,
                    total_files: 0,
                    message: row.get(4)?,
                    queued_ms: row.get(7)?,
                    finished_ms: row.get(8)?,
                })
            })?;
            rows.collect()
        };
        load().map_err(|e| self.error(e))
    }

    /// Marks jobs that were under way when the agent died, and returns them.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn interrupt_jobs(&self, now_ms: i64) -> Result<Vec<Job>, StoreError> {
        let mut interrupted = Vec::new();
        for mut job in self.jobs()?.into_iter().filter(|job| !job.state.is_final()) {
            job.state = JobState::Interrupted;
            job.message = "piboot was stopped under it; what it had made was removed".to_owned();
            job.finished_ms = now_ms;
            self.save_job(&job)?;
            interrupted.push(job);
        }
        Ok(interrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_under_way_at_a_crash_is_marked_once() {
        let store = Store::in_memory().unwrap();
        let job = Job {
            id: 3,
            kind: JobKind::Import,
            subject: "lite".to_owned(),
            state: JobState::Running,
            bytes: 1,
            total_bytes: 0,
            files: 2,
            total_files: 0,
            message: String::new(),
            queued_ms: 5,
            finished_ms: 0,
        };
        store.save_job(&job).unwrap();
        assert_eq!(store.interrupt_jobs(9).unwrap()[0].state, JobState::Interrupted);
        assert_eq!(store.interrupt_jobs(9).unwrap(), []);
        assert_eq!(store.jobs().unwrap()[0].finished_ms, 9);
    }
}
