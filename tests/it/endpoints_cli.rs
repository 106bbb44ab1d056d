//! `watcher endpoints`, `watcher probe` and `watcher check-config`: the real binary, a real database, a real target.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use expect_test::expect;
use tempfile::TempDir;

use crate::support::database::{TestDatabase, number, row};
use crate::support::target::target;

/// The binary, with nothing of the surrounding environment that means anything to it.
fn watcher(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watcher"));
    for (name, _) in std::env::vars() {
        if name.starts_with("WATCHER_") || name.starts_with("DATABASE_URL") {
            command.env_remove(name);
        }
    }
    command.args(arguments).env("NO_COLOR", "1");
    command
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

fn run(mut command: Command) -> Ran {
    ran(command
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts"))
}

fn run_with(mut command: Command, input: &str) -> Ran {
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("read to its end");
    drop(stdin);
    ran(child.wait_with_output().expect("it ends"))
}

struct Endpoints {
    database: TestDatabase,
    files: TempDir,
}

impl Endpoints {
    async fn new() -> Self {
        Self {
            database: TestDatabase::migrated().await,
            files: tempfile::tempdir().expect("a directory"),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = watcher(&["endpoints"]);
        command
            .args(arguments)
            .env("DATABASE_URL", self.database.url());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        run(self.command(arguments))
    }

    /// Applies `yaml` from standard input.
    fn apply(&self, yaml: &str, flags: &[&str]) -> Ran {
        run_with(self.command(&[&["apply", "-"], flags].concat()), yaml)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.files.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }

    /// What a change of any row changes: every row's time of change, and the rows noted for the agents.
    async fn fingerprint(&self) -> String {
        let sql = "select (select string_agg(id || ' ' || updated_at, ',' order by id) from endpoints)
            || (select string_agg(endpoint_id || ' ' || xid, ',' order by endpoint_id) from endpoint_changes)";
        row(&self.database.client().await, sql, &[]).await.get(0)
    }
}

const THREE: &str = "
defaults: {interval: 30s}
endpoints:
- {name: a, url: http://a.example/}
- {name: b, group: shop, url: http://b.example/, regex: ok}
- {name: c, url: http://c.example/, redirects: none}
";

#[tokio::test]
async fn apply_makes_the_table_as_the_file_says() {
    let endpoints = Endpoints::new().await;
    let first = endpoints.apply(THREE, &[]);
    expect![[r#"
        + a
        + shop/b
        + c
        3 added, 0 changed, 0 removed, 0 unchanged
    "#]]
    .assert_eq(&first.out);
    assert_eq!((first.code, first.err.as_str()), (Some(0), ""));

    let before = endpoints.fingerprint().await;
    let again = endpoints.apply(THREE, &["--prune"]);
    expect![[r#"
        0 added, 0 changed, 0 removed, 3 unchanged
    "#]]
    .assert_eq(&again.out);
    assert_eq!(endpoints.fingerprint().await, before, "no row was touched");

    let edited = "
endpoints:
- {name: a, url: http://a.example/, interval: 60s, timeout: 2500ms}
- {name: b, group: shop, url: http://b.example/, interval: 30s, regex: fine, auth: {bearer: {secret_ref: 'env:HOME'}}}
- {name: d, url: http://d.example/}
";
    let dry = endpoints.apply(edited, &["--prune", "--dry-run"]);
    expect![[r#"
        + d
        ~ a (interval 30s → 60s, timeout – → 2500ms)
        ~ shop/b (regex "ok" → "fine", auth – → {"bearer":{"secret_ref":"env:HOME"}})
        - c
        1 added, 2 changed, 1 removed, 0 unchanged (dry run: nothing was written)
    "#]]
    .assert_eq(&dry.out);
    assert_eq!(endpoints.fingerprint().await, before, "nothing was written");

    let kept = endpoints.apply(edited, &[]);
    expect![[r#"
        + d
        ~ a (interval 30s → 60s, timeout – → 2500ms)
        ~ shop/b (regex "ok" → "fine", auth – → {"bearer":{"secret_ref":"env:HOME"}})
        1 added, 2 changed, 0 removed, 0 unchanged
        1 endpoint in the database that the file lacks; --prune deletes what it lacks
    "#]]
    .assert_eq(&kept.out);
    let pruned = endpoints.apply(edited, &["--prune"]);
    expect![[r#"
        - c
        0 added, 0 changed, 1 removed, 3 unchanged
    "#]]
    .assert_eq(&pruned.out);
    let client = endpoints.database.client().await;
    assert_eq!(number(&client, "select count(*) from endpoints").await, 3);
}

#[tokio::test]
async fn nothing_is_written_when_anything_is_wrong() {
    let endpoints = Endpoints::new().await;
    let refused = endpoints.apply(
        "endpoints:\n- {name: good, url: http://h/}\n- {name: bad, url: http://h/, interval: 4}\n- {name: bad, url: ftp://h/, regexp: x}\n",
        &[],
    );
    expect![[r#"
        <stdin>:3:41: interval: 4 s is outside 5–300 s; choose one in between
        <stdin>:4:20: url: `ftp://h/` has the scheme ftp; only http and https are probed
        <stdin>:4:30: regexp: unknown key; did you mean `regex`?
        error: 3 problems; nothing was written
    "#]]
    .assert_eq(&refused.err);
    assert_eq!((refused.code, refused.out.as_str()), (Some(64), ""));
    let unknown = endpoints.apply("endpoints: [{id: 42, name: a, url: http://h/}]", &[]);
    expect![[r#"
        <stdin>:1:13: id: 42 is no endpoint of this database; leave id out and give it a name
        error: 1 problem; nothing was written
    "#]]
    .assert_eq(&unknown.err);
    assert_eq!(unknown.code, Some(64));
    let client = endpoints.database.client().await;
    assert_eq!(number(&client, "select count(*) from endpoints").await, 0);
}

#[tokio::test]
async fn endpoints_made_by_sql_are_exported_and_applied_back_without_a_change() {
    let endpoints = Endpoints::new().await;
    let client = endpoints.database.client().await;
    client
        .batch_execute(
            r#"insert into endpoints (url, interval_s, regex) values ('https://nameless.example/', 5, 'a"b');
               insert into endpoints (name, group_name, tags, url, enabled, timeout_ms, cert_warn_days, locations, settings)
               values ('n', 'g: 1', '{x,"y,z"}', 'http://h/${x}', false, 1500, 14, '{eu}',
                       '{"headers": {"x-a": ["1", "2"]}, "body": "line\nline", "expected_status": ["200-299", 301]}');"#,
        )
        .await
        .expect("inserted");
    let before = endpoints.fingerprint().await;
    for (format, command) in [("yaml", "apply"), ("csv", "import")] {
        let exported = endpoints.run(&["export", "--format", format]);
        assert_eq!(exported.code, Some(0), "{}", exported.err);
        // `${x}` is no host, but may stand in a path.
        let applied = run_with(endpoints.command(&[command, "-"]), &exported.out);
        assert_eq!(applied.code, Some(0), "{}\n{}", applied.err, exported.out);
        assert_eq!(
            endpoints.fingerprint().await,
            before,
            "{}\n{}",
            applied.out,
            exported.out
        );
    }
    let exported = endpoints.run(&["export"]).out;
    client
        .batch_execute("update endpoints set interval_s = 300")
        .await
        .expect("updated");
    let restored = endpoints.apply(&exported, &["--prune"]);
    expect![[r#"
        ~ https://nameless.example/ (interval 300s → 5s)
        ~ g: 1/n (interval 300s → 60s)
        0 added, 2 changed, 0 removed, 0 unchanged
    "#]]
    .assert_eq(&restored.out);
}

#[tokio::test]
async fn import_takes_all_lines_or_the_good_ones_by_request() {
    let endpoints = Endpoints::new().await;
    let mut text = "name,url,interval,settings\n".to_owned();
    for n in 1..=5_000 {
        let interval = if n % 1_000 == 0 { 3 } else { 60 };
        let _ = writeln!(
            text,
            "n{n},http://h/{n},{interval},\"{{\"\"redirects\"\": 0}}\""
        );
    }
    let file = endpoints.file("many.csv", &text);
    let name = |text: &str| text.replace(&file, "many.csv");
    let refused = endpoints.run(&["import", &file]);
    expect![[r#"
        many.csv:1001: interval: 3 s is outside 5–300 s; choose one in between
        many.csv:2001: interval: 3 s is outside 5–300 s; choose one in between
        many.csv:3001: interval: 3 s is outside 5–300 s; choose one in between
        many.csv:4001: interval: 3 s is outside 5–300 s; choose one in between
        many.csv:5001: interval: 3 s is outside 5–300 s; choose one in between
        error: 5 problems; nothing was written (--skip-bad imports the 4995 good)
    "#]]
    .assert_eq(&name(&refused.err));
    assert_eq!(refused.code, Some(64));
    let client = endpoints.database.client().await;
    assert_eq!(number(&client, "select count(*) from endpoints").await, 0);

    let good = endpoints.run(&["import", &file, "--skip-bad"]);
    expect![[r#"
        4995 added, 0 changed, 0 unchanged, 5 problems in lines left out
    "#]]
    .assert_eq(&good.out);
    assert_eq!(good.code, Some(0));
    assert!(
        name(&good.err).contains("many.csv:1001: interval: 3 s is outside"),
        "{}",
        good.err
    );
    assert_eq!(
        number(&client, "select count(*) from endpoints").await,
        4_995
    );
    let again = endpoints.run(&["import", &file, "--skip-bad"]);
    expect![[r#"
        0 added, 0 changed, 4995 unchanged, 5 problems in lines left out
    "#]]
    .assert_eq(&again.out);
}

#[tokio::test]
async fn generated_endpoints_are_the_same_each_time() {
    let endpoints = Endpoints::new().await;
    let generate = |count: &str, more: &[&str]| {
        let arguments = [
            "generate",
            "--count",
            count,
            "--base-url",
            "http://127.0.0.1:8080/",
        ];
        endpoints.run(&[&arguments, more].concat())
    };
    let first = generate("30000", &["--interval", "5..300", "--seed", "7"]);
    expect![[r#"
        30000 endpoints: 30000 added, 0 changed, 0 unchanged
    "#]]
    .assert_eq(&first.out);
    let client = endpoints.database.client().await;
    let spread =
        "select min(interval_s) || ' ' || max(interval_s) || ' ' || round(avg(interval_s)) || ' '
        || count(distinct interval_s) || ' ' || min(url) || ' ' || max(name) from endpoints";
    let spread: String = row(&client, spread, &[]).await.get(0);
    expect!["5 300 153 296 http://127.0.0.1:8080/e/1 generated-030000"].assert_eq(&spread);
    let before = endpoints.fingerprint().await;
    let again = generate("30000", &["--interval", "5..300", "--seed", "7"]);
    expect![[r#"
        30000 endpoints: 0 added, 0 changed, 30000 unchanged
    "#]]
    .assert_eq(&again.out);
    assert_eq!(endpoints.fingerprint().await, before);
    expect![[r#"
        1000 endpoints: 0 added, 1000 changed, 0 unchanged
    "#]]
    .assert_eq(&generate("1000", &["--interval", "30", "--regex", "ok"]).out);

    let bad = generate("1", &["--interval", "5..300", "--regex", "("]);
    assert_eq!(bad.code, Some(64));
    assert!(bad.err.starts_with("error: regex: "), "{}", bad.err);
    assert_eq!(generate("1", &["--interval", "4"]).code, Some(64));

    let removed = endpoints.run(&["rm", "generated-0000*"]);
    assert!(removed.out.ends_with("\n99 removed\n"), "{}", removed.out);
    let missing = endpoints.run(&["rm", "generated-000001"]);
    expect![[r#"
        error: there is no endpoint generated-000001; nothing was removed
    "#]]
    .assert_eq(&missing.err);
    assert_eq!(missing.code, Some(1));
}

#[tokio::test]
async fn list_shows_endpoints_and_what_keeps_them_from_being_probed() {
    let endpoints = Endpoints::new().await;
    endpoints.apply(THREE, &[]);
    let client = endpoints.database.client().await;
    client
        .batch_execute(
            "insert into endpoint_problems (endpoint_id, location, field, message, agent)
             select id, 'eu', 'regex', 'is refused', 'host-0' from endpoints where name = 'b'",
        )
        .await
        .expect("inserted");
    expect![[r#"
         id  group  name  url                interval  enabled  problems
         1          a     http://a.example/  30s       yes
         3          c     http://c.example/  30s       yes
         2   shop   b     http://b.example/  30s       yes      1
        3 endpoints
    "#]]
    .assert_eq(&endpoints.run(&["list"]).out);
    let problems = endpoints.run(&["list", "--problems"]).out;
    assert!(
        problems.contains("shop/b    eu        regex  is refused"),
        "{problems}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&endpoints.run(&["list", "--json"]).out).expect("JSON");
    assert_eq!(json[2]["group_name"], "shop");
    assert_eq!(json[2]["problems"], 1);
    assert_eq!(json[1]["settings"]["redirects"], 0);
    let json: serde_json::Value =
        serde_json::from_str(&endpoints.run(&["list", "--problems", "--json"]).out).expect("JSON");
    assert_eq!(json[0]["message"], "is refused");
}

#[test]
fn check_needs_no_database() {
    let files = tempfile::tempdir().expect("a directory");
    let path = |name: &str| files.path().join(name).display().to_string();
    std::fs::write(
        path("1.yaml"),
        "endpoints: [{name: a, url: 'http://${HOST:-h}/'}]",
    )
    .expect("written");
    std::fs::write(path("2.yml"), "endpoints: [{name: a, url: http://h/}]").expect("written");
    std::fs::write(path("3.txt"), "nonsense").expect("written");
    let file = run(watcher(&["endpoints", "check", &path("1.yaml")]));
    assert_eq!((file.code, file.err.as_str()), (Some(0), ""));
    assert!(
        file.out.ends_with("1.yaml: 1 endpoint, no problem\n"),
        "{}",
        file.out
    );

    let directory = files.path().display().to_string();
    let both = run(watcher(&["endpoints", "check", &directory]));
    expect![[r#"
        DIR/2.yml:1:13: name: `a` is already given at DIR/1.yaml:1:13; rename or remove one
        error: 1 problem in DIR
    "#]]
    .assert_eq(&both.err.replace(&directory, "DIR"));
    assert_eq!(both.code, Some(64));

    let secret =
        "endpoints: [{name: a, url: http://h/, auth: {bearer: {secret_ref: 'file:/no/such'}}}]";
    let warned = run_with(watcher(&["endpoints", "check", "-"]), secret);
    expect![[r#"
        warning: <stdin>:1:67: auth.bearer.secret_ref: file:/no/such cannot be read: No such file or directory (os error 2); put it where the agent runs
    "#]].assert_eq(&warned.err);
    assert_eq!(warned.code, Some(0));
    assert_eq!(
        run(watcher(&["endpoints", "check", &path("none.yaml")])).code,
        Some(64)
    );
}

#[test]
fn each_kind_of_failure_has_its_exit_code() {
    let without = run(watcher(&["endpoints", "list"]));
    expect![[r#"
        error: DATABASE_URL: is not set; set it (or DATABASE_URL_FILE) to postgres://user:password@host/database
    "#]].assert_eq(&without.err);
    assert_eq!(without.code, Some(64));
    let mut unreachable = watcher(&["endpoints", "list"]);
    unreachable.env("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:9/d");
    let unreachable = run(unreachable);
    assert_eq!(unreachable.code, Some(75), "{}", unreachable.err);
    assert!(
        unreachable
            .err
            .starts_with("error: cannot reach the database"),
        "{}",
        unreachable.err
    );
    assert!(!unreachable.err.contains("hunter2"));
    assert_eq!(run(watcher(&["endpoints", "apply"])).code, Some(64));
    assert_eq!(run(watcher(&["endpoints", "--help"])).code, Some(0));
}

#[tokio::test]
async fn a_database_without_the_schema_is_not_ready() {
    let database = TestDatabase::empty().await;
    let mut command = watcher(&["endpoints", "list"]);
    command.env("DATABASE_URL", database.url());
    let ran = run(command);
    assert_eq!(ran.code, Some(75), "{}", ran.err);
    assert!(ran.err.contains("run: watcher migrate"), "{}", ran.err);
}

#[tokio::test]
async fn check_config_shows_where_things_are_and_no_secret() {
    let mut command = watcher(&["check-config"]);
    command.env(
        "DATABASE_URL",
        "postgres://agent:hunter2@db.example:5433/watcher",
    );
    let shown = run(command);
    expect![[r#"
        DATABASE_URL                watcher as agent at db.example:5433
        WATCHER_ADMIN_DATABASE_URL  watcher as agent at db.example:5433
        no problem
    "#]]
    .assert_eq(&shown.out);
    assert_eq!(shown.code, Some(0));
    let nothing = run(watcher(&["check-config"]));
    expect![[r#"
        error: DATABASE_URL: is not set; set it (or DATABASE_URL_FILE) to postgres://user:password@host/database
    "#]].assert_eq(&nothing.err);
    assert_eq!(nothing.code, Some(64));
}

#[test]
fn a_probe_says_what_it_saw() {
    let target = target();
    let url = |path: &str| format!("http://{}{path}", target.addr());
    let up = run(watcher(&[
        "probe",
        &url("/?body=hello"),
        "--regex",
        "hel+o",
    ]));
    assert_eq!(up.code, Some(0), "{}{}", up.out, up.err);
    assert!(up.out.starts_with("up  http://127.0.0.1:"), "{}", up.out);
    assert!(
        up.out.contains("\n  processing ") && up.out.contains("the body passes"),
        "{}",
        up.out
    );
    assert!(
        up.out.is_ascii() || !up.out.contains('\u{1b}'),
        "{}",
        up.out
    );

    let down = run(watcher(&["probe", &url("/?status=503"), "--json"]));
    assert_eq!(down.code, Some(1), "{}", down.err);
    let json: serde_json::Value = serde_json::from_str(&down.out).expect("one JSON object");
    assert_eq!(
        (json["outcome"].as_str(), json["status_code"].as_i64()),
        (Some("down"), Some(503))
    );
    assert_eq!(json["reason"], "status_mismatch");
    let columns: Vec<&str> = json
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    expect!["agent bytes_received bytes_sent connect_us cpu_us detail duration_us endpoint_id error_us hops http_version lag_us location matched outcome processing_us reason remote_ip resolve_us status_code suspect time tls_not_after tls_us transfer_us"].assert_eq(&columns.join(" "));

    let expected = run(watcher(&[
        "probe",
        &url("/?status=503"),
        "--expected-status",
        "500-599",
    ]));
    assert_eq!(expected.code, Some(0), "{}", expected.out);
}

#[test]
fn a_probe_with_wrong_arguments_is_not_made() {
    let refused = run(watcher(&[
        "probe",
        "http://u:hunter2@h:0/",
        "--timeout",
        "301s",
        "--regex",
        "ok",
        "--connect-to",
        "h",
        "--http-version",
        "3",
    ]));
    expect![[r#"
        error: --connect-to: `h` is not an address; write e.g. 192.0.2.1, 192.0.2.1:8080 or [2001:db8::1]:8080
        error: --http-version: `3` is unknown; write one of auto, 1.1, 2
    "#]].assert_eq(&refused.err);
    assert_eq!((refused.code, refused.out.as_str()), (Some(64), ""));
    assert_eq!(
        run(watcher(&["probe", "h", "-H", "nonsense"])).code,
        Some(64)
    );
}
