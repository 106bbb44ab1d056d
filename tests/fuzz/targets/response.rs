//! Response bytes → probe: whatever a server sends over HTTP/1 or HTTP/2, a sample comes, and it is plausible.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use watcher::config::{CheckCache, endpoint};
use watcher::domain::Endpoint;
use watcher_fuzz::{Canaries, ORIGINS, Site, plausible, row};

struct Rig {
    site: Site,
    endpoints: Vec<Endpoint>,
}

thread_local! {
    static RIG: RefCell<Rig> = RefCell::new(start());
}

fn start() -> Rig {
    let endpoint = |settings: &str, regex: Option<&str>| {
        let mut row = row(&format!("http://{}/", ORIGINS[0]), Some(settings));
        row.regex = regex.map(str::to_owned);
        endpoint(&row, &mut CheckCache::new(), &Canaries).unwrap()
    };
    let endpoints = vec![
        endpoint(r#"{"redirects": 2}"#, None),
        endpoint(r#"{"redirects": 2, "body_bytes_max": 256}"#, Some("x.*y")),
        endpoint(r#"{"redirects": 2, "method": "HEAD"}"#, None),
        endpoint(r#"{"redirects": 2, "http_version": "2"}"#, None),
        endpoint(r#"{"redirects": 2, "http_version": "2"}"#, Some("^a+$")),
        endpoint(
            r#"{"redirects": 2, "expected_status": ["100-599"]}"#,
            Some(""),
        ),
    ];
    Rig {
        site: Site::start(),
        endpoints,
    }
}

fuzz_target!(|data: &[u8]| {
    let [which, bytes @ ..] = data else { return };
    RIG.with_borrow(|rig| {
        let endpoint = &rig.endpoints[usize::from(*which) % rig.endpoints.len()];
        let (sample, asked) = rig.site.probe(endpoint, vec![bytes.to_vec()]);
        plausible(&sample);
        assert!(asked.len() <= 3, "{} requests", asked.len());
        assert!(
            sample.bytes_received as usize <= bytes.len() * 3,
            "{sample:?}"
        );
        assert!(
            sample
                .status_code
                .is_none_or(|status| (100..=999).contains(&status))
        );
    });
});
