//! A login role of a test's own.

use tokio_postgres::Client;
use watcher::store::timescale::Timescale;

use super::database::{TestDatabase, connect, open};

/// A login role that has one of ours; gone with `remove`, as far as a server shared by tests allows.
pub(crate) struct Login<'a> {
    database: &'a TestDatabase,
    pub(crate) name: String,
}

impl<'a> Login<'a> {
    pub(crate) async fn new(database: &'a TestDatabase, suffix: &str, role: &str) -> Self {
        let name = format!("{}_{suffix}", database.name());
        let login = Self { database, name };
        // A process of the same id may have died before it could clean up.
        let sql = format!(
            "drop role if exists {0}; create role {0} login password 'pw' in role {role}",
            login.name
        );
        login
            .database
            .client()
            .await
            .batch_execute(&sql)
            .await
            .expect(&sql);
        login
    }

    pub(crate) fn url(&self) -> String {
        self.database.url_as(&self.name, "pw")
    }

    pub(crate) async fn client(&self) -> Client {
        connect(&self.url()).await
    }

    pub(crate) fn store(&self) -> Timescale {
        open(&self.url())
    }

    pub(crate) async fn remove(self) {
        let sql = format!("drop owned by {0}; drop role {0}", self.name);
        self.database
            .client()
            .await
            .batch_execute(&sql)
            .await
            .expect(&sql);
    }
}
