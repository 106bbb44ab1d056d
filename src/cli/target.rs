//! `watcher target`.
