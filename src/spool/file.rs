//! The SQLite file: how it is set up, and the few statements that run on it. Which batch goes where is not decided
//! here.

use std::ffi::c_int;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, OptionalExtension, Transaction, ffi};

use tracing::warn;

use super::codec::{DecodeError, Head};
use super::sizes::{PAGE_BYTES, Sizes};
use super::{Durability, SpoolId, SpoolOptions};

const SCHEMA_SQL: &str = include_str!("file/schema.sql");
const INSERT_SQL: &str = include_str!("file/insert.sql");
const DELETE_SQL: &str = include_str!("file/delete.sql");
const ENCODED_SQL: &str = include_str!("file/encoded.sql");
const LIST_SQL: &str = include_str!("file/list.sql");
const LIST_BACKWARDS_SQL: &str = include_str!("file/list_backwards.sql");
const SET_ASIDE_SQL: &str = include_str!("file/set_aside.sql");
const TRIM_DAMAGED_SQL: &str = include_str!("file/trim_damaged.sql");

/// Bounds what a damaged length can make us allocate: above any batch that was ever put.
const LENGTH_MAX: u64 = 16 << 20;
/// An agent that was killed a moment ago may hold the lock until the kernel has cleaned up.
const LOCK_WAIT: Duration = Duration::from_millis(500);
/// A file up to this size is checked whole at open; a larger one as far as its batches are read. benches/spool.rs: 48 ms
/// for 56 MiB from the page cache.
const CHECK_BYTES_MAX: u64 = 64 << 20;
/// What `pragma auto_vacuum` says of our files.
const INCREMENTAL: u64 = 2;
/// Bytes that hold the head of nearly any batch.
const HEAD_BYTES: usize = 512;
/// Damaged batches kept for a person, and the share of the cap that one may take.
const DAMAGED_KEPT: i64 = 8;
const DAMAGED_SHARE: u64 = 64;

/// An open spool file.
pub(super) struct SpoolFile {
    connection: Connection,
    path: PathBuf,
    wal_path: PathBuf,
    sizes: Sizes,
}

/// Whether the disk, the quota or the cap on pages has no room.
pub(super) fn is_want_of_room(error: &rusqlite::Error) -> bool {
    // An exhausted quota is a failed write to SQLite, as is a disk that fails: worth the same tries.
    let failed_write = ffi::SQLITE_IOERR_WRITE;
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || error
            .sqlite_error()
            .is_some_and(|e| e.extended_code == failed_write)
}

/// Whether the file's content is at fault, rather than the disk or us.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    ) || matches!(
        error,
        // A column that is not of its declared type.
        rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::IntegralValueOutOfRange(..)
    )
        // The file is shorter than it says.
        || code == Some(ffi::SQLITE_IOERR_SHORT_READ)
}

impl SpoolFile {
    /// Opens or creates the file, takes SQLite's own lock on it and checks it.
    pub(super) fn open(path: &Path, options: &SpoolOptions) -> rusqlite::Result<Self> {
        let sizes = Sizes::of(options.bytes_max);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let file = Self::connect(path, flags, sizes)?;
        let connection = &file.connection;
        connection.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
        // Only a database without tables takes it; ours have had it from the start.
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(
            None,
            "synchronous",
            match options.durability {
                Durability::Process => "normal",
                Durability::PowerCut => "full",
            },
        )?;
        let log_pages = sizes.log_bytes / 4 / PAGE_BYTES;
        connection.pragma_update(None, "wal_autocheckpoint", log_pages as i64)?;
        connection.pragma_update(None, "journal_size_limit", sizes.log_bytes as i64)?;
        file.check()?;
        connection.execute_batch(SCHEMA_SQL)?;
        file.limit_pages(sizes.pages_max)?;
        file.allocate_log();
        Ok(file)
    }

    /// Opens a damaged file for what can still be read; it stays as it is.
    pub(super) fn open_damaged(path: &Path, options: &SpoolOptions) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let file = Self::connect(path, flags, Sizes::of(options.bytes_max))?;
        file.leave_log_alone();
        Ok(file)
    }

    fn connect(path: &Path, flags: OpenFlags, sizes: Sizes) -> rusqlite::Result<Self> {
        let connection =
            Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(LOCK_WAIT)?;
        // Before the first look at the file, so that no shared memory is made and the lock is kept.
        connection.pragma_update(None, "locking_mode", "exclusive")?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, LENGTH_MAX as i32)?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            wal_path: beside(path, "-wal"),
            sizes,
        })
    }

    /// Zeros after the last frame are no frames; SQLite writes over them and never cuts them off.
    fn allocate_log(&self) {
        let allocated = File::options()
            .write(true)
            .open(&self.wal_path)
            .and_then(|log| {
                let flags = rustix::fs::FallocateFlags::empty();
                Ok(rustix::fs::fallocate(log, flags, 0, self.sizes.log_bytes)?)
            });
        if let Err(error) = allocated {
            warn!(%error, path = %self.wal_path.display(), "no space is reserved for the spool's log: a full disk will stop the spool");
        }
    }

    fn check(&self) -> rusqlite::Result<()> {
        if self.connection.is_readonly(MAIN_DB)? {
            // By its mode it is not ours to write; with the right mode it is its head that says so, wrongly.
            let writable = rustix::fs::access(&self.path, rustix::fs::Access::WRITE_OK).is_ok();
            return Err(match writable {
                true => failure(ffi::SQLITE_CORRUPT, "a head that forbids writing"),
                false => failure(ffi::SQLITE_READONLY, "the file cannot be written"),
            });
        }
        if self.pragma("auto_vacuum")? != INCREMENTAL {
            return Err(failure(ffi::SQLITE_CORRUPT, "a head that is not ours"));
        }
        if self.pragma("page_count")? * PAGE_BYTES > CHECK_BYTES_MAX {
            return Ok(());
        }
        let verdict: String = self
            .connection
            .pragma_query_value(None, "quick_check", |row| row.get(0))?;
        match verdict.as_str() {
            "ok" => Ok(()),
            fault => Err(failure(ffi::SQLITE_CORRUPT, fault)),
        }
    }

    /// At close the log stays beside the file, as evidence and as what salvage reads.
    pub(super) fn leave_log_alone(&self) {
        let option = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        // Without it the log is copied back into the file, which salvage reads as well.
        drop(self.connection.set_db_config(option, true));
    }

    /// A hard wall for the database's pages; SQLite reports a full disk beyond it.
    pub(super) fn limit_pages(&self, pages: u64) -> rusqlite::Result<()> {
        let limit = pages as i64;
        self.connection
            .pragma_update_and_check(None, "max_page_count", limit, |_| Ok(()))
    }

    pub(super) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Rolls back when dropped without a commit.
    pub(super) fn begin(&mut self) -> rusqlite::Result<Transaction<'_>> {
        self.connection.transaction()
    }

    /// Ids and encoded sizes, ascending or descending, as far as the file can be read.
    pub(super) fn list(
        &self,
        backwards: bool,
        mut each: impl FnMut(i64, u64),
    ) -> rusqlite::Result<()> {
        let sql = if backwards {
            LIST_BACKWARDS_SQL
        } else {
            LIST_SQL
        };
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            // A length beyond any batch shows when its bytes are read.
            let bytes: i64 = row.get(1)?;
            each(row.get(0)?, bytes.unsigned_abs());
        }
        Ok(())
    }

    /// The head of a batch, read without the rest.
    pub(super) fn head(&self, id: SpoolId) -> rusqlite::Result<Result<Head, DecodeError>> {
        let blob = self
            .connection
            .blob_open(MAIN_DB, c"batch", c"encoded", id.0, true)?;
        let mut front = vec![0; blob.len().min(HEAD_BYTES)];
        blob.read_at_exact(&mut front, 0)?;
        let head = Head::read(&front);
        if head != Err(DecodeError::Length) || blob.len() <= HEAD_BYTES {
            return Ok(head);
        }
        front.resize(blob.len().min(1 << 20), 0);
        blob.read_at_exact(&mut front, 0)?;
        Ok(Head::read(&front))
    }

    /// The bytes of a batch; absent when there is none of that id.
    pub(super) fn encoded(&self, id: SpoolId) -> rusqlite::Result<Option<Vec<u8>>> {
        self.connection
            .query_row(ENCODED_SQL, [id.0], |row| row.get(0))
            .optional()
    }

    /// Moves a batch to the damaged ones.
    pub(super) fn set_aside(&mut self, id: SpoolId, why: &str) -> rusqlite::Result<()> {
        let bytes_max = self.sizes.pages_max * PAGE_BYTES / DAMAGED_SHARE;
        let transaction = self.begin()?;
        transaction.execute(SET_ASIDE_SQL, (id.0, why, bytes_max as i64))?;
        transaction.execute(TRIM_DAMAGED_SQL, [DAMAGED_KEPT])?;
        delete(&transaction, id)?;
        transaction.commit()
    }

    /// Pages that the database may have now: what the cap allows, and what the disk has room for when it is nearly
    /// full.
    pub(super) fn pages_max(&self) -> u64 {
        let room = rustix::fs::statvfs(&self.path)
            .ok()
            // Some file systems do not say.
            .filter(|disk| disk.f_blocks > 0)
            .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) / PAGE_BYTES);
        let fits = |room: u64| (self.bytes_of(&self.path) / PAGE_BYTES).saturating_add(room);
        self.sizes.pages_max.min(room.map_or(u64::MAX, fits))
    }

    /// Cuts off what the disk has no room for, so that the log can be copied back; when all is well, nothing.
    pub(super) fn fit(&self) -> rusqlite::Result<()> {
        let surplus = self.pragma("page_count")?.saturating_sub(self.pages_max());
        if surplus > 0 {
            self.vacuum(surplus)?;
            self.copy_back()?;
        }
        Ok(())
    }

    pub(super) fn free_pages(&self) -> rusqlite::Result<u64> {
        self.pragma("freelist_count")
    }

    /// Cuts free pages off the database, at most so many. The file shrinks at the next [`Self::copy_back`].
    pub(super) fn vacuum(&self, pages: u64) -> rusqlite::Result<()> {
        let pages = pages as i64;
        self.connection
            .pragma(None, "incremental_vacuum", pages, |_| Ok(()))
    }

    /// Copies the log back into the database, which makes its space free for the next commit.
    pub(super) fn copy_back(&self) -> rusqlite::Result<()> {
        self.connection
            .pragma_query(None, "wal_checkpoint", |_| Ok(()))
    }

    /// What database and log take on disk, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes_of(&self.path) + self.bytes_of(&self.wal_path)
    }

    fn bytes_of(&self, path: &Path) -> u64 {
        std::fs::metadata(path).map_or(0, |file| file.len())
    }

    fn pragma(&self, name: &str) -> rusqlite::Result<u64> {
        pragma(&self.connection, name)
    }
}

/// Pages in use in the database, as the transaction sees it.
pub(super) fn used_pages(transaction: &Transaction<'_>) -> rusqlite::Result<u64> {
    let pages = pragma(transaction, "page_count")?;
    Ok(pages.saturating_sub(free_pages(transaction)?))
}

/// Free pages in the database, as the transaction sees it.
pub(super) fn free_pages(transaction: &Transaction<'_>) -> rusqlite::Result<u64> {
    pragma(transaction, "freelist_count")
}

pub(super) fn insert(
    transaction: &Transaction<'_>,
    id: SpoolId,
    encoded: &[u8],
) -> rusqlite::Result<()> {
    transaction.execute(INSERT_SQL, (id.0, encoded)).map(drop)
}

pub(super) fn delete(transaction: &Transaction<'_>, id: SpoolId) -> rusqlite::Result<()> {
    transaction.execute(DELETE_SQL, [id.0]).map(drop)
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    let value: i64 = connection.pragma_query_value(None, name, |row| row.get(0))?;
    Ok(value.unsigned_abs())
}

fn failure(code: c_int, what: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(what.into()))
}

/// `path` with something appended to its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The directory that `path` is in.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
