//! One encoding being undone.

use std::fmt;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation};

use super::error::{DecodeError, DecodeFault};

/// Decoded at a time, on the stack: three layers in a row take 48 KiB of it.
const PIECE_BYTES: usize = 16 * 1024;

/// Members of one gzip body or frames of one zstd body. Block-compressing servers write one per 64 KiB or more; a
/// hostile body of empty members would cost a microsecond per 20 bytes.
const MEMBERS_MAX: u32 = 4_096;

/// zstd windows up to 8 MiB, as RFC 9659 bounds them for HTTP.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A content encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Encoding {
    /// The encoding registered under `name`, whatever its case.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "br" => Some(Self::Brotli),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    /// The first bytes of each further member of a stream: what begins otherwise is trailing garbage.
    fn may_begin(self, bytes: &[u8]) -> bool {
        match self {
            Self::Gzip => [0x1f, 0x8b].starts_with(bytes),
            Self::Zstd => {
                let frame = [0x28, 0xb5, 0x2f, 0xfd].starts_with(bytes);
                let skippable =
                    bytes[0] & 0xf0 == 0x50 && [0x2a, 0x4d, 0x18].starts_with(&bytes[1..]);
                frame || skippable
            }
            Self::Deflate | Self::Brotli => false,
        }
    }

    /// How many first bytes tell a further member from garbage.
    const fn magic_bytes(self) -> usize {
        match self {
            Self::Gzip => 2,
            Self::Zstd => 4,
            Self::Deflate | Self::Brotli => 1,
        }
    }
}

/// Whether a layer wants more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    More,
    Full,
}

enum Codec {
    /// Deflate whose first two bytes are still awaited: they say whether it is zlib, as the standard has it, or raw,
    /// as some servers send it.
    Undecided,
    Inflate(Decompress),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(ZstdDecoder<'static>),
}

enum State {
    /// Inside a member.
    Inside,
    /// After a whole member, with the first bytes of what may be another.
    Between,
    /// After the last member. What follows is ignored, as curl and browsers do.
    Ended,
}

/// One encoding being undone.
pub(super) struct Layer {
    encoding: Encoding,
    codec: Codec,
    state: State,
    /// Bytes held back until they can be told: a stream's first two, or a further member's first few.
    held: [u8; 4],
    held_len: usize,
    members: u32,
    bytes_left: usize,
}

impl Layer {
    /// A layer that produces at most `bytes_max` bytes.
    pub(super) fn new(encoding: Encoding, bytes_max: usize) -> Result<Self, DecodeError> {
        let codec = match encoding {
            Encoding::Gzip => Codec::Inflate(Decompress::new_gzip(15)),
            Encoding::Deflate => Codec::Undecided,
            Encoding::Brotli => Codec::Brotli(Box::new(BrotliState::new(
                StandardAlloc::default(),
                StandardAlloc::default(),
                StandardAlloc::default(),
            ))),
            Encoding::Zstd => Codec::Zstd(zstd_decoder().map_err(|source| DecodeError::Setup {
                encoding: encoding.name(),
                source,
            })?),
        };
        Ok(Self {
            encoding,
            codec,
            state: State::Inside,
            held: [0; 4],
            held_len: 0,
            members: 1,
            bytes_left: bytes_max,
        })
    }

    /// Decodes `input` and hands each piece of output to `sink`, until either says `Full`.
    pub(super) fn decode(
        &mut self,
        mut input: &[u8],
        sink: &mut dyn FnMut(&[u8]) -> Result<Step, DecodeError>,
    ) -> Result<Step, DecodeError> {
        while !input.is_empty() {
            match self.state {
                State::Ended => return Ok(Step::More),
                State::Between => {
                    self.hold(&mut input);
                    if !self.encoding.may_begin(&self.held[..self.held_len]) {
                        self.state = State::Ended;
                    } else if self.held_len == self.encoding.magic_bytes() {
                        self.begin_member()?;
                        if self.decode_held(sink)? == Step::Full {
                            return Ok(Step::Full);
                        }
                    }
                }
                State::Inside if matches!(self.codec, Codec::Undecided) => {
                    self.hold(&mut input);
                    if self.held_len == 2 {
                        self.codec =
                            Codec::Inflate(Decompress::new(is_zlib(self.held[0], self.held[1])));
                        if self.decode_held(sink)? == Step::Full {
                            return Ok(Step::Full);
                        }
                    }
                }
                State::Inside => {
                    if self.decode_member(&mut input, sink)? == Step::Full {
                        return Ok(Step::Full);
                    }
                }
            }
        }
        Ok(Step::More)
    }

    /// Refuses an end of the body inside a member.
    pub(super) fn check_end(&self) -> Result<(), DecodeError> {
        match self.state {
            State::Inside => Err(DecodeError::Truncated {
                encoding: self.encoding.name(),
            }),
            State::Between | State::Ended => Ok(()),
        }
    }

    /// Moves one byte of `input` to those held back.
    fn hold(&mut self, input: &mut &[u8]) {
        self.held[self.held_len] = input[0];
        self.held_len += 1;
        *input = &input[1..];
    }

    fn decode_held(
        &mut self,
        sink: &mut dyn FnMut(&[u8]) -> Result<Step, DecodeError>,
    ) -> Result<Step, DecodeError> {
        let held = self.held;
        let mut held = &held[..self.held_len];
        self.held_len = 0;
        self.decode_member(&mut held, sink)
    }

    fn begin_member(&mut self) -> Result<(), DecodeError> {
        self.members += 1;
        if self.members > MEMBERS_MAX {
            return Err(self.damaged(DecodeFault::Members(MEMBERS_MAX)));
        }
        if let Codec::Inflate(inflate) = &mut self.codec {
            // Keeps the 32 KiB window and the format, unlike `reset`, which knows zlib and raw only.
            *inflate = Decompress::new_gzip(15);
        }
        self.state = State::Inside;
        Ok(())
    }

    /// Decodes what of `input` belongs to the current member.
    fn decode_member(
        &mut self,
        input: &mut &[u8],
        sink: &mut dyn FnMut(&[u8]) -> Result<Step, DecodeError>,
    ) -> Result<Step, DecodeError> {
        let mut piece = [0; PIECE_BYTES];
        loop {
            let room = PIECE_BYTES.min(self.bytes_left);
            let run = self
                .codec
                .run(input, &mut piece[..room])
                .map_err(|fault| self.damaged(fault))?;
            *input = &input[run.read..];
            self.bytes_left -= run.written;
            if run.ended {
                self.state = State::Between;
            }
            if run.written > 0 && sink(&piece[..run.written])? == Step::Full || self.bytes_left == 0
            {
                return Ok(Step::Full);
            }
            // A full piece may have left output inside the decoder even when the input is used up.
            let drained = run.written < room;
            if run.ended || (drained && input.is_empty()) {
                return Ok(Step::More);
            }
            if drained && run.read == 0 && run.written == 0 {
                return Err(self.damaged(DecodeFault::Stalled));
            }
        }
    }

    fn damaged(&self, source: DecodeFault) -> DecodeError {
        DecodeError::Damaged {
            encoding: self.encoding.name(),
            source,
        }
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layer({})", self.encoding.name())
    }
}

/// What one run of a codec did.
struct Run {
    read: usize,
    written: usize,
    ended: bool,
}

impl Codec {
    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<Run, DecodeFault> {
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

fn zstd_decoder() -> std::io::Result<ZstdDecoder<'static>> {
    let mut decoder = ZstdDecoder::new()?;
    decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
    Ok(decoder)
}

/// Whether a deflate stream that begins so has a zlib header (RFC 1950 §2.2), without a preset dictionary.
fn is_zlib(first: u8, second: u8) -> bool {
    let checksum = u16::from_be_bytes([first, second]);
    first & 0x0f == 8 && first >> 4 <= 7 && second & 0x20 == 0 && checksum.is_multiple_of(31)
}
