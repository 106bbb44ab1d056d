//! The wall clock, and the kernel's receive stamps.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd};
use std::time::SystemTime;

use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt};

/// Nanoseconds of the wall clock.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("a clock after 1970").as_nanos() as i64
}

/// What was received.
pub(super) struct Received {
    pub(super) bytes: usize,
    /// When the kernel had its last byte; 0 where it does not say, which no row will match.
    pub(super) at: i64,
    /// Who sent it, where it is a datagram.
    pub(super) from: Option<SockaddrIn>,
}

/// The kernel stamps what this socket, or one accepted by it, receives.
pub(super) fn stamped(socket: &impl AsFd) {
    setsockopt(socket, ReceiveTimestampns, &true).expect("SO_TIMESTAMPNS");
}

/// Room for one stamp, aligned as the kernel's headers are.
#[repr(align(8))]
struct Control([u8; 64]);

/// What is there; an error where nothing is.
pub(super) fn receive(socket: &impl AsRawFd, buffer: &mut [u8]) -> nix::Result<Received> {
    let mut control = Control([0; 64]);
    let mut into = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut into, Some(&mut control.0), flags)?;
    let stamp = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(at) => Some(at.tv_sec() * 1_000_000_000 + at.tv_nsec()),
        _ => None,
    });
    Ok(Received {
        bytes: message.bytes,
        at: stamp.unwrap_or_default(),
        from: message.address,
    })
}
