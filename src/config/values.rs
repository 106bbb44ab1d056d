//! Single values as people write them: durations, sizes, counts, status ranges, addresses.
//!
//! Each function takes the text and gives the value, or a message that names the text and says what to write instead.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use crate::domain::{PinnedAddress, StatusRanges};

/// Longer texts are cut in messages: a megabyte URL must not become a megabyte of log.
const SHOWN_CHARS: usize = 60;

/// `text` for a message: control characters escaped, cut after 60 characters.
pub(crate) fn shortened(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(SHOWN_CHARS) {
        if c.is_control() || is_invisible(c) {
            let _ = write!(shown, "{}", c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    if text.chars().nth(SHOWN_CHARS).is_some() {
        let _ = write!(shown, "… ({} bytes)", text.len());
    }
    shown
}

/// Characters that reorder or hide what is printed around them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// `unknown key`, with the nearest known one.
pub(crate) fn unknown_key(key: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(key, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8 && key.len() < 100)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, candidate)) => format!("unknown key; did you mean `{candidate}`?"),
        None => format!("unknown key; known are {}", known.join(", ")),
    }
}

pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Ok(true),
        "false" | "no" | "off" => Ok(false),
        _ => Err(format!("`{}` is neither true nor false", shortened(text))),
    }
}

/// A whole number within `least..=most`.
pub(crate) fn count(text: &str, least: i64, most: i64) -> Result<i64, String> {
    text.trim()
        .parse()
        .ok()
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(|| {
            format!(
                "`{}` is not a whole number from {least} to {most}",
                shortened(text)
            )
        })
}

/// A duration in milliseconds: `30s`, `1m30s`, `250ms`, or a number of seconds.
pub(crate) fn millis(text: &str) -> Result<i32, String> {
    let refused = || {
        format!(
            "`{}` is not a duration; write e.g. 30s, 250ms or 1m30s",
            shortened(text)
        )
    };
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return rounded_millis(seconds * 1_000.0).ok_or_else(refused);
    }
    let duration: jiff::SignedDuration = text.parse().map_err(|_| refused())?;
    if duration.subsec_nanos() % 1_000_000 != 0 {
        return Err(format!(
            "`{}` is finer than a millisecond; round it",
            shortened(text)
        ));
    }
    i32::try_from(duration.as_millis()).map_err(|_| refused())
}

fn rounded_millis(millis: f64) -> Option<i32> {
    (millis.is_finite() && millis.abs() < f64::from(i32::MAX)).then_some(millis.round() as i32)
}

/// A duration in whole seconds: `30s`, `5m`, or a number.
pub(crate) fn whole_seconds(text: &str) -> Result<i32, String> {
    let millis = millis(text)?;
    if millis % 1_000 != 0 {
        return Err(format!(
            "`{}` is not a whole number of seconds",
            shortened(text)
        ));
    }
    Ok(millis / 1_000)
}

/// Whole days: `14d`, `2w`, `336h`, or a number of days.
pub(crate) fn days(text: &str) -> Result<i32, String> {
    let refused = || {
        format!(
            "`{}` is not a number of days; write e.g. 14d",
            shortened(text)
        )
    };
    let text = text.trim();
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: i32 = text[..unit_at].parse().map_err(|_| refused())?;
    match text[unit_at..].trim() {
        "" | "d" | "day" | "days" => Ok(number),
        "w" | "week" | "weeks" => number.checked_mul(7).ok_or_else(refused),
        "h" | "hours" if number % 24 == 0 => Ok(number / 24),
        _ => Err(refused()),
    }
}

/// A size in bytes: `1MiB`, `512 KiB`, `200kB`, or a number.
pub(crate) fn byte_count(text: &str) -> Result<u32, String> {
    let refused = || {
        format!(
            "`{}` is not a size; write e.g. 1MiB, 512KiB or a number of bytes",
            shortened(text)
        )
    };
    let text = text.trim();
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..unit_at].parse().map_err(|_| refused())?;
    let unit = match text[unit_at..].trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(refused()),
    };
    number
        .checked_mul(unit)
        .and_then(|bytes| u32::try_from(bytes).ok())
        .ok_or_else(refused)
}

/// One of the ranges of expected statuses: `200-299` or `301`.
pub(crate) fn status_range(text: &str) -> Result<(u16, u16), String> {
    let code = |part: &str| {
        part.trim()
            .parse::<u16>()
            .ok()
            .filter(|code| (100..=999).contains(code))
    };
    let range = match text.split_once(['-', '–']) {
        Some((low, high)) => code(low).zip(code(high)),
        None => code(text).map(|code| (code, code)),
    };
    match range {
        Some((low, high)) if low <= high => Ok((low, high)),
        Some((low, high)) => Err(format!("`{low}-{high}` is empty; write {high}-{low}")),
        None => Err(format!(
            "`{}` is not a status or a range of them; write e.g. 301 or 200-299",
            shortened(text)
        )),
    }
}

/// Ranges in order, overlapping ones merged, so that equal sets are equal values.
pub(crate) fn status_ranges(mut ranges: Vec<(u16, u16)>) -> StatusRanges {
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
    for (low, high) in ranges {
        match merged.last_mut() {
            Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
            _ => merged.push((low, high)),
        }
    }
    StatusRanges(merged.into_boxed_slice())
}

/// `192.0.2.1`, `192.0.2.1:8080`, `2001:db8::1` or `[2001:db8::1]:8080`.
pub(crate) fn pinned_address(text: &str) -> Result<PinnedAddress, String> {
    let text = text.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(PinnedAddress { ip, port: None });
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            Err("has port 0; write the port to dial, or leave it out".to_owned())
        }
        Ok(address) => Ok(PinnedAddress {
            ip: address.ip(),
            port: Some(address.port()),
        }),
        Err(_) => Err(format!(
            "`{}` is not an address; write e.g. 192.0.2.1, 192.0.2.1:8080 or [2001:db8::1]:8080",
            shortened(text)
        )),
    }
}

/// The one of `choices` that `text` names.
pub(crate) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    choices
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text.trim()))
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            format!(
                "`{}` is unknown; write one of {}",
                shortened(text),
                names.join(", ")
            )
        })
}

/// Milliseconds as [`millis`] reads them: `30s`, `250ms`.
pub(crate) fn written_millis(millis: i32) -> String {
    if millis % 1_000 == 0 {
        format!("{}s", millis / 1_000)
    } else {
        format!("{millis}ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, expected) in [
            ("30s", 30_000),
            ("30", 30_000),
            ("2.5", 2_500),
            ("250ms", 250),
            ("1m30s", 90_000),
            ("5m", 300_000),
            ("1.5s", 1_500),
            ("-3s", -3_000),
        ] {
            assert_eq!(millis(text), Ok(expected), "{text}");
        }
        for text in ["", "soon", "30 parsecs", "1e99", "NaN", "1us", "99999999h"] {
            assert!(millis(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_days_and_ranges() {
        assert_eq!(byte_count("1MiB"), Ok(1 << 20));
        assert_eq!(byte_count("512 KiB"), Ok(512 << 10));
        assert_eq!(byte_count("1500"), Ok(1_500));
        assert!(byte_count("8GiB").is_err() && byte_count("MiB").is_err());
        assert_eq!(days("14d"), Ok(14));
        assert_eq!(days("2w"), Ok(14));
        assert_eq!(days("48h"), Ok(2));
        assert!(days("25h").is_err() && days("-1").is_err());
        assert_eq!(status_range("200-299"), Ok((200, 299)));
        assert_eq!(
            *status_ranges(vec![(301, 301), (200, 250), (240, 299), (300, 300)]).0,
            [(200, 301)]
        );
        for text in ["20", "299-200", "2xx", "200-", ""] {
            assert!(status_range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn long_and_hostile_texts_are_shown_short_and_plain() {
        assert_eq!(
            shortened(&"x".repeat(1 << 20)),
            format!("{}… (1048576 bytes)", "x".repeat(60))
        );
        assert_eq!(
            shortened("a\u{1b}[31m\nb\u{202e}"),
            r"a\u{1b}[31m\u{a}b\u{202e}"
        );
    }
}
