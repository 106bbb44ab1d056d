//! A name server that knows one address, and says it late.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::stamp::now;

const HEAD: usize = 12;
const A: u16 = 1;

/// An answer that waits.
pub(super) struct Answer {
    pub(super) packet: Vec<u8>,
    pub(super) to: SocketAddr,
    /// The number in `eN.…`.
    pub(super) id: u64,
    /// When the question arrived.
    pub(super) asked: i64,
}

/// The answer to `question`; only one for the address of an `eN.…` has to wait.
pub(super) fn answer(
    question: &[u8],
    address: IpAddr,
    to: SocketAddr,
    asked: i64,
) -> Option<(Answer, bool)> {
    let mut at = HEAD;
    let label = question.get(at + 1..at + 1 + usize::from(*question.get(at)?))?;
    let id = std::str::from_utf8(label).ok();
    let id = id.and_then(|label| label.strip_prefix('e')?.parse::<u64>().ok());
    while *question.get(at)? != 0 {
        at += 1 + usize::from(question[at]);
    }
    let kind = u16::from_be_bytes([*question.get(at + 1)?, *question.get(at + 2)?]);
    let asked_for = question.get(HEAD..at + 5)?;
    let IpAddr::V4(v4) = address else { return None };
    let has_address = kind == A && id.is_some();
    let mut packet = question[..2].to_vec();
    // An answer, recursion wanted and available; one question, and one record or none.
    packet.extend([0x81, 0x80, 0, 1, 0, u8::from(has_address), 0, 0, 0, 0]);
    packet.extend(asked_for);
    if has_address {
        // The name of the question, A, IN, for no time at all, four bytes.
        packet.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        packet.extend(v4.octets());
    }
    let id = id.unwrap_or_default();
    Some((
        Answer {
            packet,
            to,
            id,
            asked,
        },
        has_address,
    ))
}

impl Answer {
    /// Sends it; what is to be logged of it.
    pub(super) fn send(&self, socket: &UdpSocket) -> String {
        let before = now();
        let _ = socket.send_to(&self.packet, self.to);
        format!("dns\t{}\t{}\t{before}\t{}\n", self.id, self.asked, now())
    }
}
