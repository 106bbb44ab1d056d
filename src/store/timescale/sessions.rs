//! Who probes, since when and until when: the rows of `agents` and `gaps` that an audit rests on.
//!
//! Instants are the agent's, since its grid is; each is passed in.

use std::time::Duration;

use jiff::Timestamp as Instant;

use super::{Error, Timescale};
use crate::domain::{AgentIdentity, Arm, EndpointId, Partition, Timestamp};
use crate::store::{GapReason, Session};

/// A session of another share that has been silent for longer than this is taken for dead by one that starts.
/// Several heartbeats.
const SILENT_MAX: Duration = Duration::from_secs(30);

/// Below the 3 s that the history of endpoints grants a change, by what clocks may differ.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// `agents.session_id`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionId(i64);

impl SessionId {
    /// The session of this number.
    pub const fn of(value: i64) -> Self {
        Self(value)
    }

    /// Its number.
    pub const fn value(self) -> i64 {
        self.0
    }
}

/// A span in which due ticks left no row.
#[derive(Clone, PartialEq, Debug)]
pub struct Gap {
    /// Of this endpoint alone; of the whole share when not set.
    pub endpoint: Option<EndpointId>,
    /// First instant.
    pub from: Timestamp,
    /// Last instant.
    pub to: Timestamp,
    /// Why.
    pub reason: GapReason,
    /// How many samples were lost, where they were counted.
    pub samples: Option<u64>,
    /// A few words for a person.
    pub detail: Option<String>,
}

impl Timescale {
    /// Begins a session. Predecessors that never ended are ended as died, with a gap from `horizon` before they were
    /// last seen (what they may not have written by then, where they did not say it) until this session's start.
    /// Repeating it changes nothing. `late`: the session has begun long ago, without the database.
    pub async fn start_session(
        &self,
        session: &Session,
        horizon: Duration,
        late: bool,
    ) -> Result<SessionId, Error> {
        let (index, count) = share(session.partition);
        let started = instant(session.started);
        let stale = instant(session.started.minus(SILENT_MAX));
        let horizon = seconds(horizon);
        let arms: Vec<&str> = session.arm.arms().iter().map(|arm| &**arm).collect();
        let arms = (!arms.is_empty()).then_some(arms);
        self.run("start this agent's session", async |client| {
            let row = client
                .query_one(
                    include_str!("session_start.sql"),
                    &[
                        &&*session.agent.name,
                        &&*session.agent.location,
                        &index,
                        &count,
                        &env!("CARGO_PKG_VERSION"),
                        &started,
                        &stale,
                        &horizon,
                        &session.arm.name(),
                        &late,
                        &arms,
                    ],
                )
                .await?;
            Ok((SessionId(row.try_get(0)?), row.try_get::<_, Option<String>>(1)?))
        })
        .await
        .map(|(id, others)| {
            if let Some(others) = others {
                tracing::warn!(
                    others,
                    ours = arms.as_ref().map(|arms| arms.join(",")),
                    "agents of this location divide the ticks otherwise (WATCHER_ARMS): some ticks are probed twice, or by nobody"
                );
            }
            id
        })
    }

    /// Says that the session lives at `now`: every few seconds; and that what was due before `unsaved_since` is saved. One
    /// that was taken for dead lives again. `false` when there is no such session any more: it is to be started again.
    pub async fn heartbeat(
        &self,
        session: SessionId,
        now: Timestamp,
        unsaved_since: Option<Timestamp>,
    ) -> Result<bool, Error> {
        self.run("say that this agent lives", async |client| {
            let statement = client
                .prepare_cached(include_str!("session_heartbeat.sql"))
                .await?;
            client
                .execute(
                    &statement,
                    &[&session.0, &instant(now), &unsaved_since.map(instant)],
                )
                .await
        })
        .await
        .map(|sessions| sessions > 0)
    }

    /// Ends a session in an orderly way. From `stopped` on, where its schedule stopped, nothing is due from it.
    pub async fn end_session(&self, session: SessionId, stopped: Timestamp) -> Result<(), Error> {
        self.run("end this agent's session", async |client| {
            let ended = instant(stopped);
            client
                .execute(include_str!("session_end.sql"), &[&session.0, &ended])
                .await
        })
        .await
        .map(drop)
    }

    /// Ends the open session of a process that its supervisor found dead at `at`, with a gap from `unsaved_since`, which
    /// it had told its supervisor, or else told the database; `horizon` before its death when it told nobody. The gap from then until a successor starts is the successor's to record; until then the audit infers it.
    /// Returns whether there was one.
    pub async fn mark_died(
        &self,
        agent: &AgentIdentity,
        partition: Partition,
        at: Timestamp,
        unsaved_since: Option<Timestamp>,
        horizon: Duration,
    ) -> Result<bool, Error> {
        let (index, count) = share(partition);
        let (at, horizon) = (instant(at), seconds(horizon));
        let unsaved_since = unsaved_since.map(instant);
        self.run("record that an agent died", async |client| {
            client
                .execute(
                    include_str!("session_died.sql"),
                    &[
                        &&*agent.name,
                        &&*agent.location,
                        &index,
                        &count,
                        &at,
                        &horizon,
                        &unsaved_since,
                    ],
                )
                .await
        })
        .await
        .map(|sessions| sessions > 0)
    }

    /// Of a session that ended at `ended` and had last heard of changes at `heard`: names the endpoints that were new or
    /// changed since, and that it never heard of. Repeating it changes nothing.
    pub async fn note_unheard(
        &self,
        session: &Session,
        heard: Timestamp,
        ended: Timestamp,
    ) -> Result<(), Error> {
        // A change is granted longer than this to arrive, so there is none.
        if ended.since(heard) < HEARD_WITHIN || ended <= session.started {
            return Ok(());
        }
        let (index, count) = share(session.partition);
        let (arm, arms) = arm_share(&session.arm);
        let (began, heard) = (instant(session.started), instant(heard));
        self.run("name changes that were not heard of", async |client| {
            client
                .query_one(
                    include_str!("session_unheard.sql"),
                    &[
                        &&*session.agent.name,
                        &&*session.agent.location,
                        &index,
                        &count,
                        &began,
                        &heard,
                        &instant(ended),
                        &arm,
                        &arms,
                    ],
                )
                .await
        })
        .await
        .map(drop)
    }

    /// Records spans in which ticks of this session left no row. All or none; repeating it changes nothing.
    pub async fn record_gaps(&self, session: &Session, gaps: &[Gap]) -> Result<(), Error> {
        let agent = &session.agent;
        let (index, count) = share(session.partition);
        let (arm, arms) = arm_share(&session.arm);
        self.run("record gaps", async |client| {
            let transaction = client.transaction().await?;
            let statement = transaction
                .prepare_cached(include_str!("gap_insert.sql"))
                .await?;
            let of_endpoints = EndpointGaps::of(gaps);
            if !of_endpoints.ids.is_empty() {
                let EndpointGaps {
                    ids,
                    from,
                    to,
                    reasons,
                } = &of_endpoints;
                transaction
                    .execute(
                        include_str!("endpoint_gap_insert.sql"),
                        &[
                            ids,
                            from,
                            to,
                            reasons,
                            &&*agent.name,
                            &&*agent.location,
                            &arm,
                            &arms,
                        ],
                    )
                    .await?;
            }
            for gap in gaps.iter().filter(|gap| gap.endpoint.is_none()) {
                let (from, to) = (instant(gap.from.min(gap.to)), instant(gap.to));
                let samples = gap.samples.map(|n| i64::try_from(n).unwrap_or(i64::MAX));
                transaction
                    .execute(
                        &statement,
                        &[
                            &&*agent.name,
                            &&*agent.location,
                            &index,
                            &count,
                            &from,
                            &to,
                            &gap.reason.label(),
                            &samples,
                            &gap.detail,
                            &arm,
                            &arms,
                        ],
                    )
                    .await?;
            }
            transaction.commit().await
        })
        .await
    }
}

/// Gaps of single endpoints, by columns.
#[derive(Default)]
struct EndpointGaps {
    ids: Vec<i64>,
    from: Vec<Instant>,
    to: Vec<Instant>,
    reasons: Vec<&'static str>,
}

impl EndpointGaps {
    fn of(gaps: &[Gap]) -> Self {
        let mut columns = Self::default();
        for gap in gaps {
            if let Some(endpoint) = gap.endpoint {
                columns.ids.push(endpoint.0);
                columns.from.push(instant(gap.from.min(gap.to)));
                columns.to.push(instant(gap.to));
                columns.reasons.push(gap.reason.label());
            }
        }
        columns
    }
}

pub(super) fn share(partition: Partition) -> (i32, i32) {
    // At most 65 536, by Partition.
    (
        partition.index().cast_signed(),
        partition.count().cast_signed(),
    )
}

fn arm_share(arm: &Arm) -> (i32, i32) {
    let share = arm.share();
    // At most ARMS_MAX.
    (share.index().cast_signed(), share.count().cast_signed())
}

/// As a parameter; an instant that jiff cannot hold becomes the last or first that it can.
pub(super) fn instant(at: Timestamp) -> Instant {
    Instant::from_microsecond(at.as_micros()).unwrap_or(if at.as_micros() < 0 {
        Instant::MIN
    } else {
        Instant::MAX
    })
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
