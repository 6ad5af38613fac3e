//! Authorities: what we print of one is read as the same one, and another library that takes it takes it for the same host
//! and port.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::host::{Authority, Host};

fuzz_target!(|text: &str| {
    let Ok(own) = Authority::parse(text, 443) else {
        return;
    };
    assert_eq!(Authority::parse(&own.to_string(), 80).as_ref(), Ok(&own));
    let Ok(other) = url::Url::parse(&format!("https://{text}/")) else {
        return;
    };
    assert_eq!(other.port_or_known_default(), Some(own.port), "{own}");
    match (other.host(), &own.host) {
        (Some(url::Host::Ipv4(theirs)), Host::Ip(ours)) => assert_eq!(theirs, *ours),
        (Some(url::Host::Ipv6(theirs)), Host::Ip(ours)) => {
            assert_eq!(theirs.to_canonical(), *ours);
        }
        (Some(url::Host::Domain(theirs)), Host::Name(ours)) => {
            assert_eq!(theirs.strip_suffix('.').unwrap_or(theirs), ours.as_str());
        }
        (theirs, _) => panic!("{own} is {theirs:?} to others"),
    }
});
