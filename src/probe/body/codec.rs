//! The decoders behind the encodings, in one shape.

use std::io;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation};

use super::encoding::Encoding;
use super::error::DecodeFault;

/// zstd windows up to 8 MiB, as RFC 9659 bounds them for HTTP.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Deflate's whole window, 32 KiB.
const WINDOW_BITS: u8 = 15;

/// A decoder.
pub(super) enum Codec {
    /// Deflate whose first two bytes are still awaited: they say whether it is zlib, as the standard has it, or raw,
    /// as some servers send it.
    Undecided,
    Inflate(Decompress),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(ZstdDecoder<'static>),
}

/// What one run of a codec did.
pub(super) struct Run {
    pub(super) read: usize,
    pub(super) written: usize,
    pub(super) ended: bool,
}

impl Codec {
    /// A codec at the begin of a stream.
    pub(super) fn new(encoding: Encoding) -> io::Result<Self> {
        Ok(match encoding {
            Encoding::Gzip => Self::Inflate(Decompress::new_gzip(WINDOW_BITS)),
            Encoding::Deflate => Self::Undecided,
            Encoding::Brotli => Self::Brotli(Box::new(BrotliState::new(
                StandardAlloc::default(),
                StandardAlloc::default(),
                StandardAlloc::default(),
            ))),
            Encoding::Zstd => {
                let mut decoder = ZstdDecoder::new()?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
                Self::Zstd(decoder)
            }
        })
    }

    /// A codec for a deflate stream with these first bytes.
    pub(super) fn deflate(first: u8, second: u8) -> Self {
        Self::Inflate(Decompress::new(is_zlib(first, second)))
    }

    /// Readies it for a further member.
    pub(super) fn begin_member(&mut self) {
        if let Self::Inflate(inflate) = self {
            // Anew, because `reset` knows zlib and raw streams only.
            *inflate = Decompress::new_gzip(WINDOW_BITS);
        }
    }

    /// Decodes from `input` to `output`.
    pub(super) fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<Run, DecodeFault> {
        match self {
            Self::Undecided => Ok(Run {
                read: 0,
                written: 0,
                ended: false,
            }),
            Self::Inflate(inflate) => {
                let (in_before, out_before) = (inflate.total_in(), inflate.total_out());
                let status = inflate.decompress(input, output, FlushDecompress::None)?;
                Ok(Run {
                    read: (inflate.total_in() - in_before) as usize,
                    written: (inflate.total_out() - out_before) as usize,
                    ended: status == Status::StreamEnd,
                })
            }
            Self::Brotli(state) => {
                let (mut available_in, mut read) = (input.len(), 0);
                let (mut available_out, mut written) = (output.len(), 0);
                let result = BrotliDecompressStream(
                    &mut available_in,
                    &mut read,
                    input,
                    &mut available_out,
                    &mut written,
                    output,
                    &mut 0,
                    state,
                );
                let ended = match result {
                    BrotliResult::ResultSuccess => true,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => false,
                    BrotliResult::ResultFailure => {
                        return Err(DecodeFault::Brotli(state.error_code as i32));
                    }
                };
                Ok(Run {
                    read,
                    written,
                    ended,
                })
            }
            Self::Zstd(decoder) => {
                let status = decoder.run_on_buffers(input, output)?;
                Ok(Run {
                    read: status.bytes_read,
                    written: status.bytes_written,
                    ended: status.remaining == 0,
                })
            }
        }
    }
}

/// Whether a deflate stream that begins so has a zlib header (RFC 1950 §2.2), without a preset dictionary.
fn is_zlib(first: u8, second: u8) -> bool {
    let checksum = u16::from_be_bytes([first, second]);
    first & 0x0f == 8 && first >> 4 <= 7 && second & 0x20 == 0 && checksum.is_multiple_of(31)
}
