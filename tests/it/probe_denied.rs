//! Denied addresses, in a network namespace where every address there is belongs to a tripwire: whatever a URL, a name,
//! a redirect, a name server or the environment says, no packet goes to one of them.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use watcher::config::{CheckCache, EndpointRow, Unread, endpoint};
use watcher::domain::{Endpoint, EndpointId, Failure, PinnedAddress, Sample, Timestamp};
use watcher::net::policy::PolicyOptions;

use crate::support::name_server::{NameServer, Reply};
use crate::support::prober::{Rig, down, endpoint_with, read_head, up};

/// Where the one server is that may be asked; of the ranges for documentation.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PUBLIC_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// One metadata address in all the notations we know, and the other metadata and link-local ones.
const METADATA: &[&str] = &[
    "http://169.254.169.254/",
    "HTTP://169.254.169.254:80/latest/meta-data/",
    "http://169.254.169.254./",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0XA9FEA9FE/",
    "http://025177524776/",
    "http://0251.0376.0251.0376/",
    "http://0xa9.0xfe.0xa9.0xfe/",
    "http://0xa9.254.0251.254/",
    "http://169.254.43518/",
    "http://169.16689662/",
    "http://000251.00376.000251.0000376/",
    "http://169%2e254%2e169%2e254/",
    "http://%31%36%39.254.169.254/",
    "http://１６９.２５４.１６９.２５４/",
    "http://169。254。169。254/",
    "http://169．254．169．254/",
    "http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/",
    "http://169.254\u{ad}.169.254/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[0:0:0:0:0:ffff:a9fe:a9fe]/",
    "http://[::169.254.169.254]/",
    "http://[::ffff:0:169.254.169.254]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::a9fe:a9fe]/",
    "http://[64:ff9b:1:a9fe:a9:fe00::]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:a9fe:a9fe::]/",
    "http://[2001:db8::5efe:a9fe:a9fe]/",
    "http://[fe80::1]/",
    "http://[FE80::a9fe:a9fe]/",
    "http://[fd00:ec2::254]/",
    "http://[fd00:ec2::23]/",
    "http://[fd20:ce::254]/",
    "http://169.254.170.2/",
    "http://100.100.100.200/",
    "http://0144.0144.0144.0310/",
    "http://192.0.0.192/",
    "http://168.63.129.16/",
];

/// Loopback and private addresses.
const PRIVATE: &[&str] = &[
    "http://127.0.0.1/",
    "http://127.1/",
    "http://127.255.255.254/",
    "http://2130706433/",
    "http://017700000001/",
    "http://0x7f.1/",
    "http://0/",
    "http://0.0.0.0/",
    "http://[::]/",
    "http://[::1]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://localhost/",
    "http://LOCALHOST./",
    "http://10.0.0.1/",
    "http://167772161/",
    "http://012.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://192.168.257/",
    "http://100.64.0.1/",
    "http://198.18.0.1/",
    "http://[::ffff:10.0.0.1]/",
    "http://[64:ff9b::10.0.0.1]/",
    "http://[2002:a00:1::]/",
    "http://[fc00::1]/",
    "http://[fd12:3456::1]/",
    "http://[fec0::1]/",
];

const NONE: [IpAddr; 0] = [];

/// What is no URL of ours, or leads elsewhere than it looks.
const TRICKS: &[&str] = &[
    "http://user@169.254.169.254/",
    "http://192.0.2.1@169.254.169.254/",
    "http://192.0.2.1:80@169.254.169.254/",
    "http://169.254.169.254@192.0.2.1/",
    "http://192.0.2.1#@169.254.169.254/",
    "http://192.0.2.1\\@169.254.169.254/",
    "http://192.0.2.1/@169.254.169.254/",
    "http:\\\\169.254.169.254\\",
    "http:169.254.169.254/",
    "http:/169.254.169.254/",
    "http:////169.254.169.254/",
    "//169.254.169.254/",
    "http://169.254.169.254:80:80/",
    "http://169.254.169.254%00.example/",
    "http://169.254.169.254%0d%0ahost:x/",
    "http://169.254.169.256/",
    "http://169.254.169.254.1/",
    "http://4294967296/",
    "http://[fe80::1%25lo]/",
    "http://[fe80::1%lo]/",
    "http://[::ffff:169.254.169.254%1]/",
    "http://[169.254.169.254]/",
    "gopher://169.254.169.254/",
    "file:///etc/passwd",
];

/// Runs the test named `name` again in a network namespace of its own; `None` there, where it goes on.
fn outside(name: &str) -> Option<()> {
    const INSIDE: &str = "WATCHER_TEST_IN_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        return None;
    }
    let unshare = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount"]).args(arguments);
        command
    };
    // As root, else as the root of a user namespace, where the system has those.
    let ways = [&[][..], &["--map-root-user"][..]];
    let probe = [
        "sh",
        "-c",
        "ip link set lo up && ip route add local 0.0.0.0/0 dev lo",
    ];
    let allowed = |way: &&&[&str]| {
        let tried = unshare(way).args(probe).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let Some(way) = ways.iter().find(allowed) else {
        eprintln!(
            "skipped: this machine allows no network namespace (unshare --net), or has no ip"
        );
        return Some(());
    };
    let child = unshare(way)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&child.stdout),
        String::from_utf8_lossy(&child.stderr),
    );
    assert!(
        child.status.success() && out.contains("1 passed"),
        "{out}\n{err}"
    );
    Some(())
}

/// The namespace's only server: at every address there is, port 80.
struct Tripwires {
    hits: Arc<Mutex<Vec<IpAddr>>>,
    location: Arc<Mutex<Option<String>>>,
}

impl Tripwires {
    /// Makes every address a local one, and listens.
    fn set() -> Self {
        for arguments in [
            "link set lo up",
            "route add local 0.0.0.0/0 dev lo",
            "-6 route add local ::/0 dev lo",
        ] {
            let status = Command::new("ip")
                .args(arguments.split(' '))
                .status()
                .unwrap();
            assert!(status.success(), "ip {arguments}");
        }
        let tripwires = Self {
            hits: Arc::default(),
            location: Arc::default(),
        };
        for address in [IpAddr::from([0, 0, 0, 0]), IpAddr::from([0_u16; 8])] {
            let socket = socket2::Socket::new(
                socket2::Domain::for_address(SocketAddr::new(address, 80)),
                socket2::Type::STREAM,
                None,
            );
            let socket = socket.unwrap();
            if address.is_ipv6() {
                socket.set_only_v6(true).unwrap();
            }
            socket.bind(&SocketAddr::new(address, 80).into()).unwrap();
            socket.listen(128).unwrap();
            let (hits, location) = (tripwires.hits.clone(), tripwires.location.clone());
            std::thread::spawn(move || {
                for stream in TcpListener::from(socket).incoming() {
                    let stream = stream.unwrap();
                    hits.lock().unwrap().push(stream.local_addr().unwrap().ip());
                    answer(stream, location.lock().unwrap().as_deref());
                }
            });
        }
        tripwires
    }

    /// What was dialled since the last call.
    fn hits(&self) -> Vec<IpAddr> {
        std::mem::take(&mut self.hits.lock().unwrap())
    }

    /// Nothing but the public server was.
    fn untouched(&self, what: &str) {
        let hits = self.hits();
        let public = |ip: &IpAddr| *ip == PUBLIC || *ip == PUBLIC_V6;
        assert!(hits.iter().all(public), "{what}: {hits:?}");
    }

    /// Sends those who ask for `/` elsewhere.
    fn redirect_to(&self, location: &str) {
        *self.location.lock().unwrap() = Some(location.to_owned());
    }
}

fn answer(mut stream: TcpStream, location: Option<&str>) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    if !read_head(&mut stream) {
        return;
    }
    let text = match location {
        Some(location) => {
            format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
        }
        None => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
    };
    let _ = stream.write_all(text.as_bytes());
}

/// The endpoint of a row with this URL; `None` where the row is refused.
fn row(url: &str) -> Option<Endpoint> {
    let row = EndpointRow {
        id: EndpointId(1),
        kind: "http".to_owned(),
        url: url.to_owned(),
        interval_s: 60,
        timeout_ms: Some(2_000),
        degraded_after_ms: None,
        cert_warn_days: None,
        regex: None,
        regex_not: None,
        settings: None,
        changed_at: Timestamp::default(),
    };
    endpoint(&row, &mut CheckCache::new(), &Unread).ok()
}

fn denies_private() -> PolicyOptions {
    PolicyOptions {
        deny_private: true,
        ..PolicyOptions::default()
    }
}

fn denied(sample: &Sample, what: &str) {
    let reason = sample.reason.map(watcher::domain::Reason::label);
    assert_eq!(reason, Some("address_denied"), "{what}: {sample:?}");
}

#[test]
fn denied_addresses_are_not_dialled_in_any_notation() {
    if outside("probe_denied::denied_addresses_are_not_dialled_in_any_notation").is_some() {
        return;
    }
    let tripwires = Tripwires::set();
    // The wires do trip.
    let open = PolicyOptions {
        allow: vec![
            "169.254.0.0/16".parse().unwrap(),
            "fe80::/10".parse().unwrap(),
        ],
        ..PolicyOptions::default()
    };
    up(&Rig::with_policy(open).get("http://2852039166/"));
    assert_eq!(tripwires.hits(), [IpAddr::from([169, 254, 169, 254])]);
    up(&Rig::new().get("http://127.0.0.1/"));
    assert_eq!(tripwires.hits(), [IpAddr::from([127, 0, 0, 1])]);

    let (default, strict) = (Rig::new(), Rig::with_policy(denies_private()));
    for (rig, urls) in [
        (&default, METADATA),
        (&strict, METADATA),
        (&strict, PRIVATE),
    ] {
        for url in urls {
            // As it stands in the table, and as a server says it.
            let endpoint = row(url).unwrap_or_else(|| panic!("{url} is refused"));
            denied(&rig.probe(&endpoint), url);
            assert_eq!(tripwires.hits(), NONE, "{url}");
            tripwires.redirect_to(url);
            let sample = rig.get(&format!("http://{PUBLIC}/"));
            denied(&sample, &format!("redirect to {url}"));
            assert_eq!(sample.hops, 1, "{url}");
            assert_eq!(tripwires.hits(), [IpAddr::V4(PUBLIC)], "{url}");
        }
        for url in TRICKS {
            *tripwires.location.lock().unwrap() = None;
            if let Some(endpoint) = row(url) {
                rig.probe(&endpoint);
            }
            tripwires.untouched(url);
            tripwires.redirect_to(url);
            rig.get(&format!("http://{PUBLIC}/"));
            tripwires.untouched(&format!("redirect to {url}"));
        }
    }
    // What is pinned is judged, too.
    for ip in ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1"] {
        let ip = ip.parse().unwrap();
        let pinned = endpoint_with(&format!("http://{PUBLIC}/"), |check| {
            check.connect_to = Some(PinnedAddress { ip, port: Some(80) });
        });
        denied(&default.probe(&pinned), "connect_to");
        tripwires.untouched("connect_to");
    }
}

#[test]
fn no_name_leads_to_a_denied_address() {
    if outside("probe_denied::no_name_leads_to_a_denied_address").is_some() {
        return;
    }
    let tripwires = Tripwires::set();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let metadata = ip("169.254.169.254");
    let names = NameServer::start(move |name, _| {
        let turn = count.fetch_add(1, Ordering::Relaxed);
        let (addresses, ttl) = match name {
            "public.test" => (vec![PUBLIC.into()], 60),
            "metadata.test" => (vec![metadata, ip("fd00:ec2::254")], 60),
            "mapped.test" => (
                vec![ip("::ffff:169.254.169.254"), ip("64:ff9b::a9fe:a9fe")],
                60,
            ),
            "private.test" => (vec![ip("10.0.0.1"), ip("127.0.0.1"), ip("fd12::1")], 60),
            "mixed.test" => (
                vec![metadata, PUBLIC.into(), ip("fe80::1"), PUBLIC_V6.into()],
                0,
            ),
            // Says something else each time.
            "rebinding.test" if turn.is_multiple_of(2) => (vec![PUBLIC.into()], 0),
            "rebinding.test" => (vec![metadata, ip("fe80::1")], 0),
            _ => return Reply::NoName,
        };
        Reply::Addresses(addresses, ttl)
    });
    let default = Rig::with(PolicyOptions::default(), Some(vec![names.address]));
    let strict = Rig::with(denies_private(), Some(vec![names.address]));
    up(&default.get("http://public.test/"));
    assert_eq!(tripwires.hits(), [IpAddr::V4(PUBLIC)]);
    for (rig, name) in [
        (&default, "metadata.test"),
        (&default, "mapped.test"),
        (&strict, "metadata.test"),
        (&strict, "private.test"),
    ] {
        denied(&rig.get(&format!("http://{name}/")), name);
        assert_eq!(tripwires.hits(), NONE, "{name}");
        tripwires.redirect_to(&format!("http://{name}/"));
        denied(&rig.get(&format!("http://{PUBLIC}/")), name);
        tripwires.untouched(name);
        *tripwires.location.lock().unwrap() = None;
    }
    // Of several addresses only those that are allowed are dialled.
    up(&default.get("http://mixed.test/"));
    tripwires.untouched("mixed.test");
    // Judged is what is dialled, not what the name said before.
    let (mut passed, mut refused) = (0, 0);
    for _ in 0..20 {
        let sample = default.get("http://rebinding.test/");
        match sample.reason {
            None => passed += 1,
            Some(_) => {
                down(&sample, Failure::AddressDenied);
                refused += 1;
            }
        }
    }
    assert!(
        passed > 0 && refused > 0,
        "{passed} passed, {refused} refused"
    );
    tripwires.untouched("rebinding.test");
    // A redirect to a name that changes between the hops.
    tripwires.redirect_to("http://rebinding.test/");
    for _ in 0..10 {
        let sample = default.get("http://rebinding.test/");
        assert!(sample.reason.is_some(), "{sample:?}");
    }
    tripwires.untouched("rebinding.test behind a redirect");
}

#[test]
fn the_command_refuses_them_too_and_asks_no_proxy() {
    if outside("probe_denied::the_command_refuses_them_too_and_asks_no_proxy").is_some() {
        return;
    }
    let tripwires = Tripwires::set();
    let probe = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watcher"));
        command
            .args(["probe", "--json", "--timeout", "2s"])
            .args(arguments);
        // What curl and others would obey.
        for name in [
            "http_proxy",
            "HTTP_PROXY",
            "https_proxy",
            "HTTPS_PROXY",
            "all_proxy",
            "ALL_PROXY",
        ] {
            command.env(name, "http://169.254.169.254:80");
        }
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let row: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        (
            output.status.code(),
            row["reason"].as_str().map(str::to_owned),
        )
    };
    assert_eq!(probe(&[&format!("http://{PUBLIC}/")]), (Some(0), None));
    assert_eq!(tripwires.hits(), [IpAddr::V4(PUBLIC)]);
    let refused = (Some(1), Some("address_denied".to_owned()));
    for url in [
        "http://0xa9fea9fe/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://100.100.100.200/",
    ] {
        assert_eq!(probe(&[url]), refused, "{url}");
    }
    for url in [
        "http://127.1/",
        "http://[::1]/",
        "http://10.0.0.1/",
        "http://localhost/",
    ] {
        assert_eq!(probe(&["--deny-private", url]), refused, "{url}");
    }
    assert_eq!(
        probe(&["--deny-addresses", "192.0.2.0/24", "http://192.0.2.1/"]),
        refused
    );
    assert_eq!(
        probe(&["--connect-to", "169.254.169.254", "http://192.0.2.1/"]),
        refused
    );
    assert_eq!(tripwires.hits(), NONE);
    assert_eq!(
        probe(&[
            "--allow-addresses",
            "10.0.0.0/8",
            "--deny-private",
            "http://10.0.0.1/"
        ])
        .0,
        Some(0)
    );
    assert_eq!(tripwires.hits(), [IpAddr::from([10, 0, 0, 1])]);
}
