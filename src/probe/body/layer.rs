//! One encoding being undone.

use std::fmt;

use super::codec::Codec;
use super::encoding::Encoding;
use super::error::{DecodeError, DecodeFault};

/// Decoded at a time, on the stack: three layers in a row take 48 KiB of it.
const PIECE_BYTES: usize = 16 * 1024;

/// Members of one gzip body or frames of one zstd body. Block-compressing servers write one per 64 KiB or more; a
/// hostile body has one per 20 bytes, with nothing in it but the work of setting up a decoder.
const MEMBERS_MAX: u32 = 4_096;

/// Whether a layer wants more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    More,
    Full,
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
        let codec = Codec::new(encoding).map_err(|source| DecodeError::Setup {
            encoding: encoding.name(),
            source,
        })?;
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
                        self.codec = Codec::deflate(self.held[0], self.held[1]);
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
        self.codec.begin_member();
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
