//! Probes under way, each answered for even when it is cut off.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::domain::{Endpoint, EndpointId, Timestamp};

/// Probes under way, by slot, so that each is answered for even when it is cut off.
#[derive(Default)]
pub(super) struct InFlight {
    slots: Vec<Option<(Rc<Endpoint>, Timestamp)>>,
    free: Vec<usize>,
    hosts: RefCell<HashMap<(Box<str>, u16), usize>>,
    by_host: bool,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn to_host(&self, endpoint: &Endpoint) -> usize {
        let key = (endpoint.target.host.clone(), endpoint.target.port);
        self.hosts.borrow().get(&key).copied().unwrap_or(0)
    }

    pub(super) fn enter(
        &mut self,
        endpoint: &Rc<Endpoint>,
        scheduled_at: Timestamp,
        by_host: bool,
    ) -> usize {
        self.by_host = by_host;
        if by_host {
            let key = (endpoint.target.host.clone(), endpoint.target.port);
            *self.hosts.borrow_mut().entry(key).or_default() += 1;
        }
        let entry = Some((endpoint.clone(), scheduled_at));
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                self.slots.len() - 1
            }
        }
    }

    pub(super) fn leave(&mut self, slot: usize) -> (EndpointId, Timestamp) {
        let (endpoint, scheduled_at) = self.slots[slot]
            .take()
            .expect("a task leaves its slot once");
        self.free.push(slot);
        if self.by_host {
            let key = (endpoint.target.host.clone(), endpoint.target.port);
            let mut hosts = self.hosts.borrow_mut();
            if let Some(count) = hosts.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    hosts.remove(&key);
                }
            }
        }
        (endpoint.id, scheduled_at)
    }

    /// The oldest tick among them. Looks at every slot: twice a second, 4 000 of them are some microseconds.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.slots.iter().flatten().map(|(_, at)| *at).min()
    }

    pub(super) fn rest(&mut self) -> Vec<(EndpointId, Timestamp)> {
        let rest = self
            .slots
            .drain(..)
            .flatten()
            .map(|(endpoint, at)| (endpoint.id, at))
            .collect();
        self.free.clear();
        rest
    }
}
