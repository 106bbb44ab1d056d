//! What is in the file, in memory: order, sizes and spans. Pure; it decides which batch goes next and which is
//! dropped, and has no idea of SQLite.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::SpoolId;
use super::codec::Head;
use crate::domain::{AgentIdentity, Timestamp};

/// One batch in the file.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Entry {
    pub(super) id: SpoolId,
    /// Encoded size.
    pub(super) bytes: u64,
    pub(super) rows: u64,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) agent: Arc<AgentIdentity>,
    /// Only a later release can read it.
    pub(super) unreadable: bool,
}

/// The batches of the file, oldest first, and their sums.
#[derive(Default, Debug)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    agents: HashSet<Arc<AgentIdentity>>,
    rows: u64,
    bytes: u64,
    unreadable: u64,
    last: SpoolId,
}

impl Queue {
    /// Empty; ids go on after `last`. An id is never used twice in one process: an order to remove one may come late.
    pub(super) fn after(last: SpoolId) -> Self {
        Self {
            last,
            ..Self::default()
        }
    }

    /// An entry for a batch with this head; identities are shared between entries.
    pub(super) fn entry(&mut self, id: SpoolId, bytes: u64, head: &Head) -> Entry {
        let agent = match self.agents.get(&head.agent) {
            Some(agent) => agent.clone(),
            None => {
                let agent = Arc::new(head.agent.clone());
                self.agents.insert(agent.clone());
                agent
            }
        };
        Entry {
            id,
            bytes,
            rows: u64::from(head.rows),
            from: head.from,
            to: head.to,
            agent,
            unreadable: false,
        }
    }

    /// The newest comes last: ids grow.
    pub(super) fn push(&mut self, entry: Entry) {
        debug_assert!(self.entries.back().is_none_or(|last| last.id < entry.id));
        self.last = self.last.max(entry.id);
        self.rows += entry.rows;
        self.bytes += entry.bytes;
        self.unreadable += u64::from(entry.unreadable);
        self.entries.push_back(entry);
    }

    pub(super) fn remove(&mut self, id: SpoolId) -> Option<Entry> {
        let place = self.place(id)?;
        let entry = self.entries.remove(place)?;
        self.rows -= entry.rows;
        self.bytes -= entry.bytes;
        self.unreadable -= u64::from(entry.unreadable);
        Some(entry)
    }

    pub(super) fn mark_unreadable(&mut self, id: SpoolId) {
        let Some(place) = self.place(id) else { return };
        let entry = &mut self.entries[place];
        if !std::mem::replace(&mut entry.unreadable, true) {
            self.unreadable += 1;
        }
    }

    /// The oldest that can be replayed and is not among those `handed_out`.
    pub(super) fn oldest(&self, handed_out: &HashSet<SpoolId>) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| !entry.unreadable && !handed_out.contains(&entry.id))
    }

    /// What may be dropped, oldest first: not those `handed_out`, since their fate is being decided elsewhere.
    pub(super) fn droppable<'a>(
        &'a self,
        handed_out: &'a HashSet<SpoolId>,
    ) -> impl Iterator<Item = &'a Entry> {
        self.entries
            .iter()
            .filter(|entry| !handed_out.contains(&entry.id))
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(super) fn batches(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// The last id that was used.
    pub(super) fn last(&self) -> SpoolId {
        self.last
    }

    pub(super) fn contains(&self, id: SpoolId) -> bool {
        self.place(id).is_some()
    }

    fn place(&self, id: SpoolId) -> Option<usize> {
        self.entries
            .binary_search_by_key(&id, |entry| entry.id)
            .ok()
    }
}
