//! A pattern's text cut into tokens, without understanding all of it.
//!
//! Only as much syntax as `split`, `relaxed` and `rounds` need. What the two engines read differently is marked
//! `odd`: a text with such a token is left to the look-around engine whole.

use std::ops::Range;

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// `(`, `(?:`, `(?=`, … up to the group's content.
    Open(Group),
    /// `)`.
    Close,
    /// `|`.
    Bar,
    /// `^`, outside a class.
    Caret,
    /// `\A`.
    StartText,
    /// `\b`, `\B`.
    WordBoundary,
    /// A standalone `(?flags)`.
    Flags,
    /// `*`, `+`, `?`, `{…}`; with the most rounds of a counted one, 1 for the others.
    Quantifier(u64),
    /// `\g…` or `(?P>…)`.
    Call,
    /// Anything else that stands for itself: a character, an escape, a class.
    Atom,
}

/// What a group is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Group {
    /// `(?=`.
    Ahead,
    /// `(?!`.
    NotAhead,
    /// `(?<=`, `(?<!`.
    Behind,
    /// `(`, `(?<name>`, `(?P<name>`, `(?'name'`.
    Capture,
    /// Any other.
    Plain,
}

/// A piece of a pattern's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Where it stands, in bytes.
    pub(super) at: Range<usize>,
    /// The two engines may read it differently.
    pub(super) odd: bool,
}

/// Cuts `text` into tokens. Never fails: a text that no engine accepts has tokens too.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let (kind, len, odd) = token(&text[start..]);
        let end = start + len;
        let after_quantifier = matches!(
            tokens.last(),
            Some(Token {
                kind: Kind::Quantifier(_),
                ..
            })
        );
        // `a*+` is possessive on one engine and two repetitions on the other.
        let possessive = after_quantifier && text[start..end].ends_with('+');
        tokens.push(Token {
            kind,
            at: start..end,
            odd: odd || possessive,
        });
        start = end;
    }
    tokens
}

/// The first token of `rest`: its kind, its length in bytes, and whether it is odd.
fn token(rest: &str) -> (Kind, usize, bool) {
    let first = rest.chars().next().unwrap_or_default();
    match first {
        '(' => group(rest),
        ')' => (Kind::Close, 1, false),
        '|' => (Kind::Bar, 1, false),
        '^' => (Kind::Caret, 1, false),
        '*' | '+' | '?' => (Kind::Quantifier(1), 1, false),
        '{' => counted(rest),
        '[' => (Kind::Atom, class_len(rest), false),
        '\\' => escape(rest),
        _ => (Kind::Atom, first.len_utf8(), false),
    }
}

fn group(rest: &str) -> (Kind, usize, bool) {
    let open = |group, len| (Kind::Open(group), len, false);
    let Some(inner) = rest.strip_prefix("(?") else {
        // `(*FAIL)` and its kind.
        return (Kind::Open(Group::Capture), 1, rest.starts_with("(*"));
    };
    if inner.starts_with('#') {
        // To the first `)` that is not escaped, or to the end.
        return (Kind::Atom, comment_len(rest), true);
    }
    if inner.starts_with("P>") {
        return (Kind::Call, 1, true);
    }
    match inner.chars().next() {
        Some(':') => return open(Group::Plain, 3),
        Some('=') => return open(Group::Ahead, 3),
        Some('!') => return open(Group::NotAhead, 3),
        _ => {}
    }
    if inner.starts_with("<=") || inner.starts_with("<!") {
        return open(Group::Behind, 4);
    }
    if inner.starts_with(['<', '\'']) || inner.starts_with("P<") {
        return open(Group::Capture, 2);
    }
    let flags_len = inner
        .bytes()
        .take_while(|b| b.is_ascii_alphabetic() || *b == b'-')
        .count();
    let known = inner[..flags_len].bytes().all(|b| b"ism-".contains(&b));
    match inner.as_bytes().get(flags_len) {
        Some(b')') => (Kind::Flags, 2 + flags_len + 1, !known),
        Some(b':') => (Kind::Open(Group::Plain), 2 + flags_len + 1, !known),
        // `(?>`, `(?(`, `(?~`, `(?P=`.
        _ => (Kind::Open(Group::Plain), 2, true),
    }
}

fn comment_len(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            b')' if !escaped => return at + 1,
            _ => escaped = byte == b'\\' && !escaped,
        }
    }
    rest.len()
}

/// `{n}`, `{n,}` and `{n,m}` in the strict form; any other brace is odd: a literal here, an error or blanks there.
pub(super) fn counted(rest: &str) -> (Kind, usize, bool) {
    let Some(close) = rest.find('}') else {
        return (Kind::Atom, 1, true);
    };
    let counts = &rest[1..close];
    let (low, high) = counts.split_once(',').unwrap_or((counts, counts));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let count = |s: &str| {
        s.trim()
            .parse::<u64>()
            .unwrap_or(if s.trim().is_empty() { 0 } else { u64::MAX })
    };
    let strict = digits(low) && (high.is_empty() || digits(high));
    let numeric = counts
        .bytes()
        .all(|b| b.is_ascii_digit() || b.is_ascii_whitespace() || b == b',');
    if !numeric {
        return (Kind::Atom, 1, true);
    }
    let rounds = count(low).max(count(high)).max(1);
    (Kind::Quantifier(rounds), close + 1, !strict)
}

/// A class, nested ones included; to the end of the text when it is not closed.
fn class_len(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut depth = 0;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'[' => {
                depth += 1;
                at += 1;
                at += usize::from(bytes.get(at) == Some(&b'^'));
                // Right after the opening, `]` stands for itself.
                at += usize::from(bytes.get(at) == Some(&b']'));
            }
            b']' => {
                depth -= 1;
                at += 1;
                if depth == 0 {
                    return at;
                }
            }
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    rest.len()
}

fn escape(rest: &str) -> (Kind, usize, bool) {
    let Some(escaped) = rest[1..].chars().next() else {
        return (Kind::Atom, 1, true);
    };
    let len = 1 + escaped.len_utf8();
    match escaped {
        'A' => (Kind::StartText, len, false),
        'g' => (Kind::Call, len, true),
        // Property names differ between the engines.
        'p' | 'P' | 'x' | 'u' | 'U' => (Kind::Atom, len + braced_len(&rest[len..]), true),
        'b' | 'B' if rest[len..].starts_with('{') => (Kind::Atom, len, true),
        'b' | 'B' => (Kind::WordBoundary, len, false),
        _ => (Kind::Atom, len, false),
    }
}

/// The length of a leading `{…}`.
fn braced_len(rest: &str) -> usize {
    if !rest.starts_with('{') {
        return 0;
    }
    rest.find('}').map_or(rest.len(), |close| close + 1)
}
