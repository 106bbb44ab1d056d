//! Canaries: a value of its own in each place where a secret may stand, then all that can go wrong. None of them shows in
//! a log, a row, a metric, an answer, a file or a command line.

use std::fmt::Write as _;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::support::chaos_proxy::ChaosProxy;
use crate::support::database::{TestDatabase, number};
use crate::support::prober::serving;
use crate::support::process::{Running, eventually, free_address, get, watcher};
use crate::support::target::target;

/// Part of every canary; what follows says where it was put.
const CANARY: &str = "cAnArY7f3e";

struct Places(Vec<(String, String)>);

impl Places {
    fn add(&mut self, place: &str, text: impl Into<String>) {
        self.0.push((place.to_owned(), text.into()));
    }

    async fn command(&mut self, arguments: &[&str], env: &[(&str, &str)]) -> Option<i32> {
        let output = watcher()
            .args(arguments)
            .envs(env.iter().copied())
            .stdin(std::process::Stdio::null())
            .output()
            .await
            .unwrap();
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        self.add(&format!("{arguments:?}"), String::from_utf8_lossy(&text));
        output.status.code()
    }

    /// Every file below `folder`.
    fn files(&mut self, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.files(&path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let name = path.display().to_string();
                if name.ends_with(".snapshot") {
                    assert!(text.contains("secret_ref"), "{text}");
                    self.add(&name, without_queries(&text));
                } else {
                    self.add(&name, text);
                }
            }
        }
    }

    fn clean(&self) {
        let mut found = String::new();
        for (place, text) in &self.0 {
            for line in text.lines().filter(|line| line.contains(CANARY)) {
                let _ = writeln!(found, "{place}: {line}");
            }
        }
        assert!(found.is_empty(), "{found}");
    }
}

/// A snapshot of `endpoints` without the queries of its URLs, which stand in that table as operators wrote them.
fn without_queries(snapshot: &str) -> String {
    let row = |line: &str| match (line.split_once("\"url\":\""), line.starts_with("+ ")) {
        (Some((before, url)), true) => {
            let (url, after) = url.split_once('"').unwrap_or((url, ""));
            let url = url.split('?').next().unwrap_or_default();
            format!("{before}{url} {after}\n")
        }
        _ => format!("{line}\n"),
    };
    snapshot.lines().map(row).collect()
}

/// Rows of all tables but the one that operators write, as text.
async fn tables(client: &tokio_postgres::Client) -> String {
    let names = "select table_name::text from information_schema.tables
        where table_schema = 'public' and table_type = 'BASE TABLE' and table_name <> 'endpoints'";
    let mut all = String::new();
    for name in client.query(names, &[]).await.unwrap() {
        let name: String = name.get(0);
        let sql = format!("select coalesce(string_agg(t::text, E'\\n'), '') from \"{name}\" t");
        let text: String = client.query_one(&sql, &[]).await.unwrap().get(0);
        all += &text;
        all.push('\n');
    }
    all
}

/// A server that keeps what it is sent, and says nothing.
fn listening(heads: Arc<Mutex<String>>) -> SocketAddr {
    serving(move |mut stream| {
        let mut head = [0; 4_096];
        if let Ok(len) = stream.read(&mut head) {
            *heads.lock().unwrap() += &String::from_utf8_lossy(&head[..len]);
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_show_nowhere() {
    let canary = |place: &str| format!("{CANARY}-{place}");
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    // A user of its own, whose password is one.
    let user = database.name().replace("watcher_test", "canary");
    let password = canary("database");
    let made = format!("create role {user} superuser login password '{password}'");
    client.batch_execute(&made).await.unwrap();
    let proxy = ChaosProxy::start(database.address(), true);
    let mut url = url::Url::parse(&database.url_through(proxy.address)).unwrap();
    url.set_username(&user).unwrap();
    url.set_password(Some(&password)).unwrap();

    let target = target();
    let http = target.http_url();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (token, key) = (file("token", &canary("file")), file("key", &canary("key")));
    let encoded =
        |text: &str| -> String { url::form_urlencoded::byte_serialize(text.as_bytes()).collect() };
    let closed = free_address();
    let heads = Arc::new(Mutex::new(String::new()));
    let listening = listening(Arc::clone(&heads));
    let redirect = |to: &str| format!("{http}/?redirect={}", encoded(to));
    let secrets = r#"{"auth": {"bearer": {"secret_ref": "env:TOKEN"}}, "headers": {"x-key": {"secret_ref": "file:FILE"}}}"#
        .replace("FILE", &token);
    let rows = [
        (format!("http://{listening}/"), secrets.clone()),
        (format!("{http}/ok"), secrets.clone()),
        (format!("{http}/?reset=head"), secrets.clone()),
        (format!("{http}/?garbage=1"), secrets.clone()),
        (format!("{http}/?hang=head"), secrets.clone()),
        (
            target.https_url("selfsigned.test"),
            secrets.replacen('{', r#"{"connect_to": "127.0.0.1", "#, 1),
        ),
        (format!("http://{closed}/"), secrets.clone()),
        (
            format!("{http}/basic"),
            r#"{"auth": {"basic": {"user": "u", "secret_ref": "env:TOKEN"}}}"#.to_owned(),
        ),
        // A server's Location may carry a session.
        (
            redirect(&format!(
                "http://u:{0}@{closed}/{0}?t={0}#{0}",
                canary("redirect")
            )),
            secrets.clone(),
        ),
        (
            redirect(&format!("http://{}:99999/", canary("badport"))),
            secrets.clone(),
        ),
        (
            redirect(&format!("http://[{}]/", canary("badhost"))),
            secrets.clone(),
        ),
        (
            redirect(&format!("file:///{}", canary("path"))),
            secrets.clone(),
        ),
        // Rows that are refused.
        (
            format!("http://u:{}@a.example/", canary("userinfo")),
            "{}".to_owned(),
        ),
        (
            format!("http://u:{}@a.example:0/", canary("userinfo")),
            "{}".to_owned(),
        ),
        (
            format!("http://u:p/{}@a.example/", canary("slash")),
            "{}".to_owned(),
        ),
        (
            format!("ftp://u:{}@a.example/", canary("userinfo")),
            "{}".to_owned(),
        ),
        (
            format!("u:{}@a.example", canary("userinfo")),
            "{}".to_owned(),
        ),
        (
            format!("{http}/"),
            format!(
                r#"{{"headers": {{"authorization": "{}"}}}}"#,
                canary("plain")
            ),
        ),
        (
            format!("{http}/"),
            format!(
                r#"{{"auth": {{"bearer": {{"secret_ref": "{}"}}}}}}"#,
                canary("noref")
            ),
        ),
        (
            format!("{http}/"),
            format!(r#"{{"auth": "{}"}}"#, canary("noauth")),
        ),
        (
            format!("{http}/"),
            format!(
                r#"{{"auth": {{"basic": {{"user": "u", "password": "{}"}}}}}}"#,
                canary("password")
            ),
        ),
        (
            target.https_url("good.test"),
            format!(
                r#"{{"tls": {{"client_cert": "file:{key}", "client_key": {{"secret_ref": "file:{key}"}}}}}}"#
            ),
        ),
        (
            format!("{http}/"),
            r#"{"auth": {"bearer": {"secret_ref": "file:/proc/self/environ"}}}"#.to_owned(),
        ),
        (
            format!("{http}/"),
            r#"{"auth": {"bearer": {"secret_ref": "env:BROKEN"}}}"#.to_owned(),
        ),
    ];
    let refused = 12;
    for (url, settings) in &rows {
        let insert = "insert into endpoints (url, interval_s, timeout_ms, settings)
            values ($1, 5, 1000, $2::text::jsonb)";
        client.execute(insert, &[url, settings]).await.unwrap();
    }

    let spool = tempfile::tempdir().unwrap();
    let spool_dir = spool.path().display().to_string();
    let (bearer, broken, admin) = (
        canary("env"),
        format!("{}\u{1}", canary("broken")),
        database.url() + "?application_name=" + &canary("admin"),
    );
    let env = [
        ("DATABASE_URL", url.as_str()),
        ("WATCHER_ADMIN_DATABASE_URL", &admin),
        ("WATCHER_LOG", "trace"),
        ("WATCHER_SPOOL_DIR", &spool_dir),
        ("TOKEN", &bearer),
        ("BROKEN", &broken),
        ("RUST_BACKTRACE", "1"),
    ];
    let mut up = Running::start(&["up", "--processes", "1"], &env);
    up.ready().await;
    let probed = "select count(distinct endpoint_id) from metrics where outcome <> 'skipped'";
    let reported = "select count(distinct endpoint_id) from endpoint_problems";
    eventually("every row is probed or refused", async || {
        let (probed, reported) = (
            number(&client, probed).await,
            number(&client, reported).await,
        );
        (probed + reported >= rows.len() as i64).then_some(())
    })
    .await;
    assert_eq!(
        number(&client, reported).await,
        refused,
        "{}",
        tables(&client).await
    );
    // They were sent where they belong: the canaries are real.
    assert!(
        heads.lock().unwrap().contains(&bearer),
        "the bearer's token was sent"
    );

    let mut places = Places(Vec::new());
    let mut processes = up.children();
    processes.push(up.pid());
    for pid in &processes {
        let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
        places.add(&path, std::fs::read_to_string(&path).unwrap());
    }
    // What an agent has no use for is not in its environment either.
    let environ = format!("/proc/{}/environ", processes[0].as_raw_nonzero());
    let environ = std::fs::read_to_string(environ).unwrap();
    assert!(environ.contains(&bearer) && !environ.contains(&canary("admin")));

    // An outage, and the spool.
    proxy.cut();
    eventually("the spool is used", async || {
        let metrics = get(up.listen, "/metrics").await?.1;
        let line = metrics
            .lines()
            .find(|l| l.starts_with("watcher_spool_rows"))?
            .to_owned();
        (!line.ends_with(" 0")).then_some(())
    })
    .await;
    places.add("/metrics", get(up.listen, "/metrics").await.unwrap().1);
    places.add("/ready", get(up.listen, "/ready").await.unwrap().1);
    places.files(spool.path());
    proxy.heal();
    // Another password.
    let changed = format!("alter role {user} password 'other'");
    client.batch_execute(&changed).await.unwrap();
    proxy.cut();
    proxy.heal();
    eventually("the password is refused", async || {
        up.log().contains("password").then_some(())
    })
    .await;
    let log = up.log();
    up.stop().await;
    places.add("log", log);
    places.add("tables", tables(&client).await);
    places.files(spool.path());

    // Every command, with everything that may be wrong with the database.
    let wrong = database.url_as("postgres", &canary("wrong"));
    let elsewhere = format!("postgres://u:{}@{closed}/watcher", canary("refused"));
    let secure = format!(
        "postgres://u:{}@{}/watcher?sslmode=verify-full",
        canary("tls"),
        database.address()
    );
    let unescaped = [
        format!("postgres://u:{}?x@localhost/watcher", canary("query")),
        format!("postgres://u:p?{}@localhost/watcher", canary("query")),
        format!("postgres://u:p?{}=1@localhost/watcher", canary("query")),
        format!("postgres://u:p/{}@localhost/watcher", canary("slash")),
        format!("postgres://u:p@ss:{}@localhost/watcher", canary("port")),
        format!("postgres://u:{}#x@localhost/watcher", canary("fragment")),
        format!("postgres://u:{}%zz@localhost/watcher", canary("percent")),
        format!(
            "postgres://u:p&sslmode={}@localhost/watcher",
            canary("sslmode")
        ),
        format!("mysql://u:{}@localhost/watcher", canary("scheme")),
        format!("host=localhost password={}", canary("dsn")),
        canary("bare"),
    ];
    let urls = [url.as_str(), &wrong, &elsewhere, &secure];
    for url in urls.into_iter().chain(unescaped.iter().map(String::as_str)) {
        let env = [("DATABASE_URL", url), ("WATCHER_LOG", "trace")];
        for arguments in [
            &["check-config", "--connect"][..],
            &["endpoints", "list"],
            &["audit"],
            &["wait-db", "--timeout", "1s"],
            &["migrate"],
        ] {
            let code = places.command(arguments, &env).await;
            assert!(
                code.is_some_and(|code| code != 0),
                "{arguments:?} with {url}: {code:?}"
            );
        }
    }
    let named = file("url", &wrong);
    places
        .command(
            &["check-config", "--connect"],
            &[("DATABASE_URL_FILE", &named)],
        )
        .await;
    let both = [
        ("DATABASE_URL", wrong.as_str()),
        ("DATABASE_URL_FILE", named.as_str()),
    ];
    places.command(&["check-config"], &both).await;

    // Endpoints as they are shown, and probes by hand.
    let good = database.url();
    let env = [("DATABASE_URL", good.as_str()), ("TOKEN", &bearer)];
    places
        .command(&["endpoints", "list", "--problems"], &env)
        .await;
    places.command(&["audit", "--endpoints"], &env).await;
    let header = format!("authorization: {}", canary("header"));
    for url in [
        format!("{http}/"),
        format!("{http}/?garbage=1"),
        format!("http://{closed}/"),
    ] {
        for json in [&[][..], &["--json"]] {
            let arguments = [&["probe", &url, "--timeout", "1s"], json].concat();
            let mut command = watcher();
            command
                .args(&arguments)
                .args(["-H", &header])
                .env("WATCHER_PROBE_BODY", canary("body"));
            let output = command.output().await.unwrap();
            let text = [output.stdout, output.stderr].concat();
            places.add(&format!("{arguments:?}"), String::from_utf8_lossy(&text));
        }
    }
    client
        .batch_execute(&format!("drop role {user}"))
        .await
        .unwrap();
    places.clean();
}
