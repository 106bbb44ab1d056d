//! The agent's own trouble is never the target's: the real binary, starved, stopped, without descriptors, ports or a
//! network, with a clock that jumps.

mod clock;
mod exhausted;
mod network;
mod shed;
mod starved;
mod stopped;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use watcher::domain::Timestamp;

use crate::support::database::TestDatabase;
use crate::support::prober::{now, read_head};

/// A target that knows what it did: after how long each request was answered, by the clock and not by intention.
struct Oracle {
    address: SocketAddr,
    served: Arc<Mutex<Vec<Served>>>,
}

#[derive(Clone, Copy, Debug)]
struct Served {
    arrived: Timestamp,
    took: Duration,
}

impl Oracle {
    /// Answers each request after `latency`.
    fn start(latency: Duration) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), latency)
    }

    fn on(listener: TcpListener, latency: Duration) -> Self {
        let address = listener.local_addr().unwrap();
        let served = Arc::<Mutex<Vec<Served>>>::default();
        let log = served.clone();
        spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, log) = (stream.unwrap(), log.clone());
                spawn(move || {
                    if !read_head(&mut stream) {
                        return;
                    }
                    let (arrived, begun) = (now(), Instant::now());
                    sleep(latency);
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if stream.write_all(answer).is_ok() {
                        let took = begun.elapsed();
                        log.lock().unwrap().push(Served { arrived, took });
                    }
                    // Until the peer has left: it closes first.
                    read_head(&mut stream);
                });
            }
        });
        Self { address, served }
    }

    /// How long the request took that arrived within a probe's time. With several of them, the longest: nobody is
    /// accused on account of another's probe.
    fn took(&self, from: Timestamp, to: Timestamp) -> Option<Duration> {
        let served = self.served.lock().unwrap();
        served
            .iter()
            .filter(|one| (from..=to).contains(&one.arrived))
            .map(|one| one.took)
            .max()
    }
}

/// Inserts `count` endpoints at `address`, every 5 s.
async fn add(database: &TestDatabase, address: SocketAddr, count: i64, timeout: Duration) {
    let insert = "insert into endpoints (url, interval_s, timeout_ms) \
                  select $1 || '/e/' || n, 5, $3 from generate_series(1, $2::bigint) n";
    let timeout = i32::try_from(timeout.as_millis()).unwrap();
    database
        .client()
        .await
        .execute(insert, &[&format!("http://{address}"), &count, &timeout])
        .await
        .unwrap();
}

async fn query(database: &TestDatabase, sql: &str) -> Vec<Row> {
    database.client().await.query(sql, &[]).await.unwrap()
}

/// `outcome reason count` of every kind of row there is, for messages.
async fn summary(database: &TestDatabase) -> String {
    let sql = "select outcome::text || ' ' || coalesce(reason::text, '-') || case when suspect then ' suspect' else '' end \
               || ' ' || count(*) from metrics group by outcome, reason, suspect order by 1";
    let rows = query(database, sql).await;
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    lines.join(", ")
}
