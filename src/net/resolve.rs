//! Names to addresses: `/etc/hosts`, the name servers of `resolv.conf`, and a cache in front of them that lives on the
//! probe thread.
//!
//! The cache is our own because a sample has to say whether its name was asked for. One question per name is under way
//! at a time, whoever wants the answer waits for it; the question goes on when the probe that asked first is cut off.
//!
//! A fresh name is not shared, and ends with its probe: that asks by itself (`direct`), and what is above only where there
//! is more to it than a plain answer.

mod cache;
mod direct;
mod servers;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::Shared;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::cache::{Answer, Cache};
use self::direct::Heard;
use self::servers::Servers;
use crate::domain::{DnsMode, Failure, IpFamily, SkipReason};

/// The addresses of a name, in the order in which they should be tried. Shared with the cache.
pub type Addresses = Rc<[IpAddr]>;

/// What a name came to.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// At least one address of the wanted family.
    pub addresses: Addresses,
    /// How long the answer took; absent for an address written as such and for one from the cache.
    pub took: Option<Duration>,
    /// When the asker itself heard the answer, and how long that had been there by the kernel's stamp; absent where it came
    /// through tasks of the resolver.
    pub heard: Option<Arrived>,
}

/// When an answer was read, and how long it had been there.
pub type Arrived = (Instant, Option<Duration>);

/// Why a name has no address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ResolveError {
    /// It does not exist, or has no address of the wanted family.
    #[error("{0}")]
    NotFound(Rc<str>),
    /// The name servers' answer is a failure, or makes no sense.
    #[error("{0}")]
    Server(Rc<str>),
    /// The name servers are alive, but did not answer this question within their time.
    #[error("no answer from the name servers")]
    TimedOut,
    /// Our own fault: no name server answers anything, or there was no descriptor for asking.
    #[error("{detail}")]
    Agent {
        /// Which fault.
        skip: SkipReason,
        /// For a person.
        detail: Rc<str>,
    },
}

impl ResolveError {
    /// The failure it is to the target, or the agent's own fault.
    pub fn cause(&self) -> Result<Failure, SkipReason> {
        match self {
            Self::NotFound(_) => Ok(Failure::DnsNotFound),
            Self::Server(_) => Ok(Failure::DnsError),
            Self::TimedOut => Ok(Failure::DnsTimeout),
            Self::Agent { skip, .. } => Err(*skip),
        }
    }
}

/// A question that is under way; every probe that wants the answer holds a clone.
type Question = Shared<oneshot::Receiver<Answer>>;

/// How often the system's files are looked at for changes, at most.
const SYSTEM_LOOK: Duration = Duration::from_secs(5);

/// A name server that is asked directly and says nothing for so long may be dead, or its answer lost.
const SILENCE: Duration = Duration::from_millis(300);

/// Resolves names for all probes of a thread. Used inside a tokio `LocalSet`.
#[derive(Debug)]
pub struct Resolver {
    cache: Rc<RefCell<Cache<Question>>>,
    servers: RefCell<Rc<Servers>>,
    /// Owns the questions: they end by the name servers' timeouts, or with the resolver.
    asking: RefCell<JoinSet<()>>,
    /// When the system's files were last looked at; absent when they are not followed.
    looked_at: Option<Cell<Instant>>,
}

impl Resolver {
    /// Uses `/etc/resolv.conf` and `/etc/hosts`, and follows their changes. Either may be missing: a name that would
    /// have to be asked for is then the agent's own fault, addresses and names in `/etc/hosts` work.
    pub fn of_system() -> Self {
        Self::new(Servers::of_system(), Some(Cell::new(Instant::now())))
    }

    /// Asks the given name servers (UDP, then TCP) and nothing else, for tests and embedded use.
    pub fn with_servers(servers: &[SocketAddr]) -> Self {
        Self::new(Servers::at(servers), None)
    }

    fn new(servers: Servers, looked_at: Option<Cell<Instant>>) -> Self {
        Self {
            cache: Rc::default(),
            servers: RefCell::new(Rc::new(servers)),
            asking: RefCell::new(JoinSet::new()),
            looked_at,
        }
    }

    /// The addresses of `host`: a name, an IPv4 address, or an IPv6 address in brackets. Has no deadline of its own;
    /// who has one asks [`Self::overdue`] what its passing means.
    pub async fn resolve(
        &self,
        host: &str,
        family: IpFamily,
        mode: DnsMode,
    ) -> Result<Resolved, ResolveError> {
        if let Some(address) = literal(host) {
            return of_literal(address, family);
        }
        let start = Instant::now();
        if mode == DnsMode::Cached {
            let cached = self.cache.borrow().answer(host, family, start);
            if let Some(result) = cached {
                return result.map(|addresses| Resolved {
                    addresses,
                    took: None,
                    heard: None,
                });
            }
        }
        let (result, heard) = match mode {
            DnsMode::Cached => (self.asked(host, family).await, None),
            // Boxed: room for an answer would be part of every probe's future.
            DnsMode::Fresh => Box::pin(self.heard(host, family)).await,
        };
        result.map(|addresses| Resolved {
            addresses,
            took: Some(start.elapsed()),
            heard,
        })
    }

    /// Asks a name server directly, and all of them by the resolver when that takes long, or more is to be done.
    async fn heard(
        &self,
        host: &str,
        family: IpFamily,
    ) -> (Result<Addresses, ResolveError>, Option<Arrived>) {
        self.follow_system();
        let servers = Rc::clone(&self.servers.borrow());
        let server = servers.directly();
        let all = async {
            sleep(SILENCE).await;
            self.asked(host, family).await
        };
        tokio::select! {
            biased;
            heard = servers.ask_directly(host, family) => match heard {
                Some(Heard { addresses, at, age }) => (Ok(addresses), Some((at, age))),
                None => (self.asked(host, family).await, None),
            },
            result = all => {
                servers.was_silent(server);
                (result, None)
            }
        }
    }

    /// What the resolver says, which is asked once for all who want to know at a time.
    async fn asked(&self, host: &str, family: IpFamily) -> Result<Addresses, ResolveError> {
        let answer = self.question(host, family).await;
        answer.map_or_else(|_| Err(cut_off()), |answer| answer.result)
    }

    /// What it means that a question asked at `since` has no answer yet and its asker cannot wait any longer.
    pub fn overdue(&self, since: Instant) -> ResolveError {
        self.servers.borrow().overdue(since)
    }

    /// Joins the question for a name that is under way, or asks.
    fn question(&self, host: &str, family: IpFamily) -> Question {
        if let Some(question) = self.cache.borrow().question(host, family) {
            return question;
        }
        self.follow_system();
        let (tell, told) = oneshot::channel();
        let question = told.shared();
        self.cache
            .borrow_mut()
            .asking(host, family, question.clone());
        let servers = Rc::clone(&self.servers.borrow());
        let cache = Rc::clone(&self.cache);
        let host = Box::<str>::from(host);
        let mut asking = self.asking.borrow_mut();
        while asking.try_join_next().is_some() {}
        asking.spawn_local(async move {
            let answer = servers.ask(&host, family).await;
            cache
                .borrow_mut()
                .answered(&host, family, &answer, Instant::now());
            let _ = tell.send(answer);
        });
        question
    }

    fn follow_system(&self) {
        let Some(looked_at) = &self.looked_at else {
            return;
        };
        let now = Instant::now();
        if now.duration_since(looked_at.get()) < SYSTEM_LOOK {
            return;
        }
        looked_at.set(now);
        let is_stale = self.servers.borrow().is_stale();
        if is_stale {
            *self.servers.borrow_mut() = Rc::new(Servers::of_system());
            self.cache.borrow_mut().forget_answers();
        }
    }
}

/// `host` as an address, if it is one. The URL parser has already made odd notations (decimal, octal) plain.
pub fn literal(host: &str) -> Option<IpAddr> {
    // No top-level domain begins or ends with a digit: most names need no parsing.
    if let Some(v6) = host.strip_prefix('[') {
        let v6: Ipv6Addr = v6.strip_suffix(']')?.parse().ok()?;
        return Some(IpAddr::V6(v6));
    }
    let last = host.as_bytes().last()?;
    if !last.is_ascii_digit() {
        return None;
    }
    host.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

fn of_literal(address: IpAddr, family: IpFamily) -> Result<Resolved, ResolveError> {
    if !is_of(address, family) {
        let detail = format!("{address} is not of the wanted IP family");
        return Err(ResolveError::NotFound(detail.into()));
    }
    Ok(Resolved {
        addresses: Rc::new([address]),
        took: None,
        heard: None,
    })
}

/// Whether `address` may be used where `family` is wanted.
pub fn is_of(address: IpAddr, family: IpFamily) -> bool {
    match family {
        IpFamily::Any => true,
        IpFamily::V4 => address.is_ipv4(),
        IpFamily::V6 => address.is_ipv6(),
    }
}

fn cut_off() -> ResolveError {
    ResolveError::Agent {
        skip: SkipReason::AgentError,
        detail: "the question was dropped".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_need_no_name_server() {
        let resolver = Resolver::with_servers(&[]);
        for (host, family, expected) in [
            ("127.0.0.1", IpFamily::Any, Some("127.0.0.1")),
            ("[::1]", IpFamily::Any, Some("::1")),
            ("[::1]", IpFamily::V6, Some("::1")),
            ("[::1]", IpFamily::V4, None),
            ("127.0.0.1", IpFamily::V6, None),
        ] {
            let resolved = resolver.resolve(host, family, DnsMode::Cached).await;
            let got = resolved.as_ref().ok().map(|r| r.addresses[0].to_string());
            assert_eq!(got.as_deref(), expected, "{host} {family:?}");
            assert!(resolved.ok().is_none_or(|r| r.took.is_none()));
        }
    }

    #[tokio::test]
    async fn without_name_servers_a_name_is_our_own_fault() {
        let local = tokio::task::LocalSet::new();
        let resolver = Resolver::with_servers(&[]);
        let answer = local
            .run_until(resolver.resolve("example.com", IpFamily::Any, DnsMode::Cached))
            .await;
        assert_eq!(answer.unwrap_err().cause(), Err(SkipReason::ResolverDown));
    }

    #[tokio::test]
    async fn localhost_needs_no_name_server() {
        let local = tokio::task::LocalSet::new();
        let resolver = Resolver::with_servers(&[]);
        let answer = local
            .run_until(resolver.resolve("localhost", IpFamily::Any, DnsMode::Fresh))
            .await;
        assert!(answer.unwrap().addresses[0].is_loopback());
    }
}
