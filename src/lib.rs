//! watcher: an async metrics agent that probes endpoints on a grid and accounts for every due probe in SQL.
//!
//! # The straight line
//!
//! ```text
//! endpoints table
//!   → pipeline::catalog      rows → checked endpoints; a bad row becomes a problem its owner can read
//!   → domain::Schedule       due ticks, exact points of each endpoint's grid
//!   → pipeline::worker       a probe for each, or a skipped sample with the reason
//!   → probe::Prober          always a sample; failure is an outcome
//!   → pipeline::buffer       the lock-free queue between the probe thread and the keeper thread
//!   → pipeline::keeper       batches → store, once each
//!   → hypertable metrics → views
//! ```
//!
//! `app::up` is the container's process: it migrates, starts one `app::agent` per core, and serves health and metrics.
//!
//! # Ranks
//!
//! A module uses only modules of a lower rank (`tests/it/architecture.rs` checks it):
//!
//! | rank | modules | own |
//! |---|---|---|
//! | 0 | [`domain`] | values, rules, state machines; no I/O, no async, no clock |
//! | 1 | [`config`] | text and environment → domain values, all problems at once |
//! | 2 | [`telemetry`] | one function per fact; exporters |
//! | 3 | [`net`], [`spool`] | resolve, connect, TLS, metering of bytes and CPU; durable overflow |
//! | 4 | [`probe`], [`store`] | the edges: targets, database |
//! | 5 | [`pipeline`] | catalog, worker, buffer, keeper, ledger |
//! | 6 | [`api`], [`target`] | the HTTP surface; the scriptable server of tests and demos |
//! | 7 | [`app`] | wiring, supervision, shutdown |
//! | 8 | [`cli`] | arguments, exit codes |
//!
//! # Invariants
//!
//! * A sample's identity is (endpoint, location, grid point). Whatever is sent twice is stored once.
//! * Every due tick leaves exactly one sample, or lies in a gap that the database can name.
//! * The agent's own faults are `skipped`, never `down`.
//! * Nothing that can block runs on the probe thread: no disk, no database, no unbounded pattern.
//! * Every queue is bounded, says what happens when it is full, and counts it.
//! * `domain` never names tokio; `pipeline` never names PostgreSQL; no label or log line carries a URL's secret.
//! * A keeper never abandons a write half way: closing the buffer ends it, nothing else does.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod net;
pub mod pipeline;
pub mod probe;
pub mod spool;
pub mod store;
pub mod target;
pub mod telemetry;
