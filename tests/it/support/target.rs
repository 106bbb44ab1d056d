//! A target server in the test's process, on a thread of its own: usable from tests with and without a runtime.

use watcher::target::{Target, TargetOptions};

/// A target on free ports that records; ends when dropped.
pub(crate) fn target() -> Target {
    target_with(TargetOptions::default())
}

/// Likewise, as `options` say.
pub(crate) fn target_with(options: TargetOptions) -> Target {
    // Its own thread, since a runtime cannot be entered from within another one.
    let started = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        Ok::<_, std::io::Error>(runtime.block_on(Target::start(options)))
    });
    let started = started.join().expect("the starting thread ends in order");
    started
        .expect("a runtime")
        .expect("a target on free ports of 127.0.0.1")
}
