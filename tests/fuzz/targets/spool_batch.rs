//! The spool's rows: a batch comes back as it was; damaged, it is refused and never delivered; bytes with good
//! checksums that no release wrote are a batch or an error, no panic.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use watcher::spool::codec::{decode, encode};
use watcher_fuzz::BatchInput;

#[derive(Arbitrary, Debug)]
enum Input {
    Raw(Vec<u8>),
    /// Put behind a head whose checksums are right.
    Sealed {
        head: Vec<u8>,
        body: Vec<u8>,
        version: u8,
    },
    Batch {
        batch: BatchInput,
        damage: Damage,
    },
}

#[derive(Arbitrary, Debug)]
enum Damage {
    None,
    /// So many bytes are missing at the end.
    Torn(u16),
    /// Up to four bytes in a row are others: CRC-32 promises to see that.
    Burst {
        at: u16,
        mask: [u8; 4],
    },
    /// A page of zeros, as a power cut leaves it.
    Zeroed {
        at: u16,
    },
}

fuzz_target!(|input: Input| {
    match input {
        Input::Raw(bytes) => stable(&bytes),
        Input::Sealed {
            head,
            body,
            version,
        } => stable(&sealed(&head, &body, version)),
        Input::Batch { batch, damage } => {
            let batch = batch.batch();
            let whole = encode(&batch);
            let damaged = damage.done_to(&whole);
            match decode(&damaged) {
                Ok(decoded) => {
                    assert!(
                        damaged == whole,
                        "a damaged batch was delivered: {damage:?}"
                    );
                    assert_eq!(
                        (decoded.agent, decoded.samples),
                        (batch.agent, batch.samples)
                    );
                }
                Err(error) => {
                    assert!(damaged != whole, "{error}");
                    assert!(
                        !error.is_of_a_later_release() || damaged[3] != whole[3],
                        "{error}"
                    );
                }
            }
        }
    }
});

/// What is a batch is the same one after another turn.
fn stable(bytes: &[u8]) {
    if let Ok(batch) = decode(bytes) {
        let again = decode(&encode(&batch)).unwrap();
        assert_eq!((again.agent, again.samples), (batch.agent, batch.samples));
    }
}

/// The layout of `watcher::spool::codec`, written down a second time.
fn sealed(head: &[u8], body: &[u8], version: u8) -> Vec<u8> {
    let mut head = head.to_vec();
    // Rows, times and length come first; the length is made right, so that the body is looked at.
    if let Some(length) = head.get_mut(20..28) {
        length.copy_from_slice(&(body.len() as u64).to_le_bytes());
    }
    let mut bytes = b"wsb".to_vec();
    bytes.push(if version.is_multiple_of(8) {
        version
    } else {
        1
    });
    bytes.extend((head.len() as u32).to_le_bytes());
    let body_crc = crc32fast::hash(body).to_le_bytes();
    let mut crc = crc32fast::Hasher::new();
    for part in [&bytes[..8], &body_crc, &head] {
        crc.update(part);
    }
    bytes.extend(crc.finalize().to_le_bytes());
    bytes.extend(body_crc);
    bytes.extend(head);
    bytes.extend(body);
    bytes
}

impl Damage {
    fn done_to(&self, whole: &[u8]) -> Vec<u8> {
        let mut bytes = whole.to_vec();
        match self {
            Self::None => {}
            Self::Torn(missing) => {
                bytes.truncate(whole.len() - usize::from(*missing) % whole.len())
            }
            Self::Burst { at, mask } => {
                let at = usize::from(*at) % whole.len();
                for (byte, mask) in bytes[at..].iter_mut().zip(mask) {
                    *byte ^= mask;
                }
            }
            Self::Zeroed { at } => bytes[usize::from(*at) % whole.len()..].fill(0),
        }
        bytes
    }
}
