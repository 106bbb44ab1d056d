//! The bytes of a body, without holding a large one in memory: pieces, each repeated so many times.

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::Bytes;

/// Of the block that filler repeats.
const FILLER_BLOCK: usize = 64 << 10;

/// Lines of 64 letters and digits, 64 KiB of them.
static FILLER: LazyLock<Bytes> = LazyLock::new(|| {
    const LINE: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-\n";
    LINE.repeat(FILLER_BLOCK / LINE.len()).into()
});

/// Some bytes, so many times.
#[derive(Clone, Debug)]
pub(super) struct Part {
    bytes: Bytes,
    times: u64,
}

impl Part {
    pub(super) fn once(bytes: Bytes) -> Self {
        Self { bytes, times: 1 }
    }

    pub(super) fn repeated(bytes: Bytes, times: u64) -> Self {
        Self { bytes, times }
    }
}

/// A body, read piece by piece.
#[derive(Clone, Debug, Default)]
pub(super) struct Payload {
    parts: VecDeque<Part>,
    /// Of the front part's bytes.
    offset: usize,
    /// Bytes still to come; `None` when there is no end.
    left: Option<u64>,
}

impl Payload {
    /// One after the other.
    pub(super) fn of(parts: Vec<Part>) -> Self {
        let length = |part: &Part| part.bytes.len() as u64 * part.times;
        Self {
            left: Some(parts.iter().map(length).sum()),
            parts: parts.into(),
            offset: 0,
        }
    }

    /// `body`, cut or followed by filler up to `size` bytes.
    pub(super) fn filled(body: Bytes, size: u64) -> Self {
        // At least one block, and enough for any size.
        let blocks = size / FILLER_BLOCK as u64 + 1;
        let parts = vec![Part::once(body), Part::repeated(FILLER.clone(), blocks)];
        Self::of(parts).cut(size)
    }

    /// `body`, then filler for ever.
    pub(super) fn endless(body: Bytes) -> Self {
        let parts = [Part::once(body), Part::repeated(FILLER.clone(), u64::MAX)];
        Self {
            parts: parts.into(),
            offset: 0,
            left: None,
        }
    }

    /// The first `length` bytes of it.
    pub(super) fn cut(mut self, length: u64) -> Self {
        self.left = Some(self.left.map_or(length, |left| left.min(length)));
        self
    }

    /// Bytes still to come; `None` when there is no end.
    pub(super) fn left(&self) -> Option<u64> {
        self.left
    }

    /// The next bytes, at most `max` (not 0) of them; `None` at the end. Shares memory, copies nothing.
    pub(super) fn next(&mut self, max: usize) -> Option<Bytes> {
        let max = self.left.map_or(max, |left| left.min(max as u64) as usize);
        if max == 0 {
            return None;
        }
        loop {
            let part = self.parts.front_mut()?;
            let rest = part.bytes.len() - self.offset;
            if rest == 0 || part.times == 0 {
                self.offset = 0;
                if part.times <= 1 || part.bytes.is_empty() {
                    self.parts.pop_front();
                } else {
                    part.times -= 1;
                }
                continue;
            }
            let taken = rest.min(max);
            let piece = part.bytes.slice(self.offset..self.offset + taken);
            self.offset += taken;
            self.left = self.left.map(|left| left - taken as u64);
            return Some(piece);
        }
    }

    /// All of it at once. Only for one that is known to be short.
    pub(super) fn collected(mut self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.left.unwrap_or(0) as usize);
        while let Some(piece) = self.next(FILLER_BLOCK) {
            all.extend_from_slice(&piece);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_add_up_to_the_parts() {
        let parts = || {
            vec![
                Part::once(Bytes::from_static(b"ab")),
                Part::repeated(Bytes::from_static(b"xyz"), 3),
                Part::once(Bytes::new()),
                Part::once(Bytes::from_static(b"!")),
            ]
        };
        for max in 1..8 {
            let mut payload = Payload::of(parts());
            assert_eq!(payload.left(), Some(12));
            let mut all = Vec::new();
            while let Some(piece) = payload.next(max) {
                assert!(!piece.is_empty() && piece.len() <= max);
                all.extend_from_slice(&piece);
            }
            assert_eq!(all, b"abxyzxyzxyz!");
            assert_eq!(payload.left(), Some(0));
        }
        assert_eq!(Payload::of(parts()).cut(4).collected(), b"abxy");
    }

    #[test]
    fn filler_follows_the_body_up_to_the_size() {
        let filled = |size| Payload::filled(Bytes::from_static(b"hello "), size).collected();
        assert_eq!(filled(3), b"hel");
        assert_eq!(filled(9), b"hello abc");
        assert_eq!(filled(200_000).len(), 200_000);
        let mut endless = Payload::endless(Bytes::new());
        assert_eq!(endless.left(), None);
        assert!((0..1_000).all(|_| endless.next(1 << 20).is_some()));
    }
}
