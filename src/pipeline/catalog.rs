//! From rows of `endpoints` to commands for the worker. A bad row becomes problems that its owner can see; the others
//! run on.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Command;
use super::keeper::{chain, random};
use crate::config::{EndpointRow, Problem};
use crate::domain::{Backoff, Endpoint, EndpointId, Timestamp};
use crate::store::{BoxFuture, CatalogChange};
use crate::telemetry;

/// Endpoints sent to the worker in one message: it applies one message between two turns of probes.
const CHUNK: usize = 500;

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
    /// Replaces what is known to be wrong: for each endpoint its problems, none when it is right again. `all` says that
    /// endpoints which are not named are right.
    fn report<'a>(
        &'a mut self,
        problems: &'a [(EndpointId, Vec<Problem>)],
        all: bool,
    ) -> BoxFuture<'a, Result<(), SourceError>>;
}

/// Checks a row.
pub type Resolve<'a> = &'a mut dyn FnMut(&EndpointRow) -> Result<Endpoint, Vec<Problem>>;

/// The catalog's state: which endpoints are known to be bad.
#[derive(Default)]
pub struct Catalog {
    bad: HashSet<EndpointId>,
    unreported: HashMap<EndpointId, Vec<Problem>>,
    /// Until the first report has been written, it speaks for all endpoints: a former run may have left others.
    reported_all: bool,
}

impl Catalog {
    /// Loads everything, however long the source is away, and sends it. Returns how many endpoints, when all of them are
    /// on their way; `Err` when the worker is gone.
    pub async fn load(
        &mut self,
        source: &mut dyn CatalogSource,
        resolve: Resolve<'_>,
        commands: &mpsc::Sender<Command>,
    ) -> Result<usize, WorkerGone> {
        let endpoints = self.read_all(source, resolve).await;
        let loaded = endpoints.len();
        send(commands, endpoints, Vec::new(), None).await?;
        self.report(source).await;
        Ok(loaded)
    }

    /// Loads everything anew: what is not there any more is removed, the rest goes on where it was.
    async fn reload(
        &mut self,
        source: &mut dyn CatalogSource,
        resolve: Resolve<'_>,
        commands: &mpsc::Sender<Command>,
    ) -> Result<(), WorkerGone> {
        let endpoints = self.read_all(source, resolve).await;
        let keep = endpoints.iter().map(|endpoint| endpoint.id).collect();
        commands
            .send(Command::Retain(keep))
            .await
            .map_err(|_| WorkerGone)?;
        send(commands, endpoints, Vec::new(), None).await?;
        self.report(source).await;
        Ok(())
    }

    async fn read_all(
        &mut self,
        source: &mut dyn CatalogSource,
        resolve: Resolve<'_>,
    ) -> Vec<Endpoint> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let mut endpoints = Vec::new();
            self.bad.clear();
            self.unreported.clear();
            self.reported_all = false;
            match source
                .load(&mut |change| self.take(change, resolve, &mut endpoints, &mut Vec::new()))
                .await
            {
                Ok(()) => return endpoints,
                Err(error) => {
                    tracing::warn!(cause = chain(&*error), "the endpoints cannot be loaded yet")
                }
            }
            sleep(backoff.next(random())).await;
        }
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
            match source.changes(&mut |change| changes.push(change)).await {
                Ok(Loaded::UpToDate) => {}
                Ok(Loaded::Reload) => {
                    tracing::warn!(
                        "the changes of the endpoints are not known any more; loading all of them"
                    );
                    if self.reload(source, resolve, commands).await.is_err() {
                        return WorkerGone;
                    }
                    continue;
                }
                Err(error) => {
                    tracing::debug!(
                        cause = chain(&*error),
                        "changes of the endpoints cannot be read yet"
                    );
                    sleep(backoff.next(random())).await;
                    continue;
                }
            }
            backoff.reset();
            let (mut endpoints, mut removed) = (Vec::new(), Vec::new());
            let mut changed_at: Option<Timestamp> = None;
            for change in changes {
                if let CatalogChange::Upsert(row) = &change {
                    changed_at =
                        Some(changed_at.map_or(row.changed_at, |at| at.min(row.changed_at)));
                }
                self.take(change, resolve, &mut endpoints, &mut removed);
            }
            if !endpoints.is_empty() || !removed.is_empty() {
                tracing::info!(
                    changed = endpoints.len(),
                    removed = removed.len(),
                    "endpoints changed"
                );
                if send(commands, endpoints, removed, changed_at)
                    .await
                    .is_err()
                {
                    return WorkerGone;
                }
            }
            self.report(source).await;
        }
    }

    fn take(
        &mut self,
        change: CatalogChange,
        resolve: Resolve<'_>,
        endpoints: &mut Vec<Endpoint>,
        removed: &mut Vec<EndpointId>,
    ) {
        let row = match change {
            CatalogChange::Upsert(row) => row,
            CatalogChange::Remove(id) => {
                removed.push(id);
                self.cleared(id);
                return;
            }
        };
        match resolve(&row) {
            Ok(endpoint) => {
                self.cleared(row.id);
                endpoints.push(endpoint);
            }
            Err(problems) => {
                // It may have been right before: what it said then is not what its owner wants now.
                removed.push(row.id);
                self.bad.insert(row.id);
                self.unreported.insert(row.id, problems);
            }
        }
    }

    fn cleared(&mut self, id: EndpointId) {
        if self.bad.remove(&id) {
            self.unreported.insert(id, Vec::new());
        }
    }

    async fn report(&mut self, source: &mut dyn CatalogSource) {
        telemetry::endpoint_problems(self.bad.len());
        if self.unreported.is_empty() && self.reported_all {
            return;
        }
        let problems: Vec<_> = self.unreported.drain().collect();
        match source.report(&problems, !self.reported_all).await {
            Ok(()) => self.reported_all = true,
            Err(error) => {
                let endpoints = problems.len();
                tracing::warn!(
                    cause = chain(&*error),
                    endpoints,
                    "endpoint_problems could not be written"
                );
                self.unreported.extend(problems);
            }
        }
    }
}

/// The worker has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerGone;

async fn send(
    commands: &mpsc::Sender<Command>,
    endpoints: Vec<Endpoint>,
    removed: Vec<EndpointId>,
    changed_at: Option<Timestamp>,
) -> Result<(), WorkerGone> {
    if !removed.is_empty() {
        commands
            .send(Command::Remove(removed))
            .await
            .map_err(|_| WorkerGone)?;
    }
    let mut endpoints = endpoints.into_iter();
    loop {
        let chunk: Vec<Endpoint> = endpoints.by_ref().take(CHUNK).collect();
        if chunk.is_empty() {
            return Ok(());
        }
        commands
            .send(Command::Upsert {
                endpoints: chunk,
                changed_at,
            })
            .await
            .map_err(|_| WorkerGone)?;
    }
}

#[cfg(test)]
mod tests;
