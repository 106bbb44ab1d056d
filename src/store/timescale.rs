//! TimescaleDB.
