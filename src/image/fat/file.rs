//! A file of a FAT volume that can be read anywhere: another volume lies in it.

use std::io;

use super::{Fat, FatEntry, FatError, read};
use crate::image::blocks::BlockSource;

/// Stretches of neighbouring clusters that a file may have: a file of 180 MB in clusters of 512 bytes, at its worst.
const MAX_RUNS: usize = 360_000;

/// A file, and where its bytes are.
pub struct FatFile<'a> {
    source: &'a dyn BlockSource,
    size: u64,
    /// First byte in the file and first byte in the volume, in the order of the file.
    runs: Vec<(u64, u64)>,
}

impl<'a> Fat<'a> {
    /// A file to be read anywhere.
    ///
    /// # Errors
    /// Damage, or what reading met.
    pub fn file(&self, entry: &FatEntry) -> Result<FatFile<'a>, FatError> {
        let damaged = |what| FatError::damaged(&entry.name, what);
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut cluster = entry.cluster;
        let mut expected = None;
        let mut at = 0;
        while at < u64::from(entry.size) {
            if cluster < 2 || cluster - 2 >= self.boot.clusters {
                return Err(damaged("its cluster chain leaves the volume or ends early"));
            }
            let left = self.budget.get().checked_sub(1);
            self.budget.set(left.ok_or_else(|| damaged("files share clusters, or a chain runs in a circle"))?);
            if expected != Some(cluster) {
                runs.push((at, self.boot.data_offset + u64::from(cluster - 2) * self.boot.cluster_size));
                if runs.len() > MAX_RUNS {
                    return Err(damaged("it is in too many pieces"));
                }
            }
            at += self.boot.cluster_size;
            expected = Some(cluster + 1);
            cluster = self.entry(cluster)?;
        }
        Ok(FatFile { source: self.source, size: entry.size.into(), runs })
    }
}

impl BlockSource for FatFile<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut run = self.runs.partition_point(|(start, _)| *start <= offset);
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let (start, place) =
                *run.checked_sub(1).and_then(|n| self.runs.get(n)).ok_or(io::ErrorKind::UnexpectedEof)?;
            let end = self.runs.get(run).map_or(self.size, |(next, _)| *next);
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(rest.len());
            let (piece, behind) = rest.split_at_mut(length);
            read(self.source, piece, place + (at - start)).map_err(|error| match error {
                FatError::Read { source, .. } => source,
                other => io::Error::other(other.to_string()),
            })?;
            at += length as u64;
            rest = behind;
            run += 1;
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.size
    }
}
