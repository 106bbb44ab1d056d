//! The two transactions that change what is in the spool.

use std::collections::HashSet;

use super::SpoolId;
use super::file::{self, SpoolFile};
use super::queue::{Entry, Queue};
use super::sizes::pages;
use super::thread::Put;

/// Why a commit did not come about.
pub(super) enum Failed {
    /// There is nothing more to drop.
    NoRoom,
    /// SQLite failed; the transaction was rolled back.
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// Drops the oldest batches until there is room, then inserts. Returns what was dropped.
pub(super) fn try_put(
    file: &mut SpoolFile,
    queue: &Queue,
    handed_out: &HashSet<SpoolId>,
    puts: &[Put],
    room_factor: u64,
) -> Result<Vec<Entry>, Failed> {
    let pages_max = file.pages_max();
    let needed: u64 = puts.iter().map(|put| pages(put.encoded.len())).sum();
    let transaction = file.begin()?;
    let mut droppable = queue.droppable(handed_out);
    let mut victims = Vec::new();
    loop {
        let below_cap = file::used_pages(&transaction)? + needed <= pages_max;
        let enough_free = file::free_pages(&transaction)? >= needed * room_factor;
        if below_cap && enough_free {
            break;
        }
        match droppable.next() {
            Some(victim) => {
                file::delete(&transaction, victim.id)?;
                victims.push(victim.clone());
            }
            None if below_cap => break,
            None => return Err(Failed::NoRoom),
        }
    }
    let mut id = queue.last();
    for put in puts {
        id = id.next();
        file::insert(&transaction, id, &put.encoded)?;
    }
    transaction.commit()?;
    Ok(victims)
}

/// Removes what is there of these.
pub(super) fn try_remove(file: &mut SpoolFile, ids: &[SpoolId]) -> rusqlite::Result<()> {
    let transaction = file.begin()?;
    for id in ids {
        file::delete(&transaction, *id)?;
    }
    transaction.commit()
}
