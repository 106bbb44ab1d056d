//! `watcher probe`.
