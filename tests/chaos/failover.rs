//! A primary dies, and the standby that takes over lacks its last seconds.

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::time::sleep;
use tokio_postgres::types::PgLsn;

use crate::instance::{self, Instance, Stop};
use crate::scenario::{Outcome, Run, Scenario};
use crate::stage::Stage;
use crate::support::chaos_proxy::ChaosProxy;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "failover",
    what: "the primary crashes; a standby without its last seconds takes over",
    rounds: 10,
    smoke: None,
    rate: 500,
    run: |run| Box::pin(failover(run)),
}];

/// The bar of FAULTS on reconnecting.
const RECONNECT_MAX: Duration = Duration::from_secs(10);

async fn failover(run: &mut Run) -> anyhow::Result<Outcome> {
    let mut primary = Instance::start("-a").await?;
    let mut standby = Instance::unmade("-b");
    let mut stage = Stage::set_on(run, &primary).await?;
    let mut replication = ChaosProxy::start(primary.address().await?, true);
    standby
        .become_standby_of(&primary, replication.address)
        .await?;
    let hosts = format!(
        "127.0.0.1:{},127.0.0.1:{}",
        primary.port().await?,
        standby.port().await?
    );
    let both = both_hosts(&stage.url, &hosts)?;
    let up = stage.up(&both, &[]).await?;
    stage.loaded(1).await?;
    let mut outcome = Outcome::default();
    let mut reconnect_max = Duration::ZERO;
    let mut unreplicated = 0;
    for round in 0..run.rounds {
        sleep(run.rng.millis(2_000, 5_000)).await;
        replication.cut();
        sleep(run.rng.millis(2_000, 6_000)).await;
        let behind = bytes_behind(&primary, &standby).await?;
        outcome.seen += u64::from(behind > 0);
        unreplicated += behind;
        primary.stop(Stop::Immediate).await?;
        standby.promote().await?;
        let began = Instant::now();
        stage.url = standby.url(&stage.database).await?;
        stage.fresh_rows().await?;
        let took = began.elapsed();
        reconnect_max = reconnect_max.max(took);
        run.say(format_args!(
            "failover {}: {} KiB not replicated, fresh rows {:.1} s after the promotion",
            round + 1,
            behind / 1_024,
            took.as_secs_f64()
        ));
        std::mem::swap(&mut primary, &mut standby);
        replication = ChaosProxy::start(primary.address().await?, true);
        standby
            .become_standby_of(&primary, replication.address)
            .await?;
    }
    let (judged, ending) = stage.end(up).await?;
    outcome.judged = judged;
    outcome.nothing_lost();
    let seen = outcome.seen;
    outcome.must_be_seen(seen, u64::from(run.rounds));
    outcome.figure("not replicated", format!("{} KiB", unreplicated / 1_024));
    outcome.figure(
        "fresh rows after promotion",
        format!("{:.1} s", reconnect_max.as_secs_f64()),
    );
    outcome.figure("drain", format!("{:.1} s", ending.drained.as_secs_f64()));
    outcome.figure("in memory before the stop", ending.in_hand);
    outcome.bar(
        reconnect_max <= RECONNECT_MAX,
        "fresh rows later than 10 s after the promotion",
    );
    outcome.bar(ending.dropped == 0, format!("{} dropped", ending.dropped));
    Ok(outcome)
}

/// The URL with other hosts, of which the writable one is meant.
fn both_hosts(url: &str, hosts: &str) -> anyhow::Result<String> {
    let (user, rest) = url.split_once('@').context("a URL with a user")?;
    let (_, path) = rest.split_once('/').context("a URL with a path")?;
    Ok(format!(
        "{user}@{hosts}/{path}&target_session_attrs=read-write"
    ))
}

/// WAL that the primary has written and the standby has not received.
async fn bytes_behind(primary: &Instance, standby: &Instance) -> anyhow::Result<u64> {
    let (primary, standby) = (
        primary.url("postgres").await?,
        standby.url("postgres").await?,
    );
    let lsn = async |url: &str, sql: &str| -> anyhow::Result<u64> {
        let client = instance::connect(url).await?;
        let lsn: PgLsn = client.query_one(sql, &[]).await?.get(0);
        Ok(lsn.into())
    };
    let written = lsn(&primary, "select pg_current_wal_lsn()").await?;
    let received = lsn(&standby, "select pg_last_wal_receive_lsn()").await?;
    Ok(written.saturating_sub(received))
}
