//! Names, groups, URLs and locations that hold quotes, line breaks, escape sequences and markup.

use std::process::Stdio;

use crate::support::database::{TestDatabase, number};
use crate::support::process::{Running, eventually, get, watcher};
use crate::support::target::target;

/// Quotes that end a string, a colour, a cleared screen, a window's title, a line break, text that runs backwards, markup.
const NAME: &str = "x'\"); drop table metrics; -- \u{1b}[31m\u{1b}[2J\u{1b}]0;title\u{7}\r\nforged line\u{202e}<script>alert(1)</script>${HOME}";

async fn ran(database: &TestDatabase, arguments: &[&str], input: &[u8]) -> (Option<i32>, String) {
    use tokio::io::AsyncWriteExt;
    let mut child = watcher()
        .args(arguments)
        .env("DATABASE_URL", database.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// Nothing that moves a cursor, and no line that somebody else wrote.
fn harmless(what: &str, text: &str) {
    let harmful = |c: char| c.is_control() && c != '\n';
    assert!(!text.contains(harmful), "{what}: {text:?}");
    assert!(
        !text.lines().any(|line| line.starts_with("forged")),
        "{what}: {text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_endpoints_are_called_harms_neither_sql_nor_logs_nor_terminals() {
    let database = TestDatabase::migrated().await;
    let target = target();
    let client = database.client().await;
    let insert = "insert into endpoints (name, group_name, tags, url, interval_s, regex, locations)
        values ($1, $1, array[$1], $2, 5, $3, $4)";
    let good = format!("{}/e/'\"<b>%1b", target.http_url());
    let bad = format!("http://{NAME}/");
    let nowhere: Option<Vec<&str>> = None;
    let rows = [
        (good.as_str(), None),
        (bad.as_str(), None),
        (good.as_str(), Some(NAME.to_owned() + "(")),
    ];
    for (n, (url, regex)) in rows.into_iter().enumerate() {
        let name = format!("{n}{NAME}");
        client
            .execute(insert, &[&name, &url, &regex, &nowhere])
            .await
            .unwrap();
    }
    // A URL of a megabyte does not come in at all; the longest one that does is refused in words.
    let insert_long = "insert into endpoints (name, url, interval_s) values ($1, $2, 5)";
    let long = |bytes: usize| format!("http://127.0.0.1:0/{}", "é".repeat(bytes / 2));
    let error = client
        .execute(insert_long, &[&"long", &long(1 << 20)])
        .await
        .unwrap_err();
    assert!(
        error.as_db_error().unwrap().message().contains("8192"),
        "{error:?}"
    );
    client
        .execute(insert_long, &[&"long", &long(8_000)])
        .await
        .unwrap();

    let mut up = Running::start(
        &["up", "--processes", "1"],
        &[
            ("DATABASE_URL", &database.url()),
            ("WATCHER_LOG", "trace"),
            ("WATCHER_LOCATION", "here'\"<b>"),
        ],
    );
    up.ready().await;
    eventually(
        "the good one is probed, the bad ones are reported",
        async || {
            let rows = number(&client, "select count(*) from metrics where outcome = 'up'").await;
            let problems = number(
                &client,
                "select count(distinct endpoint_id) from endpoint_problems",
            )
            .await;
            (rows > 0 && problems == 3).then_some(())
        },
    )
    .await;
    let metrics = get(up.listen, "/metrics").await.unwrap().1;
    harmless("metrics", &metrics);
    assert!(!metrics.contains("forged"), "{metrics}");
    for arguments in [
        &["endpoints", "list"][..],
        &["endpoints", "list", "--problems"],
        &["endpoints", "list", "--json"],
        &["endpoints", "export"],
        &["audit", "--endpoints"],
        &["audit", "--endpoints", "--json"],
        &["endpoints", "remove", NAME],
        &["probe", &bad],
    ] {
        let (_, text) = ran(&database, arguments, b"").await;
        assert!(!text.is_empty(), "{arguments:?}");
        // JSON and YAML are for machines, which get every character as it is or escaped.
        let is_for_people = !arguments.contains(&"--json") && !arguments.contains(&"export");
        assert!(
            !is_for_people || !text.contains('\u{202e}'),
            "{arguments:?}: {text}"
        );
        harmless(&format!("{arguments:?}"), &text);
    }
    // A list stays a list, whatever a refused row holds.
    let (_, list) = ran(&database, &["endpoints", "list"], b"").await;
    assert!(list.len() < 20_000, "{} bytes", list.len());
    // In files: refused by place and reason, or taken as they are.
    let yaml =
        serde_json::json!({"endpoints": [{"name": NAME, "group": NAME, "url": bad}]}).to_string();
    let csv = format!("name,url\n\"{}\",{good}\n", NAME.replace('"', "\"\""));
    for (command, text) in [
        (&["endpoints", "apply", "-"][..], yaml.as_bytes()),
        (&["endpoints", "import", "-"], csv.as_bytes()),
        (&["endpoints", "apply", "-"], b"\x1b[31m\0: ["),
        (
            &["endpoints", "import", "-"],
            b"na\x1b[31mme,url\n\"\x1b[2J\n",
        ),
    ] {
        let (code, said) = ran(&database, command, text).await;
        assert_eq!(code, Some(64), "{said}");
        harmless(&format!("{command:?}"), &said);
    }
    harmless("log", &up.log());
    up.stop().await;
    // Nothing was dropped, and the names are what they were.
    assert_eq!(number(&client, "select count(*) from endpoints").await, 4);
    let stored: String = client
        .query_one("select name from endpoints order by id limit 1", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(stored, format!("0{NAME}"));
}
