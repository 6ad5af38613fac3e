//! Variables: their names, and those that every bottle gets.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::state::PROXY_PORT;

/// The proxy's user; the password differs per bottle.
pub const PROXY_USER: &str = "bottle";
/// The host's certificates and the bottle's own, for variables that replace a trust store.
pub const CA_BUNDLE: &str = "/etc/bot-bottle/ca-bundle.pem";
/// The bottle's own certificate alone, for variables that add to one.
pub const CA_CERTIFICATE: &str = "/etc/bot-bottle/ca.pem";
pub const AGENT_HOME: &str = "/home/agent";
pub const AGENT_USER: &str = "agent";
pub const PATH: &str =
    "/home/agent/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// They would be in our helpers too, which run in the same environment.
pub const LOADER_VARIABLES: [&str; 4] = ["LD_PRELOAD", "LD_AUDIT", "LD_DEBUG", "GLIBC_TUNABLES"];

const PROXY: [&str; 3] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
const BUNDLE: [&str; 8] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
];

/// A name as shells take it.
pub fn check_name(name: &str) -> Result<(), String> {
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let fits = name.bytes().next().is_some_and(first)
        && name
            .bytes()
            .all(|byte| first(byte) || byte.is_ascii_digit());
    // The value is not repeated: a token that was pasted here must not end up in a terminal's scrollback or a log.
    if fits {
        Ok(())
    } else {
        Err("is not the name of a variable (letters, digits and _)".into())
    }
}

/// Whether the launcher sets this variable itself, in either case.
pub fn is_ours(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    PROXY.contains(&upper.as_str())
        || upper == "NO_PROXY"
        || BUNDLE.contains(&name)
        || [
            "NODE_USE_ENV_PROXY",
            "NODE_EXTRA_CA_CERTS",
            "UV_SYSTEM_CERTS",
            "HOME",
            "USER",
            "LOGNAME",
        ]
        .contains(&name)
}

/// Proxy and certificate variables for every toolchain that we know.
pub fn network(alias: Ipv4Addr, password: &str) -> BTreeMap<String, String> {
    let url = format!("http://{PROXY_USER}:{password}@{alias}:{PROXY_PORT}");
    let mut variables = BTreeMap::new();
    for name in PROXY {
        variables.insert(name.to_owned(), url.clone());
        variables.insert(name.to_ascii_lowercase(), url.clone());
    }
    // Empty, not missing: there is nothing that could be reached without the proxy.
    for name in ["NO_PROXY", "no_proxy"] {
        variables.insert(name.to_owned(), String::new());
    }
    for name in BUNDLE {
        variables.insert(name.to_owned(), CA_BUNDLE.to_owned());
    }
    variables.insert("NODE_EXTRA_CA_CERTS".into(), CA_CERTIFICATE.into());
    variables.insert("NODE_USE_ENV_PROXY".into(), "1".into());
    variables.insert("UV_SYSTEM_CERTS".into(), "1".into());
    variables
}

/// The image's environment and ours; ours wins, but for a search path that nobody has set.
pub fn over_image(image: &[String], env: &[(String, String)]) -> Vec<(String, String)> {
    let mut all: BTreeMap<&str, &str> = image
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| !LOADER_VARIABLES.contains(name))
        .collect();
    let of_the_image = all.get("PATH").copied();
    all.extend(
        env.iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    if all.get("PATH") == Some(&PATH)
        && let Some(path) = of_the_image
    {
        all.insert("PATH", path);
    }
    all.into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["A", "_", "a1_B"] {
            assert!(check_name(name).is_ok());
        }
        for name in ["", "1A", "A-B", "A=B", "A B", "ghp_x/y"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn every_spelling_of_the_proxy() {
        let variables = network(Ipv4Addr::new(127, 0, 0, 16), "s3cret");
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "http_proxy"] {
            assert_eq!(variables[name], "http://bottle:s3cret@127.0.0.16:9099");
        }
        assert!(variables.keys().all(|name| is_ours(name)));
    }
}
