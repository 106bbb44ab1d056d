//! HTTPS: each way in which a server's TLS can be wrong, and what is recorded all the same.

use std::time::Duration;

use watcher::domain::{
    Connection, Endpoint, Failure, HttpCheck, HttpVersion, Reason, Sample, Secret, SkipReason,
};
use watcher::target::Target;

use crate::support::prober::{
    Rig, down, endpoint_with, here, now, pattern, serving, skipped, up, within,
};
use crate::support::target::target;

/// An endpoint at `https://NAME/…` of the target, whose authority it trusts.
fn https(target: &Target, name: &str, change: impl FnOnce(&mut HttpCheck)) -> Endpoint {
    let url = format!("{}/tls?echo=1", target.https_url(name));
    endpoint_with(&url, |check| {
        check.connect_to = here();
        check.tls.ca_pem = Some(target.ca_pem().into());
        change(check);
    })
}

fn days_left(sample: &Sample) -> i64 {
    let left = sample.tls_not_after.unwrap().as_micros() - now().as_micros();
    left.div_euclid(86_400_000_000)
}

#[test]
fn a_handshake_is_a_phase_of_its_own() {
    let (rig, target) = (Rig::new(), target());
    let sample = rig.probe(&https(&target, "good.test", |_| ()));
    up(&sample);
    assert!(sample.phases.tls_us.unwrap() > 0);
    assert!(sample.phases.connect_us.is_some() && sample.phases.processing_us.is_some());
    assert_eq!(days_left(&sample), 364);
    assert!((300..4_000).contains(&sample.bytes_sent), "{sample:?}");
    assert!((800..6_000).contains(&sample.bytes_received), "{sample:?}");
}

#[test]
fn the_version_is_what_both_can() {
    let (rig, target) = (Rig::new(), target());
    for (name, wanted, spoken) in [
        ("good.test", HttpVersion::Auto, 20),
        ("good.test", HttpVersion::Http1, 11),
        ("good.test", HttpVersion::Http2, 20),
        ("h1.test", HttpVersion::Auto, 11),
        ("tls12.test", HttpVersion::Auto, 20),
        ("tls13.test", HttpVersion::Http1, 11),
    ] {
        let sample = rig.probe(&https(&target, name, |check| check.http_version = wanted));
        up(&sample);
        assert_eq!(sample.http_version, Some(spoken), "{name} {wanted:?}");
    }
    let sample = rig.probe(&https(&target, "h1.test", |check| {
        check.http_version = HttpVersion::Http2;
    }));
    down(&sample, Failure::TlsHandshake);
}

#[test]
fn keys_of_all_kinds_are_verified() {
    let (rig, target) = (Rig::new(), target());
    for name in ["p384.test", "p521.test", "rsa.test", "localhost"] {
        up(&rig.probe(&https(&target, name, |_| ())));
    }
}

#[test]
fn bad_certificates_are_told_apart_and_their_end_is_recorded() {
    let (rig, target) = (Rig::new(), target());
    for (name, failure, days) in [
        ("expired.test", Failure::TlsExpired, -1..=-1),
        ("early.test", Failure::TlsNotYetValid, 363..=365),
        ("wrong.test", Failure::TlsWrongName, 363..=365),
        ("selfsigned.test", Failure::TlsUntrusted, 363..=365),
        ("unknown-ca.test", Failure::TlsUntrusted, 363..=365),
    ] {
        let sample = rig.probe(&https(&target, name, |_| ()));
        down(&sample, failure);
        let left = days_left(&sample);
        assert!(days.contains(&left) || left == -2, "{name}: {left} days");
        assert!(sample.phases.tls_us.is_some() && sample.phases.processing_us.is_none());
        assert!(sample.bytes_sent > 100 && sample.bytes_received > 100);
        // Whoever does not want to verify sees the end all the same.
        let sample = rig.probe(&https(&target, name, |check| {
            check.tls.insecure_skip_verify = true;
        }));
        up(&sample);
        assert!(sample.tls_not_after.is_some(), "{name}");
    }
}

#[test]
fn the_systems_roots_do_not_vouch_for_a_test() {
    let (rig, target) = (Rig::new(), target());
    let sample = rig.probe(&https(&target, "good.test", |check| {
        check.tls.ca_pem = None
    }));
    down(&sample, Failure::TlsUntrusted);
}

#[test]
fn a_server_name_of_its_own_is_sent_and_verified() {
    let (rig, target) = (Rig::new(), target());
    let sample = rig.probe(&https(&target, "127.0.0.1", |check| {
        check.tls.server_name = Some("p384.test".into());
        check.must_match = pattern("\"sni\":\"p384.test\"");
    }));
    up(&sample);
    // By address nothing is sent, and the address verified.
    let sample = rig.probe(&https(&target, "127.0.0.1", |check| {
        check.must_match = pattern("\"sni\":null");
    }));
    up(&sample);
}

#[test]
fn a_client_certificate_is_shown_where_it_is_set() {
    let (rig, target) = (Rig::new(), target());
    let identity = target.client_identity().unwrap();
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let sample = rig.probe(&https(&target, "mtls.test", |check| {
            check.http_version = version;
            check.tls.client_cert_pem = Some(identity.certificate_pem.as_str().into());
            check.tls.client_key_pem = Some(Secret::new(identity.key_pem.as_str()));
        }));
        up(&sample);
        // TLS 1.3 lets the client finish its handshake first: it is still the certificate that is missing.
        let sample = rig.probe(&https(&target, "mtls.test", |check| {
            check.http_version = version;
        }));
        down(&sample, Failure::TlsHandshake);
    }
}

#[test]
fn handshakes_that_fail_otherwise_are_told() {
    let (rig, target) = (Rig::new(), target());
    for name in ["closed.test", "reset.test", "garbage.test"] {
        let sample = rig.probe(&https(&target, name, |_| ()));
        down(&sample, Failure::TlsHandshake);
        assert_eq!(sample.tls_not_after, None);
    }
    let sample = rig.probe(&within(300, https(&target, "hang.test", |_| ())));
    down(&sample, Failure::TlsTimeout);
    // Plain HTTP where TLS is expected.
    let plain = serving(|mut stream| {
        let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let sample = rig.probe(&endpoint_with(&format!("https://{plain}/"), |_| ()));
    down(&sample, Failure::TlsHandshake);
}

#[test]
fn a_certificate_that_ends_soon_is_a_warning() {
    let (rig, target) = (Rig::new(), target());
    let mut soon = https(&target, "ends-in-10-days.test", |_| ());
    soon.cert_warn = Some(Duration::from_secs(14 * 86_400));
    let sample = rig.probe(&soon);
    assert_eq!(sample.reason, Some(Reason::CertificateExpiring));
    assert_eq!(sample.outcome().label(), "degraded");
    soon.cert_warn = Some(Duration::from_secs(7 * 86_400));
    up(&rig.probe(&soon));
}

#[test]
fn sessions_are_resumed_only_where_it_is_asked_for() {
    let (rig, target) = (Rig::new(), target());
    let received = |resume: bool| {
        let endpoint = https(&target, "good.test", |check| {
            check.tls.session_resumption = resume;
        });
        up(&rig.probe(&endpoint));
        let again = rig.probe(&endpoint);
        up(&again);
        // A resumed session verifies nothing, and still knows when the certificate ends.
        assert_eq!(days_left(&again), 364);
        again.bytes_received
    };
    let (full, resumed) = (received(false), received(true));
    assert!(resumed + 300 < full, "{resumed} of {full}");
}

#[test]
fn a_kept_connection_remembers_its_certificate() {
    let (rig, target) = (Rig::new(), target());
    let kept = https(&target, "good.test", |check| {
        check.connection = Connection::Reuse;
    });
    let first = rig.probe(&kept);
    let again = rig.probe(&kept);
    up(&again);
    assert!(first.phases.tls_us.is_some() && again.phases.tls_us.is_none());
    assert_eq!(first.tls_not_after, again.tls_not_after);
    assert!(
        again.cpu_us < first.cpu_us,
        "{} {}",
        again.cpu_us,
        first.cpu_us
    );
}

#[test]
fn settings_that_make_no_client_are_our_own_fault() {
    let (rig, target) = (Rig::new(), target());
    for ca in [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let sample = rig.probe(&https(&target, "good.test", |check| {
            check.tls.ca_pem = Some(ca.into());
        }));
        skipped(&sample, SkipReason::AgentError);
    }
    let sample = rig.probe(&https(&target, "good.test", |check| {
        check.tls.client_cert_pem = Some(target.ca_pem().into());
        check.tls.client_key_pem = Some(Secret::new("not a key"));
    }));
    skipped(&sample, SkipReason::AgentError);
}

#[test]
fn a_redirect_from_http_to_https_and_to_another_host_takes_no_settings_along() {
    let (rig, target) = (Rig::new(), target());
    let identity = target.client_identity().unwrap();
    // The host stays, the origin does not: the address is still pinned, the client's certificate stays behind.
    let location = format!("{}/x", target.https_url("mtls.test"));
    let to: String = url::form_urlencoded::byte_serialize(location.as_bytes()).collect();
    let url = format!("http://mtls.test:{}/r?redirect={to}", target.addr().port());
    let sample = rig.probe(&endpoint_with(&url, |check| {
        check.connect_to = here();
        check.tls.ca_pem = Some(target.ca_pem().into());
        check.tls.client_cert_pem = Some(identity.certificate_pem.as_str().into());
        check.tls.client_key_pem = Some(Secret::new(identity.key_pem.as_str()));
    }));
    down(&sample, Failure::TlsHandshake);
    assert_eq!(sample.hops, 1);
    // On the first origin it is shown again.
    let location: String = url::form_urlencoded::byte_serialize(b"/x?echo=1").collect();
    let url = format!("{}/r?redirect={location}", target.https_url("mtls.test"));
    let sample = rig.probe(&endpoint_with(&url, |check| {
        check.connect_to = here();
        check.tls.ca_pem = Some(target.ca_pem().into());
        check.tls.client_cert_pem = Some(identity.certificate_pem.as_str().into());
        check.tls.client_key_pem = Some(Secret::new(identity.key_pem.as_str()));
    }));
    up(&sample);
    assert_eq!(sample.hops, 1);
}
