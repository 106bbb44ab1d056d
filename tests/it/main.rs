//! Integration and process tests: real sockets, real TLS, a real TimescaleDB.
//!
//! Those that need the database take `WATCHER_TEST_DATABASE_URL` (a superuser's; `scripts/test` sets it) and make a
//! database of their own in it.

mod architecture;
mod chaos_proxy;
mod endpoints_cli;
mod own_trouble;
mod plan;
mod pooler;
mod probe_denied;
mod probe_hostile;
mod probe_http;
mod probe_match;
mod probe_tls;
mod process;
mod process_arms;
mod process_hostile;
mod process_outage;
mod rotation;
mod spool;
mod store_audit;
mod store_catalog;
mod store_compare;
mod store_faults;
mod store_refused;
mod store_roles;
mod store_schema;
mod store_write;
mod support;
mod target;
