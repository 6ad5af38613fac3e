//! The agent's credentials stay behind, the route's go on, and nobody reads those.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fixtures::origin::OriginOptions;
use serde_json::{Value, json};

use crate::harness::{KEY, Setup, World, route, routes};

const TOKEN: &str = "user:injected-Token_9f3c"; // gitleaks:allow

fn with_auth(auth: Value) -> Setup {
    let mut route = route();
    route["auth"] = auth;
    Setup::new(&routes(&[route])).env("EGRESS_TOKEN_ROUTE", TOKEN)
}

#[tokio::test]
async fn a_credential_is_put_in_by_every_scheme() {
    let basic = format!("Basic {}", BASE64_STANDARD.encode(TOKEN));
    for (auth, name, value) in [
        (
            json!({"scheme": "Bearer", "token_ref": "EGRESS_TOKEN_ROUTE"}),
            "authorization",
            format!("Bearer {TOKEN}"),
        ),
        (
            json!({"scheme": "token", "token_ref": "EGRESS_TOKEN_ROUTE"}),
            "authorization",
            format!("token {TOKEN}"),
        ),
        (
            json!({"scheme": "Basic", "token_ref": "EGRESS_TOKEN_ROUTE"}),
            "authorization",
            basic,
        ),
        (
            json!({"scheme": "header", "name": "X-Api-Key", "token_ref": "EGRESS_TOKEN_ROUTE"}),
            "x-api-key",
            TOKEN.to_owned(),
        ),
    ] {
        for options in [OriginOptions::HTTP1, OriginOptions::HTTP2] {
            let what = format!("{auth} {:?}", options.protocols);
            let world = World::start(options, with_auth(auth.clone())).await;
            // The agent's own, in every spelling, on both protocols; and `Connection` cannot name ours away.
            let request = "GET / HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer own-1\r\nAUTHORIZATION: own-2\r\n\
                           x-API-key: own-3\r\nX-Api-Key: own-4\r\nConnection: authorization, X-Api-Key, content-length, host\r\n\r\n";
            assert_eq!(
                world.raw(request.as_bytes()).await.unwrap().status,
                200,
                "{what}"
            );
            let mut h2 = world.h2().await;
            let request = h2
                .request("POST", "/")
                .header("authorization", "own-5")
                .header("x-api-key", "own-6")
                .body(())
                .unwrap();
            let mut trailers = http::HeaderMap::new();
            for (name, value) in [
                ("authorization", "own-7"),
                ("x-api-key", "own-8"),
                ("x-fine", "yes"),
            ] {
                trailers.insert(name, value.parse().unwrap());
            }
            assert_eq!(
                h2.send(request, &[b"body"], Some(trailers))
                    .await
                    .unwrap()
                    .status,
                200,
                "{what}"
            );
            let long = vec![b' '; 2 << 20];
            let mut trailers = http::HeaderMap::new();
            trailers.insert(
                http::HeaderName::try_from(name).unwrap(),
                "own-9".parse().unwrap(),
            );
            let request = h2.request("POST", "/").body(()).unwrap();
            assert_eq!(
                h2.send(request, &[&long], Some(trailers))
                    .await
                    .unwrap()
                    .status,
                200,
                "{what}"
            );
            // Refused, and what is said of it.
            let answer = world
                .raw(format!("GET /?{KEY} HTTP/1.1\r\nHost: HOST\r\n\r\n").as_bytes())
                .await
                .unwrap();
            assert_eq!(answer.status, 403);

            let requests = world.origin.wait_for_requests(3).await;
            for request in &requests {
                assert_eq!(request.header_values(name), [value.as_str()], "{what}");
                if name != "authorization" {
                    assert!(request.header_values("authorization").is_empty(), "{what}");
                    assert!(!request.saw(b"own-1") && !request.saw(b"own-3"), "{what}");
                }
                for (field, _) in &request.trailers {
                    assert!(field != "authorization" && field != name, "{what}: {field}");
                }
            }
            assert!(
                requests.iter().any(|request| !request.trailers.is_empty()),
                "{what}"
            );
            for own in ["own-1", "own-2", "own-5", "own-7", "own-9"] {
                assert!(!world.origin.saw(own.as_bytes()), "{what}: {own}");
            }
            for (place, text) in [
                ("audit", world.sidecar.audit_text()),
                ("log", world.sidecar.stderr()),
                ("answer", answer.text()),
                ("ready line", world.sidecar.ready.to_string()),
            ] {
                assert!(
                    !text.contains("injected-Token_9f3c") && !text.contains(&value),
                    "{what}: {place}: {text}"
                );
            }
        }
    }
}

/// The agent does not have it; if it does after all, it is a known secret.
#[tokio::test]
async fn the_routes_own_credential_is_a_known_secret() {
    let world = World::start(
        OriginOptions::DEFAULT,
        with_auth(json!({"scheme": "Bearer", "token_ref": "EGRESS_TOKEN_ROUTE"})),
    )
    .await;
    let request = format!("GET / HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    assert_eq!(
        world.raw(request.as_bytes()).await.unwrap().code(),
        "credential-unsupervised"
    );
    world.assert_untouched("the injected value, sent by the agent");
}

#[tokio::test]
async fn what_is_meant_for_one_hop_stays_there() {
    for options in [OriginOptions::HTTP1, OriginOptions::HTTP2] {
        let world = World::start(options, Setup::new(&routes(&[route()]))).await;
        let request = "GET / HTTP/1.1\r\nHost: HOST\r\nConnection: keep-alive, X-Hop\r\nX-Hop: mark-1\r\nKeep-Alive: mark-2\r\n\
                       Proxy-Authorization: Basic mark-3\r\nProxy-Connection: mark-4\r\nTE: gzip\r\nTrailer: mark-5\r\n\
                       Proxy-Authenticate: mark-6\r\nX-End: stays\r\n\r\n";
        assert_eq!(world.raw(request.as_bytes()).await.unwrap().status, 200);
        assert!(
            !world.origin.saw(b"mark-"),
            "{:#?}",
            world.origin.requests()
        );
        assert!(world.origin.saw(b"stays"));
        let [request] = world.origin.requests().try_into().unwrap();
        assert_eq!(request.header("te"), None);
        // A header of the first hop is not repeated after CONNECT either.
        assert!(!world.origin.saw(b"Basic"));
    }
}

/// A field that a route demands and that `Connection` names away would be judged and never arrive.
#[tokio::test]
async fn a_demanded_header_cannot_be_named_away() {
    let mut route = route();
    route["matches"] = json!([{"headers": [{"name": "X-Mode", "exact": "read-only"}]}]);
    let world = World::policy(&routes(&[route])).await;
    let ask = |extra: &str| {
        format!("GET / HTTP/1.1\r\nHost: HOST\r\nX-Mode: read-only\r\n{extra}\r\n").into_bytes()
    };
    assert_eq!(world.raw(&ask("")).await.unwrap().status, 200);
    world.origin.clear();
    assert_eq!(
        world
            .raw(&ask("Connection: x-mode\r\n"))
            .await
            .unwrap()
            .code(),
        "request-not-allowed"
    );
    world.assert_untouched("a header named away");
}
