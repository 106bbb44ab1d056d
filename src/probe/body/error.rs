//! What can be wrong with an encoded body.

use std::io;

/// Why a body could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The content encoding is none of gzip, deflate, br, zstd and identity.
    #[error("unknown content encoding {encoding:?}")]
    Unknown {
        /// As named by the server, cut to 32 characters.
        encoding: Box<str>,
    },
    /// More encodings in a row than are undone.
    #[error("more than {encodings_max} content encodings in a row")]
    TooMany {
        /// The most undone.
        encodings_max: usize,
    },
    /// The stream is not what its encoding says.
    #[error("damaged {encoding} body")]
    Damaged {
        /// The encoding.
        encoding: &'static str,
        /// What the decoder said.
        #[source]
        source: DecodeFault,
    },
    /// The body ended inside the stream.
    #[error("the {encoding} body ends early")]
    Truncated {
        /// The encoding.
        encoding: &'static str,
    },
    /// A decoder could not be set up.
    #[error("set up a {encoding} decoder")]
    Setup {
        /// The encoding.
        encoding: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a decoder said.
#[derive(Debug, thiserror::Error)]
pub enum DecodeFault {
    /// Of gzip and deflate.
    #[error(transparent)]
    Inflate(#[from] flate2::DecompressError),
    /// Of zstd.
    #[error(transparent)]
    Zstd(#[from] io::Error),
    /// Of brotli, which has numbers only.
    #[error("brotli error {0}")]
    Brotli(i32),
    /// The stream consists of too many members with next to nothing in them.
    #[error("more than {0} members")]
    Members(u32),
    /// The decoder neither read nor wrote: its input makes no sense to it.
    #[error("no progress")]
    Stalled,
}

impl DecodeError {
    pub(super) fn unknown(name: &[u8]) -> Self {
        let encoding: String = String::from_utf8_lossy(name).chars().take(32).collect();
        Self::Unknown {
            encoding: encoding.into(),
        }
    }
}
