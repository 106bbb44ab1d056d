//! Redirects: followed within bounds, and with nothing that is not the next server's.

use http::{HeaderValue, Method};
use watcher::domain::{Auth, Failure, Secret};

use crate::support::prober::{Rig, down, endpoint_with, pattern, up};
use crate::support::target::target;

/// `url` as a value inside a query.
fn quoted(url: &str) -> String {
    url::form_urlencoded::byte_serialize(url.as_bytes()).collect()
}

#[test]
fn hops_are_followed_counted_and_summed() {
    let (rig, target) = (Rig::new(), target());
    let url = format!("{}/r?hops=3&latency=20ms", target.http_url());
    let sample = rig.get(&url);
    up(&sample);
    assert_eq!(sample.hops, 3);
    assert_eq!(sample.status_code, Some(200));
    assert!(sample.phases.processing_us.unwrap() >= 20_000);
    assert_eq!(target.total(), 4);
    let once = rig.get(&format!("{}/", target.http_url()));
    assert!(sample.bytes_sent > 3 * once.bytes_sent);
}

#[test]
fn too_many_hops_are_too_many() {
    let (rig, target) = (Rig::new(), target());
    let at_most = |url: &str, n: u8| rig.probe(&endpoint_with(url, |c| c.redirects_max = n));
    let three = format!("{}/r?hops=3", target.http_url());
    up(&at_most(&three, 3));
    let sample = at_most(&three, 2);
    down(&sample, Failure::RedirectLimit);
    assert_eq!((sample.hops, sample.status_code), (2, Some(302)));
    down(
        &at_most(&format!("{}/l?loop=1", target.http_url()), 10),
        Failure::RedirectLimit,
    );
    // None allowed: the redirect itself is judged.
    let sample = at_most(&three, 0);
    down(&sample, Failure::StatusMismatch);
    assert_eq!(sample.hops, 0);
}

#[test]
fn redirects_that_cannot_be_followed_are_told() {
    let (rig, target) = (Rig::new(), target());
    for location in [
        "file:///etc/passwd",
        "gopher://x/",
        "http://",
        "http://[::1",
        "//",
    ] {
        let url = format!("{}/r?redirect={}", target.http_url(), quoted(location));
        down(&rig.get(&url), Failure::RedirectInvalid);
    }
    let url = format!("{}/r?status=302", target.http_url());
    down(&rig.get(&url), Failure::RedirectInvalid);
}

#[test]
fn a_redirect_to_a_denied_address_is_not_followed() {
    let (rig, target) = (Rig::new(), target());
    for location in [
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/",
        "http://[::ffff:a9fe:a9fe]/",
    ] {
        let url = format!("{}/r?redirect={}", target.http_url(), quoted(location));
        let sample = rig.get(&url);
        down(&sample, Failure::AddressDenied);
        assert_eq!(sample.remote_ip, Some([127, 0, 0, 1].into()), "{location}");
    }
}

#[test]
fn credentials_do_not_cross_origins() {
    let (rig, first, second) = (Rig::new(), target(), target());
    let echo = |target: &watcher::target::Target| format!("{}/seen?echo=1", target.http_url());
    let probe = |to: &str, text: &str| {
        let url = format!("{}/r?redirect={}", first.http_url(), quoted(to));
        rig.probe(&endpoint_with(&url, |check| {
            check.auth = Some(Auth::Bearer(Secret::new("canary")));
            check
                .headers
                .insert("x-api-key", HeaderValue::from_static("canary"));
            check
                .headers
                .insert("cookie", HeaderValue::from_static("canary"));
            check
                .headers
                .insert("user-agent", HeaderValue::from_static("mine"));
            check
                .headers
                .insert("host", HeaderValue::from_static("canary.test"));
            check.must_match = pattern("\"user-agent\",\"mine\"");
            check.must_not_match = pattern(text);
        }))
    };
    up(&probe(&echo(&second), "canary"));
    // On the first origin they are sent again.
    down(
        &probe(&echo(&first), "Bearer canary"),
        Failure::BodyForbidden,
    );
    // Once the chain has left it, not even there.
    let back = format!("{}/r?redirect={}", second.http_url(), quoted(&echo(&first)));
    up(&probe(&back, "canary"));
}

#[test]
fn a_post_becomes_a_get_where_the_standard_says_so() {
    let (rig, target) = (Rig::new(), target());
    for (code, method) in [
        (301, "GET"),
        (302, "GET"),
        (303, "GET"),
        (307, "POST"),
        (308, "POST"),
    ] {
        let to = quoted(&format!("{}/m?echo=1", target.http_url()));
        let url = format!("{}/r?redirect={to}&code={code}", target.http_url());
        let sample = rig.probe(&endpoint_with(&url, |check| {
            check.method = Method::POST;
            check.body = Box::from(*b"payload");
            check
                .headers
                .insert("content-type", HeaderValue::from_static("text/x-thing"));
            check.must_match = pattern(&format!("\"method\":\"{method}\""));
            check.must_not_match = (method == "GET")
                .then(|| pattern("payload|text/x-thing|content-length"))
                .flatten();
        }));
        up(&sample);
    }
}
