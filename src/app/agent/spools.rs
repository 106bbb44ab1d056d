//! The spool files of one process: its own, and those of places that an earlier run with more processes had.

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::args::{AgentSettings, SpoolMode};
use crate::domain::Partition;
use crate::pipeline::Gap;
use crate::pipeline::keeper::chain;
use crate::pipeline::overflow::Overflow;
use crate::spool::{Durability, Spool, SpoolError, SpoolOptions, SpoolThread};

/// A disk that does not finish in this time is left to itself: what it acknowledged is there.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

pub(super) struct Spools {
    own: Spool,
    left_behind: Vec<Spool>,
    threads: Vec<SpoolThread>,
    mode: SpoolMode,
}

impl Spools {
    /// Opens the files; `None` where samples are held in memory only.
    pub(super) fn open(
        settings: &AgentSettings,
        partition: Partition,
    ) -> Result<Option<Self>, SpoolError> {
        let Some(folder) = settings
            .spool_dir
            .as_deref()
            .filter(|_| settings.spool != SpoolMode::Off)
        else {
            return Ok(None);
        };
        let options = SpoolOptions {
            bytes_max: settings.spool_mib_max as u64 * 1024 * 1024,
            durability: match settings.spool {
                SpoolMode::Always => Durability::PowerCut,
                _ => Durability::Process,
            },
            ..SpoolOptions::default()
        };
        let (own, thread) = open(&folder.join(file_name(partition.index())), options.clone())?;
        let mut spools = Self {
            own,
            left_behind: Vec::new(),
            threads: vec![thread],
            mode: settings.spool,
        };
        for index in others(folder, partition) {
            match open(&folder.join(file_name(index)), options.clone()) {
                Ok((spool, thread)) => {
                    spools.left_behind.push(spool);
                    spools.threads.push(thread);
                }
                // Another node on the same folder, perhaps: it is not ours then.
                Err(error) => tracing::warn!(
                    cause = chain(&error),
                    "a spool that was left behind cannot be opened"
                ),
            }
        }
        Ok(Some(spools))
    }

    /// For one keeper.
    pub(super) fn overflow(&self, gaps: mpsc::UnboundedSender<Gap>) -> Overflow {
        Overflow::new(self.own.clone(), self.left_behind.clone(), self.mode, gaps)
    }

    /// After the last keeper.
    pub(super) fn close(self) {
        let Self {
            own,
            left_behind,
            threads,
            ..
        } = self;
        drop((own, left_behind));
        for thread in threads {
            if let Err(error) = thread.join(CLOSE_WITHIN) {
                tracing::warn!(
                    cause = chain(&error),
                    "the spool did not close in time; what it acknowledged is there"
                );
            }
        }
    }
}

fn open(path: &Path, options: SpoolOptions) -> Result<(Spool, SpoolThread), SpoolError> {
    let (spool, thread) = Spool::open(path, options)?;
    let opened = spool.opened();
    if opened.rows > 0 {
        tracing::info!(samples = opened.rows, path = %path.display(), "samples of an earlier run wait in the spool");
    }
    if let Some(recovered) = &opened.recovered {
        tracing::error!(
            aside = %recovered.aside.display(),
            samples = recovered.rows,
            "the spool's file was damaged; it was put aside, and what was intact was taken over"
        );
    }
    Ok((spool, thread))
}

fn file_name(index: u32) -> String {
    format!("samples-{index}.db")
}

/// Files of places beyond the number of processes, of which each is looked after by one.
fn others(folder: &Path, partition: Partition) -> Vec<u32> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let index = |name: String| {
        name.strip_prefix("samples-")?
            .strip_suffix(".db")?
            .parse()
            .ok()
    };
    entries
        .filter_map(|entry| index(entry.file_name().into_string().ok()?))
        .filter(|&index: &u32| {
            index >= partition.count() && index % partition.count() == partition.index()
        })
        .collect()
}
