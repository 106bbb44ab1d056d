//! PgBouncer in transaction mode before the test's database.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::database::TestDatabase;
use super::process::free_address;

/// Runs until dropped.
pub(crate) struct PgBouncer {
    address: SocketAddr,
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl PgBouncer {
    /// With `pool_size` connections to the server for each user and database; `users` with their passwords.
    pub(crate) fn start(database: &TestDatabase, pool_size: u32, users: &[(&str, &str)]) -> Self {
        let (address, server) = (free_address(), database.address());
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let user = |(name, password): &(&str, &str)| format!("\"{name}\" \"{password}\"\n");
        std::fs::write(
            path("users.txt"),
            users.iter().map(user).collect::<String>(),
        )
        .unwrap();
        let settings = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\nunix_socket_dir =\n\
             pool_mode = transaction\ndefault_pool_size = {pool_size}\nmax_client_conn = 200\nauth_type = scram-sha-256\n\
             auth_file = {}\nmax_prepared_statements = 200\nserver_login_retry = 1\nuser = nobody\n",
            server.ip(),
            server.port(),
            address.ip(),
            address.port(),
            path("users.txt").display(),
        );
        std::fs::write(path("pgbouncer.ini"), settings).unwrap();
        // It reads its files as the user that it becomes.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let mut bouncer = Self {
            address,
            folder,
            process: None,
        };
        bouncer.run();
        bouncer
    }

    fn run(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/pgbouncer");
        let mut process = Command::new(script)
            .arg(self.folder.path().join("pgbouncer.ini"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while std::net::TcpStream::connect(self.address).is_err() {
            let ended = process.try_wait().unwrap();
            let late = begun.elapsed() > Duration::from_secs(120);
            assert!(
                ended.is_none() && !late,
                "PgBouncer: {ended:?}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self.process = Some(process);
    }

    /// Killed: every connection through it is cut.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn restart(&mut self) {
        self.kill();
        self.run();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// `url` by way of it.
    pub(crate) fn url(&self, url: &str) -> String {
        let mut url = url::Url::parse(url).unwrap();
        url.set_ip_host(self.address.ip()).unwrap();
        url.set_port(Some(self.address.port())).unwrap();
        url.into()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.kill();
    }
}
