//! What the database has not been told of this place's runs: that one began, lives, stopped in order, and its gaps.
//!
//! A file of the spool's folder, `sessions-<index>.json`, written whole or not at all. A run that begins while the
//! database is away is entered before its first probe, so that not even `kill -9` makes it forgotten; several runs of one
//! outage stand in a row. Whoever finds the database first tells it, oldest first. The spool's lock keeps it to one
//! process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::app::up::DEATH_HORIZON;
use crate::domain::{AgentIdentity, Arm, Partition, Timestamp};
use crate::pipeline::Gap;
use crate::store::timescale::{self, SessionId, Timescale};
use crate::store::{GapReason, Session};

/// Runs kept; a supervisor starts one every half minute at most, so this is an outage of hours. Beyond it the oldest but
/// the first goes: its time is then one death with its successor's.
const ENTRIES_MAX: usize = 1_000;

/// One run.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct Entry {
    /// The row that the database has of it, where it has one.
    id: Option<i64>,
    name: String,
    location: String,
    arm: String,
    /// Those that share the ticks; none in a file of a release that knew of none.
    #[serde(default)]
    arms: Vec<String>,
    partition: (u32, u32),
    started_us: i64,
    /// When it was last known to live.
    seen_us: i64,
    /// What was due before was saved by then.
    unsaved_us: Option<i64>,
    /// Up to when it had heard of changes of the endpoints.
    heard_us: i64,
    /// When it stopped in order, having lost nothing.
    stopped_us: Option<i64>,
    gaps: Vec<WrittenGap>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
struct WrittenGap {
    endpoint: Option<i64>,
    from_us: i64,
    to_us: i64,
    reason: String,
    samples: Option<u64>,
}

impl Entry {
    /// A run that begins.
    pub(super) fn new(session: &Session, heard: Timestamp) -> Self {
        Self {
            id: None,
            name: session.agent.name.to_string(),
            location: session.agent.location.to_string(),
            arm: session.arm.name().to_owned(),
            arms: session
                .arm
                .arms()
                .iter()
                .map(|arm| arm.to_string())
                .collect(),
            partition: (session.partition.index(), session.partition.count()),
            started_us: session.started.as_micros(),
            seen_us: session.started.as_micros(),
            unsaved_us: None,
            heard_us: heard.as_micros(),
            stopped_us: None,
            gaps: Vec::new(),
        }
    }

    /// It lives at `now`.
    pub(super) fn lives(
        &mut self,
        now: Timestamp,
        unsaved_since: Option<Timestamp>,
        heard: Timestamp,
    ) {
        self.heard_us = heard.as_micros();
        self.seen_us = self.seen_us.max(now.as_micros());
        self.unsaved_us = unsaved_since.map(Timestamp::as_micros);
    }

    /// It ends; `stopped` when in order and without a loss. `id` when the database knows it.
    pub(super) fn ends(
        &mut self,
        id: Option<SessionId>,
        stopped: Option<Timestamp>,
        heard: Timestamp,
        gaps: &[Gap],
    ) {
        self.heard_us = heard.as_micros();
        self.id = id.map(SessionId::value);
        self.stopped_us = stopped.map(Timestamp::as_micros);
        self.gaps = gaps.iter().map(WrittenGap::of).collect();
    }

    /// Tells the database. Of a run that is over; telling it twice changes nothing.
    async fn tell(&self, store: &Timescale) -> Result<(), timescale::Error> {
        let Ok(partition) = Partition::new(self.partition.0, self.partition.1) else {
            return Ok(());
        };
        let agent = AgentIdentity {
            name: self.name.as_str().into(),
            location: self.location.as_str().into(),
        };
        let session = Session {
            agent: Arc::new(agent.clone()),
            arm: Arm::new(&self.arm, &self.arms).unwrap_or_else(|_| Arm::label(&self.arm)),
            partition,
            started: Timestamp::from_micros(self.started_us),
        };
        let id = match self.id {
            Some(id) => SessionId::of(id),
            None => store.start_session(&session, DEATH_HORIZON, true).await?,
        };
        let heard = Timestamp::from_micros(self.heard_us);
        let ended = Timestamp::from_micros(self.stopped_us.unwrap_or(self.seen_us));
        store.note_unheard(&session, heard, ended).await?;
        let gaps: Vec<_> = self.gaps.iter().filter_map(WrittenGap::row).collect();
        if !gaps.is_empty() {
            store.record_gaps(&session, &gaps).await?;
        }
        match self.stopped_us {
            Some(stopped) => store.end_session(id, Timestamp::from_micros(stopped)).await,
            None => {
                let seen = Timestamp::from_micros(self.seen_us);
                let unsaved = self.unsaved_us.map(Timestamp::from_micros);
                store
                    .mark_died(&agent, partition, seen, unsaved, DEATH_HORIZON)
                    .await
                    .map(drop)
            }
        }
    }
}

impl WrittenGap {
    fn of(gap: &Gap) -> Self {
        Self {
            endpoint: gap.endpoint.map(|id| id.0),
            from_us: gap.from.as_micros(),
            to_us: gap.to.as_micros(),
            reason: gap.reason.label().to_owned(),
            samples: gap.samples,
        }
    }

    fn row(&self) -> Option<timescale::Gap> {
        Some(timescale::Gap {
            endpoint: self.endpoint.map(crate::domain::EndpointId),
            from: Timestamp::from_micros(self.from_us),
            to: Timestamp::from_micros(self.to_us),
            reason: GapReason::of_label(&self.reason)?,
            samples: self.samples,
            detail: Some("told by a later run".to_owned()),
        })
    }
}

/// The runs of one place.
#[derive(Debug)]
pub(super) struct Diary {
    path: PathBuf,
    entries: Vec<Entry>,
}

impl Diary {
    /// What earlier runs of the place left.
    pub(super) fn open(folder: &Path, index: u32) -> Self {
        let path = folder.join(format!("sessions-{index}.json"));
        let entries = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::error!(path = %path.display(), %error, "what earlier runs left cannot be understood; the audit may count what they did as missing");
                Vec::new()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::error!(path = %path.display(), %error, "what earlier runs left cannot be read");
                }
                Vec::new()
            }
        };
        Self { path, entries }
    }

    /// Diaries of places that a run with more processes had, and that are `partition`'s to look after.
    pub(super) fn left_behind(folder: &Path, partition: Partition) -> Vec<Self> {
        let index = |name: String| -> Option<u32> {
            name.strip_prefix("sessions-")?
                .strip_suffix(".json")?
                .parse()
                .ok()
        };
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| index(entry.file_name().into_string().ok()?))
            .filter(|index| {
                *index >= partition.count() && index % partition.count() == partition.index()
            })
            .map(|index| Self::open(folder, index))
            .collect()
    }

    /// Enters a run, or what has become of one that is the last.
    pub(super) fn enter(&mut self, entry: Entry) -> io::Result<()> {
        match self.entries.last_mut() {
            Some(last) if last.started_us == entry.started_us => *last = entry,
            _ => self.entries.push(entry),
        }
        if self.entries.len() > ENTRIES_MAX {
            self.entries.remove(1);
        }
        self.save()
    }

    /// Tells the database of all runs but `own`, oldest first; each goes when it was told.
    pub(super) async fn tell(
        &mut self,
        own: Option<&Session>,
        store: &Timescale,
    ) -> Result<(), timescale::Error> {
        let own = own.map(|session| session.started.as_micros());
        let is_own = |entry: &Entry| own == Some(entry.started_us);
        while let Some(at) = self.entries.iter().position(|entry| !is_own(entry)) {
            self.entries[at].tell(store).await?;
            let told = self.entries.remove(at);
            tracing::info!(
                began_us = told.started_us,
                stopped_in_order = told.stopped_us.is_some(),
                "an earlier run had ended during an outage; told the database"
            );
            // Told twice is told once.
            self.save_or_warn();
        }
        Ok(())
    }

    /// The database knows this run.
    pub(super) fn is_known(&mut self, session: &Session) {
        let before = self.entries.len();
        let started = session.started.as_micros();
        self.entries.retain(|entry| entry.started_us != started);
        if self.entries.len() != before {
            self.save_or_warn();
        }
    }

    fn save_or_warn(&self) {
        if let Err(error) = self.save() {
            tracing::warn!(path = %self.path.display(), %error, "the diary of this place could not be written");
        }
    }

    fn save(&self) -> io::Result<()> {
        if self.entries.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let draft = self.path.with_extension("draft");
        let file = fs::File::create(&draft)?;
        serde_json::to_writer(io::BufWriter::new(&file), &self.entries)?;
        file.sync_all()?;
        fs::rename(draft, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EndpointId;

    const HEARD: Timestamp = Timestamp::from_millis(3);

    fn session(started: i64) -> Session {
        Session {
            agent: Arc::new(AgentIdentity {
                name: "n/0".into(),
                location: "l".into(),
            }),
            arm: Arm::label("default"),
            partition: Partition::ALL,
            started: Timestamp::from_millis(started),
        }
    }

    #[test]
    fn runs_stand_in_a_row_until_they_are_known_and_rubbish_is_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        let mut diary = Diary::open(folder.path(), 0);
        diary.enter(Entry::new(&session(1), HEARD)).unwrap();
        let mut second = Entry::new(&session(2), HEARD);
        diary.enter(second.clone()).unwrap();
        let (from, to) = (Timestamp::from_millis(7), Timestamp::from_millis(9));
        let gap = Gap {
            endpoint: Some(EndpointId(5)),
            from,
            to,
            reason: GapReason::Refused,
            samples: Some(3),
        };
        second.lives(Timestamp::from_millis(8), Some(from), HEARD);
        second.ends(Some(SessionId::of(4)), Some(to), from, &[gap]);
        diary.enter(second.clone()).unwrap();

        let mut diary = Diary::open(folder.path(), 0);
        assert_eq!(diary.entries, [Entry::new(&session(1), HEARD), second]);
        diary.is_known(&session(1));
        diary.is_known(&session(2));
        assert!(!diary.path.exists());

        fs::write(&diary.path, "{").unwrap();
        assert_eq!(Diary::open(folder.path(), 0).entries, []);
    }

    #[test]
    fn places_that_are_no_more_are_looked_after_by_one() {
        let folder = tempfile::tempdir().unwrap();
        for index in 0..5 {
            let mut diary = Diary::open(folder.path(), index);
            diary.enter(Entry::new(&session(1), HEARD)).unwrap();
        }
        let of = |index| -> Vec<PathBuf> {
            let partition = Partition::new(index, 2).unwrap();
            let mut paths: Vec<_> = Diary::left_behind(folder.path(), partition)
                .into_iter()
                .map(|diary| diary.path)
                .collect();
            paths.sort();
            paths
        };
        let path = |index| folder.path().join(format!("sessions-{index}.json"));
        assert_eq!(of(0), [path(2), path(4)]);
        assert_eq!(of(1), [path(3)]);
    }
}
