//! What the spool does: each order, with its answer to a full or failing disk and to a damaged file.
//!
//! The file is changed first, in one transaction, and memory after the commit: whatever fails leaves both as they were.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::error;

use super::SpoolId;
use super::codec::{self, DecodeError};
use super::commit::{Failed, try_put, try_remove};
use super::dropped::{DropCause, Dropped};
use super::error::SpoolError;
use super::file::{SpoolFile, is_damage, is_want_of_room};
use super::index::Index;
use super::open::open_error;
use super::queue::{Entry, Queue};
use super::recover::recover;
use super::shared::Shared;
use super::sizes::Sizes;
use super::thread::{HandedOut, Put};
use crate::domain::Batch;

/// When the disk is full, room is made for this many times what is needed, one try after the other; 0 asks for no more
/// than the cap does. The first failure may be for want of room in the log, which copying it back cures.
const ROOM_FACTORS: [u64; 4] = [0, 1, 4, 16];
/// Free pages above which the file is cut (2 MiB; an empty spool's is cut at once), and those that are left in it
/// (1 MiB), so that a spool that is filled and emptied all the time keeps its file as it is.
const FREE_PAGES_MAX: u64 = 512;
const FREE_PAGES_KEPT: u64 = 256;

/// The file and what is in it. Owned by the spool thread.
pub(super) struct Engine {
    /// Absent when a damaged file could not be put right; the next order tries again.
    file: Option<SpoolFile>,
    queue: Queue,
    shared: Arc<Shared>,
    shrinking: bool,
    // Last, so that it is given up after the file is closed.
    _lock: File,
}

impl Engine {
    pub(super) fn new(file: SpoolFile, index: Index, lock: File, shared: Arc<Shared>) -> Self {
        let mut engine = Self {
            file: Some(file),
            queue: index.queue,
            shared,
            shrinking: true,
            _lock: lock,
        };
        engine.count_unknown(index.damaged);
        if let Some(recovered) = engine.shared.opened.recovered.clone() {
            for head in &recovered.lost {
                let entry = engine.queue.entry(SpoolId::default(), 0, head);
                engine.shared.lost(Dropped::of(&entry, DropCause::Damaged));
            }
            engine.count_unknown(recovered.lost_batches - recovered.lost.len() as u64);
        }
        engine.publish();
        engine
    }

    /// How the cap is shared out.
    pub(super) fn sizes(&self) -> Sizes {
        Sizes::of(self.shared.options.bytes_max)
    }

    /// Puts all of them in one commit, or none.
    pub(super) fn put(&mut self, puts: &[Put]) -> Result<Vec<SpoolId>, SpoolError> {
        let bytes_max = self.sizes().commit_bytes_max;
        if let Some(put) = puts.iter().find(|put| put.encoded.len() as u64 > bytes_max) {
            return Err(SpoolError::TooLarge {
                bytes: put.encoded.len(),
                bytes_max,
            });
        }
        let victims = self.commit(puts)?;
        for victim in victims {
            self.queue.remove(victim.id);
            self.shared.lost(Dropped::of(&victim, DropCause::Full));
        }
        let ids = puts.iter().map(|put| {
            let id = self.queue.last().next();
            let entry = self.queue.entry(id, put.encoded.len() as u64, &put.head);
            self.queue.push(entry);
            id
        });
        let ids = ids.collect();
        self.publish();
        Ok(ids)
    }

    /// Hands out the oldest batches. Damaged ones are set aside on the way.
    pub(super) fn oldest(&mut self, batches: usize) -> Result<HandedOut, SpoolError> {
        let mut found: Vec<(SpoolId, Batch)> = Vec::new();
        let mut passed = self.shared.handed_out().clone();
        let mut healed = false;
        while found.len() < batches {
            let Some(id) = self.queue.oldest(&passed).map(|entry| entry.id) else {
                break;
            };
            match self.file()?.encoded(id) {
                Ok(Some(encoded)) => match codec::decode(&encoded) {
                    Ok(batch) => {
                        passed.insert(id);
                        found.push((id, batch));
                    }
                    Err(error) if error.is_of_a_later_release() => self.queue.mark_unreadable(id),
                    Err(error) => self.set_aside(id, &error)?,
                },
                Ok(None) => self.lose(id),
                Err(cause) if is_damage(&cause) && !healed => {
                    healed = true;
                    self.heal(cause)?;
                    found.retain(|(id, _)| self.queue.contains(*id));
                }
                Err(cause) => return Err(self.disk_error("read", cause)),
            }
        }
        self.publish();
        Ok(HandedOut::new(found, self.shared.clone()))
    }

    /// Removes batches in one commit.
    pub(super) fn remove(&mut self, ids: &[SpoolId]) -> Result<(), SpoolError> {
        let mut tries = 0;
        while let Err(cause) = try_remove(self.file()?, ids) {
            tries += 1;
            if tries > 1 {
                return Err(self.disk_error("remove from", cause));
            } else if is_damage(&cause) {
                self.heal(cause)?;
            } else {
                self.make_room_in_log()?;
            }
        }
        let mut handed_out = self.shared.handed_out();
        for id in ids {
            self.queue.remove(*id);
            handed_out.remove(id);
        }
        drop(handed_out);
        let free_max = match self.queue.batches() {
            0 => FREE_PAGES_KEPT,
            _ => FREE_PAGES_MAX,
        };
        let free = self.file()?.free_pages();
        self.shrinking = free.is_ok_and(|free| free > free_max);
        self.publish();
        Ok(())
    }

    /// Cuts a slice of free pages off the file. Returns whether there is more to do.
    pub(super) fn give_back_space(&mut self) -> bool {
        let (true, Some(file)) = (self.shrinking, self.file.as_ref()) else {
            return false;
        };
        let cut = file.free_pages().and_then(|free| {
            let surplus = free.saturating_sub(FREE_PAGES_KEPT);
            if surplus == 0 {
                return file.copy_back().map(|()| false);
            }
            file.vacuum(surplus.min(file.sizes().vacuum_pages))?;
            Ok(true)
        });
        // After a failure the next removal tries again.
        self.shrinking = cut.unwrap_or(false);
        if !self.shrinking {
            self.publish();
        }
        self.shrinking
    }

    /// Closes the file; SQLite copies the log back and syncs.
    pub(super) fn close(self) {
        drop(self);
    }

    /// Tries until it is committed or cannot be. Returns what was dropped for it.
    fn commit(&mut self, puts: &[Put]) -> Result<Vec<Entry>, SpoolError> {
        let mut factors = ROOM_FACTORS.into_iter();
        let mut factor = 0;
        let mut healed = false;
        loop {
            self.file()?;
            let handed_out = self.shared.handed_out().clone();
            let file = self.file.as_mut().ok_or(SpoolError::Closed)?;
            let cause = match try_put(file, &self.queue, &handed_out, puts, factor) {
                Ok(victims) => {
                    // The batch is in the log by now; what fails here will be tried again by the next put.
                    drop(file.fit());
                    return Ok(victims);
                }
                Err(Failed::NoRoom) => return Err(SpoolError::NoRoom),
                Err(Failed::Sql(cause)) => cause,
            };
            if is_damage(&cause) && !healed {
                healed = true;
                self.heal(cause)?;
                continue;
            }
            factor = match factors.next() {
                Some(next) if is_want_of_room(&cause) => next,
                _ => return Err(self.disk_error("write to", cause)),
            };
            self.make_room_in_log()?;
        }
    }

    /// A commit may have failed for want of room in the log. When this fails too, so will the next try, which says why.
    fn make_room_in_log(&mut self) -> Result<(), SpoolError> {
        let file = self.file()?;
        drop(file.fit().and_then(|()| file.copy_back()));
        Ok(())
    }

    /// The open file; opened anew when the last attempt to put it right failed.
    fn file(&mut self) -> Result<&mut SpoolFile, SpoolError> {
        if self.file.is_none() {
            let (path, options) = (&self.shared.path, &self.shared.options);
            match SpoolFile::open(path, options) {
                Ok(file) => self.adopt(file)?,
                Err(cause) if is_damage(&cause) => self.heal(cause)?,
                Err(cause) => return Err(open_error(path, cause)),
            }
        }
        self.file.as_mut().ok_or(SpoolError::Closed)
    }

    /// Puts the damaged file aside and goes on with what is intact.
    fn heal(&mut self, cause: rusqlite::Error) -> Result<(), SpoolError> {
        if let Some(file) = self.file.take() {
            file.leave_log_alone();
        }
        let (file, recovered) = recover(&self.shared.path, &self.shared.options, cause)?;
        recovered.log();
        self.adopt(file)
    }

    /// Goes on with this file: what was known and is not in it is lost.
    fn adopt(&mut self, mut file: SpoolFile) -> Result<(), SpoolError> {
        let index = Index::of(&mut file, self.queue.last())
            .map_err(|cause| open_error(&self.shared.path, cause))?;
        let before = std::mem::replace(&mut self.queue, index.queue);
        for entry in before.entries().filter(|e| !self.queue.contains(e.id)) {
            self.shared.lost(Dropped::of(entry, DropCause::Damaged));
        }
        self.file = Some(file);
        self.publish();
        Ok(())
    }

    fn set_aside(&mut self, id: SpoolId, why: &DecodeError) -> Result<(), SpoolError> {
        let rows = self.queue.rows();
        match self.file()?.set_aside(id, &why.to_string()) {
            Ok(()) => self.lose(id),
            Err(cause) if is_damage(&cause) => self.heal(cause)?,
            Err(cause) => return Err(self.disk_error("set a damaged batch aside in", cause)),
        }
        error!(
            error = %why,
            rows = rows - self.queue.rows(),
            "a batch in the spool is damaged: it was set aside and is not delivered"
        );
        Ok(())
    }

    fn lose(&mut self, id: SpoolId) {
        if let Some(entry) = self.queue.remove(id) {
            self.shared.lost(Dropped::of(&entry, DropCause::Damaged));
        }
    }

    fn count_unknown(&self, batches: u64) {
        let damaged = &self.shared.counts.damaged_batches;
        damaged.fetch_add(batches, Ordering::Relaxed);
    }

    fn disk_error(&self, doing: &'static str, source: rusqlite::Error) -> SpoolError {
        let errors = &self.shared.counts.disk_errors;
        errors.fetch_add(1, Ordering::Relaxed);
        SpoolError::Disk {
            doing,
            path: self.shared.path.clone(),
            source,
        }
    }

    fn publish(&self) {
        let counts = &self.shared.counts;
        let file_bytes = self.file.as_ref().map_or(0, SpoolFile::bytes);
        for (count, value) in [
            (&counts.batches, self.queue.batches()),
            (&counts.rows, self.queue.rows()),
            (&counts.bytes, self.queue.bytes()),
            (&counts.unreadable, self.queue.unreadable()),
            (&counts.file_bytes, file_bytes),
        ] {
            count.store(value, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
