//! The kernel's view of the way to an address: is there a route, and has its link a carrier? Nothing is sent.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use socket2::{Domain, Socket, Type};

use crate::domain::network::Way;

/// Asks the routing table (by connecting a datagram socket, which sends nothing), and the state of the interface that
/// has the address from which it would be sent. Some 20 µs; asked only when something fell silent.
pub fn way_to(ip: IpAddr) -> Way {
    let address = SocketAddr::new(ip, 9);
    let source = Socket::new(Domain::for_address(address), Type::DGRAM, None)
        .and_then(|socket| socket.connect(&address.into()).map(|()| socket))
        .and_then(|socket| socket.local_addr());
    let source = match source {
        Ok(source) => source.as_socket().map(|source| source.ip()),
        Err(error) if is_no_way(&error) => {
            return if is_offline() {
                Way::Offline
            } else {
                Way::Closed
            };
        }
        // Not what was asked: without a descriptor there is no answer.
        Err(_) => return Way::Open,
    };
    let Some(source) = source else {
        return Way::Open;
    };
    let Ok(interfaces) = getifaddrs() else {
        return Way::Open;
    };
    let mut has_it = interfaces.filter(|interface| {
        interface
            .address
            .as_ref()
            .and_then(|address| {
                let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
            })
            .is_some_and(|ip| ip == source)
    });
    match has_it.next() {
        Some(interface) if !interface.flags.contains(RUNS) => Way::Closed,
        _ => Way::Open,
    }
}

/// Switched on, and with a carrier.
const RUNS: InterfaceFlags = InterfaceFlags::IFF_UP.union(InterfaceFlags::IFF_RUNNING);

fn is_offline() -> bool {
    getifaddrs().is_ok_and(|mut interfaces| {
        !interfaces.any(|interface| {
            interface.flags.contains(RUNS)
                && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
        })
    })
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
        assert_eq!(way_to(IpAddr::from([127, 0, 0, 1])), Way::Open);
    }
}
