//! Retention: chunks and history older than `settings.raw_retention`.

use std::time::Duration;

use super::{Error, Timescale};

/// Dropping a hundred chunks of a busy database; the server's own limit is lifted by retention.sql.
const RETENTION_DEADLINE: Duration = Duration::from_secs(300);

impl Timescale {
    /// Drops what is too old. To be called every hour by whoever holds the admin's URL; several at once are safe.
    /// Returns the number of chunks dropped, `None` when another process was at it.
    pub async fn apply_retention(&self) -> Result<Option<u64>, Error> {
        self.run_within(
            RETENTION_DEADLINE,
            "drop what is older than the retention",
            async |client| {
                let transaction = client.transaction().await?;
                transaction
                    .batch_execute(include_str!("retention_patience.sql"))
                    .await?;
                let row = transaction
                    .query_one(include_str!("retention.sql"), &[])
                    .await?;
                transaction.commit().await?;
                row.try_get::<_, Option<i64>>(0)
            },
        )
        .await
        .map(|chunks| chunks.and_then(|n| u64::try_from(n).ok()))
    }
}
