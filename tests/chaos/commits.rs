//! Commits whose fate the agent cannot know: the reply is swallowed, or the commit lands after it gave up.

use std::time::Duration;

use tokio::time::sleep;

use crate::scenario::{Outcome, Run, Scenario};
use crate::stage::Stage;
use crate::support::chaos_proxy::{ChaosProxy, CommitFault, Seen, Then};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "commit-swallowed",
        what: "the server commits and the agent never hears of it",
        rounds: 500,
        smoke: Some(10),
        rate: 400,
        run: |run| Box::pin(swallowed(run)),
    },
    Scenario {
        name: "commit-delayed",
        what: "the commit lands after the agent gave up",
        rounds: 100,
        smoke: Some(3),
        rate: 400,
        run: |run| Box::pin(delayed(run)),
    },
];

/// Many small batches on several connections at once: many commits a second for the faults to meet.
const SETTINGS: [(&str, &str); 4] = [
    ("WATCHER_WRITE_TIMEOUT", "2s"),
    ("WATCHER_BATCH_AGE", "100ms"),
    ("WATCHER_BATCH_ROWS", "50"),
    ("WATCHER_KEEPERS", "4"),
];

const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
const DELAY_MAX: Duration = Duration::from_secs(4);

async fn swallowed(run: &mut Run) -> anyhow::Result<Outcome> {
    faulted(
        run,
        |run| {
            let then = if run.rng.once_in(10) {
                Then::Hang
            } else {
                Then::Cut
            };
            (CommitFault::Swallow(then), run.rng.millis(20, 120))
        },
        Seen::swallowed,
    )
    .await
}

async fn delayed(run: &mut Run) -> anyhow::Result<Outcome> {
    faulted(
        run,
        |run| {
            (
                CommitFault::Delay(run.rng.millis(2_200, DELAY_MAX.as_millis() as u64)),
                run.rng.millis(100, 500),
            )
        },
        |seen| seen.landed_late + seen.refused_late,
    )
    .await
}

/// Faults one commit after the other until so many were seen.
async fn faulted(
    run: &mut Run,
    next: fn(&mut Run) -> (CommitFault, Duration),
    happened: impl Fn(&Seen) -> u64,
) -> anyhow::Result<Outcome> {
    let stage = Stage::set(run).await?;
    let proxy = ChaosProxy::start(run.instance.address().await?, true);
    let url = stage.url_through(proxy.address)?;
    let up = stage.up(&url, &SETTINGS).await?;
    stage.loaded(1).await?;
    let wanted = u64::from(run.rounds);
    let mut said = 0;
    loop {
        let seen = happened(&proxy.seen());
        if seen >= wanted {
            break;
        }
        if seen >= said + 50 {
            said = seen;
            run.say(format_args!(
                "{seen} of {wanted}, {} rows",
                stage.rows().await?
            ));
        }
        let (fault, pause) = next(run);
        // One that waits for its commit is enough, or the last ones would come in a heap.
        if proxy.faults_waiting() == 0 {
            proxy.fault_next_commit(fault);
        }
        sleep(pause).await;
    }
    proxy.forget_faults();
    // Those that are held back land, and whoever waits for them gives up.
    sleep(DELAY_MAX + WRITE_TIMEOUT).await;
    let (judged, ending) = stage.end(up).await?;
    let seen = proxy.seen();
    let mut outcome = Outcome::of(judged);
    outcome.nothing_lost();
    outcome.must_be_seen(happened(&seen), wanted);
    if seen.delayed > 0 {
        outcome.figure("landed late", seen.landed_late);
        outcome.figure("refused by the server", seen.refused_late);
        outcome.bar(seen.landed_late > 0, "no commit landed late");
    }
    outcome.figure("store errors", ending.store_errors);
    outcome.figure("in memory before the stop", ending.in_hand);
    outcome.bar(ending.dropped == 0, format!("{} dropped", ending.dropped));
    outcome.bar(
        ending.in_hand >= 0,
        format!("{} more stored than produced", -ending.in_hand),
    );
    Ok(outcome)
}
