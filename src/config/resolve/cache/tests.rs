use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use super::CheckCache;
use crate::config::resolve::endpoint;
use crate::config::secret::{SecretRef, SecretSource, Unread};
use crate::config::{Definition, EndpointRow};
use crate::domain::{Auth, Check, Endpoint, HttpCheck, Secret};

fn row(change: impl FnOnce(&mut EndpointRow)) -> EndpointRow {
    let mut row = Definition {
        url: "https://example.com/".to_owned(),
        ..Definition::default()
    }
    .row();
    change(&mut row);
    row
}

fn http(endpoint: &Endpoint) -> &HttpCheck {
    let Check::Http(check) = &*endpoint.check;
    check
}

fn problems(row: &EndpointRow) -> Vec<String> {
    endpoint(row, &mut CheckCache::new(), &Unread)
        .expect_err("a bad row")
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// A secret that changes with each look at it.
struct Rotating(Cell<u32>);

impl SecretSource for Rotating {
    fn read(&self, _: &SecretRef) -> Result<Option<Secret>, String> {
        self.0.set(self.0.get() + 1);
        Ok(Some(Secret::new(format!("secret {}", self.0.get()))))
    }
}

#[test]
fn a_row_that_says_nothing_gets_the_defaults() {
    let endpoint = endpoint(&row(|_| {}), &mut CheckCache::new(), &Unread).expect("a good row");
    let check = http(&endpoint);
    assert_eq!(endpoint.timeout.as_secs(), 10);
    assert_eq!(endpoint.interval.millis(), 60_000);
    assert_eq!((check.redirects_max, check.body_bytes_max), (10, 1 << 20));
    assert!(check.expected_status.contains(204) && !check.expected_status.contains(301));
    let short = row(|row| row.interval_s = 5);
    let short = super::super::endpoint(&short, &mut CheckCache::new(), &Unread).expect("good");
    assert_eq!(short.timeout.as_secs(), 5);
}

#[test]
fn every_problem_of_a_row_names_its_column() {
    let bad = row(|row| {
        row.url = "http://".to_owned();
        row.interval_s = 4;
        row.regex = Some("(".to_owned());
        row.settings = Some(r#"{"redirects": -1, "tls": {"sni": 1}}"#.to_owned());
    });
    let fields: Vec<_> = problems(&bad)
        .iter()
        .map(|problem| problem.split(": ").next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        fields,
        [
            "url",
            "interval_s",
            "regex",
            "settings.redirects",
            "settings.tls.sni"
        ]
    );
    assert_eq!(
        problems(&row(|row| row.settings = Some("[]".to_owned()))),
        ["settings: is a list, a map is expected"]
    );
}

#[test]
fn equal_settings_share_one_check_and_equal_texts_one_pattern() {
    let mut cache = CheckCache::new();
    let mut made = |regex: &str, settings: Option<&str>| {
        let row = row(|row| {
            row.regex = Some(regex.to_owned());
            row.settings = settings.map(str::to_owned);
        });
        endpoint(&row, &mut cache, &Unread).expect("a good row")
    };
    let (a, b) = (made("ok", None), made("ok", None));
    assert!(Arc::ptr_eq(&a.check, &b.check));
    let c = made("ok", Some(r#"{"redirects": 0}"#));
    assert!(!Arc::ptr_eq(&a.check, &c.check));
    let pattern = |endpoint: &Endpoint| http(endpoint).must_match.clone().expect("a pattern");
    assert!(Arc::ptr_eq(&pattern(&a), &pattern(&c)));
    assert!(!Arc::ptr_eq(&a.check, &made("", None).check));
}

#[test]
fn what_nobody_uses_is_forgotten() {
    let mut cache = CheckCache::new();
    let kept = endpoint(&row(|_| {}), &mut cache, &Unread).expect("a good row");
    for n in 0..10_000 {
        let passing = row(|row| row.regex = Some(format!("x{n}")));
        endpoint(&passing, &mut cache, &Unread).expect("a good row");
    }
    let (checks, patterns) = cache.sizes();
    assert!(
        checks + patterns <= 2 * super::SWEEP_MIN,
        "{checks} {patterns}"
    );
    cache.begin_load();
    assert_eq!(cache.sizes(), (1, 0));
    let again = endpoint(&row(|_| {}), &mut cache, &Unread).expect("a good row");
    assert!(Arc::ptr_eq(&kept.check, &again.check));
}

#[test]
fn a_secret_is_read_once_a_load() {
    let secrets = Rotating(Cell::new(0));
    let mut cache = CheckCache::new();
    let settings = r#"{"auth": {"bearer": {"secret_ref": "env:TOKEN"}}}"#;
    let row = row(|row| row.settings = Some(settings.to_owned()));
    let mut token = |begin: bool| {
        if begin {
            cache.begin_load();
        }
        let endpoint = endpoint(&row, &mut cache, &secrets).expect("a good row");
        match &http(&endpoint).auth {
            // Held, as an agent would, so that the cache can share it.
            Some(Auth::Bearer(token)) => (token.expose().to_owned(), endpoint),
            other => panic!("{other:?}"),
        }
    };
    let (first, _held) = token(true);
    let (second, _held) = token(false);
    assert_eq!((first.as_str(), second.as_str()), ("secret 1", "secret 1"));
    assert_eq!(token(true).0, "secret 2");
}

#[test]
fn a_missing_secret_is_a_problem_of_its_rows_only() {
    struct Missing;
    impl SecretSource for Missing {
        fn read(&self, reference: &SecretRef) -> Result<Option<Secret>, String> {
            Err(format!("{reference} is not set"))
        }
    }
    let settings = r#"{"auth": {"basic": {"user": "u", "secret_ref": "env:P"}}}"#;
    let needs = row(|row| row.settings = Some(settings.to_owned()));
    let mut cache = CheckCache::new();
    let found = endpoint(&needs, &mut cache, &Missing).expect_err("no secret");
    assert_eq!(
        found[0].to_string(),
        "settings.auth.basic.secret_ref: env:P is not set"
    );
    assert!(endpoint(&row(|_| {}), &mut cache, &Missing).is_ok());
}

/// `cargo test --release -- --ignored a_million_rows --nocapture`
#[test]
#[ignore = "a measurement"]
fn a_million_rows() {
    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let digits = line.unwrap_or_default().split_whitespace().nth(1);
        digits.and_then(|kib| kib.parse().ok()).unwrap_or(0)
    }
    let mut cache = CheckCache::new();
    let mut endpoints = Vec::with_capacity(1_000_000);
    let mut template = row(|_| {});
    let (before, start) = (resident_kib(), Instant::now());
    for n in 0..1_000_000 {
        template.url = format!("https://host-{n}.customer.example.com/api/health?n={n}");
        template.interval_s = 5 + n % 296;
        endpoints.push(endpoint(&template, &mut cache, &Unread).expect("a good row"));
    }
    let (took, grown) = (start.elapsed(), resident_kib() - before);
    println!(
        "{} rows in {took:?}, {} bytes each ({} of them the struct), {:?} shared",
        endpoints.len(),
        grown * 1_024 / 1_000_000,
        size_of::<Endpoint>(),
        cache.sizes()
    );
    assert!(grown * 1_024 / 1_000_000 <= 400);
}
