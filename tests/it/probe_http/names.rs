//! Names, with a name server that says what a test wants.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use watcher::domain::{DnsMode, Endpoint, Failure, IpFamily, SkipReason};
use watcher::net::policy::PolicyOptions;

use crate::support::name_server::{NameServer, Reply};
use crate::support::prober::{
    Rig, down, endpoint, endpoint_with, full_backlog, skipped, up, within,
};
use crate::support::target::target;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn named(name: &str, port: u16) -> Endpoint {
    endpoint(&format!("http://{name}:{port}/"))
}

fn fresh(name: &str, port: u16) -> Endpoint {
    endpoint_with(&format!("http://{name}:{port}/"), |check| {
        check.dns = DnsMode::Fresh;
    })
}

#[test]
fn a_name_is_asked_for_once_within_its_ttl() {
    let (server, target) = (
        NameServer::start(|_, _| Reply::Addresses(vec![HERE], 60)),
        target(),
    );
    let rig = Rig::with_name_server(server.address);
    let endpoint = named("a.test", target.addr().port());
    let first = rig.probe(&endpoint);
    up(&first);
    assert!(first.phases.resolve_us.is_some());
    for _ in 0..3 {
        let again = rig.probe(&endpoint);
        up(&again);
        assert_eq!(again.phases.resolve_us, None);
    }
    assert_eq!(server.asked("a.test"), 1);
}

#[test]
fn fresh_names_and_short_ttls_are_asked_for_each_time() {
    let server = NameServer::start(|name, _| {
        Reply::Addresses(vec![HERE], if name == "short.test" { 0 } else { 60 })
    });
    let target = target();
    let rig = Rig::with_name_server(server.address);
    let port = target.addr().port();
    for _ in 0..3 {
        let sample = rig.probe(&fresh("fresh.test", port));
        up(&sample);
        assert!(sample.phases.resolve_us.is_some());
        assert!(
            rig.probe(&named("short.test", port))
                .phases
                .resolve_us
                .is_some()
        );
    }
    assert_eq!(
        (server.asked("fresh.test"), server.asked("short.test")),
        (3, 3)
    );
}

#[test]
fn probes_that_start_together_share_a_question() {
    let server = NameServer::start(|_, _| {
        let reply = Reply::Addresses(vec![HERE], 0);
        Reply::Late(Duration::from_millis(100), Box::new(reply))
    });
    let target = target();
    let rig = Rig::with_name_server(server.address);
    let endpoint = named("shared.test", target.addr().port());
    let now = crate::support::prober::now();
    let samples = rig.run(async {
        let probe = || rig.prober.probe(&endpoint, now, now);
        tokio::join!(probe(), probe(), probe())
    });
    for sample in [samples.0, samples.1, samples.2] {
        up(&sample);
        assert!(sample.phases.resolve_us.unwrap() >= 90_000);
    }
    assert_eq!(server.asked("shared.test"), 1);
}

#[test]
fn what_a_name_server_says_is_told_apart() {
    let server = NameServer::start(|name, kind| match (name, kind) {
        ("six.test", RecordType::AAAA) => Reply::Addresses(vec!["::1".parse().unwrap()], 60),
        ("four.test", RecordType::A) => Reply::Addresses(vec![HERE], 60),
        ("six.test" | "four.test" | "none.test", _) => Reply::Addresses(vec![], 60),
        ("fail.test", _) => Reply::Code(ResponseCode::ServFail),
        ("refuse.test", _) => Reply::Code(ResponseCode::Refused),
        _ => Reply::NoName,
    });
    let target = target();
    let rig = Rig::with_name_server(server.address);
    let port = target.addr().port();
    for (name, failure) in [
        ("absent.test", Failure::DnsNotFound),
        ("none.test", Failure::DnsNotFound),
        ("fail.test", Failure::DnsError),
        ("refuse.test", Failure::DnsError),
        // Nothing listens there; that it is dialled shows that the second family was asked for.
        ("six.test", Failure::ConnectRefused),
    ] {
        for endpoint in [named(name, port), fresh(name, port)] {
            let sample = rig.probe(&endpoint);
            down(&sample, failure);
            assert!(sample.phases.resolve_us.is_some(), "{name}");
        }
    }
    for dns in [DnsMode::Cached, DnsMode::Fresh] {
        let only = |name: &str, family| {
            rig.probe(&endpoint_with(&format!("http://{name}:{port}/"), |check| {
                check.ip_family = family;
                check.dns = dns;
            }))
        };
        up(&only("four.test", IpFamily::V4));
        down(&only("four.test", IpFamily::V6), Failure::DnsNotFound);
        down(&only("six.test", IpFamily::V4), Failure::DnsNotFound);
    }
}

#[test]
fn a_slow_name_is_the_targets_fault() {
    let server = NameServer::start(|name, _| match name {
        "slow.test" => Reply::Silence,
        _ => Reply::Addresses(vec![HERE], 60),
    });
    let rig = Rig::with_name_server(server.address);
    let start = Instant::now();
    let sample = rig.probe(&within(900, named("slow.test", 80)));
    down(&sample, Failure::DnsTimeout);
    assert!(start.elapsed() < Duration::from_millis(1_900));
    assert!(sample.phases.resolve_us.unwrap() >= 800_000);
}

#[test]
fn a_dead_name_server_is_our_own_fault() {
    let silent = NameServer::start(|_, _| Reply::Silence);
    let rig = Rig::with_name_server(silent.address);
    let ask = |rig: &Rig| {
        for endpoint in [named("any.test", 80), fresh("any.test", 80)] {
            let sample = rig.probe(&within(900, endpoint));
            skipped(&sample, SkipReason::ResolverDown);
        }
    };
    ask(&rig);
    let gone = crate::support::prober::closed_port();
    ask(&Rig::with_name_server(gone));
}

#[test]
fn a_silent_name_server_is_not_asked_first_again() {
    let silent = NameServer::start(|_, _| Reply::Silence);
    let server = NameServer::start(|_, _| Reply::Addresses(vec![HERE], 60));
    let target = target();
    let servers = vec![silent.address, server.address];
    let rig = Rig::with(PolicyOptions::default(), Some(servers));
    let endpoint = fresh("a.test", target.addr().port());
    let first = rig.probe(&endpoint);
    up(&first);
    assert!(first.phases.resolve_us.unwrap() >= 300_000);
    let asked = silent.asked("a.test");
    let second = rig.probe(&endpoint);
    up(&second);
    assert!(second.phases.resolve_us.unwrap() < 300_000);
    assert_eq!(silent.asked("a.test"), asked);
}

#[test]
fn a_slow_fresh_answer_is_timed_from_the_first_question() {
    let server = NameServer::start(|_, _| {
        let reply = Reply::Addresses(vec![HERE], 60);
        Reply::Late(Duration::from_millis(500), Box::new(reply))
    });
    let target = target();
    let rig = Rig::with_name_server(server.address);
    let sample = rig.probe(&fresh("late.test", target.addr().port()));
    up(&sample);
    // The resolver, which is asked after 300 ms, has its answer after 800.
    let took = sample.phases.resolve_us.unwrap();
    assert!((500_000..800_000).contains(&took), "{took}");
}

#[test]
fn aliases_are_followed_and_forged_answers_are_not_heard() {
    let server = NameServer::start(|name, _| match name {
        "alias.test" => Reply::Alias("else.where.test.", vec![HERE]),
        _ => Reply::Forged(Box::new(Reply::Addresses(vec![HERE], 60))),
    });
    let target = target();
    let rig = Rig::with_name_server(server.address);
    let port = target.addr().port();
    for name in ["alias.test", "forged.test"] {
        for endpoint in [named(name, port), fresh(name, port)] {
            let sample = rig.probe(&endpoint);
            up(&sample);
            assert_eq!(sample.remote_ip, Some(HERE));
        }
    }
}

#[test]
fn the_next_address_is_tried() {
    let server = NameServer::start(|_, _| {
        let addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.1"];
        Reply::Addresses(addresses.map(|a| a.parse().unwrap()).to_vec(), 60)
    });
    let target = target();
    let rig = Rig::with_name_server(server.address);
    let sample = rig.probe(&named("many.test", target.addr().port()));
    up(&sample);
    assert_eq!(sample.remote_ip, Some(HERE));
}

#[test]
fn the_next_address_is_tried_beside_a_silent_one() {
    let target = target();
    let port = target.addr().port();
    let silent = full_backlog(([127, 0, 0, 2], port).into());
    let server =
        NameServer::start(|_, _| Reply::Addresses(vec!["127.0.0.2".parse().unwrap(), HERE], 60));
    let rig = Rig::with_name_server(server.address);
    let sample = rig.probe(&named("half.test", port));
    up(&sample);
    assert_eq!(sample.remote_ip, Some(HERE));
    assert!((200_000..2_000_000).contains(&sample.phases.connect_us.unwrap()));
    drop(silent);
}

#[test]
fn a_rebinding_name_server_gains_nothing() {
    // The first answer is harmless, the second is not.
    let asked = std::sync::atomic::AtomicU32::new(0);
    let server = NameServer::start(move |name, _| {
        let n = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let address = match name {
            "mixed.test" => {
                return Reply::Addresses(vec!["169.254.169.254".parse().unwrap(), HERE], 0);
            }
            _ if n == 0 => HERE,
            _ => "169.254.169.254".parse().unwrap(),
        };
        Reply::Addresses(vec![address], 0)
    });
    let target = target();
    let rig = Rig::with_name_server(server.address);
    let rebinding = named("rebind.test", target.addr().port());
    up(&rig.probe(&rebinding));
    let sample = rig.probe(&rebinding);
    down(&sample, Failure::AddressDenied);
    assert_eq!(sample.remote_ip, None);
    // Of several addresses the allowed ones are dialled.
    let sample = rig.probe(&named("mixed.test", target.addr().port()));
    up(&sample);
    assert_eq!(sample.remote_ip, Some(HERE));
    let closed = Rig::with(
        PolicyOptions {
            deny_private: true,
            ..PolicyOptions::default()
        },
        Some(vec![server.address]),
    );
    down(
        &closed.probe(&named("mixed.test", 80)),
        Failure::AddressDenied,
    );
}

#[test]
fn names_in_the_hosts_file_need_no_name_server() {
    let target = target();
    let url = format!("http://localhost:{}/", target.addr().port());
    let four = endpoint_with(&url, |check| check.ip_family = IpFamily::V4);
    up(&Rig::new().probe(&four));
}
