//! The agent's own error, watched by its canary and kept below what the operator accepts.

use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::sleep;
use watcher::net::attention;
use watcher::net::policy::PolicyOptions;
use watcher::probe::matcher::{Matcher, MatcherOptions};
use watcher::probe::{Canary, Prober, ProberOptions, SUSPECT_ABOVE};

use super::{Oracle, add, query, summary};
use crate::support::database::{TestDatabase, number};
use crate::support::process::{Running, eventually, get};

#[test]
fn the_canary_answers_to_its_own_prober_even_where_loopback_is_denied() {
    let runtime = attention::watch(&mut Builder::new_current_thread())
        .enable_all()
        .build()
        .unwrap();
    let (matcher, _matching) = Matcher::start(MatcherOptions::default()).unwrap();
    let error = LocalSet::new().block_on(&runtime, async {
        let prober = Prober::new(ProberOptions {
            policy: PolicyOptions {
                deny_private: true,
                ..PolicyOptions::default()
            },
            name_servers: None,
            matcher,
            suspect_above: SUSPECT_ABOVE,
        });
        let canary = Canary::start().unwrap();
        let address = canary.address();
        let seen = async {
            loop {
                if let Some(error) = prober.canary_error() {
                    break error;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let error = tokio::select! {
            () = canary.probe(&prober) => unreachable!("it goes on for ever"),
            error = seen => error,
        };
        drop(canary);
        // Its thread has ended, and with it the listener.
        assert!(std::net::TcpStream::connect(address).is_err());
        error
    });
    assert!(error < Duration::from_secs(1), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_adds_more_than_is_accepted_sheds_and_accounts_for_it() {
    let database = TestDatabase::migrated().await;
    let oracle = Oracle::start(Duration::ZERO);
    add(&database, oracle.address, 500, Duration::from_secs(2)).await;
    // No probe adds less than that: its own work takes longer.
    let agent = Running::start(
        &["agent", "--partition", "0/1", "--max-error", "1us"],
        &[("DATABASE_URL", &database.url())],
    );
    let shed = "select count(*) from metrics where outcome = 'skipped' and reason = 'overload'";
    eventually("probes are shed", async || {
        (number(&database.client().await, shed).await >= 300).then_some(())
    })
    .await;
    let (_, metrics) = get(agent.listen, "/metrics").await.unwrap();
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
    };
    assert!(value("watcher_canary_error_seconds_count") >= 1.0);
    assert!((0.05..0.9).contains(&value("watcher_admitted_share")));
    assert!(agent.log().contains("probes are shed"), "{}", agent.log());
    agent.stop().await;

    let summary = summary(&database).await;
    let client = database.client().await;
    let down = "select count(*) from metrics where outcome = 'down'";
    assert_eq!(number(&client, down).await, 0, "{summary}");
    // The same are not always the ones: in less than two rounds, most have been shed and many probed.
    let sql = "select count(*) filter (where outcome = 'up') > 0, count(*) filter (where outcome = 'skipped') > 0, count(*) \
               from metrics group by endpoint_id";
    let rows = query(&database, sql).await;
    let with = |at: usize| rows.iter().filter(|row| row.get(at)).count();
    assert!(
        with(0) >= 150 && with(1) >= 250,
        "{} {} of {}: {summary}",
        with(0),
        with(1),
        rows.len()
    );
}
