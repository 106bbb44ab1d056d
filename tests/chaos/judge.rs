//! The judgement: the audit's arithmetic, and the target's count of what it served against the rows.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;

use crate::instance;
use crate::up::{TargetProcess, output};

/// `watcher audit --json`, and what the oracle says.
#[derive(Clone, Default, Deserialize, Debug)]
pub(crate) struct Judged {
    pub(crate) due: i64,
    pub(crate) stored: i64,
    pub(crate) down: i64,
    pub(crate) skipped: BTreeMap<String, i64>,
    pub(crate) off: i64,
    pub(crate) missing: i64,
    pub(crate) missing_by: BTreeMap<String, i64>,
    pub(crate) duplicates: i64,
    /// Requests that the target served.
    #[serde(skip)]
    pub(crate) served: i64,
    /// Of these, without a row; summed over endpoints, so that no endpoint's surplus hides another's loss.
    #[serde(skip)]
    pub(crate) lost: i64,
    /// By endpoint.
    #[serde(skip)]
    pub(crate) lost_by: BTreeMap<i64, i64>,
    #[serde(skip)]
    pub(crate) lag_p99_us: i64,
}

impl Judged {
    /// As a list, or a dash.
    pub(crate) fn missing_by(&self) -> String {
        let list: Vec<_> = self
            .missing_by
            .iter()
            .map(|(reason, n)| format!("{reason} {n}"))
            .collect();
        if list.is_empty() {
            "–".to_owned()
        } else {
            list.join(", ")
        }
    }

    pub(crate) fn missing_for(&self, reason: &str) -> i64 {
        self.missing_by.get(reason).copied().unwrap_or(0)
    }
}

/// The endpoint, rows that a request may stand behind, and all of them.
const ROWS_SQL: &str = "
    select e.id, split_part(e.url, '/', 5),
        count(m.endpoint_id) filter (where m.outcome <> 'skipped'
            or m.reason in ('shutdown', 'starved', 'paused', 'network_down')) as answered
    from endpoints e left join metrics m on m.endpoint_id = e.id
    group by e.id, e.url";

const LAG_SQL: &str = "
    select coalesce(percentile_disc(0.99) within group (order by lag_us), 0)::bigint
    from metrics where outcome = 'up'";

pub(crate) async fn judge(
    url: &str,
    since: &str,
    target: &TargetProcess,
) -> anyhow::Result<Judged> {
    let until = jiff::Timestamp::now().to_string();
    let text = output(
        &["audit", "--json", "--since", since, "--until", &until],
        url,
    )
    .await?;
    let mut judged: Judged = serde_json::from_str(&text).context("the audit's answer")?;
    let served = target.served().await?;
    judged.served = served.values().sum();
    let client = instance::connect(url).await?;
    for row in client.query(ROWS_SQL, &[]).await? {
        let (id, number, rows): (i64, String, i64) = (row.get(0), row.get(1), row.get(2));
        let served = served.get(&format!("/e/{number}")).copied().unwrap_or(0);
        if served > rows {
            judged.lost += served - rows;
            judged.lost_by.insert(id, served - rows);
        }
    }
    judged.lag_p99_us = client.query_one(LAG_SQL, &[]).await?.get(0);
    Ok(judged)
}
