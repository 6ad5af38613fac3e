//! A body is a document: what is refused says which field it is about, what is redacted arrives as the document that it
//! was, and no name that is shown is a credential.

use std::io::Write as _;

use fixtures::origin::OriginOptions;
use serde_json::{Value, json};

use crate::harness::{Answer, KEY, KNOWN, Setup, World, dlp};

const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=\"b 1\"";
const TOKEN: &str = "ghp_3KqWz81mRtYxLp0vBnHc5dRt8sQe7UaJ2oXi"; // gitleaks:allow
/// The rest of a password of which a key is the beginning.
const REST: &str = "-Xk93lqP";

async fn post(world: &World, content_type: &str, extra: &str, body: &[u8]) -> Answer {
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: HOST\r\nContent-Type: {content_type}\r\n{extra}Content-Length: {}\r\n\r\n",
        body.len()
    );
    world
        .raw(&[head.as_bytes(), body].concat())
        .await
        .expect("an answer")
}

fn message(text: &Value) -> Value {
    json!({
        "model": "m",
        "max_tokens": 1024,
        "messages": [
            {"role": "user", "content": "hello \"there\"\n"},
            {"role": "user", "content": [{"type": "text", "text": text}]},
        ],
    })
}

fn multipart(name: &str, file: &str, content: &str) -> String {
    format!(
        "--b 1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b 1\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\nContent-Type: text/plain\r\n\r\n{content}\r\n--b 1--\r\n"
    )
}

/// `(what, content type, body, field, what must be seen nowhere)`.
fn cases() -> Vec<(&'static str, &'static str, String, &'static str, String)> {
    let key = || KEY.to_owned();
    vec![
        (
            "json",
            "application/json",
            message(&json!(format!("the key is {KEY}."))).to_string(),
            "body at /messages/1/content/0/text",
            key(),
        ),
        (
            "json that is called a form, as curl does",
            FORM,
            message(&json!(KEY)).to_string(),
            "body at /messages/1/content/0/text",
            key(),
        ),
        (
            "pieces",
            "application/json",
            message(&json!([&TOKEN[..12], &TOKEN[12..30], &TOKEN[30..]])).to_string(),
            "body at /messages/1/content/0/text",
            TOKEN[12..30].to_owned(),
        ),
        (
            "a key as a name",
            "application/json",
            message(&json!({KEY: {"a": 1}})).to_string(),
            "body at /messages/1/content/0/text/********",
            key(),
        ),
        (
            "a key as a name around a key",
            "application/json",
            message(&json!({KEY: {"a": KNOWN}})).to_string(),
            "body at /messages/1/content/0/text/********",
            key(),
        ),
        (
            "half of a key as a name of the whole",
            "application/json",
            message(&json!({&KEY[..10]: KEY})).to_string(),
            "body at /messages/1/content/0/text/********",
            key(),
        ),
        (
            "lines of json",
            "application/x-ndjson",
            format!("{}\n{}\n", json!({"a": 1}), json!({"event": [KEY]})),
            "body document 2 at /event/0",
            key(),
        ),
        (
            "broken json",
            "application/json",
            format!("{{\"a\": \"{KEY}\","),
            "body",
            key(),
        ),
        (
            "form",
            FORM,
            format!("user=me&pass%77ord=a{KEY}&x=1"),
            "body field password",
            key(),
        ),
        (
            "a key as a form's name",
            FORM,
            format!("user=me&{KEY}=1"),
            "body field ********",
            key(),
        ),
        (
            "part",
            MULTIPART,
            multipart("file", "notes.txt", &format!("key = {KEY}\n")),
            "body part file, file notes.txt",
            key(),
        ),
        (
            "file name",
            MULTIPART,
            multipart("file", &format!("{KEY}.txt"), "x"),
            "body part file, file ********",
            key(),
        ),
        (
            "a key as a part's name",
            MULTIPART,
            multipart(KEY, "notes.txt", "x"),
            "body part ********, file notes.txt",
            key(),
        ),
    ]
}

fn assert_unseen(world: &World, what: &str, answer: &Answer, secret: &str) {
    let secret = secret.to_ascii_lowercase();
    for (place, text) in [
        ("answer", format!("{answer:?} {}", answer.text())),
        ("audit", world.sidecar.audit_text()),
        ("log", world.sidecar.stderr()),
    ] {
        assert!(
            !text.to_ascii_lowercase().contains(&secret),
            "{what}: it stands in the {place}: {text}"
        );
    }
    assert!(!world.origin.saw(secret.as_bytes()), "{what}");
}

#[tokio::test]
async fn a_refusal_names_the_field() {
    let world = World::policy(&dlp(json!({"outbound_on_match": "block"}))).await;
    for (what, content_type, body, place, secret) in cases() {
        let answer = post(&world, content_type, "", body.as_bytes()).await;
        assert_eq!(answer.status, 403, "{what}: {answer:?}");
        let said = answer.json();
        assert_eq!(said["location"], place, "{what}: {said}");
        let event = said["event"].as_str().unwrap();
        let records = world.sidecar.event(event).await;
        assert_eq!(records[0]["location"], place, "{what}");
        assert_unseen(&world, what, &answer, &secret);
        world.assert_untouched(what);
    }
    // The document is what the coding holds.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let body = message(&json!(KEY)).to_string();
    encoder.write_all(body.as_bytes()).unwrap();
    let zipped = encoder.finish().unwrap();
    let answer = post(
        &world,
        "application/json",
        "Content-Encoding: gzip\r\n",
        &zipped,
    )
    .await;
    let said = answer.json();
    assert!(
        world
            .sidecar
            .event(said["event"].as_str().unwrap())
            .await
            .iter()
            .any(|record| record["location"] == "body at /messages/1/content/0/text"),
        "{}",
        world.sidecar.audit_text()
    );
}

#[tokio::test]
async fn what_is_redacted_arrives_as_the_document_that_it_was() {
    for options in [OriginOptions::HTTP1, OriginOptions::HTTP2] {
        let setup = Setup::new(&dlp(json!({"outbound_on_match": "redact"})));
        let world = World::start(options, setup).await;
        for (what, content_type, body, place, secret) in cases() {
            world.origin.clear();
            let answer = post(&world, content_type, "", body.as_bytes()).await;
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
            let [request] = world.origin.wait_for_requests(1).await.try_into().unwrap();
            assert_eq!(
                request.header("content-length"),
                Some(request.body.len().to_string()),
                "{what}"
            );
            let sent = String::from_utf8(request.body.clone()).unwrap();
            assert!(sent.contains("********"), "{what}: {sent}");
            match what {
                "broken json" => {}
                "lines of json" => {
                    let lines: Vec<Value> = sent
                        .lines()
                        .map(|line| serde_json::from_str(line).unwrap())
                        .collect();
                    assert_eq!(lines, [json!({"a": 1}), json!({"event": ["********"]})]);
                }
                _ if content_type == MULTIPART => {
                    assert!(sent.starts_with("--b 1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b 1\r\nContent-Disposition: form-data; name=\""), "{what}: {sent}");
                    assert!(sent.ends_with("\r\n--b 1--\r\n"), "{what}: {sent}");
                }
                "form" => assert_eq!(sent, "user=me&pass%77ord=a********&x=1"),
                "a key as a form's name" => assert_eq!(sent, "user=me&********=1"),
                _ => {
                    let sent: Value = serde_json::from_str(&sent).unwrap();
                    assert_eq!(sent["max_tokens"], 1024, "{what}");
                    assert_eq!(
                        sent["messages"][0]["content"], "hello \"there\"\n",
                        "{what}"
                    );
                    assert_eq!(sent["messages"][1]["role"], "user", "{what}");
                }
            }
            assert_unseen(&world, what, &answer, &secret);
            let records = world.sidecar.audit();
            assert!(
                records
                    .iter()
                    .any(|record| record["verdict"] == "redact" && record["location"] == place),
                "{what}: {records:#?}"
            );
        }
    }
}

/// As numbers, in escapes and half in escapes; each is a way to cut a document in two if it is cut at the span.
#[tokio::test]
async fn every_writing_is_cut_out_whole() {
    let world = World::policy(&dlp(json!({"outbound_on_match": "redact"}))).await;
    let numbers: Vec<u8> = KNOWN.bytes().collect();
    let escaped: String = KEY.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let half: String = KEY
        .char_indices()
        .map(|(at, c)| match at % 2 {
            0 => format!("\\u{:04x}", u32::from(c)),
            _ => c.to_string(),
        })
        .collect();
    for (what, literal) in [
        ("numbers", json!(numbers).to_string()),
        ("escapes", format!("\"a\\n{escaped}\\n\"")),
        (
            "half escapes",
            format!("\"\\ud83d\\ude00{half}\\ud83d\\ude00\""),
        ),
        ("json in json", format!("\"{{\\\"k\\\":\\\"{KEY}\\\"}}\"")),
    ] {
        world.origin.clear();
        let body = message(&json!("PLANT"))
            .to_string()
            .replace("\"PLANT\"", &literal);
        let answer = post(&world, "application/json", "", body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        let [request] = world.origin.wait_for_requests(1).await.try_into().unwrap();
        let sent: Value = serde_json::from_slice(&request.body).expect(what);
        let text = &sent["messages"][1]["content"][0]["text"];
        match what {
            "numbers" => {
                let left = text.as_array().unwrap();
                assert_eq!(left.len(), numbers.len());
                assert!(left.iter().all(|number| *number == 0), "{text}");
            }
            "json in json" => {
                let inner: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
                assert_eq!(inner, json!({"k": "********"}));
            }
            "escapes" => assert_eq!(text, "a\n********\n"),
            _ => assert_eq!(text, "\u{1f600}********\u{1f600}"),
        }
    }
}

/// A key in the password of a URL is one finding; the password is the other, and goes as a whole.
#[tokio::test]
async fn what_holds_a_credential_in_it_goes_with_it() {
    let world = World::policy(&dlp(json!({"outbound_on_match": "redact"}))).await;
    let url = format!("https://admin:{KEY}{REST}@db.example.com/x");
    let answer = post(
        &world,
        "application/json",
        &format!("X-Db: {url}\r\n"),
        message(&json!(url)).to_string().as_bytes(),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let [request] = world.origin.wait_for_requests(1).await.try_into().unwrap();
    assert!(!world.origin.saw(REST.as_bytes()));
    assert!(
        !world.sidecar.audit_text().contains(REST),
        "{}",
        world.sidecar.audit_text()
    );
    assert!(!world.origin.saw(KEY.as_bytes()));
    let sent: Value = serde_json::from_slice(&request.body).unwrap();
    let left = sent["messages"][1]["content"][0]["text"].as_str().unwrap();
    assert!(left.contains("********") && left.ends_with("/x"), "{left}");
    assert!(request.header("x-db").unwrap().contains("********"));
}

/// A part that states its length would lie about it.
#[tokio::test]
async fn a_part_with_a_length_of_its_own_is_refused() {
    let world = World::policy(&dlp(json!({"outbound_on_match": "redact"}))).await;
    let body = format!(
        "--b 1\r\nContent-Disposition: form-data; name=\"a\"\r\nContent-Length: {}\r\n\r\n{KEY}\r\n--b 1--\r\n",
        KEY.len()
    );
    let answer = post(&world, MULTIPART, "", body.as_bytes()).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "credential-unredactable")
    );
    assert_eq!(answer.json()["location"], "body part a");
    world.assert_untouched("a part with a length");
}

/// Redaction of a query keeps what separates its fields, whatever is joined over them.
#[tokio::test]
async fn a_query_keeps_its_fields() {
    let world = World::policy(&dlp(json!({"outbound_on_match": "redact"}))).await;
    let request = format!(
        "GET /?a=%41{}&b=1 HTTP/1.1\r\nHost: HOST\r\n\r\n",
        &KEY[1..]
    );
    let answer = world.raw(request.as_bytes()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let [request] = world.origin.wait_for_requests(1).await.try_into().unwrap();
    assert_eq!(request.path, "/?a=********&b=1");
}
