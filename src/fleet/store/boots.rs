//! The boots that were followed.

use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError, word};
use crate::boot::Boot;
use crate::clock::FIRST_DATE_MS;
use crate::pi::Mac;

/// Boots kept per Pi.
const BOOTS_PER_PI: u32 = 50;
/// Boots kept of all Pis that nobody enrolled: anyone on the LAN can make one up.
const BOOTS_OF_STRANGERS: u32 = 100;
/// Boots kept in all.
const BOOTS_IN_ALL: u32 = 5000;
/// Bytes of the database above which the oldest boots go; talkative consoles and packets are the bulk of it.
const HISTORY_BYTES: i64 = 96 << 20;
/// So many of the oldest go at once then.
const OLDEST: u32 = 20;
/// Boots that began this much earlier than the newest, in ms: a year.
const HISTORY_MS: i64 = 365 * 86_400_000;
/// The last boots, whose packets are kept.
const PACKETS_OF_BOOTS: u32 = 1000;

impl Store {
    /// Stores a boot; a new one (id 0) gets its number.
    ///
    /// # Errors
    /// When the database cannot be written; the boot is as it was.
    pub fn save_boot(&self, boot: &mut Boot) -> Result<(), StoreError> {
        let before = boot.id;
        // One transaction: each writes whole pages.
        let transaction = self.connection.unchecked_transaction().map_err(|e| self.error(e))?;
        let saved = self.write_boot(boot).and_then(|()| transaction.commit().map_err(|e| self.error(e)));
        if saved.is_err() {
            boot.id = before;
        }
        saved
    }

    fn write_boot(&self, boot: &mut Boot) -> Result<(), StoreError> {
        let mac = boot.mac.to_string();
        let is_new = boot.id == 0;
        let insert = |id: Option<i64>, story: &str| {
            self.connection
                .prepare_cached("INSERT OR REPLACE INTO boot VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![id, mac, boot.device, boot.started_ms, word(boot.state), story])
        };
        if is_new {
            insert(None, "{}").map_err(|e| self.error(e))?;
            boot.id = self.connection.last_insert_rowid();
        }
        let story = serde_json::to_string(boot).map_err(|e| StoreError::Encoding(self.name.clone(), e))?;
        let device = boot.device.clone();
        self.connection
            .prepare_cached("UPDATE boot SET device = ?2, state = ?3, story = ?4 WHERE id = ?1")
            .and_then(|mut s| s.execute(params![boot.id, device, word(boot.state), story]))
            .map_err(|e| self.error(e))?;
        if is_new {
            let sql = "DELETE FROM boot WHERE mac = ?1 AND id NOT IN (SELECT id FROM boot WHERE mac = ?1 ORDER BY id DESC LIMIT ?2)";
            let strangers = "DELETE FROM boot WHERE device IS NULL AND id NOT IN (SELECT id FROM boot WHERE device IS NULL ORDER BY id DESC LIMIT ?1)";
            let all = "DELETE FROM boot WHERE id <= (SELECT max(id) FROM boot) - ?1";
            self.connection
                .execute(sql, params![mac, BOOTS_PER_PI])
                .and_then(|_| self.connection.execute(strangers, [BOOTS_OF_STRANGERS]))
                .and_then(|_| self.connection.execute(all, [BOOTS_IN_ALL]))
                .and_then(|_| self.forget_old_boots(boot.started_ms))
                .map_err(|e| self.error(e))?;
        }
        Ok(())
    }

    /// Bounds the history by age and by size.
    fn forget_old_boots(&self, now_ms: i64) -> rusqlite::Result<()> {
        // By earlier dates than the first nobody can tell an age.
        let old = "DELETE FROM boot WHERE started_ms BETWEEN ?1 AND ?2 AND state <> 'running'";
        self.connection.execute(old, [FIRST_DATE_MS, now_ms.saturating_sub(HISTORY_MS)])?;
        let number = |pragma: &str| self.connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
        let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
        if pages.saturating_mul(number("PRAGMA page_size")?) > HISTORY_BYTES {
            let oldest = "DELETE FROM boot WHERE id IN (SELECT id FROM boot ORDER BY id LIMIT ?1)";
            self.connection.execute(oldest, [OLDEST])?;
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

    /// Stores the packets of a boot that has its number, if there are new ones.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn save_packets_of(&self, boot: &mut Boot) -> Result<(), StoreError> {
        if std::mem::take(&mut boot.packets.unsaved)
            && let Err(error) = self.save_packets(boot.id, boot.packets.file())
        {
            boot.packets.unsaved = true;
            return Err(error);
        }
        Ok(())
    }

    /// Stores the packets of a boot, as a pcap file. Those of the oldest boots make room.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn save_packets(&self, boot: i64, file: &[u8]) -> Result<(), StoreError> {
        let save = || -> rusqlite::Result<()> {
            self.connection.execute("INSERT OR REPLACE INTO packets VALUES (?1, ?2)", params![boot, file])?;
            let sql = "DELETE FROM packets WHERE boot <= (SELECT max(boot) FROM packets) - ?1";
            self.connection.execute(sql, [PACKETS_OF_BOOTS]).map(drop)
        };
        save().map_err(|e| self.error(e))
    }

    /// The packets of a boot, as a pcap file; empty if none were kept.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn packets(&self, boot: i64) -> Result<Vec<u8>, StoreError> {
        let sql = "SELECT bytes FROM packets WHERE boot = ?1";
        let found = self.connection.query_row(sql, [boot], |row| row.get(0)).optional();
        found.map(Option::unwrap_or_default).map_err(|e| self.error(e))
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::BootState;
    use crate::clock::Moment;

    fn mac(n: u16) -> Mac {
        let [high, low] = n.to_be_bytes();
        Mac([0xb8, 0x27, 0xeb, 1, high, low])
    }

    #[test]
    fn what_is_stored_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("piboot.db");
        let mut boot = Boot::new(mac(1), Some("lion".to_owned()), Moment::default(), 77);
        {
            let store = Store::open(&path).unwrap();
            store.save_boot(&mut boot).unwrap();
            boot.state = BootState::Running;
            store.save_boot(&mut boot).unwrap();
        }
        let store = Store::open(&path).unwrap();
        assert_eq!(store.boot(boot.id).unwrap().unwrap().state, BootState::Running);
        assert_eq!(store.boots(Some(mac(2)), 10).unwrap(), []);
    }

    #[test]
    fn history_is_bounded_per_pi() {
        let store = Store::in_memory().unwrap();
        for n in 0..BOOTS_PER_PI + 5 {
            store.save_boot(&mut Boot::new(mac(1), None, Moment::default(), i64::from(n))).unwrap();
        }
        let boots = store.boots(None, 1000).unwrap();
        assert_eq!(boots.len(), BOOTS_PER_PI as usize);
        assert_eq!(boots[0].started_ms, i64::from(BOOTS_PER_PI + 4), "the oldest went");
    }

    #[test]
    fn packets_go_with_their_boot_and_with_time() {
        let store = Store::in_memory().unwrap();
        let mut first = Boot::new(mac(1), None, Moment::default(), 0);
        store.save_boot(&mut first).unwrap();
        store.save_packets(first.id, b"old").unwrap();
        store.save_packets(first.id, b"pcap").unwrap();
        store.save_boot(&mut first).unwrap();
        assert_eq!((store.packets(first.id).unwrap(), store.packets(99).unwrap()), (b"pcap".to_vec(), vec![]));
        for n in 0..BOOTS_OF_STRANGERS {
            store.save_boot(&mut Boot::new(mac(2), None, Moment::default(), i64::from(n))).unwrap();
            store.save_boot(&mut Boot::new(mac(3), None, Moment::default(), i64::from(n))).unwrap();
        }
        assert!(store.boot(first.id).unwrap().is_none() && store.packets(first.id).unwrap().is_empty());
        store.save_packets(1, b"x").unwrap();
        store.save_packets(i64::from(PACKETS_OF_BOOTS) + 1, b"x").unwrap();
        assert!(store.packets(1).unwrap().is_empty());
    }

    #[test]
    fn history_is_bounded_by_age_and_size() {
        let store = Store::in_memory().unwrap();
        let boot = |n: u8, started_ms| {
            Boot::new(Mac([0xb8, 0x27, 0xeb, 0, 0, n]), Some(format!("pi_{n}")), Moment::default(), started_ms)
        };
        let began = FIRST_DATE_MS + 1;
        for (n, started_ms) in [(1, 5), (2, began), (3, began + HISTORY_MS - 1)] {
            store.save_boot(&mut boot(n, started_ms)).unwrap();
        }
        assert_eq!(store.boots(None, 9).unwrap().len(), 3);
        store.save_boot(&mut boot(4, began + HISTORY_MS)).unwrap();
        let left: Vec<i64> = store.boots(None, 9).unwrap().iter().map(|boot| boot.started_ms).collect();
        assert_eq!(left, [began + HISTORY_MS, began + HISTORY_MS - 1, 5], "of the first nobody knows the age");
        // Packets of half a megabyte each: some two hundred boots are too much.
        for n in 0..250 {
            let mut next = boot(u8::try_from(n % 200).unwrap(), began + HISTORY_MS + n);
            store.save_boot(&mut next).unwrap();
            store.save_packets(next.id, &vec![7; 512 << 10]).unwrap();
        }
        let kept = store.boots(None, 1000).unwrap();
        assert!((150..200).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept[0].started_ms, began + HISTORY_MS + 249, "the newest stays");
    }

    #[test]
    fn strangers_cannot_fill_the_disk() {
        let store = Store::in_memory().unwrap();
        let mut known = Boot::new(mac(0), Some("lion".to_owned()), Moment::default(), 0);
        store.save_boot(&mut known).unwrap();
        for n in 1..300 {
            store.save_boot(&mut Boot::new(mac(n), None, Moment::default(), 1)).unwrap();
        }
        assert_eq!(store.boots(None, 1000).unwrap().len(), BOOTS_OF_STRANGERS as usize + 1);
        assert!(store.boot(known.id).unwrap().is_some());
    }
}
