//! URL and address policy: in whatever notation a host is written, the address that would be dialled is the one that
//! is judged, and what is allowed lies in no denied range by an independent reading.
#![no_main]

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use watcher::config::{CheckCache, endpoint};
use watcher::net::policy::{AddressPolicy, PolicyOptions};
use watcher::net::resolve::literal;
use watcher_fuzz::{Canaries, row};

thread_local! {
    static CACHE: RefCell<CheckCache> = RefCell::default();
}

fuzz_target!(|data: &[u8]| {
    let [flags, rest @ ..] = data else { return };
    let policy = |deny_private| {
        AddressPolicy::new(PolicyOptions {
            deny_private,
            ..PolicyOptions::default()
        })
    };
    let deny_private = flags & 1 == 1;
    let policy = policy(deny_private);
    if flags & 2 == 2
        && let Ok(octets) = <[u8; 16]>::try_from(rest)
    {
        judged(&policy, IpAddr::V6(Ipv6Addr::from(octets)), deny_private);
        return;
    }
    let Ok(text) = std::str::from_utf8(rest) else {
        return;
    };
    // The host as written, not as our parser gives it.
    let raw = raw_host(text).and_then(number_address);
    let parsed = CACHE.with_borrow_mut(|cache| endpoint(&row(text, None), cache, &Canaries));
    let Ok(endpoint) = parsed else { return };
    let target = &endpoint.target;
    assert!(target.port != 0 && target.host.is_ascii() && !target.host.is_empty());
    assert!(
        !target
            .host
            .contains(['@', '/', '\\', '?', '#', ' ', '%', '\0']),
        "{target}"
    );
    assert!(target.path_and_query.as_str().is_ascii());
    // What is probed parses to itself.
    let again = target.to_string();
    let again = CACHE.with_borrow_mut(|cache| endpoint_target(&again, cache));
    assert_eq!(again.as_ref(), Some(target));
    match literal(&target.host) {
        Some(address) => {
            judged(&policy, address, deny_private);
            if let Some(raw) = raw {
                assert_eq!(address, IpAddr::V4(raw), "{text}");
            }
        }
        // A name, then: no resolver may read it as an address that nobody judged as one.
        None => {
            assert_eq!(raw, None, "{text}");
            assert_eq!(number_address(&target.host), None, "{target}");
        }
    }
});

fn endpoint_target(url: &str, cache: &mut CheckCache) -> Option<watcher::domain::Target> {
    Some(endpoint(&row(url, None), cache, &Canaries).ok()?.target)
}

fn judged(policy: &AddressPolicy, address: IpAddr, deny_private: bool) {
    if policy.check(address).is_err() {
        return;
    }
    match address {
        IpAddr::V4(v4) => assert!(!denied_v4(v4, deny_private), "{address}"),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            assert_ne!(bits >> 118, 0xfe80 >> 6, "{address}");
            assert!(
                v6 != "fd00:ec2::254".parse::<Ipv6Addr>().unwrap(),
                "{address}"
            );
            if deny_private {
                assert!(bits > 1 && bits >> 121 != 0xfc >> 1, "{address}");
            }
            // Mapped, compatible, NAT64: the last four bytes; 6to4: the four after 2002.
            let last = Ipv4Addr::from(bits as u32);
            let high = bits >> 32;
            if high == 0xffff || (high == 0 && bits > 1) || high == 0x64_ff9b << 64 {
                assert!(!denied_v4(last, deny_private), "{address}");
            }
            if bits >> 112 == 0x2002 {
                assert!(
                    !denied_v4(Ipv4Addr::from((bits >> 80) as u32), deny_private),
                    "{address}"
                );
            }
        }
    }
}

fn denied_v4(address: Ipv4Addr, deny_private: bool) -> bool {
    let [a, b, c, d] = address.octets();
    let metadata = (a, b) == (169, 254)
        || [(100, 100, 100, 200), (168, 63, 129, 16), (192, 0, 0, 192)].contains(&(a, b, c, d));
    metadata || (deny_private && (address.is_private() || a == 127 || a == 0))
}

/// What stands between `://` and the end of the authority, without user and port.
fn raw_host(url: &str) -> Option<&str> {
    let rest = url.trim().split_once("://")?.1;
    let authority = rest.split(['/', '\\', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = host.split(':').next()?;
    (!host.starts_with('[')).then_some(host)
}

/// `inet_aton`: one to four numbers, decimal, octal or hexadecimal, the last one filling up what is left.
fn number_address(host: &str) -> Option<Ipv4Addr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let parts: Vec<&str> = host.split('.').collect();
    if parts.len() > 4 {
        return None;
    }
    let numbers = parts
        .iter()
        .map(|part| number(part))
        .collect::<Option<Vec<u64>>>()?;
    let (last, first) = numbers.split_last()?;
    let room = 32 - 8 * first.len() as u32;
    if first.iter().any(|&n| n > 255) || *last >= 1_u64 << room {
        return None;
    }
    let high = first
        .iter()
        .enumerate()
        .map(|(i, n)| n << (24 - 8 * i))
        .sum::<u64>();
    u32::try_from(high + last).ok().map(Ipv4Addr::from)
}

fn number(part: &str) -> Option<u64> {
    if !part.starts_with(|c: char| c.is_ascii_digit()) || part.contains('+') {
        return None;
    }
    match part.strip_prefix("0x").or(part.strip_prefix("0X")) {
        Some("") => Some(0),
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if part.len() > 1 && part.starts_with('0') => u64::from_str_radix(part, 8).ok(),
        None => part.parse().ok(),
    }
}
