//! A TimescaleDB of the harness's own, by `scripts/timescaledb`; deleted when dropped.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::process::Command;
use tokio_postgres::{Client, NoTls};

/// How a server is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    Fast,
    /// As after a crash.
    Immediate,
}

impl Stop {
    fn word(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Immediate => "immediate",
        }
    }
}

pub(crate) struct Instance {
    name: String,
}

impl Instance {
    /// Makes and starts one; `suffix` tells it from others of this run.
    pub(crate) async fn start(suffix: &str) -> anyhow::Result<Self> {
        let instance = Self::unmade(suffix);
        instance.script(&["start"]).await?;
        Ok(instance)
    }

    /// A place for one that is made by [`Self::become_standby_of`].
    pub(crate) fn unmade(suffix: &str) -> Self {
        let run = std::env::var("WATCHER_CHAOS_NAME")
            .unwrap_or_else(|_| format!("chaos-{}", std::process::id()));
        Self {
            name: format!("{run}{suffix}"),
        }
    }

    /// The superuser's URL, for `database`.
    pub(crate) async fn url(&self, database: &str) -> anyhow::Result<String> {
        Ok(self.script(&["url", database]).await?.trim().to_owned() + "?sslmode=disable")
    }

    /// Likewise, by the server's socket file.
    pub(crate) async fn socket_url(&self, database: &str) -> anyhow::Result<String> {
        let url = url::Url::parse(&self.url(database).await?)?;
        let cache = std::env::var("WATCHER_CACHE_DIR")
            .or_else(|_| std::env::var("HOME").map(|home| home + "/.cache/watcher"))?;
        let folder = format!("{cache}/timescaledb/instances/{}/run", self.name);
        Ok(format!(
            "postgres://postgres:{}@{}:{}/{database}",
            url.password().context("a URL with a password")?,
            folder.replace('/', "%2F"),
            url.port().context("a URL with a port")?,
        ))
    }

    pub(crate) async fn port(&self) -> anyhow::Result<u16> {
        let url = url::Url::parse(&self.url("postgres").await?)?;
        url.port().context("a URL with a port")
    }

    pub(crate) async fn address(&self) -> anyhow::Result<std::net::SocketAddr> {
        Ok(([127, 0, 0, 1], self.port().await?).into())
    }

    pub(crate) async fn stop(&self, how: Stop) -> anyhow::Result<()> {
        self.script(&["stop", how.word()]).await.map(drop)
    }

    pub(crate) async fn start_again(&self) -> anyhow::Result<()> {
        self.script(&["start"]).await.map(drop)
    }

    /// Stops and starts it; returns when it takes connections.
    pub(crate) async fn restart(&self, how: Stop) -> anyhow::Result<()> {
        self.script(&["restart", how.word()]).await.map(drop)
    }

    /// Made anew from a base backup of `primary`, which it follows by way of `through`.
    pub(crate) async fn become_standby_of(
        &self,
        primary: &Self,
        through: std::net::SocketAddr,
    ) -> anyhow::Result<()> {
        self.script(&["standby", &primary.name, &through.to_string()])
            .await
            .map(drop)
    }

    pub(crate) async fn promote(&self) -> anyhow::Result<()> {
        self.script(&["promote"]).await.map(drop)
    }

    /// A connection to `database`.
    pub(crate) async fn client(&self, database: &str) -> anyhow::Result<Client> {
        connect(&self.url(database).await?).await
    }

    async fn script(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = command(&self.name)
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await
            .context("run scripts/timescaledb")?;
        if !output.status.success() {
            bail!(
                "scripts/timescaledb {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let removed = command(&self.name).as_std_mut().arg("remove").status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("chaos: instance {} is left over", self.name);
        }
    }
}

fn command(name: &str) -> Command {
    let mut command = Command::new(repository().join("scripts/timescaledb"));
    command
        .env("WATCHER_TIMESCALEDB_NAME", name)
        .env_remove("DATABASE_URL")
        .env_remove("WATCHER_TIMESCALEDB_PORT")
        .env_remove("WATCHER_TIMESCALEDB_DATABASE")
        .stdin(Stdio::null());
    // Not of this process's group: a Ctrl-C must not end a server that is then missed.
    command.process_group(0);
    command
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// A connection; its task ends with it.
pub(crate) async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

/// Waits until somebody can connect.
pub(crate) async fn accepting(url: &str) -> anyhow::Result<Client> {
    let began = Instant::now();
    loop {
        match connect(url).await {
            Ok(client) => return Ok(client),
            Err(error) if began.elapsed() > Duration::from_secs(120) => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
