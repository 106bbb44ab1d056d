use proptest::prelude::*;

use super::super::random;
use super::*;

fn never() -> bool {
    false
}

fn whole(text: &str) -> Option<fancy_regex::Regex> {
    fancy_regex::Regex::new(text).ok()
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
    assert!(unanchored.is_match(body).expect("it is short"));
    let anchored = split(r"^(?=.*you.*welcome)(?!.*forbidden)").expect("it splits");
    assert_eq!(anchored.is_match(body, &never), Ok(false));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_parts_say_what_the_whole_says(
        text in random::pattern(),
        bodies in random::bodies(),
    ) {
        if let Some(split) = split(&text)
            && let Some(whole) = whole(&text)
        {
            for body in bodies {
                let Ok(matched) = whole.is_match(&body) else {
                    continue;
                };
                prop_assert_eq!(split.is_match(&body, &never), Ok(matched), "{:?} on {:?}", text, body);
            }
        }
    }
}
