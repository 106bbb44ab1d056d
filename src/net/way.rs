//! The kernel's view of the way to an address: is there a route, and has its link a carrier? Nothing is sent.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use socket2::{Domain, Socket, Type};

use crate::domain::network::Way;

/// The interfaces are listed no more often: it takes some 50 µs, and more where there are many. A probe that fell silent
/// did so for longer.
const LIST_EVERY: Duration = Duration::from_millis(200);
/// Switched on, and with a carrier.
const RUNS: InterfaceFlags = InterfaceFlags::IFF_UP.union(InterfaceFlags::IFF_RUNNING);

/// Asks the kernel, and remembers for a moment what it said of the interfaces.
#[derive(Debug, Default)]
pub struct Ways {
    interfaces: Vec<Interface>,
    listed_at: Option<Instant>,
}

#[derive(Debug)]
struct Interface {
    address: Option<IpAddr>,
    runs: bool,
    is_own: bool,
}

impl Ways {
    /// The way to `ip`: by the routing table (connecting a datagram socket asks it, and sends nothing), and by the state of
    /// the interface that has the address from which it would be sent. Asked only when something fell silent.
    pub fn to(&mut self, ip: IpAddr) -> Way {
        let address = SocketAddr::new(ip, 9);
        let source = Socket::new(Domain::for_address(address), Type::DGRAM, None)
            .and_then(|socket| socket.connect(&address.into()).map(|()| socket))
            .and_then(|socket| socket.local_addr());
        match source.map(|source| source.as_socket()) {
            Ok(Some(source)) => {
                let source = source.ip();
                let interfaces = self.interfaces();
                let has_it = interfaces.iter().find(|i| i.address == Some(source));
                match has_it {
                    Some(interface) if !interface.runs => Way::Closed,
                    _ => Way::Open,
                }
            }
            Err(error) if is_no_way(&error) => {
                let is_offline = !self.interfaces().iter().any(|i| i.runs && !i.is_own);
                if is_offline {
                    Way::Offline
                } else {
                    Way::Closed
                }
            }
            // Not what was asked: without a descriptor there is no answer.
            _ => Way::Open,
        }
    }

    fn interfaces(&mut self) -> &[Interface] {
        let now = Instant::now();
        let is_fresh = |at| now.duration_since(at) < LIST_EVERY;
        if !self.listed_at.is_some_and(is_fresh) {
            self.listed_at = Some(now);
            let listed = getifaddrs().map(|list| list.map(Interface::from).collect());
            self.interfaces = listed.unwrap_or_default();
        }
        &self.interfaces
    }
}

impl From<InterfaceAddress> for Interface {
    fn from(interface: InterfaceAddress) -> Self {
        let address = interface.address.as_ref().and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
        });
        Self {
            address,
            runs: interface.flags.contains(RUNS),
            is_own: interface.flags.contains(InterfaceFlags::IFF_LOOPBACK),
        }
    }
}

fn is_no_way(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_way_to_this_machine() {
        assert_eq!(Ways::default().to(IpAddr::from([127, 0, 0, 1])), Way::Open);
    }
}
