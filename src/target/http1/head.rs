//! Reading a request off the wire. Our own few lines, because the oracle has to show what came, odd or not, and because
//! the common request must not allocate.

use std::io;

use http::{Method, Version};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::super::answer::Request;

/// A longer head is refused with 431.
pub(super) const HEAD_MAX: usize = 64 << 10;
/// Of a request's body that is kept for `echo`; the rest is read and forgotten.
pub(super) const BODY_KEPT_MAX: usize = 1 << 20;

/// How the end of a request's body is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// A request head, borrowed from the bytes it was read from.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) method: Method,
    pub(super) target: &'a str,
    pub(super) version: Version,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    lines: &'a [u8],
}

impl<'a> Head<'a> {
    /// `bytes` up to and with the empty line. `None` when it is no HTTP/1 request.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (first, lines) = split_line(bytes)?;
        let mut words = std::str::from_utf8(first).ok()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let version = match version {
            "HTTP/1.1" => Version::HTTP_11,
            "HTTP/1.0" => Version::HTTP_10,
            _ => return None,
        };
        let mut head = Self {
            method: Method::from_bytes(method.as_bytes()).ok()?,
            target,
            version,
            framing: Framing::None,
            keep_alive: version == Version::HTTP_11,
            expects_continue: false,
            lines,
        };
        for (name, value) in head.headers() {
            // Few names have these lengths; comparing them first keeps the common head cheap.
            match name.len() {
                6 if name.eq_ignore_ascii_case(b"expect") => head.expects_continue = true,
                10 if name.eq_ignore_ascii_case(b"connection") => {
                    if value.eq_ignore_ascii_case(b"close") {
                        head.keep_alive = false;
                    } else if value.eq_ignore_ascii_case(b"keep-alive") {
                        head.keep_alive = true;
                    }
                }
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    let length = std::str::from_utf8(value).ok()?.parse().ok()?;
                    if head.framing == Framing::None {
                        head.framing = Framing::Length(length);
                    }
                }
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                    head.framing = Framing::Chunked;
                }
                _ => {}
            }
        }
        Some(head)
    }

    /// Names as sent, values trimmed. Lines without a colon are passed over.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = self.lines;
        std::iter::from_fn(move || {
            loop {
                let (line, next) = split_line(rest)?;
                rest = next;
                if let Some(colon) = line.iter().position(|byte| *byte == b':') {
                    return Some((&line[..colon], line[colon + 1..].trim_ascii()));
                }
            }
        })
    }

    pub(super) fn to_request(&self) -> Request {
        let owned = |(name, value): (&[u8], &[u8])| {
            (String::from_utf8_lossy(name).into_owned(), value.to_vec())
        };
        Request {
            method: self.method.clone(),
            version: self.version,
            target: self.target.to_owned(),
            headers: self.headers().map(owned).collect(),
            body: Vec::new(),
        }
    }
}

/// The length of a head with its empty line, once all of it is there.
pub(super) fn head_end(bytes: &[u8]) -> Option<usize> {
    // The usual case: one head and nothing after it.
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == b'\n') {
        let end = from + at + 1;
        if bytes[end..].starts_with(b"\r\n") {
            return Some(end + 2);
        }
        from = end;
    }
    None
}

/// Reads a body of which `buffer` may hold the beginning; what follows the body stays in `buffer`.
pub(super) async fn read_body<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    framing: Framing,
) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    match framing {
        Framing::None => {}
        Framing::Length(length) => take(stream, buffer, length, &mut body).await?,
        Framing::Chunked => loop {
            let line = line(stream, buffer).await?;
            let digits = line.split(|byte| *byte == b';').next().unwrap_or(&[]);
            let length = std::str::from_utf8(digits.trim_ascii())
                .ok()
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .ok_or(io::ErrorKind::InvalidData)?;
            if length == 0 {
                // Trailers, up to the empty line.
                while !self::line(stream, buffer).await?.trim_ascii().is_empty() {}
                break;
            }
            take(stream, buffer, length, &mut body).await?;
            self::line(stream, buffer).await?;
        },
    }
    Ok(body)
}

async fn take<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    mut length: u64,
    body: &mut Vec<u8>,
) -> io::Result<()> {
    while length > 0 {
        fill_if_empty(stream, buffer).await?;
        let taken = length.min(buffer.len() as u64) as usize;
        let kept = taken.min(BODY_KEPT_MAX.saturating_sub(body.len()));
        body.extend_from_slice(&buffer[..kept]);
        buffer.drain(..taken);
        length -= taken as u64;
    }
    Ok(())
}

async fn line<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        fill_if_empty(stream, buffer).await?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(buffer.len(), |end| end + 1);
        line.extend(buffer.drain(..taken));
        if end.is_some() {
            return Ok(line);
        }
        if line.len() > HEAD_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

async fn fill_if_empty<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    if buffer.is_empty() && stream.read_buf(buffer).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// The first line without its end, and what follows. `None` at the empty line.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    (!line.is_empty()).then_some((line, &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_its_framing_and_whether_to_keep_the_connection() {
        let seen = |text: &'static str| {
            let head = Head::parse(text.as_bytes()).unwrap();
            (head.framing, head.keep_alive)
        };
        assert_eq!(
            seen("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            (Framing::None, true)
        );
        assert_eq!(seen("GET / HTTP/1.0\r\n\r\n"), (Framing::None, false));
        assert_eq!(
            seen("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n"),
            (Framing::None, false)
        );
        assert_eq!(
            seen("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n"),
            (Framing::Length(3), true)
        );
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n";
        assert_eq!(seen(chunked), (Framing::Chunked, true));
    }

    #[test]
    fn what_is_no_request_is_none() {
        for text in [
            "\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP/3\r\n\r\n",
            "G\u{1}T / HTTP/1.1\r\n\r\n",
        ] {
            assert!(Head::parse(text.as_bytes()).is_none(), "{text:?}");
        }
        assert!(Head::parse(b"POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n").is_none());
    }

    #[test]
    fn a_head_ends_at_its_empty_line() {
        assert_eq!(head_end(b"GET / HTTP/1.1\r\na: b\r\n\r\nbody"), Some(24));
        assert_eq!(head_end(b"GET / HTTP/1.1\r\na: b\r\n\r"), None);
        assert_eq!(head_end(b""), None);
    }

    #[tokio::test]
    async fn bodies_are_read_across_pieces_and_leave_the_next_request() {
        let read = async |framing, first: &str, rest: &str| {
            let mut buffer = first.as_bytes().to_vec();
            let mut stream = rest.as_bytes();
            let body = read_body(&mut stream, &mut buffer, framing).await;
            buffer.extend_from_slice(stream);
            body.map(|body| [body, buffer].map(|bytes| String::from_utf8(bytes).unwrap()))
        };
        let both = |body: &str, left: &str| [body.to_owned(), left.to_owned()];
        assert_eq!(
            read(Framing::Length(5), "ab", "cdeNEXT").await.unwrap(),
            both("abcde", "NEXT")
        );
        let chunked = read(
            Framing::Chunked,
            "3;x=y\r\nab",
            "c\r\n2\r\nde\r\n0\r\nt: r\r\n\r\nNEXT",
        )
        .await;
        assert_eq!(chunked.unwrap(), both("abcde", "NEXT"));
        assert!(read(Framing::Length(5), "ab", "").await.is_err());
        assert!(read(Framing::Chunked, "zz\r\n", "").await.is_err());
    }
}
