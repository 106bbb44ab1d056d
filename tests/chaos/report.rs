//! The table at the end, and the same as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::scenario::Outcome;

pub(crate) struct Report {
    seed: u64,
    lines: Vec<Line>,
}

struct Line {
    name: &'static str,
    rounds: u32,
    seed: u64,
    took: Duration,
    outcome: anyhow::Result<Outcome>,
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            lines: Vec::new(),
        }
    }

    pub(crate) fn add(
        &mut self,
        name: &'static str,
        rounds: u32,
        seed: u64,
        took: Duration,
        outcome: anyhow::Result<Outcome>,
    ) {
        match &outcome {
            Ok(outcome) if outcome.broken.is_empty() => {
                println!("{name}: held, {:.0} s", took.as_secs_f64())
            }
            Ok(outcome) => println!("{name}: BROKEN: {}", outcome.broken.join("; ")),
            Err(error) => println!("{name}: FAILED: {error:#}"),
        }
        self.lines.push(Line {
            name,
            rounds,
            seed,
            took,
            outcome,
        });
    }

    pub(crate) fn all_held(&self) -> bool {
        let held = |line: &Line| {
            line.outcome
                .as_ref()
                .is_ok_and(|outcome| outcome.broken.is_empty())
        };
        !self.lines.is_empty() && self.lines.iter().all(held)
    }

    /// In Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "seed {}\n\n| fault | rounds | seen | samples | lost | missing | duplicates | lag p99 | other | bars |\n|---|--:|--:|--:|--:|---|--:|--:|---|---|\n",
            self.seed
        );
        for line in &self.lines {
            // Writing to a string cannot fail.
            let _ = match &line.outcome {
                Ok(outcome) => {
                    let judged = &outcome.judged;
                    let figures: Vec<_> = outcome
                        .figures
                        .iter()
                        .map(|(name, value)| format!("{name} {value}"))
                        .collect();
                    let bars = if outcome.broken.is_empty() {
                        "held".to_owned()
                    } else {
                        format!("**broken**: {}", outcome.broken.join("; "))
                    };
                    writeln!(
                        text,
                        "| {} | {} | {} | {} | {} | {} | {} | {:.1} ms | {} | {bars} |",
                        line.name,
                        line.rounds,
                        outcome.seen,
                        judged.stored,
                        judged.lost,
                        judged.missing_by(),
                        judged.duplicates,
                        judged.lag_p99_us as f64 / 1e3,
                        figures.join(", "),
                    )
                }
                Err(error) => writeln!(
                    text,
                    "| {} | {} | | | | | | | | **failed**: {error:#} |",
                    line.name, line.rounds
                ),
            };
        }
        text
    }

    pub(crate) fn json(&self) -> String {
        let lines: Vec<Value> = self.lines.iter().map(Line::json).collect();
        json!({ "seed": self.seed, "held": self.all_held(), "scenarios": lines }).to_string()
    }
}

impl Line {
    fn json(&self) -> Value {
        let mut value = json!({
            "name": self.name, "rounds": self.rounds, "seed": self.seed, "seconds": self.took.as_secs_f64(),
        });
        match &self.outcome {
            Ok(outcome) => {
                let judged = &outcome.judged;
                value["seen"] = json!(outcome.seen);
                value["audit"] = json!({
                    "due": judged.due, "stored": judged.stored, "off": judged.off, "missing": judged.missing,
                    "missing_by": judged.missing_by, "duplicates": judged.duplicates, "down": judged.down,
                    "skipped": judged.skipped,
                });
                value["served"] = json!(judged.served);
                value["lost"] = json!(judged.lost);
                value["lag_p99_us"] = json!(judged.lag_p99_us);
                value["figures"] = outcome
                    .figures
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), json!(value)))
                    .collect();
                value["broken"] = json!(outcome.broken);
            }
            Err(error) => value["failed"] = json!(format!("{error:#}")),
        }
        value
    }
}
