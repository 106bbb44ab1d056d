//! One agent process under supervision: started again with backoff when it dies, ended in order.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::app::control::{Line, SUPERVISED};
use crate::domain::{AgentIdentity, Backoff, Partition, Timestamp};
use crate::pipeline::clock::wall_now;
use crate::pipeline::keeper::random;
use crate::telemetry;

/// An agent that ran so long starts again without delay.
const SETTLED: Duration = Duration::from_secs(60);

/// An agent died.
#[derive(Clone, Debug)]
pub(super) struct Died {
    /// Who.
    pub(super) agent: AgentIdentity,
    /// Its share.
    pub(super) partition: Partition,
    /// When.
    pub(super) at: Timestamp,
    /// What was due before was saved, as it last said.
    pub(super) unsaved_since: Option<Timestamp>,
}

/// The place of one agent.
pub(super) struct Child {
    partition: Partition,
    agent: AgentIdentity,
    env: Vec<(&'static str, String)>,
    stop_timeout: Duration,
    died: mpsc::UnboundedSender<Died>,
    line: watch::Sender<Option<Line>>,
}

impl Child {
    pub(super) fn new(
        partition: Partition,
        agent: AgentIdentity,
        env: Vec<(&'static str, String)>,
        stop_timeout: Duration,
        died: mpsc::UnboundedSender<Died>,
    ) -> Self {
        Self {
            partition,
            agent,
            env,
            stop_timeout,
            died,
            line: watch::Sender::new(None),
        }
    }

    /// The line to whichever process runs here.
    pub(super) fn line(&self) -> (Partition, watch::Receiver<Option<Line>>) {
        (self.partition, self.line.subscribe())
    }

    /// Keeps an agent running until `stop`; whether the last one ended in order.
    pub(super) async fn run(self, stop: CancellationToken) -> bool {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let partition = self.partition;
        loop {
            let begun = Instant::now();
            match self.run_once(&stop).await {
                Ok(status) if stop.is_cancelled() => {
                    if !status.success() {
                        tracing::error!(%partition, %status, "an agent did not end in order");
                    }
                    return status.success();
                }
                Ok(status) => {
                    tracing::error!(%partition, %status, "an agent died; starting it again")
                }
                Err(error) => {
                    tracing::error!(%partition, %error, "an agent could not be started; trying again")
                }
            }
            telemetry::agent_restarted();
            if begun.elapsed() >= SETTLED {
                backoff.reset();
            }
            tokio::select! {
                () = sleep(backoff.next(random())) => {}
                () = stop.cancelled() => return true,
            }
        }
    }

    async fn run_once(&self, stop: &CancellationToken) -> io::Result<ExitStatus> {
        let (line, theirs, keep) = Line::new()?;
        let mut process = Command::new(std::env::current_exe()?)
            .arg("agent")
            .env("WATCHER_PARTITION", self.partition.to_string())
            .env(SUPERVISED, "1")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            // The owner's password is for migrations, which are not an agent's.
            .env_remove("WATCHER_ADMIN_DATABASE_URL")
            .env_remove("WATCHER_ADMIN_DATABASE_URL_FILE")
            .stdin(Stdio::from(theirs))
            .kill_on_drop(true)
            .spawn()?;
        let pid = process.id().and_then(|id| Pid::from_raw(id as i32));
        tracing::info!(partition = %self.partition, pid = process.id(), "agent started");
        self.line.send_replace(Some(line.clone()));
        // The line is kept for as long as the process lives, and no longer.
        let keep = AbortOnDropHandle::new(tokio::task::spawn_local(keep));
        let status = tokio::select! {
            status = process.wait() => status?,
            () = stop.cancelled() => {
                if let Some(pid) = pid {
                    // It may be gone already.
                    let _ = kill_process(pid, Signal::TERM);
                }
                match timeout(self.stop_timeout, process.wait()).await {
                    Ok(status) => status?,
                    Err(_) => {
                        tracing::error!(partition = %self.partition, "an agent did not end in time; killing it");
                        process.kill().await?;
                        process.wait().await?
                    }
                }
            }
        };
        drop(keep);
        let said = line.state();
        self.line.send_replace(None);
        if !stop.is_cancelled() || !status.success() {
            let (agent, partition) = (self.agent.clone(), self.partition);
            let unsaved_since = said.unsaved_since_us.map(Timestamp::from_micros);
            let _ = self.died.send(Died {
                agent,
                partition,
                at: wall_now(),
                unsaved_since,
            });
        }
        Ok(status)
    }
}
