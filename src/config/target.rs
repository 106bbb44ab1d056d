//! A URL as its owner writes it → [`Target`]: parsed once, by the rules browsers use, with punycode for the host.

use std::fmt::Display;

use http::uri::{PathAndQuery, Scheme};
use url::{ParseError, Url};

use super::values::shortened;
use crate::domain::Target;

/// What common servers accept as a request line.
pub(crate) const URL_BYTES_MAX: usize = 8_192;

/// Parses `text`, or says what is wrong with it and what to write instead.
pub(crate) fn parse(text: &str) -> Result<Target, String> {
    if text.len() > URL_BYTES_MAX {
        return Err(format!(
            "`{}` is too long; at most {URL_BYTES_MAX} bytes are sent",
            shown(text)
        ));
    }
    // The parser would drop these silently, and the URL probed would not be the one written.
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return Err(format!(
            "contains the control character {}; remove it or write it as %{:02X}",
            c.escape_unicode(),
            u32::from(c)
        ));
    }
    let text = text.trim();
    let quoted = || format!("`{}`", shown(text));
    let (scheme, rest) = split_scheme(text)?;
    if rest.starts_with(['/', '\\', '?', '#', ':']) || rest.is_empty() {
        return Err(format!("{} has no host; write {scheme}://host/", quoted()));
    }
    let url = Url::parse(text).map_err(|error| match error {
        ParseError::EmptyHost => format!("{} has no host; write {scheme}://host/", quoted()),
        ParseError::InvalidPort => format!("{} has no valid port; 1 to 65535 are", quoted()),
        other => format!("{} is not a URL: {other}", quoted()),
    })?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "contains a user or password, which would be stored in plain text; \
             use auth: {basic: {user, secret_ref}} instead"
                .to_owned(),
        );
    }
    let host = url
        .host_str()
        .ok_or_else(|| format!("{} has no host; write {scheme}://host/", quoted()))?;
    if host.len() > 253 {
        return Err(format!(
            "has a host of {} bytes; at most 253 are valid",
            host.len()
        ));
    }
    // Browsers take `{` in a host; no name server does, and it is a variable that was not put in.
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !host.starts_with('[') && !host.chars().all(is_name) {
        return Err(format!("{} has a host that is not a name", quoted()));
    }
    let port = match url.port_or_known_default() {
        Some(port) if port > 0 => port,
        _ => {
            return Err(format!(
                "{} has port 0, which nothing can listen on; write the real port, or leave it out",
                quoted()
            ));
        }
    };
    Ok(Target {
        scheme: if url.scheme() == "https" {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        },
        host: host.into(),
        port,
        path_and_query: path_and_query(&url)
            .map_err(|error| format!("{} has a path that cannot be sent: {error}", quoted()))?,
    })
}

/// The scheme and what follows its `://`.
fn split_scheme(text: &str) -> Result<(&str, &str), String> {
    match text.split_once("://") {
        Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
            "http" => Ok(("http", rest)),
            "https" => Ok(("https", rest)),
            other => Err(format!(
                "`{}` has the scheme {}; only http and https are probed",
                shown(text),
                shortened(other)
            )),
        },
        None if text.is_empty() => Err("is empty; write e.g. https://example.com/".to_owned()),
        None => Err(format!(
            "`{}` does not start with http:// or https://; write the whole URL",
            shown(text)
        )),
    }
}

/// `text` for a message: short, and without a user and password, which may be real ones.
pub(crate) fn shown(text: &str) -> String {
    let start = text.find("://").map_or(0, |at| at + 3);
    // Up to the last `@` wherever it stands: a password that was not percent-encoded may hold a slash.
    match text[start..].rfind('@') {
        Some(at) => shortened(&format!("{}…{}", &text[..start], &text[start + at..])),
        None => shortened(text),
    }
}

/// What is sent. `/` costs no allocation.
fn path_and_query(url: &Url) -> Result<PathAndQuery, impl Display + use<>> {
    let end = url.fragment().map_or(url.as_str().len(), |fragment| {
        url.as_str().len() - fragment.len() - 1
    });
    let start = url.as_str().len() - url[url::Position::BeforePath..].len();
    match &url.as_str()[start..end] {
        "/" => Ok(PathAndQuery::from_static("/")),
        sent => sent.parse(),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use expect_test::{Expect, expect};

    fn check(texts: &[&str], expected: Expect) {
        let answers = texts.iter().map(|text| match parse(text) {
            Ok(target) => format!("{target} → {}:{}\n", target.host, target.port),
            Err(message) => format!("refused: {message}\n"),
        });
        expected.assert_eq(&answers.collect::<String>());
    }

    #[test]
    fn urls_that_are_probed() {
        check(
            &[
                "https://example.com",
                "HTTP://Example.COM:8080/a/../b?q=1&r=ü#part",
                "http://bücher.example/ä",
                "http://[2001:db8::1]:81/",
                "http://0x7f.1/",
                "https://example.com:443/#",
                " https://example.com/a b ",
            ],
            expect![[r#"
                https://example.com/ → example.com:443
                http://example.com:8080/b?q=1&r=%C3%BC → example.com:8080
                http://xn--bcher-kva.example/%C3%A4 → xn--bcher-kva.example:80
                http://[2001:db8::1]:81/ → [2001:db8::1]:81
                http://127.0.0.1/ → 127.0.0.1:80
                https://example.com/ → example.com:443
                https://example.com/a%20b → example.com:443
            "#]],
        );
    }

    #[test]
    fn urls_that_are_refused() {
        check(
            &[
                "",
                "example.com",
                "ftp://example.com/",
                "file:///etc/passwd",
                "http://",
                "http:///path",
                "http://:80/",
                "http://example.com:0/",
                "http://example.com:70000/",
                "http://user:secret@example.com/",
                "ftp://user:secret@example.com/",
                "user:secret@example.com",
                "http://user:secret@example.com:0/",
                "http://exa mple.com/",
                "http://[::1/",
                "http://${HOST}/",
                "http://example.com/\0",
                "http://example.com/\r\nX-Y: z",
                &format!("http://example.com/{}", "x".repeat(1 << 20)),
            ],
            expect![[r#"
                refused: is empty; write e.g. https://example.com/
                refused: `example.com` does not start with http:// or https://; write the whole URL
                refused: `ftp://example.com/` has the scheme ftp; only http and https are probed
                refused: `file:///etc/passwd` has the scheme file; only http and https are probed
                refused: `http://` has no host; write http://host/
                refused: `http:///path` has no host; write http://host/
                refused: `http://:80/` has no host; write http://host/
                refused: `http://example.com:0/` has port 0, which nothing can listen on; write the real port, or leave it out
                refused: `http://example.com:70000/` has no valid port; 1 to 65535 are
                refused: contains a user or password, which would be stored in plain text; use auth: {basic: {user, secret_ref}} instead
                refused: `ftp://…@example.com/` has the scheme ftp; only http and https are probed
                refused: `…@example.com` does not start with http:// or https://; write the whole URL
                refused: contains a user or password, which would be stored in plain text; use auth: {basic: {user, secret_ref}} instead
                refused: `http://exa mple.com/` is not a URL: invalid international domain name
                refused: `http://[::1/` is not a URL: invalid IPv6 address
                refused: `http://${HOST}/` has a host that is not a name
                refused: contains the control character \u{0}; remove it or write it as %00
                refused: contains the control character \u{d}; remove it or write it as %0D
                refused: `http://example.com/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx… (1048595 bytes)` is too long; at most 8192 bytes are sent
            "#]],
        );
    }
}
