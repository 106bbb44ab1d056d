//! `watcher migrate` and `watcher wait-db`.
