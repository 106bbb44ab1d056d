//! The values of a script that are one of a few.

/// A content coding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Encoding {
    /// RFC 1952.
    Gzip,
    /// The zlib format, which HTTP calls deflate.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    pub(super) fn named(text: &str) -> Option<Self> {
        match text {
            "gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "br" => Some(Self::Brotli),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// As in `content-encoding`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// Where in an answer a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Point {
    /// The request has arrived; nothing is answered.
    Accept,
    /// Half of the head is sent.
    Head,
    /// The head and half of the body are sent.
    Body,
    /// The whole answer is sent.
    End,
}

impl Point {
    pub(super) fn named(text: &str) -> Option<Self> {
        match text {
            "accept" => Some(Self::Accept),
            "head" => Some(Self::Head),
            "body" => Some(Self::Body),
            "end" => Some(Self::End),
            _ => None,
        }
    }
}

/// How a connection ends before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// RST, by SO_LINGER 0.
    Reset,
    /// FIN; within TLS without `close_notify`.
    Close,
    /// Nothing more is sent; ends when the peer leaves.
    Hang,
}

/// A content length that is not the body's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lie {
    /// 100 bytes more than the body has.
    Long,
    /// Half of what the body has.
    Short,
}

impl Lie {
    pub(super) fn named(text: &str) -> Option<Self> {
        match text {
            "length" => Some(Self::Long),
            "short" => Some(Self::Short),
            _ => None,
        }
    }
}

/// What only HTTP/2 can do to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum H2Fault {
    /// GOAWAY with last stream 0, then the connection closes.
    Goaway,
    /// RST_STREAM.
    Reset,
}

impl H2Fault {
    pub(super) fn named(text: &str) -> Option<Self> {
        match text {
            "goaway" => Some(Self::Goaway),
            "reset" => Some(Self::Reset),
            _ => None,
        }
    }
}

/// A run of requests with one outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Turn {
    /// Whether the endpoint is well.
    pub(super) up: bool,
    /// For so many requests, at least one.
    pub(super) requests: u64,
}

impl Turn {
    /// `up:3`, `down:2`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (name, requests) = text.split_once(':')?;
        let up = match name {
            "up" => true,
            "down" => false,
            _ => return None,
        };
        let requests = requests.parse().ok().filter(|count| *count > 0)?;
        Some(Self { up, requests })
    }
}
