//! What a scenario is, and the list of all.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

use crate::instance::Instance;
use crate::judge::Judged;
use crate::rng::Rng;

/// Every scenario, in the order of the programme: one slice a group, from the file of that group.
pub(crate) const SCENARIOS: &[&[Scenario]] = &[
    crate::database::SCENARIOS,
    crate::commits::SCENARIOS,
    crate::failover::SCENARIOS,
    crate::process::SCENARIOS,
    crate::trouble::SCENARIOS,
];

/// One kind of fault, done to a running system.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// In the long programme.
    pub(crate) rounds: u32,
    /// In the smoke; `None`: not part of it.
    pub(crate) smoke: Option<u32>,
    /// Probes a second, unless `--rate` says otherwise.
    pub(crate) rate: u32,
    pub(crate) run: for<'a> fn(&'a mut Run) -> Running<'a>,
}

pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Outcome>> + 'a>>;

/// What a scenario is given.
pub(crate) struct Run {
    pub(crate) name: &'static str,
    pub(crate) rounds: u32,
    pub(crate) rate: u32,
    /// No bars on time, nothing that takes minutes.
    pub(crate) smoke: bool,
    pub(crate) rng: Rng,
    pub(crate) instance: Rc<Instance>,
    pub(crate) began: Instant,
}

impl Run {
    /// A line of progress.
    pub(crate) fn say(&self, text: impl std::fmt::Display) {
        println!("{:>6.1} s  {text}", self.began.elapsed().as_secs_f64());
    }
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Outcome {
    /// How often the fault is known to have happened.
    pub(crate) seen: u64,
    pub(crate) judged: Judged,
    /// Figures beside, as they are printed.
    pub(crate) figures: Vec<(&'static str, String)>,
    /// Bars that were broken, in words.
    pub(crate) broken: Vec<String>,
}

impl Outcome {
    pub(crate) fn of(judged: Judged) -> Self {
        Self {
            judged,
            ..Self::default()
        }
    }

    pub(crate) fn figure(&mut self, name: &'static str, value: impl std::fmt::Display) {
        self.figures.push((name, value.to_string()));
    }

    /// A bar: broken unless `held`.
    pub(crate) fn bar(&mut self, held: bool, what: impl Into<String>) {
        if !held {
            self.broken.push(what.into());
        }
    }

    /// The fault was seen at least so often.
    pub(crate) fn must_be_seen(&mut self, seen: u64, at_least: u64) {
        self.seen = seen;
        self.bar(
            seen >= at_least,
            format!("seen {seen} times, not {at_least}"),
        );
    }

    /// Nothing lost, nothing twice, nothing missing, and the target was never called down.
    pub(crate) fn nothing_lost(&mut self) {
        let judged = self.judged.clone();
        self.bar(
            judged.missing == 0,
            format!("{} missing: {}", judged.missing, judged.missing_by()),
        );
        self.bar(
            judged.lost == 0,
            format!("{} served and not stored", judged.lost),
        );
        self.sound();
    }

    /// What holds under every fault.
    pub(crate) fn sound(&mut self) {
        let judged = self.judged.clone();
        self.bar(
            judged.duplicates == 0,
            format!("{} duplicates", judged.duplicates),
        );
        self.bar(
            judged.due == judged.stored + judged.off + judged.missing,
            "the audit does not add up",
        );
        self.bar(judged.due > 0 && judged.stored > 0, "no load");
        self.bar(judged.down == 0, format!("{} false downs", judged.down));
        let unexplained = judged.missing_by.get("unexplained").copied().unwrap_or(0);
        self.bar(
            unexplained == 0,
            format!("{unexplained} missing and unexplained"),
        );
    }
}
