//! The queue as the file tells it.

use rusqlite::ErrorCode;

use super::SpoolId;
use super::codec::{DecodeError, Head};
use super::file::SpoolFile;
use super::queue::Queue;

/// What is in the file.
pub(super) struct Index {
    pub(super) queue: Queue,
    /// Batches of which not even the head could be read; they were set aside.
    pub(super) damaged: u64,
}

impl Index {
    /// Reads every batch's head. New ids will be above `last`.
    pub(super) fn of(file: &mut SpoolFile, last: SpoolId) -> rusqlite::Result<Self> {
        let mut listed = Vec::new();
        file.list(false, |id, bytes| listed.push((SpoolId(id), bytes)))?;
        let mut index = Self {
            queue: Queue::after(last),
            damaged: 0,
        };
        for (id, bytes) in listed {
            match head(file, id)? {
                Ok(head) => {
                    let entry = index.queue.entry(id, bytes, &head);
                    index.queue.push(entry);
                }
                Err(error) => {
                    file.set_aside(id, &error.to_string())?;
                    index.damaged += 1;
                }
            }
        }
        Ok(index)
    }
}

fn head(file: &SpoolFile, id: SpoolId) -> rusqlite::Result<Result<Head, DecodeError>> {
    if !id.is_sane() {
        return Ok(Err(DecodeError::Head));
    }
    match file.head(id) {
        // What SQLite says to a value that is no blob.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => {
            Ok(Err(DecodeError::Head))
        }
        read => read,
    }
}
