//! A prober and the server that it asks, on one thread.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;
use watcher::domain::{Endpoint, Sample, Timestamp};
use watcher::net::policy::PolicyOptions;
use watcher::probe::matcher::{MatchThread, Matcher, MatcherOptions};
use watcher::probe::{Prober, ProberOptions};

/// Where the server listens. The ports are fixed, so that an input means the same in every run.
pub const ORIGINS: [&str; 3] = ["127.77.0.1:7701", "127.77.0.2:7701", "127.77.0.1:7702"];
/// The server listens here too, but the policy denies the address.
pub const TRIPWIRE: &str = "127.77.0.9:7701";

/// One request that came.
pub struct Asked {
    /// Which of our addresses was dialled.
    pub at: SocketAddr,
    /// What was sent, up to the end of its head.
    pub head: Vec<u8>,
}

/// A prober beside a server. Nothing it does leaves the machine: every address but the origins' is denied, and there
/// is no name server.
pub struct Site {
    prober: Prober,
    local: LocalSet,
    runtime: Runtime,
    script: Rc<Script>,
    _matching: MatchThread,
}

#[derive(Default)]
struct Script {
    /// What is sent in return, request by request; the last one again and again.
    answers: RefCell<Vec<Vec<u8>>>,
    asked: RefCell<Vec<Asked>>,
}

impl Site {
    /// Starts both.
    pub fn start() -> Self {
        let (matcher, matching) = Matcher::start(MatcherOptions::default()).unwrap();
        let net = |text: &str| text.parse().unwrap();
        let policy = PolicyOptions {
            allow: vec![net("127.77.0.1/32"), net("127.77.0.2/32")],
            deny: vec![net("0.0.0.0/0"), net("::/0")],
            deny_private: true,
        };
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let local = LocalSet::new();
        let script = Rc::new(Script::default());
        local.block_on(&runtime, async {
            for address in ORIGINS.into_iter().chain([TRIPWIRE]) {
                let listener = TcpListener::bind(address).await.unwrap();
                tokio::task::spawn_local(serve(listener, Rc::clone(&script)));
            }
        });
        Self {
            prober: Prober::new(ProberOptions {
                policy,
                name_servers: Some(Vec::new()),
                matcher,
                suspect_above: watcher::probe::SUSPECT_ABOVE,
            }),
            local,
            runtime,
            script,
            _matching: matching,
        }
    }

    /// One probe, and what the server was asked.
    pub fn probe(&self, endpoint: &Endpoint, answers: Vec<Vec<u8>>) -> (Sample, Vec<Asked>) {
        *self.script.answers.borrow_mut() = answers;
        self.script.asked.borrow_mut().clear();
        let now = Timestamp::from_millis(1_800_000_000_000);
        let sample = self
            .local
            .block_on(&self.runtime, self.prober.probe(endpoint, now, now));
        // A connection that the tripwire has in its queue must be seen.
        self.local.block_on(&self.runtime, tokio::task::yield_now());
        (sample, self.script.asked.take())
    }
}

async fn serve(listener: TcpListener, script: Rc<Script>) {
    let at = listener.local_addr().unwrap();
    while let Ok((stream, peer)) = listener.accept().await {
        assert_eq!(peer.ip(), Ipv4Addr::LOCALHOST, "not from here");
        assert!(
            at != TRIPWIRE.parse().unwrap(),
            "a denied address was dialled"
        );
        tokio::task::spawn_local(answer(stream, at, Rc::clone(&script)));
    }
}

async fn answer(mut stream: TcpStream, at: SocketAddr, script: Rc<Script>) {
    let mut head = vec![0; 4_096];
    let Ok(len) = stream.read(&mut head).await else {
        return;
    };
    head.truncate(len);
    let bytes = {
        let (mut asked, answers) = (script.asked.borrow_mut(), script.answers.borrow());
        let answer = answers.get(asked.len()).or(answers.last());
        let answer = answer.cloned().unwrap_or_default();
        asked.push(Asked { at, head });
        answer
    };
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
    // Until the prober leaves: it resets, and no port waits.
    let mut rest = [0; 1_024];
    while matches!(stream.read(&mut rest).await, Ok(1..)) {}
}
