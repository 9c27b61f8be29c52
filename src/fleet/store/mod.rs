//! What was seen, in SQLite on the SSD: Pis, boots, jobs. Never what is wanted: that is UCI's.

mod boots;
mod jobs;
mod pis;

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// Layout of the tables; a store written by a later version is left alone.
const SCHEMA_VERSION: i32 = 2;

/// What each version of the layout adds to the one before.
const SCHEMAS: [&str; SCHEMA_VERSION as usize] = [
    "
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
",
    "
ALTER TABLE pi ADD COLUMN asked INTEGER NOT NULL DEFAULT 1;
ALTER TABLE pi ADD COLUMN asked_ms INTEGER NOT NULL DEFAULT 0;
UPDATE pi SET asked_ms = last_seen_ms;
CREATE TABLE packets (boot INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
CREATE TRIGGER packets_of_boot AFTER DELETE ON boot BEGIN DELETE FROM packets WHERE boot = old.id; END;
",
];

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
        Self::set_up(connection, name, "WAL", "NORMAL")
    }

    /// The same on a volume that is mounted over NFS, where neither memory nor locks are shared: no WAL, and no locks, since
    /// one agent at a time works on a volume.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on_network(path: &Path) -> Result<Self, StoreError> {
        let name = path.display().to_string();
        let connection = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), c"unix-none")
            .map_err(|e| StoreError::Sqlite(name.clone(), e))?;
        // Rolls back what an agent that was killed left, before anything else.
        let plain = connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = DELETE;");
        plain.map_err(|e| StoreError::Sqlite(name.clone(), e))?;
        Self::set_up(connection, name, "DELETE", "FULL")
    }

    /// A database in memory, for the time without an SSD.
    ///
    /// # Errors
    /// When SQLite cannot start.
    pub fn in_memory() -> Result<Self, StoreError> {
        let name = "in memory".to_owned();
        let connection = Connection::open_in_memory().map_err(|e| StoreError::Sqlite(name.clone(), e))?;
        Self::set_up(connection, name, "WAL", "NORMAL")
    }

    fn set_up(connection: Connection, name: String, journal: &str, synchronous: &str) -> Result<Self, StoreError> {
        let store = Self { connection, name };
        store.prepare(journal, synchronous).map_err(|e| store.error(e))?;
        let version: i32 = store.get("PRAGMA user_version")?;
        let Some(missing) = usize::try_from(version).ok().and_then(|known| SCHEMAS.get(known..)) else {
            return Err(StoreError::TooNew(store.name, version));
        };
        if !missing.is_empty() {
            let sql = format!("BEGIN; {} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;", missing.concat());
            store.connection.execute_batch(&sql).map_err(|e| store.error(e))?;
        }
        Ok(store)
    }

    /// A small cache (512 KiB). With WAL: written in batches, and a crash loses at most the last of them.
    fn prepare(&self, journal: &str, synchronous: &str) -> rusqlite::Result<()> {
        self.connection.execute_batch(&format!(
            "PRAGMA journal_mode = {journal}; PRAGMA synchronous = {synchronous}; PRAGMA cache_size = -512; PRAGMA temp_store = MEMORY;",
        ))
    }

    fn error(&self, error: rusqlite::Error) -> StoreError {
        StoreError::Sqlite(self.name.clone(), error)
    }

    fn get<T: rusqlite::types::FromSql>(&self, sql: &str) -> Result<T, StoreError> {
        self.connection.query_row(sql, [], |row| row.get(0)).map_err(|e| self.error(e))
    }
}

/// The word serde writes for a unit variant.
fn word<T: serde::Serialize>(value: T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn from_word<T: serde::de::DeserializeOwned>(word: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_database_of_the_first_version_is_brought_up_to_date() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("piboot.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(SCHEMAS[0]).unwrap();
        old.execute_batch(
            "INSERT INTO pi VALUES ('dc:a6:32:00:00:01', '0000000a', 10498321, 'pi4', 'guid', 5, 9);
             INSERT INTO boot VALUES (7, 'dc:a6:32:00:00:01', NULL, 5, 'running', '{}');
             PRAGMA user_version = 1;",
        )
        .unwrap();
        drop(old);
        let store = Store::open(&path).unwrap();
        let pis = store.pis(10).unwrap();
        assert_eq!((pis.len(), pis[0].asked, pis[0].asked_ms, pis[0].last_seen_ms), (1, 1, 9, 9));
        assert_eq!(store.get::<i32>("PRAGMA user_version").unwrap(), SCHEMA_VERSION);
        drop(store);
        assert_eq!(Store::open(&path).unwrap().get::<i32>("SELECT count(*) FROM boot").unwrap(), 1);
    }
}
