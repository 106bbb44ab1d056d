//! The database's URL: any text is a database or an error, and a password never shows in what either says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watcher::domain::Secret;
use watcher::store::timescale::Database;
use watcher_fuzz::CANARY;

fuzz_target!(|text: &str| {
    // The engine learns the canary from the comparisons, and puts it where it is no password.
    if text.contains(&CANARY[..6]) {
        return;
    }
    told(text);
    // As people write it who do not know of percent-encoding.
    told(&format!("postgres://user:{CANARY}{text}@localhost/watcher"));
    told(&format!("postgres://user:{text}{CANARY}@localhost/watcher"));
});

fn told(url: &str) {
    match Database::from_url(&Secret::new(url)) {
        Ok(database) => {
            let shown = format!(
                "{} {} {}",
                database.name(),
                database.user(),
                database.host()
            );
            assert!(!shown.contains(CANARY), "{url:?}: {shown}");
        }
        Err(error) => {
            let mut shown = format!("{error} {error:?}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                shown += &format!(": {error}");
                cause = error.source();
            }
            assert!(!shown.contains(CANARY), "{url:?}: {shown}");
        }
    }
}
