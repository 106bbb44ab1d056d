//! PostgreSQL's messages in a stream of bytes (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).
//! Pure.

use bytes::{Buf, Bytes, BytesMut};

/// One message as it came, its head included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) bytes: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// What a client asks before it starts: to encrypt.
    EncryptionRequest,
    /// The first message that counts, which has no type.
    Startup,
    /// Any other, by its type.
    Message(u8),
}

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

impl Frame {
    /// What follows type and length.
    fn body(&self) -> &[u8] {
        &self.bytes[5.min(self.bytes.len())..]
    }

    pub(super) fn is(&self, kind: u8) -> bool {
        self.kind == Kind::Message(kind)
    }

    /// A simple query that ends a transaction with a commit.
    pub(super) fn is_commit(&self) -> bool {
        let text = self.body().trim_ascii_start();
        self.is(b'Q') && text.len() >= 6 && text[..6].eq_ignore_ascii_case(b"commit")
    }

    /// Of ReadyForQuery: `I` idle, `T` in a transaction, `E` in a failed one.
    pub(super) fn transaction_status(&self) -> Option<u8> {
        self.is(b'Z')
            .then(|| self.body().first().copied())
            .flatten()
    }
}

/// Cuts a stream into messages.
#[derive(Default)]
pub(super) struct Frames {
    pub(super) buffer: BytesMut,
    started: bool,
}

impl Frames {
    /// Of a client, whose first messages have no type.
    pub(super) fn of_client() -> Self {
        Self::default()
    }

    pub(super) fn of_server() -> Self {
        Self {
            started: true,
            ..Self::default()
        }
    }

    /// The next whole message.
    pub(super) fn next(&mut self) -> Option<Frame> {
        let head = usize::from(self.started);
        let mut length = self.buffer.get(head..head + 4)?;
        let total = head + length.get_u32() as usize;
        if self.buffer.len() < total {
            return None;
        }
        let bytes = self.buffer.split_to(total).freeze();
        if self.started {
            let kind = Kind::Message(bytes[0]);
            return Some(Frame { kind, bytes });
        }
        let code = bytes.get(4..8).map_or(0, |mut code| code.get_u32());
        let kind = match code {
            SSL_REQUEST | GSS_REQUEST => Kind::EncryptionRequest,
            _ => {
                self.started = true;
                Kind::Startup
            }
        };
        Some(Frame { kind, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(frames: &mut Frames) -> Vec<Kind> {
        std::iter::from_fn(|| frames.next())
            .map(|f| f.kind)
            .collect()
    }

    #[test]
    fn messages_are_found_wherever_the_stream_is_cut() {
        let mut stream = vec![0, 0, 0, 8];
        stream.extend(SSL_REQUEST.to_be_bytes());
        stream.extend([0, 0, 0, 9, 0, 3, 0, 0, 0]);
        stream.extend(b"Q\0\0\0\x0b Commit\0\0S\0\0\0\x04".iter().take(12));
        stream.extend(b"S\0\0\0\x04");
        for step in 1..stream.len() {
            let mut frames = Frames::of_client();
            let mut found = Vec::new();
            for piece in stream.chunks(step) {
                frames.buffer.extend_from_slice(piece);
                found.extend(kinds(&mut frames));
            }
            let expected = [
                Kind::EncryptionRequest,
                Kind::Startup,
                Kind::Message(b'Q'),
                Kind::Message(b'S'),
            ];
            assert_eq!(found, expected, "in pieces of {step}");
        }
    }

    #[test]
    fn a_commit_is_known_by_its_words() {
        let frame = |text: &str| {
            let mut bytes = vec![b'Q'];
            bytes.extend((text.len() as u32 + 5).to_be_bytes());
            bytes.extend(text.as_bytes());
            bytes.push(0);
            let mut frames = Frames::of_server();
            frames.buffer.extend_from_slice(&bytes);
            frames.next().unwrap()
        };
        assert!(frame("COMMIT").is_commit() && frame(" commit; select 1").is_commit());
        assert!(!frame("BEGIN").is_commit() && !frame("").is_commit());
    }
}
