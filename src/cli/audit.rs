//! `watcher audit`.
