//! Standard output for people and pipes, and progress for those who wait.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::config::Problem;

/// Runs `write` on buffered standard output. A reader that has gone away (`| head`) is not an error.
pub fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// `text` on one line of a terminal: what would move the cursor, recolour, reorder or hide what stands around it is
/// escaped. Names, URLs and messages may hold anything.
pub fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let invisible = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        match c.is_control() || invisible {
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
    }
    shown
}

/// More problems than a person reads; the count says the rest.
const PROBLEMS_SHOWN: usize = 1_000;

/// Prints problems to standard error, one line each, after `label`.
pub fn print_problems(label: &str, problems: &[Problem]) {
    let mut out = io::BufWriter::new(io::stderr().lock());
    for problem in problems.iter().take(PROBLEMS_SHOWN) {
        // Nowhere to report that standard error is gone.
        let _ = writeln!(out, "{label}{}", plain(&problem.to_string()));
    }
    if let Some(more @ 1..) = problems.len().checked_sub(PROBLEMS_SHOWN) {
        let _ = writeln!(out, "{label}… and {more} more");
    }
}

/// How far long work is: a bar on a terminal, a line every few seconds elsewhere, nothing for short work.
pub struct Progress {
    bar: ProgressBar,
    doing: &'static str,
    total: u64,
    told: Instant,
    is_terminal: bool,
}

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Work that ends sooner shows no bar.
const QUIET_FOR: Duration = Duration::from_millis(300);

impl Progress {
    /// Of `total` things, while `doing` (`writing endpoints`).
    pub fn new(doing: &'static str, total: u64) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let bar = ProgressBar::hidden();
        let style =
            ProgressStyle::with_template("{msg} {wide_bar} {human_pos} of {human_len}, {eta}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_length(total);
        bar.set_message(doing);
        Self {
            bar,
            doing,
            total,
            told: Instant::now(),
            is_terminal,
        }
    }

    /// `done` of them are done.
    pub fn at(&mut self, done: u64) {
        let done = done.min(self.total);
        self.bar.set_position(done);
        if self.is_terminal {
            if self.bar.is_hidden() && self.told.elapsed() > QUIET_FOR {
                self.bar
                    .set_draw_target(indicatif::ProgressDrawTarget::stderr());
            }
        } else if self.told.elapsed() > LINE_EVERY {
            self.told = Instant::now();
            eprintln!("{}: {done} of {}", self.doing, self.total);
        }
    }

    /// All of them are.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
