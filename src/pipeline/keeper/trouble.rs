//! What the log says while the store is away.

use std::time::Duration;

use tokio::time::Instant;

use super::chain;
use crate::store::WriteError;

/// While the store refuses to take anything, the log says so this often.
const REMIND: Duration = Duration::from_secs(60);
/// And this often when the reason is another than it said last.
const CHANGED: Duration = Duration::from_secs(5);

/// Says once that the store is away, reminds, and says when it is back.
#[derive(Default)]
pub(super) struct Trouble {
    since: Option<Instant>,
    said: Option<Instant>,
    cause: String,
}

impl Trouble {
    pub(super) fn note(&mut self, error: &WriteError, in_hand: usize, buffered: usize) {
        self.since.get_or_insert_with(Instant::now);
        let cause = chain(error);
        // An outage that has become a refusal is another thing to mend.
        let pause = if cause == self.cause { REMIND } else { CHANGED };
        if self.said.is_some_and(|said| said.elapsed() < pause) {
            return;
        }
        self.said = Some(Instant::now());
        self.cause.clone_from(&cause);
        match error {
            WriteError::Hold { .. } => {
                tracing::error!(
                    in_hand,
                    buffered,
                    cause,
                    "the store does not take samples; holding them"
                );
            }
            _ => tracing::warn!(
                in_hand,
                buffered,
                cause,
                "the store is away; holding samples"
            ),
        }
    }

    /// Whether the store was away when last tried.
    pub(super) const fn is_on(&self) -> bool {
        self.since.is_some()
    }

    pub(super) fn over(&mut self) {
        self.said = None;
        if let Some(since) = self.since.take() {
            tracing::info!(
                away_ms = since.elapsed().as_millis() as u64,
                "the store takes samples again"
            );
        }
    }
}
