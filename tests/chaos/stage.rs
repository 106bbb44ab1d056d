//! What a scenario plays on: a database of its own, a target as oracle, endpoints, a folder for spool and log.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::instance::{self, Instance};
use crate::judge::{self, Judged};
use crate::scenario::Run;
use crate::up::{TargetProcess, Up, output};

/// Seconds between two probes of an endpoint: the shortest there is, so that few endpoints make much load.
pub(crate) const INTERVAL_S: u32 = 5;

/// Agents of an `up`.
const PROCESSES: usize = 2;

pub(crate) struct Stage {
    pub(crate) target: TargetProcess,
    /// Of the database, as superuser, straight to the instance.
    pub(crate) url: String,
    pub(crate) database: String,
    pub(crate) folder: tempfile::TempDir,
    /// RFC 3339; the audit's window begins here.
    since: String,
}

impl Stage {
    /// A migrated database on the run's instance, with endpoints for the run's rate.
    pub(crate) async fn set(run: &Run) -> anyhow::Result<Self> {
        Self::set_on(run, &run.instance).await
    }

    pub(crate) async fn set_on(run: &Run, instance: &Instance) -> anyhow::Result<Self> {
        let database = format!("chaos_{}", run.name.replace('-', "_"));
        let admin = instance.client("postgres").await?;
        admin
            .batch_execute(&format!("drop database if exists {database} with (force)"))
            .await?;
        admin
            .batch_execute(&format!("create database {database}"))
            .await?;
        let url = instance.url(&database).await?;
        let target = TargetProcess::start().await?;
        let migrated = output(&["migrate"], &url).await;
        migrated.context("migrate")?;
        let count = (run.rate * INTERVAL_S).to_string();
        let base = format!("http://{}", target.address);
        let interval = INTERVAL_S.to_string();
        let generate = [
            "endpoints",
            "generate",
            "--count",
            &count,
            "--base-url",
            &base,
            "--interval",
            &interval,
        ];
        output(&generate, &url)
            .await
            .context("generate endpoints")?;
        // The grid's history begins some seconds after the endpoints: what is probed before counts nowhere.
        let client = instance::connect(&url).await?;
        let begun = "select count(*) = 0 from endpoint_schedules where lower(valid) > now()";
        while !client.query_one(begun, &[]).await?.get::<_, bool>(0) {
            sleep(Duration::from_millis(100)).await;
        }
        Ok(Self {
            target,
            url,
            database,
            folder: tempfile::tempdir()?,
            since: jiff::Timestamp::now().to_string(),
        })
    }

    /// The settings of an `up` with two processes and a spool, its database at `url`.
    pub(crate) fn env(&self, url: &str) -> Vec<(&'static str, String)> {
        vec![
            ("DATABASE_URL", url.to_owned()),
            ("WATCHER_PROCESSES", PROCESSES.to_string()),
            ("WATCHER_AGENT_NAME", "chaos".to_owned()),
            ("WATCHER_LOCATION", "chaos".to_owned()),
            (
                "WATCHER_SPOOL_DIR",
                self.folder
                    .path()
                    .join("spool")
                    .to_string_lossy()
                    .into_owned(),
            ),
        ]
    }

    /// Starts `up` and waits until it is ready and rows come.
    pub(crate) async fn up(&self, url: &str, more: &[(&'static str, &str)]) -> anyhow::Result<Up> {
        let mut up = self.start_up(url, more)?;
        up.ready().await?;
        Ok(up)
    }

    pub(crate) fn start_up(&self, url: &str, more: &[(&'static str, &str)]) -> anyhow::Result<Up> {
        let mut env = self.env(url);
        env.extend(
            more.iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        Up::start(&self.folder.path().join("log"), &env)
    }

    /// The database's URL by way of `proxy`.
    pub(crate) fn url_through(&self, proxy: SocketAddr) -> anyhow::Result<String> {
        let mut url = url::Url::parse(&self.url)?;
        let _ = url.set_ip_host(proxy.ip());
        let _ = url.set_port(Some(proxy.port()));
        Ok(url.into())
    }

    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        instance::connect(&self.url).await
    }

    /// The first column of the only row.
    pub(crate) async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        let client = self.client().await?;
        Ok(client
            .query_one(sql, &[])
            .await
            .with_context(|| sql.to_owned())?
            .get(0))
    }

    pub(crate) async fn rows(&self) -> anyhow::Result<i64> {
        self.number("select count(*) from metrics").await
    }

    /// Waits until rows are there.
    pub(crate) async fn loaded(&self, rows: i64) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.rows().await? < rows {
            if began.elapsed() > Duration::from_secs(120) {
                bail!("no {rows} rows after 120 s");
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Waits for a row that was due after this call, as the database sees it; the time that took.
    pub(crate) async fn fresh_rows(&self) -> anyhow::Result<Duration> {
        self.fresh_rows_at(&self.url).await
    }

    pub(crate) async fn fresh_rows_at(&self, url: &str) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let client = instance::accepting(url).await?;
        let from: std::time::SystemTime = std::time::SystemTime::now();
        loop {
            let sql = r#"select exists (select from metrics where "time" >= $1 and outcome <> 'skipped')"#;
            if client.query_one(sql, &[&from]).await?.get(0) {
                return Ok(began.elapsed());
            }
            if began.elapsed() > Duration::from_secs(120) {
                bail!("no fresh rows after 120 s");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until nothing is left in the spool; the time that took.
    pub(crate) async fn drained(&self, up: &Up) -> anyhow::Result<Duration> {
        let began = Instant::now();
        loop {
            if up.is_drained(PROCESSES).await {
                return Ok(began.elapsed());
            }
            if began.elapsed() > Duration::from_secs(900) {
                bail!("the spool is not empty after 900 s:\n{}", up.last_words());
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Drains, stops `up` and judges. The exit has to be 0.
    pub(crate) async fn end(&self, up: Up) -> anyhow::Result<(Judged, Ending)> {
        // The spool's gauge is set now and then: what was just put there may not show yet.
        self.fresh_rows().await?;
        let drained = self.drained(&up).await?;
        let names = [
            "watcher_probes_total",
            "watcher_samples_stored_total",
            "watcher_spool_rows",
            "watcher_samples_dropped_total",
            "watcher_store_errors_total",
        ];
        let counts = up.metrics(&names).await.context("/metrics")?;
        let mut up = up;
        let memory_mib = up.memory_mib_max();
        let (status, took) = up.stop().await?;
        anyhow::ensure!(status.success(), "watcher up ended with {status}");
        let ending = Ending {
            drained,
            took,
            memory_mib,
            in_hand: counts[0] - counts[1] - counts[2] - counts[3],
            dropped: counts[3],
            store_errors: counts[4],
        };
        Ok((self.judge().await?, ending))
    }

    /// When nothing runs any more: what was due, stored and served.
    pub(crate) async fn judge(&self) -> anyhow::Result<Judged> {
        judge::judge(&self.url, &self.since, &self.target).await
    }
}

/// The last `up` of a scenario.
pub(crate) struct Ending {
    pub(crate) drained: Duration,
    pub(crate) took: Duration,
    pub(crate) memory_mib: u64,
    /// Produced, less stored, spooled and dropped, a moment before the stop: what was in memory.
    pub(crate) in_hand: i64,
    pub(crate) dropped: i64,
    pub(crate) store_errors: i64,
}
