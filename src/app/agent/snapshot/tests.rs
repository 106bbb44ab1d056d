//! The snapshot as it is written, read, and refused.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::*;
use crate::pipeline::catalog::CatalogMemory;
use crate::store::CatalogChange;

const DAY: Duration = Duration::from_secs(86_400);
const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn place() -> Place {
    Place {
        partition: Partition::new(1, 2).unwrap(),
        location: "fra \"1\"\n".into(),
        database: "db:5432/watcher".into(),
    }
}

fn row(id: i64, url: &str) -> EndpointRow {
    EndpointRow {
        id: EndpointId(id),
        kind: "http".into(),
        url: url.into(),
        interval_s: 60,
        timeout_ms: Some(5_000),
        degraded_after_ms: None,
        cert_warn_days: Some(7),
        regex: Some("a\nb\u{0} \"ü\"".into()),
        regex_not: None,
        settings: Some(r#"{"method": "POST"}"#.into()),
        changed_at: Timestamp::from_micros(id * 1_000 + 1),
    }
}

fn upsert(id: i64, url: &str) -> CatalogChange {
    CatalogChange::Upsert(Box::new(row(id, url)))
}

/// A folder and a recorder that has loaded these endpoints.
struct Scene {
    folder: tempfile::TempDir,
    recorder: Recorder,
    at: Timestamp,
}

impl Scene {
    fn new(ids: std::ops::Range<i64>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (recorder, _) = Recorder::start(folder.path(), place(), None).unwrap();
        let mut scene = Self {
            folder,
            recorder,
            at: NOW,
        };
        scene.recorder.begin();
        for id in ids {
            scene.recorder.note(&upsert(id, "http://a/"));
        }
        scene.commit(&[], None);
        scene
    }

    /// Commits, and waits until it is on disk.
    fn commit(&mut self, held: &[i64], held_since: Option<Timestamp>) {
        self.at = self.at.plus(Duration::from_secs(1));
        let held: HashSet<_> = held.iter().map(|&id| EndpointId(id)).collect();
        self.recorder.commit(self.at, &held, held_since);
        let begun = Instant::now();
        while !self
            .open()
            .is_ok_and(|found| found.is_some_and(|s| s.recalled.as_of == self.at))
        {
            assert!(begun.elapsed() < Duration::from_secs(30), "not written");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn open(&self) -> Result<Option<Snapshot>, Refusal> {
        Snapshot::open(self.folder.path(), &place(), DAY, self.at)
    }

    fn ids(&self) -> Vec<i64> {
        let snapshot = self.open().unwrap().unwrap();
        let mut ids: Vec<_> = snapshot.rows().unwrap().map(|row| row.id.0).collect();
        ids.sort_unstable();
        assert_eq!(ids.len(), snapshot.len());
        ids
    }

    fn path(&self) -> PathBuf {
        place().path(self.folder.path())
    }

    fn refusal(&self, place: &Place, age_max: Duration, now: Timestamp) -> String {
        match Snapshot::open(self.folder.path(), place, age_max, now) {
            Ok(_) => "used".to_owned(),
            Err(refusal) => refusal.to_string(),
        }
    }
}

#[test]
fn what_was_loaded_and_changed_is_read_again_and_held_rows_outlive_a_load() {
    let mut scene = Scene::new(0..4);
    let all: Vec<_> = scene.open().unwrap().unwrap().rows().unwrap().collect();
    assert!(all.contains(&row(3, "http://a/")), "{all:?}");
    let mode = scene.path().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    scene.recorder.note(&upsert(1, "http://b/"));
    scene.recorder.note(&upsert(9, "http://c/"));
    scene.recorder.note(&CatalogChange::Remove(EndpointId(2)));
    scene.commit(&[], None);
    assert_eq!(scene.ids(), [0, 1, 3, 9]);
    let snapshot = scene.open().unwrap().unwrap();
    let first = snapshot.rows().unwrap().find(|row| row.id.0 == 1);
    assert_eq!(first, Some(row(1, "http://b/")));

    // A load gives the fifth alone; two others are held.
    scene.recorder.begin();
    scene.recorder.note(&upsert(5, "http://a/"));
    scene.commit(&[1, 3, 77], Some(NOW));
    assert_eq!(scene.ids(), [1, 3, 5]);
    let recalled = scene.open().unwrap().unwrap().recalled;
    assert_eq!(recalled.held_since, Some(NOW));

    // A load that was given up changes nothing.
    scene.recorder.begin();
    scene.recorder.note(&upsert(6, "http://a/"));
    scene.recorder.abandon();
    assert_eq!(scene.ids(), [1, 3, 5]);
}

#[test]
fn a_file_that_grows_by_changes_is_written_anew() {
    let mut scene = Scene::new(0..10);
    let url = format!("http://a/{}", "x".repeat(8_000));
    let mut longest = 0;
    for _ in 0..40 {
        for id in 0..10 {
            scene.recorder.note(&upsert(id, &url));
        }
        scene.commit(&[], None);
        longest = longest.max(scene.path().metadata().unwrap().len());
    }
    assert!(longest < 2_000_000, "{longest}");
    assert!(
        longest > 1_000_000,
        "it was never put to the test: {longest}"
    );
    assert_eq!(scene.ids(), (0..10).collect::<Vec<_>>());
}

#[test]
fn of_another_place_or_too_old_it_is_refused_with_the_reason() {
    let scene = Scene::new(0..4);
    let now = scene.at;
    let refusal = |change: fn(&mut Place)| {
        let mut other = place();
        change(&mut other);
        scene.refusal(&other, DAY, now)
    };
    assert_eq!(refusal(|_| ()), "used");
    let said = refusal(|place| place.partition = Partition::new(1, 3).unwrap());
    assert!(
        said.contains("share 1/2") && said.contains("share 1/3"),
        "{said}"
    );
    assert!(refusal(|place| place.location = "ber".into()).contains("not of"));
    assert!(refusal(|place| place.database = "db:5432/other".into()).contains("db:5432/other"));
    let old = scene.refusal(
        &place(),
        Duration::from_secs(60),
        now.plus(Duration::from_secs(61)),
    );
    assert!(old.contains("61 s ago"), "{old}");
    assert!(is_there(scene.folder.path(), &place(), DAY, now).unwrap());
    let old = is_there(
        scene.folder.path(),
        &place(),
        Duration::from_secs(60),
        now.plus(DAY),
    );
    assert!(matches!(old, Err(Refusal::TooOld { .. })), "{old:?}");
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(!is_there(elsewhere.path(), &place(), DAY, now).unwrap());
}

/// Every cut and every flipped byte: an earlier state that was whole, or a refusal; never another state, never a panic.
#[test]
fn cut_or_damaged_anywhere_it_is_an_earlier_state_or_refused() {
    let mut scene = Scene::new(0..3);
    let loaded = std::fs::metadata(scene.path()).unwrap().len() as usize;
    scene.recorder.note(&CatalogChange::Remove(EndpointId(0)));
    scene.recorder.note(&upsert(7, "http://a/"));
    scene.commit(&[], None);
    let whole = std::fs::read(scene.path()).unwrap();
    let (first, second) = (vec![0, 1, 2], vec![1, 2, 7]);
    let mut refused = 0;
    for cut in 0..whole.len() {
        std::fs::write(scene.path(), &whole[..cut]).unwrap();
        match scene.open() {
            Ok(_) => assert_eq!(scene.ids(), first, "cut at {cut}"),
            Err(_) => {
                refused += 1;
                assert!(cut < loaded, "cut at {cut}");
            }
        }
    }
    assert_eq!(refused, loaded);
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= [0x01, 0x20, 0x80][at % 3];
        std::fs::write(scene.path(), &damaged).unwrap();
        if scene.open().is_ok() {
            let ids = scene.ids();
            // The checksum is text, and may be spelled in capitals.
            let as_good = damaged[at].eq_ignore_ascii_case(&whole[at]);
            assert!(at >= loaded || as_good, "byte {at}");
            assert!(
                ids == first || as_good && ids == second,
                "byte {at}: {ids:?}"
            );
        }
    }
}
