//! `watcher endpoints`.
