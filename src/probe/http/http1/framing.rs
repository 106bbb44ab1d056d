//! Where an HTTP/1 body ends, and what of the bytes is its content (RFC 9112, 6 and 7).

/// Bytes that the extensions of all chunks of a body may take, and likewise its trailer: both are read and ignored.
const IGNORED_BYTES_MAX: u32 = 16 * 1024;

/// Why chunks cannot be right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(in crate::probe) enum ChunkError {
    /// No digits, other characters, or a number above 64 bits.
    #[error("invalid chunk size")]
    Size,
    /// A line that ends otherwise than by CR LF.
    #[error("invalid end of line in chunked body")]
    LineEnd,
    /// Above 16 KiB.
    #[error("too much beside the content of a chunked body")]
    Ignored,
}

/// How a body is delimited, and how much of it is still to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// What comes until the connection ends.
    ToTheEnd,
}

/// Place in a chunked body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Chunked {
    at: At,
    /// What may still be ignored.
    ignorable: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// In the digits of a size; none yet where `None`.
    Size(Option<u64>),
    /// In what follows the size, which is this.
    Extension(u64),
    /// Before the LF that ends the line of this size.
    SizeLf(u64),
    /// In the content, with so much of it left.
    Content(u64),
    ContentCr,
    ContentLf,
    /// At the beginning of a line of the trailer, or in it.
    Trailer {
        empty: bool,
    },
    TrailerLf {
        empty: bool,
    },
    End,
}

impl Framing {
    /// No body.
    pub(super) const NONE: Self = Self::Length(0);

    /// At the beginning of the first chunk.
    pub(super) const fn chunked() -> Self {
        Self::Chunked(Chunked {
            at: At::Size(None),
            ignorable: IGNORED_BYTES_MAX,
        })
    }

    /// Whether all of the body has been seen. One that ends with the connection never has.
    pub(super) fn is_complete(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.at == At::End,
            Self::ToTheEnd => false,
        }
    }

    /// Takes the next piece of content off `input`, and what of the framing is before it. `None` when all of `input` has
    /// been taken, or the body is complete.
    pub(super) fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<&'a [u8]>, ChunkError> {
        let piece = match self {
            Self::Length(left) => take(input, left),
            Self::Chunked(chunked) => chunked.next(input)?,
            Self::ToTheEnd => std::mem::take(input),
        };
        Ok((!piece.is_empty()).then_some(piece))
    }
}

/// As much of `input` as there is, at most what is `left`.
fn take<'a>(input: &mut &'a [u8], left: &mut u64) -> &'a [u8] {
    let count = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    let (piece, rest) = input.split_at(count);
    *input = rest;
    *left -= count as u64;
    piece
}

impl Chunked {
    /// Content, or nothing when the input is used up or the body has ended.
    fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<&'a [u8], ChunkError> {
        while self.at != At::End {
            if let At::Content(left) = &mut self.at {
                let piece = take(input, left);
                if *left == 0 {
                    self.at = At::ContentCr;
                }
                return Ok(piece);
            }
            let Some((&byte, rest)) = input.split_first() else {
                break;
            };
            *input = rest;
            self.at = self.after(byte)?;
        }
        Ok(&[])
    }

    /// The place after a byte that is not content.
    fn after(&mut self, byte: u8) -> Result<At, ChunkError> {
        Ok(match (self.at, byte) {
            (At::Size(size), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (byte as char).to_digit(16).map(u64::from);
                let digit = digit.ok_or(ChunkError::Size)?;
                let size = size.unwrap_or(0).checked_mul(16).ok_or(ChunkError::Size)?;
                At::Size(Some(size + digit))
            }
            (At::Size(Some(size)), b'\r') => At::SizeLf(size),
            (At::Size(Some(size)), b';' | b' ' | b'\t') => At::Extension(size),
            (At::Size(_), _) => return Err(ChunkError::Size),
            (At::Extension(size), b'\r') => At::SizeLf(size),
            (At::SizeLf(0), b'\n') => At::Trailer { empty: true },
            (At::SizeLf(size), b'\n') => At::Content(size),
            (At::ContentCr, b'\r') => At::ContentLf,
            (At::ContentLf, b'\n') => At::Size(None),
            (At::Trailer { empty }, b'\r') => At::TrailerLf { empty },
            (At::TrailerLf { empty: true }, b'\n') => At::End,
            (At::TrailerLf { empty: false }, b'\n') => At::Trailer { empty: true },
            (At::Extension(_) | At::Trailer { .. }, b'\n') => return Err(ChunkError::LineEnd),
            (At::Extension(size), _) => {
                self.ignore()?;
                At::Extension(size)
            }
            (At::Trailer { .. }, _) => {
                self.ignore()?;
                At::Trailer { empty: false }
            }
            _ => return Err(ChunkError::LineEnd),
        })
    }

    fn ignore(&mut self) -> Result<(), ChunkError> {
        let left = self.ignorable.checked_sub(1);
        self.ignorable = left.ok_or(ChunkError::Ignored)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Content, whether it is complete, and how many bytes were not taken.
    fn read(
        mut framing: Framing,
        bytes: &[u8],
        at_a_time: usize,
    ) -> Result<(Vec<u8>, bool, usize), ChunkError> {
        let (mut content, mut left) = (Vec::new(), bytes);
        while !left.is_empty() && !framing.is_complete() {
            let (mut input, rest) = left.split_at(at_a_time.min(left.len()));
            while let Some(piece) = framing.next(&mut input)? {
                content.extend_from_slice(piece);
            }
            left = &left[left.len() - rest.len() - input.len()..];
        }
        Ok((content, framing.is_complete(), left.len()))
    }

    fn chunks(text: &str) -> Result<(Vec<u8>, bool, usize), ChunkError> {
        let whole = read(Framing::chunked(), text.as_bytes(), usize::MAX);
        for at_a_time in [1, 2, 3, 7] {
            let pieces = read(Framing::chunked(), text.as_bytes(), at_a_time);
            assert_eq!(pieces, whole, "{text:?} by {at_a_time}");
        }
        whole
    }

    #[test]
    fn lengths_end_where_they_say() {
        let read = |bytes: &[u8]| read(Framing::Length(5), bytes, 2).unwrap();
        assert_eq!(read(b"hell"), (b"hell".to_vec(), false, 0));
        assert_eq!(read(b"hello"), (b"hello".to_vec(), true, 0));
        assert_eq!(read(b"hello, you"), (b"hello".to_vec(), true, 5));
        assert!(Framing::NONE.is_complete() && !Framing::ToTheEnd.is_complete());
    }

    #[test]
    fn chunks_are_put_together() {
        for (text, content, is_complete, left) in [
            ("5\r\nhello\r\n0\r\n\r\n", "hello", true, 0),
            ("5\r\nhello\r\n0\r\n\r\nHTTP", "hello", true, 4),
            (
                "3\r\nhel\r\n2 ;x=y\r\nlo\r\n00\r\nTrailer: x\r\nb: c\r\n\r\n",
                "hello",
                true,
                0,
            ),
            ("A\r\n0123456789\r\n", "0123456789", false, 0),
            ("0\r\nx: y\r\n", "", false, 0),
            ("5\r\nhell", "hell", false, 0),
            ("ffffffffffffffff\r\nx", "x", false, 0),
        ] {
            let expected = (content.as_bytes().to_vec(), is_complete, left);
            assert_eq!(chunks(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn chunks_that_cannot_be_right_are_refused() {
        for (text, error) in [
            ("zz\r\n", ChunkError::Size),
            ("\r\n", ChunkError::Size),
            (";x\r\n", ChunkError::Size),
            ("-1\r\n", ChunkError::Size),
            ("10000000000000000\r\n", ChunkError::Size),
            ("5\nhello", ChunkError::Size),
            ("5;x\nhello", ChunkError::LineEnd),
            ("5\rhello", ChunkError::LineEnd),
            ("5\r\nhelloXX", ChunkError::LineEnd),
            ("5\r\nhello\rX", ChunkError::LineEnd),
            ("0\r\nx\n", ChunkError::LineEnd),
        ] {
            assert_eq!(chunks(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn what_is_ignored_is_bounded() {
        let long = "x".repeat(IGNORED_BYTES_MAX as usize + 1);
        let by = |text: &str| read(Framing::chunked(), text.as_bytes(), usize::MAX);
        assert_eq!(by(&format!("1;{long}")), Err(ChunkError::Ignored));
        assert_eq!(by(&format!("0\r\n{long}")), Err(ChunkError::Ignored));
        let many = "1;extension\r\nx\r\n".repeat(2_000);
        assert_eq!(by(&many), Err(ChunkError::Ignored));
    }

    proptest! {
        #[test]
        fn any_content_in_any_chunks_comes_out_whole(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..20),
            at_a_time in 1_usize..50,
        ) {
            let mut sent = Vec::new();
            for part in &parts {
                sent.extend(format!("{:x}\r\n", part.len()).into_bytes());
                sent.extend(part);
                sent.extend(b"\r\n");
            }
            sent.extend(b"0\r\n\r\nrest");
            prop_assert_eq!(read(Framing::chunked(), &sent, at_a_time), Ok((parts.concat(), true, 4)));
        }

        #[test]
        fn any_bytes_are_refused_or_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200), at_a_time in 1_usize..50) {
            let whole = read(Framing::chunked(), &bytes, usize::MAX);
            prop_assert_eq!(read(Framing::chunked(), &bytes, at_a_time), whole);
        }
    }
}
