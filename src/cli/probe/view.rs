//! A sample drawn for a person: what it came to, its phases to scale, and what is worth knowing of the answer.

use std::io::{self, IsTerminal, Write};

use crate::cli::output::plain;
use crate::domain::{Endpoint, Outcome, Reason, Sample, Timestamp};
use crate::store::sample_json::instant;

/// What may be drawn on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    /// Columns.
    pub(super) width: usize,
    /// Whether colours and block characters may be used.
    pub(super) is_rich: bool,
}

/// Where the width is not known.
const WIDTH_DEFAULT: usize = 80;
/// Name and duration of a phase, before its bar.
const LABEL_WIDTH: usize = 24;

impl Screen {
    /// Rich on a terminal, unless `NO_COLOR` is set.
    pub(super) fn of_stdout() -> Self {
        let stdout = io::stdout();
        let columns = rustix::termios::tcgetwinsize(&stdout).map(|size| usize::from(size.ws_col));
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            width: columns
                .ok()
                .filter(|&columns| columns > 0)
                .unwrap_or(WIDTH_DEFAULT),
            is_rich: stdout.is_terminal() && !no_color,
        }
    }

    fn painted(self, colour: &str, text: &str) -> String {
        match self.is_rich {
            true => format!("\u{1b}[{colour}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// Draws `sample` of `endpoint`, taken at `now`.
pub(super) fn draw(
    out: &mut dyn Write,
    endpoint: &Endpoint,
    sample: &Sample,
    screen: Screen,
    now: Timestamp,
) -> io::Result<()> {
    writeln!(out, "{}", headline(endpoint, sample, screen))?;
    writeln!(out)?;
    phases(out, sample, screen)?;
    writeln!(out)?;
    for (name, value) in facts(sample, now) {
        writeln!(
            out,
            "  {} {value}",
            screen.painted(DIM, &format!("{name:<12}"))
        )?;
    }
    Ok(())
}

fn headline(endpoint: &Endpoint, sample: &Sample, screen: Screen) -> String {
    let outcome = sample.outcome();
    let colour = match outcome {
        Outcome::Up => GREEN,
        Outcome::Degraded | Outcome::Skipped => YELLOW,
        Outcome::Down => RED,
    };
    let mut line = screen.painted(&format!("{BOLD};{colour}"), outcome.label());
    if let Some(reason) = sample.reason.map(Reason::label) {
        line += &format!(" {}", screen.painted(colour, reason));
    }
    line += &format!("  {}", plain(&endpoint.target.to_string()));
    if let Some(status) = sample.status_code {
        line += &format!("  {status}");
    }
    if let Some(version) = sample.http_version {
        line += match version {
            20 => "  HTTP/2",
            10 => "  HTTP/1.0",
            _ => "  HTTP/1.1",
        };
    }
    if let Some(ip) = sample.remote_ip {
        line += &format!("  {ip}");
    }
    line
}

/// One line a phase, each bar beginning where the one before it ends. What no phase accounts for is the agent's own.
fn phases(out: &mut dyn Write, sample: &Sample, screen: Screen) -> io::Result<()> {
    let p = &sample.phases;
    let phases = [
        ("resolve", p.resolve_us),
        ("connect", p.connect_us),
        ("tls", p.tls_us),
        ("processing", p.processing_us),
        ("transfer", p.transfer_us),
    ];
    let measured: u64 = phases.iter().filter_map(|(_, us)| *us).map(u64::from).sum();
    let total = sample
        .duration_us
        .map_or(measured, u64::from)
        .max(measured)
        .max(1);
    let width = screen.width.saturating_sub(LABEL_WIDTH).clamp(10, 100) as u64;
    let mut begun = 0;
    for (name, us) in phases {
        let Some(us) = us else {
            writeln!(
                out,
                "  {}",
                screen.painted(DIM, &format!("{name:<10} {:>9}", "-"))
            )?;
            continue;
        };
        let bar = bar(begun, u64::from(us), total, width, screen.is_rich);
        begun += u64::from(us);
        writeln!(out, "  {name:<10} {:>9}  {bar}", duration(u64::from(us)))?;
    }
    let total = sample
        .duration_us
        .map_or_else(|| "-".to_owned(), |us| duration(us.into()));
    writeln!(
        out,
        "  {} {total:>9}",
        screen.painted(BOLD, &format!("{:<10}", "total"))
    )
}

/// A bar of `us` after `begun`, `width` columns being `total`. In eighths of a column where block characters may be
/// used; never empty, since the phase did happen.
fn bar(begun: u64, us: u64, total: u64, width: u64, is_rich: bool) -> String {
    if !is_rich {
        let start = (begun * width / total).min(width - 1);
        let end = ((begun + us) * width / total).max(start + 1);
        return " ".repeat(start as usize) + &"#".repeat((end - start) as usize);
    }
    const BLOCKS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
    let start = (begun * width / total).min(width - 1);
    let eighths = ((begun + us) * width * 8 / total)
        .saturating_sub(start * 8)
        .max(1);
    let mut bar = " ".repeat(start as usize) + &"█".repeat((eighths / 8) as usize);
    if let Some(rest @ 1..) = (eighths % 8).checked_sub(0) {
        bar.push(BLOCKS[rest as usize - 1]);
    }
    bar
}

fn facts(sample: &Sample, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(detail) = &sample.detail {
        facts.push(("detail", plain(detail)));
    }
    if let Some(end) = sample.tls_not_after {
        let date = instant(end).unwrap_or_default();
        let micros = end.as_micros().saturating_sub(now.as_micros());
        let days = micros.div_euclid(86_400_000_000);
        let when = match days {
            ..0 => format!("ended {date} ({} days ago)", -days - 1),
            0 => format!("ends {date} (today)"),
            1.. => format!("ends {date} ({days} days left)"),
        };
        facts.push(("certificate", when));
    }
    if let Some(matched) = sample.matched {
        let verdict = if matched {
            "the body passes"
        } else {
            "the body does not pass"
        };
        facts.push(("patterns", verdict.to_owned()));
    }
    if sample.hops > 0 {
        facts.push(("redirects", sample.hops.to_string()));
    }
    facts.push((
        "size",
        format!(
            "{} sent, {} received",
            bytes(sample.bytes_sent.into()),
            bytes(sample.bytes_received.into())
        ),
    ));
    let error = sample
        .error_us
        .map(|us| format!(", error below {}", duration(us.into())));
    facts.push((
        "agent",
        format!(
            "{} of CPU{}{}",
            duration(sample.cpu_us.into()),
            error.unwrap_or_default(),
            if sample.suspect { ", suspect" } else { "" }
        ),
    ));
    facts
}

fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1_024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
