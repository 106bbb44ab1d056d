//! Bodies and patterns that a prober must get on with, and a server of them.

use std::io::Write;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A pattern that a customer had, on the look-around engine.
pub(crate) const CUSTOMER: &str = r"(?=^.*you.*welcome)(?!.*forbidden).*\b(?:[a-zA-Z]{3,6}\s?){2,4}\b(?<=\b[a-zA-Z]+\b)\s\d{1,3}(?<!100|200)\s(?:at|on)\s[0-9]{2}:[0-9]{2}(?=\s(?:AM|PM)$)";

const HIT: &str = "hello you are welcome to stay with us, see you there 42 at 10:30 PM";

/// A pattern, and how its body is made.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) pattern: &'static str,
    pub(crate) body: fn(usize) -> String,
}

const fn case(name: &'static str, pattern: &'static str, body: fn(usize) -> String) -> Case {
    Case {
        name,
        pattern,
        body,
    }
}

/// Text of one line, of `bytes` bytes, that ends in `end`.
fn line(bytes: usize, end: &str) -> String {
    let words = "the quick brown fox jumps over 13 lazy dogs, and you are welcome to look on ";
    let mut text: String = words.chars().cycle().take(bytes - end.len()).collect();
    text.push_str(end);
    text
}

fn page(bytes: usize) -> String {
    let row =
        "<tr><td class=\"name\">node-17.example.com</td><td>status: ok</td><td>12.5 ms</td></tr>\n";
    let end = "<p id=\"health\">\"status\": \"ok\", all 12 services are up</p>\n";
    let mut text = row.repeat(bytes / row.len() + 1);
    text.truncate(bytes - end.len());
    text.push_str(end);
    text
}

fn xs(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn xs_and_y(bytes: usize) -> String {
    "x".repeat(bytes - 1) + "y"
}

/// What people write, the worst of LIMITS and FAULTS, and what is built to backtrack.
pub(crate) const CASES: &[Case] = &[
    case("literal", "no such words", |n| line(n, HIT)),
    case("literal_hit", "you are welcome to stay", |n| line(n, HIT)),
    case("wildcard", "you.*welcome to stay", |n| line(n, HIT)),
    case("json", r#""status":\s*"ok""#, page),
    case("json_miss", r#""status":\s*"failed""#, page),
    case(
        "any_of",
        "(?i)error|exception|stack trace|not available|out of service",
        page,
    ),
    case(
        "long",
        r"all \d+ services are up(?: and running)?, and nothing is degraded",
        page,
    ),
    case(
        "long_class",
        r"[Hh]ello,? [Ww]orld! [A-Z][a-z]+ \d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}",
        page,
    ),
    case(
        "html",
        r#"<p\s+id="health">[^<]*\ball\s+\d+\s+services\s+are\s+up</p>"#,
        page,
    ),
    case(
        "typical",
        r"\b[a-z]{3,8}\s\d{1,3}\s(?:at|in)\s\d\d:\d\d$",
        |n| line(n, ""),
    ),
    case(
        "typical_not_ascii",
        r"\b[a-z]{3,8}\s\d{1,3}\s(?:at|in)\s\d\d:\d\d$",
        |n| line(n, "é"),
    ),
    case("worst_linear", "(?:x{0,20}){3}y", xs),
    case("worst_linear_wide", "(?:x{0,1000}){3}[yz]", xs),
    case("unicode_words", r"\w{1,50} is down", |n| line(n, "")),
    case("split", "^(?=.*you.*welcome)(?!.*forbidden)", |n| {
        line(n, HIT)
    }),
    case("customer_hit", CUSTOMER, |n| line(n, HIT)),
    case("customer_miss", CUSTOMER, |n| line(n, "")),
    case("unanchored", "(?s)(?=.*you.*welcome)(?!.*forbidden)", |n| {
        line(n, "")
    }),
    case("unanchored_xs", "(?s)(?=.*you.*welcome)(?!.*x)", xs_and_y),
    case("tempered_dot", r"(?s)(?:(?!.*Z)x)*y(?<!y)", xs_and_y),
    case(
        "delegate",
        r"(?s)(?:(?=.*(?:[a-z]{0,40}){3}Z)x|x)*(?<=y)y(?<!y)",
        xs_and_y,
    ),
    case("behind", r"(?s)(?:(?<=x.*)x|x)*y(?<!y)", xs_and_y),
    case("nested", r"(x+x+)+z(?!q)", xs),
    case("back_reference", r"(x*)*\1z", xs),
];

/// 256 MiB of zeros, packed: encoding, bytes on the wire, those bytes.
pub(crate) fn bombs() -> Vec<(&'static str, usize, Vec<u8>)> {
    let zeros = vec![0; 1 << 28];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&zeros).expect("memory is writable");
    let mut brotli = Vec::new();
    let mut writer = brotli::CompressorWriter::new(&mut brotli, 4_096, 1, 20);
    writer.write_all(&zeros).expect("memory is writable");
    drop(writer);
    let packed = [
        ("gzip", gzip.finish().expect("memory is writable")),
        ("br", brotli),
        (
            "zstd",
            zstd::encode_all(&zeros[..], 1).expect("zstd encodes"),
        ),
    ];
    packed
        .map(|(encoding, body)| (encoding, body.len(), body))
        .into()
}

/// Answers `/N` with the N-th body, on a thread of its own; for ever.
pub(crate) fn serve(bodies: Vec<(Vec<u8>, &'static str)>) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        super::probe_world::runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4_096];
                let len = stream.read(&mut request).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&request[..len]);
                let at = head.split(' ').nth(1).and_then(|path| path[1..].parse::<usize>().ok());
                let Some((body, encoding)) = at.and_then(|at| bodies.get(at)) else {
                    continue;
                };
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\ncontent-encoding: {encoding}\r\nconnection: close\r\n\r\n"
                );
                // One who has seen enough leaves.
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(body).await;
            }
        });
    });
    told.recv().unwrap()
}
