//! Whether a bottle would let a request through: asks the engine that decides.

use std::fmt::Write;

use proxy::host::{Authority, Scheme};
use proxy::message::Headers;
use proxy::policy::{Decision, Denial, Policy, Question};

use super::ExplainError;
use super::advice;
use crate::escape::Escaped;
use crate::manifest::Bottle;

pub fn request(bottle: &Bottle, method: &str, url: &str) -> Result<String, ExplainError> {
    let usage = |text: String| ExplainError::Usage(text);
    let (scheme, rest) = if let Some(rest) = url.strip_prefix("https://") {
        (Scheme::Https, rest)
    } else if let Some(rest) = url.strip_prefix("http://") {
        (Scheme::Http, rest)
    } else {
        return Err(usage(format!(
            "{} is not a URL such as https://api.example.com/v1",
            Escaped(url)
        )));
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, target) = rest.split_at(end);
    let target = target.split('#').next().unwrap_or_default();
    let target = if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    };
    let authority = Authority::parse(host, scheme.default_port())
        .map_err(|error| usage(format!("{}: {error}", Escaped(host))))?;
    let method = method.to_ascii_uppercase();

    let mut egress = bottle.egress.clone();
    egress.routes.splice(0..0, bottle.template.routes());
    let policy = Policy::compile(&egress).map_err(|error| usage(error.to_string()))?;
    let headers = Headers::default();
    let question = Question {
        scheme,
        authority: &authority,
        method: &method,
        target: target.as_bytes(),
        headers: &headers,
    };
    let mut text = String::new();
    let file = bottle.file.display();
    let path = target.split('?').next().unwrap_or_default();
    // Writing to a String cannot fail.
    let _infallible = match policy.decide(&question) {
        Decision::Allow(route) => writeln!(
            text,
            "allowed by this rule of {file}:\n  {}",
            Escaped(&route.summary().to_string())
        ),
        Decision::Deny(denial) => {
            let why = match denial {
                Denial::Host => format!("no route names {authority} ({})", scheme.as_str()),
                Denial::Request => {
                    "a route names the host, and none of its `matches` fits this method and path"
                        .into()
                }
                Denial::Rule(route) => format!(
                    "a rule denies it: {}",
                    Escaped(&route.summary().to_string())
                ),
                Denial::AmbiguousPath(why) => {
                    format!("its path can be read in more than one way: {why}")
                }
                Denial::GitPush => "it is a git push over HTTPS, which is always refused".into(),
                Denial::GitFetch => {
                    "it is a git fetch, and the route does not say `git: {fetch: true}`".into()
                }
            };
            let _infallible = writeln!(text, "denied by {file}: {why}");
            match denial {
                Denial::Host | Denial::Request => {
                    write!(
                        text,
                        "{}",
                        advice::routes(
                            &authority.to_header(scheme),
                            scheme.as_str(),
                            &method,
                            path
                        )
                    )
                }
                Denial::GitFetch => writeln!(
                    text,
                    "\nTo allow clones and fetches, write in that route:\n\n    git: {{fetch: true}}"
                ),
                Denial::Rule(_) | Denial::AmbiguousPath(_) | Denial::GitPush => Ok(()),
            }
        }
    };
    let _infallible = writeln!(
        text,
        "\npolicy {} (headers are not looked at here)",
        policy.hash()
    );
    Ok(text)
}
