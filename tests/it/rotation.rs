//! A password that is changed while agents run: the file that holds the URL is read again.

use crate::support::database::{TestDatabase, number, row};
use crate::support::login::Login;
use crate::support::process::{Running, eventually, watcher};
use crate::support::target::target;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_may_be_changed_under_a_running_agent_and_nothing_is_lost() {
    let database = TestDatabase::migrated().await;
    let target = target();
    let admin = database.client().await;
    let url = target.http_url().to_string();
    let insert = "insert into endpoints (url, interval_s) select $1 || '/e/' || n, 5 from generate_series(1, 100) n";
    admin.execute(insert, &[&url]).await.unwrap();
    let login = Login::new(&database, "rotated", "watcher_agent").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    std::fs::write(&file, format!("{}\n", login.url())).unwrap();

    let mut up = Running::start(
        &["up", "--processes", "2"],
        &[("DATABASE_URL_FILE", file.to_str().unwrap())],
    );
    up.ready().await;
    let rows = async || number(&admin, "select count(*) from metrics").await;
    eventually("rows", async || (rows().await >= 100).then_some(())).await;

    let role = &login.name;
    let change = format!("alter role {role} password 'another'");
    admin.batch_execute(&change).await.unwrap();
    let cut = async || {
        let sql =
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = $1";
        row(&admin, sql, &[role]).await;
    };
    cut().await;
    // The old password has been refused before the new one is there.
    eventually("a refusal in the log", async || {
        up.log().contains("refuses user").then_some(())
    })
    .await;
    std::fs::write(&file, database.url_as(role, "another")).unwrap();
    let before = rows().await;
    eventually("rows by the new password", async || {
        (rows().await >= before + 200).then_some(())
    })
    .await;
    // LISTEN, heartbeat and keepers of both processes are back.
    eventually("both heartbeats", async || {
        let fresh = "select count(*) from agents where ended is null and last_seen > now() - interval '7 seconds'";
        (number(&admin, fresh).await == 2).then_some(())
    })
    .await;
    let listening = "select count(*) from pg_stat_activity where query ilike 'listen%' and datname = current_database()";
    eventually("both listeners", async || {
        (number(&admin, listening).await == 2).then_some(())
    })
    .await;
    up.stop().await;
    let output = watcher()
        .args(["audit", "--json", "--since", "10m"])
        .env("DATABASE_URL", database.url())
        .output()
        .await
        .unwrap();
    let audit: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&audit["missing"], &audit["duplicates"]),
        (&0.into(), &0.into()),
        "{audit}"
    );
    login.remove().await;
}
