//! What a process that stops during an outage could not tell the database: that it stopped in order, and its gaps. Kept
//! in a file of the spool's folder until the next run has told it; without it that run would take its predecessor for
//! dead.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::{AgentIdentity, Partition, Timestamp};
use crate::pipeline::Gap;
use crate::pipeline::keeper::chain;
use crate::store::timescale::{self, SessionId, Timescale};
use crate::store::{GapReason, Session};

/// The file's content.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct Farewell {
    session: i64,
    name: String,
    location: String,
    partition: (u32, u32),
    stopped_us: Option<i64>,
    gaps: Vec<WrittenGap>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
struct WrittenGap {
    from_us: i64,
    to_us: i64,
    reason: String,
    samples: Option<u64>,
}

impl Farewell {
    /// `stopped` when the process stopped in order and lost nothing.
    pub(super) fn new(
        id: SessionId,
        session: &Session,
        stopped: Option<Timestamp>,
        gaps: &[Gap],
    ) -> Self {
        let written = |gap: &Gap| WrittenGap {
            from_us: gap.from.as_micros(),
            to_us: gap.to.as_micros(),
            reason: gap.reason.label().to_owned(),
            samples: gap.samples,
        };
        Self {
            session: id.value(),
            name: session.agent.name.to_string(),
            location: session.agent.location.to_string(),
            partition: (session.partition.index(), session.partition.count()),
            stopped_us: stopped.map(Timestamp::as_micros),
            gaps: gaps.iter().map(written).collect(),
        }
    }

    /// Where the farewell of a place is kept.
    pub(super) fn path(folder: &Path, partition: Partition) -> PathBuf {
        folder.join(format!("farewell-{}.json", partition.index()))
    }

    /// Writes the file whole or not at all.
    pub(super) fn keep(&self, path: &Path) -> std::io::Result<()> {
        let draft = path.with_extension("draft");
        let file = std::fs::File::create(&draft)?;
        serde_json::to_writer(&file, self)?;
        file.sync_all()?;
        std::fs::rename(draft, path)
    }

    /// What a previous run left; a file that cannot be understood is of no use and goes.
    pub(super) fn left_at(path: &Path) -> Option<Self> {
        let text = std::fs::read(path).ok()?;
        match serde_json::from_slice(&text) {
            Ok(farewell) => Some(farewell),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a farewell cannot be understood; removed");
                let _ = std::fs::remove_file(path);
                None
            }
        }
    }

    /// Tells the database.
    pub(super) async fn tell(&self, store: &Timescale) -> Result<(), timescale::Error> {
        let (index, count) = self.partition;
        if let Ok(partition) = Partition::new(index, count) {
            let agent = AgentIdentity {
                name: self.name.as_str().into(),
                location: self.location.as_str().into(),
            };
            let gaps: Vec<_> = self.gaps.iter().filter_map(row).collect();
            if !gaps.is_empty() {
                store.record_gaps(&agent, partition, &gaps).await?;
            }
        }
        if let Some(stopped) = self.stopped_us {
            store
                .end_session(SessionId::of(self.session), Timestamp::from_micros(stopped))
                .await?;
        }
        Ok(())
    }
}

fn row(gap: &WrittenGap) -> Option<timescale::Gap> {
    Some(timescale::Gap {
        from: Timestamp::from_micros(gap.from_us),
        to: Timestamp::from_micros(gap.to_us),
        reason: GapReason::of_label(&gap.reason)?,
        samples: gap.samples,
        detail: Some("told by the next run".to_owned()),
    })
}

/// Tells what a previous run of this place left; `Err` to be tried again.
pub(super) async fn tell_left(path: &Path, store: &Timescale) -> Result<(), timescale::Error> {
    let Some(farewell) = Farewell::left_at(path) else {
        return Ok(());
    };
    farewell.tell(store).await?;
    tracing::info!(
        session = farewell.session,
        "the previous run had stopped during an outage; told the database"
    );
    if let Err(error) = std::fs::remove_file(path) {
        // Told twice is told once.
        tracing::warn!(path = %path.display(), %error, "a farewell that was told could not be removed");
    }
    Ok(())
}

/// Keeps a farewell, where there is a folder for it; whether it is kept.
pub(super) fn keep(folder: Option<&Path>, session: &Session, farewell: &Farewell) -> bool {
    let Some(folder) = folder else { return false };
    match farewell.keep(&Farewell::path(folder, session.partition)) {
        Ok(()) => {
            tracing::warn!(
                "the database is away; the next run will tell it that this one stopped in order"
            );
            true
        }
        Err(error) => {
            tracing::error!(
                cause = chain(&error),
                "the farewell of this run could not be kept"
            );
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_farewell_is_read_as_it_was_kept_and_rubbish_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = Farewell::path(folder.path(), Partition::ALL);
        assert_eq!(Farewell::left_at(&path), None);
        let agent = Arc::new(AgentIdentity {
            name: "n/0".into(),
            location: "l".into(),
        });
        let started = Timestamp::from_millis(5);
        let session = Session {
            agent,
            arm: "default".into(),
            partition: Partition::ALL,
            started,
        };
        let (from, to) = (Timestamp::from_millis(7), Timestamp::from_millis(9));
        let gap = Gap {
            from,
            to,
            reason: GapReason::SpoolFull,
            samples: Some(3),
        };
        let farewell = Farewell::new(
            SessionId::of(4),
            &session,
            Some(Timestamp::from_millis(10)),
            &[gap],
        );
        farewell.keep(&path).unwrap();
        assert_eq!(Farewell::left_at(&path), Some(farewell));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Farewell::left_at(&path), None);
        assert!(!path.exists());
    }
}
