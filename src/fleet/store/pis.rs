//! The Pis that were seen.

use rusqlite::{Connection, params};

use super::{Store, StoreError, word};
use crate::fleet::seen::{MAX_SEEN, SeenPi};
use crate::pi::{Evidence, Mac, Model, Revision, Serial};

impl Store {
    /// Stores Pis that were seen and takes out those that are forgotten, in one transaction.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn save_pis<'a>(
        &mut self,
        pis: impl IntoIterator<Item = &'a SeenPi>,
        forgotten: &[Mac],
    ) -> Result<(), StoreError> {
        let save = |connection: &mut Connection| -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            for mac in forgotten {
                transaction.prepare_cached("DELETE FROM pi WHERE mac = ?1")?.execute([mac.to_string()])?;
            }
            let insert = "INSERT OR REPLACE INTO pi (mac, serial, revision, model, evidence, first_seen_ms, last_seen_ms, asked, asked_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
            for pi in pis {
                transaction.prepare_cached(insert)?.execute(params![
                    pi.mac.to_string(),
                    pi.serial.map(|s| s.to_string()),
                    pi.revision.map(Revision::word),
                    pi.model.map(Model::name),
                    evidence_word(pi.evidence),
                    pi.first_seen_ms,
                    pi.last_seen_ms,
                    pi.asked,
                    pi.asked_ms,
                ])?;
            }
            // Should more be stored than are remembered: what a flood made up goes first.
            let trim = "DELETE FROM pi WHERE mac NOT IN (SELECT mac FROM pi ORDER BY asked < 2, evidence = 'oui', last_seen_ms DESC LIMIT ?1)";
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
            let sql = "SELECT mac, serial, revision, model, evidence, first_seen_ms, last_seen_ms, asked, asked_ms FROM pi ORDER BY last_seen_ms DESC LIMIT ?1";
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
                    asked: row.get(7)?,
                    asked_ms: row.get(8)?,
                    ..SeenPi::new(mac, Evidence::Oui, row.get(6)?)
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

    fn pi(n: u16) -> SeenPi {
        let [high, low] = n.to_be_bytes();
        SeenPi {
            serial: Some(Serial(0x10)),
            revision: Revision::new(0xa0_3111),
            model: Some(Model::Pi4),
            first_seen_ms: 1,
            asked: 3,
            asked_ms: i64::from(n),
            asking_since_ms: i64::from(n),
            ..SeenPi::new(Mac([0xdc, 0xa6, 0x32, 0, high, low]), Evidence::Guid, i64::from(n))
        }
    }

    #[test]
    fn what_is_stored_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("piboot.db");
        Store::open(&path).unwrap().save_pis([&pi(1), &pi(2), &pi(3)], &[]).unwrap();
        let mut store = Store::open(&path).unwrap();
        assert_eq!(store.pis(10).unwrap(), [pi(3), pi(2), pi(1)]);
        store.forget_pi(pi(2).mac).unwrap();
        store.save_pis([], &[pi(3).mac]).unwrap();
        assert_eq!(store.pis(10).unwrap(), [pi(1)]);
    }

    #[test]
    fn strangers_cannot_fill_the_disk() {
        let mut store = Store::in_memory().unwrap();
        let made_up = |n: u16| SeenPi { asked: 1, ..pi(n) };
        let flood: Vec<SeenPi> = (10..2000).map(made_up).collect();
        store.save_pis([&pi(1)], &[]).unwrap();
        store.save_pis(&flood, &[]).unwrap();
        let left = store.pis(5000).unwrap();
        assert_eq!(left.len(), MAX_SEEN);
        assert!(left.iter().any(|seen| seen.mac == pi(1).mac));
    }
}
