//! The name servers: one question to them, and whether they are alive at all.

use std::cell::Cell;
use std::convert::Infallible;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{TokioResolver, lookup::Lookup};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::cache::Answer;
use super::direct::{Direct, Heard};
use super::{Addresses, ResolveError};
use crate::domain::{IpFamily, SkipReason};
use crate::net::connect::exhausted;

/// Questions under way at a time, directly and by the resolver each. One holds a socket for as long as a name server takes; ten thousand endpoints that
/// start together must not use up the descriptors that their probes need.
const QUESTIONS_MAX: usize = 256;
/// A datagram is taken for lost after this. `resolv.conf`'s default of 5 s is as long as a whole probe may take.
const DATAGRAM_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a question may go unanswered before the servers are asked for the root, which they know by heart.
const DOUBT_AFTER: Duration = Duration::from_millis(300);
/// How long they have for that answer before they count as unreachable.
const ROOT_WITHIN: Duration = Duration::from_millis(200);

const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// The configured name servers with `/etc/hosts` before them.
#[derive(Debug)]
pub(super) struct Servers {
    resolver: Option<TokioResolver>,
    direct: Direct,
    /// When the files that this was made from were changed.
    files: [Option<SystemTime>; 2],
    slots: Semaphore,
    /// Of those that are asked directly: they wait beside the resolver's when a server is silent.
    direct_slots: Semaphore,
    /// When a server last said anything.
    heard: Cell<Option<Instant>>,
    /// Since when the question for the root has been waiting.
    doubted: Cell<Option<Instant>>,
}

impl Servers {
    /// By `/etc/resolv.conf`; none when it is missing, damaged or empty.
    pub(super) fn of_system() -> Self {
        let files = changed();
        let (config, options) =
            hickory_resolver::system_conf::read_system_conf().unwrap_or_else(|source| {
                tracing::warn!(
                    error = %source,
                    "/etc/resolv.conf names no name server: only addresses and names in /etc/hosts can be probed"
                );
                (ResolverConfig::default(), ResolverOpts::default())
            });
        Self::new(config, options, files)
    }

    /// The given servers, without `/etc/hosts`.
    pub(super) fn at(servers: &[SocketAddr]) -> Self {
        let servers = servers.iter().map(|server| {
            let at_port = |mut connection: ConnectionConfig| {
                connection.port = server.port();
                connection
            };
            let connections = vec![
                at_port(ConnectionConfig::udp()),
                at_port(ConnectionConfig::tcp()),
            ];
            NameServerConfig::new(server.ip(), true, connections)
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        let mut options = ResolverOpts::default();
        options.use_hosts_file = ResolveHosts::Never;
        Self::new(config, options, [None; 2])
    }

    fn new(
        config: ResolverConfig,
        mut options: ResolverOpts,
        files: [Option<SystemTime>; 2],
    ) -> Self {
        options.cache_size = 0;
        options.timeout = options.timeout.min(DATAGRAM_TIMEOUT);
        options.max_active_requests = QUESTIONS_MAX * 2;
        let direct = Direct::new(&config, &options);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder
            .build()
            .inspect_err(|source| tracing::warn!(error = %source, "no resolver could be made"))
            .ok();
        Self {
            resolver,
            direct,
            files,
            slots: Semaphore::new(QUESTIONS_MAX),
            direct_slots: Semaphore::new(QUESTIONS_MAX),
            heard: Cell::new(None),
            doubted: Cell::new(None),
        }
    }

    /// Whether the files that this was made from have changed.
    pub(super) fn is_stale(&self) -> bool {
        self.files != changed()
    }

    /// Asks for the addresses of `name`: IPv4 first and IPv6 when there is none, or one of the two.
    pub(super) async fn ask(&self, name: &str, family: IpFamily) -> Answer {
        let _slot = self.slots.acquire().await;
        let start = Instant::now();
        let answer = tokio::select! {
            biased;
            answer = self.ask_family(name, family) => answer,
            never = self.doubt(start) => match never {},
        };
        match answer {
            Ok((addresses, ttl)) => Answer {
                result: Ok(addresses),
                ttl,
            },
            Err(error) => self.explain(&error, start),
        }
    }

    /// Asks for the addresses of `name` without the resolver's tasks, for the caller alone. `None` where the answer is not
    /// a plain one, or nothing can be asked now: then [`Self::ask`] tells.
    pub(super) async fn ask_directly(&self, name: &str, family: IpFamily) -> Option<Heard> {
        let _slot = self.direct_slots.try_acquire().ok()?;
        let heard = tokio::select! {
            biased;
            heard = self.direct.ask(name, family) => heard?,
            never = self.doubt(Instant::now()) => match never {},
        };
        self.heard();
        Some(heard)
    }

    /// Which name server is asked directly now; to be named where it turns out silent.
    pub(super) fn directly(&self) -> usize {
        self.direct.preferred()
    }

    /// That one said nothing while the resolver had an answer, or gave up.
    pub(super) fn was_silent(&self, server: usize) {
        self.direct.leave(server);
    }

    async fn ask_family(
        &self,
        name: &str,
        family: IpFamily,
    ) -> Result<(Addresses, Duration), NetError> {
        match family {
            IpFamily::V4 => self.ask_type(name, RecordType::A).await,
            IpFamily::V6 => self.ask_type(name, RecordType::AAAA).await,
            IpFamily::Any => match self.ask_type(name, RecordType::A).await {
                Err(error) if error.is_no_records_found() && !error.is_nx_domain() => {
                    self.ask_type(name, RecordType::AAAA).await
                }
                answer => answer,
            },
        }
    }

    async fn ask_type(
        &self,
        name: &str,
        kind: RecordType,
    ) -> Result<(Addresses, Duration), NetError> {
        let resolver = self.resolver.as_ref().ok_or(NetError::NoConnections)?;
        let answer = resolver.lookup(name, kind).await;
        self.listen(&answer);
        let answer = answer?;
        let addresses: Addresses = answer
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::A(a) => Some(IpAddr::V4(a.0)),
                RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
                _ => None,
            })
            .collect();
        if addresses.is_empty() {
            return Err(NetError::Message("the answer holds no address"));
        }
        let ttl = answer
            .valid_until()
            .saturating_duration_since(Instant::now());
        Ok((addresses, ttl))
    }

    fn listen(&self, answer: &Result<Lookup, NetError>) {
        if !answer.as_ref().is_err_and(is_silence) {
            self.heard();
        }
    }

    fn heard(&self) {
        self.heard.set(Some(Instant::now()));
        self.doubted.set(None);
    }

    /// While a question started at `start` is not answered and nothing else is either, asks for the root, one at a
    /// time for all questions.
    async fn doubt(&self, start: Instant) -> Infallible {
        loop {
            sleep(DOUBT_AFTER).await;
            if self.heard.get() >= Some(start) || self.doubted.get().is_some() {
                continue;
            }
            let Some(resolver) = &self.resolver else {
                continue;
            };
            let _doubt = Doubt::of(&self.doubted);
            let answer = resolver.lookup(Name::root(), RecordType::NS).await;
            self.listen(&answer);
        }
    }

    /// See [`super::Resolver::overdue`].
    pub(super) fn overdue(&self, since: Instant) -> ResolveError {
        let is_dead = self.heard.get() < Some(since)
            && self
                .doubted
                .get()
                .is_some_and(|at| at.elapsed() >= ROOT_WITHIN);
        if is_dead {
            unreachable_servers("no name server answers")
        } else {
            ResolveError::TimedOut
        }
    }

    fn explain(&self, error: &NetError, start: Instant) -> Answer {
        let lasting = |result, ttl| Answer {
            result: Err(result),
            ttl,
        };
        let passing = |result| lasting(result, Duration::ZERO);
        match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => {
                let ttl = Duration::from_secs(none.negative_ttl.unwrap_or(0).into());
                let detail = if error.is_nx_domain() {
                    "the name does not exist"
                } else {
                    "the name has no address of the wanted family"
                };
                lasting(ResolveError::NotFound(detail.into()), ttl)
            }
            NetError::Io(source) => {
                let skip = exhausted(source).unwrap_or(SkipReason::ResolverDown);
                passing(ResolveError::Agent {
                    skip,
                    detail: format!("asking the name servers: {source}").into(),
                })
            }
            NetError::NoConnections => passing(unreachable_servers(
                "no name server is configured or answers",
            )),
            NetError::Timeout if self.heard.get() >= Some(start) => passing(ResolveError::TimedOut),
            NetError::Timeout => passing(unreachable_servers("no name server answers")),
            NetError::Busy => passing(ResolveError::Agent {
                skip: SkipReason::AgentError,
                detail: "too many questions to the name servers at a time".into(),
            }),
            other => passing(ResolveError::Server(other.to_string().into())),
        }
    }
}

/// The question for the root, for as long as it is under way.
struct Doubt<'a>(&'a Cell<Option<Instant>>);

impl<'a> Doubt<'a> {
    fn of(doubted: &'a Cell<Option<Instant>>) -> Self {
        doubted.set(Some(Instant::now()));
        Self(doubted)
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

fn is_silence(error: &NetError) -> bool {
    matches!(
        error,
        NetError::Timeout | NetError::Io(_) | NetError::NoConnections | NetError::Busy
    )
}

fn unreachable_servers(detail: &str) -> ResolveError {
    ResolveError::Agent {
        skip: SkipReason::ResolverDown,
        detail: Rc::from(detail),
    }
}

fn changed() -> [Option<SystemTime>; 2] {
    FILES.map(|file| fs::metadata(file).and_then(|m| m.modified()).ok())
}
