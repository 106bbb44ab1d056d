//! One connection through the proxy: what each side sends, and what becomes of it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::wire::{Frame, Frames, Kind};
use super::{CommitFault, Shared, Then};

/// The server's side of a silent connection ends after this: its keepalives find out in 5 + 3·3 s that the client is
/// gone, and a proxy's kernel would answer them for ever.
pub(super) const STUCK_FOR: Duration = Duration::from_secs(14);

/// Forwards until one side ends, or until the weather turns.
pub(super) async fn run(mut client: TcpStream, mut server: TcpStream, shared: &Shared) {
    count(&shared.counters.accepted);
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut weather = shared.weather.subscribe();
    let born = weather.borrow().epoch;
    let link = Link {
        shared,
        state: Mutex::default(),
        settled: Notify::new(),
    };
    let turned = {
        let (client_reader, client_writer) = client.split();
        let (server_reader, server_writer) = server.split();
        let answers = Notify::new();
        tokio::select! {
            _ = link.to_server(client_reader, server_writer, &answers) => None,
            _ = link.to_client(server_reader, client_writer, &answers) => None,
            turned = weather.wait_for(|now| now.silent || !now.open || now.epoch != born) => turned.ok().map(|now| *now),
        }
    };
    let Some(turned) = turned else { return };
    if turned.silent {
        count(&shared.counters.silenced);
        // The client's own deadline comes first; the server's side is let go as its keepalives would.
        sleep(STUCK_FOR).await;
        return;
    }
    count(&shared.counters.cut);
    if turned.by_reset {
        count(&shared.counters.reset);
        for socket in [&client, &server] {
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

struct Link<'a> {
    shared: &'a Shared,
    state: Mutex<State>,
    /// A commit's fate is known.
    settled: Notify,
}

/// What has been said so far.
#[derive(Default)]
struct State {
    in_transaction: bool,
    /// Rows were copied since the last transaction ended.
    copied: bool,
    /// The COPY's data are complete; the Sync that follows commits.
    copy_done: bool,
    /// A commit that a fault was done to, and whose fate is not known yet.
    commit: Option<Commit>,
    /// The client hears nothing any more, and nobody hears the client.
    mute: bool,
}

#[derive(Clone, Copy)]
struct Commit {
    fault: CommitFault,
    of_copy: bool,
    client_gone: bool,
    refused: bool,
}

/// What to do with a message.
enum Do {
    Forward,
    Discard,
    /// After so long.
    Hold(Duration),
    End,
}

impl Link<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn to_server(
        &self,
        mut client: ReadHalf<'_>,
        mut server: WriteHalf<'_>,
        declined: &Notify,
    ) -> io::Result<()> {
        let mut frames = Frames::of_client();
        loop {
            // One that leaves with something unread resets the connection: gone all the same.
            if client.read_buf(&mut frames.buffer).await.unwrap_or(0) == 0 {
                self.until_settled().await;
                return Ok(());
            }
            let mut out = BytesMut::new();
            while let Some(frame) = frames.next() {
                match self.client_says(&frame) {
                    Do::Forward => out.extend_from_slice(&frame.bytes),
                    Do::Hold(time) => {
                        self.send(&mut server, &mut out).await?;
                        sleep(time).await;
                        let gone = is_gone(&mut client).await;
                        if let Some(commit) = &mut self.state().commit {
                            commit.client_gone = gone;
                        }
                        out.extend_from_slice(&frame.bytes);
                    }
                    Do::Discard if frame.kind == Kind::EncryptionRequest => declined.notify_one(),
                    Do::Discard => {}
                    Do::End => return Ok(()),
                }
            }
            self.send(&mut server, &mut out).await?;
        }
    }

    async fn to_client(
        &self,
        mut server: ReadHalf<'_>,
        mut client: WriteHalf<'_>,
        declined: &Notify,
    ) -> io::Result<()> {
        let mut frames = Frames::of_server();
        loop {
            tokio::select! {
                read = server.read_buf(&mut frames.buffer) => if read? == 0 { return Ok(()) },
                () = declined.notified() => {
                    client.write_all(b"N").await?;
                    continue;
                }
            }
            let mut out = BytesMut::new();
            let mut end = false;
            while let Some(frame) = frames.next() {
                match self.server_says(&frame) {
                    Do::Forward => out.extend_from_slice(&frame.bytes),
                    Do::End => end = true,
                    _ => {}
                }
            }
            let sent = self.send(&mut client, &mut out).await;
            if end {
                return Ok(());
            }
            // One that has gone is no reason to stop listening for a commit's fate.
            if self.state().commit.is_none() {
                sent?;
            }
        }
    }

    fn client_says(&self, frame: &Frame) -> Do {
        let mut state = self.state();
        if state.mute || frame.kind == Kind::EncryptionRequest {
            return Do::Discard;
        }
        if frame.is(b'd') {
            state.copied = true;
        }
        if frame.is(b'c') {
            state.copy_done = true;
        }
        let of_copy = frame.is(b'S') && state.copy_done && !state.in_transaction;
        if frame.is(b'S') {
            state.copy_done = false;
        }
        let of_transaction = frame.is_commit() && state.copied;
        if !(of_copy || of_transaction) {
            return Do::Forward;
        }
        let Some(fault) = self.shared.commit_faults.lock().unwrap().pop_front() else {
            return Do::Forward;
        };
        state.commit = Some(Commit {
            fault,
            of_copy,
            client_gone: false,
            refused: false,
        });
        match fault {
            CommitFault::Swallow(_) => {
                state.mute = true;
                Do::Forward
            }
            CommitFault::Delay(time) => {
                count(&self.shared.counters.delayed);
                Do::Hold(time)
            }
        }
    }

    fn server_says(&self, frame: &Frame) -> Do {
        let mut state = self.state();
        if frame.is(b'E')
            && let Some(commit) = &mut state.commit
        {
            commit.refused = true;
        }
        if let Some(status) = frame.transaction_status() {
            state.in_transaction = status != b'I';
            state.copied &= state.in_transaction;
            if let Some(commit) = state.commit.take() {
                self.count_fate(commit);
                self.settled.notify_one();
                if commit.fault == CommitFault::Swallow(Then::Cut) {
                    return Do::End;
                }
            }
        }
        if state.mute { Do::Discard } else { Do::Forward }
    }

    fn count_fate(&self, commit: Commit) {
        let counters = &self.shared.counters;
        match commit.fault {
            // A commit that the server refused is no doubt: nothing was done to it.
            CommitFault::Swallow(_) if commit.refused => {}
            CommitFault::Swallow(_) if commit.of_copy => count(&counters.swallowed_copy),
            CommitFault::Swallow(_) => count(&counters.swallowed_transaction),
            CommitFault::Delay(_) if !commit.client_gone => {}
            CommitFault::Delay(_) if commit.refused => count(&counters.refused_late),
            CommitFault::Delay(_) => count(&counters.landed_late),
        }
    }

    async fn until_settled(&self) {
        while self.state().commit.is_some() {
            self.settled.notified().await;
        }
    }

    async fn send(&self, to: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let weather = *self.shared.weather.borrow();
        if !weather.latency.is_zero() {
            sleep(weather.latency).await;
        }
        let Some(rate) = weather.bytes_per_second else {
            to.write_all(out).await?;
            out.clear();
            return Ok(());
        };
        while !out.is_empty() {
            let piece = out.split_to(out.len().min((rate as usize / 10).max(1)));
            to.write_all(&piece).await?;
            sleep(Duration::from_secs_f64(
                piece.len() as f64 / f64::from(rate),
            ))
            .await;
        }
        Ok(())
    }
}

/// Whether the client has closed its side, or said that it is about to. What it sent before it went may lie unread.
async fn is_gone(client: &mut ReadHalf<'_>) -> bool {
    let moment = Duration::from_millis(1);
    let ready = tokio::time::timeout(moment, client.ready(Interest::READABLE)).await;
    if matches!(ready, Ok(Ok(ready)) if ready.is_read_closed()) {
        return true;
    }
    let mut byte = [0];
    match tokio::time::timeout(moment, client.peek(&mut byte)).await {
        Ok(Ok(0) | Err(_)) => true,
        Ok(Ok(_)) => byte == *b"X",
        Err(_) => false,
    }
}
