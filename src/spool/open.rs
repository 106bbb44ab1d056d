//! Opening a spool: the lock, the file, what a previous process left, and a new start when the file is damaged.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;

use rusqlite::ErrorCode;

use super::engine::Engine;
use super::error::SpoolError;
use super::file::{SpoolFile, beside, directory_of, is_damage};
use super::index::Index;
use super::recover::recover;
use super::shared::Shared;
use super::{Opened, SpoolId, SpoolOptions};

/// Everything up to the thread.
pub(super) fn open(
    path: &Path,
    options: SpoolOptions,
) -> Result<(Engine, Arc<Shared>), SpoolError> {
    let lock = lock(path)?;
    let intact = SpoolFile::open(path, &options)
        .and_then(|mut file| Ok((Index::of(&mut file, SpoolId::default())?, file)));
    let (index, file, recovered) = match intact {
        Ok((index, file)) => (index, file, None),
        Err(cause) if is_damage(&cause) => {
            let (mut file, recovered) = recover(path, &options, cause)?;
            let index =
                Index::of(&mut file, SpoolId::default()).map_err(|e| open_error(path, e))?;
            (index, file, Some(recovered))
        }
        Err(cause) => return Err(open_error(path, cause)),
    };
    if let Some(recovered) = &recovered {
        recovered.log();
    }
    let opened = Opened {
        batches: index.queue.batches(),
        rows: index.queue.rows(),
        recovered,
    };
    let shared = Arc::new(Shared::new(path.to_owned(), options, opened));
    let engine = Engine::new(file, index, lock, shared.clone());
    Ok((engine, shared))
}

/// Held while the spool is open. SQLite locks the file too, but only as long as it looks like a database; this one
/// also makes sure that nobody puts a damaged file aside while another does. The file stays: removing it would race.
fn lock(path: &Path) -> Result<File, SpoolError> {
    let directory = directory_of(path);
    let refused = |source| directory_error(directory, source);
    std::fs::create_dir_all(directory).map_err(refused)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(beside(path, ".lock"))
        .map_err(refused)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SpoolError::InUse {
            path: path.to_owned(),
        }),
        // A file system without such locks: SQLite's own must do.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(error)) => Err(refused(error)),
    }
}

fn directory_error(directory: &Path, source: io::Error) -> SpoolError {
    SpoolError::Directory {
        path: directory.to_owned(),
        uid: rustix::process::geteuid().as_raw(),
        source,
    }
}

pub(super) fn open_error(path: &Path, source: rusqlite::Error) -> SpoolError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => SpoolError::InUse { path },
        _ => SpoolError::Open { path, source },
    }
}
