//! TimescaleDB.
pub mod endpoints;
