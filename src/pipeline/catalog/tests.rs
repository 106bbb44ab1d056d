//! The catalog with a source that is a list.

use std::collections::VecDeque;

use super::*;

#[derive(Default)]
struct List {
    first: Vec<CatalogChange>,
    failures: u32,
    later: VecDeque<Vec<CatalogChange>>,
    reports: Vec<(Vec<(i64, usize)>, bool)>,
}

impl CatalogSource for List {
    fn load<'a>(
        &'a mut self,
        each: &'a mut dyn FnMut(CatalogChange),
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(async move {
            for change in self.first.clone() {
                each(change);
            }
            if self.failures > 0 {
                self.failures -= 1;
                return Err("away".into());
            }
            Ok(())
        })
    }

    fn changes<'a>(
        &'a mut self,
        each: &'a mut dyn FnMut(CatalogChange),
    ) -> BoxFuture<'a, Result<Loaded, SourceError>> {
        Box::pin(async move {
            match self.later.pop_front() {
                Some(changes) if changes.is_empty() => Ok(Loaded::Reload),
                changes => {
                    changes.into_iter().flatten().for_each(each);
                    Ok(Loaded::UpToDate)
                }
            }
        })
    }

    fn wait(&mut self) -> BoxFuture<'_, ()> {
        let done = self.later.is_empty();
        Box::pin(async move {
            if done {
                std::future::pending::<()>().await;
            }
        })
    }

    fn report<'a>(
        &'a mut self,
        problems: &'a [(EndpointId, Vec<Problem>)],
        all: bool,
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        let mut report: Vec<_> = problems.iter().map(|(id, p)| (id.0, p.len())).collect();
        report.sort_unstable();
        self.reports.push((report, all));
        Box::pin(async { Ok(()) })
    }
}

fn row(id: i64, url: &str) -> CatalogChange {
    CatalogChange::Upsert(Box::new(EndpointRow {
        id: EndpointId(id),
        kind: "http".into(),
        url: url.into(),
        interval_s: 60,
        timeout_ms: None,
        degraded_after_ms: None,
        cert_warn_days: None,
        regex: None,
        regex_not: None,
        settings: None,
        changed_at: Timestamp::from_millis(id),
    }))
}

/// A row is bad when its URL is empty.
fn resolve(row: &EndpointRow) -> Result<Endpoint, Vec<Problem>> {
    if row.url.is_empty() {
        return Err(vec![Problem::of("url", "is empty")]);
    }
    let mut endpoint =
        crate::pipeline::worker::tests::endpoint(row.id.0, i64::from(row.interval_s));
    endpoint.target.host = row.url.as_str().into();
    Ok(endpoint)
}

fn describe(command: Command) -> String {
    match command {
        Command::Upsert {
            endpoints,
            changed_at,
        } => {
            let ids: Vec<_> = endpoints
                .iter()
                .map(|e| format!("{}={}", e.id, e.target.host))
                .collect();
            format!(
                "+{} {:?}",
                ids.join(","),
                changed_at.map(Timestamp::as_millis)
            )
        }
        Command::Retain(ids) => {
            let mut ids: Vec<_> = ids.into_iter().map(|id| id.0).collect();
            ids.sort_unstable();
            format!("={ids:?}")
        }
        Command::Remove(ids) => format!("-{:?}", ids.iter().map(|id| id.0).collect::<Vec<_>>()),
        Command::Begin(at) => format!("begin {at:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_row_is_reported_and_the_others_run() {
    let mut source = List {
        first: vec![row(1, "a"), row(2, ""), row(3, "c")],
        failures: 2,
        later: [
            vec![row(2, "b")],
            vec![
                row(3, ""),
                CatalogChange::Remove(EndpointId(1)),
                row(7, "g"),
                row(8, "h"),
            ],
        ]
        .into(),
        ..List::default()
    };
    let (sender, mut receiver) = mpsc::channel(100);
    let mut catalog = Catalog::default();
    let loaded = catalog.load(&mut source, &mut resolve, &sender).await;
    assert_eq!(loaded, Ok(2));
    let follow = timeout_follow(&mut catalog, &mut source, &sender);
    follow.await;
    let mut commands = Vec::new();
    while let Ok(command) = receiver.try_recv() {
        commands.push(describe(command));
    }
    assert_eq!(
        commands,
        [
            "+1=a,3=c None",
            "+2=b Some(2)",
            "-[3, 1]",
            "+7=g,8=h Some(3)"
        ]
    );
    assert_eq!(
        source.reports,
        [
            (vec![(2, 1)], true),
            (vec![(2, 0)], false),
            (vec![(3, 1)], false)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_source_that_lost_its_place_is_loaded_anew() {
    let mut source = List {
        first: vec![row(1, "a"), row(2, "")],
        later: [vec![]].into(),
        ..List::default()
    };
    let (sender, mut receiver) = mpsc::channel(100);
    let mut catalog = Catalog::default();
    assert_eq!(
        catalog.load(&mut source, &mut resolve, &sender).await,
        Ok(1)
    );
    source.first = vec![row(2, "b"), row(3, "c")];
    timeout_follow(&mut catalog, &mut source, &sender).await;
    let mut commands = Vec::new();
    while let Ok(command) = receiver.try_recv() {
        commands.push(describe(command));
    }
    assert_eq!(commands, ["+1=a None", "=[2, 3]", "+2=b,3=c None"]);
    assert_eq!(source.reports, [(vec![(2, 1)], true), (vec![], true)]);
}

async fn timeout_follow(catalog: &mut Catalog, source: &mut List, sender: &mpsc::Sender<Command>) {
    let mut resolve = resolve;
    let follow = catalog.follow(source, &mut resolve, sender);
    assert!(
        tokio::time::timeout(Duration::from_secs(60), follow)
            .await
            .is_err()
    );
}
