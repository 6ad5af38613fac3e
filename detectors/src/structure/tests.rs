use super::*;
use crate::finding::{Confidence, Matched, RuleId, Severity};
use crate::redact::MASK;

const KEY: &str = "AKIAIOSFODNN7EXAMPLE"; // gitleaks:allow

fn scanner() -> Scanner {
    Scanner::builder().token_patterns(true).build().unwrap()
}

/// A finding of which only the span is meant.
fn at(span: Range<usize>) -> Finding {
    Finding {
        severity: Severity::Block,
        rule: RuleId("test"),
        credential: "a test".into(),
        location: Location::Body,
        span: span.start as u64..span.end as u64,
        context: "".into(),
        matched: Matched::new(b""),
        confidence: Confidence::Shape,
        via: Vec::new(),
        structural: false,
    }
}

/// The spans of what stands between `«` and `»`, and the text without those.
fn marked(text: &str) -> (String, Vec<Range<usize>>) {
    let mut plain = String::new();
    let (mut starts, mut spans) = (Vec::new(), Vec::new());
    for c in text.chars() {
        match c {
            '«' => starts.push(plain.len()),
            '»' => spans.push(starts.pop().unwrap()..plain.len()),
            c => plain.push(c),
        }
    }
    (plain, spans)
}

fn located(format: &Format, text: &str) -> Vec<String> {
    let (text, spans) = marked(text);
    let mut findings: Vec<Finding> = spans.into_iter().map(at).collect();
    Document::new(format, text.as_bytes()).locate(&scanner(), &mut findings);
    findings
        .iter()
        .map(|finding| finding.location.to_string())
        .collect()
}

fn redacted(format: &Format, text: &str) -> String {
    let (text, spans) = marked(text);
    let clean = Document::new(format, text.as_bytes()).redact(&spans);
    String::from_utf8(clean.unwrap()).unwrap()
}

#[test]
fn the_place_in_json() {
    for (text, place) in [
        (r#"{"a":"x«y»z"}"#, "body at /a"),
        (r#"{"m":[{"c":1},{"c":["«k»"]}]}"#, "body at /m/1/c/0"),
        (r#" [ [ ] , { } , "«k»" ] "#, "body at /2"),
        (r#"{"a":{"b":1},"c":«12»3}"#, "body at /c"),
        (r#"{"a":{"b":1},"c":«null»}"#, "body at /c"),
        // Over several values it is what holds them all, as near as can be.
        (r#"{"a":["«x","y","z»"]}"#, "body at /a"),
        (r#"{"a":[{"b":"«x","c":{"d":1}},{"b":"y»"}]}"#, "body at /a"),
        (r#"{"a":[{"b":"«x","c":"y»"},2]}"#, "body at /a/0"),
        (r#"{"a":{"b":"«x"},"c":"y»"}"#, "body"),
        (r#"["«a"],["b»"]"#, "body"),
        // What stands between values is no part of one.
        (r#"{"a":«"x", »"b":"y"}"#, "body at /a"),
        (r#"{"a":{"b":"x"«},»"c":"y"}"#, "body"),
        (r#"{"a":["x"«,»"y"]}"#, "body"),
        // A name is what it means, and a pointer's own characters are told apart.
        (r#"{"\u0061\ud83d\ude00\/~":"«x»"}"#, "body at /a😀~1~0"),
        (
            r#"{"a\n\u202e\u001b[31m":"«x»"}"#,
            r"body at /a\n\u{202e}\u{1b}[31m",
        ),
        (r#"{"\ud83d":"«x»"}"#, "body at /\u{fffd}"),
        (r#"{"":"«x»"}"#, "body at /"),
        // Of two of one name both are named.
        (r#"{"a":"x","a":"«y»"}"#, "body at /a"),
        (r#""«x»""#, "body"),
        ("{\"a\":1}\n{\"a\":\"«x»\"}\n", "body document 2 at /a"),
        ("\u{feff}{\"a\":\"«x»\"}", "body at /a"),
    ] {
        assert_eq!(located(&Format::Unknown, text), [place], "{text}");
        assert_eq!(located(&Format::Form, text), [place], "{text}");
    }
}

#[test]
fn the_place_of_many_findings_at_once() {
    let text = r#"{"a":«["«x»","«y»«z»"],"b»":{"c":"«w"},"d":["v»"]}"#;
    // Marked by their ends.
    assert_eq!(
        located(&Format::Unknown, text),
        [
            "body at /a/0",
            "body at /a/1",
            "body at /a/1",
            "body",
            "body"
        ]
    );
}

#[test]
fn what_is_broken_has_no_fields() {
    for text in [
        r#"{"a":"«x»""#,
        r#"{"a":"«x»"]"#,
        r#"{"a":"«x»",}"#,
        r#"{"a" "«x»"}"#,
        r#"{a:"«x»"}"#,
        r#"{"a":'«x»'}"#,
        r#"{"a":"«x»"} trailing"#,
        r#"{"a":"«x»"}{}"#,
        r#"{"a":01,"b":"«x»"}"#,
        r#"{"a":1.,"b":"«x»"}"#,
        r#"{"a":+1,"b":"«x»"}"#,
        r#"{"a":NaN,"b":"«x»"}"#,
        r#"{"a":"\x41","b":"«x»"}"#,
        r#"{"a":"\u00g1","b":"«x»"}"#,
        "{\"a\":\"\n\",\"b\":\"«x»\"}",
        r#"["«x»",,1]"#,
        r#"[1 "«x»"]"#,
        "«x»",
        "",
        r#"""#,
        r#""\"#,
        r#"{"a":"#,
        "// x\n{\"a\":\"«x»\"}",
    ] {
        assert!(
            located(&Format::Unknown, text)
                .iter()
                .all(|place| place == "body"),
            "{text}"
        );
        // It is cut as it stands.
        let cut: String = text.replace("«x»", MASK);
        assert_eq!(redacted(&Format::Unknown, text), cut);
    }
    let mut invalid = br#"{"a":"x","b":"?"}"#.to_vec();
    invalid[14] = 0xFF;
    let mut findings = [at(6..7)];
    Document::new(&Format::Unknown, &invalid).locate(&scanner(), &mut findings);
    assert_eq!(findings[0].location, Location::Body);
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("{}\"«x»\"{}", "[".repeat(depth), "]".repeat(depth));
    let place = located(&Format::Unknown, &nested(json::MAX_DEPTH)).remove(0);
    assert!(place.starts_with("body at /0/0/0/"), "{place}");
    assert!(place.contains("/0/…/0/"), "{place}");
    assert!(place.chars().count() < 600, "{}", place.len());
    assert_eq!(
        located(&Format::Unknown, &nested(json::MAX_DEPTH + 1)),
        ["body"]
    );
    for text in ["[".repeat(1 << 20), "{\"a\":".repeat(1 << 18)] {
        let document = Document::new(&Format::Unknown, text.as_bytes());
        assert_eq!(document.shape, Shape::Plain);
    }
}

/// Many findings in one document, half of them over nearly all of it.
#[test]
fn many_findings_cost_as_much_as_one_pass() {
    let text = format!("{{\"k\":[{}1]}}", "\"x\",[[7]],".repeat(20_000));
    let spans: Vec<_> = (0..20_000)
        .flat_map(|number| {
            let start = 6 + number * 10;
            [start..start + 2, start..text.len() - 2]
        })
        .collect();
    let scanner = scanner();
    let judges = spans
        .iter()
        .map(|span| Judge::new(&scanner, &at(span.clone())))
        .collect();
    let mut places = Places::new(text.as_bytes(), &spans, Vec::new(), judges);
    json::locate(&mut places, 1);
    let shown: Vec<_> = places
        .fields
        .iter()
        .map(|field| field.as_ref().unwrap().to_string())
        .collect();
    for (number, pair) in shown.chunks(2).enumerate() {
        assert_eq!(pair, [format!("at /k/{}", number * 2), "at /k".to_owned()]);
    }
    let document = Document::new(&Format::Unknown, text.as_bytes());
    let clean = document.redact(&spans).unwrap();
    assert!(!clean.contains(&b'7') && !clean.contains(&b'x'));
}

#[test]
fn a_name_that_a_finding_touches_is_not_shown() {
    let half = &KEY[..10];
    for (text, place) in [
        (format!(r#"{{"a":{{"«{KEY}»":1}}}}"#), "body at /a/********"),
        (
            format!(r#"{{"a":{{"x«{KEY}»y":{{"b":"«{KEY}»"}}}}}}"#),
            "body at /a/********/b",
        ),
        (
            format!(r#"{{"«{half}":"{}»"}}"#, &KEY[10..]),
            "body at /********",
        ),
        (
            format!(r#"{{"a«{half}":["{}»"]}}"#, &KEY[10..]),
            "body at /********",
        ),
    ] {
        let places = located(&Format::Unknown, &text);
        assert_eq!(places.last().unwrap(), place, "{text}");
        assert!(places.iter().all(|place| !place.contains(half)), "{text}");
    }
    for (text, place) in [
        (format!("a=1&«{KEY}»=2"), "body field ********"),
        (
            format!("a=1&x{half}«{}»=2", &KEY[10..]),
            "body field ********",
        ),
    ] {
        assert_eq!(located(&Format::Form, &text), [place], "{text}");
    }
}

/// What was found is something else, perhaps by a route that looks for no tokens.
#[test]
fn names_that_are_a_credential_are_not_shown_beside_another() {
    let escaped: String = KEY.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    for text in [
        format!(r#"{{"{KEY}":{{"a":"«x»"}}}}"#),
        format!(r#"{{"{escaped}":{{"a":"«x»"}}}}"#),
        format!(r#"{{"{}":{{"{}":"«x»"}}}}"#, &KEY[..9], &KEY[9..]),
        format!(r#"{{"{}":[0,{{"{}":"«x»"}}]}}"#, &KEY[..9], &KEY[9..]),
    ] {
        let place = located(&Format::Unknown, &text).remove(0);
        assert!(!place.contains(&KEY[..9]), "{place}");
        assert!(!place.contains(&KEY[9..]), "{place}");
    }
    assert_eq!(
        located(&Format::Form, &format!("{KEY}=«x»")),
        ["body field ********"]
    );
}

/// Pieces of what was found that stand beside it are in no span, and no detector knows them.
#[test]
fn names_that_are_pieces_of_what_was_found_are_not_shown() {
    let scanner = scanner();
    let (format, multipart) = multipart(&format!(
        "--x y\nContent-Disposition: form-data; name=\"{}\"\n\n{KEY}\n--x y--\n",
        &KEY[..9]
    ));
    for (format, text, place) in [
        (
            Format::Unknown,
            format!(r#"{{"a":{{"{}":"{KEY}"}}}}"#, &KEY[..9]),
            "body at /a/********",
        ),
        (
            Format::Unknown,
            format!(r#"{{"a":{{"{}":"{KEY}"}}}}"#, KEY[11..].to_lowercase()),
            "body at /a/********",
        ),
        (
            Format::Unknown,
            format!(r#"{{"AKIA":[{{"IOSF":["{KEY}"]}}]}}"#),
            "body",
        ),
        (
            Format::Form,
            format!("{}={KEY}", &KEY[..9]),
            "body field ********",
        ),
        (format, multipart, "body part ********"),
        (
            Format::Unknown,
            format!(r#"{{"aki":{{"example":"{KEY}"}}}}"#),
            "body at /aki/********",
        ),
    ] {
        let mut found = scanner.scan(&Location::Body, text.as_bytes());
        Document::new(&format, text.as_bytes()).locate(&scanner, &mut found);
        assert_eq!(found[0].location.to_string(), place, "{text}");
    }
}

#[test]
fn long_names_are_left_out_as_a_whole() {
    let long = "n".repeat(100_000);
    let text = format!(r#"{{"a":{{"{long}":{{"b":"«x»"}}}}}}"#);
    assert_eq!(located(&Format::Unknown, &text), ["body at /a/…/b"]);
    let control = "\\u0001".repeat(40);
    let text = format!(r#"{{"{control}":"«x»"}}"#);
    assert_eq!(located(&Format::Unknown, &text), ["body at /…"]);
    let text = format!("{long}=«x»");
    assert_eq!(located(&Format::Form, &text), ["body field …"]);
}

#[test]
fn json_stays_json() {
    for (text, clean) in [
        (r#"{"a":"x«y»z"}"#, r#"{"a":"x********z"}"#),
        (r#"{"a":"x\u00«41»z"}"#, r#"{"a":"x********z"}"#),
        (r#"{"a":"x\«n»z"}"#, r#"{"a":"x********z"}"#),
        (r#"{"a":"x\ud83d«\ude00»z"}"#, r#"{"a":"x********z"}"#),
        (r#"{"a":"x\ud83d«\u0041»z"}"#, r#"{"a":"x\ud83d********z"}"#),
        (
            r#"{"a":["«x","y","z»"]}"#,
            r#"{"a":["********","********","********"]}"#,
        ),
        (
            r#"{"a":"1«x","b":"y»2"}"#,
            r#"{"a":"1********","********":"********2"}"#,
        ),
        (
            r#"{"«a»":1,"x«b»":2,"«c»":3}"#,
            r#"{"********":1,"x********-2":2,"********-3":3}"#,
        ),
        (r#"[«103, 104, 9»9, 1]"#, "[0, 0, 0, 1]"),
        (r#"[-1.5e«3»,"",«true,null,""»]"#, r#"[0,"",true,null,""]"#),
        (
            r#"«{"a":["b",12,{}]}»"#,
            r#"{"********":["********",0,{}]}"#,
        ),
        (r#"{"a":"«x»«y»"}"#, r#"{"a":"********"}"#),
        (r#"{"a":"«x»,«y»"}"#, r#"{"a":"********,********"}"#),
        (r#"["grü«n»", "«ü»"]"#, r#"["grü********", "********"]"#),
        (
            "{\"a\":\"«x»\"}\n{\"b\":«12»}\n",
            "{\"a\":\"********\"}\n{\"b\":0}\n",
        ),
    ] {
        assert_eq!(redacted(&Format::Unknown, text), clean);
    }
    // A span that halves a character.
    let text = "[\"ü\"]";
    let clean =
        Document::new(&Format::Unknown, text.as_bytes()).redact(std::slice::from_ref(&(3..4)));
    assert_eq!(clean.unwrap(), b"[\"********\"]");
}

#[test]
fn a_form_stays_a_form() {
    for (text, place, clean) in [
        ("a=1&b=x«y»z&c=2", "body field b", "a=1&b=x********z&c=2"),
        ("b=«y»", "body field b", "b=********"),
        ("a=1&b=%4«1%42»&c", "body field b", "a=1&b=********&c"),
        ("b=%C3«%A9»", "body field b", "b=********"),
        ("a+%62=«y»", "body field a b", "a+%62=********"),
        ("a=«x&b=y»", "body", "a=********&********=********"),
        (
            "«a»=1&«b»=2",
            "body field ********",
            "********=1&********-2=2",
        ),
        ("a=x=«y»=z", "body field a", "a=x=********=z"),
        ("a&«y»", "body", "a&********"),
        ("a=1&&=«y»&", "body field ", "a=1&&=********&"),
        // The separators that a finding begins or ends with are in no field.
        ("a=1«&=»b=2", "body", "a=1&=b=2"),
        (
            "a=1«&b=2&»c=3",
            "body field ********",
            "a=1&********=********&c=3",
        ),
        ("a=1\n&b=«y»", "body", "a=1\n&b=********"),
    ] {
        assert_eq!(located(&Format::Form, text)[0], place, "{text}");
        assert_eq!(redacted(&Format::Form, text), clean, "{text}");
    }
}

fn multipart(text: &str) -> (Format, String) {
    let format = Format::of(b"multipart/form-data; boundary=\"x y\"");
    assert_eq!(format, Format::Multipart((*b"x y").into()));
    (format, text.replace('\n', "\r\n"))
}

#[test]
fn multipart_stays_multipart() {
    const NAMED: &str = "Content-Disposition: form-data; name=\"a\"";
    for (text, place, clean) in [
        (
            format!("--x y\n{NAMED}\n\n1«2»3\n--x y--\n"),
            "body part a",
            format!("--x y\n{NAMED}\n\n1********3\n--x y--\n"),
        ),
        (
            format!("pre\n--x y \n{NAMED}\n\n1\n--x y\n{NAMED}; filename=f.txt\n\n«2»\n--x y--"),
            "body part a, file f.txt",
            format!("pre\n--x y \n{NAMED}\n\n1\n--x y\n{NAMED}; filename=f.txt\n\n********\n--x y--"),
        ),
        (
            format!("--x y\n{NAMED}; filename=\"«k».txt\"\n\n\n--x y--\n"),
            "body part a, file ********",
            format!("--x y\n{NAMED}; filename=\"********.txt\"\n\n\n--x y--\n"),
        ),
        (
            format!("--x y\n{NAMED}\nX-«k»: 1\n\n\n--x y--\n"),
            "body part a",
            format!("--x y\n{NAMED}\nX-********: 1\n\n\n--x y--\n"),
        ),
        (
            format!("--x y\n{NAMED}\n\n1«2\n--x y\n{NAMED}\n\n3»4\n--x y--\n"),
            "body",
            "--x y\nContent-Disposition: form-data; name=\"a\"\n\n1********\n--x y\nContent-Disposition: form-data; name=\"********\"\n\n********4\n--x y--\n".to_owned(),
        ),
        (
            "--x y\n\n«2»\n--x y--\n".to_owned(),
            "body",
            "--x y\n\n********\n--x y--\n".to_owned(),
        ),
        (
            "--x y\nContent-Disposition: form-data; name=a; name=b\n\n«2»\n--x y--\n".to_owned(),
            "body",
            "--x y\nContent-Disposition: form-data; name=a; name=b\n\n********\n--x y--\n".to_owned(),
        ),
        (
            format!("--x y\n{NAMED}\n\n1\n--x y--\nbehind «it»"),
            "body",
            format!("--x y\n{NAMED}\n\n1\n--x y--\nbehind ********"),
        ),
    ] {
        let (format, text) = multipart(&text);
        assert_eq!(located(&format, &text)[0], place, "{text}");
        assert_eq!(redacted(&format, &text), clean.replace('\n', "\r\n"), "{text}");
    }
}

#[test]
fn multipart_that_two_readers_read_in_two_ways_is_plain() {
    const NAMED: &str = "Content-Disposition: form-data; name=\"a\"";
    for text in [
        format!("--x y\n{NAMED}\n\n«1»\n"),
        format!("--x y\n{NAMED}\n\n«1»\n--x yz\n--x y--\n"),
        format!("--x y\n{NAMED}\n\n«1»\n--x y"),
        format!("--x y\n{NAMED}\n«1»\n--x y--\n"),
        "--x y\nno field\n\n«1»\n--x y--\n".into(),
        format!("--x y\n{NAMED}\n folded: 1\n\n«1»\n--x y--\n"),
        "--x y--\n«1»".to_owned(),
        "«1»".to_owned(),
    ] {
        let (format, text) = multipart(&text);
        assert_eq!(located(&format, &text), ["body"], "{text}");
        assert!(redacted(&format, &text).contains(MASK), "{text}");
    }
    let (format, _) = multipart("");
    let text = format!("--x y\r\n{NAMED}\r\n\r\n1\n--x y\n«2»\r\n--x y--\r\n");
    assert_eq!(located(&format, &text), ["body"], "a bare line feed");
}

#[test]
fn a_part_that_states_its_length_is_not_rewritten() {
    let (format, text) = multipart("--x y\nContent-Length: 3\n\n123\n--x y\nX: 1\n\n2\n--x y--\n");
    let document = Document::new(&format, text.as_bytes());
    let at = text.find("123").unwrap();
    assert_eq!(document.redact(std::slice::from_ref(&(at..at + 3))), None);
    let at = text.find("\r\n2").unwrap() + 2;
    assert!(
        document
            .redact(std::slice::from_ref(&(at..at + 1)))
            .is_some()
    );
}

#[test]
fn what_the_sender_says() {
    for (value, format) in [
        ("application/json", Format::Unknown),
        ("", Format::Unknown),
        (
            "Application/X-WWW-Form-URLencoded; charset=utf-8",
            Format::Form,
        ),
        ("multipart/mixed", Format::Unknown),
        ("multipart/form-data; boundary=", Format::Unknown),
        (
            "multipart/form-data; boundary=a; boundary=b",
            Format::Unknown,
        ),
        ("multipart/form-data; boundary=\"a", Format::Unknown),
        ("multipart/form-data; boundary=********", Format::Unknown),
        (
            "multipart/form-data; a; b=\"; boundary=c\"; Boundary=d ; e=f",
            Format::Multipart((*b"d").into()),
        ),
    ] {
        assert_eq!(Format::of(value.as_bytes()), format, "{value}");
    }
    let long = format!("multipart/form-data; boundary={}", "a".repeat(71));
    assert_eq!(Format::of(long.as_bytes()), Format::Unknown);
}
