//! The binary `watcher`.

fn main() {}
