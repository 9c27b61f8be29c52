//! What was seen, in SQLite on the SSD: Pis, boots, jobs. Never what is wanted: that is UCI's.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::seen::{MAX_SEEN, SeenPi};
use crate::boot::{Boot, BootState};
use crate::jobs::{Job, JobKind, JobState};
use crate::pi::{Evidence, Mac, Model, Revision, Serial};

/// Layout of the tables; a store written by a later version is left alone.
const SCHEMA_VERSION: i32 = 1;
/// Boots kept per Pi.
const BOOTS_PER_PI: u32 = 50;
/// Boots kept of all Pis that nobody enrolled: anyone on the LAN can make one up.
const BOOTS_OF_STRANGERS: u32 = 100;
/// Boots kept in all.
const BOOTS_IN_ALL: u32 = 5000;
/// Jobs kept.
const JOBS_KEPT: u32 = 200;

const SCHEMA: &str = "
CREATE TABLE pi (
    mac TEXT PRIMARY KEY, serial TEXT, revision INTEGER, model TEXT, evidence TEXT NOT NULL,
    first_seen_ms INTEGER NOT NULL, last_seen_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE boot (
    id INTEGER PRIMARY KEY AUTOINCREMENT, mac TEXT NOT NULL, device TEXT, started_ms INTEGER NOT NULL,
    state TEXT NOT NULL, story TEXT NOT NULL
) STRICT;
CREATE INDEX boot_of_pi ON boot (mac, id);
CREATE TABLE job (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, state TEXT NOT NULL, message TEXT NOT NULL,
    bytes INTEGER NOT NULL, files INTEGER NOT NULL, queued_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL
) STRICT;
";

/// Why the store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite's own words.
    #[error("the database {0}: {1}")]
    Sqlite(String, rusqlite::Error),
    /// Written by a later version.
    #[error(
        "the database {0} was written by a later version of piboot (schema {1}, this version knows {SCHEMA_VERSION}): update piboot, or move the file away to start with an empty history"
    )]
    TooNew(String, i32),
    /// A row that cannot be turned into text or back.
    #[error("the database {0}: {1}")]
    Encoding(String, serde_json::Error),
}

/// The open database.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    name: String,
}

impl Store {
    /// Opens or creates the database file.
    ///
    /// # Errors
    /// When it cannot be opened, is damaged, or is of a later version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let name = path.display().to_string();
        let connection = Connection::open(path).map_err(|e| StoreError::Sqlite(name.clone(), e))?;
        Self::set_up(connection, name)
    }

    /// A database in memory, for the time without an SSD.
    ///
    /// # Errors
    /// When SQLite cannot start.
    pub fn in_memory() -> Result<Self, StoreError> {
        let name = "in memory".to_owned();
        let connection = Connection::open_in_memory().map_err(|e| StoreError::Sqlite(name.clone(), e))?;
        Self::set_up(connection, name)
    }

    fn set_up(connection: Connection, name: String) -> Result<Self, StoreError> {
        let store = Self { connection, name };
        store.prepare().map_err(|e| store.error(e))?;
        let version: i32 = store.get("PRAGMA user_version")?;
        match version {
            0 => {
                let sql = format!("BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;");
                store.connection.execute_batch(&sql).map_err(|e| store.error(e))?;
            }
            SCHEMA_VERSION => {}
            later => return Err(StoreError::TooNew(store.name, later)),
        }
        Ok(store)
    }

    /// A small cache (512 KiB) and WAL: written in batches, and a crash loses at most the last of them.
    fn prepare(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -512; PRAGMA temp_store = MEMORY;",
        )
    }

    fn error(&self, error: rusqlite::Error) -> StoreError {
        StoreError::Sqlite(self.name.clone(), error)
    }

    fn get<T: rusqlite::types::FromSql>(&self, sql: &str) -> Result<T, StoreError> {
        self.connection.query_row(sql, [], |row| row.get(0)).map_err(|e| self.error(e))
    }

    // === Pis ===

    /// Stores Pis that were seen, in one transaction.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn save_pis<'a>(&mut self, pis: impl IntoIterator<Item = &'a SeenPi>) -> Result<(), StoreError> {
        let save = |connection: &mut Connection| -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            for pi in pis {
                transaction.prepare_cached("INSERT OR REPLACE INTO pi VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(
                    params![
                        pi.mac.to_string(),
                        pi.serial.map(|s| s.to_string()),
                        pi.revision.map(Revision::word),
                        pi.model.map(Model::name),
                        evidence_word(pi.evidence),
                        pi.first_seen_ms,
                        pi.last_seen_ms,
                    ],
                )?;
            }
            // Strong evidence stays longest: what a flood made up goes first.
            let trim = "DELETE FROM pi WHERE mac NOT IN (SELECT mac FROM pi ORDER BY evidence = 'oui', last_seen_ms DESC LIMIT ?1)";
            transaction.execute(trim, [u32::try_from(MAX_SEEN).unwrap_or(u32::MAX)])?;
            transaction.commit()
        };
        save(&mut self.connection).map_err(|e| StoreError::Sqlite(self.name.clone(), e))
    }

    /// The Pis seen, those seen last first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn pis(&self, limit: usize) -> Result<Vec<SeenPi>, StoreError> {
        let load = || -> rusqlite::Result<Vec<SeenPi>> {
            let sql = "SELECT mac, serial, revision, model, evidence, first_seen_ms, last_seen_ms FROM pi ORDER BY last_seen_ms DESC LIMIT ?1";
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                let text = |at: usize| row.get::<_, Option<String>>(at);
                // A row that somebody damaged is left out, not trusted.
                let Some(mac) = text(0)?.and_then(|t| t.parse::<Mac>().ok()) else { return Ok(None) };
                Ok(Some(SeenPi {
                    mac,
                    serial: text(1)?.and_then(|t| t.parse::<Serial>().ok()),
                    revision: row.get::<_, Option<u32>>(2)?.and_then(Revision::new),
                    model: text(3)?.and_then(|t| Model::from_name(&t)),
                    evidence: text(4)?.map_or(Evidence::Oui, |t| evidence_from_word(&t)),
                    first_seen_ms: row.get(5)?,
                    last_seen_ms: row.get(6)?,
                }))
            })?;
            rows.filter_map(Result::transpose).collect()
        };
        load().map_err(|e| self.error(e))
    }

    /// Forgets a Pi.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn forget_pi(&self, mac: Mac) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM pi WHERE mac = ?1", [mac.to_string()]).map(drop).map_err(|e| self.error(e))
    }

    // === boots ===

    /// Stores a boot; a new one (id 0) gets its number.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn save_boot(&self, boot: &mut Boot) -> Result<(), StoreError> {
        let mac = boot.mac.to_string();
        let is_new = boot.id == 0;
        let insert = |id: Option<i64>, story: &str| {
            self.connection
                .prepare_cached("INSERT OR REPLACE INTO boot VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![id, mac, boot.device, boot.started_ms, boot_state_word(boot.state), story])
        };
        if is_new {
            insert(None, "{}").map_err(|e| self.error(e))?;
            boot.id = self.connection.last_insert_rowid();
        }
        let story = serde_json::to_string(boot).map_err(|e| StoreError::Encoding(self.name.clone(), e))?;
        let device = boot.device.clone();
        self.connection
            .prepare_cached("UPDATE boot SET device = ?2, state = ?3, story = ?4 WHERE id = ?1")
            .and_then(|mut s| s.execute(params![boot.id, device, boot_state_word(boot.state), story]))
            .map_err(|e| self.error(e))?;
        if is_new {
            let sql = "DELETE FROM boot WHERE mac = ?1 AND id NOT IN (SELECT id FROM boot WHERE mac = ?1 ORDER BY id DESC LIMIT ?2)";
            let strangers = "DELETE FROM boot WHERE device IS NULL AND id NOT IN (SELECT id FROM boot WHERE device IS NULL ORDER BY id DESC LIMIT ?1)";
            let all = "DELETE FROM boot WHERE id <= (SELECT max(id) FROM boot) - ?1";
            self.connection
                .execute(sql, params![mac, BOOTS_PER_PI])
                .and_then(|_| self.connection.execute(strangers, [BOOTS_OF_STRANGERS]))
                .and_then(|_| self.connection.execute(all, [BOOTS_IN_ALL]))
                .map_err(|e| self.error(e))?;
        }
        Ok(())
    }

    /// The last boots, newest first, of one Pi or of all.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn boots(&self, mac: Option<Mac>, limit: u32) -> Result<Vec<Boot>, StoreError> {
        let load = || -> rusqlite::Result<Vec<String>> {
            let sql = "SELECT story FROM boot WHERE ?1 IS NULL OR mac = ?1 ORDER BY id DESC LIMIT ?2";
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement.query_map(params![mac.map(|m| m.to_string()), limit], |row| row.get(0))?;
            rows.collect()
        };
        let stories = load().map_err(|e| self.error(e))?;
        Ok(stories.iter().filter_map(|story| serde_json::from_str(story).ok()).collect())
    }

    /// One boot.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn boot(&self, id: i64) -> Result<Option<Boot>, StoreError> {
        let story: Option<String> = self
            .connection
            .query_row("SELECT story FROM boot WHERE id = ?1", [id], |row| row.get(0))
            .optional()
            .map_err(|e| self.error(e))?;
        Ok(story.and_then(|story| serde_json::from_str(&story).ok()))
    }

    /// The boots that an earlier run of the agent left under way, and the last boots of the Pis that ran then.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn unfinished_boots(&self) -> Result<Vec<Boot>, StoreError> {
        let load = || -> rusqlite::Result<Vec<String>> {
            let sql = "SELECT story FROM boot WHERE state = 'booting' OR state = 'running' \
                       AND id = (SELECT max(id) FROM boot AS later WHERE later.mac = boot.mac) ORDER BY id";
            self.connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
        };
        let stories = load().map_err(|e| self.error(e))?;
        Ok(stories.iter().filter_map(|story| serde_json::from_str(story).ok()).collect())
    }

    // === jobs ===

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

/// The word serde writes for a unit variant.
fn word<T: serde::Serialize>(value: T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn from_word<T: serde::de::DeserializeOwned>(word: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}

fn boot_state_word(state: BootState) -> String {
    word(state)
}

fn evidence_word(evidence: Evidence) -> String {
    word(evidence)
}

fn evidence_from_word(text: &str) -> Evidence {
    let all = [Evidence::Guid, Evidence::RomXid, Evidence::SerialGuid, Evidence::Oui];
    all.into_iter().find(|e| evidence_word(*e) == text).unwrap_or(Evidence::Oui)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;

    fn pi(last: u8) -> SeenPi {
        SeenPi {
            mac: Mac([0xdc, 0xa6, 0x32, 0, 0, last]),
            serial: Some(Serial(0x10)),
            revision: Revision::new(0xa0_3111),
            model: Some(Model::Pi4),
            evidence: Evidence::Guid,
            first_seen_ms: 1,
            last_seen_ms: i64::from(last),
        }
    }

    #[test]
    fn what_is_stored_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("piboot.db");
        let mut boot = Boot::new(pi(1).mac, Some("lion".to_owned()), Moment::default(), 77);
        {
            let mut store = Store::open(&path).unwrap();
            store.save_pis([&pi(1), &pi(2)]).unwrap();
            store.save_boot(&mut boot).unwrap();
            boot.state = BootState::Running;
            store.save_boot(&mut boot).unwrap();
        }
        let store = Store::open(&path).unwrap();
        assert_eq!(store.pis(10).unwrap(), [pi(2), pi(1)]);
        assert_eq!(store.boot(boot.id).unwrap().unwrap().state, BootState::Running);
        assert_eq!(store.boots(Some(pi(2).mac), 10).unwrap(), []);
        store.forget_pi(pi(2).mac).unwrap();
        assert_eq!(store.pis(10).unwrap(), [pi(1)]);
    }

    #[test]
    fn history_is_bounded_per_pi() {
        let store = Store::in_memory().unwrap();
        for n in 0..BOOTS_PER_PI + 5 {
            store.save_boot(&mut Boot::new(pi(1).mac, None, Moment::default(), i64::from(n))).unwrap();
        }
        let boots = store.boots(None, 1000).unwrap();
        assert_eq!(boots.len(), BOOTS_PER_PI as usize);
        assert_eq!(boots[0].started_ms, i64::from(BOOTS_PER_PI + 4), "the oldest went");
    }

    #[test]
    fn strangers_cannot_fill_the_disk() {
        let mut store = Store::in_memory().unwrap();
        let mut known = Boot::new(pi(1).mac, Some("lion".to_owned()), Moment::default(), 0);
        store.save_boot(&mut known).unwrap();
        let made_up = |n: u16| {
            let [high, low] = n.to_be_bytes();
            SeenPi {
                mac: Mac([0xb8, 0x27, 0xeb, 1, high, low]),
                evidence: Evidence::Oui,
                last_seen_ms: i64::from(n) + 9,
                ..pi(0)
            }
        };
        for n in 0..300 {
            store.save_boot(&mut Boot::new(made_up(n).mac, None, Moment::default(), 1)).unwrap();
        }
        assert_eq!(store.boots(None, 1000).unwrap().len(), BOOTS_OF_STRANGERS as usize + 1);
        assert!(store.boot(known.id).unwrap().is_some());
        let flood: Vec<SeenPi> = (0..2000).map(made_up).collect();
        store.save_pis([&pi(1)]).unwrap();
        store.save_pis(&flood).unwrap();
        let left = store.pis(5000).unwrap();
        assert_eq!(left.len(), MAX_SEEN);
        assert!(left.iter().any(|seen| seen.mac == pi(1).mac));
    }

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

    #[test]
    fn a_later_or_damaged_database_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("piboot.db");
        Store::open(&path).unwrap().connection.execute_batch("PRAGMA user_version = 99").unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::TooNew(_, 99))));
        std::fs::write(&path, vec![0x55; 8192]).unwrap();
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("piboot.db"), "{error}");
    }
}
