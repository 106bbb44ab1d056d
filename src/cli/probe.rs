//! `watcher probe`: one probe now, for a person's eyes or as JSON.

mod view;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use serde_json::{Map, Value as Json};
use tokio::task::LocalSet;

use super::exit;
use super::output::{print, print_problems};
use crate::config::{CheckCache, Definition, Problem, ProcessSecrets, endpoint};
use crate::domain::{Check, Endpoint, Outcome, Sample, Timestamp};
use crate::net::policy::PolicyOptions;
use crate::probe::matcher::{Matcher, MatcherOptions};
use crate::probe::{Prober, ProberOptions, SUSPECT_ABOVE};
use crate::store::sample_json;

/// Probe one URL now, and draw what it took; exit 0 when up, 1 when down.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// http:// or https:// URL.
    #[arg(value_name = "URL")]
    url: String,
    /// Pattern that must be found in the body.
    #[arg(long, env = "WATCHER_PROBE_REGEX")]
    regex: Option<String>,
    /// Pattern that must not be found in the body.
    #[arg(long, env = "WATCHER_PROBE_REGEX_NOT")]
    regex_not: Option<String>,
    /// Request method [default: GET].
    #[arg(short = 'X', long, env = "WATCHER_PROBE_METHOD")]
    method: Option<String>,
    /// Request header, `Name: value`; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Request body.
    #[arg(short = 'd', long = "data", env = "WATCHER_PROBE_BODY")]
    body: Option<String>,
    /// Statuses that pass, e.g. 200-299,301 [default: 200-299].
    #[arg(long, env = "WATCHER_PROBE_EXPECTED_STATUS")]
    expected_status: Option<String>,
    /// Deadline over everything, e.g. 500ms [default: 10s].
    #[arg(long, env = "WATCHER_PROBE_TIMEOUT")]
    timeout: Option<String>,
    /// Slower than this is degraded, e.g. 800ms.
    #[arg(long, env = "WATCHER_PROBE_DEGRADED_AFTER")]
    degraded_after: Option<String>,
    /// A certificate that ends sooner than this is degraded, e.g. 14d.
    #[arg(long, env = "WATCHER_PROBE_CERT_WARN")]
    cert_warn: Option<String>,
    /// Redirects followed, or none [default: 10].
    #[arg(long, env = "WATCHER_PROBE_REDIRECTS")]
    redirects: Option<String>,
    /// auto, 1.1 or 2 [default: auto].
    #[arg(long, env = "WATCHER_PROBE_HTTP_VERSION")]
    http_version: Option<String>,
    /// Dial this address instead of the URL's host: IP or IP:PORT.
    #[arg(long, env = "WATCHER_PROBE_CONNECT_TO")]
    connect_to: Option<String>,
    /// any, 4 or 6 [default: any].
    #[arg(long, env = "WATCHER_PROBE_IP_FAMILY")]
    ip_family: Option<String>,
    /// Name sent and verified in the TLS handshake, instead of the URL's host.
    #[arg(long, env = "WATCHER_PROBE_SERVER_NAME")]
    server_name: Option<String>,
    /// File of certificates to trust instead of the system's.
    #[arg(long, value_name = "FILE", env = "WATCHER_PROBE_CA")]
    ca: Option<std::path::PathBuf>,
    /// File of a client certificate.
    #[arg(
        long,
        value_name = "FILE",
        requires = "client_key",
        env = "WATCHER_PROBE_CLIENT_CERT"
    )]
    client_cert: Option<std::path::PathBuf>,
    /// File of its private key.
    #[arg(
        long,
        value_name = "FILE",
        requires = "client_cert",
        env = "WATCHER_PROBE_CLIENT_KEY"
    )]
    client_key: Option<std::path::PathBuf>,
    /// Accept any certificate.
    #[arg(short = 'k', long, env = "WATCHER_PROBE_INSECURE")]
    insecure: bool,
    /// Most bytes of the body that are read, e.g. 64KiB [default: 1MiB].
    #[arg(long, env = "WATCHER_PROBE_BODY_BYTES_MAX")]
    body_bytes_max: Option<String>,
    /// Name of where this is probed from, in --json.
    #[arg(long, env = "WATCHER_LOCATION", default_value = "default")]
    location: String,
    /// Refuse to probe private and loopback addresses.
    #[arg(long, env = "WATCHER_DENY_PRIVATE")]
    deny_private: bool,
    /// Networks that may be probed although they are link-local or metadata addresses (repeated or comma-separated).
    #[arg(
        long,
        env = "WATCHER_ALLOW_ADDRESSES",
        value_delimiter = ',',
        value_name = "CIDR"
    )]
    allow_addresses: Vec<IpNet>,
    /// Further networks that must not be probed (repeated or comma-separated).
    #[arg(
        long,
        env = "WATCHER_DENY_ADDRESSES",
        value_delimiter = ',',
        value_name = "CIDR"
    )]
    deny_addresses: Vec<IpNet>,
    /// Print one JSON object with the columns of `metrics`.
    #[arg(long, env = "WATCHER_PROBE_JSON")]
    json: bool,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `Name: value`")?;
    let name = name
        .trim()
        .parse()
        .map_err(|_| "the name of a header has letters, digits and - only")?;
    let mut value = HeaderValue::from_str(value.trim())
        .map_err(|_| "the value contains a control character; remove it")?;
    // It may be a credential: given on the command line it is used, and shown nowhere.
    value.set_sensitive(true);
    Ok((name, value))
}

/// Probes once; exit 0 for up and degraded, 1 for down, 64 for wrong arguments.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let endpoint = match checked(&args) {
        Ok(endpoint) => endpoint,
        Err(problems) => {
            print_problems("error: ", &problems);
            return Ok(ExitCode::from(exit::USAGE));
        }
    };
    let (matcher, thread) =
        Matcher::start(MatcherOptions::default()).context("start the match thread")?;
    let prober = Prober::new(ProberOptions {
        policy: PolicyOptions {
            allow: args.allow_addresses,
            deny: args.deny_addresses,
            deny_private: args.deny_private,
        },
        name_servers: None,
        matcher,
        suspect_above: SUSPECT_ABOVE,
    });
    let now = now();
    let sample = LocalSet::new()
        .run_until(prober.probe(&endpoint, now, now))
        .await;
    thread.stop();
    match args.json {
        true => print(|out| writeln!(out, "{}", sample_json::row(&sample, &args.location, None)))?,
        false => {
            let screen = view::Screen::of_stdout();
            print(|out| view::draw(out, &endpoint, &sample, screen, now))?;
        }
    }
    Ok(ExitCode::from(exit_code(&sample)))
}

fn exit_code(sample: &Sample) -> u8 {
    match sample.outcome() {
        Outcome::Up | Outcome::Degraded => exit::OK,
        Outcome::Down | Outcome::Skipped => exit::FAULT,
    }
}

fn now() -> Timestamp {
    Timestamp::from_micros(jiff::Timestamp::now().as_microsecond())
}

/// The endpoint that the arguments make, by the rules that hold for the table.
fn checked(args: &Args) -> Result<Endpoint, Vec<Problem>> {
    let mut cache = CheckCache::new();
    let definition = Definition::from_json(&item(args)).map_err(as_flags)?;
    let mut endpoint =
        endpoint(&definition.row(), &mut cache, &ProcessSecrets).map_err(as_flags)?;
    // The cache's weak reference would keep the check from being changed.
    drop(cache);
    if let Some(Check::Http(check)) = Arc::get_mut(&mut endpoint.check) {
        for (name, value) in &args.headers {
            check.headers.append(name, value.clone());
        }
    }
    Ok(endpoint)
}

/// An item as in a YAML file. The longest interval leaves the timeout free.
fn item(args: &Args) -> Json {
    let file = |path: &Option<std::path::PathBuf>| {
        let path = path.as_deref()?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Some(format!("file:{}", path.display()))
    };
    let text = |value: &Option<String>| value.clone().map(Json::from);
    let tls = [
        ("server_name", text(&args.server_name)),
        ("ca", file(&args.ca).map(Json::from)),
        ("client_cert", file(&args.client_cert).map(Json::from)),
        ("client_key", file(&args.client_key).map(Json::from)),
        (
            "insecure_skip_verify",
            args.insecure.then_some(Json::Bool(true)),
        ),
    ];
    let fields = [
        ("url", Some(Json::from(args.url.as_str()))),
        ("interval", Some(Json::from(300))),
        ("timeout", text(&args.timeout)),
        ("degraded_after", text(&args.degraded_after)),
        ("cert_warn", text(&args.cert_warn)),
        ("regex", text(&args.regex)),
        ("regex_not", text(&args.regex_not)),
        ("method", text(&args.method)),
        ("body", text(&args.body)),
        ("expected_status", text(&args.expected_status)),
        ("redirects", text(&args.redirects)),
        ("http_version", text(&args.http_version)),
        ("connect_to", text(&args.connect_to)),
        ("ip_family", text(&args.ip_family)),
        ("body_bytes_max", text(&args.body_bytes_max)),
        ("tls", Some(Json::Object(given(tls)))),
    ];
    Json::Object(given(fields))
}

fn given<const N: usize>(fields: [(&str, Option<Json>); N]) -> Map<String, Json> {
    let given = fields
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    given.collect()
}

/// Problems by the flags that they are about.
fn as_flags(problems: Vec<Problem>) -> Vec<Problem> {
    let flag = |field: &str| match field.trim_start_matches("settings.") {
        "url" => "URL".to_owned(),
        "timeout_ms" => "--timeout".to_owned(),
        "degraded_after_ms" => "--degraded-after".to_owned(),
        "cert_warn_days" => "--cert-warn".to_owned(),
        "body" => "--data".to_owned(),
        "tls.insecure_skip_verify" => "--insecure".to_owned(),
        other => format!("--{}", other.trim_start_matches("tls.").replace('_', "-")),
    };
    problems
        .into_iter()
        .map(|problem| Problem::of(flag(&problem.field), problem.message))
        .collect()
}
