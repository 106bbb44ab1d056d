//! A damaged file: put aside, and what is intact in it taken over into a new one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tracing::{error, warn};

use super::codec::{self, Head};
use super::error::SpoolError;
use super::file::{SpoolFile, beside, directory_of, insert};
use super::open::open_error;
use super::{SpoolId, SpoolOptions};

/// Damaged files kept for a person.
const KEPT: usize = 3;
/// Batches taken over in one commit.
const COMMIT_BATCHES: usize = 16;

/// What came of a damaged file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// Where the damaged file is now.
    pub aside: PathBuf,
    /// Batches taken over.
    pub batches: u64,
    /// Their samples.
    pub rows: u64,
    /// Batches seen in the damaged file that could not be taken over. There may have been others.
    pub lost_batches: u64,
    /// What showed the damage.
    pub cause: String,
    /// Heads of the lost ones, where they could be read.
    pub(super) lost: Vec<Head>,
}

impl Recovered {
    pub(super) fn log(&self) {
        error!(
            cause = %self.cause,
            aside = %self.aside.display(),
            batches = self.batches,
            rows = self.rows,
            lost_batches = self.lost_batches,
            "the spool file was damaged: it was put aside, what is intact went into a new one"
        );
    }
}

/// Puts the file at `path` aside and opens a new one with what is intact. The file's lock is held by the caller.
pub(super) fn recover(
    path: &Path,
    options: &SpoolOptions,
    cause: rusqlite::Error,
) -> Result<(SpoolFile, Recovered), SpoolError> {
    let aside = put_aside(path).map_err(|source| SpoolError::SetAside {
        path: path.to_owned(),
        source,
    })?;
    let mut file = SpoolFile::open(path, options).map_err(|error| open_error(path, error))?;
    let mut recovered = Recovered {
        aside,
        batches: 0,
        rows: 0,
        lost_batches: 0,
        cause: cause.to_string(),
        lost: Vec::new(),
    };
    if let Err(error) = salvage(&mut file, options, &mut recovered) {
        let aside = recovered.aside.display();
        warn!(%error, %aside, "the rest of the damaged spool file cannot be taken over");
    }
    Ok((file, recovered))
}

/// Renames database and log, and forgets the oldest of those put aside before.
fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let earlier = put_aside_before(path);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    // Later than the last one, also within one second and after the clock was set back.
    let at = earlier.first().map_or(now, |last| now.max(last + 1));
    let aside = aside(path, at);
    // The log first: without it the database is merely older; without the database it is nothing, and it would be
    // taken for the new file's.
    let renamed = fs::rename(beside(path, "-wal"), beside(&aside, "-wal"));
    if let Err(error) = renamed
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    fs::rename(path, &aside)?;
    for at in earlier.into_iter().skip(KEPT - 1) {
        let old = self::aside(path, at);
        for file in [beside(&old, "-wal"), old] {
            // What cannot be removed is only in the way; the next time tries again.
            drop(fs::remove_file(file));
        }
    }
    Ok(aside)
}

fn aside(path: &Path, at: u64) -> PathBuf {
    beside(path, &format!(".damaged-{at}"))
}

/// Times of the files put aside before, the latest first.
fn put_aside_before(path: &Path) -> Vec<u64> {
    let name = path.file_name().unwrap_or_default();
    let prefix = format!("{}.damaged-", name.to_string_lossy());
    let mut times: Vec<u64> = fs::read_dir(directory_of(path))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.strip_prefix(&prefix)?.parse().ok()
        })
        .collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    times
}

/// Takes over every batch whose checksums hold, those of a later release included.
fn salvage(
    file: &mut SpoolFile,
    options: &SpoolOptions,
    recovered: &mut Recovered,
) -> rusqlite::Result<()> {
    let damaged = SpoolFile::open_damaged(&recovered.aside, options)?;
    let mut ids = BTreeSet::new();
    // From both ends: a bad page hides what is behind it.
    let mut seen = |id, _| {
        ids.insert(SpoolId(id));
    };
    if damaged.list(false, &mut seen).is_err() {
        let backwards = damaged.list(true, &mut seen);
        if ids.is_empty() {
            return backwards;
        }
    }
    let (sane, insane): (Vec<SpoolId>, Vec<SpoolId>) = ids.into_iter().partition(|id| id.is_sane());
    recovered.lost_batches += insane.len() as u64;
    for ids in sane.chunks(COMMIT_BATCHES) {
        let mut heads = Vec::with_capacity(ids.len());
        let transaction = file.begin()?;
        for &id in ids {
            let encoded = damaged.encoded(id).ok().flatten();
            let intact = encoded.and_then(|encoded| Some((codec::verify(&encoded).ok()?, encoded)));
            if let Some((head, encoded)) = intact {
                insert(&transaction, id, &encoded)?;
                heads.push(head);
                continue;
            }
            recovered.lost_batches += 1;
            recovered
                .lost
                .extend(damaged.head(id).ok().and_then(Result::ok));
        }
        transaction.commit()?;
        recovered.batches += heads.len() as u64;
        recovered.rows += heads.iter().map(|head| u64::from(head.rows)).sum::<u64>();
    }
    Ok(())
}
