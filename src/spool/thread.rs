//! The spool thread: takes orders one after the other, puts several waiting batches into one commit, and gives disk
//! space back when it has nothing else to do.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::SpoolId;
use super::codec::Head;
use super::engine::Engine;
use super::error::SpoolError;
use super::shared::Shared;
use crate::domain::Batch;

/// Added to the thread's nice value: probes go first.
const NICE: i32 = 10;

pub(super) type Reply<T> = oneshot::Sender<Result<T, SpoolError>>;

/// An encoded batch.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) head: Head,
    pub(super) encoded: Vec<u8>,
}

#[derive(Debug)]
pub(super) enum Command {
    Put(Put, Reply<SpoolId>),
    Oldest(usize, Reply<HandedOut>),
    Remove(Vec<SpoolId>, Reply<()>),
}

/// Batches on their way to whoever replays them; back in the queue when nobody takes them.
#[derive(Debug)]
pub(super) struct HandedOut {
    batches: Vec<(SpoolId, Batch)>,
    shared: Arc<Shared>,
}

impl HandedOut {
    pub(super) fn new(batches: Vec<(SpoolId, Batch)>, shared: Arc<Shared>) -> Self {
        shared
            .handed_out()
            .extend(batches.iter().map(|(id, _)| *id));
        Self { batches, shared }
    }

    pub(super) fn take(mut self) -> Vec<(SpoolId, Batch)> {
        std::mem::take(&mut self.batches)
    }
}

impl Drop for HandedOut {
    fn drop(&mut self) {
        let mut handed_out = self.shared.handed_out();
        for (id, _) in &self.batches {
            handed_out.remove(id);
        }
    }
}

/// The running thread.
#[derive(Debug)]
pub struct SpoolThread {
    thread: JoinHandle<()>,
    ended: Receiver<()>,
}

impl SpoolThread {
    pub(super) fn start(
        engine: Engine,
        orders: mpsc::Receiver<Command>,
    ) -> Result<Self, SpoolError> {
        let (end, ended) = channel();
        let thread = Builder::new()
            .name("spool".into())
            .spawn(move || {
                run(engine, orders);
                drop(end);
            })
            .map_err(SpoolError::Thread)?;
        Ok(Self { thread, ended })
    }

    /// Waits until the thread has carried out what it was asked, synced and closed the file: after the last [`Spool`]
    /// was dropped, and `at_most` this long. A disk that hangs must not hold up the end of the process: the file is
    /// good at any moment.
    ///
    /// # Errors
    /// [`SpoolError::Deadline`] when it has not ended by then, [`SpoolError::Closed`] when it ended by a panic.
    ///
    /// [`Spool`]: super::Spool
    pub fn join(self, at_most: Duration) -> Result<(), SpoolError> {
        match self.ended.recv_timeout(at_most) {
            Err(RecvTimeoutError::Timeout) => Err(SpoolError::Deadline(at_most)),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                self.thread.join().map_err(|_| SpoolError::Closed)
            }
        }
    }
}

fn run(mut engine: Engine, mut orders: mpsc::Receiver<Command>) {
    // Linux keeps a nice value per thread; the thread's id names it alone.
    let thread = Some(rustix::thread::gettid());
    if let Err(error) = rustix::process::setpriority_process(thread, NICE) {
        warn!(%error, "the spool thread keeps the priority of the probe thread");
    }
    let mut left_over = None;
    loop {
        let waiting = left_over.take().or_else(|| orders.try_recv().ok());
        let order = match waiting {
            Some(order) => order,
            // In slices, so that an order waits for one slice at most.
            None if engine.give_back_space() => continue,
            None => match orders.blocking_recv() {
                Some(order) => order,
                None => break,
            },
        };
        left_over = carry_out(&mut engine, order, &mut orders);
    }
    engine.close();
}

/// Carries out one order, or as many puts as wait. Returns the order that ended such a run.
fn carry_out(
    engine: &mut Engine,
    order: Command,
    orders: &mut mpsc::Receiver<Command>,
) -> Option<Command> {
    match order {
        Command::Put(put, reply) => {
            let bytes_max = engine.sizes().commit_bytes_max;
            let mut bytes = put.encoded.len() as u64;
            let mut group = vec![(put, reply)];
            let mut left_over = None;
            while bytes < bytes_max {
                match orders.try_recv() {
                    Ok(Command::Put(put, reply))
                        if bytes + (put.encoded.len() as u64) <= bytes_max =>
                    {
                        bytes += put.encoded.len() as u64;
                        group.push((put, reply));
                    }
                    Ok(other) => {
                        left_over = Some(other);
                        break;
                    }
                    Err(_) => break,
                }
            }
            put_all(engine, group);
            return left_over;
        }
        // Whoever asked may have given up: then the answer is dropped, and with it what it hands out.
        Command::Oldest(batches, reply) => drop(reply.send(engine.oldest(batches))),
        Command::Remove(ids, reply) => drop(reply.send(engine.remove(&ids))),
    }
    None
}

fn put_all(engine: &mut Engine, mut group: Vec<(Put, Reply<SpoolId>)>) {
    // A caller that gave up holds the batch and will bring it again.
    group.retain(|(_, reply)| !reply.is_closed());
    let (puts, replies): (Vec<Put>, Vec<Reply<SpoolId>>) = group.into_iter().unzip();
    let together = match puts.len() {
        0 | 1 => None,
        _ => engine.put(&puts).ok(),
    };
    if let Some(ids) = together {
        for (id, reply) in ids.into_iter().zip(replies) {
            drop(reply.send(Ok(id)));
        }
        return;
    }
    // Alone, or one of them is what does not fit.
    for (put, reply) in puts.into_iter().zip(replies) {
        if !reply.is_closed() {
            let stored = engine.put(std::slice::from_ref(&put));
            drop(reply.send(stored.map(|ids| ids.first().copied().unwrap_or_default())));
        }
    }
}
