//! One question in one datagram, asked by the probe that wants the answer: what `dns: fresh` measures.
//!
//! In the resolver a question and its answer pass through tasks that each wait for their turn. At half load that was 0.5 ms
//! (p99 2.2), and since no one can tell it from the name server's own time, the bound on the agent's error was ten times
//! as wide. Here the probe hears the answer itself, with the kernel's stamp on it.
//!
//! Only what is plain counts: addresses, for the name as it is written. Whatever else there is to do (`/etc/hosts`, search
//! lists, TCP for long answers, other name servers, what a failure means) is the resolver's.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::Hosts;
use hickory_resolver::config::{ProtocolConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::Addresses;
use crate::domain::IpFamily;
use crate::net::arrival::{receive, want_stamps};

/// Answers of this size pass every network in one piece (DNS flag day 2020); longer ones come by TCP.
const ANSWER_BYTES_MAX: u16 = 1_232;
/// Names that are no name server's to answer (RFC 6761, RFC 7686).
const SPECIAL: [&str; 3] = ["localhost", "invalid", "onion"];

/// An answer that the probe itself heard.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) addresses: Addresses,
    pub(super) at: Instant,
    /// How long it had been there, by the kernel's stamp.
    pub(super) age: Option<Duration>,
}

/// Whom to ask, and for which names.
#[derive(Debug)]
pub(super) struct Direct {
    servers: Vec<SocketAddr>,
    /// Which of them is asked.
    preferred: Cell<usize>,
    hosts: Option<Hosts>,
    /// A name with fewer is looked for elsewhere first.
    dots_min: usize,
}

/// What a datagram says to a question.
#[derive(PartialEq, Debug)]
enum Said {
    Addresses(Addresses),
    /// There are none of this type.
    Nothing,
    /// It takes more than this to know.
    Unclear,
}

impl Direct {
    pub(super) fn new(config: &ResolverConfig, options: &ResolverOpts) -> Self {
        let udp = |protocol: &ProtocolConfig| matches!(protocol, ProtocolConfig::Udp);
        let servers = config.name_servers().iter().filter_map(|server| {
            let mut connections = server.connections.iter();
            let connection = connections.find(|connection| udp(&connection.protocol))?;
            Some(SocketAddr::new(server.ip, connection.port))
        });
        let hosts = match options.use_hosts_file {
            ResolveHosts::Never => None,
            _ => Hosts::from_system().ok(),
        };
        Self {
            servers: servers.collect(),
            preferred: Cell::new(0),
            hosts,
            dots_min: options.ndots,
        }
    }

    /// Which name server is asked now.
    pub(super) fn preferred(&self) -> usize {
        self.preferred.get()
    }

    /// The name server that was asked was silent: from now on another is. Many may say so of the same one.
    pub(super) fn leave(&self, silent: usize) {
        if self.preferred.get() == silent {
            let next = (silent + 1).checked_rem(self.servers.len());
            self.preferred.set(next.unwrap_or(0));
            // No louder: where none answers, each is left in turn, and the samples say so.
            tracing::debug!(server = ?self.servers.get(silent), "a name server was silent; the next is asked");
        }
    }

    /// Asks for the addresses of `host`: IPv4 first and IPv6 when there is none, or one of the two. `None` where that is not
    /// all there is to it. Waits for as long as the name server takes.
    pub(super) async fn ask(&self, host: &str, family: IpFamily) -> Option<Heard> {
        let server = *self.servers.get(self.preferred.get())?;
        let name = self.name(host)?;
        let kinds: &[RecordType] = match family {
            IpFamily::Any => &[RecordType::A, RecordType::AAAA],
            IpFamily::V4 => &[RecordType::A],
            IpFamily::V6 => &[RecordType::AAAA],
        };
        for &kind in kinds {
            let (said, at, age) = exchange(server, &name, kind).await.ok()?;
            match said {
                Said::Addresses(addresses) => return Some(Heard { addresses, at, age }),
                Said::Nothing => {}
                Said::Unclear => return None,
            }
        }
        None
    }

    /// `host` as a name to ask for, if it is asked for as it is before all else.
    fn name(&self, host: &str) -> Option<Name> {
        let mut name = Name::from_ascii(host).ok()?;
        let is_whole = name.is_fqdn() || usize::from(name.num_labels()) > self.dots_min;
        let last = host.trim_end_matches('.').rsplit('.').next()?;
        let is_special = SPECIAL.iter().any(|it| last.eq_ignore_ascii_case(it));
        name.set_fqdn(true);
        (is_whole && !is_special && !self.is_host(&name)).then_some(name)
    }

    fn is_host(&self, name: &Name) -> bool {
        let Some(hosts) = &self.hosts else {
            return false;
        };
        let mut kinds = [RecordType::A, RecordType::AAAA].into_iter();
        kinds.any(|kind| {
            let query = Query::query(name.clone(), kind);
            hosts.lookup_static_host(&query).is_some()
        })
    }
}

/// Asks, and waits for the answer to that.
async fn exchange(
    server: SocketAddr,
    name: &Name,
    kind: RecordType,
) -> io::Result<(Said, Instant, Option<Duration>)> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(ANSWER_BYTES_MAX);
    question.set_edns(edns);
    let socket = sent(server, &question.to_vec().map_err(io::Error::other)?)?;
    let mut datagram = [0; ANSWER_BYTES_MAX as usize];
    loop {
        let (bytes, age) = socket
            .async_io(Interest::READABLE, || receive(&socket, &mut datagram))
            .await?;
        let at = Instant::now();
        if let Some(said) = said(&datagram[..bytes], &question) {
            return Ok((said, at, age));
        }
    }
}

/// A socket of this question's own, at a port that nobody can guess, which hears this name server alone.
fn sent(server: SocketAddr, question: &[u8]) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    want_stamps(&socket);
    socket.connect(&server.into())?;
    socket.send(question)?;
    UdpSocket::from_std(socket.into())
}

/// What `datagram` says; `None` where it is no answer to `question`: somebody else made it up.
fn said(datagram: &[u8], question: &Message) -> Option<Said> {
    let answer = Message::from_vec(datagram).ok()?;
    let is_answer = answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == question.metadata.id;
    // A server that does not understand the question may leave it out.
    let is_same = answer.queries.is_empty() || answer.queries == question.queries;
    if !(is_answer && is_same) {
        return None;
    }
    let is_plain = answer.metadata.response_code == ResponseCode::NoError
        && !answer.metadata.truncation
        && !answer.queries.is_empty();
    let asked = question.queries.first().filter(|_| is_plain);
    Some(asked.map_or(Said::Unclear, |asked| {
        addresses(&answer, asked.name(), asked.query_type())
    }))
}

/// The addresses that the name comes to, by way of its aliases.
fn addresses(answer: &Message, name: &Name, kind: RecordType) -> Said {
    let mut name = name;
    // Each alias leads on at most once.
    for _ in 0..=answer.answers.len() {
        let of_name = || answer.answers.iter().filter(|record| record.name == *name);
        let addresses: Addresses = of_name()
            .filter_map(|record| match (&record.data, kind) {
                (RData::A(a), RecordType::A) => Some(IpAddr::V4(a.0)),
                (RData::AAAA(aaaa), RecordType::AAAA) => Some(IpAddr::V6(aaaa.0)),
                _ => None,
            })
            .collect();
        if !addresses.is_empty() {
            return Said::Addresses(addresses);
        }
        let alias = of_name().find_map(|record| match &record.data {
            RData::CNAME(alias) => Some(&alias.0),
            _ => None,
        });
        match alias {
            Some(alias) => name = alias,
            // The server knows of an alias, and not what that is.
            None if !answer.answers.is_empty() => return Said::Unclear,
            None => return Said::Nothing,
        }
    }
    Said::Unclear
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::op::OpCode;
    use hickory_resolver::proto::rr::Record;
    use hickory_resolver::proto::rr::rdata::CNAME;

    fn direct(dots_min: usize) -> Direct {
        Direct {
            servers: vec![([127, 0, 0, 1], 53).into(), ([127, 0, 0, 2], 53).into()],
            preferred: Cell::new(0),
            hosts: None,
            dots_min,
        }
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn question() -> Message {
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(name("a.test."), RecordType::A));
        question
    }

    fn record(owner: &str, data: impl Into<RData>) -> Record {
        Record::from_rdata(name(owner), 60, data.into())
    }

    fn alias(owner: &str, of: &str) -> Record {
        record(owner, RData::CNAME(CNAME(name(of))))
    }

    fn address(owner: &str, last: u8) -> Record {
        record(owner, IpAddr::from([192, 0, 2, last]))
    }

    fn says(change: impl FnOnce(&mut Message)) -> Option<Said> {
        let mut answer = question().into_response();
        change(&mut answer);
        said(&answer.to_vec().unwrap(), &question())
    }

    fn told(last: &[u8]) -> Option<Said> {
        let addresses = last.iter().map(|&last| IpAddr::from([192, 0, 2, last]));
        Some(Said::Addresses(addresses.collect()))
    }

    #[test]
    fn names_that_are_looked_for_elsewhere_first_are_not_asked_for() {
        for (host, dots_min, is_asked_for) in [
            ("a.test", 1, true),
            ("a.test.", 1, true),
            ("single", 1, false),
            ("single.", 1, true),
            ("svc.ns.cluster.local", 5, false),
            ("svc.ns.cluster.local.", 5, true),
            ("x.localhost", 1, false),
            ("x.Invalid.", 1, false),
            ("x.onion", 1, false),
        ] {
            let name = direct(dots_min).name(host);
            assert_eq!(name.is_some(), is_asked_for, "{host}");
            assert!(name.is_none_or(|name| name.is_fqdn()));
        }
        let mut hosts = Hosts::default();
        hosts
            .read_hosts_conf("192.0.2.1 known.test".as_bytes())
            .unwrap();
        let knowing = Direct {
            hosts: Some(hosts),
            ..direct(1)
        };
        assert!(knowing.name("known.test").is_none());
        assert!(knowing.name("other.test").is_some());
    }

    #[test]
    fn addresses_are_those_of_the_name_and_its_aliases() {
        assert_eq!(
            says(|it| it.answers = vec![address("a.test.", 1), address("a.test.", 2)]),
            told(&[1, 2])
        );
        let chain = || {
            vec![
                address("c.test.", 3),
                alias("b.test.", "c.test."),
                alias("A.test.", "b.test."),
            ]
        };
        assert_eq!(says(|it| it.answers = chain()), told(&[3]));
        // Of somebody else; an alias of itself; one that leads nowhere.
        for answers in [
            vec![address("b.test.", 4)],
            vec![alias("a.test.", "b.test."), alias("b.test.", "a.test.")],
            vec![alias("a.test.", "b.test.")],
        ] {
            assert_eq!(says(|it| it.answers = answers), Some(Said::Unclear));
        }
        assert_eq!(says(|_| ()), Some(Said::Nothing));
    }

    #[test]
    fn what_is_not_plain_is_unclear_and_what_is_no_answer_is_not_heard() {
        let full = |it: &mut Message| it.answers = vec![address("a.test.", 1)];
        let unclear = Some(Said::Unclear);
        let truncated = |it: &mut Message| it.metadata.truncation = true;
        assert_eq!(says(|it| (full(it), truncated(it)).1), unclear);
        let refused = |it: &mut Message| it.metadata.response_code = ResponseCode::Refused;
        assert_eq!(says(refused), unclear);
        assert_eq!(says(|it| (refused(it), it.queries.clear()).1), unclear);
        assert_eq!(says(|it| (full(it), it.queries.clear()).1), unclear);
        assert_eq!(says(|it| (full(it), it.metadata.id = 8).1), None);
        let asks = |it: &mut Message| it.metadata.message_type = MessageType::Query;
        assert_eq!(says(|it| (full(it), asks(it)).1), None);
        let other = Query::query(name("b.test."), RecordType::A);
        assert_eq!(says(|it| (full(it), it.queries = vec![other]).1), None);
        assert_eq!(said(b"nonsense", &question()), None);
    }

    #[test]
    fn a_silent_server_is_left_once_for_the_next_and_the_last_for_the_first() {
        let direct = direct(1);
        let leave = |silent| {
            direct.leave(silent);
            direct.preferred()
        };
        assert_eq!([0, 0, 1, 1].map(leave), [1, 1, 0, 0]);
        let nobody = Direct {
            servers: Vec::new(),
            ..direct
        };
        nobody.leave(0);
        assert_eq!(nobody.preferred(), 0);
    }
}
