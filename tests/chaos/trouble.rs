//! The agent's own trouble, and peers that mean ill: a full disk, a clock that jumps, hostile targets.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use socket2::{Domain, Socket, Type};
use tokio::time::sleep;

use crate::instance::Stop;
use crate::scenario::{Outcome, Run, Scenario};
use crate::stage::Stage;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "hostile",
        what: "a tenth of the targets mean ill",
        rounds: 24,
        smoke: None,
        rate: 300,
        run: |run| Box::pin(hostile(run)),
    },
    Scenario {
        name: "disk-full",
        what: "the spool's disk is full while the database is away",
        rounds: 3,
        smoke: None,
        rate: 500,
        run: |run| Box::pin(disk_full(run)),
    },
    Scenario {
        name: "clock",
        what: "the wall clock jumps by 1 s and by 1 h",
        rounds: 10,
        smoke: None,
        rate: 200,
        run: |run| Box::pin(clock(run)),
    },
];

/// What `watcher target` does to those who ask for these; one endpoint of each, again and again.
const FAULTS: &[&str] = &[
    "hang=accept",
    "hang=head",
    "hang=body&size=1k",
    "close=accept",
    "close=head",
    "close=body&size=64k",
    "reset=accept",
    "reset=head",
    "reset=body&size=64k",
    "slow_head=1s",
    "drip=1b/1s&size=1m",
    "endless=1",
    "lie=length&size=1k",
    "lie=short&size=1k",
    "bomb=gzip",
    "bomb=deflate",
    "bomb=br",
    "bomb=zstd",
    "headers=2000",
    "header_bytes=64k",
    "garbage=1",
    "http09=1",
    "continue=100000",
    "loop=1",
    "redirect=file:///etc/passwd",
    "redirect=http://169.254.169.254/",
    "encoding=gzip&size=64k&truncate=1",
];
const TIMEOUT_MS: i32 = 2_000;
/// The bar of FAULTS on the end of a probe, above its timeout and what the agent says it added itself.
const GRACE_US: i64 = 100_000;
const LAG_MAX_US: i64 = 50_000;

/// A listener whose queue is full: the first packets of those who dial it are dropped.
struct Silent {
    address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

fn silent() -> anyhow::Result<Silent> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    listener.listen(0)?;
    let listener = TcpListener::from(listener);
    let address = listener.local_addr()?;
    let dial = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    let waiting = (0..4).filter_map(|_| dial()).collect();
    Ok(Silent {
        address,
        _listener: listener,
        _waiting: waiting,
    })
}

async fn hostile(run: &mut Run) -> anyhow::Result<Outcome> {
    let stage = Stage::set(run).await?;
    let silent = silent()?;
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let client = stage.client().await?;
    let healthy = stage.number("select count(*) from endpoints").await?;
    for n in 0..healthy / 10 {
        let kinds = FAULTS.len() + 2;
        let url = match n as usize % kinds {
            kind if kind < FAULTS.len() => {
                format!("http://{}/h/{n}?{}", stage.target.address, FAULTS[kind])
            }
            kind if kind == FAULTS.len() => format!("http://{}/h/{n}", silent.address),
            _ => format!("http://{closed}/h/{n}"),
        };
        // With a pattern: else a body is counted and dropped unread.
        let insert =
            "insert into endpoints (url, interval_s, timeout_ms, regex) values ($1, 5, $2, 'x')";
        client.execute(insert, &[&url, &TIMEOUT_MS]).await?;
    }
    let begun = "select count(*) from endpoint_schedules where lower(valid) > now()";
    while stage.number(begun).await? > 0 {
        sleep(Duration::from_millis(100)).await;
    }
    let up = stage.up(&stage.url, &[]).await?;
    stage
        .loaded(i64::from(run.rate) * 5 * i64::from(run.rounds))
        .await?;
    let (judged, ending) = stage.end(up).await?;
    let mut outcome = Outcome::of(judged.clone());

    let number = async |what: &str| {
        stage
            .number(&format!(
                "select {what} from metrics m join endpoints e on e.id = m.endpoint_id"
            ))
            .await
    };
    let of_hostile = "filter (where e.url like '%/h/%' and m.outcome <> 'skipped'";
    let seen = number(&format!("count(*) {of_hostile})")).await?;
    outcome.must_be_seen(seen as u64, (healthy / 10) as u64);
    let late = number(&format!(
        "count(*) {of_hostile} and duration_us > {TIMEOUT_MS} * 1000 + {GRACE_US} + coalesce(error_us, 0))"
    ))
    .await?;
    let longest = number(&format!(
        "max(duration_us - coalesce(error_us, 0)) {of_hostile})::bigint"
    ))
    .await?;
    let false_downs =
        number("count(*) filter (where e.url like '%/e/%' and m.outcome = 'down')").await?;
    let skipped = number(
        "count(*) filter (where m.outcome = 'skipped' and m.reason not in ('shutdown', 'starved'))",
    )
    .await?;
    let lag = number(
        "percentile_disc(0.99) within group (order by lag_us) filter (where e.url like '%/e/%')::bigint",
    )
    .await?;
    outcome.bar(late == 0, format!("{late} hostile probes ended late"));
    outcome.bar(false_downs == 0, format!("{false_downs} false downs"));
    outcome.bar(
        skipped == 0,
        format!("{skipped} skipped: {:?}", judged.skipped),
    );
    outcome.bar(
        judged.missing == 0,
        format!("missing: {}", judged.missing_by()),
    );
    outcome.bar(
        judged.lost == 0,
        format!("{} served and not stored", judged.lost),
    );
    outcome.bar(
        judged.duplicates == 0,
        format!("{} duplicates", judged.duplicates),
    );
    outcome.bar(lag <= LAG_MAX_US, format!("lag p99 {} ms", lag / 1_000));
    outcome.figure("healthy lag p99", format!("{:.1} ms", lag as f64 / 1e3));
    outcome.figure(
        "longest hostile",
        format!("{} ms of {TIMEOUT_MS}", longest / 1_000),
    );
    outcome.figure("memory", format!("{} MiB", ending.memory_mib));
    Ok(outcome)
}

/// A small file system in memory.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(folder: &'a Path, options: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "watcher-chaos"])
            .arg(folder)
            .status()?;
        ensure!(mounted.success(), "mount: {mounted}");
        Ok(Self(folder))
    }

    /// Leaves so many bytes free.
    fn fill_but(&self, bytes: u64) -> anyhow::Result<()> {
        let mut filler = std::fs::File::create(self.0.join("filler"))?;
        let block = [1; 4_096];
        let full = loop {
            if let Err(error) = filler.write_all(&block) {
                break error;
            }
        };
        ensure!(
            full.kind() == ErrorKind::StorageFull,
            "fill the disk: {full}"
        );
        let length = filler.metadata()?.len();
        Ok(filler.set_len(length.saturating_sub(bytes))?)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0).status());
    }
}

async fn disk_full(run: &mut Run) -> anyhow::Result<Outcome> {
    let stage = Stage::set(run).await?;
    let folder = stage.folder.path().join("spool");
    let disk = SmallDisk::mount(&folder, "size=32m")?;
    let up = stage
        .up(&stage.url, &[("WATCHER_BUFFER_ROWS", "2000")])
        .await?;
    stage.loaded(i64::from(run.rate)).await?;
    // Somebody else fills the disk after the spools have reserved what they need to go on.
    disk.fill_but(FREE_BYTES)?;
    let mut outcome = Outcome::default();
    let dropped = async || {
        up.metric("watcher_samples_dropped_total")
            .await
            .unwrap_or(0)
    };
    for _ in 0..run.rounds {
        let before = dropped().await;
        run.instance.stop(Stop::Fast).await?;
        let began = Instant::now();
        while dropped().await == before {
            ensure!(
                began.elapsed() < Duration::from_secs(120),
                "nothing was dropped in 120 s:\n{}",
                up.last_words()
            );
            sleep(Duration::from_millis(100)).await;
        }
        sleep(run.rng.millis(1_000, 8_000)).await;
        let probes = up.metric("watcher_probes_total").await.unwrap_or(0);
        sleep(Duration::from_secs(2)).await;
        let went_on = up.metric("watcher_probes_total").await.unwrap_or(0) - probes;
        outcome.bar(
            went_on >= i64::from(run.rate),
            format!("{went_on} probes in 2 s of a full disk"),
        );
        run.instance.start_again().await?;
        stage.fresh_rows().await?;
        stage.drained(&up).await?;
        outcome.seen += 1;
    }
    let (judged, ending) = stage.end(up).await?;
    outcome.judged = judged.clone();
    outcome.sound();
    let named = judged.missing_for("spool_full") + judged.missing_for("buffer_full");
    outcome.bar(
        judged.missing == named,
        format!("missing: {}", judged.missing_by()),
    );
    outcome.bar(
        ending.dropped == judged.missing,
        format!("{} dropped, {} missing", ending.dropped, judged.missing),
    );
    outcome.figure("dropped, counted", ending.dropped);
    outcome.figure("missing, audited", judged.missing_by());
    drop(disk);
    Ok(outcome)
}

/// What the full disk still has: some seconds of samples.
const FREE_BYTES: u64 = 256 * 1024;

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

async fn clock(run: &mut Run) -> anyhow::Result<Outcome> {
    ensure!(
        Path::new(FAKETIME).exists(),
        "{FAKETIME} is not there: apt-get install libfaketime"
    );
    let stage = Stage::set(run).await?;
    let file = stage.folder.path().join("offset");
    let set = |offset: &str| -> anyhow::Result<()> {
        let next = file.with_extension("next");
        std::fs::write(&next, offset)?;
        Ok(std::fs::rename(next, &file)?)
    };
    set("+0")?;
    let path = file.to_string_lossy().into_owned();
    let up = stage
        .up(
            &stage.url,
            &[
                ("LD_PRELOAD", FAKETIME),
                ("FAKETIME_TIMESTAMP_FILE", &path),
                ("FAKETIME_NO_CACHE", "1"),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ],
        )
        .await?;
    stage.loaded(i64::from(run.rate) * 6).await?;
    let mut outcome = Outcome::default();
    for _ in 0..run.rounds {
        let offset = ["+1", "-1", "+3600", "-3600"][run.rng.below(4) as usize];
        for offset in [offset, "+0"] {
            set(offset)?;
            let then = stage.rows().await?;
            stage.loaded(then + i64::from(run.rate) * 8).await?;
        }
        outcome.seen += 1;
    }
    let (judged, ending) = stage.end(up).await?;
    outcome.judged = judged.clone();
    outcome.bar(
        judged.duplicates == 0,
        format!("{} duplicates", judged.duplicates),
    );
    outcome.bar(judged.down == 0, format!("{} false downs", judged.down));
    outcome.bar(
        judged.lost == 0,
        format!("{} served and not stored", judged.lost),
    );
    let odd = "select count(*) from metrics where lag_us < 0 or duration_us < 0 or duration_us > 1000000 and not suspect";
    let odd = stage.number(odd).await?;
    outcome.bar(odd == 0, format!("{odd} rows with a time that cannot be"));
    let named = judged.missing_for("clock_step");
    outcome.bar(
        judged.missing == named,
        format!("missing: {}", judged.missing_by()),
    );
    outcome.figure("missing", judged.missing_by());
    outcome.figure("exit", format!("{:.1} s", ending.took.as_secs_f64()));
    Ok(outcome)
}
