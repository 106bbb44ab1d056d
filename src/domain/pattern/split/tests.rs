use proptest::prelude::*;

use super::super::linear::Linear;
use super::super::look_around::LookAround;
use super::*;

fn never() -> bool {
    false
}

fn whole(text: &str) -> Option<LookAround> {
    let refusal = Linear::compile(text).err()?;
    LookAround::compile(text, refusal).ok()
}

#[test]
fn anchored_look_aheads_are_split_off() {
    for text in [
        r"^(?=.*you.*welcome)(?!.*forbidden)",
        r"(?=^.*you.*welcome)(?!.*forbidden).*x",
        r"(?s)\A(?=.*a)(?!.*b).+(?<=c)d",
        r"(?m)(?!.*b)\Aa$",
        r"(?i)^(?=(a|b)c)^d",
        r"^(?!.*[(|]x])a",
        r"(?=^a)(?=b|c)(?:d|e)",
        r"(?!x|y)^z",
    ] {
        assert!(split(text).is_some(), "{text}");
    }
}

#[test]
fn what_might_mean_something_else_in_parts_stays_whole() {
    for (text, why) in [
        (r"(?=.*welcome)(?!.*forbidden)", "no anchor"),
        (r"(?m)^(?=a)b", "^ is a line's start"),
        (r"^(?=a)b|c", "the second branch is not anchored"),
        (
            r"(?=^a|b)c",
            "the look-ahead's second branch is not anchored",
        ),
        (r"(?!^a)b", "anchored is what must not be"),
        (r"(?=^*a)b", "the anchor may be absent"),
        (r"(?=^{0}a)b", "the anchor may be absent"),
        (r"^(?=(a))\1(?<=b)", "a group referred to would be gone"),
        (r"^(?=a*+a)b", "possessive here, repeated twice there"),
        (r"^(?=a{ 2 }b)c", "literal here, counted there"),
        (r"^(?i)(?=a)b", "flags that hold from the middle on"),
        (
            r"^(?=(?i)a)b",
            "flags that hold beyond the group on one engine",
        ),
        (r"(?x)^(?=a b)c", "blanks"),
        (r"^(?=\p{alnum})a", "property names differ"),
        (r"^(?#c)(?=a)b", "comments"),
        (r"^(?=a(?!b))c", "look-around inside the look-ahead"),
        (r"^a(?=b)", "nothing leads"),
    ] {
        assert!(split(text).is_none(), "{text}: {why}");
    }
}

#[test]
fn without_the_anchor_the_parts_would_lie() {
    let body = "forbidden, but you are welcome";
    let unanchored = whole(r"(?=.*you.*welcome)(?!.*forbidden)").expect("it compiles");
    assert_eq!(unanchored.is_match(body, &never), Ok(true));
    let anchored = split(r"^(?=.*you.*welcome)(?!.*forbidden)").expect("it splits");
    assert_eq!(anchored.is_match(body, &never), Ok(false));
}

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

fn pattern() -> impl Strategy<Value = String> {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn the_parts_say_what_the_whole_says(
        text in pattern(),
        bodies in prop::collection::vec("[abab\nA é]{0,6}", 12),
    ) {
        if let Some(split) = split(&text)
            && let Some(whole) = whole(&text)
        {
            for body in bodies {
                prop_assert_eq!(
                    split.is_match(&body, &never),
                    whole.is_match(&body, &never),
                    "{:?} on {:?}", text, body
                );
            }
        }
    }
}
