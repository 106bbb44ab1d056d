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

/// One endpoint with `field`, which is refused.
fn field(field: &str, expected: Expect) {
    let field = field.replace('\n', "\n  ");
    let text = format!("endpoints:\n- name: a\n  url: http://h/\n  {field}\n");
    expected.assert_eq(&shown(&from_yaml("f.yaml", &text, &variables)));
}

fn csv(text: &str, expected: Expect) {
    expected.assert_eq(&shown(&from_csv("f.csv", text.as_bytes())));
}

#[test]
fn columns_out_of_range() {
    field("interval: 4", expect!["f.yaml:4:13: interval: 4 s is outside 5–300 s; choose one in between"]);
    field("interval: 301s", expect!["f.yaml:4:13: interval: 301 s is outside 5–300 s; choose one in between"]);
    field("interval: 2500ms", expect!["f.yaml:4:13: interval: `2500ms` is not a whole number of seconds"]);
    field("interval: soon", expect!["f.yaml:4:13: interval: `soon` is not a duration; write e.g. 30s, 250ms or 1m30s"]);
    field("interval: [5]", expect!["f.yaml:4:13: interval: is a list, a single value is expected"]);
    field("timeout: 61s", expect!["f.yaml:4:12: timeout: 61s is longer than the interval of 60 s; shorten it or lengthen the interval"]);
    field("timeout: 0", expect!["f.yaml:4:12: timeout: must be longer than 0 ms; leave it out for 10 s or the interval"]);
    field("degraded_after: -1s", expect!["f.yaml:4:19: degraded_after: must be longer than 0 ms; leave it out to have no limit"]);
    field("cert_warn: soon", expect!["f.yaml:4:14: cert_warn: `soon` is not a number of days; write e.g. 14d"]);
    field("cert_warn: 4000d", expect!["f.yaml:4:14: cert_warn: is outside 0–3650 days; choose one in between"]);
    field("enabled: maybe", expect!["f.yaml:4:12: enabled: `maybe` is neither true nor false"]);
    field("kind: smtp", expect!["f.yaml:4:9: kind: `smtp` is unknown; known is http"]);
    field("locations: []", expect!["f.yaml:4:14: locations: is empty; leave it out to probe from everywhere, or use enabled: false"]);
    field("tags: {a: b}", expect!["f.yaml:4:9: tags: is a map, a single value is expected"]);
    field("group: \"a\\u0007\"", expect![[r#"f.yaml:4:10: group: contains the control character \u{7}; remove it"#]]);
    field("id: 0", expect!["f.yaml:4:7: id: `0` is not a whole number from 1 to 9223372036854775807"]);
}

#[test]
fn patterns_that_do_not_compile() {
    field("regex: '(open'", expect!["f.yaml:4:10: regex: `(open` does not compile: unclosed group"]);
    field("regex_not: '[z-a]'", expect!["f.yaml:4:14: regex_not: `[z-a]` does not compile: invalid character class range, the start must be <= the end"]);
}

#[test]
fn settings_that_are_refused() {
    field("method: G T", expect!["f.yaml:4:11: method: `G T` is not a method; write e.g. GET, HEAD or POST"]);
    field("method: CONNECT", expect!["f.yaml:4:11: method: CONNECT opens a tunnel and cannot be probed; use another method"]);
    field("headers: {\"a b\": c}", expect!["f.yaml:4:13: headers.a b: is not a header name; remove what is not a letter, digit or -"]);
    field("headers: {Content-Length: 1}", expect!["f.yaml:4:13: headers.Content-Length: is set by the agent itself; remove it"]);
    field("headers: {Authorization: Bearer abc}", expect!["f.yaml:4:28: headers.Authorization: would be stored in plain text; use auth:, or {secret_ref: env:NAME} as its value"]);
    field("headers: {X-A: \"a\\r\\nb\"}", expect!["f.yaml:4:18: headers.X-A: contains a line break or control character; remove it"]);
    field("headers: {X-A: 1, x-a: 2}", expect!["f.yaml:4:21: headers.x-a: is given twice (case does not matter); remove one"]);
    field("expected_status: [200, 2xx, 299-200]", expect![[r#"
        f.yaml:4:26: expected_status: `2xx` is not a status or a range of them; write e.g. 301 or 200-299
        f.yaml:4:31: expected_status: `299-200` is empty; write 200-299"#]]);
    field("expected_status: []", expect!["f.yaml:4:20: expected_status: is empty; write e.g. [200-299]"]);
    field("auth: {basic: {user: u}}", expect!["f.yaml:4:17: auth.basic.secret_ref: is missing; write env:NAME or file:/path"]);
    field("auth: {basic: {user: u, password: hunter2}}", expect![[r#"
        f.yaml:4:17: auth.basic.secret_ref: is missing; write env:NAME or file:/path
        f.yaml:4:27: auth.basic.password: unknown key; known are user, secret_ref"#]]);
    field("auth: {bearer: {secret_ref: hunter2}}", expect!["f.yaml:4:31: auth.bearer.secret_ref: is not a reference to a secret; write env:NAME or file:/path"]);
    field("auth: {bearer: {secret_ref: env:DATABASE_URL}}", expect!["f.yaml:4:31: auth.bearer.secret_ref: env:DATABASE_URL is the agent's own and is not given to endpoints; use a variable made for this"]);
    field("auth: {bearer: {secret_ref: file:relative}}", expect!["f.yaml:4:31: auth.bearer.secret_ref: names no absolute path; write file:/path"]);
    field("auth: {}", expect!["f.yaml:4:9: auth: is empty; write basic: {user, secret_ref} or bearer: {secret_ref}"]);
    field("auth: hunter2", expect!["f.yaml:4:9: auth: is a single value, a map is expected"]);
    field("redirects: many", expect!["f.yaml:4:14: redirects: `many` is not a whole number from 0 to 20, or none"]);
    field("redirects: 21", expect!["f.yaml:4:14: redirects: `21` is not a whole number from 0 to 20, or none"]);
    field("connect_to: example.com", expect!["f.yaml:4:15: connect_to: `example.com` is not an address; write e.g. 192.0.2.1, 192.0.2.1:8080 or [2001:db8::1]:8080"]);
    field("connect_to: 10.0.0.1:0", expect!["f.yaml:4:15: connect_to: has port 0; write the port to dial, or leave it out"]);
    field("connect_to: 10.0.0.1\nip_family: 6", expect!["f.yaml:4:15: connect_to: 10.0.0.1 is not of the ip_family asked for; drop one"]);
    field("ip_family: 5", expect!["f.yaml:4:14: ip_family: `5` is unknown; write one of any, 4, 6"]);
    field("http_version: 3", expect!["f.yaml:4:17: http_version: `3` is unknown; write one of auto, 1.1, 2"]);
    field("connection: keep", expect!["f.yaml:4:15: connection: `keep` is unknown; write one of fresh, reuse"]);
    field("dns: none", expect!["f.yaml:4:8: dns: `none` is unknown; write one of cached, fresh"]);
    field("body_bytes_max: 1GiB", expect!["f.yaml:4:19: body_bytes_max: `1GiB` is outside 1 byte to 64MiB"]);
    field("tls: {server_name: 'a b'}", expect!["f.yaml:4:22: tls.server_name: `a b` is not a host name or address"]);
    field("tls: {ca: /etc/ca.pem}", expect!["f.yaml:4:13: tls.ca: is neither PEM text nor file:/path"]);
    field("tls: {client_key: env:KEY}", expect!["f.yaml:4:21: tls.client_cert: is missing beside client_key; add it"]);
    field("tls: {verify: false}", expect!["f.yaml:4:9: tls.verify: unknown key; known are server_name, ca, client_cert, client_key, insecure_skip_verify, session_resumption"]);
    field(
        "tls: {ca: \"-----BEGIN CERTIFICATE-----\\n!!\\n-----END CERTIFICATE-----\"}",
        expect!["f.yaml:4:13: tls.ca: holds PEM text that is damaged"],
    );
}

#[test]
fn urls_that_are_refused() {
    for (url, expected) in [
        ("ftp://h/", expect![[r#"
            f.yaml:2:18: url: `ftp://h/` has the scheme ftp; only http and https are probed
            ok b http://b/ 60s"#]]),
        ("http://", expect![[r#"
            f.yaml:2:18: url: `http://` has no host; write http://host/
            ok b http://b/ 60s"#]]),
        ("http://h:0/", expect![[r#"
            f.yaml:2:18: url: `http://h:0/` has port 0, which nothing can listen on; write the real port, or leave it out
            ok b http://b/ 60s"#]]),
        ("http://u:p@h/", expect![[r#"
            f.yaml:2:18: url: contains a user or password, which would be stored in plain text; use auth: {basic: {user, secret_ref}} instead
            ok b http://b/ 60s"#]]),
        ("\"http://h/\\0\"", expect![[r#"
            f.yaml:2:18: url: contains a NUL character; remove it
            ok b http://b/ 60s"#]]),
    ] {
        let text = format!("endpoints:\n- {{name: a, url: {url}}}\n- {{name: b, url: http://b/}}");
        expected.assert_eq(&shown(&from_yaml("f.yaml", &text, &variables)));
    }
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
            f.yaml:22:1: extra: unknown key; known are defaults, endpoints"#]],
    );
}

#[test]
fn files_that_hold_no_list_of_endpoints() {
    yaml("", expect!["f.yaml: is empty; write endpoints: and a list of them"]);
    yaml("# nothing\n", expect!["f.yaml: is empty; write endpoints: and a list of them"]);
    yaml("endpoints:\n", expect!["f.yaml:1:10: endpoints: is nothing, a list is expected"]);
    yaml("endpoints: []\n", expect![]);
    yaml("- name: a\n", expect!["f.yaml:1:1: is a list, a map is expected"]);
    yaml("defaults: {}\n", expect!["f.yaml:1:1: endpoints: is missing; write a list of endpoints"]);
    yaml("endpoints: [\n", expect!["f.yaml:1:12: is not YAML: "]);
    yaml("endpoints:\n\t- name: a\n", expect!["f.yaml:2:2: is not YAML: "]);
    yaml("endpoints: *missing\n", expect!["f.yaml:1:12: is not YAML: "]);
    yaml("? [a]\n: b\n", expect!["f.yaml:1:3: is not YAML: a key must be a single value"]);
    yaml(&"[".repeat(200), expect!["f.yaml:1:200: is not YAML: "]);
    yaml(&"- ".repeat(100), expect!["f.yaml:1:65: is not YAML: nested too deeply"]);
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
    yaml(&text, expect!["f.yaml:59:12: tags: is a list, a single value is expected"]);
}

#[test]
fn a_variable_is_one_value_whatever_it_holds() {
    let text = "endpoints:\n- name: \"${HOSTILE}\"\n  url: http://h/\n";
    yaml(text, expect![[r#"f.yaml:2:9: name: contains the control character \u{a}; remove it"#]]);
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
    csv("name,adress\n", expect![[r#"
        f.csv:1: adress: unknown key; known are id, name, group, tags, kind, url, interval, timeout, degraded_after, cert_warn, regex, regex_not, locations, enabled, method, headers, body, expected_status, auth, redirects, connect_to, ip_family, http_version, tls, connection, dns, body_bytes_max, settings
        f.csv:1: url: is missing in the header line; name the columns there, e.g. name,url,interval"#]]);
    csv("url,url\nhttp://h/,http://h/\n", expect!["f.csv:1: url: is given twice; remove one column"]);
    csv("url,redirects.max\n", expect!["f.csv:1: redirects.max: unknown key; did you mean `redirects`?"]);
    csv("", expect!["f.csv:1: url: is missing in the header line; name the columns there, e.g. name,url,interval"]);
    csv("\u{feff}url\nhttp://h/\n", expect!["ok http://h/ http://h/ 60s"]);
    let latin1: &[u8] = b"name,url\n\xe9,http://h/\n";
    expect!["f.csv:2: name: is not UTF-8; save the file as UTF-8"].assert_eq(&shown(&from_csv("f.csv", latin1)));
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
  body: "  {\"a\": 1}\n\n# b \n"
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
    "#]].assert_eq(&text);
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
