//! The catalog with a source that is a list.

use std::collections::VecDeque;

use super::*;

#[derive(Default)]
struct List {
    first: Vec<CatalogChange>,
    failures: u32,
    later: VecDeque<Vec<CatalogChange>>,
    reports: Vec<(Vec<(i64, usize)>, bool)>,
    /// Rows that are disabled, not deleted.
    disabled: Vec<i64>,
    /// What is said to be held, by its number; and whether somebody confirms it.
    holds: Vec<Option<usize>>,
    confirmed: bool,
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

    fn present<'a>(
        &'a mut self,
        gone: &'a [EndpointId],
    ) -> BoxFuture<'a, Result<Vec<EndpointId>, SourceError>> {
        let present = gone.iter().filter(|id| self.disabled.contains(&id.0));
        let present = present.copied().collect();
        Box::pin(async move { Ok(present) })
    }

    fn hold(&mut self, held: Option<HeldRemoval>) -> BoxFuture<'_, Result<bool, SourceError>> {
        self.holds.push(held.map(|held| held.endpoints));
        let confirmed = self.confirmed && held.is_some();
        Box::pin(async move { Ok(confirmed) })
    }

    fn report<'a>(
        &'a mut self,
        problems: &'a [RowProblems],
        all: bool,
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        let mut report: Vec<_> = problems
            .iter()
            .map(|row| (row.endpoint.0, row.problems.len()))
            .collect();
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
        Command::Upsert(endpoints) => {
            let ids: Vec<_> = endpoints
                .iter()
                .map(|Changed { endpoint, at }| {
                    format!(
                        "{}={}@{}",
                        endpoint.id,
                        endpoint.target.host,
                        at.as_millis()
                    )
                })
                .collect();
            format!("+{}", ids.join(","))
        }
        Command::Remove(ids) => {
            let mut ids: Vec<_> = ids.iter().map(|id| id.0).collect();
            ids.sort_unstable();
            format!("-{ids:?}")
        }
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
    let mut catalog = forgetful(RemovalOptions::OFF);
    let loaded = catalog.load(&mut source, &mut resolve, &sender, None).await;
    assert_eq!((loaded, catalog.probed()), (Ok(true), 2));
    let follow = timeout_follow(&mut catalog, &mut source, &sender);
    follow.await;
    let mut commands = Vec::new();
    while let Ok(command) = receiver.try_recv() {
        commands.push(describe(command));
    }
    assert_eq!(
        commands,
        ["-[2]", "+1=a@1,3=c@3", "+2=b@2", "-[1, 3]", "+7=g@7,8=h@8"]
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
        first: vec![row(1, "a"), row(2, ""), row(9, "same")],
        later: [vec![]].into(),
        ..List::default()
    };
    let (sender, mut receiver) = mpsc::channel(100);
    let mut catalog = forgetful(RemovalOptions::OFF);
    let loaded = catalog.load(&mut source, &mut resolve, &sender, None).await;
    assert_eq!((loaded, catalog.probed()), (Ok(true), 2));
    source.first = vec![row(2, "b"), row(3, "c"), row(9, "same")];
    timeout_follow(&mut catalog, &mut source, &sender).await;
    let mut commands = Vec::new();
    while let Ok(command) = receiver.try_recv() {
        commands.push(describe(command));
    }
    assert_eq!(
        commands,
        ["-[2]", "+1=a@1,9=same@9", "-[1]", "+2=b@2,3=c@3"]
    );
    assert_eq!(source.reports, [(vec![(2, 1)], true), (vec![], true)]);
}

fn forgetful(removals: RemovalOptions) -> Catalog {
    Catalog::new(removals, Box::new(Forgetful))
}

const HALF: RemovalOptions = RemovalOptions {
    grace: Duration::from_secs(600),
    part: 0.5,
    at_least: 10,
};

/// The wall clock of these tests: that of the runtime, which is paused.
fn paused_now() -> Timestamp {
    thread_local! {
        static BEGUN: tokio::time::Instant = tokio::time::Instant::now();
    }
    Timestamp::from_millis(1_000_000_000).plus(BEGUN.with(|begun| begun.elapsed()))
}

fn rows(ids: std::ops::Range<i64>) -> Vec<CatalogChange> {
    ids.map(|id| row(id, "a")).collect()
}

fn removed(ids: std::ops::Range<i64>) -> Vec<CatalogChange> {
    ids.map(|id| CatalogChange::Remove(EndpointId(id)))
        .collect()
}

/// What was removed and what was added since the last call, by id.
fn moved(receiver: &mut mpsc::Receiver<Command>) -> (Vec<i64>, Vec<i64>) {
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    while let Ok(command) = receiver.try_recv() {
        match command {
            Command::Remove(ids) => gone.extend(ids.iter().map(|id| id.0)),
            Command::Upsert(rows) => new.extend(rows.iter().map(|row| row.endpoint.id.0)),
            Command::Begin(_) => {}
        }
    }
    gone.sort_unstable();
    (gone, new)
}

fn list(ids: std::ops::Range<i64>) -> Vec<i64> {
    ids.collect()
}

/// A catalog of the endpoints 0 to 99 that has begun.
async fn hundred(source: &mut List, sender: &mpsc::Sender<Command>) -> Catalog {
    source.first = rows(0..100);
    let mut catalog = forgetful(HALF);
    catalog.now = paused_now;
    catalog
        .load(source, &mut resolve, sender, None)
        .await
        .unwrap();
    catalog.begun(paused_now());
    catalog
}

#[tokio::test(start_paused = true)]
async fn no_message_holds_more_than_the_worker_can_apply_between_two_turns() {
    let (sender, mut receiver) = mpsc::channel(100);
    let mut source = List {
        first: rows(0..5_000),
        ..List::default()
    };
    let mut catalog = forgetful(RemovalOptions {
        grace: Duration::ZERO,
        ..HALF
    });
    let mut sizes = Vec::new();
    catalog
        .load(&mut source, &mut resolve, &sender, None)
        .await
        .unwrap();
    source.later = [removed(0..4_900)].into();
    timeout_follow(&mut catalog, &mut source, &sender).await;
    while let Ok(command) = receiver.try_recv() {
        match command {
            Command::Remove(ids) => sizes.push((0, ids.len())),
            Command::Upsert(rows) => sizes.push((rows.len(), 0)),
            Command::Begin(_) => {}
        }
    }
    assert!(
        sizes
            .iter()
            .all(|&(new, gone)| new <= CHUNK && gone <= CHUNK)
    );
    let all = sizes
        .iter()
        .fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1));
    assert_eq!(all, (5_000, 4_900));
}

#[tokio::test(start_paused = true)]
async fn half_of_the_table_deleted_at_once_is_probed_until_the_grace_has_passed() {
    let (sender, mut receiver) = mpsc::channel(100);
    let mut source = List::default();
    let mut catalog = hundred(&mut source, &sender).await;
    moved(&mut receiver);
    // An ordinary removal, then the mistake, with one row that is disabled, and one that is new.
    source.disabled = vec![20];
    source.later = [removed(0..3), [removed(20..90), rows(200..201)].concat()].into();
    timeout_follow(&mut catalog, &mut source, &sender).await;
    assert_eq!(moved(&mut receiver), (vec![0, 1, 2, 20], vec![200]));
    assert_eq!(source.holds, [Some(69)]);

    // One more within the grace waits with them; ten come back.
    source.later = [removed(90..91), rows(30..40)].into();
    timeout_follow(&mut catalog, &mut source, &sender).await;
    assert_eq!(moved(&mut receiver), (vec![], list(30..40)));
    assert_eq!(source.holds, [Some(69), Some(70), Some(60)]);

    tokio::time::advance(HALF.grace).await;
    source.later = [rows(200..201)].into();
    timeout_follow(&mut catalog, &mut source, &sender).await;
    let gone = [list(21..30), list(40..91)].concat();
    assert_eq!(moved(&mut receiver), (gone, vec![200]));
    assert_eq!(source.holds[3..], [Some(60), None]);
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_removal_goes_at_once_and_a_truncated_table_that_is_filled_again_is_forgotten()
{
    let (sender, mut receiver) = mpsc::channel(100);
    let mut source = List::default();
    let mut catalog = hundred(&mut source, &sender).await;
    moved(&mut receiver);
    source.later = [removed(0..100), rows(0..100)].into();
    timeout_follow(&mut catalog, &mut source, &sender).await;
    assert_eq!(moved(&mut receiver), (vec![], list(0..100)));
    assert_eq!(source.holds, [Some(100), None]);

    source.confirmed = true;
    source.later = [removed(0..100)].into();
    timeout_follow(&mut catalog, &mut source, &sender).await;
    assert_eq!(moved(&mut receiver), (list(0..100), vec![]));
    assert_eq!(catalog.probed(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_lacks_half_of_them_is_held_and_so_are_those_that_an_earlier_run_knew() {
    let (sender, mut receiver) = mpsc::channel(100);
    let mut source = List::default();
    let mut catalog = hundred(&mut source, &sender).await;
    moved(&mut receiver);
    source.first = rows(60..100);
    source.later = [vec![]].into();
    timeout_follow(&mut catalog, &mut source, &sender).await;
    assert_eq!(moved(&mut receiver), (vec![], vec![]));
    assert_eq!(
        (source.holds.clone(), catalog.probed()),
        (vec![Some(60)], 100)
    );

    // A new process: what it finds on disk is as old as the mistake, or older than the grace.
    for (age, held_before, left, until) in [(60, 300, 100, 300), (60, 0, 100, 600), (700, 0, 40, 0)]
    {
        let mut source = List {
            first: rows(60..100),
            ..List::default()
        };
        let mut catalog = forgetful(HALF);
        catalog.now = paused_now;
        let ago = |s| paused_now().minus(Duration::from_secs(s));
        let recalled = Recalled {
            as_of: ago(age),
            held_since: (held_before > 0).then(|| ago(held_before)),
        };
        let old = rows(0..100).into_iter().map(|change| match change {
            CatalogChange::Upsert(row) => *row,
            CatalogChange::Remove(_) => unreachable!(),
        });
        let recalled = catalog.recall(old, recalled, &mut resolve, &sender).await;
        assert_eq!(recalled, Ok(100));
        let patience = Some(Duration::from_secs(3));
        let loaded = catalog
            .load(&mut source, &mut resolve, &sender, patience)
            .await;
        assert_eq!((loaded, catalog.probed()), (Ok(true), left));
        let held = catalog.removals.held();
        let left_s = held.map_or(0, |held| held.until.since(paused_now()).as_secs());
        assert_eq!(left_s, until);
        moved(&mut receiver);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_recalled_is_probed_and_the_table_says_later_what_has_changed() {
    let (sender, mut receiver) = mpsc::channel(100);
    let mut source = List {
        failures: 1,
        first: vec![row(1, "a"), row(2, "b2"), row(4, "")],
        ..List::default()
    };
    let mut catalog = forgetful(HALF);
    catalog.now = paused_now;
    let old = |id, at| match row(id, "a") {
        CatalogChange::Upsert(mut row) => {
            row.changed_at = Timestamp::from_millis(at);
            *row
        }
        CatalogChange::Remove(_) => unreachable!(),
    };
    let recalled = Recalled {
        as_of: paused_now(),
        held_since: None,
    };
    // The second has changed since, the third is gone, the fourth has gone bad.
    let olds = [old(1, 1), old(2, 1), old(3, 3), old(4, 1)].into_iter();
    let count = catalog.recall(olds, recalled, &mut resolve, &sender).await;
    assert_eq!(count, Ok(4));
    let patience = Some(Duration::from_secs(3));
    let loaded = catalog
        .load(&mut source, &mut resolve, &sender, patience)
        .await;
    assert_eq!(loaded, Ok(false));
    assert_eq!(moved(&mut receiver), (vec![], vec![1, 2, 3, 4]));
    catalog.begun(paused_now());
    source.later = [vec![]].into();
    timeout_follow(&mut catalog, &mut source, &sender).await;
    let mut commands = Vec::new();
    while let Ok(command) = receiver.try_recv() {
        commands.push(describe(command));
    }
    assert_eq!(commands, ["-[3, 4]", "+2=b2@2"]);
    assert_eq!(source.reports, [(vec![(4, 1)], true)]);
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
