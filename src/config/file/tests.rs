//! Each bad input, the one line that it gets, and that everything else is still read.

use expect_test::{Expect, expect};

use super::{Loaded, from_yaml};
use crate::config::csv::from_csv;
use crate::config::export::{CsvWriter, YamlWriter};

fn variables(name: &str) -> Option<String> {
    match name {
        "HOST" => Some("example.com".to_owned()),
        "EMPTY" => Some(String::new()),
        "HOSTILE" => Some("x, name: other}\n- [".to_owned()),
        _ => None,
    }
}

fn shown(loaded: &Loaded) -> String {
    let mut lines: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    lines.extend(loaded.endpoints.iter().map(|located| {
        let d = &located.definition;
        format!("ok {} {} {}s", d.label(), d.url, d.interval_s)
    }));
    lines.join("\n")
}

fn yaml(text: &str, expected: Expect) {
    expected.assert_eq(&shown(&from_yaml("f.yaml", text, &variables)));
}

/// What one endpoint with each of `fields` gets.
fn fields(fields: &[&str], expected: Expect) {
    let mut lines = String::new();
    for field in fields {
        let text = format!("endpoints:\n- name: a\n  url: http://h/\n  {field}\n");
        let answer = shown(&from_yaml("f.yaml", &text, &variables));
        lines += &format!("{}\n", answer.replace("f.yaml:4:", ""));
    }
    expected.assert_eq(&lines);
}

fn csv(text: &str, expected: Expect) {
    expected.assert_eq(&shown(&from_csv("f.csv", text.as_bytes())));
}

#[test]
fn columns_out_of_range() {
    fields(
        &[
            "interval: 4",
            "interval: 301s",
            "interval: 2500ms",
            "interval: soon",
            "interval: [5]",
            "timeout: 61s",
            "timeout: 0",
            "degraded_after: -1s",
            "cert_warn: soon",
            "cert_warn: 4000d",
            "enabled: maybe",
            "kind: smtp",
            "locations: []",
            "tags: {a: b}",
            r#"group: "a\u0007""#,
            "id: 0",
        ],
        expect![[r#"
            13: interval: 4 s is outside 5–300 s; choose one in between
            13: interval: 301 s is outside 5–300 s; choose one in between
            13: interval: `2500ms` is not a whole number of seconds
            13: interval: `soon` is not a duration; write e.g. 30s, 250ms or 1m30s
            13: interval: is a list, a single value is expected
            12: timeout: 61s is longer than the interval of 60 s; shorten it or lengthen the interval
            12: timeout: must be longer than 0 ms; leave it out for 10 s or the interval
            19: degraded_after: must be longer than 0 ms; leave it out to have no limit
            14: cert_warn: `soon` is not a number of days; write e.g. 14d
            14: cert_warn: is outside 0–3650 days; choose one in between
            12: enabled: `maybe` is neither true nor false
            9: kind: `smtp` is unknown; known is http
            14: locations: is empty; leave it out to probe from everywhere, or use enabled: false
            9: tags: is a map, a single value is expected
            10: group: contains the control character \u{7}; remove it
            7: id: `0` is not a whole number from 1 to 9223372036854775807
        "#]],
    );
}

#[test]
fn patterns_that_do_not_compile() {
    fields(
        &["regex: '(open'", "regex_not: '[z-a]'"],
        expect![[r#"
            10: regex: `(open` is refused: at character 1: unclosed group; close it with ), or write \( for the character
            14: regex_not: `[z-a]` is refused: at character 2: invalid character class range, the start must be <= the end; write the smaller end first
        "#]],
    );
}

#[test]
fn settings_that_are_refused() {
    fields(
        &[
            "method: G T",
            "method: CONNECT",
            "redirects: many",
            "redirects: 21",
            "connect_to: example.com",
            "connect_to: 10.0.0.1:0",
            "connect_to: 10.0.0.1\n  ip_family: 6",
            "ip_family: 5",
            "http_version: 3",
            "connection: keep",
            "dns: none",
            "body_bytes_max: 1GiB",
            "expected_status: [200, 2xx, 299-200]",
            "expected_status: []",
        ],
        expect![[r#"
            11: method: `G T` is not a method; write e.g. GET, HEAD or POST
            11: method: CONNECT opens a tunnel and cannot be probed; use another method
            14: redirects: `many` is not a whole number from 0 to 20, or none
            14: redirects: `21` is not a whole number from 0 to 20, or none
            15: connect_to: `example.com` is not an address; write e.g. 192.0.2.1, 192.0.2.1:8080 or [2001:db8::1]:8080
            15: connect_to: has port 0; write the port to dial, or leave it out
            15: connect_to: 10.0.0.1 is not of the ip_family asked for; drop one
            14: ip_family: `5` is unknown; write one of any, 4, 6
            17: http_version: `3` is unknown; write one of auto, 1.1, 2
            15: connection: `keep` is unknown; write one of fresh, reuse
            8: dns: `none` is unknown; write one of cached, fresh
            19: body_bytes_max: `1GiB` is outside 1 byte to 64MiB
            26: expected_status: `2xx` is not a status or a range of them; write e.g. 301 or 200-299
            31: expected_status: `299-200` is empty; write 200-299
            20: expected_status: is empty; write e.g. [200-299]
        "#]],
    );
}

#[test]
fn headers_credentials_and_tls_that_are_refused() {
    fields(
        &[
            r#"headers: {"a b": c}"#,
            "headers: {Content-Length: 1}",
            "headers: {Authorization: Bearer hunter2}",
            r#"headers: {X-A: "a\r\nb"}"#,
            "headers: {X-A: 1, x-a: 2}",
            "auth: {basic: {user: u}}",
            "auth: {basic: {user: u, password: hunter2}}",
            "auth: {bearer: {secret_ref: hunter2}}",
            "auth: {bearer: {secret_ref: env:DATABASE_URL}}",
            "auth: {bearer: {secret_ref: file:relative}}",
            "auth: {}",
            "auth: hunter2",
            "tls: {server_name: 'a b'}",
            "tls: {ca: /etc/ca.pem}",
            "tls: {client_key: env:KEY}",
            "tls: {verify: false}",
            r#"tls: {ca: "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----"}"#,
        ],
        expect![[r#"
            13: headers.a b: is not a header name; remove what is not a letter, digit or -
            13: headers.Content-Length: is set by the agent itself; remove it
            28: headers.Authorization: would be stored in plain text; use auth:, or {secret_ref: env:NAME} as its value
            18: headers.X-A: contains a line break or control character; remove it
            21: headers.x-a: is given twice (case does not matter); remove one
            17: auth.basic.secret_ref: is missing; write env:NAME or file:/path
            17: auth.basic.secret_ref: is missing; write env:NAME or file:/path
            27: auth.basic.password: unknown key; known are user, secret_ref
            31: auth.bearer.secret_ref: is not a reference to a secret; write env:NAME or file:/path
            31: auth.bearer.secret_ref: env:DATABASE_URL is the agent's own and is not given to endpoints; use a variable made for this
            31: auth.bearer.secret_ref: names no absolute path; write file:/path
            9: auth: is empty; write basic: {user, secret_ref} or bearer: {secret_ref}
            9: auth: is a single value, a map is expected
            22: tls.server_name: `a b` is not a host name or address
            13: tls.ca: is neither PEM text nor file:/path
            21: tls.client_cert: is missing beside client_key; add it
            9: tls.verify: unknown key; known are server_name, ca, client_cert, client_key, insecure_skip_verify, session_resumption
            13: tls.ca: holds PEM text that is damaged
        "#]],
    );
}

#[test]
fn a_bad_url_leaves_its_neighbour_alone() {
    yaml(
        "endpoints:\n- {name: a, url: \"http://h/\\0\"}\n- {name: b, url: http://b/}",
        expect![[r#"
            f.yaml:2:18: url: contains a NUL character; remove it
            ok b http://b/ 60s"#]],
    );
}

#[test]
fn all_problems_of_a_file_at_once_in_its_order() {
    yaml(
        "\
defaults:
  interval: 30s
  timeot: 3s
  url: http://x/
endpoints:
- name: good
  url: https://${HOST}/
- name: bad
  url: nonsense
  interval: 3
  intervall: 5
  name: worse
- url: http://nameless/
- just text
- name: good
  url: http://again/
- name: unset
  url: http://${NOWHERE}/
- name: also good
  url: http://h/
  interval: 1m
extra: 1
",
        expect![[r#"
            f.yaml:3:3: timeot: unknown key; did you mean `timeout`?
            f.yaml:4:3: url: belongs to each endpoint of its own, not to defaults; move it there
            f.yaml:9:8: url: `nonsense` does not start with http:// or https://; write the whole URL
            f.yaml:10:13: interval: 3 s is outside 5–300 s; choose one in between
            f.yaml:11:3: intervall: unknown key; did you mean `interval`?
            f.yaml:12:3: name: is given twice, first in line 8; remove one
            f.yaml:13:3: name: is missing; name it, so that it is found again when the file changes
            f.yaml:14:3: is a single value, a map is expected
            f.yaml:18:8: url: variable NOWHERE is not set; set it, or give a default as ${NOWHERE:-value}
            f.yaml:22:1: extra: unknown key; known are defaults, endpoints
            f.yaml:15:3: name: `good` is already given at f.yaml:6:3; rename or remove one
            ok good https://example.com/ 30s
            ok also good http://h/ 60s"#]],
    );
}

#[test]
fn files_that_hold_no_list_of_endpoints() {
    let nested = ["[".repeat(200), "- ".repeat(100)];
    let texts = [
        "",
        "# nothing\n",
        "endpoints:\n",
        "endpoints: []\n",
        "- name: a\n",
        "defaults: {}\n",
        "endpoints: [\n",
        "endpoints:\n\t- name: a\n",
        "endpoints: *missing\n",
        "? [a]\n: b\n",
        &nested[0],
        &nested[1],
    ];
    let answers = texts.map(|text| shown(&from_yaml("f.yaml", text, &variables)));
    expect![[r#"
        f.yaml: is empty; write endpoints: and a list of them
        f.yaml: is empty; write endpoints: and a list of them
        f.yaml:1:10: endpoints: is empty, a list is expected

        f.yaml:1:1: is a list, a map is expected
        f.yaml:1:1: endpoints: is missing; write a list of endpoints
        f.yaml:1:12: is not YAML: unclosed bracket '['
        f.yaml:2:2: is not YAML: tabs disallowed within this context (block indentation)
        f.yaml:1:12: is not YAML: while parsing node, found unknown anchor
        f.yaml:1:3: is not YAML: a key must be a single value
        f.yaml:1:200: is not YAML: unclosed bracket '['
        f.yaml:1:65: is not YAML: nested too deeply"#]]
    .assert_eq(&answers.join("\n"));
}

#[test]
fn defaults_anchors_and_merge_keys() {
    yaml(
        "\
x-fast: &fast {interval: 5s, regex: ok}
defaults: {interval: 30s, headers: {x-a: 1, x-b: 2}}
endpoints:
- {name: a, url: http://h/}
- {name: b, url: http://h/, <<: *fast}
- {name: c, url: http://h/, interval: null}
",
        expect![[r#"
            ok a http://h/ 30s
            ok b http://h/ 5s
            ok c http://h/ 60s"#]],
    );
    let loaded = from_yaml(
        "f.yaml",
        "defaults: {headers: {X-A: 1, X-B: 2}, regex: a}\n\
         endpoints: [{name: a, url: http://h/, headers: {x-c: 3, X-B: 4}, regex: ~}]",
        &variables,
    );
    let d = &loaded.endpoints[0].definition;
    assert_eq!(d.regex, None);
    assert_eq!(
        serde_json::Value::from(d.settings.clone()).to_string(),
        r#"{"headers":{"x-a":"1","x-b":"4","x-c":"3"}}"#
    );
}

#[test]
fn an_alias_bomb_is_an_ordinary_file() {
    let mut text = "x-0: &a0 [x, x]\n".to_owned();
    for level in 1..60 {
        let below = level - 1;
        text += &format!("x-{level}: &a{level} [*a{below}, *a{below}]\n");
    }
    text += "endpoints: [{name: a, url: http://h/, tags: *a59}]\n";
    yaml(
        &text,
        expect!["f.yaml:59:12: tags: is a list, a single value is expected"],
    );
}

#[test]
fn a_variable_is_one_value_whatever_it_holds() {
    let text = "endpoints:\n- name: \"${HOSTILE}\"\n  url: http://h/\n";
    yaml(
        text,
        expect![[r#"f.yaml:2:9: name: contains the control character \u{a}; remove it"#]],
    );
    yaml(
        "endpoints:\n- name: a\n  url: http://h/\n  timeout: ${T:-5}\n  regex: ${EMPTY}\n  body: $${HOST}$",
        expect!["ok a http://h/ 60s"],
    );
}

#[test]
fn csv_lines() {
    csv(
        "name,url,interval,tags,auth.basic.user,auth.basic.secret_ref,settings\n\
         a,http://h/,30s,x;y,u,env:P,\"{\"\"redirects\"\": 0}\"\n\
         b,http://h/,4,,,,\n\
         c,http://h/,,,,,{\n\
         d,http://h/,,,,,\"{\"\"redirect\"\": 0}\"\n\
         e,http://h/\n\
         f,http://h/,,,u,,\n\
         \"g\nh\",http://h/,,,,,\n\
         ,http://nameless/,,,,,\n\
         a,http://h/,,,,,\n",
        expect![[r#"
            f.csv:3: interval: 4 s is outside 5–300 s; choose one in between
            f.csv:4: settings: is not JSON: EOF while parsing an object at line 1 column 1
            f.csv:5: settings: unknown key; did you mean `redirects`?
            f.csv:6: has 2 fields, the header line has 7; quote fields that contain commas
            f.csv:7: auth.basic.secret_ref: is missing; write env:NAME or file:/path
            f.csv:8: name: contains the control character \u{a}; remove it
            f.csv:11: name: `a` is already given at f.csv:2; rename or remove one
            ok a http://h/ 30s
            ok http://nameless/ http://nameless/ 60s"#]],
    );
}

#[test]
fn csv_headers() {
    let texts: [&[u8]; 6] = [
        b"name,adress\n",
        b"url,url\nhttp://h/,http://h/\n",
        b"url,redirects.max\n",
        b"",
        b"\xef\xbb\xbfurl\nhttp://h/\n",
        b"name,url\n\xe9,http://h/\n",
    ];
    let answers = texts.map(|text| shown(&from_csv("f.csv", text)));
    expect![[r#"
        f.csv:1: adress: unknown key; known are id, name, group, tags, kind, url, interval, timeout, degraded_after, cert_warn, regex, regex_not, locations, enabled, method, headers, body, expected_status, auth, redirects, connect_to, ip_family, http_version, tls, connection, dns, body_bytes_max, settings
        f.csv:1: url: is missing in the header line; name the columns there, e.g. name,url,interval
        f.csv:1: url: is given twice; remove one column
        f.csv:1: redirects.max: unknown key; did you mean `redirects`?
        f.csv:1: url: is missing in the header line; name the columns there, e.g. name,url,interval
        ok http://h/ http://h/ 60s
        f.csv:2: name: is not UTF-8; save the file as UTF-8"#]].assert_eq(&answers.join("\n"));
}

const EVERYTHING: &str = r#"
endpoints:
- name: 'yes'
  group: "a: b"
  tags: [x, "y;z", "null"]
  url: https://bücher.example/${HOST}?a=$$
  interval: 90s
  timeout: 2500ms
  degraded_after: 1s
  cert_warn: 14d
  regex: '^\s*(a|b)$'
  regex_not: "line\nbreak $$"
  locations: [eu, us]
  enabled: false
  method: post
  headers: {X-A: [1, 2], X-Key: {secret_ref: "env:KEY"}, X-Long: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb ccccccccccccccccccccccccccccc"}
  body: "  {\"a\": 1}\n# b \n"
  expected_status: [200-299, 301, 250-300]
  auth: {basic: {user: u, secret_ref: file:/run/secrets/p}}
  redirects: none
  connect_to: "[2001:db8::1]:8080"
  ip_family: 6
  http_version: 1.1
  tls: {server_name: other.example, insecure_skip_verify: yes, session_resumption: false}
  connection: reuse
  dns: fresh
  body_bytes_max: 64KiB
- {name: plain, url: http://h/}
"#;

#[test]
fn what_is_exported_is_read_back() {
    let loaded = from_yaml("f.yaml", EVERYTHING, &variables);
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    let wanted: Vec<_> = loaded
        .endpoints
        .iter()
        .map(|l| l.definition.clone())
        .collect();

    let mut text = Vec::new();
    let mut writer = YamlWriter::new(&mut text);
    for definition in &wanted {
        writer.write(definition).expect("written");
    }
    writer.finish().expect("written");
    let text = String::from_utf8(text).expect("UTF-8");
    expect![[r#"
        endpoints:
        - name: "yes"
          group: "a: b"
          tags:
          - x
          - y;z
          - "null"
          url: https://bücher.example/example.com?a=$
          interval: 90s
          timeout: 2500ms
          degraded_after: 1s
          cert_warn: 14d
          regex: ^\s*(a|b)$
          regex_not: |-
            line
            break $
          locations:
          - eu
          - us
          enabled: false
          auth:
            basic:
              secret_ref: file:/run/secrets/p
              user: u
          body: |2
              {"a": 1}
            # b 
          body_bytes_max: 65536
          connect_to: "[2001:db8::1]:8080"
          connection: reuse
          dns: fresh
          expected_status:
          - 200-301
          headers:
            x-a:
            - "1"
            - "2"
            x-key:
              secret_ref: env:KEY
            x-long: >-
              aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
              bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb ccccccccccccccccccccccccccccc
          http_version: "1.1"
          ip_family: "6"
          method: POST
          redirects: 0
          tls:
            insecure_skip_verify: true
            server_name: other.example
            session_resumption: false
        - name: plain
          url: http://h/
    "#]]
    .assert_eq(&text);
    let again = from_yaml("again.yaml", &text, &|_| None);
    assert_eq!(again.problems, []);
    let read: Vec<_> = again.endpoints.into_iter().map(|l| l.definition).collect();
    assert_eq!(read, wanted);

    let mut text = Vec::new();
    let mut writer = CsvWriter::new(&mut text).expect("written");
    for definition in &wanted {
        writer.write(definition).expect("written");
    }
    writer.finish().expect("written");
    let again = from_csv("again.csv", text.as_slice());
    assert_eq!(again.problems, []);
    let read: Vec<_> = again.endpoints.into_iter().map(|l| l.definition).collect();
    assert_eq!(read, wanted);
}

mod round_trip {
    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, proptest};

    use super::{CsvWriter, YamlWriter, from_csv, from_yaml};
    use crate::config::Definition;

    /// Texts that YAML, CSV and variables are at odds with.
    fn text() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "a",
            "${",
            "}",
            "$",
            "$$",
            ":",
            ": ",
            "#",
            " #",
            "\n",
            "\t",
            " ",
            "- ",
            "'",
            "\"",
            ",",
            ";",
            "[",
            "]",
            "{",
            "&",
            "*",
            "!",
            "|",
            ">",
            "%",
            "@",
            "`",
            "~",
            "null",
            "yes",
            "0x1f",
            "1e3",
            ".",
            "---",
            "...",
            "<<",
            "é",
            "\u{1f600}",
            "\u{85}",
            "\u{2028}",
            "\r",
            "\\",
            "=",
        ]);
        prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
    }

    fn name() -> impl Strategy<Value = String> {
        text().prop_filter_map("a name", |text| {
            let name: String = text.chars().filter(|c| !c.is_control()).collect();
            let name = name.trim().to_owned();
            (!name.is_empty()).then_some(name)
        })
    }

    fn definition() -> impl Strategy<Value = Definition> {
        let names = prop::collection::btree_set(name(), 0..3)
            .prop_map(|names| names.into_iter().collect::<Vec<_>>());
        (
            (name(), prop::option::of(name()), names),
            (5..=300_i32, prop::option::of(1..=5_000_i32), any::<bool>()),
            (prop::option::of(text()), prop::option::of(text())),
        )
            .prop_map(
                |((name, group, tags), (interval_s, millis, enabled), (regex, body))| {
                    let mut definition = Definition {
                        name: Some(name),
                        group,
                        locations: (!tags.is_empty()).then(|| tags.clone()),
                        tags,
                        url: "http://h/".to_owned(),
                        interval_s,
                        timeout_ms: millis,
                        degraded_after_ms: millis,
                        enabled,
                        regex: regex.map(|text| regex::escape(&text)),
                        ..Definition::default()
                    };
                    if let Some(body) = body {
                        definition.settings.insert("body".to_owned(), body.into());
                    }
                    definition
                },
            )
    }

    proptest! {
        #[test]
        fn of_any_definition(wanted in definition()) {
            let mut text = Vec::new();
            let mut writer = YamlWriter::new(&mut text);
            writer.write(&wanted).expect("written");
            writer.finish().expect("written");
            let text = String::from_utf8(text).expect("UTF-8");
            let loaded = from_yaml("f.yaml", &text, &|_| None);
            prop_assert_eq!(&loaded.problems, &[], "{}", text);
            prop_assert_eq!(&loaded.endpoints[0].definition, &wanted, "{}", text);

            let mut text = Vec::new();
            let mut writer = CsvWriter::new(&mut text).expect("written");
            writer.write(&wanted).expect("written");
            writer.finish().expect("written");
            let loaded = from_csv("f.csv", text.as_slice());
            prop_assert_eq!(&loaded.problems, &[]);
            prop_assert_eq!(&loaded.endpoints[0].definition, &wanted);
        }
    }
}
