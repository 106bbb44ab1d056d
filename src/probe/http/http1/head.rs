//! The head of an HTTP/1 response: parsed, and what it means for the body and for the connection (RFC 9112, 6.3 and 9.3).

use std::mem::MaybeUninit;

use ::http::StatusCode;
use httparse::{ParserConfig, Response, Status};

use super::framing::Framing;
use crate::probe::http::head::Head;

/// Fields of a head; servers and proxies that say a number themselves take 100.
const FIELDS_MAX: usize = 100;

/// Why a head cannot be right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(in crate::probe) enum HeadError {
    /// By the parser.
    #[error(transparent)]
    Syntax(#[from] httparse::Error),
    /// A status below 100.
    #[error("no status code")]
    Status,
    /// Not a number, or several that differ.
    #[error("invalid Content-Length")]
    ContentLength,
    /// HTTP/1.0 knows no transfer encodings.
    #[error("Transfer-Encoding in an HTTP/1.0 response")]
    TransferEncoding,
}

/// A whole head.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) head: Head,
    /// Its length.
    pub(super) bytes: usize,
    pub(super) framing: Framing,
    /// Whether the connection stays open after the body.
    pub(super) keeps: bool,
}

impl Parsed {
    /// Whether another head follows: of an answer before the answer. To switch protocols was not asked for, so that is a
    /// last one.
    pub(super) fn is_interim(&self) -> bool {
        let status = self.head.status;
        status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// What the fields say of body and connection.
#[derive(Default)]
struct Said {
    length: Option<Result<u64, HeadError>>,
    has_transfer_encoding: bool,
    is_chunked: bool,
    close: bool,
    keep_alive: bool,
}

/// The head at the beginning of `input`; `None` while it is not whole. `to_head`: it answers a HEAD.
pub(super) fn parse(input: &[u8], to_head: bool) -> Result<Option<Parsed>, HeadError> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut response = Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        input,
        &mut fields,
    )?;
    let (Status::Complete(bytes), Some(minor), Some(code)) =
        (parsed, response.version, response.code)
    else {
        return Ok(None);
    };
    let status = StatusCode::from_u16(code).map_err(|_| HeadError::Status)?;
    let mut head = Head::new(status, 10 + minor);
    let mut said = Said::default();
    for field in response.headers.iter() {
        said.hear(field.name, field.value, &mut head);
    }
    let framing = if to_head || is_bodiless(status) {
        Framing::NONE
    } else {
        said.framing(minor)?
    };
    if let Framing::Length(length) = framing {
        head.body_bytes = Some(length);
    }
    let is_persistent = if minor == 0 {
        said.keep_alive
    } else {
        !said.close
    };
    // A response with both lengths is one that two parsers may understand in two ways.
    let is_ambiguous = said.has_transfer_encoding && said.length.is_some();
    Ok(Some(Parsed {
        keeps: is_persistent && !is_ambiguous && !matches!(framing, Framing::ToTheEnd),
        head,
        bytes,
        framing,
    }))
}

/// Statuses whose responses have no body, whatever their fields say.
fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

impl Said {
    fn hear(&mut self, name: &str, value: &[u8], head: &mut Head) {
        let is = |expected: &str| name.eq_ignore_ascii_case(expected);
        // Most fields are told by their length.
        match name.len() {
            8 if is("location") => head.location = head.location.take().or(Some(value.into())),
            10 if is("connection") => {
                for option in list(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if is("content-length") => {
                for text in value.split(|&byte| byte == b',') {
                    let length = number(text.trim_ascii()).ok_or(HeadError::ContentLength);
                    let is_other = self.length.is_some_and(|before| before != length);
                    self.length = Some(if is_other {
                        Err(HeadError::ContentLength)
                    } else {
                        length
                    });
                }
            }
            16 if is("content-encoding") => head.encodings.push(value.into()),
            17 if is("transfer-encoding") => {
                self.has_transfer_encoding = true;
                // What comes last is what frames the body.
                let last = list(value).last();
                self.is_chunked =
                    last.is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
            }
            _ => {}
        }
    }

    /// Of a response that may have a body.
    fn framing(&self, minor: u8) -> Result<Framing, HeadError> {
        if self.has_transfer_encoding && minor == 0 {
            return Err(HeadError::TransferEncoding);
        }
        Ok(match self.length {
            _ if self.is_chunked => Framing::chunked(),
            _ if self.has_transfer_encoding => Framing::ToTheEnd,
            Some(length) => Framing::Length(length?),
            None => Framing::ToTheEnd,
        })
    }
}

/// The members of a list; empty ones are none.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// Digits and nothing else.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Parsed {
        let text = format!("{text}\r\n\r\n");
        let parsed = parse(text.as_bytes(), false).unwrap().expect("whole");
        assert_eq!(parsed.bytes, text.len());
        parsed
    }

    fn refused(text: &str) -> HeadError {
        parse(format!("{text}\r\n\r\n").as_bytes(), false).expect_err(text)
    }

    #[test]
    fn a_head_is_read_whole_or_not_at_all() {
        let text = b"HTTP/1.1 301 Moved\r\nLocation: /a\r\nlocation: /b\r\nCONTENT-LENGTH: 12\r\n\
            content-encoding: gzip\r\nContent-Encoding: br\r\n\r\nbody";
        for end in 0..text.len() - 4 {
            assert!(parse(&text[..end], false).unwrap().is_none(), "{end}");
        }
        let parsed = parse(text, false).unwrap().expect("whole");
        assert_eq!(parsed.bytes, text.len() - 4);
        assert_eq!(parsed.head.status, StatusCode::MOVED_PERMANENTLY);
        assert_eq!(parsed.head.http_version, 11);
        assert_eq!(parsed.head.location.as_deref(), Some(&b"/a"[..]));
        let encodings: Vec<&[u8]> = parsed.head.encodings.iter().map(|e| &**e).collect();
        assert_eq!(encodings, [&b"gzip"[..], b"br"]);
        assert_eq!(parsed.head.body_bytes, Some(12));
    }

    #[test]
    fn the_body_is_framed_as_the_standard_says() {
        for (text, framing) in [
            ("HTTP/1.1 200 OK", Framing::ToTheEnd),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5", Framing::Length(5)),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\ncontent-length: 5",
                Framing::Length(5),
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, Chunked",
                Framing::chunked(),
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked",
                Framing::chunked(),
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip",
                Framing::ToTheEnd,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: gzip",
                Framing::ToTheEnd,
            ),
            ("HTTP/1.1 204 No\r\ncontent-length: 5", Framing::NONE),
            (
                "HTTP/1.1 304 No\r\ntransfer-encoding: chunked",
                Framing::NONE,
            ),
            ("HTTP/1.1 101 Switch", Framing::NONE),
        ] {
            assert_eq!(head(text).framing, framing, "{text}");
        }
        let to_head = parse(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", true);
        assert_eq!(to_head.unwrap().unwrap().framing, Framing::NONE);
    }

    #[test]
    fn a_connection_stays_where_both_sides_know_where_the_body_ends() {
        for (text, keeps) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5", true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked", true),
            ("HTTP/1.1 200 OK", false),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: x, Close",
                false,
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5", false),
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked",
                false,
            ),
        ] {
            assert_eq!(head(text).keeps, keeps, "{text}");
        }
    }

    #[test]
    fn answers_before_the_answer_are_told_from_it() {
        assert!(head("HTTP/1.1 100 Continue").is_interim());
        assert!(head("HTTP/1.1 103 Early Hints\r\nlink: </a>").is_interim());
        assert!(!head("HTTP/1.1 101 Switching Protocols").is_interim());
        assert!(!head("HTTP/1.1 200 OK").is_interim());
    }

    #[test]
    fn heads_that_cannot_be_right_are_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6",
            "HTTP/1.1 200 OK\r\ncontent-length: 5, 6",
            "HTTP/1.1 200 OK\r\ncontent-length: +5",
            "HTTP/1.1 200 OK\r\ncontent-length: ",
            "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616",
        ] {
            assert_eq!(refused(text), HeadError::ContentLength, "{text}");
        }
        let te = refused("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked");
        assert_eq!(te, HeadError::TransferEncoding);
        assert_eq!(refused("HTTP/1.1 099 Low"), HeadError::Status);
        for text in [
            "HTTP/1.1 2000 OK",
            "HTTP/3.7 200 OK",
            "HTTP/1.1 200 OK\r\nbad name: x",
            "HTTP/1.1 200 OK\r\n folded: x",
            "SSH-2.0-OpenSSH_9.2p1",
        ] {
            assert!(matches!(refused(text), HeadError::Syntax(_)), "{text}");
        }
        let many = format!("HTTP/1.1 200 OK{}", "\r\nx: y".repeat(101));
        let too_many = HeadError::Syntax(httparse::Error::TooManyHeaders);
        assert_eq!(refused(&many), too_many);
    }
}
