//! The table of endpoints as the catalog's source, and the table of gaps as the ledger's store: where `pipeline`, which
//! names no database, meets `store`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Problem;
use crate::domain::{AgentIdentity, EndpointId, Partition};
use crate::pipeline::Gap;
use crate::pipeline::catalog::{CatalogSource, Loaded, RowProblems, SourceError};
use crate::pipeline::ledger::GapStore;
use crate::store::timescale::{self, ChangeListener, Changes, Cursor, EndpointProblem, Timescale};
use crate::store::{BoxFuture, CatalogChange, HeldRemoval, Session};

/// The endpoints of one partition and location in the table `endpoints`.
pub struct TableSource {
    store: Timescale,
    listener: ChangeListener,
    partition: Partition,
    agent: Arc<AgentIdentity>,
    poll: Duration,
    cursor: Option<Cursor>,
}

impl TableSource {
    /// Looks every `poll`, and whenever a notification comes.
    pub fn new(
        store: &Timescale,
        partition: Partition,
        agent: Arc<AgentIdentity>,
        poll: Duration,
    ) -> Self {
        let listener = ChangeListener::new(store.database().clone());
        Self {
            store: store.clone(),
            listener,
            partition,
            agent,
            poll,
            cursor: None,
        }
    }
}

impl CatalogSource for TableSource {
    fn load<'a>(
        &'a mut self,
        each: &'a mut dyn FnMut(CatalogChange),
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(async move {
            self.cursor = None;
            let cursor = self
                .store
                .load_catalog(self.partition, &self.agent.location, each)
                .await?;
            self.cursor = Some(cursor);
            Ok(())
        })
    }

    fn changes<'a>(
        &'a mut self,
        each: &'a mut dyn FnMut(CatalogChange),
    ) -> BoxFuture<'a, Result<Loaded, SourceError>> {
        Box::pin(async move {
            let Some(since) = &self.cursor else {
                return Ok(Loaded::Reload);
            };
            let location = &self.agent.location;
            match self
                .store
                .catalog_changes(self.partition, location, since, each)
                .await?
            {
                Changes::UpTo(cursor) => {
                    self.cursor = Some(cursor);
                    Ok(Loaded::UpToDate)
                }
                Changes::Reload => Ok(Loaded::Reload),
            }
        })
    }

    fn wait(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.listener.wait_for_change(self.poll))
    }

    fn present<'a>(
        &'a mut self,
        gone: &'a [EndpointId],
    ) -> BoxFuture<'a, Result<Vec<EndpointId>, SourceError>> {
        Box::pin(async move { Ok(self.store.endpoints_present(gone).await?) })
    }

    fn hold(&mut self, held: Option<HeldRemoval>) -> BoxFuture<'_, Result<bool, SourceError>> {
        Box::pin(async move {
            let (store, agent) = (&self.store, &self.agent);
            match held {
                Some(held) => Ok(store.hold_removal(agent, self.partition, &held).await?),
                None => {
                    store.release_removal(agent, self.partition).await?;
                    Ok(false)
                }
            }
        })
    }

    fn report<'a>(
        &'a mut self,
        problems: &'a [RowProblems],
        all: bool,
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(async move {
            if all {
                let of = |row: &RowProblems| {
                    let (endpoint, since) = (row.endpoint, row.since);
                    let problem = move |problem: &Problem| EndpointProblem {
                        endpoint,
                        problem: problem.clone(),
                        since,
                    };
                    row.problems.iter().map(problem).collect()
                };
                let problems: Vec<EndpointProblem> =
                    problems.iter().flat_map::<Vec<_>, _>(of).collect();
                self.store
                    .replace_problems(&self.agent, self.partition, &problems)
                    .await?;
            } else {
                for row in problems {
                    self.store
                        .set_problems(&self.agent, row.endpoint, row.since, &row.problems)
                        .await?;
                }
            }
            Ok(())
        })
    }
}

/// Gaps younger than this are told again after a failover, which may have lost them; a standby that is further behind
/// is none to be promoted.
const TELL_AGAIN: Duration = Duration::from_secs(600);
/// So many at most.
const TELL_AGAIN_MAX: usize = 1_000;

/// The table `gaps`. Clones share what they remember.
#[derive(Clone)]
pub struct Ledger {
    store: Timescale,
    session: Session,
    told: Rc<RefCell<VecDeque<(Instant, Gap)>>>,
}

impl Ledger {
    /// Gaps of this session.
    pub fn new(store: &Timescale, session: Session) -> Self {
        Self {
            store: store.clone(),
            session,
            told: Rc::default(),
        }
    }

    /// Tells the gaps of the last minutes again; what is there already stays as it is.
    pub async fn tell_again(&self) -> Result<(), timescale::Error> {
        let gaps: Vec<Gap> = self.told.borrow().iter().map(|(_, gap)| *gap).collect();
        if gaps.is_empty() {
            return Ok(());
        }
        self.tell(&gaps).await
    }

    async fn tell(&self, gaps: &[Gap]) -> Result<(), timescale::Error> {
        let row = |gap: &Gap| timescale::Gap {
            endpoint: gap.endpoint,
            from: gap.from,
            to: gap.to,
            reason: gap.reason,
            samples: gap.samples,
            detail: None,
        };
        let rows: Vec<_> = gaps.iter().map(row).collect();
        self.store.record_gaps(&self.session, &rows).await
    }
}

impl GapStore for Ledger {
    fn record<'a>(
        &'a self,
        gaps: &'a [Gap],
    ) -> BoxFuture<'a, Result<(), Box<dyn std::error::Error>>> {
        Box::pin(async move {
            self.tell(gaps).await?;
            let mut told = self.told.borrow_mut();
            let now = Instant::now();
            told.extend(gaps.iter().map(|gap| (now, *gap)));
            while let Some((at, _)) = told.front()
                && (told.len() > TELL_AGAIN_MAX || at.elapsed() > TELL_AGAIN)
            {
                told.pop_front();
            }
            Ok(())
        })
    }
}
