//! Connections kept between the probes of an endpoint: one each.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::uri::Scheme;

use super::hop::Hop;
use super::link::Link;
use crate::domain::{Check, Endpoint, EndpointId, Target};

/// A connection that was not used for longer than the longest interval will not be used again.
const IDLE_MAX: Duration = Duration::from_secs(330);
/// How often idle ones are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// The kept connections, by endpoint.
#[derive(Default)]
pub(in crate::probe) struct Kept {
    links: RefCell<HashMap<EndpointId, Entry>>,
    swept_at: Cell<Option<Instant>>,
}

struct Entry {
    link: Link,
    scheme: Scheme,
    host: Box<str>,
    port: u16,
    /// The settings under which it was made; an edited endpoint has others.
    check: Arc<Check>,
    used_at: Instant,
}

impl Kept {
    /// The endpoint's connection, if it leads where `hop` goes.
    pub(super) fn take(&self, endpoint: &Endpoint, hop: &Hop<'_>) -> Option<Link> {
        let mut links = self.links.borrow_mut();
        let entry = links.get(&endpoint.id)?;
        if !Arc::ptr_eq(&entry.check, &endpoint.check) {
            links.remove(&endpoint.id);
            return None;
        }
        if !entry.leads_to(&hop.target) {
            return None;
        }
        links.remove(&endpoint.id).map(|entry| entry.link)
    }

    /// Keeps the connection over which `hop` went, instead of any other of the endpoint.
    pub(super) fn put(&self, endpoint: &Endpoint, hop: &Hop<'_>, mut link: Link) {
        let now = Instant::now();
        self.sweep(now);
        if link.is_closed() {
            return;
        }
        let entry = Entry {
            link,
            scheme: hop.target.scheme.clone(),
            host: hop.target.host.clone(),
            port: hop.target.port,
            check: Arc::clone(&endpoint.check),
            used_at: now,
        };
        self.links.borrow_mut().insert(endpoint.id, entry);
    }

    /// Closes the endpoint's connection.
    pub(in crate::probe) fn forget(&self, id: EndpointId) {
        self.links.borrow_mut().remove(&id);
    }

    fn sweep(&self, now: Instant) {
        let is_recent = |at: Instant| now.duration_since(at) < SWEEP_EVERY;
        if self.swept_at.get().is_some_and(is_recent) {
            return;
        }
        self.swept_at.set(Some(now));
        self.links.borrow_mut().retain(|_, entry| {
            !entry.link.is_closed() && now.duration_since(entry.used_at) < IDLE_MAX
        });
    }
}

impl Entry {
    fn leads_to(&self, target: &Target) -> bool {
        self.scheme == target.scheme && self.host == target.host && self.port == target.port
    }
}
