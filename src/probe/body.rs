//! Bodies as sent → bodies as judged: content encodings undone chunk by chunk, within a cap.
//!
//! A decoder owns its output and one decoder per encoding, and never produces more than the cap in any of them, so a
//! bomb costs at most the cap in memory and, per encoding, the time to decode that much. No I/O and no clock here.

mod codec;
mod encoding;
mod error;
mod layer;

use encoding::Encoding;
pub use error::{DecodeError, DecodeFault};
use layer::{Layer, Step};

/// Encodings undone in a row. Servers send one; two happen behind proxies that compress again.
pub const ENCODINGS_MAX: usize = 3;

/// Room made at once for a body that announces its length; nine in ten pages are shorter. One that lies has cost no more
/// than addresses, since what is not written to takes no memory.
const RESERVED_BYTES_MAX: usize = 128 * 1024;

/// Whether the body may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// More chunks are welcome.
    More,
    /// The cap is reached: further chunks are ignored, and the end of the body need not be waited for.
    Full,
}

/// Undoes a body's content encodings, chunk by chunk.
#[derive(Debug)]
pub struct BodyDecoder {
    /// In the order in which they are undone: the one applied last comes first.
    layers: Vec<Layer>,
    decoded: Vec<u8>,
    decoded_bytes_max: usize,
    any_input: bool,
    full: bool,
}

impl BodyDecoder {
    /// A decoder for a response with these values of Content-Encoding, in order, which keeps the first
    /// `decoded_bytes_max` bytes. `announced` is how long the body says it is.
    ///
    /// # Errors
    /// A content encoding is unknown, or there are more than [`ENCODINGS_MAX`].
    pub fn new(
        encodings: impl IntoIterator<Item: AsRef<[u8]>>,
        announced: Option<u64>,
        decoded_bytes_max: usize,
    ) -> Result<Self, DecodeError> {
        let mut layers = Vec::new();
        for value in encodings {
            let value = value.as_ref();
            for name in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                if name.is_empty() || name.eq_ignore_ascii_case(b"identity") {
                    continue;
                }
                let encoding =
                    Encoding::from_name(name).ok_or_else(|| DecodeError::unknown(name))?;
                if layers.len() == ENCODINGS_MAX {
                    return Err(DecodeError::TooMany {
                        encodings_max: ENCODINGS_MAX,
                    });
                }
                layers.push(Layer::new(encoding, decoded_bytes_max)?);
            }
        }
        layers.reverse();
        let mut decoded = Vec::new();
        if layers.is_empty() {
            let announced = announced.map_or(0, |bytes| bytes.try_into().unwrap_or(usize::MAX));
            decoded.reserve_exact(announced.min(decoded_bytes_max).min(RESERVED_BYTES_MAX));
        }
        Ok(Self {
            layers,
            decoded,
            decoded_bytes_max,
            any_input: false,
            full: decoded_bytes_max == 0,
        })
    }

    /// Decodes the next chunk of the body.
    ///
    /// # Errors
    /// The body is not what its encoding says. The decoder is of no use afterwards.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Progress, DecodeError> {
        self.any_input |= !chunk.is_empty();
        if !self.full {
            let step = decode(
                &mut self.layers,
                chunk,
                &mut self.decoded,
                self.decoded_bytes_max,
            )?;
            self.full = step == Step::Full;
        }
        Ok(if self.full {
            Progress::Full
        } else {
            Progress::More
        })
    }

    /// The decoded body: all of it, or its first bytes when the cap was reached.
    ///
    /// # Errors
    /// The body ended inside an encoded stream. A body without a single byte is empty whatever its encoding: answers
    /// to HEAD and many error pages are sent so.
    pub fn finish(self) -> Result<Vec<u8>, DecodeError> {
        if !self.full && self.any_input {
            for layer in &self.layers {
                layer.check_end()?;
            }
        }
        Ok(self.decoded)
    }
}

/// Passes `chunk` through `layers` into `decoded`, up to `bytes_max` there.
fn decode(
    layers: &mut [Layer],
    chunk: &[u8],
    decoded: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<Step, DecodeError> {
    let Some((layer, inner)) = layers.split_first_mut() else {
        let room = bytes_max - decoded.len();
        decoded.extend_from_slice(&chunk[..chunk.len().min(room)]);
        return Ok(if chunk.len() >= room {
            Step::Full
        } else {
            Step::More
        });
    };
    layer.decode(chunk, &mut |piece| decode(inner, piece, decoded, bytes_max))
}

#[cfg(test)]
mod tests;
