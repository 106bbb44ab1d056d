//! Which server answers: after a failover what was acknowledged may be missing, and what is known of it may be wrong.

use deadpool_postgres::Client;
use tokio_postgres::{Error as PgError, GenericClient, Row};

use super::{Error, Timescale};

const SERVER_SQL: &str = include_str!("server.sql");

/// A server that was restarted is believed to be the one that it was until it has been up for so long, s: looking at
/// everything anew after each of several restarts would only slow them down.
const SETTLED_S: f64 = 30.0;

/// A server and its history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerId {
    /// The system's number and the timeline: other data directories and promotions differ in it.
    history: Box<str>,
    /// When it was started, µs since the epoch: a data directory that was put back from a copy differs in nothing else.
    started_us: i64,
}

/// A look at the server.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) server: ServerId,
    up_s: f64,
}

impl Seen {
    /// Whether what `before` acknowledged may be missing here.
    pub(super) fn may_lack_what(&self, before: &ServerId) -> bool {
        if self.server.history != before.history {
            return true;
        }
        self.server.started_us != before.started_us && self.up_s >= SETTLED_S
    }
}

/// Looks at the server behind a connection of the pool: by a statement that stays prepared, since it comes every second.
pub(super) async fn look_again(client: &Client) -> Result<Seen, PgError> {
    let statement = client.prepare_cached(SERVER_SQL).await?;
    seen(&client.query_one(&statement, &[]).await?)
}

/// Looks at the server behind a connection.
pub(super) async fn look(client: &impl GenericClient) -> Result<Seen, PgError> {
    let row = client.query_one(SERVER_SQL, &[]).await?;
    seen(&row)
}

fn seen(row: &Row) -> Result<Seen, PgError> {
    Ok(Seen {
        server: ServerId {
            history: row.try_get::<_, String>(0)?.into(),
            started_us: row.try_get(1)?,
        },
        up_s: row.try_get(2)?,
    })
}

impl Timescale {
    /// Whether another server answers than `last` says, one that may lack what was acknowledged since; `last` is then
    /// the new one. The first look only fills it in.
    pub async fn has_failed_over(&self, last: &mut Option<ServerId>) -> Result<bool, Error> {
        let seen = self
            .run("look at the server", async |client| {
                look_again(client).await
            })
            .await?;
        let Some(before) = last else {
            *last = Some(seen.server);
            return Ok(false);
        };
        let lacks = seen.may_lack_what(before);
        if lacks {
            *last = Some(seen.server);
        }
        Ok(lacks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(history: &str, started_us: i64, up_s: f64) -> Seen {
        Seen {
            server: ServerId {
                history: history.into(),
                started_us,
            },
            up_s,
        }
    }

    #[test]
    fn another_history_tells_at_once_and_a_restart_once_it_has_settled() {
        let before = seen("1/00000001", 5, 1_000.0).server;
        for (now, lacks) in [
            (seen("1/00000001", 5, 2_000.0), false),
            (seen("1/00000002", 5, 1.0), true),
            (seen("2/00000001", 5, 1.0), true),
            (seen("1/00000001", 9, 1.0), false),
            (seen("1/00000001", 9, 31.0), true),
        ] {
            assert_eq!(now.may_lack_what(&before), lacks, "{now:?}");
        }
    }
}
