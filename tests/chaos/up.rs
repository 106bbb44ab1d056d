//! `watcher` as a child process: `up` with its agents, `target`, and commands that end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::support::process::{free_address, get};

/// The binary under test, with nothing of our own environment that it would read.
pub(crate) fn watcher() -> Command {
    let binary =
        std::env::var_os("WATCHER_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_watcher").into());
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars() {
        if name.starts_with("WATCHER_") || name.starts_with("PG") || name == "DATABASE_URL" {
            command.env_remove(name);
        }
    }
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

/// Runs a command of `watcher` to its end: its standard output, whatever its status.
pub(crate) async fn output(arguments: &[&str], database_url: &str) -> anyhow::Result<String> {
    let output = watcher()
        .args(arguments)
        .env("DATABASE_URL", database_url)
        .output()
        .await?;
    if output.stdout.is_empty() && !output.status.success() {
        bail!(
            "watcher {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A `watcher target` that counts what it serves, in a process of its own.
pub(crate) struct TargetProcess {
    _child: Child,
    pub(crate) address: SocketAddr,
}

impl TargetProcess {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let address = free_address();
        let mut command = watcher();
        command
            .args([
                "target",
                "--record",
                "--record-max",
                "0",
                "--listen",
                &address.to_string(),
            ])
            .stdout(Stdio::null());
        let child = command.spawn().context("start watcher target")?;
        for _ in 0..400 {
            if get(address, "/_rate").await.is_some() {
                return Ok(Self {
                    _child: child,
                    address,
                });
            }
            sleep(Duration::from_millis(25)).await;
        }
        bail!("the target does not answer")
    }

    /// Requests served so far, by path.
    pub(crate) async fn served(&self) -> anyhow::Result<BTreeMap<String, i64>> {
        let counts = self.ask("/_count?prefix=/e/").await?;
        let paths = counts["paths"].as_object().context("paths of /_count")?;
        Ok(paths
            .iter()
            .map(|(path, count)| (path.clone(), count.as_i64().unwrap_or(0)))
            .collect())
    }

    /// Seconds since the epoch with the requests that arrived in them.
    pub(crate) async fn rate(&self) -> anyhow::Result<Vec<(i64, i64)>> {
        let rate = self.ask("/_rate").await?;
        let seconds = rate.as_array().context("the seconds of /_rate")?;
        Ok(seconds
            .iter()
            .filter_map(|pair| Some((pair[0].as_i64()?, pair[1].as_i64()?)))
            .collect())
    }

    pub(crate) async fn total(&self) -> anyhow::Result<i64> {
        Ok(self.served().await?.values().sum())
    }

    async fn ask(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let (status, body) = get(self.address, path)
            .await
            .context("the target does not answer")?;
        anyhow::ensure!(status == 200, "{path}: {status}");
        Ok(serde_json::from_str(&body)?)
    }
}

/// A `watcher up`.
pub(crate) struct Up {
    child: Child,
    pub(crate) listen: SocketAddr,
    log: PathBuf,
    /// Largest resident size of each process so far, in KiB.
    pub(crate) memory: BTreeMap<i32, u64>,
}

impl Up {
    pub(crate) fn start(log: &Path, env: &[(&str, String)]) -> anyhow::Result<Self> {
        let listen = free_address();
        let file: OwnedFd = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)?
            .into();
        let child = watcher()
            .arg("up")
            .env("WATCHER_LISTEN", listen.to_string())
            .envs(env.iter().map(|(name, value)| (*name, value)))
            .stdout(Stdio::null())
            .stderr(Stdio::from(file))
            .spawn()
            .context("start watcher up")?;
        Ok(Self {
            child,
            listen,
            log: log.to_owned(),
            memory: BTreeMap::new(),
        })
    }

    pub(crate) fn pid(&self) -> anyhow::Result<Pid> {
        let id = self.child.id().context("watcher up has ended")?;
        Pid::from_raw(id as i32).context("a process id")
    }

    /// Its agents.
    pub(crate) fn agents(&self) -> anyhow::Result<Vec<Pid>> {
        let pid = self.pid()?.as_raw_nonzero();
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        Ok(text
            .split_whitespace()
            .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
            .collect())
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// The last lines of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Waits until `/ready` says so.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(120) {
            if let Some(status) = self.child.try_wait()? {
                bail!("watcher up ended with {status}:\n{}", self.last_words());
            }
            if matches!(get(self.listen, "/ready").await, Some((200, _))) {
                return Ok(());
            }
            sleep(Duration::from_millis(25)).await;
        }
        bail!(
            "watcher up is not ready after 120 s:\n{}",
            self.last_words()
        )
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        match timeout(Duration::from_secs(60), self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("watcher up does not end:\n{}", self.last_words()),
        }
    }

    /// SIGTERM; its status and the time that it took.
    pub(crate) async fn stop(mut self) -> anyhow::Result<(ExitStatus, Duration)> {
        let began = Instant::now();
        self.signal(Signal::TERM)?;
        let status = self.ended().await?;
        Ok((status, began.elapsed()))
    }

    /// Looks at the resident size of each process; its largest is kept by the kernel.
    pub(crate) fn look_at_memory(&mut self) {
        let mut pids = self.agents().unwrap_or_default();
        pids.extend(self.pid());
        for pid in pids {
            let pid = pid.as_raw_nonzero().get();
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let peak = status.lines().find_map(|line| {
                line.strip_prefix("VmHWM:")?
                    .trim()
                    .strip_suffix(" kB")?
                    .parse()
                    .ok()
            });
            if let Some(peak) = peak {
                self.memory.insert(pid, peak);
            }
        }
    }

    /// In MiB, of the largest process.
    pub(crate) fn memory_mib_max(&mut self) -> u64 {
        self.look_at_memory();
        self.memory.values().max().copied().unwrap_or(0) / 1_024
    }

    /// The sum of all series of a metric; `None` when nobody answers.
    pub(crate) async fn metric(&self, name: &str) -> Option<i64> {
        self.metrics(&[name]).await.map(|sums| sums[0])
    }

    /// Whether every agent says that its spool is empty and its store connected. One that says nothing, since it is busy
    /// or starts, is not asked for by a sum.
    pub(crate) async fn is_drained(&self, agents: usize) -> bool {
        let Some((_, text)) = get(self.listen, "/metrics").await else {
            return false;
        };
        let all = |name: &str, value: f64| {
            let values: Vec<f64> = series(&text, name).collect();
            values.len() == agents && values.iter().all(|&v| v == value)
        };
        all("watcher_spool_rows", 0.0) && all("watcher_store_connected", 1.0)
    }

    pub(crate) async fn metrics(&self, names: &[&str]) -> Option<Vec<i64>> {
        let (_, text) = get(self.listen, "/metrics").await?;
        Some(names.iter().map(|name| sum(&text, name)).collect())
    }
}

fn sum(text: &str, name: &str) -> i64 {
    series(text, name).sum::<f64>() as i64
}

/// The values of all series of a metric.
fn series<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = f64> + 'a {
    let of_series = move |line: &str| {
        let rest = line.strip_prefix(name)?;
        let rest = if rest.starts_with('{') {
            &rest[rest.find('}')? + 1..]
        } else {
            rest
        };
        rest.strip_prefix(' ')?.trim().parse::<f64>().ok()
    };
    text.lines().filter_map(of_series)
}

/// Whether a process runs, zombies aside.
pub(crate) fn is_alive(pid: Pid) -> bool {
    let stat =
        std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}
