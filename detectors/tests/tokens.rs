//! The table of token cases over every path of the engine.

#![expect(
    clippy::unwrap_used,
    reason = "test helpers: a broken one must stop the test"
)]

mod common;

use common::{BLOCK, scan_cut, scan_every_way};
use detectors::{Location, Scanner, Severity, TOKEN_RULES, Via, redact};
use fixtures::tokens::TOKEN_CASES;
use proptest::prelude::*;

fn scanner() -> Scanner {
    Scanner::builder().token_patterns(true).build().unwrap()
}

#[test]
fn every_case_has_its_rule() {
    for case in TOKEN_CASES {
        assert!(
            TOKEN_RULES.iter().any(|rule| rule.id.0 == case.rule),
            "{}",
            case.rule
        );
        assert!(
            case.positive.len() >= 3 && case.negative.len() >= 3,
            "{}",
            case.rule
        );
    }
}

#[test]
fn positives_are_found_whole() {
    let scanner = scanner();
    for case in TOKEN_CASES {
        for token in case.positive {
            for (before, after) in [
                ("", ""),
                ("key = \"", "\";"),
                ("x\u{4e2d}", "\u{4e2d}"),
                ("https://u:", "@host/"),
                ("\0", "\0"),
            ] {
                let input = format!("{before}{token}{after}");
                let found = scan_every_way(&scanner, input.as_bytes());
                assert_eq!(found.len(), 1, "{input}: {found:?}");
                assert_eq!(found[0].rule.0, case.rule, "{input}");
                assert_eq!(found[0].severity, Severity::Block);
                assert_eq!(
                    found[0].span,
                    before.len() as u64..(before.len() + token.len()) as u64,
                    "{input}"
                );
                assert_eq!(found[0].matched.expose(), token.as_bytes());
                assert!(found[0].via.is_empty());
                assert!(!found[0].context.contains(token));
                let clean = redact(input.as_bytes(), &found);
                assert_eq!(clean, format!("{before}********{after}").as_bytes());
                assert!(scanner.scan(&Location::Body, &clean).is_empty());
            }
        }
    }
}

#[test]
fn glued_letters_do_not_hide_a_token() {
    let scanner = scanner();
    for case in TOKEN_CASES {
        for token in case
            .positive
            .iter()
            .filter(|token| !token.starts_with("s."))
        {
            let found = scan_every_way(&scanner, format!("x{token}").as_bytes());
            assert_eq!(found.len(), 1, "{token}");
        }
    }
}

#[test]
fn negatives_are_not_found() {
    let scanner = scanner();
    for case in TOKEN_CASES {
        for text in case.negative {
            assert_eq!(scan_every_way(&scanner, text.as_bytes()), [], "{text}");
        }
    }
}

#[test]
fn seams_between_windows_hide_nothing() {
    let scanner = scanner();
    let token = TOKEN_CASES[1].positive[0];
    let writings: Vec<String> = vec![
        token.into(),
        token.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        token.bytes().map(|byte| format!("%25{byte:02x}")).collect(),
        token.bytes().map(|byte| format!("\\u{byte:04x}")).collect(),
        token
            .bytes()
            .map(|byte| format!("\\\\u{byte:04x}"))
            .collect(),
        token
            .chars()
            .map(|c| char::from_u32(c as u32 - 0x21 + 0xFF01).unwrap())
            .collect(),
        token
            .chars()
            .map(|c| format!("{c}\u{200b}\u{200b}\u{200b}"))
            .collect(),
        token
            .bytes()
            .map(|byte| format!("=\r\n={byte:02X}"))
            .collect(),
        token.chars().map(|c| format!("{c}\0\0\0")).collect(),
    ];
    for written in writings {
        for at in (BLOCK - written.len() - 3..=BLOCK + 3)
            .step_by(7)
            .chain([BLOCK - 512])
        {
            let input = format!("{}{written}{}", " ".repeat(at), " ".repeat(20_000));
            let found = scanner.scan(&Location::Body, input.as_bytes());
            assert_eq!(found.len(), 1, "{written} at {at}: {found:?}");
            assert!(
                found[0].span.start as usize - at <= 3
                    && found[0].span.end as usize <= at + written.len()
            );
            assert_eq!(
                scan_cut(&scanner, input.as_bytes(), [at, at + 7, BLOCK + 9000]),
                found
            );
        }
    }
}

#[test]
fn a_long_tail_hides_nothing_behind_its_end() {
    let scanner = scanner();
    for tail in 3900..4200 {
        let input = format!("ghp_{}ghp_{}!", "A".repeat(36 + tail), "B".repeat(36));
        let found = scanner.scan(&Location::Body, input.as_bytes());
        let clean = redact(input.as_bytes(), &found);
        assert!(
            !clean.windows(36).any(|window| window == [b'B'; 36]),
            "tail of {tail}: {found:?}"
        );
    }
}

#[test]
fn writings_of_a_token_are_seen_through() {
    let scanner = scanner();
    let token = TOKEN_CASES[1].positive[0];
    let each = |format: &dyn Fn(u8) -> String| token.bytes().map(format).collect::<String>();
    let cases: Vec<(&str, Vec<u8>, Via)> = vec![
        (
            "percent",
            each(&|b| format!("%{b:02X}")).into(),
            Via::Percent,
        ),
        (
            "percent, one",
            token.replacen('g', "%67", 1).into(),
            Via::Percent,
        ),
        (
            "percent twice",
            each(&|b| format!("%25{b:02x}")).into(),
            Via::Percent,
        ),
        (
            "json",
            each(&|b| format!("\\u{b:04x}")).into(),
            Via::JsonEscape,
        ),
        (
            "json, one",
            token.replacen('_', "\\u005f", 1).into(),
            Via::JsonEscape,
        ),
        (
            "json in json",
            each(&|b| format!("\\\\u{b:04x}")).into(),
            Via::JsonEscape,
        ),
        (
            "html decimal",
            each(&|b| format!("&#{b};")).into(),
            Via::HtmlEntity,
        ),
        (
            "html hex",
            each(&|b| format!("&#x{b:x};")).into(),
            Via::HtmlEntity,
        ),
        (
            "html name",
            token.replace('_', "&lowbar;").into(),
            Via::HtmlEntity,
        ),
        (
            "quoted-printable",
            each(&|b| format!("={b:02X}")).into(),
            Via::QuotedPrintable,
        ),
        (
            "soft break",
            [&token[..9], "=\r\n", &token[9..]].concat().into(),
            Via::QuotedPrintable,
        ),
        (
            "utf-16",
            token.bytes().flat_map(|b| [b, 0]).collect(),
            Via::Utf16,
        ),
        (
            "utf-16 be",
            token.bytes().flat_map(|b| [0, b]).collect(),
            Via::Utf16,
        ),
        (
            "utf-32",
            token.bytes().flat_map(|b| [0, 0, 0, b]).collect(),
            Via::Utf32,
        ),
        (
            "full-width",
            each(&|b| char::from_u32(u32::from(b) - 0x21 + 0xFF01).unwrap().into()).into(),
            Via::Unicode,
        ),
        (
            "zero-width",
            each(&|b| format!("{}\u{200b}", b as char)).into(),
            Via::Unicode,
        ),
        (
            "combining",
            each(&|b| format!("{}\u{338}", b as char)).into(),
            Via::Unicode,
        ),
        (
            "tags",
            each(&|b| char::from_u32(0xE0000 + u32::from(b)).unwrap().into()).into(),
            Via::Unicode,
        ),
        (
            "zero-width in json",
            each(&|b| format!("{}\\u200b", b as char)).into(),
            Via::JsonEscape,
        ),
        (
            "full-width in percent",
            token.replacen('g', "%EF%BD%87", 1).into(),
            Via::Percent,
        ),
        (
            "destroyed beside",
            format!("\\xda{}", token.replace("h", "h\u{200b}")).into(),
            Via::Unicode,
        ),
        (
            "line break",
            [&token[..20], "\n    ", &token[20..]].concat().into(),
            Via::LineWrap,
        ),
        (
            "line continuation",
            [&token[..20], "\\\n", &token[20..]].concat().into(),
            Via::JsonEscape,
        ),
    ];
    for (name, written, via) in cases {
        for (before, after) in [("", ""), ("a ", " b"), ("\u{e9}%", "%\u{e9}")] {
            let input = [before.as_bytes(), &written, after.as_bytes()].concat();
            let found = scan_every_way(&scanner, &input);
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert_eq!(found[0].rule.0, "github-token-classic", "{name}");
            assert_eq!(found[0].via[0], via, "{name}");
            let clean = redact(&input, &found);
            assert!(
                scanner.scan(&Location::Body, &clean).is_empty(),
                "{name}: {}",
                clean.escape_ascii()
            );
        }
    }
}

#[test]
fn the_offset_map_is_exact() {
    let scanner = scanner();
    let token = TOKEN_CASES[1].positive[0];
    // Full-width `g`, a zero-width space in the middle, text in other scripts around.
    let (before, after) = ("\u{4e2d}\u{6587} %41 ", "\u{3002}\u{1f600}");
    let written = format!("\u{ff47}{}\u{200b}{}", &token[1..17], &token[17..]);
    let input = format!("{before}{written}{after}");
    let found = scanner.scan(&Location::Body, input.as_bytes());
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].span,
        before.len() as u64..(before.len() + written.len()) as u64
    );
    assert_eq!(found[0].via, [Via::Unicode]);
    assert_eq!(
        &*found[0].context,
        "\u{4e2d}\u{6587} %41 ********\u{3002}\u{1f600}"
    );
}

#[test]
fn contexts_are_redacted_before_they_are_cut() {
    let scanner = scanner();
    let token = TOKEN_CASES[1].positive[0];
    for gap in 0..200 {
        let input = format!(
            "{token}{}{token}\r\n{}{token}\u{202e}",
            " ".repeat(gap + 1),
            "\u{e9}".repeat(gap)
        );
        for finding in scanner.scan(&Location::Body, input.as_bytes()) {
            assert!(!finding.context.contains("AAAA"), "{}", finding.context);
            assert!(finding.context.chars().count() <= 88);
            assert!(
                !finding
                    .context
                    .contains(['\r', '\n', '\u{202e}', '\u{fffd}']),
                "{}",
                finding.context
            );
        }
    }
}

#[test]
fn a_flood_of_findings_ends_in_a_structural_one() {
    let scanner = scanner();
    let input = format!("{} ", TOKEN_CASES[0].positive[0]).repeat(100_000);
    let found = scanner.scan(&Location::Body, input.as_bytes());
    assert_eq!(found.len(), 1025);
    assert!(found.last().unwrap().structural);
    assert_eq!(found.last().unwrap().rule.0, "finding-limit");
}

#[test]
fn a_flood_of_invisible_characters_is_a_finding() {
    let scanner = scanner();
    let input = "g\u{200b}".to_owned() + &"\u{200b}".repeat(20_000) + "hp_";
    let found = scan_cut(&scanner, input.as_bytes(), [7]);
    assert_eq!(found[0].rule.0, "hidden-text");
    assert_eq!(found[0].severity, Severity::Block);
}

#[test]
fn a_stream_can_be_used_again() {
    let scanner = scanner();
    let mut stream = scanner.stream(Location::Body);
    stream.push(b"first");
    assert!(stream.finish().is_empty());
    assert!(
        stream
            .push(TOKEN_CASES[0].positive[0].as_bytes())
            .is_empty()
    );
    assert_eq!(stream.finish()[0].span, 5..25);
    assert!(stream.finish().is_empty());
}

#[test]
fn entropy_only_warns() {
    let scanner = Scanner::builder().entropy(true).build().unwrap();
    let random: String = (0..64)
        .map(|i| {
            char::from(
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[i * 37 % 64],
            )
        })
        .collect();
    let input = format!("{} {random} {}", "word ".repeat(50), "word ".repeat(50));
    let found = scan_every_way(&scanner, input.as_bytes());
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].severity, found[0].rule.0),
        (Severity::Warn, "entropy")
    );
    assert!(
        scan_every_way(
            &scanner,
            "the quick brown fox jumps over the lazy dog. "
                .repeat(9)
                .as_bytes()
        )
        .is_empty()
    );
    let flood = random.repeat(10_000);
    assert_eq!(scan_cut(&scanner, flood.as_bytes(), [1, 100_000]).len(), 16);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_panics_and_cuts_change_nothing(
        pieces in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            prop::sample::select(vec!["%", "%25", "%4", "\\", "\\u00", "\\u", "&#", "&#x", "=", "=\r\n", "\u{200b}", "\u{ff47}", "\0", "\n", "ghp_", "AAAAAAAAAAAAAAAAAA", "%41", "\\u0041"])
                .prop_map(|text| text.as_bytes().to_vec()),
            prop::sample::select(TOKEN_CASES.iter().flat_map(|case| case.positive).collect::<Vec<_>>())
                .prop_map(|token| token.as_bytes().to_vec()),
        ], 0..30),
        padding in prop_oneof![Just(0_usize), BLOCK - 600..BLOCK],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let scanner = Scanner::builder().token_patterns(true).entropy(true).build().unwrap();
        let input = [vec![b' '; padding], pieces.concat()].concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.sort_unstable();
        let whole = scanner.scan(&Location::Body, &input);
        prop_assert_eq!(&scan_cut(&scanner, &input, cuts), &whole);
        for finding in &whole {
            prop_assert!(finding.span.end <= input.len() as u64 && finding.span.start < finding.span.end);
        }
        let clean = redact(&input, &whole);
        let again = scanner.scan(&Location::Body, &clean);
        prop_assert!(again.iter().all(|finding| finding.span.end - finding.span.start > 8), "{:?}", again);
    }
}

/// A password that holds a token of a shape of its own is named by the token, and none of it is shown.
#[test]
fn the_rest_of_a_password_around_a_token_is_not_shown() {
    const TOKEN: &str = "ghp_3KqWz81mRtYxLp0vBnHc5dRt8sQe7UaJ2oXi"; // gitleaks:allow
    let scanner = Scanner::builder().token_patterns(true).build().unwrap();
    let text =
        format!("url = postgres://admin:Vorsilbe-{TOKEN}-Nachsilbe@db.example.com/app and more"); // gitleaks:allow
    for input in [
        text.clone(),
        text.replace('-', "%2D"),
        text.bytes().map(|byte| format!("\\u{byte:04x}")).collect(),
    ] {
        let found = scanner.scan(&Location::Body, input.as_bytes());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].rule.0, "github-token-classic");
        for half in ["Vorsilbe", "Nachsilbe", "\\u0056", "\\u0065"] {
            assert!(!found[0].context.contains(half), "{}", found[0].context);
        }
    }
}
