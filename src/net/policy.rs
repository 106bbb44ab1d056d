//! Which addresses may be dialled. Asked about every address of every hop, at the moment of dialling: whatever a name,
//! a redirect or a rebinding name server says, an address that is denied here never sees a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Link-local ranges and the addresses where clouds serve credentials to whoever asks from inside.
const METADATA: &[&str] = &[
    "169.254.0.0/16", // link-local: AWS, GCP, Azure, OpenStack … metadata, ECS and EKS credentials
    "fe80::/10",      // link-local
    "fd00:ec2::/32",  // AWS over IPv6: metadata, credentials of EKS pods, name server, time
    "fd20:ce::254/128", // GCP over IPv6
    "100.100.100.200/32", // Alibaba
    "192.0.0.192/32", // Oracle, classic
    "168.63.129.16/32", // Azure's host agent
];

/// Loopback, private and shared ranges; `0.0.0.0/8` and `::` because Linux dials itself for them.
const PRIVATE: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "::/128",
    "::1/128",
    "fc00::/7",
    "fec0::/10",
];

/// What the operator set.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PolicyOptions {
    /// Exceptions to everything denied below and by default.
    pub allow: Vec<IpNet>,
    /// Denied beyond the defaults.
    pub deny: Vec<IpNet>,
    /// Deny loopback and private ranges too. Off by default: intranets are a use.
    pub deny_private: bool,
}

/// Why an address may not be dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denied {
    /// Link-local, or a cloud's metadata service.
    #[error("link-local or cloud metadata address")]
    Metadata,
    /// Loopback or private, where the operator denies those.
    #[error("loopback or private address")]
    Private,
    /// In a range that the operator denies.
    #[error("address in a denied range")]
    Listed,
}

/// Decides over addresses.
#[derive(Clone, Debug)]
pub struct AddressPolicy {
    options: PolicyOptions,
    metadata: Vec<IpNet>,
    private: Vec<IpNet>,
}

impl Default for AddressPolicy {
    fn default() -> Self {
        Self::new(PolicyOptions::default())
    }
}

impl AddressPolicy {
    /// A policy by the operator's settings on top of the defaults.
    pub fn new(options: PolicyOptions) -> Self {
        Self {
            options,
            metadata: parsed(METADATA),
            private: parsed(PRIVATE),
        }
    }

    /// Whether `address` may be dialled. An IPv6 address that carries an IPv4 one must pass in both readings, since
    /// the network may translate it. Of the operator's ranges the narrowest that matches decides, a denied one on a
    /// tie; they come before the defaults.
    pub fn check(&self, address: IpAddr) -> Result<(), Denied> {
        if let Some(allowed) = self.listed(address) {
            return allowed;
        }
        self.check_defaults(address)?;
        let IpAddr::V6(v6) = address else {
            return Ok(());
        };
        embedded_v4(v6)
            .into_iter()
            .flatten()
            .map(IpAddr::V4)
            .try_for_each(|v4| match self.listed(v4) {
                Some(allowed) => allowed,
                None => self.check_defaults(v4),
            })
    }

    fn listed(&self, address: IpAddr) -> Option<Result<(), Denied>> {
        let narrowest = |nets: &[IpNet]| {
            nets.iter()
                .filter(|net| net.contains(&address))
                .map(IpNet::prefix_len)
                .max()
        };
        match (
            narrowest(&self.options.allow),
            narrowest(&self.options.deny),
        ) {
            (None, None) => None,
            (allow, deny) if allow > deny => Some(Ok(())),
            _ => Some(Err(Denied::Listed)),
        }
    }

    fn check_defaults(&self, address: IpAddr) -> Result<(), Denied> {
        if self.metadata.iter().any(|net| net.contains(&address)) {
            return Err(Denied::Metadata);
        }
        let private = self.private.iter().any(|net| net.contains(&address));
        if self.options.deny_private && private {
            return Err(Denied::Private);
        }
        Ok(())
    }
}

fn parsed(nets: &[&str]) -> Vec<IpNet> {
    nets.iter()
        .map(|net| net.parse().expect("a constant of this file"))
        .collect()
}

/// The IPv4 addresses that an IPv6 address may stand for.
fn embedded_v4(address: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    let s = address.segments();
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        // IPv4-compatible (deprecated, RFC 4291); `::` and `::1` are not meant.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => [None; 4],
        [0, 0, 0, 0, 0, 0, high, low]
        // IPv4-mapped (RFC 4291), IPv4-translated (RFC 2765), NAT64 (RFC 6052), ISATAP (RFC 5214).
        | [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => [v4(high, low), None, None, None],
        // NAT64 by a prefix of the network's own choice (RFC 8215): of 48, 56, 64 or 96 bits, which only the network
        // knows. The shorter three leave out the ninth byte (RFC 6052, 2.2).
        [0x64, 0xff9b, 1, ..] => {
            let o = address.octets();
            let at = |bytes: [usize; 4]| Some(Ipv4Addr::from(bytes.map(|n| o[n])));
            [
                at([6, 7, 9, 10]),
                at([7, 9, 10, 11]),
                at([9, 10, 11, 12]),
                at([12, 13, 14, 15]),
            ]
        }
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => [v4(high, low), None, None, None],
        // Teredo (RFC 4380): the server, and the client with its bits inverted.
        [0x2001, 0, server_high, server_low, _, _, high, low] => {
            [v4(server_high, server_low), v4(!high, !low), None, None]
        }
        _ => [None; 4],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(policy: &AddressPolicy, address: &str) -> Result<(), Denied> {
        policy.check(address.parse().expect(address))
    }

    #[test]
    fn metadata_is_denied_in_every_reading() {
        let policy = AddressPolicy::default();
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fe80::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::ffff:0:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:2:3:4:a9fe:a9fe",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:a9:fe:a9fe::",
            "64:ff9b:1:0:a9:fea9:fe00:0",
            "fd00:ec2::23",
            "2002:a9fe:a9fe::1",
            "2001:0:a9fe:a9fe::",
            "2001:0:1:1::5601:5601",
            "2001:db8::5efe:169.254.169.254",
        ] {
            assert_eq!(check(&policy, address), Err(Denied::Metadata), "{address}");
        }
    }

    #[test]
    fn private_and_public_addresses_are_allowed_by_default() {
        let policy = AddressPolicy::default();
        for address in [
            "127.0.0.1",
            "::1",
            "10.1.2.3",
            "192.168.1.1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "192.0.2.1",
            "2606:4700::1",
            "169.253.0.1",
        ] {
            assert_eq!(check(&policy, address), Ok(()), "{address}");
        }
    }

    #[test]
    fn one_switch_denies_loopback_and_private_ranges() {
        let policy = AddressPolicy::new(PolicyOptions {
            deny_private: true,
            ..PolicyOptions::default()
        });
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "::",
            "::1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
        ] {
            assert_eq!(check(&policy, address), Err(Denied::Private), "{address}");
        }
        assert_eq!(check(&policy, "192.0.2.1"), Ok(()));
        assert_eq!(check(&policy, "172.32.0.1"), Ok(()));
    }

    #[test]
    fn the_narrowest_of_the_operators_ranges_decides() {
        let nets = |list: &[&str]| list.iter().map(|n| n.parse().expect(n)).collect();
        let policy = AddressPolicy::new(PolicyOptions {
            allow: nets(&["169.254.169.254/32", "10.0.0.0/8"]),
            deny: nets(&["10.1.0.0/16", "203.0.113.0/24", "203.0.113.0/24"]),
            deny_private: true,
        });
        assert_eq!(check(&policy, "169.254.169.254"), Ok(()));
        assert_eq!(check(&policy, "::ffff:169.254.169.254"), Ok(()));
        assert_eq!(check(&policy, "169.254.169.253"), Err(Denied::Metadata));
        assert_eq!(check(&policy, "10.2.0.1"), Ok(()));
        assert_eq!(check(&policy, "10.1.0.1"), Err(Denied::Listed));
        assert_eq!(check(&policy, "::ffff:203.0.113.9"), Err(Denied::Listed));
        assert_eq!(check(&policy, "192.168.0.1"), Err(Denied::Private));
    }
}
