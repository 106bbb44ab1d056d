//! This run's session: begun with the database or without it, told when the database is there, ended in order.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};

use super::diary::{Diary, Entry};
use crate::app::source::Ledger;
use crate::app::up::DEATH_HORIZON;
use crate::domain::{Backoff, Partition, Timestamp};
use crate::pipeline::Gap;
use crate::pipeline::buffer::SampleBuffer;
use crate::pipeline::catalog::Heard;
use crate::pipeline::clock::wall_now;
use crate::pipeline::keeper::{chain, random};
use crate::store::Session;
use crate::store::timescale::{self, ServerId, SessionId, Timescale};
use crate::telemetry;

/// `agents.last_seen` is this fresh; a successor that finds a session without an end counts from there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Telling the database that the session ends may take so long, of the ten seconds that Docker gives.
const END_WITHIN: Duration = Duration::from_millis(1_500);
/// Clocks further apart than this are said to be.
const CLOCKS_APART_S: f64 = 0.5;
/// The session answers from so long after it is entered or its row is sent: by then it is written, and the schedule runs.
const BEGIN_AFTER: Duration = Duration::from_millis(200);
/// A row that is written this long after its session began says nothing of others' silence.
const LATE: Duration = Duration::from_secs(5);

/// The diaries of this place, and of those that are no more.
pub(super) struct Diaries {
    own: Diary,
    left_behind: Vec<Diary>,
}

impl Diaries {
    pub(super) fn open(folder: &Path, partition: Partition) -> Self {
        Self {
            own: Diary::open(folder, partition.index()),
            left_behind: Diary::left_behind(folder, partition),
        }
    }

    async fn tell(&mut self, own: &Session, store: &Timescale) -> Result<(), timescale::Error> {
        for diary in &mut self.left_behind {
            diary.tell(None, store).await?;
        }
        self.own.tell(Some(own), store).await
    }
}

/// What the database is told of this process every few seconds, and again when a failover may have lost it.
struct Presence {
    told: Ledger,
    server: Option<ServerId>,
    /// What was told is to be told again.
    again: bool,
    /// That the clocks differ was said.
    warned: bool,
}

/// The session of this process.
#[derive(Clone)]
pub(super) struct Running {
    store: Timescale,
    session: Session,
    /// Where there is a folder.
    diaries: Option<Rc<Mutex<Diaries>>>,
    entry: Rc<RefCell<Entry>>,
    id: Rc<watch::Sender<Option<SessionId>>>,
    buffer: SampleBuffer,
    heard: Heard,
}

impl Running {
    /// Begins. `at_once`: without waiting for the database, which is away. Otherwise it waits for the database where
    /// there are no diaries, and where there are it asks once; `of` gives the session that begins at an instant.
    pub(super) async fn begin(
        store: &Timescale,
        of: impl Fn(Timestamp) -> Session,
        diaries: Option<Diaries>,
        buffer: SampleBuffer,
        heard: Heard,
        at_once: bool,
    ) -> Self {
        let diaries = diaries.map(|diaries| Rc::new(Mutex::new(diaries)));
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let session = of(wall_now().plus(BEGIN_AFTER));
            let running = Self {
                store: store.clone(),
                entry: Rc::new(RefCell::new(Entry::new(&session, heard.until()))),
                session,
                diaries: diaries.clone(),
                id: Rc::new(watch::Sender::new(None)),
                buffer: buffer.clone(),
                heard: heard.clone(),
            };
            if !at_once {
                match running.register().await {
                    Ok(()) => return running,
                    Err(error) => {
                        tracing::warn!(cause = chain(&error), "the session cannot be recorded yet")
                    }
                }
            }
            if diaries.is_some() {
                // Drawn anew: asking may have taken long.
                let session = of(wall_now().plus(BEGIN_AFTER));
                let running = Self {
                    entry: Rc::new(RefCell::new(Entry::new(&session, heard.until()))),
                    session,
                    ..running
                };
                running.enter().await;
                return running;
            }
            sleep(backoff.next(random())).await;
        }
    }

    /// Who and since when.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Tells the database of earlier runs and of this one.
    async fn register(&self) -> Result<(), timescale::Error> {
        if let Some(diaries) = &self.diaries {
            let mut diaries = diaries.lock().await;
            diaries.tell(&self.session, &self.store).await?;
        }
        let late = wall_now().since(self.session.started) > LATE;
        let id = self
            .store
            .start_session(&self.session, DEATH_HORIZON, late)
            .await?;
        self.id.send_replace(Some(id));
        if let Some(diaries) = &self.diaries {
            diaries.lock().await.own.is_known(&self.session);
        }
        Ok(())
    }

    /// Writes the session's row, however long the database is away; from then on says that it lives.
    pub(super) async fn keep(self, told: Ledger) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        while self.id().is_none() {
            match self.register().await {
                Ok(()) => {
                    tracing::info!("the session is recorded");
                    break;
                }
                Err(error) => {
                    tracing::debug!(cause = chain(&error), "the session cannot be recorded yet")
                }
            }
            self.entry.borrow_mut().lives(
                wall_now(),
                self.buffer.unsaved_since(),
                self.heard.until(),
            );
            self.enter().await;
            sleep(backoff.next(random())).await;
        }
        let mut presence = Presence {
            told,
            server: None,
            again: false,
            warned: false,
        };
        loop {
            sleep(HEARTBEAT).await;
            self.beat(&mut presence).await;
        }
    }

    async fn beat(&self, presence: &mut Presence) {
        let Some(id) = self.id() else { return };
        let beat = async {
            self.tell_presence(id, presence).await?;
            self.store.clock_offset().await
        };
        match beat.await {
            Ok(offset) => {
                telemetry::clock_offset(-offset.seconds);
                let off = offset.seconds.abs() > CLOCKS_APART_S + offset.error.as_secs_f64();
                if off && !presence.warned {
                    tracing::warn!(
                        database_ahead_s = offset.seconds,
                        "this machine's clock and the database's differ; rows carry this machine's time"
                    );
                }
                presence.warned = off;
            }
            // The keepers say that the database is away.
            Err(error) => tracing::debug!(cause = chain(&error), "heartbeat"),
        }
    }

    async fn tell_presence(
        &self,
        id: SessionId,
        presence: &mut Presence,
    ) -> Result<(), timescale::Error> {
        // Before the instant at which it lives: what it says must hold then.
        let unsaved_since = self.buffer.unsaved_since();
        presence.again |= self.store.has_failed_over(&mut presence.server).await?;
        if !presence.again && self.store.heartbeat(id, wall_now(), unsaved_since).await? {
            return Ok(());
        }
        presence.again = true;
        let id = self
            .store
            .start_session(&self.session, DEATH_HORIZON, true)
            .await?;
        self.id.send_replace(Some(id));
        presence.told.tell_again().await?;
        self.store.heartbeat(id, wall_now(), unsaved_since).await?;
        presence.again = false;
        tracing::warn!(
            "the database is another one, or was restarted; it was told again of this agent and its gaps"
        );
        Ok(())
    }

    fn id(&self) -> Option<SessionId> {
        *self.id.borrow()
    }

    /// Into the diary, where there is one; whether it is there.
    async fn enter(&self) -> bool {
        let Some(diaries) = &self.diaries else {
            return false;
        };
        let entry = self.entry.borrow().clone();
        match diaries.lock().await.own.enter(entry) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(cause = chain(&error), "the diary cannot be written");
                false
            }
        }
    }

    /// Ends the session; whoever keeps it has been stopped. `stopped` when the process stopped in order and lost
    /// nothing. What the database cannot be told now goes into the diary.
    pub(super) async fn end(self, stopped: Option<Timestamp>, gaps: &[Gap]) {
        let told = timeout(END_WITHIN, async {
            while let Err(error) = self.tell_end(stopped).await {
                tracing::debug!(
                    cause = chain(&error),
                    "the end of the session cannot be recorded yet"
                );
                sleep(Duration::from_millis(200)).await;
            }
        });
        if told.await.is_ok() && gaps.is_empty() {
            return;
        }
        self.entry
            .borrow_mut()
            .ends(self.id(), stopped, self.heard.until(), gaps);
        if stopped.is_none() {
            let unsaved = self.buffer.unsaved_since();
            self.entry
                .borrow_mut()
                .lives(wall_now(), unsaved, self.heard.until());
        }
        if self.enter().await {
            tracing::warn!(
                in_order = stopped.is_some(),
                "the database is away; the next run will tell it of this one"
            );
        } else {
            tracing::error!(
                gaps = gaps.len(),
                "the end of the session is not recorded; the audit will count ticks after it as missing"
            );
        }
    }

    async fn tell_end(&self, stopped: Option<Timestamp>) -> Result<(), timescale::Error> {
        if self.id().is_none() {
            self.register().await?;
        }
        // A session that lost samples is not ended in order: its successor has to look at it.
        match (self.id(), stopped) {
            (Some(id), Some(stopped)) => {
                self.store
                    .note_unheard(&self.session, self.heard.until(), stopped)
                    .await?;
                self.store.end_session(id, stopped).await
            }
            _ => Ok(()),
        }
    }
}
