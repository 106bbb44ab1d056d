//! Writes the snapshot. The catalog hands over encoded lines and goes on; a thread writes them, in order.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crc32fast::Hasher;

use super::line::{mark, write_gone, write_head, write_row};
use super::{Place, Snapshot};
use crate::domain::{EndpointId, Timestamp};
use crate::pipeline::catalog::{CatalogMemory, Recalled};
use crate::pipeline::clock::wall_now;
use crate::pipeline::keeper::chain;
use crate::store::CatalogChange;
use crate::telemetry;

/// Lines are handed over in parts of so much.
const PART_BYTES: usize = 256 << 10;
/// What may wait for a slow disk; beyond it this snapshot is given up. 500 000 rows of a plain endpoint are some 70 MB,
/// of which the disk takes most while they are read from the database.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Where nothing changes, a mark says this often that it is still so.
const MARK_EVERY: Duration = Duration::from_secs(30);
/// After a snapshot was given up, everything is asked for again.
const AGAIN_AFTER: Duration = Duration::from_secs(300);
/// What was appended may be as long as what was written at once, and this, before the file is written anew.
const APPENDED_MIN: u64 = 1 << 20;

enum Order {
    Begin,
    Lines(Vec<u8>),
    Commit {
        recalled: Recalled,
        held: Vec<EndpointId>,
    },
    Abandon,
}

#[derive(Default)]
struct Shared {
    waiting_bytes: AtomicUsize,
    failed: AtomicBool,
    /// The last mark on disk, µs; zero when there is none.
    as_of: AtomicI64,
}

/// The catalog's memory on disk.
pub(in crate::app::agent) struct Recorder {
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
    part: Vec<u8>,
    /// Since the last commit.
    noted: bool,
    loading: bool,
    /// Nothing is taken until everything comes anew.
    given_up: Option<Timestamp>,
    marked: Option<Timestamp>,
}

/// How old the snapshot on disk is.
#[derive(Clone)]
pub(in crate::app::agent) struct SnapshotAge(Arc<Shared>);

impl SnapshotAge {
    /// For the metrics; says nothing while there is none.
    pub(in crate::app::agent) fn report(&self) {
        let as_of = self.0.as_of.load(Ordering::Relaxed);
        if as_of != 0 {
            telemetry::snapshot_age(wall_now().since(Timestamp::from_micros(as_of)));
        }
    }
}

impl Recorder {
    /// Starts the thread. It ends when the recorder is dropped, and nobody waits for it: a snapshot that is not
    /// finished does not count.
    pub(in crate::app::agent) fn start(
        folder: &Path,
        place: Place,
        found: Option<Recalled>,
    ) -> io::Result<(Self, SnapshotAge)> {
        let (orders, received) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        if let Some(found) = found {
            shared
                .as_of
                .store(found.as_of.as_micros(), Ordering::Relaxed);
        }
        let writer = Writer {
            path: place.path(folder),
            place,
            shared: shared.clone(),
            draft: None,
            file: None,
        };
        thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || writer.run(&received))?;
        let age = SnapshotAge(shared.clone());
        let recorder = Self {
            orders,
            shared,
            part: Vec::new(),
            noted: false,
            loading: false,
            // Until the first load there is nothing to append to.
            given_up: Some(wall_now()),
            marked: None,
        };
        Ok((recorder, age))
    }

    fn hand_over(&mut self) {
        if self.part.is_empty() {
            return;
        }
        let part = std::mem::take(&mut self.part);
        let waiting = self
            .shared
            .waiting_bytes
            .fetch_add(part.len(), Ordering::Relaxed);
        if waiting > WAITING_BYTES_MAX {
            tracing::warn!(
                waiting,
                "the disk is too slow for the snapshot of the endpoints; given up for now"
            );
            self.shared
                .waiting_bytes
                .fetch_sub(part.len(), Ordering::Relaxed);
            self.give_up();
            return;
        }
        // A thread that has ended has said why.
        let _ = self.orders.send(Order::Lines(part));
    }

    fn give_up(&mut self) {
        self.part.clear();
        self.given_up = Some(wall_now());
        self.loading = false;
        let _ = self.orders.send(Order::Abandon);
    }
}

impl CatalogMemory for Recorder {
    fn begin(&mut self) {
        self.part.clear();
        self.given_up = None;
        self.loading = true;
        self.shared.failed.store(false, Ordering::Relaxed);
        let _ = self.orders.send(Order::Begin);
    }

    fn note(&mut self, change: &CatalogChange) {
        if self.given_up.is_some() {
            return;
        }
        match change {
            CatalogChange::Upsert(row) => write_row(&mut self.part, row),
            CatalogChange::Remove(id) => write_gone(&mut self.part, *id),
        }
        self.noted = true;
        if self.part.len() >= PART_BYTES {
            self.hand_over();
        }
    }

    fn commit(&mut self, at: Timestamp, held: &HashSet<EndpointId>, held_since: Option<Timestamp>) {
        if self.shared.failed.load(Ordering::Relaxed) && self.given_up.is_none() {
            self.give_up();
        }
        if self.given_up.is_some() {
            return;
        }
        let is_due = self
            .marked
            .is_none_or(|marked| at.since(marked) >= MARK_EVERY);
        if !(self.noted || self.loading || is_due) {
            return;
        }
        self.hand_over();
        let held = if self.loading {
            held.iter().copied().collect()
        } else {
            Vec::new()
        };
        (self.noted, self.loading, self.marked) = (false, false, Some(at));
        let recalled = Recalled {
            as_of: at,
            held_since,
        };
        let _ = self.orders.send(Order::Commit { recalled, held });
    }

    fn abandon(&mut self) {
        self.give_up();
    }

    fn wants_all(&mut self) -> bool {
        if self.shared.failed.load(Ordering::Relaxed) && self.given_up.is_none() {
            self.give_up();
        }
        self.given_up
            .is_some_and(|since| wall_now().since(since) >= AGAIN_AFTER)
    }
}

/// A file that is being written.
struct Growing {
    file: BufWriter<File>,
    hasher: Hasher,
    bytes: u64,
}

impl Growing {
    fn create(path: &Path, place: &Place) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        let mut growing = Self {
            file: BufWriter::with_capacity(PART_BYTES, file),
            hasher: Hasher::new(),
            bytes: 0,
        };
        let mut head = Vec::new();
        write_head(&mut head, place);
        growing.append(&head)?;
        Ok(growing)
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.hasher.update(lines);
        self.bytes += lines.len() as u64;
        self.file.write_all(lines)
    }

    fn mark(&mut self, recalled: Recalled) -> io::Result<()> {
        let mark = mark(recalled, &self.hasher);
        self.append(mark.as_bytes())?;
        self.file.flush()
    }
}

struct Writer {
    path: PathBuf,
    place: Place,
    shared: Arc<Shared>,
    /// While a load is written.
    draft: Option<Growing>,
    /// The file in place, and its length when it was put there.
    file: Option<(Growing, u64)>,
}

impl Writer {
    fn run(mut self, orders: &mpsc::Receiver<Order>) {
        crate::app::machine::lower_priority();
        while let Ok(order) = orders.recv() {
            if let Order::Lines(lines) = &order {
                self.shared
                    .waiting_bytes
                    .fetch_sub(lines.len(), Ordering::Relaxed);
            }
            if let Err(error) = self.obey(order) {
                if !self.shared.failed.swap(true, Ordering::Relaxed) {
                    tracing::warn!(path = %self.path.display(), cause = chain(&error), "the snapshot of the endpoints cannot be written");
                }
                self.forget();
            }
        }
        let _ = std::fs::remove_file(self.draft_path());
    }

    fn obey(&mut self, order: Order) -> io::Result<()> {
        match order {
            Order::Begin => {
                self.draft = Some(Growing::create(&self.draft_path(), &self.place)?);
            }
            Order::Lines(lines) => {
                let file = self.file.as_mut().map(|(file, _)| file);
                if let Some(file) = self.draft.as_mut().or(file) {
                    file.append(&lines)?;
                }
            }
            Order::Commit { recalled, held } => self.commit(recalled, &held)?,
            Order::Abandon => self.forget(),
        }
        Ok(())
    }

    /// What is on disk stays as of its last mark; nothing more is written to it.
    fn forget(&mut self) {
        self.draft = None;
        self.file = None;
    }

    fn commit(&mut self, recalled: Recalled, held: &[EndpointId]) -> io::Result<()> {
        if let Some(mut draft) = self.draft.take() {
            if !held.is_empty() {
                self.copy_held(held, &mut draft)?;
            }
            self.put_in_place(draft, recalled)?;
        } else if let Some((file, base)) = &mut self.file {
            file.mark(recalled)?;
            if file.bytes > *base * 2 + APPENDED_MIN {
                self.write_anew(recalled)?;
            }
        } else {
            return Ok(());
        }
        self.shared
            .as_of
            .store(recalled.as_of.as_micros(), Ordering::Relaxed);
        Ok(())
    }

    fn put_in_place(&mut self, mut file: Growing, recalled: Recalled) -> io::Result<()> {
        file.mark(recalled)?;
        file.file.get_ref().sync_all()?;
        std::fs::rename(self.draft_path(), &self.path)?;
        let base = file.bytes;
        self.file = Some((file, base));
        Ok(())
    }

    /// Rows that the load did not give and that are still probed: as the file in place has them.
    fn copy_held(&self, held: &[EndpointId], draft: &mut Growing) -> io::Result<()> {
        let Ok(old) = Snapshot::read(&self.path, &self.place) else {
            return Ok(());
        };
        copy(
            &self.path,
            held.iter().filter_map(|id| old.position(*id)),
            draft,
        )
    }

    /// Without what later lines have replaced.
    fn write_anew(&mut self, recalled: Recalled) -> io::Result<()> {
        let old = Snapshot::read(&self.path, &self.place).map_err(io::Error::other)?;
        let mut draft = Growing::create(&self.draft_path(), &self.place)?;
        copy(&self.path, old.rows.values().copied(), &mut draft)?;
        self.put_in_place(draft, recalled)
    }

    fn draft_path(&self) -> PathBuf {
        self.path.with_extension("draft")
    }
}

fn copy(path: &Path, positions: impl Iterator<Item = u64>, into: &mut Growing) -> io::Result<()> {
    let mut positions: Vec<u64> = positions.collect();
    positions.sort_unstable();
    let mut file = BufReader::new(File::open(path)?);
    let mut at = 0;
    let mut line = Vec::new();
    for position in positions {
        if position != at {
            file.seek_relative((position - at) as i64)?;
        }
        line.clear();
        at = position + file.read_until(b'\n', &mut line)? as u64;
        into.append(&line)?;
    }
    debug_assert!(file.stream_position().is_ok_and(|end| end == at));
    Ok(())
}
