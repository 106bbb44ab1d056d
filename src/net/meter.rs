//! Bytes and CPU time.
