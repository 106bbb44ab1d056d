//! An agent in a network namespace of its own, with a cable that the test pulls.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinHandle;

use super::{Oracle, add, query, summary};
use crate::support::database::{TestDatabase, number};
use crate::support::process::{Running, eventually};

/// A namespace for the agent, joined to this one by a pair of interfaces: the agent's is 198.18.0.1, ours has
/// 198.18.0.2 and further addresses. Removed when dropped.
pub(super) struct Apart {
    pub(super) name: String,
    ours: String,
    addresses: Vec<String>,
    /// Our addresses are all tests'.
    _alone: File,
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {arguments}: {said}"))
}

impl Apart {
    /// `None`, said aloud, where this user may not make namespaces. `addresses` are ours, each of a network of its own.
    pub(super) fn start(addresses: &[&str]) -> Option<Self> {
        let id = std::process::id() % 100_000;
        let alone = File::create(std::env::temp_dir().join("watcher_test_apart")).unwrap();
        flock(&alone, FlockOperation::LockExclusive).unwrap();
        let apart = Self {
            _alone: alone,
            name: format!("watcher{id}"),
            ours: format!("wo{id}"),
            addresses: addresses.iter().map(|&a| a.to_owned()).collect(),
        };
        let (name, ours) = (&apart.name, &apart.ours);
        if let Err(error) = ip(&format!("netns add {name}")) {
            println!("skipped: no network namespace: {error}");
            return None;
        }
        // Left by a test that was killed.
        for address in addresses {
            let _ = ip(&format!("route del blackhole {address}/32"));
        }
        let theirs = format!("wt{id}");
        ip(&format!(
            "link add {ours} type veth peer name {theirs} netns {name}"
        ))
        .unwrap();
        ip(&format!("addr add 198.18.0.2/30 dev {ours}")).unwrap();
        for address in addresses {
            ip(&format!("addr add {address}/32 dev {ours}")).unwrap();
        }
        ip(&format!("link set {ours} up")).unwrap();
        apart.inside(&format!("addr add 198.18.0.1/30 dev {theirs}"));
        apart.inside("link set lo up");
        apart.inside(&format!("link set {theirs} up"));
        apart.inside("route add default via 198.18.0.2");
        Some(apart)
    }

    pub(super) fn inside(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.name)).unwrap();
    }

    /// Runs a command in it.
    pub(super) fn run(&self, command: &[&str]) {
        let done = Command::new("ip")
            .args(["netns", "exec", &self.name])
            .args(command)
            .status();
        assert!(done.unwrap().success(), "{command:?}");
    }

    fn pull_cable(&self) {
        ip(&format!("link set {} down", self.ours)).unwrap();
    }

    fn plug_in(&self) {
        ip(&format!("link set {} up", self.ours)).unwrap();
    }

    /// Packets to these addresses of ours vanish; the agent's side sees nothing of it.
    fn swallow(&self, addresses: &[&str]) {
        for address in addresses {
            ip(&format!("addr del {address}/32 dev {}", self.ours)).unwrap();
            ip(&format!("route add blackhole {address}/32")).unwrap();
        }
    }

    fn unswallow(&self, addresses: &[&str]) {
        for address in addresses {
            ip(&format!("route del blackhole {address}/32")).unwrap();
            ip(&format!("addr add {address}/32 dev {}", self.ours)).unwrap();
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        for address in &self.addresses {
            let _ = ip(&format!("route del blackhole {address}/32"));
        }
        let _ = ip(&format!("link del {}", self.ours));
        let _ = ip(&format!("netns del {}", self.name));
    }
}

/// The test database under a unix socket, which knows no namespaces of the network.
pub(super) struct Socket {
    folder: tempfile::TempDir,
    carrying: JoinHandle<()>,
}

impl Socket {
    pub(super) fn to(database: &TestDatabase) -> Self {
        let url = url::Url::parse(&database.url()).unwrap();
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join(".s.PGSQL.5432");
        let listener = UnixListener::bind(path).unwrap();
        let carrying = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(server).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { folder, carrying }
    }

    pub(super) fn url(&self, database: &TestDatabase) -> String {
        let url = url::Url::parse(&database.url()).unwrap();
        format!(
            "postgres://{}:{}@/{}?host={}&port=5432&sslmode=disable",
            url.username(),
            url.password().unwrap_or_default(),
            url.path().trim_start_matches('/'),
            self.folder.path().display(),
        )
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

/// A target at each of these addresses.
fn targets(addresses: &[&str]) -> Vec<SocketAddr> {
    addresses
        .iter()
        .map(|address| {
            let listener = TcpListener::bind(format!("{address}:0")).unwrap();
            Oracle::on(listener, Duration::from_millis(5)).address
        })
        .collect()
}

async fn rows(database: &TestDatabase, filter: &str) -> i64 {
    let sql = format!("select count(*) from metrics where {filter}");
    number(&database.client().await, &sql).await
}

/// Sites far apart from each other.
const SITES: [&str; 6] = [
    "198.18.1.1",
    "198.18.1.2",
    "198.19.1.1",
    "198.19.1.2",
    "203.0.113.1",
    "203.0.113.2",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pulled_cable_or_a_dead_uplink_is_not_the_targets_fault() {
    let Some(apart) = Apart::start(&SITES) else {
        return;
    };
    let database = TestDatabase::migrated().await;
    let socket = Socket::to(&database);
    for address in targets(&SITES) {
        add(&database, address, 8, Duration::from_secs(1)).await;
    }
    let agent = Running::start_under(
        &["ip", "netns", "exec", &apart.name],
        &["agent", "--partition", "0/1"],
        &[("DATABASE_URL", &socket.url(&database))],
    );
    eventually("rows of all", async || {
        (rows(&database, "outcome = 'up'").await >= 60).then_some(())
    })
    .await;

    for (times, round) in (0..).zip(["no carrier", "no route", "swallowed"]) {
        let excused = rows(&database, "reason = 'network_down'").await;
        match round {
            "no carrier" => apart.pull_cable(),
            "no route" => apart.inside("route del default"),
            _ => apart.swallow(&SITES),
        }
        eventually(round, async || {
            (rows(&database, "reason = 'network_down'").await >= excused + 60).then_some(())
        })
        .await;
        if round == "swallowed" {
            assert!(
                agent.log().contains("nothing is reached any more"),
                "{}",
                agent.log()
            );
        }
        match round {
            "no carrier" => apart.plug_in(),
            "no route" => apart.inside("route add default via 198.18.0.2"),
            _ => apart.unswallow(&SITES),
        }
        let up = rows(&database, "outcome = 'up'").await;
        eventually("it works again, and says so", async || {
            let works = rows(&database, "outcome = 'up'").await >= up + 60;
            (works && agent.log().matches("up again").count() > times).then_some(())
        })
        .await;
    }
    let log = agent.log();
    agent.stop().await;
    let summary = summary(&database).await;
    println!("{summary}");
    assert_eq!(
        rows(&database, "outcome = 'down'").await,
        0,
        "{summary}\n{log}"
    );
    assert!(log.contains("no way to targets"), "{log}");
    assert_eq!(
        log.matches("up again").count(),
        3,
        "one line for each change: {log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_really_down_stays_down_and_so_does_the_only_one() {
    let Some(apart) = Apart::start(&SITES[..2]) else {
        return;
    };
    let database = TestDatabase::migrated().await;
    let socket = Socket::to(&database);
    let [first, second] = targets(&SITES[..2])[..] else {
        unreachable!()
    };
    add(&database, first, 20, Duration::from_secs(1)).await;
    add(&database, second, 20, Duration::from_secs(1)).await;
    let agent = Running::start_under(
        &["ip", "netns", "exec", &apart.name],
        &["agent", "--partition", "0/1"],
        &[("DATABASE_URL", &socket.url(&database))],
    );
    eventually("rows of both", async || {
        (rows(&database, "outcome = 'up'").await >= 60).then_some(())
    })
    .await;
    // One of two.
    apart.swallow(&SITES[..1]);
    eventually("one is down", async || {
        (rows(&database, "outcome = 'down'").await >= 30).then_some(())
    })
    .await;
    // And both: there is nobody else to ask.
    let down = rows(&database, "outcome = 'down'").await;
    apart.swallow(&SITES[1..2]);
    eventually("both are down", async || {
        (rows(&database, "outcome = 'down'").await >= down + 60).then_some(())
    })
    .await;
    agent.stop().await;
    let summary = summary(&database).await;
    assert_eq!(
        rows(&database, "reason = 'network_down'").await,
        0,
        "{summary}"
    );
    let other = query(
        &database,
        "select distinct reason::text from metrics where outcome = 'down'",
    )
    .await;
    let other: Vec<String> = other.iter().map(|row| row.get(0)).collect();
    assert!(other.iter().any(|reason| reason == "connect_timeout"));
    // Connected when the packets began to be swallowed, and never answered.
    let is_meant = |reason: &String| reason == "connect_timeout" || reason == "processing_timeout";
    assert!(other.iter().all(is_meant), "{other:?}");
}
