//! Content encodings by name and by first bytes.

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
    pub(super) fn from_name(name: &[u8]) -> Option<Self> {
        match &*name.to_ascii_lowercase() {
            b"gzip" | b"x-gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            b"br" => Some(Self::Brotli),
            b"zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    /// The first bytes of each further member of a stream: what begins otherwise is trailing garbage.
    pub(super) fn may_begin(self, bytes: &[u8]) -> bool {
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
    pub(super) const fn magic_bytes(self) -> usize {
        match self {
            Self::Gzip => 2,
            Self::Zstd => 4,
            Self::Deflate | Self::Brotli => 1,
        }
    }
}
