//! The line between the supervisor and an agent: a socket pair that is the agent's standard input. No port, no file,
//! and its end tells the agent at once that the supervisor has died.
//!
//! Lines of JSON. The supervisor asks `"metrics"`; the agent answers, and says its state whenever it changes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Set for an agent whose standard input is the line.
pub const SUPERVISED: &str = "WATCHER_SUPERVISED";

/// What an agent says of itself.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct AgentState {
    /// Its endpoints are loaded and its schedule runs.
    pub ready: bool,
    /// Every sample that was due before this instant (µs of UTC) is stored or spooled: what a death now would take with
    /// it was due later. Not set until the schedule runs.
    #[serde(default)]
    pub unsaved_since_us: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    State(AgentState),
    Metrics(String),
}

/// The agent's end: answers until the line ends, then stops the agent.
pub async fn answer(
    render: impl Fn() -> String,
    mut state: watch::Receiver<AgentState>,
    stop: CancellationToken,
) -> io::Result<()> {
    let line: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let line = std::os::unix::net::UnixStream::from(line);
    line.set_nonblocking(true)?;
    let (reader, mut writer) = UnixStream::from_std(line)?.into_split();
    let mut questions = BufReader::new(reader).lines();
    state.mark_changed();
    let result = async {
        loop {
            tokio::select! {
                question = questions.next_line() => match question? {
                    Some(_) => say(&mut writer, &Said::Metrics(render())).await?,
                    None => return Ok(()),
                },
                Ok(()) = state.changed() => {
                    let state = state.borrow_and_update().clone();
                    say(&mut writer, &Said::State(state)).await?;
                }
            }
        }
    };
    let result = result.await;
    if !stop.is_cancelled() {
        tracing::error!("the supervisor is gone; stopping");
        stop.cancel();
    }
    result
}

async fn say(writer: &mut OwnedWriteHalf, said: &Said) -> io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// The supervisor's end.
#[derive(Clone, Debug)]
pub struct Line {
    questions: mpsc::Sender<oneshot::Sender<String>>,
    state: watch::Receiver<AgentState>,
}

impl Line {
    /// A line and the end that becomes the agent's standard input. The future keeps the line; it ends with it.
    pub fn new() -> io::Result<(Self, OwnedFd, impl Future<Output = ()>)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (reader, writer) = UnixStream::from_std(ours)?.into_split();
        let (questions, asked) = mpsc::channel(4);
        let (sender, state) = watch::channel(AgentState::default());
        Ok((
            Self { questions, state },
            theirs.into(),
            keep(reader, writer, asked, sender),
        ))
    }

    /// What the agent last said.
    pub fn state(&self) -> AgentState {
        self.state.borrow().clone()
    }

    /// The agent's metrics; `None` when it does not answer within 2 s.
    pub async fn metrics(&self) -> Option<String> {
        let (sender, receiver) = oneshot::channel();
        let answer = async {
            self.questions.send(sender).await.ok()?;
            receiver.await.ok()
        };
        timeout(Duration::from_secs(2), answer).await.ok()?
    }
}

async fn keep(
    reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
    mut asked: mpsc::Receiver<oneshot::Sender<String>>,
    state: watch::Sender<AgentState>,
) {
    let mut lines = BufReader::new(reader).lines();
    let mut waiting = std::collections::VecDeque::new();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return };
                match serde_json::from_str(&line) {
                    Ok(Said::State(said)) => drop(state.send(said)),
                    Ok(Said::Metrics(text)) => {
                        let asker: Option<oneshot::Sender<String>> = waiting.pop_front();
                        // An asker that gave up has dropped its end.
                        asker.map(|asker| asker.send(text));
                    }
                    Err(error) => tracing::warn!(%error, "an agent said something unintelligible"),
                }
            }
            Some(asker) = asked.recv() => {
                waiting.push_back(asker);
                if writer.write_all(b"\"metrics\"\n").await.is_err() {
                    return;
                }
            }
        }
    }
}
