//! `${VAR}`, `${VAR:-default}` and `$$` in the scalars of a YAML file.
//!
//! Done after parsing, on single values: what a variable holds can never become a key, a list or another field.

use std::borrow::Cow;

use super::values::shortened;

/// Where variables come from: the environment, or a test's own.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// `text` with its variables put in. A `$` that starts none of the three forms stands for itself (`^ok$`).
pub(crate) fn substitute<'t>(text: &'t str, variables: Variables) -> Result<Cow<'t, str>, String> {
    if !text.contains('$') {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(tail) = after.strip_prefix('{') {
            let (inner, tail) = tail.split_once('}').ok_or_else(|| {
                "has `${` without `}`; close it, or write `$${` for the text itself".to_owned()
            })?;
            out.push_str(&value_of(inner, variables)?);
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// `NAME` or `NAME:-default`; the default also replaces an empty value, as in a shell.
fn value_of(inner: &str, variables: Variables) -> Result<String, String> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        return Err(format!(
            "`${{{}}}` is not a variable; write ${{NAME}} or ${{NAME:-default}}, or `$${{` for the text itself",
            shortened(inner)
        ));
    }
    match (variables(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!(
            "variable {name} is not set; set it, or give a default as ${{{name}:-value}}"
        )),
    }
}

/// `text` such that [`substitute`] gives it back.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if text.contains("$$") || text.contains("${") {
        Cow::Owned(text.replace('$', "$$"))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn substituted(text: &str) -> Result<String, String> {
        let variables = |name: &str| match name {
            "HOST" => Some("example.com".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${HOST}: [x]".to_owned()),
            _ => None,
        };
        substitute(text, &variables).map(Cow::into_owned)
    }

    #[test]
    fn the_forms() {
        for (text, expected) in [
            ("https://${HOST}/", "https://example.com/"),
            ("${UNSET:-other}", "other"),
            ("${EMPTY:-other}", "other"),
            ("${EMPTY}", ""),
            ("${UNSET:-}", ""),
            ("${HOST}${HOST}", "example.comexample.com"),
            ("${NESTED}", "${HOST}: [x]"),
            ("$${HOST} $$ ^ok$ $HOME", "${HOST} $ ^ok$ $HOME"),
        ] {
            assert_eq!(substituted(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        for text in ["${UNSET}", "${HOST", "${}", "${HOST-x}", "${A B}", "${1A}"] {
            assert!(substituted(text).is_err(), "{text}");
        }
    }

    #[test]
    fn escaping_is_undone() {
        for text in ["a$", "a$$b", "${HOST}", "$", "$$", "^a$|^b$", "x$${"] {
            assert_eq!(substituted(&escaped(text)).as_deref(), Ok(text), "{text}");
        }
    }
}
