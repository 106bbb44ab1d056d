//! A snapshot of the endpoints on disk, so that an agent that starts while the database is away has something to probe.
//!
//! One file for each place, `catalog-<index>.snapshot` in the spool's folder: lines of text, see [`mod@line`]. A full load
//! writes a new file and puts it in the place of the old one; what changes later is appended. A state ends with a mark
//! that carries a checksum of everything before it: what a kill cut off after the last mark does not count, and a file
//! that is damaged before it is refused. It holds the rows that are probed, as they stand in the table, so secrets only by
//! reference (a row with a password in its URL is refused, and is not here); its mode is 0600 all the same. A thread of its own writes it; nobody waits for that.

mod line;
mod recorder;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::EndpointRow;
use crate::config::args::AgentArgs;
use crate::domain::{EndpointId, Partition, Timestamp};
use crate::pipeline::catalog::Recalled;
use crate::store::timescale::Timescale;

use self::line::{Head, Line, Lines};
pub(super) use self::recorder::{Recorder, SnapshotAge};

/// Whose endpoints a snapshot holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::app) struct Place {
    /// The share.
    pub(in crate::app) partition: Partition,
    /// The location.
    pub(in crate::app) location: String,
    /// Host and name of the database.
    pub(in crate::app) database: String,
}

impl Place {
    /// Of an agent.
    pub(super) fn of(args: &AgentArgs, database: &Timescale) -> Self {
        Self::new(args.partition, &args.agent.location, database)
    }

    pub(in crate::app) fn new(partition: Partition, location: &str, database: &Timescale) -> Self {
        let database = database.database();
        Self {
            partition,
            location: location.to_owned(),
            database: format!("{}/{}", database.host(), database.name()),
        }
    }

    /// Where its snapshot lies.
    pub(in crate::app) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("catalog-{}.snapshot", self.partition.index()))
    }
}

/// Why a snapshot is of no use.
#[derive(Debug, thiserror::Error)]
pub(in crate::app) enum Refusal {
    #[error("it cannot be read")]
    Unreadable(#[from] std::io::Error),
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    #[error("it is in the format of another release")]
    Version,
    #[error("it is of {found}, not of {wanted}")]
    Foreign { found: String, wanted: String },
    #[error("it was last in line with the table {} s ago, and no more than {} s are allowed", age.as_secs(), age_max.as_secs())]
    TooOld { age: Duration, age_max: Duration },
}

/// A snapshot that was checked.
pub(super) struct Snapshot {
    path: PathBuf,
    /// Where each row stands that counts.
    rows: HashMap<EndpointId, u64>,
    pub(super) recalled: Recalled,
}

impl Snapshot {
    /// Checks the snapshot of `place`; `None` when there is none.
    pub(super) fn open(
        folder: &Path,
        place: &Place,
        age_max: Duration,
        now: Timestamp,
    ) -> Result<Option<Self>, Refusal> {
        let path = place.path(folder);
        if !path.try_exists()? {
            return Ok(None);
        }
        let snapshot = Self::read(&path, place)?;
        check_age(snapshot.recalled.as_of, age_max, now)?;
        Ok(Some(snapshot))
    }

    fn read(path: &Path, place: &Place) -> Result<Self, Refusal> {
        let mut lines = Lines::new(BufReader::new(File::open(path)?));
        check_head(lines.next_line()?, place)?;
        let mut rows = HashMap::new();
        // Since the last mark: they count when the next one does.
        let mut pending: Vec<(EndpointId, Option<u64>)> = Vec::new();
        let mut recalled = None;
        let mut torn = false;
        while let Some(line) = lines.next_line()? {
            if torn {
                return Err(Refusal::Damaged("a line is not as it was written"));
            }
            match line {
                Line::Row { id, at } => pending.push((id, Some(at))),
                Line::Gone { id } => pending.push((id, None)),
                Line::Mark(mark) => {
                    for (id, at) in pending.drain(..) {
                        match at {
                            Some(at) => rows.insert(id, at),
                            None => rows.remove(&id),
                        };
                    }
                    recalled = Some(mark);
                }
                // The end of what a kill cut off, when nothing follows.
                Line::Torn => torn = true,
                Line::Head(_) => return Err(Refusal::Damaged("it has two heads")),
            }
        }
        Ok(Self {
            path: path.to_owned(),
            rows,
            recalled: recalled.ok_or(Refusal::Damaged("its end is missing"))?,
        })
    }

    /// The endpoints, good and bad.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows, one at a time. Ends early, with a line in the log, when the disk fails.
    pub(super) fn rows(&self) -> Result<impl Iterator<Item = EndpointRow> + '_, Refusal> {
        let mut lines = Lines::new(BufReader::new(File::open(&self.path)?));
        Ok(std::iter::from_fn(move || {
            lines
                .next_row(|id, at| self.rows.get(&id) == Some(&at))
                .unwrap_or_else(|error| {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "a row of the snapshot cannot be read");
                    None
                })
        }))
    }

    fn position(&self, id: EndpointId) -> Option<u64> {
        self.rows.get(&id).copied()
    }
}

/// Whether there seems to be a usable snapshot: its head and its last mark. The agent looks closer.
pub(in crate::app) fn is_there(
    folder: &Path,
    place: &Place,
    age_max: Duration,
    now: Timestamp,
) -> Result<bool, Refusal> {
    let path = place.path(folder);
    if !path.try_exists()? {
        return Ok(false);
    }
    let mut file = File::open(&path)?;
    check_head(Lines::new(BufReader::new(&mut file)).next_line()?, place)?;
    let mut tail = Vec::new();
    let from = file
        .metadata()?
        .len()
        .saturating_sub(line::LONGEST_MARK * 4);
    file.seek(SeekFrom::Start(from))?;
    file.read_to_end(&mut tail)?;
    // A change cut off by a kill may stand there instead; the agent knows.
    if let Some(mark) = line::last_mark(&tail) {
        check_age(mark.as_of, age_max, now)?;
    }
    Ok(true)
}

fn check_head(line: Option<Line>, place: &Place) -> Result<(), Refusal> {
    let Some(Line::Head(head)) = line else {
        return Err(Refusal::Damaged("it has no head"));
    };
    if head.version != line::VERSION {
        return Err(Refusal::Version);
    }
    let wanted = Head::of(place);
    if head != wanted {
        return Err(Refusal::Foreign {
            found: head.describe(),
            wanted: wanted.describe(),
        });
    }
    Ok(())
}

fn check_age(as_of: Timestamp, age_max: Duration, now: Timestamp) -> Result<(), Refusal> {
    let age = now.since(as_of);
    if age > age_max {
        return Err(Refusal::TooOld { age, age_max });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
