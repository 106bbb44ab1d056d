//! The head of a response, by whatever version of HTTP it came: what a probe wants of it.

use ::http::{HeaderMap, StatusCode, header};

/// What a response says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    /// 10, 11 or 20.
    pub(super) http_version: u8,
    /// Where a redirect leads, as sent.
    pub(super) location: Option<Box<[u8]>>,
    /// The values of Content-Encoding, in order.
    pub(super) encodings: Vec<Box<[u8]>>,
    /// How long the body says it is.
    pub(super) body_bytes: Option<u64>,
}

impl Head {
    /// With nothing but a status.
    pub(super) fn new(status: StatusCode, http_version: u8) -> Self {
        Self {
            status,
            http_version,
            location: None,
            encodings: Vec::new(),
            body_bytes: None,
        }
    }

    /// Of an HTTP/2 response.
    pub(super) fn of_http2(status: StatusCode, headers: &HeaderMap) -> Self {
        let length = headers.get(header::CONTENT_LENGTH);
        let encodings = headers.get_all(header::CONTENT_ENCODING).iter();
        Self {
            location: headers
                .get(header::LOCATION)
                .map(|value| value.as_bytes().into()),
            encodings: encodings.map(|value| value.as_bytes().into()).collect(),
            body_bytes: length.and_then(|value| value.to_str().ok()?.parse().ok()),
            ..Self::new(status, 20)
        }
    }
}
