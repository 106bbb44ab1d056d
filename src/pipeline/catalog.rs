//! From rows of `endpoints` to commands for the worker. A bad row becomes problems that its owner can see; the others
//! run on. What is probed is remembered on disk, for a start without the table.

mod memory;
mod removal;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use self::removal::Removals;
use super::clock::wall_now;
use super::keeper::{chain, random};
use super::{Changed, Command};
use crate::config::{EndpointRow, Problem};
use crate::domain::{Backoff, Endpoint, EndpointId, Timestamp};
use crate::store::{BoxFuture, CatalogChange, HeldRemoval};
use crate::telemetry;

pub use self::memory::{CatalogMemory, Forgetful};
pub use self::removal::RemovalOptions;

/// Endpoints in one message to the worker, which applies one message between two turns of probes: to remove one took 3 µs,
/// so a message takes no longer than some twenty starts.
const CHUNK: usize = 200;

/// An error of the catalog's source.
pub type SourceError = Box<dyn std::error::Error>;

/// How far a look for changes came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loaded {
    /// All changes were given.
    UpToDate,
    /// The source does not know any more what changed since: load everything anew.
    Reload,
}

/// Why a row is not probed, and since when.
#[derive(Clone, PartialEq, Debug)]
pub struct RowProblems {
    /// The row.
    pub endpoint: EndpointId,
    /// Since when it is not probed for it.
    pub since: Timestamp,
    /// What is wrong; nothing when it is right again.
    pub problems: Vec<Problem>,
}

/// Where the endpoints stand: a table today. Calls end within deadlines of the source's own.
pub trait CatalogSource {
    /// All endpoints of this partition and location; remembers where it stood.
    fn load<'a>(
        &'a mut self,
        each: &'a mut dyn FnMut(CatalogChange),
    ) -> BoxFuture<'a, Result<(), SourceError>>;
    /// What changed since the last call of either.
    fn changes<'a>(
        &'a mut self,
        each: &'a mut dyn FnMut(CatalogChange),
    ) -> BoxFuture<'a, Result<Loaded, SourceError>>;
    /// Returns when something may have changed.
    fn wait(&mut self) -> BoxFuture<'_, ()>;
    /// Of `gone`, those that are not for this agent, but were not deleted either.
    fn present<'a>(
        &'a mut self,
        gone: &'a [EndpointId],
    ) -> BoxFuture<'a, Result<Vec<EndpointId>, SourceError>>;
    /// Says what is probed although it was deleted, `None` when nothing is; whether somebody says that it was meant.
    fn hold(&mut self, held: Option<HeldRemoval>) -> BoxFuture<'_, Result<bool, SourceError>>;
    /// Replaces what is known to be wrong. `all` says that endpoints which are not named are right.
    fn report<'a>(
        &'a mut self,
        problems: &'a [RowProblems],
        all: bool,
    ) -> BoxFuture<'a, Result<(), SourceError>>;
}

/// Checks a row.
pub type Resolve<'a> = &'a mut dyn FnMut(&EndpointRow) -> Result<Endpoint, Vec<Problem>>;

/// What the worker probes, as the catalog has told it, and what is known to be bad.
pub struct Catalog {
    memory: Box<dyn CatalogMemory>,
    now: fn() -> Timestamp,
    /// Every row of ours, good or bad, by its last change.
    known: HashMap<EndpointId, Timestamp>,
    removals: Removals,
    /// When what an earlier run remembered was last in line with the table, until this run has begun.
    recalled: Option<Recalled>,
    begun: Option<Timestamp>,
    /// Every change before this instant has been heard of.
    heard: Heard,
    /// Whether the source says that something is held.
    hold_told: bool,
    bad: HashSet<EndpointId>,
    unreported: HashMap<EndpointId, RowProblems>,
    /// Until the first report has been written, it speaks for all endpoints: a former run may have left others.
    reported_all: bool,
}

/// Up to when the catalog has heard of changes.
#[derive(Clone, Default, Debug)]
pub struct Heard(Rc<Cell<Timestamp>>);

impl Heard {
    /// Every change before this instant has been heard of.
    pub fn until(&self) -> Timestamp {
        self.0.get()
    }
}

/// Of an earlier run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recalled {
    /// When it was last in line with the table.
    pub as_of: Timestamp,
    /// Since when it held deleted endpoints.
    pub held_since: Option<Timestamp>,
}

/// Everything that a load has given.
#[derive(Default)]
struct Read {
    known: HashMap<EndpointId, Timestamp>,
    changed: Vec<Changed>,
    bad: Vec<RowProblems>,
}

impl Catalog {
    /// An empty catalog. What is probed goes to `memory`.
    pub fn new(removals: RemovalOptions, memory: Box<dyn CatalogMemory>) -> Self {
        Self {
            memory,
            now: wall_now,
            known: HashMap::new(),
            removals: Removals::new(removals),
            recalled: None,
            begun: None,
            heard: Heard::default(),
            hold_told: false,
            bad: HashSet::new(),
            unreported: HashMap::new(),
            reported_all: false,
        }
    }

    /// Begins with what an earlier run remembered. Returns how many endpoints; `Err` when the worker is gone.
    pub async fn recall(
        &mut self,
        rows: impl Iterator<Item = EndpointRow>,
        recalled: Recalled,
        resolve: Resolve<'_>,
        commands: &mpsc::Sender<Command>,
    ) -> Result<usize, WorkerGone> {
        self.heard.0.set(recalled.as_of);
        self.recalled = Some(recalled);
        let mut chunk = Vec::new();
        for row in rows {
            self.known.insert(row.id, row.changed_at);
            match resolve(&row) {
                Ok(endpoint) => chunk.push(Changed {
                    endpoint,
                    at: row.changed_at,
                }),
                Err(problems) => self.is_bad(&row, problems),
            }
            if chunk.len() >= CHUNK {
                send(commands, std::mem::take(&mut chunk), Vec::new()).await?;
            }
        }
        send(commands, chunk, Vec::new()).await?;
        Ok(self.known.len() - self.bad.len())
    }

    /// How far it has heard; clones follow.
    pub fn heard(&self) -> Heard {
        self.heard.clone()
    }

    /// Endpoints that are probed.
    pub fn probed(&self) -> usize {
        self.known.len() - self.bad.len()
    }

    /// The schedule runs from `at` on.
    pub fn begun(&mut self, at: Timestamp) {
        self.begun = Some(at);
        self.recalled = None;
    }

    /// Loads everything and tells the worker what is new, changed or gone; the rest goes on where it was. Without
    /// `patience` however long the source is away, with it at most once and for so long; whether it was loaded. `Err`
    /// when the worker is gone.
    pub async fn load(
        &mut self,
        source: &mut dyn CatalogSource,
        resolve: Resolve<'_>,
        commands: &mpsc::Sender<Command>,
        patience: Option<Duration>,
    ) -> Result<bool, WorkerGone> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            match self.load_once(source, resolve, commands, patience).await {
                Ok(()) => return Ok(true),
                Err(LoadError::WorkerGone) => return Err(WorkerGone),
                Err(LoadError::Source(error)) => {
                    self.memory.abandon();
                    tracing::warn!(cause = chain(&*error), "the endpoints cannot be loaded yet");
                }
            }
            if patience.is_some() {
                return Ok(false);
            }
            let pause = sleep(backoff.next(random()));
            tokio::select! {
                () = pause => {}
                () = commands.closed() => return Err(WorkerGone),
            }
        }
    }

    async fn load_once(
        &mut self,
        source: &mut dyn CatalogSource,
        resolve: Resolve<'_>,
        commands: &mpsc::Sender<Command>,
        patience: Option<Duration>,
    ) -> Result<(), LoadError> {
        let begun = (self.now)();
        let reading = async {
            let read = self.read_all(source, resolve).await?;
            let gone = self.known.keys().copied();
            let gone = gone.filter(|id| !read.known.contains_key(id)).collect();
            Ok::<_, SourceError>((self.gone(source, gone).await?, read))
        };
        let (mut removed, read) = match patience {
            None => reading.await?,
            Some(patience) => timeout(patience, reading)
                .await
                .unwrap_or(Err("no answer in time".into()))?,
        };
        let Read {
            known,
            changed,
            bad,
        } = read;
        let before = std::mem::replace(&mut self.known, known);
        for id in self.removals.ids() {
            // Held: as it was before.
            if let Some(&at) = before.get(id) {
                self.known.insert(*id, at);
            }
        }
        self.bad.retain(|id| self.removals.holds(*id));
        self.unreported.clear();
        self.reported_all = false;
        for problems in bad {
            removed.push(problems.endpoint);
            self.bad.insert(problems.endpoint);
            self.unreported.insert(problems.endpoint, problems);
        }
        self.remember();
        self.heard.0.set(begun);
        if self.begun.is_some() && !(changed.is_empty() && removed.is_empty()) {
            tracing::info!(
                changed = changed.len(),
                removed = removed.len(),
                "endpoints changed while their table could not be read"
            );
        }
        send(commands, changed, removed).await?;
        // Who has no patience hears of it at the next look.
        if patience.is_none() {
            self.look_after_held(source, commands).await?;
            self.report(source).await;
        }
        Ok(())
    }

    async fn read_all(
        &mut self,
        source: &mut dyn CatalogSource,
        resolve: Resolve<'_>,
    ) -> Result<Read, SourceError> {
        let mut read = Read::default();
        let now = (self.now)();
        let Self {
            memory,
            known,
            bad,
            begun,
            removals,
            ..
        } = self;
        memory.begin();
        source
            .load(&mut |change| {
                let CatalogChange::Upsert(row) = &change else {
                    return;
                };
                read.known.insert(row.id, row.changed_at);
                removals.is_back(row.id);
                // As it was; but what was wrong with a bad row may lie outside of it.
                if known.get(&row.id) == Some(&row.changed_at) && !bad.contains(&row.id) {
                    memory.note(&change);
                    return;
                }
                match resolve(row) {
                    Ok(endpoint) => {
                        memory.note(&change);
                        read.changed.push(Changed {
                            endpoint,
                            at: row.changed_at,
                        });
                    }
                    // Not remembered: it is not probed, and may be refused for a secret that stands in it.
                    Err(problems) => read.bad.push(RowProblems {
                        endpoint: row.id,
                        since: unprobed_since(row, *begun, now),
                        problems,
                    }),
                }
            })
            .await?;
        Ok(read)
    }

    /// Follows changes until the worker is gone.
    pub async fn follow(
        &mut self,
        source: &mut dyn CatalogSource,
        resolve: Resolve<'_>,
        commands: &mpsc::Sender<Command>,
    ) -> WorkerGone {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            tokio::select! {
                () = source.wait() => {}
                () = commands.closed() => return WorkerGone,
            }
            let mut changes = Vec::new();
            let begun = (self.now)();
            let looked = source.changes(&mut |change| changes.push(change)).await;
            let reload = match looked {
                Ok(loaded) => loaded == Loaded::Reload || self.memory.wants_all(),
                Err(error) => {
                    tracing::debug!(
                        cause = chain(&*error),
                        "changes of the endpoints cannot be read yet"
                    );
                    sleep(backoff.next(random())).await;
                    continue;
                }
            };
            backoff.reset();
            let done = if reload {
                tracing::debug!("all endpoints are loaded anew");
                self.load(source, resolve, commands, None).await.map(drop)
            } else {
                match self.look(source, changes, resolve, commands).await {
                    Err(LoadError::Source(error)) => {
                        tracing::debug!(cause = chain(&*error), "a look was cut off");
                        self.load(source, resolve, commands, None).await.map(drop)
                    }
                    Err(LoadError::WorkerGone) => Err(WorkerGone),
                    Ok(()) => {
                        self.heard.0.set(begun);
                        Ok(())
                    }
                }
            };
            if done.is_err() {
                return WorkerGone;
            }
        }
    }

    /// Applies what a look has shown.
    async fn look(
        &mut self,
        source: &mut dyn CatalogSource,
        changes: Vec<CatalogChange>,
        resolve: Resolve<'_>,
        commands: &mpsc::Sender<Command>,
    ) -> Result<(), LoadError> {
        let gone = changes
            .iter()
            .filter_map(|change| match change {
                CatalogChange::Remove(id) if self.known.contains_key(id) => Some(*id),
                _ => None,
            })
            .collect();
        let mut removed = self.gone(source, gone).await?;
        let mut changed = Vec::new();
        for change in changes {
            match &change {
                CatalogChange::Remove(id) if self.removals.holds(*id) => continue,
                CatalogChange::Remove(id) => self.forget(*id),
                CatalogChange::Upsert(row) => {
                    self.removals.is_back(row.id);
                    self.known.insert(row.id, row.changed_at);
                    match resolve(row) {
                        Ok(endpoint) => {
                            self.cleared(row.id);
                            changed.push(Changed {
                                endpoint,
                                at: row.changed_at,
                            });
                        }
                        Err(problems) => {
                            // It may have been right before: what it said then is not what its owner wants now.
                            removed.push(row.id);
                            self.is_bad(row, problems);
                            self.memory.note(&CatalogChange::Remove(row.id));
                            continue;
                        }
                    }
                }
            }
            self.memory.note(&change);
        }
        self.remember();
        if !changed.is_empty() || !removed.is_empty() {
            tracing::info!(
                changed = changed.len(),
                removed = removed.len(),
                "endpoints changed"
            );
            send(commands, changed, removed).await?;
        }
        self.look_after_held(source, commands).await?;
        self.report(source).await;
        Ok(())
    }

    /// Which of the endpoints that are not there any more go now; the rest is held.
    async fn gone(
        &mut self,
        source: &mut dyn CatalogSource,
        mut gone: Vec<EndpointId>,
    ) -> Result<Vec<EndpointId>, SourceError> {
        gone.retain(|id| !self.removals.holds(*id));
        if gone.is_empty() || !self.removals.is_on() {
            return Ok(gone);
        }
        let now = (self.now)();
        // What an earlier run knew long ago has gone who knows when.
        let recalled = self.recalled;
        if recalled.is_some_and(|recalled| now.since(recalled.as_of) > self.removals.grace()) {
            return Ok(gone);
        }
        let present: HashSet<EndpointId> = source.present(&gone).await?.into_iter().collect();
        // One that is disabled, or for other locations now, was meant so.
        let (mut now_gone, deleted): (Vec<_>, Vec<_>) =
            gone.into_iter().partition(|id| present.contains(id));
        let was_held = self.removals.held().is_some();
        let since = recalled.and_then(|recalled| recalled.held_since);
        if !self
            .removals
            .deleted(&deleted, self.known.len(), now, since)
        {
            now_gone.extend(deleted);
        } else if !was_held && let Some(held) = self.removals.held() {
            tracing::error!(
                deleted = held.endpoints,
                of = held.of,
                for_s = held.until.since(now).as_secs(),
                "a large part of the endpoints was deleted at once; they are still probed for a while. By mistake? \
                 Insert them again. Meant? update held_removals set confirmed = true"
            );
        }
        Ok(now_gone)
    }

    async fn look_after_held(
        &mut self,
        source: &mut dyn CatalogSource,
        commands: &mpsc::Sender<Command>,
    ) -> Result<(), WorkerGone> {
        let held = self.removals.held();
        telemetry::endpoints_held(held.map_or(0, |held| held.endpoints));
        if held.is_none() && !self.hold_told {
            return Ok(());
        }
        let confirmed = match source.hold(held).await {
            Ok(confirmed) => {
                if held.is_none() {
                    tracing::info!("no deleted endpoint is held any more");
                }
                self.hold_told = held.is_some();
                confirmed
            }
            Err(error) => {
                tracing::debug!(cause = chain(&*error), "held_removals");
                self.hold_told = true;
                false
            }
        };
        let Some(held) = held.filter(|held| confirmed || (self.now)() >= held.until) else {
            return Ok(());
        };
        tracing::warn!(
            deleted = held.endpoints,
            confirmed,
            "endpoints that were deleted are not probed any more"
        );
        let removed = self.removals.release();
        for &id in &removed {
            self.forget(id);
            self.memory.note(&CatalogChange::Remove(id));
        }
        self.remember();
        telemetry::endpoints_held(0);
        if source.hold(None).await.is_ok() {
            self.hold_told = false;
        }
        send(commands, Vec::new(), removed).await
    }

    fn remember(&mut self) {
        let since = self.removals.held().map(|held| held.since);
        self.memory.commit((self.now)(), self.removals.ids(), since);
    }

    fn is_bad(&mut self, row: &EndpointRow, problems: Vec<Problem>) {
        self.bad.insert(row.id);
        let problems = RowProblems {
            endpoint: row.id,
            since: unprobed_since(row, self.begun, (self.now)()),
            problems,
        };
        self.unreported.insert(row.id, problems);
    }

    fn forget(&mut self, id: EndpointId) {
        self.known.remove(&id);
        self.cleared(id);
    }

    fn cleared(&mut self, id: EndpointId) {
        if self.bad.remove(&id) {
            let right = RowProblems {
                endpoint: id,
                since: (self.now)(),
                problems: Vec::new(),
            };
            self.unreported.insert(id, right);
        }
    }

    async fn report(&mut self, source: &mut dyn CatalogSource) {
        telemetry::endpoint_problems(self.bad.len());
        if self.unreported.is_empty() && self.reported_all {
            return;
        }
        let problems: Vec<RowProblems> = self.unreported.drain().map(|(_, p)| p).collect();
        match source.report(&problems, !self.reported_all).await {
            Ok(()) => self.reported_all = true,
            Err(error) => {
                let endpoints = problems.len();
                tracing::warn!(
                    cause = chain(&*error),
                    endpoints,
                    "endpoint_problems could not be written"
                );
                self.unreported
                    .extend(problems.into_iter().map(|p| (p.endpoint, p)));
            }
        }
    }
}

/// A bad row is not probed from its change on, if this run had begun by then; else from now on.
fn unprobed_since(row: &EndpointRow, begun: Option<Timestamp>, now: Timestamp) -> Timestamp {
    begun.map_or(now, |begun| row.changed_at.max(begun).min(now))
}

/// The worker has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerGone;

enum LoadError {
    Source(SourceError),
    WorkerGone,
}

impl From<SourceError> for LoadError {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<WorkerGone> for LoadError {
    fn from(_: WorkerGone) -> Self {
        Self::WorkerGone
    }
}

async fn send(
    commands: &mpsc::Sender<Command>,
    endpoints: Vec<Changed>,
    removed: Vec<EndpointId>,
) -> Result<(), WorkerGone> {
    for chunk in removed.chunks(CHUNK) {
        commands
            .send(Command::Remove(chunk.to_vec()))
            .await
            .map_err(|_| WorkerGone)?;
    }
    let mut endpoints = endpoints.into_iter();
    loop {
        let chunk: Vec<Changed> = endpoints.by_ref().take(CHUNK).collect();
        if chunk.is_empty() {
            return Ok(());
        }
        commands
            .send(Command::Upsert(chunk))
            .await
            .map_err(|_| WorkerGone)?;
    }
}

#[cfg(test)]
mod tests;
