//! Processes of ours are killed, stopped and paused.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Signal, kill_process};
use tokio::time::sleep;

use crate::instance::Stop;
use crate::scenario::{Outcome, Run, Scenario};
use crate::stage::Stage;
use crate::up::{Up, is_alive};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "kill9",
        what: "an agent is killed",
        rounds: 100,
        smoke: Some(2),
        rate: 500,
        run: |run| Box::pin(kill9(run)),
    },
    Scenario {
        name: "kill9-supervisor",
        what: "the supervisor is killed",
        rounds: 20,
        smoke: None,
        rate: 500,
        run: |run| Box::pin(kill9_supervisor(run)),
    },
    Scenario {
        name: "sigterm-up",
        what: "SIGTERM under load",
        rounds: 100,
        smoke: None,
        rate: 500,
        run: |run| Box::pin(sigterm(run, false)),
    },
    Scenario {
        name: "sigterm-down",
        what: "SIGTERM under load while the server is down",
        rounds: 100,
        smoke: Some(1),
        rate: 500,
        run: |run| Box::pin(sigterm(run, true)),
    },
    Scenario {
        name: "sigstop",
        what: "an agent is paused for 30 s",
        rounds: 5,
        smoke: Some(1),
        rate: 500,
        run: |run| Box::pin(sigstop(run)),
    },
];

/// The bar of FAULTS on the end after SIGTERM.
const EXIT_MAX: Duration = Duration::from_secs(8);
/// Kills of one agent before `up` is started anew, so that the time between them is not that of the growing backoff.
const KILLS_A_RUN: u32 = 4;
/// Time of samples that a kill may take: the batch that is being filled (1 s), the one that is being written, and
/// probes under way. Generous: what is bounded is that it does not grow with the number of kills.
const LOST_PER_KILL: Duration = Duration::from_secs(3);

async fn kill9(run: &mut Run) -> anyhow::Result<Outcome> {
    let stage = Stage::set(run).await?;
    let mut up = stage.up(&stage.url, &[]).await?;
    stage.loaded(1).await?;
    let mut back_max = Duration::ZERO;
    let mut outcome = Outcome::default();
    for round in 0..run.rounds {
        if round > 0 && round % KILLS_A_RUN == 0 {
            finish(up).await?;
            up = stage.up(&stage.url, &[]).await?;
        }
        sleep(run.rng.millis(500, 3_000)).await;
        let agents = up.agents()?;
        ensure!(agents.len() == 2, "{} agents", agents.len());
        let victim = agents[run.rng.below(2) as usize];
        kill_process(victim, Signal::KILL)?;
        let killed = Instant::now();
        loop {
            let now = up.agents()?;
            if now.len() == 2 && !now.contains(&victim) {
                break;
            }
            ensure!(
                killed.elapsed() < Duration::from_secs(30),
                "not started again:\n{}",
                up.last_words()
            );
            sleep(Duration::from_millis(20)).await;
        }
        back_max = back_max.max(killed.elapsed());
        up.ready().await?;
        outcome.seen += 1;
        if round % 10 == 9 {
            run.say(format_args!("{} kills", round + 1));
        }
    }
    let (judged, ending) = stage.end(up).await?;
    outcome.judged = judged;
    outcome.sound();
    let judged = outcome.judged.clone();
    let died = judged.missing_for("agent_died");
    outcome.bar(
        judged.missing == died,
        format!("missing: {}", judged.missing_by()),
    );
    let share = f64::from(run.rate) / 2.0 * LOST_PER_KILL.as_secs_f64();
    let allowed = (share * f64::from(run.rounds)) as i64;
    outcome.bar(
        judged.lost <= allowed,
        format!("{} served and not stored, {allowed} allowed", judged.lost),
    );
    outcome.figure(
        "served, not stored",
        format!(
            "{} a kill ({:.1} allowed)",
            judged.lost / i64::from(run.rounds.max(1)),
            share
        ),
    );
    outcome.figure(
        "started again after",
        format!("{:.2} s at most", back_max.as_secs_f64()),
    );
    outcome.figure("exit", format!("{:.1} s", ending.took.as_secs_f64()));
    Ok(outcome)
}

/// SIGTERM, status 0.
async fn finish(up: Up) -> anyhow::Result<Duration> {
    let (status, took) = up.stop().await?;
    ensure!(status.success(), "watcher up ended with {status}");
    Ok(took)
}

async fn kill9_supervisor(run: &mut Run) -> anyhow::Result<Outcome> {
    let stage = Stage::set(run).await?;
    let mut outcome = Outcome::default();
    let mut orphans = 0;
    let mut gone_max = Duration::ZERO;
    for _ in 0..run.rounds {
        let mut up = stage.up(&stage.url, &[]).await?;
        stage.fresh_rows().await?;
        sleep(run.rng.millis(0, 1_500)).await;
        let agents = up.agents()?;
        ensure!(agents.len() == 2, "{} agents", agents.len());
        up.signal(Signal::KILL)?;
        let killed = Instant::now();
        up.ended().await?;
        sleep(Duration::from_secs(2)).await;
        let served = stage.target.total().await?;
        sleep(Duration::from_secs(1)).await;
        orphans += stage.target.total().await? - served;
        while agents.iter().any(|agent| is_alive(*agent)) {
            ensure!(
                killed.elapsed() < Duration::from_secs(30),
                "an orphan lives on"
            );
            sleep(Duration::from_millis(50)).await;
        }
        gone_max = gone_max.max(killed.elapsed());
        outcome.seen += 1;
    }
    // A last run, that tells what the others could not.
    let up = stage.up(&stage.url, &[]).await?;
    let (judged, _) = stage.end(up).await?;
    outcome.judged = judged;
    outcome.sound();
    let judged = outcome.judged.clone();
    outcome.bar(
        orphans == 0,
        format!("{orphans} probes by orphans after 2 s"),
    );
    outcome.bar(
        judged.missing == judged.missing_for("agent_died"),
        format!("missing: {}", judged.missing_by()),
    );
    outcome.figure("probes by orphans after 2 s", orphans);
    outcome.figure(
        "orphans gone after",
        format!("{:.1} s at most", gone_max.as_secs_f64()),
    );
    Ok(outcome)
}

async fn sigterm(run: &mut Run, down: bool) -> anyhow::Result<Outcome> {
    let stage = Stage::set(run).await?;
    let mut outcome = Outcome::default();
    let mut exit_max = Duration::ZERO;
    for round in 0..run.rounds {
        let up = stage.up(&stage.url, &[]).await?;
        stage.fresh_rows().await?;
        sleep(run.rng.millis(0, 2_000)).await;
        if down {
            run.instance.stop(Stop::Fast).await?;
            sleep(run.rng.millis(0, 2_000)).await;
        }
        let (status, took) = up.stop().await?;
        outcome.bar(
            status.success(),
            format!("round {}: ended with {status}", round + 1),
        );
        exit_max = exit_max.max(took);
        if down {
            run.instance.start_again().await?;
        }
        outcome.seen += 1;
        if round % 10 == 9 {
            run.say(format_args!(
                "{} stops, the longest {:.1} s",
                round + 1,
                exit_max.as_secs_f64()
            ));
        }
    }
    // A last run, that delivers what the others could not.
    let up = stage.up(&stage.url, &[]).await?;
    let (judged, ending) = stage.end(up).await?;
    outcome.judged = judged;
    outcome.nothing_lost();
    outcome.figure("exit max", format!("{:.1} s", exit_max.as_secs_f64()));
    outcome.figure("drain", format!("{:.1} s", ending.drained.as_secs_f64()));
    if !run.smoke {
        outcome.bar(exit_max <= EXIT_MAX, "a stop took longer than 8 s");
    }
    Ok(outcome)
}

async fn sigstop(run: &mut Run) -> anyhow::Result<Outcome> {
    let stage = Stage::set(run).await?;
    let up = stage.up(&stage.url, &[]).await?;
    stage.loaded(i64::from(run.rate) * 2).await?;
    let pause = Duration::from_secs(if run.smoke { 8 } else { 30 });
    let mut outcome = Outcome::default();
    let mut burst_max = 0;
    for _ in 0..run.rounds {
        sleep(run.rng.millis(500, 5_000)).await;
        let agents = up.agents()?;
        let victim = *agents
            .get(run.rng.below(2) as usize)
            .context("two agents")?;
        kill_process(victim, Signal::STOP)?;
        sleep(pause).await;
        kill_process(victim, Signal::CONT)?;
        let resumed = jiff::Timestamp::now().as_second();
        stage.fresh_rows().await?;
        sleep(Duration::from_secs(3)).await;
        let after = stage.target.rate().await?;
        let burst = after
            .iter()
            .filter(|(second, _)| (resumed..resumed + 5).contains(second))
            .map(|(_, count)| *count)
            .max();
        burst_max = burst_max.max(burst.unwrap_or(0));
        outcome.seen += 1;
    }
    let gaps = stage
        .number("select count(*) from gaps where reason = 'paused'")
        .await?;
    let (judged, ending) = stage.end(up).await?;
    outcome.judged = judged;
    outcome.sound();
    let judged = outcome.judged.clone();
    outcome.bar(
        judged.lost == 0,
        format!("{} served and not stored", judged.lost),
    );
    outcome.bar(
        judged.missing == judged.missing_for("paused"),
        format!("missing: {}", judged.missing_by()),
    );
    outcome.bar(
        gaps == i64::from(run.rounds),
        format!("{gaps} gaps for {} pauses", run.rounds),
    );
    outcome.figure("gaps", gaps);
    outcome.figure(
        "busiest second after",
        format!("{burst_max} probes of {} a second", run.rate),
    );
    outcome.figure("exit", format!("{:.1} s", ending.took.as_secs_f64()));
    if !run.smoke {
        // A catch-up of 30 s would be 15 times the rate.
        outcome.bar(
            burst_max <= i64::from(run.rate) * 3 / 2,
            "a burst after the pause",
        );
    }
    Ok(outcome)
}
