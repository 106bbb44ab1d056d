//! The real binary as a child process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// `watcher`, with nothing of our own environment that it would read.
pub(crate) fn watcher() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_watcher")))
}

fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars() {
        if name.starts_with("WATCHER_") || name.starts_with("PG") || name == "DATABASE_URL" {
            command.env_remove(name);
        }
    }
    command.kill_on_drop(true);
    command
}

/// A `watcher up` or `watcher agent` that runs.
pub(crate) struct Running {
    child: Child,
    pub(crate) listen: SocketAddr,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Running {
    /// Starts `watcher` with these arguments and variables, listening on a loopback port of its own.
    pub(crate) fn start(arguments: &[&str], env: &[(&str, &str)]) -> Self {
        Self::start_under(&[], arguments, env)
    }

    /// Likewise, by a command that replaces itself with `watcher`.
    pub(crate) fn start_under(by: &[&str], arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let listen = free_address();
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut command = watcher();
        if let [first, rest @ ..] = by {
            let program = command.as_std().get_program().to_owned();
            command = clean(Command::new(first));
            command.args(rest).arg(program);
        }
        let child = command
            .args(arguments)
            .env("WATCHER_LISTEN", listen.to_string())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            listen,
            log,
            _folder: folder,
        }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().expect("it runs") as i32).unwrap()
    }

    /// Processes that it has started.
    pub(crate) fn children(&self) -> Vec<Pid> {
        let pid = self.pid().as_raw_nonzero();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = std::fs::read_to_string(path).unwrap();
        text.split_whitespace()
            .map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap())
            .collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        match timeout(Duration::from_secs(30), self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("it does not end:\n{}", self.log()),
        }
    }

    /// SIGTERM, and the time that it took to end with status 0.
    pub(crate) async fn stop(mut self) -> Duration {
        let begun = Instant::now();
        self.signal(Signal::TERM);
        let status = self.ended().await;
        assert!(status.success(), "{status}:\n{}", self.log());
        begun.elapsed()
    }

    /// Waits until `/ready` says so.
    pub(crate) async fn ready(&mut self) {
        for _ in 0..600 {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("it ended with {status}:\n{}", self.log());
            }
            if matches!(get(self.listen, "/ready").await, Some((200, _))) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("it is not ready after 30 s:\n{}", self.log());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("its log:\n{}", self.log());
        }
    }
}

/// A loopback address whose port was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Status and body; `None` when nobody answers.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let body = answer.split_once("\r\n\r\n")?.1.to_owned();
        Some((status, body))
    };
    timeout(Duration::from_secs(5), exchange).await.ok()?
}

/// Waits for a state, for 30 s.
pub(crate) async fn eventually<T>(what: &str, mut state: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = state().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not after 30 s: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}
