//! The forms that the values of a script take: durations, sizes, paces, percent-encoded text. Pure text in, values out.

use std::time::Duration;

/// Some bytes at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pace {
    /// Bytes of one piece, at least 1.
    pub(super) bytes: u32,
    /// Wait between two pieces.
    pub(super) every: Duration,
}

/// `20ms`, `1.5s`, `100us`, `2m`: a number and its unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let parsed: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(parsed).ok()
}

/// Bytes: `65536`, `64k` (KiB), `16m` (MiB), `2g` (GiB).
pub(super) fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    // `parse` would take a sign.
    let only_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: u64 = only_digits.then(|| digits.parse().ok())??;
    count.checked_mul(1 << shift)
}

/// `1b/100ms`, `4k/1s`, `100b/s`: so many bytes at a time, with such a wait between.
pub(super) fn drip(text: &str) -> Option<Pace> {
    let (bytes, every) = text.split_once('/')?;
    let bytes = size(bytes.strip_suffix(['b', 'B']).unwrap_or(bytes))?;
    let every = if every == "s" {
        Duration::from_secs(1)
    } else {
        duration(every)?
    };
    let bytes = u32::try_from(bytes).ok()?;
    (bytes > 0).then_some(Pace { bytes, every })
}

/// `100b/s`, `1k/s`: the same rate in ten pieces a second, or fewer where a piece would be less than a byte.
pub(super) fn rate(text: &str) -> Option<Pace> {
    let Pace { bytes, every } = drip(text)?;
    let pieces = bytes.min(10);
    Some(Pace {
        bytes: bytes.div_ceil(pieces),
        every: every / pieces,
    })
}

/// `10ms` for one byte at a time, or a pace as [`drip`] reads it.
pub(super) fn head_pace(text: &str) -> Option<Pace> {
    match duration(text) {
        Some(every) => Some(Pace { bytes: 1, every }),
        None => drip(text),
    }
}

/// `+` is a space, `%41` a byte; a `%` that no two hex digits follow stays as it is. The result need not be UTF-8: a
/// script may ask for a body that is not.
pub(super) fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |offset: usize| {
            let byte = *bytes.get(at + offset)?;
            (byte as char).to_digit(16).map(|digit| digit as u8)
        };
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                at += 3;
            }
            (b'+', ..) => {
                decoded.push(b' ');
                at += 1;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

/// RFC 4648, with padding. No crate among the dependencies has it, and `authorization` needs nothing else.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_usize, |group, byte| group << 8 | usize::from(*byte));
        for sextet in 0..4 {
            if sextet <= chunk.len() {
                text.push(ALPHABET[group >> (18 - 6 * sextet) & 63] as char);
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("20ms"), Some(Duration::from_millis(20)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1_500)));
        assert_eq!(duration("100us"), Some(Duration::from_micros(100)));
        for wrong in ["20", "-1s", "", "fast"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_count_in_binary_units() {
        assert_eq!(size("65536"), Some(65_536));
        assert_eq!(size("64k"), Some(65_536));
        assert_eq!(size("2g"), Some(2 << 30));
        for wrong in ["", "k", "-1", "+1", "1.5k", "99999999999g"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_cut_into_at_most_ten_pieces_a_second() {
        let pace = |bytes, millis| {
            Some(Pace {
                bytes,
                every: Duration::from_millis(millis),
            })
        };
        assert_eq!(rate("100b/s"), pace(10, 100));
        assert_eq!(rate("1b/s"), pace(1, 1_000));
        assert_eq!(drip("100b/s"), pace(100, 1_000));
        assert_eq!(drip("1b/100ms"), pace(1, 100));
        assert_eq!(head_pace("10ms"), pace(1, 10));
        assert_eq!(head_pace("3b/10ms"), pace(3, 10));
        assert_eq!(drip("0b/s"), None);
    }

    #[test]
    fn percent_decoding_keeps_any_byte() {
        assert_eq!(percent_decoded("a+b%20c%ff%2"), b"a b c\xff%2");
    }

    #[test]
    fn base64_pads() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("user:pass", "dXNlcjpwYXNz"),
        ] {
            assert_eq!(base64(plain.as_bytes()), text);
        }
    }
}
