//! watcher: an async metrics agent that probes endpoints on a grid and accounts for every due probe in SQL.

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
