//! Random patterns and bodies, for the tests that compare with the look-around engine.

use proptest::prelude::*;

/// Pieces that patterns are made of, those that the two engines treat differently included.
fn piece() -> impl Strategy<Value = String> {
    let alike = [
        "a", "b", "ab", ".", ".*", ".+?", "a*", "b{1,2}", "a{2}", "[ab]", "[^a]", "[^\\n]", r"\n",
        r"\s", r"\S+", r"\b", r"\B", "$", "^", r"\z", r"\A", "(a)", "(?:a|b)", "(?:)", "a|b",
        "(?i:A)", "(?s:.)", "(?m:^a)", "é", r"\w", r"\d", r"[\s\S]", "[]a]", "[a[b]]", "a?", "a??",
        "b{0}",
    ];
    let odd = [
        "a*+", "b++", "|", r"\Z", "(?i)", "(?-s)", r"\x61", "a{,2}", "a{ 1 }", "{", r"\1", "(?>a)",
        r"\K", r"\G", r"\h", r"\p{L}", "(?#c)",
    ];
    let leaf = prop_oneof![
        20 => prop::sample::select(alike.to_vec()),
        1 => prop::sample::select(odd.to_vec()),
    ]
    .prop_map(str::to_owned);
    let groups = [
        ("(?:", ")"),
        ("(?:", ")*"),
        ("(?:", ")?"),
        ("(?:", "){2}"),
        ("(", ")"),
        ("(", ")+"),
        ("(?=", ")"),
        ("(?!", ")"),
        ("(?<=", ")"),
        ("(?<!", ")"),
    ];
    leaf.prop_recursive(2, 8, 3, move |inner| {
        let content = prop::collection::vec(inner, 1..4);
        (prop::sample::select(groups.to_vec()), content)
            .prop_map(|((open, close), content)| format!("{open}{}{close}", content.concat()))
    })
}

/// Pieces in a row, at times as branches.
fn pieces() -> impl Strategy<Value = String> {
    let between = prop::sample::select(vec!["", "", "", "|"]);
    (prop::collection::vec(piece(), 0..4), between)
        .prop_map(|(pieces, between)| pieces.join(between))
}

/// Patterns of the same pieces, without the leading look-aheads.
pub(super) fn linear() -> impl Strategy<Value = String> {
    let flags = prop::sample::select(vec!["", "", "(?s)", "(?i)", "(?m)"]);
    (flags, pieces()).prop_map(|(flags, pieces)| format!("{flags}{pieces}"))
}

pub(super) fn pattern() -> impl Strategy<Value = String> {
    let flags = [
        "", "", "", "", "(?s)", "(?s)", "(?i)", "(?m)", "(?sm)", "(?x)",
    ];
    let anchor = ["", "^", "^", r"\A"];
    let ahead = ["(?=^", "(?=", "(?!", "(?=.*", "(?!.*", "(?=^.*", "(?!^"];
    let aheads = prop::collection::vec((prop::sample::select(ahead.to_vec()), pieces()), 1..3);
    let aheads = aheads.prop_map(|aheads| {
        aheads
            .into_iter()
            .map(|(open, pieces)| format!("{open}{pieces})"))
            .collect::<String>()
    });
    (
        prop::sample::select(flags.to_vec()),
        prop::sample::select(anchor.to_vec()),
        aheads,
        prop::sample::select(anchor.to_vec()),
        pieces(),
    )
        .prop_map(|(flags, anchor, aheads, again, rest)| {
            format!("{flags}{anchor}{aheads}{again}{rest}")
        })
}

/// Bodies short enough that random patterns match some.
pub(super) fn bodies() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[abab\\nA é]{0,6}", 12)
}
