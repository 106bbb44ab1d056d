//! Health and metrics of the whole container: the supervisor's own and its agents'.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::api::Health;
use crate::app::control::Line;
use crate::domain::Partition;
use crate::telemetry::prometheus::{Exporter, merge};

type Place = (Partition, watch::Receiver<Option<Line>>);

pub(super) struct ContainerHealth {
    exporter: Exporter,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting_for: Option<&'static str>,
    places: Vec<Place>,
}

impl ContainerHealth {
    pub(super) fn new(exporter: Exporter) -> Self {
        Self {
            exporter,
            state: Mutex::default(),
        }
    }

    /// Not ready, and for want of what.
    pub(super) fn waiting_for(&self, what: &'static str) {
        self.state().waiting_for = Some(what);
    }

    /// From now on it is the agents that are ready or not.
    pub(super) fn started(&self) {
        self.state().waiting_for = None;
    }

    pub(super) fn add(&self, place: Place) {
        self.state().places.push(place);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health for ContainerHealth {
    fn ready(&self) -> Result<(), String> {
        let state = self.state();
        if let Some(what) = state.waiting_for {
            return Err(format!("waiting for {what}"));
        }
        let ready = |(_, line): &&Place| {
            line.borrow()
                .as_ref()
                .is_some_and(|line| line.state().ready)
        };
        let count = state.places.iter().filter(ready).count();
        if count == state.places.len() {
            Ok(())
        } else {
            Err(format!(
                "{count} of {} agents are ready",
                state.places.len()
            ))
        }
    }

    fn metrics(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
        let lines: Vec<(Partition, Option<Line>)> = self
            .state()
            .places
            .iter()
            .map(|(partition, line)| (*partition, line.borrow().clone()))
            .collect();
        Box::pin(async move {
            let mut texts = vec![(String::new(), self.exporter.render())];
            for (partition, line) in lines {
                // An agent that is being started again has no numbers.
                if let Some(line) = line
                    && let Some(text) = line.metrics().await
                {
                    texts.push((partition.index().to_string(), text));
                }
            }
            merge(
                texts
                    .iter()
                    .map(|(partition, text)| (partition.as_str(), text.as_str())),
            )
        })
    }
}
