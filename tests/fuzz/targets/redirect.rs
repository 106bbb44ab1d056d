//! Redirects: each line of the input is the Location of one answer. Wherever they lead, a denied address is not
//! dialled (the site's tripwire), and nothing secret is sent to another origin than the first, nor after it was left.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use watcher::config::{CheckCache, endpoint};
use watcher::domain::Endpoint;
use watcher_fuzz::{CANARY, Canaries, ORIGINS, Site, plausible, row};

struct Rig {
    site: Site,
    endpoint: Endpoint,
}

thread_local! {
    static RIG: RefCell<Rig> = RefCell::new(start());
}

fn start() -> Rig {
    let settings = format!(
        r#"{{"redirects": 5, "method": "POST", "body": "{CANARY}",
            "auth": {{"bearer": {{"secret_ref": "env:X"}}}},
            "headers": {{"x-key": {{"secret_ref": "env:X"}}, "cookie": "{CANARY}"}}}}"#
    );
    let row = row(&format!("http://{}/first?a=1", ORIGINS[0]), Some(&settings));
    let endpoint = endpoint(&row, &mut CheckCache::new(), &Canaries).unwrap();
    Rig {
        site: Site::start(),
        endpoint,
    }
}

fuzz_target!(|data: &[u8]| {
    let [status, lines @ ..] = data else { return };
    // 307 and 308 carry the body along; it is no credential (the fetch standard sends it to other origins too).
    let status = [301, 302, 303, 301][usize::from(status % 4)];
    let answers = lines.split(|&byte| byte == b'\n').take(8).map(|location| {
        let mut answer =
            format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nlocation: ").into_bytes();
        answer.extend(location.iter().filter(|&&byte| byte != b'\r'));
        answer.extend(b"\r\n\r\n");
        answer
    });
    let mut answers: Vec<_> = answers.collect();
    answers.push(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec());
    RIG.with_borrow(|rig| {
        let (sample, asked) = rig.site.probe(&rig.endpoint, answers);
        plausible(&sample);
        assert!(asked.len() <= 6, "{} requests", asked.len());
        let mut is_first_origin = true;
        for request in &asked {
            is_first_origin &= request.at == ORIGINS[0].parse().unwrap();
            let shown = request
                .head
                .windows(CANARY.len())
                .any(|w| w == CANARY.as_bytes());
            assert!(
                is_first_origin || !shown,
                "{}",
                String::from_utf8_lossy(&request.head)
            );
        }
    });
});
