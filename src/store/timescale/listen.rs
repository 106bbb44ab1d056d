//! Wakes the catalog when `endpoints` changed: LISTEN on a connection of its own, with the poll interval as the fallback,
//! which is all there is behind a pooler.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::connect::{Connection, Database};

const LISTEN_SQL: &str = include_str!("listen.sql");
/// Looks are at least this far apart, so that a storm of single updates is read in few looks.
const LOOKS_APART: Duration = Duration::from_millis(250);

/// Hears of changes, or waits out the poll interval. Repairs its connection by itself.
pub struct ChangeListener {
    database: Arc<Database>,
    connection: Option<Connection>,
    /// Woken by each notification and by the end of the connection; keeps a wake that comes while nobody waits.
    wake: Arc<Notify>,
    /// There is a reason to look, which the caller has not been told yet.
    heard: bool,
    last_look: Option<Instant>,
}

impl ChangeListener {
    /// A listener that is not connected yet.
    pub fn new(database: Arc<Database>) -> Self {
        Self {
            database,
            connection: None,
            wake: Arc::new(Notify::new()),
            heard: false,
            last_look: None,
        }
    }

    /// Whether changes are heard of at once; otherwise they are found by polling.
    pub fn is_listening(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|c| !c.client.is_closed())
    }

    /// Returns when there may be changes: after a notification, after having (re)connected, or after `poll`. Dropping
    /// the future loses nothing.
    pub async fn wait_for_change(&mut self, poll: Duration) {
        let deadline = Instant::now() + poll;
        if !self.heard {
            if self.is_listening() {
                self.heard = timeout_at(deadline, self.wake.notified()).await.is_ok();
            } else if self.database.is_pooled() {
                self.connection = None;
            } else {
                self.connection = None;
                // What happened before the first LISTEN was not heard: look once it stands.
                self.heard = timeout_at(deadline, self.listen()).await.unwrap_or(false);
            }
        }
        if self.heard {
            let paced = self
                .last_look
                .map_or_else(Instant::now, |last| last + LOOKS_APART);
            sleep_until(paced.min(deadline)).await;
        } else {
            sleep_until(deadline).await;
        }
        self.heard = false;
        self.last_look = Some(Instant::now());
    }

    async fn listen(&mut self) -> bool {
        let wake = self.wake.clone();
        let connected = match self.database.connect_waking(Some(wake)).await {
            // Notifications would reach whoever has the session then.
            Ok(_) if self.database.is_pooled() => return false,
            Ok(connection) => match connection.client.batch_execute(LISTEN_SQL).await {
                Ok(()) => Ok(connection),
                Err(source) => Err(self.database.connect_error(source)),
            },
            Err(error) => Err(error),
        };
        match connected {
            Ok(connection) => {
                self.connection = Some(connection);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "not listening for changes of endpoints; polling");
                false
            }
        }
    }
}
