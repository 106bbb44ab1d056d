//! Waiting for a database that is not there yet.

use std::time::{Duration, Instant};

use super::connect::{ConnectError, Database};

/// Between two attempts: quick at first, for a container beside that is just starting.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The database was not ready in time.
#[derive(Debug, thiserror::Error)]
#[error("the database is not ready after {} s", waited.as_secs())]
pub struct WaitError {
    /// How long it was waited for.
    pub waited: Duration,
    /// Why the last attempt failed.
    #[source]
    pub last: ConnectError,
}

/// Waits until the database takes connections, for at most `timeout` (`None`: for ever). Everything is tried again,
/// wrong credentials and an unknown database too, which an operator may be about to mend; `progress` hears of each
/// failed attempt and of the time since the start.
pub async fn wait_until_ready(
    database: &Database,
    timeout: Option<Duration>,
    progress: &mut dyn FnMut(&ConnectError, Duration),
) -> Result<(), WaitError> {
    let start = Instant::now();
    let mut pause = PAUSE_MIN;
    let mut before = None;
    loop {
        let left = timeout.map_or(Duration::MAX, |t| t.saturating_sub(start.elapsed()));
        let last = match tokio::time::timeout(left, database.connect()).await {
            Ok(Ok(connection)) => {
                connection.close().await;
                return Ok(());
            }
            Ok(Err(error)) => error,
            // Cut short by our own timeout: an earlier answer says more.
            Err(_) => before.take().unwrap_or_else(|| database.connect_timeout()),
        };
        let waited = start.elapsed();
        let left = timeout.map_or(Duration::MAX, |t| t.saturating_sub(waited));
        if left.is_zero() {
            return Err(WaitError { waited, last });
        }
        progress(&last, waited);
        before = Some(last);
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
