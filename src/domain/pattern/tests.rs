use std::cell::Cell;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn never() -> bool {
    false
}

fn matches(pattern: &str, body: &str) -> bool {
    Pattern::compile(pattern)
        .expect(pattern)
        .is_match(body.as_bytes(), &never)
        .expect("no budget is set")
}

fn engine(pattern: &str) -> String {
    format!("{:?}", Pattern::compile(pattern).expect(pattern))
}

/// A budget of so many looks.
fn after(looks: u32) -> impl Fn() -> bool {
    let left = Cell::new(looks);
    move || {
        left.set(left.get().saturating_sub(1));
        left.get() == 0
    }
}

#[test]
fn each_pattern_runs_on_the_cheapest_engine_that_can() {
    assert!(engine("hello|world").starts_with("Pattern(linear"));
    assert!(engine(r"^(?=.*a)(?!.*b)").starts_with("Pattern(split"));
    assert!(engine(r"(?=.*a)(?!.*b)").starts_with("Pattern(look-around"));
    assert!(engine(r"(a+)\1").starts_with("Pattern(look-around"));
    assert!(
        !Pattern::compile(r"^(?=.*a)(?!.*b)")
            .expect("it compiles")
            .needs_budget()
    );
    assert!(
        Pattern::compile(r"^(?=.*a)b(?<=b)")
            .expect("it compiles")
            .needs_budget()
    );
}

#[test]
fn bodies_are_bytes_on_the_linear_engine_and_text_on_the_other() {
    let nul = Pattern::compile("a\0b").expect("NUL is a character");
    assert_eq!(nul.is_match(b"a\0b", &never), Ok(true));
    let byte = Pattern::compile(r"(?-u:\xff)x").expect("bytes are fine");
    assert_eq!(byte.is_match(b"\xffx", &never), Ok(true));
    let replaced = Pattern::compile("(?<=\u{fffd})x(?=y)").expect("it compiles");
    assert_eq!(replaced.is_match(b"\xffxy", &never), Ok(true));
    assert!(matches("é+$", "caf\u{e9}"));
}

#[test]
fn a_spent_budget_is_neither_match_nor_miss() {
    let hostile = Pattern::compile(r"(?s)(?:(?!.*Z)x)*y(?<!xy)").expect("it compiles");
    let mut body = vec![b'x'; 4 << 10];
    assert_eq!(hostile.is_match(&body, &never), Ok(false), "there is no y");
    body.push(b'y');
    assert_eq!(hostile.is_match(&body, &after(50)), Err(BudgetSpent));
    // The engine is whole afterwards.
    assert_eq!(hostile.is_match(b"xx y", &never), Ok(true));
    assert_eq!(hostile.is_match(b"xxy", &never), Ok(false));
}

#[test]
fn a_long_linear_search_can_be_given_up() {
    let wide = Pattern::compile("(?:x{0,1000}){3}[yz]").expect("it compiles");
    let body = vec![b'x'; 4 << 10];
    assert_eq!(wide.is_match(&body, &after(5)), Err(BudgetSpent));
    let long = |parts: [&str; 3]| parts.concat() + &" ".repeat(40_000);
    for (pattern, body, found) in [
        ("(?:x{0,1000}){3}y", long(["x", "x", "y"]), true),
        ("(?:x{0,1000}){3}y", long(["x", "x", "x"]), false),
        ("(?m)^x{100}$", long(["x\n", &"x".repeat(100), "\n"]), true),
        ("^x{100}", long(["x\n", &"x".repeat(100), "\n"]), false),
        (r"\bx{100}\b", long(["é ", &"x".repeat(100), "é"]), false),
        (r"\bx{100}\b", long(["é ", &"x".repeat(100), " é"]), true),
        (" {100}$", long(["x", "x", "x"]), true),
    ] {
        let pattern = Pattern::compile(pattern).expect(pattern);
        let stepped = pattern.worst_case(body.len()) > Some(Duration::from_millis(20));
        assert!(stepped, "{pattern:?}");
        assert_eq!(
            pattern.is_match(body.as_bytes(), &never),
            Ok(found),
            "{pattern:?}"
        );
    }
}

#[test]
fn a_long_body_without_the_patterns_literal_needs_no_budget() {
    for pattern in [
        "(?:x{0,1000}){3}y",
        r"\w{1,50} is down",
        r"\w{1,50}.* is down",
    ] {
        let pattern = Pattern::compile(pattern).expect(pattern);
        let body = "x".repeat(40_000);
        assert!(pattern.worst_case(body.len()) > Some(Duration::from_millis(20)));
        let decided = pattern.is_match(body.as_bytes(), &|| true);
        assert_eq!(decided, Ok(false), "{pattern:?}");
    }
}

#[test]
fn a_pattern_of_short_matches_is_searched_for_piece_by_piece() {
    // Its states are too many, so nobody knows that it is fast.
    let wild = Pattern::compile("[01]{0,5}[1-3][01]{20}[!?]").expect("it compiles");
    let zeros = "0".repeat(200_000);
    assert_eq!(wild.is_match(zeros.as_bytes(), &never), Ok(false));
    assert_eq!(wild.is_match(zeros.as_bytes(), &after(3)), Err(BudgetSpent));
    for at in [0, 29_000, 31_070, 32_051, 99_999, 199_978] {
        let mut body = zeros.clone();
        body.replace_range(at..=at, "1");
        assert_eq!(wild.is_match(body.as_bytes(), &never), Ok(false), "{at}");
        body.replace_range(at + 21..=at + 21, "!");
        assert_eq!(wild.is_match(body.as_bytes(), &never), Ok(true), "{at}");
    }
    // Unicode's \b keeps the lazy DFA off what is not ASCII: now only off the pieces that are not.
    let words = Pattern::compile(r"\b[a-z]{3,8}\s\d{1,3}\s(?:at|in)\s\d\d:\d\d\b").expect("it");
    let body = "caf\u{e9} 7 ".repeat(20_000);
    assert_eq!(words.is_match(body.as_bytes(), &never), Ok(false));
    let body = body + "see you 42 at 10:30 caf\u{e9}";
    assert_eq!(words.is_match(body.as_bytes(), &never), Ok(true));
}

#[test]
fn a_million_open_branches_are_a_spent_budget() {
    let greedy = Pattern::compile(r"(?s)(?:(?=x)x)*(?<=y)y").expect("it compiles");
    let mut body = vec![b'x'; 1_100_000];
    body.push(b'y');
    assert_eq!(greedy.is_match(&body, &never), Err(BudgetSpent));
    assert_eq!(greedy.is_match(b"xyy", &never), Ok(true));
}

#[test]
fn a_pattern_that_never_looks_at_the_text_ends_all_the_same() {
    for hostile in [
        "((?=)){90000}(?!x)y",
        "(((?=)){300}){300}(?!x)y",
        "((?!(?!))|){90000}(?!x)y",
    ] {
        let pattern = Pattern::compile(hostile).expect(hostile);
        assert_ne!(pattern.is_match(b"z", &never), Ok(true), "{hostile}");
    }
    for refused in [
        "(((?=)){60000}){60000}b",
        "(?x) ( (?=) ){60000} # [\n {60000} b",
        r"(?<a>(?:x\g<a>|y){1000}){2}",
        "(?=a)(?:(?:b{,999}){,999}){99999999999999999999}",
    ] {
        assert!(Pattern::compile(refused).is_err(), "{refused}");
    }
}

#[test]
fn a_long_body_shows_that_a_pattern_is_tame() {
    let tame = Pattern::compile("you.*welcome").unwrap();
    let wild = Pattern::compile(r"(?:x{0,200}){3}y").unwrap();
    for pattern in [&tame, &wild] {
        assert!(pattern.worst_case(65_536) > Some(Duration::from_millis(8)));
        // Short ones say nothing.
        let _ = pattern.is_match(b"x", &|| false);
        assert!(pattern.worst_case(65_536) > Some(Duration::from_millis(8)));
        let _ = pattern.is_match(&[b'x'; 65_536], &|| false);
    }
    assert!(tame.worst_case(65_536) < Some(Duration::from_millis(1)));
    assert!(wild.worst_case(65_536) > Some(Duration::from_millis(8)));
}

#[test]
fn the_worst_case_grows_with_counted_repetitions_and_length() {
    let worst = |pattern: &str, bytes| Pattern::compile(pattern).expect(pattern).worst_case(bytes);
    assert_eq!(worst("hello", 1_000), Some(Duration::from_micros(1)));
    assert_eq!(worst("hello|world", 1_000), Some(Duration::from_micros(1)));
    assert_eq!(worst("[a-z]{3,6}x", 1_000), Some(Duration::from_micros(84)));
    assert!(worst("(?:x{0,1000}){3}y", 65_536) > Some(Duration::from_secs(2)));
    assert_eq!(worst("(?=a)b", 1), None);
}

#[test]
fn many_large_parts_are_refused_before_they_cost_gigabytes() {
    for anchor in ["", "^"] {
        let parts: String = (0..600)
            .map(|n| format!(r"(?=\w{{{}}})", 41 + n % 10))
            .collect();
        let error = Pattern::compile(&format!("{anchor}{parts}")).expect_err("too big");
        assert!(
            matches!(error, PatternError::CompiledTooBig { .. }),
            "{error}"
        );
    }
    assert!(
        Pattern::compile(r"(?=\w{1,30}!).*(?<=x)y").is_ok(),
        "one is fine"
    );
}

fn refused(pattern: &str, expected: Expect) {
    let error = Pattern::compile(pattern).expect_err(pattern);
    expected.assert_eq(&error.to_string());
}

#[test]
fn a_refusal_names_the_place_and_the_fix() {
    refused(
        "a(b",
        expect![[
            r#"at character 2: unclosed group; close it with ), or write \( for the character"#
        ]],
    );
    refused(
        "é*a**[",
        expect![[
            r#"at character 6: unclosed character class; close it with ], or write \[ for the character"#
        ]],
    );
    refused(
        "a)",
        expect![[
            r#"at character 2: unopened group; open it with (, or write \) for the character"#
        ]],
    );
    refused(
        "*a",
        expect![
            "at character 1: repetition operator missing expression; write a backslash before *, +, ? or { for the character"
        ],
    );
    refused(
        r"a\",
        expect![[
            r#"at character 2: incomplete escape sequence, reached end of pattern prematurely; write \\ for a backslash"#
        ]],
    );
    refused(
        r"a\y",
        expect![[
            r#"at character 2: unrecognized escape sequence; leave the backslash out, or write \\ for a backslash"#
        ]],
    );
    refused(
        "a{2,1}",
        expect![
            "at character 2: invalid repetition count range, the start must be <= the end; write the smaller count first"
        ],
    );
    refused(
        "[z-a]",
        expect![
            "at character 2: invalid character class range, the start must be <= the end; write the smaller end first"
        ],
    );
    refused(
        r"\p{Nonsense}",
        expect!["at character 1: Unicode property not found"],
    );
    refused(
        "(?=a",
        expect!["at character 5: Opening parenthesis without closing parenthesis"],
    );
    refused(
        "(?<=a",
        expect!["at character 6: Opening parenthesis without closing parenthesis"],
    );
    refused(
        r"(a)\2",
        expect!["the look-around engine cannot run the pattern: Invalid back reference to group 2"],
    );
    refused(
        "(?=[z-a])b",
        expect![
            "the look-around engine cannot run the pattern: invalid character class range, the start must be <= the end; write the smaller end first"
        ],
    );
    refused(
        r"(?=\w{1000})b",
        expect![[
            r#"the pattern, or a part of it, compiles to more than 4096 KiB: lower the counts of its repetitions, or write [0-9A-Za-z_] for \w and [0-9] for \d"#
        ]],
    );
    refused(
        r"(?=\p{Nonsense})b",
        expect!["the look-around engine cannot run the pattern: Unicode property not found"],
    );
    refused(
        r"(?:\w{1000}){1000}",
        expect![[
            r#"the pattern, or a part of it, compiles to more than 4096 KiB: lower the counts of its repetitions, or write [0-9A-Za-z_] for \w and [0-9] for \d"#
        ]],
    );
    refused(
        "(?=a)(?:b{1000}){1000}",
        expect![
            "the repetitions of a pattern with look-around come to 1000000 rounds, more than 100000: lower their counts"
        ],
    );
    refused(
        r"(?=a)(?<n>b)\g<n>",
        expect![[
            r#"at character 13: subroutine calls (\g, (?P>name)) are not supported: write the group's content again"#
        ]],
    );
    refused(
        &"a".repeat(TEXT_BYTES_MAX + 1),
        expect!["the pattern is 8193 bytes long, more than 8192: match a part of what it lists"],
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_pattern_says_what_its_engine_says(text in random::pattern(), bodies in random::bodies()) {
        // What both engines take means what the linear one says.
        if let Ok(pattern) = Pattern::compile(&text)
            && regex::Regex::new(&text).is_err()
            && let Ok(whole) = fancy_regex::Regex::new(&text)
        {
            for body in bodies {
                let Ok(matched) = whole.is_match(&body) else {
                    continue;
                };
                prop_assert_eq!(pattern.is_match(body.as_bytes(), &never), Ok(matched), "{:?} on {:?}", pattern, body);
            }
        }
    }
}
