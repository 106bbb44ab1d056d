//! Wiring, supervision, shutdown.
