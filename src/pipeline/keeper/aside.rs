//! What the log says of samples that the store refuses.

use std::time::Duration;

use tokio::time::Instant;

use super::chain;
use crate::domain::Sample;
use crate::store::{Aside, WriteError};

/// Thousands may be refused for one reason: the log names one in this time.
const REMIND: Duration = Duration::from_secs(10);

/// Names a refused sample now and then, with how many there were since.
#[derive(Default)]
pub(super) struct AsideLog {
    said: Option<Instant>,
    unsaid: u64,
}

impl AsideLog {
    pub(super) fn note(
        &mut self,
        sample: &Sample,
        why: &WriteError,
        kept: &Result<Aside, WriteError>,
    ) {
        self.unsaid += 1;
        // What is lost is always said.
        if kept.is_ok() && self.said.is_some_and(|said| said.elapsed() < REMIND) {
            return;
        }
        self.said = Some(Instant::now());
        let samples = std::mem::take(&mut self.unsaid);
        let (endpoint, scheduled_us) = (sample.endpoint.0, sample.scheduled_at.as_micros());
        let cause = chain(why);
        match kept {
            Ok(Aside::Store) => tracing::error!(
                samples,
                endpoint,
                scheduled_us,
                cause,
                "the store refuses samples; they are set aside in refused_samples"
            ),
            Ok(Aside::File) => tracing::error!(
                samples,
                endpoint,
                scheduled_us,
                cause,
                "the store refuses samples; they are set aside in a file in the spool's folder"
            ),
            Err(error) => tracing::error!(
                samples,
                endpoint,
                scheduled_us,
                cause,
                not_kept = chain(error),
                "the store refuses a sample, and it could not be set aside; it is lost"
            ),
        }
    }
}
