//! The shapes of credentials whose provider's name begins with a digit or a letter from A to F.

use super::check;
use super::{TokenRule, rule};

pub(super) const ROWS: &[TokenRule] = &[
    rule("1password-secret-key", "1Password secret key", r"A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}", "1Password support, About your Secret Key")
        .positive(&[
            "A3-AAAAAA-BBBBBBBBBBB-CCCCC-DDDDD-EEEEE", // gitleaks:allow
            "A3-AAAAAA-BBBBBB-CCCCC-DDDDD-EEEEE-FFFFF", // gitleaks:allow
        ])
        .negative(&["A3-AAAAAA-BBBBBBBBBBB-CCCCC-DDDDD-EEEE", "q3-AAAAAA-BBBBBBBBBBB-CCCCC-DDDDD-EEEEE"]),
    rule("1password-service-account-token", "1Password service account token", r"ops_eyJ[A-Za-z0-9+/_-]{80,}={0,3}", "1Password developer docs, Service accounts")
        .positive(&[
            "ops_eyJaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "ops_eyJaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3==", // gitleaks:allow
        ])
        .negative(&["ops_eyJaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", "qps_eyJaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a"]),
    rule("adafruit-io-key", "Adafruit IO key", r"aio_[A-Za-z0-9]{28,}", "Adafruit IO docs, API key")
        .positive(&[
            "aio_AAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "aio_aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["aio_AAAAAAAAAAAAAAAAAAAAAAAAAAA", "qio_AAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("adobe-client-secret", "Adobe client secret", r"p8e-[A-Za-z0-9_-]{32,}", "Adobe developer console, OAuth client credentials")
        .positive(&[
            "p8e-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "p8e-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3-_", // gitleaks:allow
        ])
        .negative(&["p8e-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "q8e-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("age-secret-key", "age secret key", r"AGE-SECRET-KEY-(?:PQ-)?1[A-Z0-9]{50,}", "age specification, X25519 identities")
        .positive(&[
            "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ", // gitleaks:allow
            "AGE-SECRET-KEY-PQ-1QPZRY9X8QPZRY9X8QPZRY9X8QPZRY9X8QPZRY9X8QPZRY9X8QPZRY9X8QPZRY9X8QPZRY9X8QPZRY9X8QPZRY9X8QPZRY9X8", // gitleaks:allow
        ])
        .negative(&["age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq", "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ", "qGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ"]),
    rule("age-plugin-identity", "age plugin identity", r"AGE-PLUGIN-[A-Z0-9-]{2,32}-1[A-Z0-9]{16,}", "age plugin protocol, identities")
        .positive(&[
            "AGE-PLUGIN-YUBIKEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ", // gitleaks:allow
            "AGE-PLUGIN-SE-1QPZRY9X8QPZRY9X8QPZRY9X8QPZRY9X8QPZRY9X8QPZRY9X8", // gitleaks:allow
        ])
        .negative(&["AGE-PLUGIN-YUBIKEY-1QQQQQQQQQQQQQQQ", "qGE-PLUGIN-YUBIKEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ"]),
    rule("aikido-client-secret", "Aikido client secret", r"AIK_SECRET_[A-Za-z0-9]{40,}", "Aikido docs, Public API authentication")
        .positive(&[
            "AIK_SECRET_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "AIK_SECRET_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["AIK_SECRET_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qIK_SECRET_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("aikido-client-id", "Aikido client id", r"AIK_CLIENT_[A-Za-z0-9]{20,}", "observed: half of the pair that the Public API asks for")
        .positive(&[
            "AIK_CLIENT_AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "AIK_CLIENT_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["AIK_CLIENT_AAAAAAAAAAAAAAAAAAA", "qIK_CLIENT_AAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("aikido-ci-token", "Aikido CI scanning token", r"AIK_CI_[A-Za-z0-9]{20,}", "Aikido docs, CI API")
        .positive(&[
            "AIK_CI_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "AIK_CI_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["AIK_CI_AAAAAAAAAAAAAAAAAAA", "qIK_CI_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("airtable-personal-access-token", "Airtable personal access token", r"pat[A-Za-z0-9]{14}\.[a-f0-9]{60,}", "Airtable docs, Personal access tokens")
        .positive(&[
            "patAAAAAAAAAAAAAA.0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "pataB3aB3aB3aB3aB.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["patAAAAAAAAAAAAAA.0123456789abcdef0123456789abcdef0123456789abcdef0123456789a", "qatAAAAAAAAAAAAAA.0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("airtable-oauth-token", "Airtable OAuth token", r"\b[A-Za-z0-9]{17}\.v1\.[A-Za-z0-9_-]{16,512}\.[a-f0-9]{32,}", "Airtable docs, OAuth reference: access tokens")
        .positive(&[
            "oaaAAAAAAAAAAAAAA.v1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "oaaaB3aB3aB3aB3aB.v1.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a.0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
        ])
        .negative(&["oaaAAAAAAAAAAAAAA.v1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.0123456789abcdef0123456789abcde", "oaaAAAAAAAAAAAAAA.v2.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("aiven-service-password", "Aiven service password", r"AVNS_[A-Za-z0-9_-]{15,}", "Aiven docs, Service passwords")
        .positive(&[
            "AVNS_AAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "AVNS_aB3aB3aB3aB3aB3aB_-", // gitleaks:allow
        ])
        .negative(&["AVNS_AAAAAAAAAAAAAA", "qVNS_AAAAAAAAAAAAAAAAAAA"]),
    rule("aiven-token", "Aiven token", r"aivenv1 [A-Za-z0-9+/]{100,}={0,2}", "Aiven API docs, Authentication: the scheme `aivenv1` and base64")
        .positive(&[
            "aivenv1 aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "aivenv1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", // gitleaks:allow
        ])
        .negative(&["aivenv1 aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", "qivenv1 aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB"]),
    rule("akamai-edgegrid", "Akamai EdgeGrid token", r"akab-[a-z0-9]{16}-[a-z0-9]{16}", "Akamai developer docs, EdgeGrid credentials")
        .positive(&[
            "akab-aaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaa", // gitleaks:allow
            "akab-a1b2c3d4e5a1b2c3-0123456789abcdef", // gitleaks:allow
        ])
        .negative(&["akab-aaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaa", "qkab-aaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaa"]),
    rule("alchemy-key", "Alchemy key", r"alcht_[A-Za-z0-9]{28,}", "observed: Alchemy auth tokens")
        .positive(&[
            "alcht_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "alcht_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["alcht_AAAAAAAAAAAAAAAAAAAAAAAAAAA", "qlcht_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("alibaba-access-key-id", "Alibaba Cloud access key id", r"\bLTAI[A-Za-z0-9]{12,22}\b", "Alibaba Cloud docs, AccessKey pairs; 16, 20 or 24 characters")
        .positive(&[
            "LTAIAAAAAAAAAAAA", // gitleaks:allow
            "LTAI5taB3aB3aB3aB3aB3aB3", // gitleaks:allow
            "LTAI4aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["LTAI-AAAAAAAAAAAA", "LTAIAAAAAAAAAAA", "qTAIAAAAAAAAAAAA"]),
    rule("alibaba-sts-key-id", "Alibaba Cloud STS access key id", r"\bSTS\.N[A-Z0-9][A-Za-z0-9]{20,}", "Alibaba Cloud docs, STS AssumeRole")
        .positive(&[
            "STS.NAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "STS.NUaB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["STS.NAAAAAAAAAAAAAAAAAAAA", "qTS.NAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("amazon-mws-auth-token", "Amazon MWS auth token", r"amzn\.mws\.[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}", "Amazon MWS developer guide, Authorization")
        .positive(&[
            "amzn.mws.01234567-89ab-cdef-0123-456789abcdef", // gitleaks:allow
            "amzn.mws.aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["amzn.mws.01234567-89ab-cdef-0123-456789abcde", "qmzn.mws.01234567-89ab-cdef-0123-456789abcdef"]),
    rule("amazon-oauth-client-secret", "Login with Amazon client secret", r"amzn1\.oa2-cs\.v1\.[a-f0-9]{60,}", "Login with Amazon docs, Security profiles")
        .positive(&[
            "amzn1.oa2-cs.v1.0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "amzn1.oa2-cs.v1.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["amzn1.oa2-cs.v1.0123456789abcdef0123456789abcdef0123456789abcdef0123456789a", "qmzn1.oa2-cs.v1.0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("amazon-oauth-client-id", "Login with Amazon client id", r"amzn1\.application-oa2-client\.[a-f0-9]{30,}", "Login with Amazon docs, Security profiles")
        .positive(&[
            "amzn1.application-oa2-client.0123456789abcdef0123456789abcdef", // gitleaks:allow
            "amzn1.application-oa2-client.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["amzn1.application-oa2-client.0123456789abcdef0123456789abc", "qmzn1.application-oa2-client.0123456789abcdef0123456789abcdef"]),
    rule("amazon-lwa-token", "Login with Amazon token", r"Atz[ar]\|[A-Za-z0-9_/+=-]{40,}", "Login with Amazon docs, Access token response")
        .positive(&[
            "Atza|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "Atzr|IwEBaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["Atza|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qtza|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("amazon-pay-public-key-id", "Amazon Pay key id", r"\b(?:SANDBOX|LIVE)-A[A-Z0-9]{23}\b", "Amazon Pay docs, Get set up")
        .positive(&[
            "SANDBOX-AA1B2C3D4E5A1B2C3D4E5A1B", // gitleaks:allow
            "LIVE-AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["SANDBOX-AA1B2C3D4E5A1B2C3D4E5A1", "qANDBOX-AA1B2C3D4E5A1B2C3D4E5A1B"]),
    rule("anthropic-admin-key", "Anthropic admin key", r"sk-ant-admin[A-Za-z0-9_-]{28,}", "Anthropic docs, Admin API")
        .positive(&[
            "sk-ant-admin01-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sk-ant-admin01-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sk-ant-admin", "sk-ant-admin01-", "sk_ant_admin01_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("anthropic-api-key", "Anthropic API key", r"sk-ant-[A-Za-z0-9_-]{32,}", "observed: sk-ant-api03-, sk-ant-oat01- and the like, then 80 to 95 characters")
        .positive(&[
            "sk-ant-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sk-ant-api03-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sk-ant-oat01-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
            "sk-ant-sid01-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["sk-ant-oat01-SECRETMATERIAL", "sk-ant-api03", "sk-ant-your-key", "sk-ant-AAAAAAAAAAAAAAAAAAA", "qk-ant-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("anyscale-key", "Anyscale key", r"\b(?:esecret|aph0)_[A-Za-z0-9]{24,}", "observed: Anyscale Endpoints and platform keys")
        .positive(&[
            "esecret_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "aph0_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["esecret_AAAAAAAAAAAAAAAAAAAAAAA", "qsecret_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("apache-md5-hash", "Apache MD5 password hash", r"\$apr1\$[./A-Za-z0-9]{1,8}\$[/A-Za-z0-9][./A-Za-z0-9]{21}", "Apache httpd docs, Password formats")
        .positive(&[
            "$apr1$AAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "$apr1$ab./1234$aB3aB3aB3aB3aB3aB3aB./", // gitleaks:allow
        ])
        .negative(&["$apr1$AAAAAAAA$AAAAAAAAAAAAAAAAAAAAA", ".apr1$AAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA"]),
    rule("apify-token", "Apify token", r"apify_(?:[a-z]{2,12}_)?(?:[a-z]{2,12}_)?[A-Za-z0-9]{30,}", "Apify docs, API tokens")
        .positive(&[
            "apify_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "apify_proxy_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
            "apify_actor_run_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["apify_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qpify_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("apollo-graph-key", "Apollo GraphOS key", r"\b(?:service:[A-Za-z][A-Za-z0-9_-]{1,63}|user:gh\.[A-Za-z0-9-]{8,36}):[A-Za-z0-9_-]{22}\b", "Apollo GraphOS docs, API keys")
        .positive(&[
            "service:my-graph:AAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "user:gh.01234567-89ab-cdef-0123-456789abcdef:aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["service:my-graph:AAAAAAAAAAAAAAAAAAAAA", "qervice:my-graph:AAAAAAAAAAAAAAAAAAAAAA"]),
    rule("appwrite-api-key", "Appwrite API key", r"\b(?:standard|dynamic)_[a-f0-9]{200,}", "Appwrite docs, API keys")
        .positive(&[
            "standard_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "standard_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["standard_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456", "qtandard_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("aptos-private-key", "Aptos private key", r"(?:ed25519|secp256k1)-priv-0x[a-fA-F0-9]{64}", "Aptos AIP-80, Standardize private keys")
        .positive(&[
            "ed25519-priv-0x0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "secp256k1-priv-0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["ed25519-priv-0x0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde", "qd25519-priv-0x0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("arcgis-api-key", "Esri ArcGIS API key", r"\b(?:AAPK[a-f0-9]{32}[A-Za-z0-9_-]{40,}|AAPTxy[A-Za-z0-9_.-]{60,})", "Esri developer docs, API key credentials")
        .positive(&[
            "AAPK0123456789abcdef0123456789abcdefaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "AAPTxy8BaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["AAPK0123456789abcdef0123456789abcdefaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", "qAPK0123456789abcdef0123456789abcdefaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a"]),
    rule("arize-api-key", "Arize key", r"\bak-[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}-[A-Za-z0-9_-]{16,}", "observed: Arize AX API keys")
        .positive(&[
            "ak-01234567-89ab-cdef-0123-456789abcdef-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ak-01234567-89ab-cdef-0123-456789abcdef-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["ak-01234567-89ab-cdef-0123-456789abcdef-AAAAAAAAAAAAAAA", "qk-01234567-89ab-cdef-0123-456789abcdef-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("artifactory-api-key", "JFrog Artifactory API key", r"\bAKCp[A-Za-z0-9]{60,}|AKCp[1-9][A-Za-z0-9]{60,}", "JFrog docs, API key; 73 characters")
        .positive(&[
            "AKCp888888888888888888888888888888888888888888888888888888888888888888888", // gitleaks:allow
            "AKCp5aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["AKCp88888888888888888888888888888888888888888888888888888888888", "qKCp888888888888888888888888888888888888888888888888888888888888888888888"])
        .checked(check::jfrog),
    rule("artifactory-reference-token", "JFrog reference token", r"cmVmdGtuO[A-Za-z0-9+/]{48,}={0,2}", "JFrog docs, Reference tokens; base64 of `reftkn:`")
        .positive(&[
            "cmVmdGtuOAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "cmVmdGtuOjAxaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["cmVmdGtuOAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qmVmdGtuOAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"])
        .checked(check::jfrog),
    rule("asaas-api-key", "Asaas API key", r"\$aact_[A-Za-z0-9=:/+_-]{20,}", "Asaas docs, API keys")
        .positive(&[
            "$aact_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "$aact_prod_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["$aact_AAAAAAAAAAAAAAAAAAA", ".aact_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("asana-personal-access-token", "Asana personal access token", r"\b[0-2]/[0-9]{13,20}(?:/[0-9]{13,20})?:[a-f0-9]{32}\b", "Asana docs, Personal access token")
        .positive(&[
            "1/1234567890123456:0123456789abcdef0123456789abcdef", // gitleaks:allow
            "2/1234567890123456/9876543210123456:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "0/1111111111111111:0123456789abcdef0123456789abcdef", // gitleaks:allow
        ])
        .negative(&["1/1234567890123456:0123456789abcdef0123456789abcdez", "1/1234567890123456:0123456789abcdef0123456789abcde", "q/1234567890123456:0123456789abcdef0123456789abcdef"]),
    rule("atlassian-api-token", "Atlassian API token", r"AT[ABCOS]TT3[A-Za-z0-9_-]{60,}(?:=[A-Fa-f0-9]{8})?", "Atlassian support, Manage API tokens")
        .positive(&[
            "ATATT3xFfGF0aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB=0A1B2C3D", // gitleaks:allow
            "ATATT3AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ATCTT3xFfGN0aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3=ABCDEF01", // gitleaks:allow
        ])
        .negative(&["ATATT3xFfGF0aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", "qTATT3xFfGF0aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB=0A1B2C3D"])
        .checked(check::atlassian_crc32),
    rule("authress-access-key", "Authress service client access key", r"\b(?:sc|ext|scauth|authress)_[A-Za-z0-9]{5,30}\.[A-Za-z0-9]{4,6}\.acc[_-][A-Za-z0-9-]{10,32}\.[A-Za-z0-9+/_=-]{30,}", "Authress docs, Service clients")
        .positive(&[
            "sc_aaaaaaaaaa.bbbb.acc_cccccccccccc.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
            "authress_aB3aB3aB3aB3aB3aB3aB.aaaa.acc-a1b2c3d4e5a1b2c3.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a=", // gitleaks:allow
        ])
        .negative(&["sc_aaaaaaaaaa.bbbb.acc_cccccccccccc.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", "qc_aaaaaaaaaa.bbbb.acc_cccccccccccc.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3"]),
    rule("aws-access-key", "AWS access key", r"A[KS]IA[A-Z0-9]{16,}", "AWS IAM user guide, Reference identifiers")
        .positive(&[
            "AKIAIOSFODNN7EXAMPLE", // gitleaks:allow
            "AKIAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ASIAQQQQQQQQ22222222", // gitleaks:allow
        ])
        .negative(&["AKIAaaaaaaaaaaaaaaaa", "AKID AAAAAAAAAAAAAAAA", "akiaiosfodnn7example"])
        .checked(check::aws_account),
    rule("aws-key-id", "AWS key id", r"\bA(?:3T[A-Z0-9]|BIA|CCA)[A-Z0-9]{16,}", "AWS IAM user guide, Understanding unique ID prefixes")
        .positive(&[
            "ABIAZZZZZZZZZZZZZZZZ", // gitleaks:allow
            "A3TXQQQQQQQQQQQQQQQQ", // gitleaks:allow
            "ACCAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["ACCAaaaaaaaaaaaaaaaa", "ABIAZZZZZZZZZZZZZZZ", "qBIAZZZZZZZZZZZZZZZZ"]),
    rule("aws-secret-access-key", "AWS secret access key", r#"(?:aws_secret_access_key|AWS_SECRET_ACCESS_KEY|[Ss]ecretAccessKey)["']?[ \t]{0,4}[:=][ \t]{0,4}["']?[A-Za-z0-9/+]{40}\b"#, "AWS CLI user guide, Configuration and credential file settings")
        .unless(check::is_a_name)
        .positive(&[
            "aws_secret_access_key = aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9", // gitleaks:allow
            "AWS_SECRET_ACCESS_KEY=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "SecretAccessKey\": \"aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["RawSecretAccessKey: XksProxyAuthenticationRawSecretAccessKeyType;", "aws_secret_access_key = your-key", "AWS_SECRET_ACCESS_KEY=$(aws configure get aws_secret_access_key)", "aws_secret_access_key = aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/", "qws_secret_access_key = aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9"]),
    rule("aws-session-token", "AWS session token", r"(?:FwoGZXIvYXdz|FQoGZXIvYXdz|FQoDYXdz|AQoDYXdz|IQoJb3JpZ2luX2Vj)[A-Za-z0-9+/%=_-]{60,}", "AWS STS API reference, GetSessionToken; observed first bytes")
        .positive(&[
            "IQoJb3JpZ2luX2VjEaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB==", // gitleaks:allow
            "FwoGZXIvYXdzEaB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9", // gitleaks:allow
            "FQoDYXdzaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["IQoJb3JpZ2luX2VjEaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", "qQoJb3JpZ2luX2VjEaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB=="]),
    rule("aws-sso-token", "AWS IAM Identity Center token", r"\bao[ar]AAAAAG[A-Za-z0-9_:/+=-]{40,}", "observed: SSO OIDC access and refresh tokens")
        .positive(&[
            "aoaAAAAAGaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
            "aorAAAAAGaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["aoaAAAAAGaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", "qoaAAAAAGaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3"]),
    rule("aws-bedrock-api-key", "AWS Bedrock API key", r"ABSKQmVkcm9ja0FQSUtleS[A-Za-z0-9+/]{80,}={0,2}", "AWS Bedrock user guide, API keys; base64 of `BedrockAPIKey-`")
        .positive(&[
            "ABSKQmVkcm9ja0FQSUtleS1aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3=", // gitleaks:allow
            "ABSKQmVkcm9ja0FQSUtleSAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["ABSKQmVkcm9ja0FQSUtleS1aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", "qBSKQmVkcm9ja0FQSUtleS1aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3="]),
    rule("aws-bedrock-short-term-key", "AWS Bedrock short-term API key", r"bedrock-api-key-YmVkcm9j[A-Za-z0-9+/_-]{16,}={0,2}", "AWS Bedrock user guide, API keys; base64 of a presigned URL")
        .positive(&[
            "bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t", // gitleaks:allow
            "bedrock-api-key-YmVkcm9jaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3==", // gitleaks:allow
        ])
        .negative(&["bedrock-api-key-YmVkcm9jay5hbWF6b25hd3M", "qedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t"]),
    rule("aws-appsync-key", "AWS AppSync API key", r"\bda2-[a-z0-9]{26}", "AWS AppSync developer guide, API_KEY authorization")
        .positive(&[
            "da2-aaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "da2-a1b2c3d4e5a1b2c3d4e5a1b2c3", // gitleaks:allow
        ])
        .negative(&["da2-aaaaaaaaaaaaaaaaaaaaaaaaa", "qa2-aaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("aws-ecr-token", "AWS ECR login token", r"\beyJwYXlsb2FkIjoi[A-Za-z0-9+/]{100,}={0,2}", "AWS ECR user guide, Private registry authentication; base64 of `{\"payload\":\"`")
        .positive(&[
            "eyJwYXlsb2FkIjoiaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3==", // gitleaks:allow
            "eyJwYXlsb2FkIjoiAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["eyJwYXlsb2FkIjoiaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", "qyJwYXlsb2FkIjoiaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3=="]),
    rule("aws-codeartifact-token", "AWS CodeArtifact token", r"\beyJ2ZXIiOjEs[A-Za-z0-9_.-]{100,}", "AWS CodeArtifact user guide, Tokens; base64 of `{\"ver\":1,`")
        .positive(&[
            "eyJ2ZXIiOjEsaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3..aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "eyJ2ZXIiOjEsImlzdSI6aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["eyJ2ZXIiOjEsaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", "qyJ2ZXIiOjEsaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3..aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a"]),
    rule("axiom-token", "Axiom token", r"xa[ap]t-[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}", "Axiom docs, API tokens")
        .positive(&[
            "xaat-01234567-89ab-cdef-0123-456789abcdef", // gitleaks:allow
            "xapt-01234567-89ab-cdef-0123-456789abcdef", // gitleaks:allow
        ])
        .negative(&["xaat-01234567-89ab-cdef-0123-456789abcde", "qaat-01234567-89ab-cdef-0123-456789abcdef"]),
    rule("azure-ad-client-secret", "Azure AD client secret", r"[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,}", "observed: Entra ID application secrets, 37 or 40 characters")
        .positive(&[
            "aaa8Q~aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "A1b7Q~aB3aB3aB3aB3aB3aB3aB3aB3aB3a_-.", // gitleaks:allow
            "x.~8Q~aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["aaa8Q~aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "aaaqQ~aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("azure-cask-key", "Azure identifiable key (CASK)", r"[A-Za-z0-9]{52}JQQJ9[9DH][A-Za-z0-9]{20,}={0,2}", "Microsoft, Common Annotated Security Keys; Azure AI, DevOps and others")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAJQQJ99AAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aJQQJ9DaB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAJQQJ99AAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAqQQJ99AAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("azure-devops-token", "Azure DevOps personal access token", r"\b[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}\b", "Azure DevOps docs, Personal access tokens; 84 characters")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAZDOAAAA", // gitleaks:allow
            "aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aAZDOaB3a", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAZDOAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAqZDOAAAA"]),
    rule("azure-storage-key", "Azure storage account key", r"[A-Za-z0-9+/]{76}\+ASt[A-Za-z0-9+/]{6}==", "Microsoft, identifiable keys: storage account")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA+AStAAAAAA==", // gitleaks:allow
            "aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3++AStaB3aB3==", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA+AStAAAAAA=", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AStAAAAAA=="]),
    rule("azure-batch-key", "Azure Batch key", r"[A-Za-z0-9+/]{76}\+ABa[A-Za-z0-9+/]{6}==", "Microsoft, identifiable keys: Batch")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA+ABaAAAAAA==", // gitleaks:allow
            "aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3++ABaaB3aB3==", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA+ABaAAAAAA=", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.ABaAAAAAA=="]),
    rule("azure-cosmos-key", "Azure Cosmos DB key", r"[A-Za-z0-9+/]{76}ACDb[A-Za-z0-9+/]{6}==", "Microsoft, identifiable keys: Cosmos DB")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAACDbAAAAAA==", // gitleaks:allow
            "aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+ACDbaB3aB3==", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAACDbAAAAAA=", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAqCDbAAAAAA=="]),
    rule("azure-ml-classic-key", "Azure ML Studio (classic) key", r"[A-Za-z0-9+/]{76}\+AMC[A-Za-z0-9+/]{6}==", "Microsoft, identifiable keys: ML web service (classic)")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA+AMCAAAAAA==", // gitleaks:allow
            "aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3++AMCaB3aB3==", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA+AMCAAAAAA=", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AMCAAAAAA=="]),
    rule("azure-container-registry-key", "Azure container registry key", r"\b[A-Za-z0-9+/]{42}\+ACR[A-D][A-Za-z0-9+/]{5}\b", "Microsoft, identifiable keys: container registry")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA+ACRAAAAAA", // gitleaks:allow
            "aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3+ACRDaB3aB", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA+ACRAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.ACRAAAAAA"]),
    rule("azure-search-key", "Azure AI Search key", r"\b[A-Za-z0-9]{42}AzSe[A-D][A-Za-z0-9]{5}\b", "Microsoft, identifiable keys: search admin and query")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAzSeAAAAAA", // gitleaks:allow
            "aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3AzSeDaB3aB", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAzSeAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAqzSeAAAAAA"]),
    rule("azure-messaging-key", "Azure messaging key", r"[A-Za-z0-9+/]{33}\+A(?:Eh|Sb|Rm)[A-P][A-Za-z0-9+/]{5}=", "Microsoft, identifiable keys: event hub, service bus, relay")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA+AEhAAAAAA=", // gitleaks:allow
            "aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3+ASbPaB3aB=", // gitleaks:allow
            "aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9a+ARmCaB3aB=", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA+AEhAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AEhAAAAAA="]),
    rule("azure-iot-key", "Azure IoT key", r"[A-Za-z0-9+/]{33}AIoT[A-P][A-Za-z0-9+/]{5}=", "Microsoft, identifiable keys: IoT hub, device and provisioning")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIoTAAAAAA=", // gitleaks:allow
            "aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3AIoTPaB3aB=", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIoTAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAqIoTAAAAAA="]),
    rule("azure-redis-key", "Azure Cache for Redis key", r"[A-Za-z0-9+/]{33}AzCa[A-P][A-Za-z0-9+/]{5}=", "Microsoft, identifiable keys: Cache for Redis")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAzCaAAAAAA=", // gitleaks:allow
            "aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3AzCaPaB3aB=", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAzCaAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAqzCaAAAAAA="]),
    rule("azure-event-grid-key", "Azure Event Grid key", r"[A-Za-z0-9+/]{33}AZEG[A-P][A-Za-z0-9+/]{5}=", "microsoft/security-utilities, AzureEventGridIdentifiableKey: signature AZEG")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAZEGAAAAAA=", // gitleaks:allow
            "aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3AZEGBaB3aB=", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAZEGAAAAA=", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAzEHAAAAAA="]),
    rule("azure-apim-key", "Azure API Management key", r"[A-Za-z0-9+/]{76}APIM[A-Za-z0-9+/]{6}==", "Microsoft, identifiable keys: API Management")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAPIMAAAAAA==", // gitleaks:allow
            "aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+APIMaB3aB3==", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAPIMAAAAAA=", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAqPIMAAAAAA=="]),
    rule("azure-function-key", "Azure Functions key", r"[A-Za-z0-9_-]{44}AzFu[A-Za-z0-9_-]{6}==", "Microsoft, identifiable keys: Functions")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAzFuAAAAAA==", // gitleaks:allow
            "aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3-_AzFuaB3aB3==", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAzFuAAAAAA=", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAqzFuAAAAAA=="]),
    rule("azure-function-url", "Azure Functions URL with a key", r"azurewebsites\.net/api/[A-Za-z0-9._~/{}-]{1,120}\?code=[A-Za-z0-9_/+=%-]{40,}", "Azure Functions docs, Access keys")
        .positive(&[
            "azurewebsites.net/api/hello?code=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", // gitleaks:allow
            "azurewebsites.net/api/a/b?code=aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB%3D%3D", // gitleaks:allow
        ])
        .negative(&["azurewebsites.net/api/hello?code=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qzurewebsites.net/api/hello?code=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="]),
    rule("azure-app-configuration", "Azure App Configuration connection string", r"\.azconfig\.io;Id=[A-Za-z0-9+/:_-]{4,64};Secret=[A-Za-z0-9+/]{40,}={0,2}", "Azure App Configuration docs, Access keys")
        .positive(&[
            ".azconfig.io;Id=aaaa-l0-s0:AAAAAAAAAAAAAAAAAAAA;Secret=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", // gitleaks:allow
            ".azconfig.io;Id=Ab1C;Secret=aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+", // gitleaks:allow
        ])
        .negative(&[".azconfig.io;Id=aaaa-l0-s0:AAAAAAAAAAAAAAAAAAAA;Secret=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "~azconfig.io;Id=aaaa-l0-s0:AAAAAAAAAAAAAAAAAAAA;Secret=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]),
    rule("azure-account-key", "Azure connection string with an account key", r"AccountKey ?= ?[A-Za-z0-9+/]{40,100}={0,2}", "Azure Storage docs, Connection strings")
        .positive(&[
            "AccountKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", // gitleaks:allow
            "AccountKey=aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY==", // gitleaks:allow
        ])
        .negative(&["AccountKey=your-account-key", "AccountKey=myAccountKey;", "AccountKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qccountKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="]),
    rule("azure-shared-access-key", "Azure connection string with a shared key", r"Shared(?:AccessKey|SecretValue) ?= ?[A-Za-z0-9+/]{32,100}={0,2}", "Azure Service Bus, Event Hubs and IoT Hub docs, Connection strings")
        .positive(&[
            "SharedAccessKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", // gitleaks:allow
            "SharedAccessKey=aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3=", // gitleaks:allow
            "SharedSecretValue=aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3=", // gitleaks:allow
        ])
        .negative(&["SharedAccessKey=your_key;", "SharedAccessKeyName=RootManageSharedAccessKey", "SharedAccessKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qharedAccessKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]),
    rule("azure-access-key", "Azure connection string with an access key", r";[Aa]ccess[Kk]ey=[A-Za-z0-9+/]{40,100}={0,2}", "Azure SignalR, Web PubSub and Communication Services docs, Connection strings")
        .positive(&[
            ";AccessKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", // gitleaks:allow
            ";accesskey=aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY==", // gitleaks:allow
        ])
        .negative(&[";AccessKey=<access_key>;Version=1.0;", ";AccessKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ".AccessKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]),
    rule("azure-redis-connection", "Azure Redis connection string", r"\.redis\.cache\.windows\.net:[0-9]{2,5},password=[A-Za-z0-9+/]{40,}={0,2}", "Azure Cache for Redis docs, Access keys")
        .positive(&[
            ".redis.cache.windows.net:6380,password=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", // gitleaks:allow
            ".redis.cache.windows.net:6380,password=aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3=", // gitleaks:allow
        ])
        .negative(&[".redis.cache.windows.net:6380,password=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "~redis.cache.windows.net:6380,password=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]),
    rule("azure-sas-signature", "Azure shared access signature", r"[?&]sig=[A-Za-z0-9%]{42,72}%3[Dd]", "Azure Storage docs, Service SAS; the signature is percent-encoded base64 of 32 bytes")
        .positive(&[
            "?sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3D", // gitleaks:allow
            "&sig=aB%2FaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a%3d", // gitleaks:allow
        ])
        .negative(&["?sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3", ".sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3D"]),
    rule("azure-sas-signature-raw", "Azure shared access signature (not encoded)", r"[?&]sig=[A-Za-z0-9+/]{43}=", "Azure Storage docs, Service SAS")
        .positive(&[
            "?sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", // gitleaks:allow
            "&sig=aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3=", // gitleaks:allow
        ])
        .negative(&["?sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ".sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]),
    rule("azure-logic-apps-url", "Azure Logic Apps URL signature", r"sv=1\.0&(?:amp;)?sig=[A-Za-z0-9_-]{40,}", "Azure Logic Apps docs, Secure access to request triggers")
        .positive(&[
            "sv=1.0&sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sv=1.0&amp;sig=aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sv=1.0&sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qv=1.0&sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("azure-sql-connection", "Azure SQL connection string", r#"\.database\.windows\.net[^"'\n]{1,200}[Pp]assword ?= ?[A-Za-z0-9!@#&~+/=_.-]{12,128}"#, "Azure SQL docs, Connection strings")
        .positive(&[
            ".database.windows.net,1433;Initial Catalog=db;User ID=me;Password=aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
            ".database.windows.net;Uid=me;Password=AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&[".database.windows.net,1433;Password={your_password};", "database.windows.net is a host", "Server=tcp:a.database.windows.net"]),
    rule("azure-publish-profile", "Azure publish profile password", r#"userPWD=\\?"[A-Za-z0-9]{40,}"#, "Azure App Service docs, Publish profile")
        .positive(&[
            "userPWD=\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "userPWD=\"aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["userPWD=\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qserPWD=\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("azure-ad-refresh-token", "Azure AD refresh token", r"\b[01]\.A[A-Za-z0-9_-]{20,80}\.Ag[A-Za-z0-9_-]{100,}", "observed: Entra ID refresh tokens")
        .positive(&[
            "0.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AgABAAAAAAaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
            "1.AaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3.AgaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["0.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AgABAAAAAAaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", "q.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AgABAAAAAAaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3"]),
    rule("adyen-api-key", "Adyen API key", r"AQE[A-Za-z0-9]hm[A-Za-z0-9+/]{30,200}={0,2}-[A-Za-z0-9+/]{43}=-[!#-&(-~]{8,}", "Adyen docs, API credentials")
        .positive(&[
            "AQEyhmaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=-AAAAAAAAAAAAAAAA", // gitleaks:allow
            "AQEthmaB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY==-aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3=-a{b}C(d)E<f>G~h1", // gitleaks:allow
        ])
        .negative(&["AQEyhmaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=-AAAAAAA", "qQEyhmaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=-AAAAAAAAAAAAAAAA"]),
    rule("baidu-cloud-key", "Baidu Cloud API key", r"bce-v3/ALTAK-[A-Za-z0-9]{16,40}/[a-f0-9]{40}", "Baidu Cloud docs, Qianfan authentication")
        .positive(&[
            "bce-v3/ALTAK-AAAAAAAAAAAAAAAAAAAAA/0123456789abcdef0123456789abcdef01234567", // gitleaks:allow
            "bce-v3/ALTAK-aB3aB3aB3aB3aB3aB3aB3/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["bce-v3/ALTAK-short/0123456789abcdef0123456789abcdef01234567", "bce-v3/ALTAK-/0123456789abcdef0123456789abcdef01234567", "bce-v3/ALTBK-AAAAAAAAAAAAAAAAAAAAA/0123456789abcdef0123456789abcdef01234567"]),
    rule("baidu-access-key", "Baidu Cloud access key", r"\bALTAK-?[A-Za-z0-9]{20,32}\b", "Baidu Cloud docs, Access keys")
        .positive(&[
            "ALTAKAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ALTAK-aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["ALTAKAAAAAAAAAAAAAAAAAAA", "qLTAKAAAAAAAAAAAAAAAAAAAAA"]),
    rule("bannerbear-key", "Bannerbear key", r"\bbb_(?:pr|ma)_[a-f0-9]{30,}", "Bannerbear docs, Authentication")
        .positive(&[
            "bb_pr_0123456789abcdef0123456789abcd", // gitleaks:allow
            "bb_ma_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["bb_pr_0123456789abcdef0123456789abc", "qb_pr_0123456789abcdef0123456789abcd"]),
    rule("baremetrics-key", "Baremetrics live key", r"\blk_[A-Za-z0-9]{22}\b", "Baremetrics docs, API keys")
        .unless(check::is_a_name)
        .positive(&[
            "lk_AAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "lk_aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["lk_AAAAAAAAAAAAAAAAAAAAA", "qk_AAAAAAAAAAAAAAAAAAAAAA"]),
    rule("basis-theory-key", "Basis Theory key", r"\bkey_(?:test|prod|dev)_[a-z]{2}_(?:pvt|pub|mgt)_[A-Za-z0-9]{16,40}(?:\.[a-f0-9]{32,})?", "Basis Theory docs, Applications")
        .positive(&[
            "key_test_us_pvt_AAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "key_prod_us_pvt_aB3aB3aB3aB3aB3aB3aB3a.0123456789abcdef0123456789abcdef", // gitleaks:allow
        ])
        .negative(&["key_test_us_pvt_AAAAAAAAAAAAAAA", "qey_test_us_pvt_AAAAAAAAAAAAAAAAAAAAAA"]),
    rule("beamer-key", "Beamer API key", r"\bb_[A-Za-z0-9+/]{43}=", "Beamer docs, API keys")
        .positive(&[
            "b_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", // gitleaks:allow
            "b_aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3=", // gitleaks:allow
        ])
        .negative(&["b_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "q_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]),
    rule("besttime-key", "BestTime private key", r"\bpri_[a-f0-9]{32}\b", "BestTime docs, API keys")
        .positive(&[
            "pri_0123456789abcdef0123456789abcdef", // gitleaks:allow
            "pri_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["pri_0123456789abcdef0123456789abcde", "qri_0123456789abcdef0123456789abcdef"]),
    rule("bip32-private-key", "BIP 32 extended private key", r"\b[xyztuv]prv[1-9A-HJ-NP-Za-km-z]{100,}", "BIP 32, Serialization format; SLIP 132")
        .positive(&[
            "xprv9s21ZrQH143KAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "zprvaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["xprv9s21ZrQH143KAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qprv9s21ZrQH143KAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("bip38-key", "BIP 38 encrypted private key", r"\b6P[RYfn][1-9A-HJ-NP-Za-km-z]{55}\b", "BIP 38, Proposed specification")
        .positive(&[
            "6PRAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "6PYaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["6PRAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qPRAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("bitbucket-http-token", "Bitbucket Data Center HTTP access token", r"BBDC-[A-Za-z0-9+/@_-]{38,}={0,2}", "Bitbucket Data Center docs, HTTP access tokens")
        .positive(&[
            "BBDC-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "BBDC-MDM0aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["BBDC-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qBDC-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"])
        .checked(check::bitbucket_http),
    rule("bitbucket-app-password", "Bitbucket app password", r"ATBB[A-Za-z0-9]{24}[A-F0-9]{8}|\bATBB[A-Za-z0-9_=.-]{28,}", "Bitbucket Cloud docs, App passwords")
        .positive(&[
            "ATBBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ATBBaB3aB3aB3aB3aB3aB3aB3aB30A1B2C3D", // gitleaks:allow
        ])
        .negative(&["ATBBAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qTBBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"])
        .checked(check::atlassian_crc32),
    rule("bitgo-token", "BitGo access token", r"\bv2x[a-f0-9]{64}\b", "BitGo docs, Access tokens")
        .positive(&[
            "v2x0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "v2xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["v2x0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde", "q2x0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("bitrise-token", "Bitrise token", r"bit(?:pat|wat)_[A-Za-z0-9_-]{30,}", "Bitrise docs, Personal access tokens and Workspace API token")
        .positive(&[
            "bitpat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "bitwat_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["bitpat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qitpat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("bitwarden-access-token", "Bitwarden Secrets Manager access token", r"\b0\.[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}\.[A-Za-z0-9]{20,40}:[A-Za-z0-9+/]{22}==", "Bitwarden docs, Access tokens")
        .positive(&[
            "0.01234567-89ab-cdef-0123-456789abcdef.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAA==", // gitleaks:allow
            "0.01234567-89ab-cdef-0123-456789abcdef.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3:aB3aB3aB3aB3aB3aB3aB3a==", // gitleaks:allow
        ])
        .negative(&["0.01234567-89ab-cdef-0123-456789abcdef.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAA=", "q.01234567-89ab-cdef-0123-456789abcdef.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAA=="]),
    rule("bland-ai-key", "Bland AI key", r"\borg_[a-f0-9]{60,}", "observed: Bland AI API keys")
        .positive(&[
            "org_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123", // gitleaks:allow
            "org_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["org_0123456789abcdef0123456789abcdef0123456789abcdef0123456789a", "qrg_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123"]),
    rule("block-protocol-key", "Block Protocol API key", r"b10ck5\.[a-f0-9]{32}\.[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}", "Block Protocol docs, API keys")
        .positive(&[
            "b10ck5.0123456789abcdef0123456789abcdef.01234567-89ab-cdef-0123-456789abcdef", // gitleaks:allow
            "b10ck5.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.01234567-89ab-cdef-0123-456789abcdef", // gitleaks:allow
        ])
        .negative(&["b10ck5.0123456789abcdef0123456789abcdef.01234567-89ab-cdef-0123-456789abcde", "q10ck5.0123456789abcdef0123456789abcdef.01234567-89ab-cdef-0123-456789abcdef"]),
    rule("blockfrost-key", "Blockfrost project id", r"\b(?:mainnet|preprod|testnet)[A-Za-z0-9]{32}\b", "Blockfrost docs, Authentication")
        .unless(check::is_a_name)
        .positive(&[
            "mainnetAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "preprodaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["mainnet-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "mainnetAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qainnetAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("blynk-oauth-client", "Blynk OAuth client", r"oa2-client-id_[A-Za-z0-9_-]{32}(?:(?::|&client_secret=)[A-Za-z0-9_-]{40})?", "Blynk docs, OAuth2 for the HTTPS API")
        .positive(&[
            "oa2-client-id_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "oa2-client-id_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB:aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "oa2-client-id_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB&client_secret=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["oa2-client-id_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qa2-client-id_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("blynk-device-url", "Blynk URL with a device token", r"blynk\.cloud/external/api/[A-Za-z0-9/_.-]{1,60}\?(?:[A-Za-z0-9_=&.-]{1,60}&)?token=[A-Za-z0-9_-]{32}", "Blynk docs, Device HTTPS API")
        .positive(&[
            "blynk.cloud/external/api/get?token=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "blynk.cloud/external/api/update?v1=1&token=aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["blynk.cloud/external/api/get?token=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qlynk.cloud/external/api/get?token=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("blynk-organization-token", "Blynk organization access token", r#"Authorization: {1,4}Bearer {1,4}[A-Za-z0-9_-]{40}["']?[ \\\r\n\t]{1,16}(?:-X [A-Z]{3,6} )?["']?https://(?:[a-z0-9]{2,8}\.)?blynk\.cloud|blynk\.cloud/[A-Za-z0-9/?=&_.-]{1,100}["']?[ \\\r\n\t]{1,16}(?:-X [A-Z]{3,6} )?-H ["']?Authorization: {1,4}Bearer {1,4}[A-Za-z0-9_-]{40}"#, "Blynk docs, Platform HTTPS API")
        .positive(&[
            "Authorization: Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\" https://fra1.blynk.cloud", // gitleaks:allow
            "blynk.cloud/api/v1/organization/profile -H \"Authorization: Bearer aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["Authorization: Bearer AAAAAAAAAAAAAAAAAAA\" https://fra1.blynk.clou", "quthorization: Bearer AAAAAAAAAAAAAAAAAAA\" https://fra1.blynk.cloud"]),
    rule("bolna-key", "Bolna API key", r"\bbn-[a-f0-9]{32}\b", "observed: Bolna API keys")
        .positive(&[
            "bn-0123456789abcdef0123456789abcdef", // gitleaks:allow
            "bn-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["bn-0123456789abcdef0123456789abcde", "qn-0123456789abcdef0123456789abcdef"]),
    rule("braintree-access-token", "PayPal Braintree access token", r"access_token\$(?:production|sandbox|development)\$[a-z0-9]{12,20}\$[a-f0-9]{32,}", "PayPal Braintree docs, Express Checkout access token")
        .positive(&[
            "access_token$production$aaaaaaaaaaaaaaaa$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "access_token$sandbox$a1b2c3d4e5f6g7h8$0123456789abcdef0123456789abcdef", // gitleaks:allow
            "access_token$development$aaaaaaaaaaaa$0123456789abcdef0123456789abcdef", // gitleaks:allow
        ])
        .negative(&["access_token$production$aaaaaaaaaaaaaaaa$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qccess_token$production$aaaaaaaaaaaaaaaa$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("braintree-tokenization-key", "Braintree tokenization key", r"\b(?:production|sandbox)_[a-z0-9]{8}_[a-z0-9]{16}\b", "Braintree docs, Tokenization keys")
        .positive(&[
            "sandbox_a1b2c3d4_a1b2c3d4e5a1b2c3", // gitleaks:allow
            "production_01234567_0123456789abcdef", // gitleaks:allow
        ])
        .negative(&["sandbox_a1b2c3d4_a1b2c3d4e5a1b2c", "qandbox_a1b2c3d4_a1b2c3d4e5a1b2c3"]),
    rule("branch-key", "Branch key", r"\b(?:key|secret)_(?:live|test)_[A-Za-z0-9]{28,}", "Branch docs, Account settings")
        .unless(check::is_a_name)
        .positive(&[
            "key_live_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "key_test_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "secret_live_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["key_live_AAAAAAAAAAAAAAAAAAAAAAAAAAA", "qey_live_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("brave-search-key", "Brave Search API key", r"\bBSA[A-Za-z0-9_-]{24,40}\b", "Brave Search API docs, Authentication")
        .unless(check::is_a_name)
        .positive(&[
            "BSAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "BSAaB3aB3aB3aB3aB3aB3aB3aB3aB_a", // gitleaks:allow
        ])
        .negative(&["BSAAAAAAAAAAAAAAAAAAAAAAAA", "qSAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("brevo-key", "Brevo key", r"x(?:key|smtp)sib-[A-Za-z0-9]{40,128}(?:-[A-Za-z0-9]{8,})?", "Brevo docs, API and SMTP keys")
        .positive(&[
            "xkeysib-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef-AAAAAAAAAAAAAAAA", // gitleaks:allow
            "xsmtpsib-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["xkeysib-0123456789abcdef0123456789abcdef0123456", "qkeysib-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef-AAAAAAAAAAAAAAAA"]),
    rule("brex-token", "Brex user token", r"\bbxt_[A-Za-z0-9]{30,}", "Brex docs, User tokens")
        .positive(&[
            "bxt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "bxt_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["bxt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qxt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("browserbase-key", "Browserbase API key", r"\bbb_(?:live|test)_[A-Za-z0-9_-]{20,}", "Browserbase docs, API keys")
        .positive(&[
            "bb_live_AAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "bb_test_aB3aB3aB3aB3aB3aB3aB3aB3a-_", // gitleaks:allow
        ])
        .negative(&["bb_live_AAAAAAAAAAAAAAAAAAA", "qb_live_AAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("budibase-key", "Budibase API key", r"\b[a-f0-9]{32}-[a-f0-9]{78,80}\b", "Budibase docs, Public API")
        .positive(&[
            "0123456789abcdef0123456789abcdef-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd", // gitleaks:allow
        ])
        .negative(&["0123456789abcdef0123456789abcdef-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abc", "q123456789abcdef0123456789abcdef-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("buildkite-token", "Buildkite token", r"\bbk(?:pat|[a-z][a-z])_[A-Za-z0-9_-]{32,}", "Buildkite docs, Token security")
        .positive(&[
            "bkua_0123456789abcdef0123456789abcdef01234567", // gitleaks:allow
            "bkaa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "bkaj_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "bkct_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["bkua_0123456789abcdef0123456789abcde", "qkua_0123456789abcdef0123456789abcdef01234567"]),
    rule("bytebase-key", "Bytebase service key", r"\bbbs_[A-Za-z0-9]{20,}", "Bytebase docs, Service accounts")
        .positive(&[
            "bbs_AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "bbs_aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["bbs_AAAAAAAAAAAAAAAAAAA", "qbs_AAAAAAAAAAAAAAAAAAAA"]),
    rule("bytedance-access-key", "Volcengine access key", r"\bAK(?:LT|AP)[A-Za-z0-9_-]{36,}={0,2}", "Volcengine and BytePlus docs, Access keys")
        .positive(&[
            "AKLTAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "AKAPaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["AKLTAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qKLTAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("cal-com-key", "Cal.com API key", r"\bcal_(?:live_|test_)?[a-f0-9]{32}", "Cal.com docs, API keys")
        .positive(&[
            "cal_live_0123456789abcdef0123456789abcdef", // gitleaks:allow
            "cal_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["cal_live_0123456789abcdef0123456789abcde", "qal_live_0123456789abcdef0123456789abcdef"]),
    rule("canadian-notify-key", "Canadian Digital Service Notify key", r"gcntfy-[A-Za-z0-9_ -]{30,}", "GC Notify docs, API keys")
        .positive(&[
            "gcntfy-name-01234567-89ab-cdef-0123-456789abcdef-01234567-89ab-cdef-0123-456789abcdef", // gitleaks:allow
            "gcntfy-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["gcntfy-name-01234567-89ab-cdef-0123-", "qcntfy-name-01234567-89ab-cdef-0123-456789abcdef-01234567-89ab-cdef-0123-456789abcdef"]),
    rule("canva-secret", "Canva client secret", r"\bcnvca[A-Za-z0-9_-]{40,}", "Canva docs, Connect API integrations")
        .positive(&[
            "cnvcaAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "cnvca1aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["cnvcaAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qnvcaAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("cardano-private-key", "Cardano private key", r"\b(?:ed25519e?|root|acct|addr|stake|payment|pool|drep|cc_hot|cc_cold)_x?sk1[ac-hj-np-z02-9]{50,}", "CIP 5, Common bech32 prefixes")
        .positive(&[
            "ed25519_sk1aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "addr_xsk1qpzry9x8qpzry9x8qpzry9x8qpzry9x8qpzry9x8qpzry9x8qpzry9x8qpzry9x8qpzry9x8qpzry9x8qpzry9x8qpzry9x8qpzry9x8qpzry9x8qpzry9x8qpzry9x8qpzry9x8qpzry9x8qpzry9", // gitleaks:allow
        ])
        .negative(&["ed25519_sk1aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qd25519_sk1aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("cargo-registry-token", "crates.io token", r"\bcio[A-Za-z0-9]{32}\b|\bcio_tp_[A-Za-z0-9]{32,}", "crates.io source, tokens; RFC 3691 for trusted publishing")
        .positive(&[
            "cioAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "cioaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "cio_tp_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["cioAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qioAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("cartesia-key", "Cartesia API key", r"\bsk_car_[A-Za-z0-9_-]{20,}", "Cartesia docs, API keys")
        .positive(&[
            "sk_car_AAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sk_car_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["sk_car_AAAAAAAAAAAAAAAAAAA", "qk_car_AAAAAAAAAAAAAAAAAAAAA"]),
    rule("cashfree-key", "Cashfree secret key", r"cfsk_ma_(?:prod|test)_[A-Za-z0-9]{30,64}(?:_[A-Za-z0-9]{4,})?", "Cashfree docs, API keys")
        .positive(&[
            "cfsk_ma_prod_0123456789abcdef0123456789abcdef_01234567", // gitleaks:allow
            "cfsk_ma_test_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_aaaaaaaa", // gitleaks:allow
        ])
        .negative(&["cfsk_ma_prod_0123456789abcdef0123456789abc", "qfsk_ma_prod_0123456789abcdef0123456789abcdef_01234567"]),
    rule("cerebras-key", "Cerebras API key", r"\bcsk-[a-z0-9]{44,}", "Cerebras docs, API keys")
        .positive(&[
            "csk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "csk-a1b2c3d4e5a1b2c3d4e5a1b2c3d4e5a1b2c3d4e5a1b2c3d4", // gitleaks:allow
        ])
        .negative(&["csk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "csk-short", "csk-"]),
    rule("cfx-re-key", "Cfx.re server key", r"cfxk_[A-Za-z0-9]{18,40}_[A-Za-z0-9]{5,}", "Cfx.re docs, Server keys")
        .positive(&[
            "cfxk_AAAAAAAAAAAAAAAAAAAA_AAAAAA", // gitleaks:allow
            "cfxk_aB3aB3aB3aB3aB3aB3aB3_aB3aB3", // gitleaks:allow
        ])
        .negative(&["cfxk_AAAAAAAAAAAAAAAAAAAA_AAAA", "qfxk_AAAAAAAAAAAAAAAAAAAA_AAAAAA"]),
    rule("chargebee-key", "Live API key", r"\blive_[A-Za-z0-9]{27,38}\b", "observed: Chargebee and Column keys")
        .unless(check::is_a_name)
        .positive(&[
            "live_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "live_cuaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["live_AAAAAAAAAAAA", "live_AAAAAAAAAAAAAAAAAAAAAAAAAA", "qive_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("checkly-key", "Checkly API key", r"\b(?:cu|sv)_[a-f0-9]{32}\b", "Checkly docs, API keys")
        .positive(&[
            "cu_0123456789abcdef0123456789abcdef", // gitleaks:allow
            "sv_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["cu_0123456789abcdef0123456789abcde", "qu_0123456789abcdef0123456789abcdef"]),
    rule("checkout-sandbox-key", "Checkout.com sandbox key", r"\b[sp]k_sbox_[a-z0-9]{24,}[*#$=]?", "Checkout.com docs, API keys")
        .positive(&[
            "sk_sbox_aaaaaaaaaaaaaaaaaaaaaaaaaa*", // gitleaks:allow
            "pk_sbox_a1b2c3d4e5a1b2c3d4e5a1b2c3d", // gitleaks:allow
        ])
        .negative(&["sk_sbox_aaaaaaaaaaaaaaaaaaaaaaa", "qk_sbox_aaaaaaaaaaaaaaaaaaaaaaaaaa*"]),
    rule("checkout-key", "Checkout.com secret key", r"\b[sp]k_[a-z2-7]{26}[*#$=]", "Checkout.com docs, API keys")
        .positive(&[
            "sk_aaaaaaaaaaaaaaaaaaaaaaaaaa#", // gitleaks:allow
            "pk_a2b3c4d5e6a2b3c4d5e6a2b3c4*", // gitleaks:allow
        ])
        .negative(&["sk_aaaaaaaaaaaaaaaaaaaaaaaaaa", "qk_aaaaaaaaaaaaaaaaaaaaaaaaaa#"]),
    rule("checkout-legacy-key", "Checkout.com legacy key", r"\b[sp]k_(?:test_|live_)?[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}", "Checkout.com docs, API keys of the previous accounts")
        .positive(&[
            "sk_test_01234567-89ab-cdef-0123-456789abcdef", // gitleaks:allow
            "sk_01234567-89ab-cdef-0123-456789abcdef", // gitleaks:allow
        ])
        .negative(&["sk_test_01234567-89ab-cdef-0123-456789abcde", "qk_test_01234567-89ab-cdef-0123-456789abcdef"]),
    rule("chief-tools-token", "Chief Tools token", r"\bctp_[A-Za-z0-9]{30,}", "Chief Tools docs, API tokens")
        .positive(&[
            "ctp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ctp_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["ctp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qtp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("chroma-key", "Chroma Cloud API key", r"\bck-[A-Za-z0-9]{40,}", "Chroma docs, Chroma Cloud")
        .unless(check::is_a_name)
        .positive(&[
            "ck-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ck-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["ck-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qk-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("chromatic-token", "Chromatic project token", r"\bchpt_[A-Za-z0-9]{12,}", "Chromatic docs, Project tokens")
        .positive(&[
            "chpt_0123456789abcd", // gitleaks:allow
            "chpt_aaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["chpt_0123456789a", "qhpt_0123456789abcd"]),
    rule("circleci-token", "CircleCI token", r"\bCCI[A-Z]{3}_[A-Za-z0-9]{20,40}_[a-z0-9]{40}\b", "CircleCI docs, API tokens")
        .positive(&[
            "CCIPAT_AAAAAAAAAAAAAAAAAAAAAA_0123456789abcdef0123456789abcdef01234567", // gitleaks:allow
            "CCIPRJ_aB3aB3aB3aB3aB3aB3aB3a_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["CCIPAT_AAAAAAAAAAAAAAAAAAAAAA_0123456789abcdef0123456789abcdef0123456", "qCIPAT_AAAAAAAAAAAAAAAAAAAAAA_0123456789abcdef0123456789abcdef01234567"]),
    rule("cisco-password-hash", "Cisco IOS password hash", r"\$[89]\$[./A-Za-z0-9]{14}\$[./A-Za-z0-9]{43}", "Cisco IOS docs, Password types 8 and 9")
        .positive(&[
            "$8$AAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "$9$aB3aB3aB3aB3aB$aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB./", // gitleaks:allow
        ])
        .negative(&["$8$AAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ".8$AAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("clearbit-key", "Secret key of 32 hexadecimal digits", r"\bsk_[a-f0-9]{32}\b", "observed: Clearbit and others")
        .positive(&[
            "sk_0123456789abcdef0123456789abcdef", // gitleaks:allow
            "sk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["sk_0123456789abcdef0123456789abcde", "qk_0123456789abcdef0123456789abcdef"]),
    rule("clickhouse-cloud-secret", "ClickHouse Cloud API secret", r"\b4b1d[A-Za-z0-9]{38}\b", "ClickHouse docs, Cloud API keys")
        .positive(&[
            "4b1dAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "4b1daB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["4b1dAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qb1dAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("clickup-token", "ClickUp personal token", r"\bpk_[0-9]{5,12}_[A-Z0-9]{30,}", "ClickUp docs, Personal API token")
        .positive(&[
            "pk_1234567_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "pk_12345678_A1B2C3D4E5A1B2C3D4E5A1B2C3D4E5A1", // gitleaks:allow
        ])
        .negative(&["pk_1234567_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qk_1234567_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("clojars-token", "Clojars deploy token", r"CLOJARS_[A-Za-z0-9]{50,}", "Clojars docs, Deploy tokens")
        .positive(&[
            "CLOJARS_0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab", // gitleaks:allow
            "CLOJARS_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["CLOJARS_0123456789abcdef0123456789abcdef0123456789abcdef0", "qLOJARS_0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab"]),
    rule("close-crm-key", "Close API key", r"\bapi_[A-Za-z0-9]{20,24}\.[A-Za-z0-9]{20,24}\b", "Close docs, API keys")
        .unless(check::is_a_name)
        .positive(&[
            "api_AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "api_aB3aB3aB3aB3aB3aB3aB3a.aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["api_AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAA", "qpi_AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAA"]),
    rule("cloudflare-token", "Cloudflare API token", r"\bcf(?:ut|at|k|oat)_[A-Za-z0-9_-]{40,}", "Cloudflare docs, Token formats; cfoat_ observed in OAuth tokens")
        .positive(&[
            "cfut_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA01234567", // gitleaks:allow
            "cfat_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aaaaaaaaa", // gitleaks:allow
            "cfk_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a01234567", // gitleaks:allow
        ])
        .negative(&["cfut_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qfut_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA01234567"])
        .checked(check::cloudflare_crc32),
    rule("cloudflare-origin-ca-key", "Cloudflare Origin CA key", r"v1\.0-[a-f0-9]{24}-[a-f0-9]{100,}", "Cloudflare docs, Origin CA keys")
        .positive(&[
            "v1.0-0123456789abcdef01234567-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef01", // gitleaks:allow
            "v1.0-aaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["v1.0-0123456789abcdef01234567-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef012", "q1.0-0123456789abcdef01234567-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef01"]),
    rule("cloudflare-tunnel-token", "Cloudflare tunnel token", r"\beyJhIjoi[A-Za-z0-9+/]{120,}={0,2}", "Cloudflare docs, Tunnel tokens; base64 of `{\"a\":\"`")
        .positive(&[
            "eyJhIjoiaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB=", // gitleaks:allow
            "eyJhIjoiAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["eyJhIjoiaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", "qyJhIjoiaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB="]),
    rule("cloudflare-turnstile-secret", "Cloudflare Turnstile secret", r"\b0x4AAAAAAA[A-Za-z0-9_-]{22,}", "Cloudflare docs, Turnstile; a site key is eleven characters shorter")
        .positive(&[
            "0x4AAAAAAAaB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "0x4AAAAAAADnaB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["0x4AAAAAAAaB3aB3aB3aB3aB", "0x4AAAAAAAaB3aB3aB3aB3aB3aB3aB3", "qx4AAAAAAAaB3aB3aB3aB3aB3aB3aB3aB3a"]),
    rule("cloudflare-access-client-id", "Cloudflare Access service token id", r"\b[a-f0-9]{32}\.access\b", "Cloudflare docs, Service tokens")
        .positive(&[
            "0123456789abcdef0123456789abcdef.access", // gitleaks:allow
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.access", // gitleaks:allow
        ])
        .negative(&["0123456789abcdef0123456789abcdef.acces", "q123456789abcdef0123456789abcdef.access"]),
    rule("cloudinary-url", "Cloudinary URL", r"cloudinary://[0-9]{8,18}:[A-Za-z0-9_-]{20,64}@[A-Za-z0-9_-]{2,}", "Cloudinary docs, CLOUDINARY_URL")
        .positive(&[
            "cloudinary://123456789012345:AAAAAAAAAAAAAAAAAAAAAAAAAAA@demo", // gitleaks:allow
            "cloudinary://123456789012345:aB3aB3aB3aB3aB3aB3aB3aB3aB3@my-cloud", // gitleaks:allow
        ])
        .negative(&["cloudinary://", "cloudinary:api"]),
    rule("cloudsmith-api-key", "Cloudsmith API key", r"\bcsa_[a-f0-9]{30}[A-Za-z0-9]{6}\b", "Cloudsmith docs, API keys; observed since 2025")
        .positive(&[
            "csa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "csa_0123456789abcdef0123456789abcdaB3aB3", // gitleaks:allow
        ])
        .negative(&["csa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qsa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("cockroach-cloud-key", "CockroachDB Cloud key", r"CCDB1_[A-Za-z0-9]{20,40}_[A-Za-z0-9]{30,}", "CockroachDB Cloud docs, API access")
        .positive(&[
            "CCDB1_AAAAAAAAAAAAAAAAAAAAAA_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "CCDB1_aB3aB3aB3aB3aB3aB3aB3a_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["CCDB1_AAAAAAAAAAAAAAAAAAAAAA_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qCDB1_AAAAAAAAAAAAAAAAAAAAAA_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("codeium-key", "Windsurf API key", r"sk-ws-[A-Za-z0-9_-]{40,}", "observed: Codeium and Windsurf keys")
        .positive(&[
            "sk-ws-01-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sk-ws-01-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["sk-ws-01-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qk-ws-01-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("code-climate-reporter-id", "Code Climate test reporter id", r#"(?:CODECLIMATE_REPO_TOKEN|CC_TEST_REPORTER_ID)[ \t]{0,4}[:=][ \t]{0,4}["']?[a-f0-9]{64}\b"#, "Code Climate docs, Configuring test coverage")
        .positive(&[
            "CC_TEST_REPORTER_ID=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "CODECLIMATE_REPO_TOKEN: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["CC_TEST_REPORTER_ID=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde", "CC_TEST_REPORTER=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("coderabbit-key", "CodeRabbit API key", r"\bcr-[a-f0-9]{40,}\b", "CodeRabbit docs, API keys")
        .positive(&[
            "cr-0123456789abcdef0123456789abcdef0123456789abcdef0123456789", // gitleaks:allow
            "cr-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["cr-0123456789abcdef0123456789abcdef0123456", "qr-0123456789abcdef0123456789abcdef0123456789abcdef0123456789"]),
    rule("codesandbox-key", "CodeSandbox API key", r"csb_v1_[A-Za-z0-9_-]{40,}", "CodeSandbox docs, API keys")
        .positive(&[
            "csb_v1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "csb_v1_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["csb_v1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qsb_v1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("cognition-devin-key", "Devin API key", r"\bapk_(?:user_)?[A-Za-z0-9+/_-]{60,}={0,2}|\bcog_[A-Za-z0-9]{40,}", "Devin docs, API keys")
        .positive(&[
            "apk_user_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", // gitleaks:allow
            "cog_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["apk_user_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qpk_user_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="]),
    rule("coinbase-cdp-key", "Coinbase CDP API key", r"organizations/[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}/apiKeys/[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}", "Coinbase developer docs, CDP API keys")
        .positive(&[
            "organizations/01234567-89ab-cdef-0123-456789abcdef/apiKeys/01234567-89ab-cdef-0123-456789abcdef", // gitleaks:allow
            "organizations/01234567-89ab-cdef-0123-456789abcdef/apiKeys/aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["organizations/01234567-89ab-cdef-0123-456789abcdef/apiKeys/01234567-89ab-cdef-0123-456789abcde", "qrganizations/01234567-89ab-cdef-0123-456789abcdef/apiKeys/01234567-89ab-cdef-0123-456789abcdef"]),
    rule("coinbase-cdp-private-key", "Coinbase CDP private key", r#""privateKey" {0,4}: {0,4}"[A-Za-z0-9+/]{86}==""#, "Coinbase Developer Platform docs, Secret API keys: Ed25519")
        .positive(&[
            "\"privateKey\": \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\"", // gitleaks:allow
            "\"privateKey\":\"aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB==\"", // gitleaks:allow
        ])
        .negative(&["\"privateKey\": \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\"", "\"publicKey\": \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\""]),
    rule("configcat-sdk-key", "ConfigCat SDK key", r"configcat-(?:sdk-1|proxy)/[A-Za-z0-9_-]{20,48}(?:/[A-Za-z0-9_-]{20,})?", "ConfigCat docs, SDK keys")
        .positive(&[
            "configcat-sdk-1/AAAAAAAAAAAAAAAAAAAAAA/AAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "configcat-sdk-1/aB3aB3aB3aB3aB3aB3aB3a/aB3aB3aB3aB3aB3aB3aB-_", // gitleaks:allow
        ])
        .negative(&["configcat-sdk-1/AAAAAAAAAAAAAAAAAAA", "qonfigcat-sdk-1/AAAAAAAAAAAAAAAAAAAAAA/AAAAAAAAAAAAAAAAAAAAAA"]),
    rule("confluent-secret", "Confluent Cloud secret", r"\bcflt[A-Za-z0-9+/]{60}\b", "Confluent docs, API keys")
        .positive(&[
            "cfltAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "cfltaB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3a", // gitleaks:allow
        ])
        .negative(&["cfltAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qfltAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"])
        .checked(check::confluent_crc32),
    rule("contentful-token", "Contentful personal access token", r"CFPAT-[A-Za-z0-9_-]{40,}", "Contentful docs, Personal access tokens")
        .positive(&[
            "CFPAT-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "CFPAT-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB_-", // gitleaks:allow
        ])
        .negative(&["CFPAT-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qFPAT-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("contributed-systems-key", "Sidekiq Pro or Enterprise credential", r#"BUNDLE_(?:ENTERPRISE|GEMS)__CONTRIBSYS__COM["' \t:=]{1,10}[a-fA-F0-9]{8}:[a-fA-F0-9]{8}|\b[a-fA-F0-9]{8}:[a-fA-F0-9]{8}@(?:gems|enterprise)\.contribsys\.com"#, "Sidekiq wiki, Commercial installation")
        .positive(&[
            "BUNDLE_ENTERPRISE__CONTRIBSYS__COM=cafebabe:deadbeef", // gitleaks:allow
            "BUNDLE_GEMS__CONTRIBSYS__COM: \"cafebabe:deadbeef", // gitleaks:allow
            "aaaaaaaa:bbbbbbbb@gems.contribsys.com", // gitleaks:allow
            "cafebabe:deadbeef@enterprise.contribsys.com", // gitleaks:allow
        ])
        .negative(&["BUNDLE_ENTERPRISE__CONTRIBSYS__COM=cafebabe:deadbee", "cafebabe:deadbeef@gems.example.com"]),
    rule("convex-deploy-key", "Convex deploy key", r"\b(?:prod|dev|preview|project):[a-z0-9:-]{2,80}\|[A-Za-z0-9+/=_-]{40,}", "Convex docs, Deploy keys")
        .positive(&[
            "prod:happy-animal-123|eyJ2MiI6aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
            "preview:team:project|eyJ2MiI6aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3==", // gitleaks:allow
        ])
        .negative(&["prod:happy-animal-123|eyJ2MiI6aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", "qrod:happy-animal-123|eyJ2MiI6aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3"]),
    rule("coralogix-key", "Coralogix key", r"\bcx(?:tp|up|sd)_[A-Za-z0-9]{26,}", "Coralogix docs, API keys")
        .positive(&[
            "cxtp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "cxup_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["cxtp_AAAAAAAAAAAAAAAAAAAAAAAAA", "qxtp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("courier-key", "Courier key", r"\b[pd]k_(?:prod|test)_[A-Z0-9]{26,}", "Courier docs, API keys")
        .positive(&[
            "pk_prod_AAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "dk_test_A1B2C3D4E5A1B2C3D4E5A1B2C3D4", // gitleaks:allow
        ])
        .negative(&["pk_prod_AAAAAAAAAAAAAAAAAAAAAAAAA", "qk_prod_AAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("coveo-key", "Coveo API key", r"\bxx[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}\b", "Coveo docs, API keys")
        .positive(&[
            "xx01234567-89ab-cdef-0123-456789abcdef", // gitleaks:allow
            "xxaaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["xx01234567-89ab-cdef-0123-456789abcde", "qx01234567-89ab-cdef-0123-456789abcdef"]),
    rule("coze-token", "Coze personal access token", r"\bpat_[A-Za-z0-9]{60,}", "Coze docs, Personal access tokens")
        .positive(&[
            "pat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "pat_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["pat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("cursor-key", "Cursor API key", r"\b(?:key|crsr)_[a-fA-F0-9]{60,}", "Cursor docs, API keys")
        .positive(&[
            "key_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "crsr_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["key_0123456789abcdef0123456789abcdef0123456789abcdef0123456789a", "qey_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("secret-token-uri", "Secret token URI", r"\bsecret-token:[A-Za-z0-9_.~%!$&()*+,;=:@/-]{16,}", "RFC 8959; used by Census and others")
        .positive(&[
            "secret-token:AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "secret-token:E92FB7EB-D882-47A4-A265-A0B6135DC842%20foo", // gitleaks:allow
        ])
        .negative(&["secret-token:AAAAAAAAAAAAAAA", "qecret-token:AAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("dashlane-key", "Dashlane service device key", r"\bdls_[A-Za-z0-9]{10,64}_[A-Za-z0-9+/=_-]{60,}", "Dashlane CLI docs, Non-interactive devices")
        .positive(&[
            "dls_AAAAAAAAAAAAAAAA_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "dls_aB3aB3aB3aB3aB3a_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["dls_AAAAAAAAAAAAAAAA_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qls_AAAAAAAAAAAAAAAA_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("databento-key", "Databento API key", r"\bdb-[A-Za-z0-9]{29}\b", "Databento docs, API keys")
        .unless(check::is_a_name)
        .positive(&[
            "db-AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "db-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["db-AAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qb-AAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("databricks-token", "Databricks token", r"dapi[a-f0-9]{32,}(?:-[0-9]{1,2})?", "Databricks docs, Personal access tokens")
        .positive(&[
            "dapiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "dapi0123456789abcdef0123456789abcdef", // gitleaks:allow
            "dapi00000000000000000000000000000000-2", // gitleaks:allow
        ])
        .negative(&["dapigggggggggggggggggggggggggggggggg", "dapi-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "dapiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qapiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("databricks-oauth-secret", "Databricks OAuth token", r"\bd(?:ose|kea|oac|oau|osr|ort|sit|sat|wst|ast|fas)[a-f0-9]{32}", "observed: Databricks OAuth secrets, codes, refresh and session tokens")
        .positive(&[
            "dose0123456789abcdef0123456789abcdef", // gitleaks:allow
            "dkeaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["dose0123456789abcdef0123456789abcde", "qose0123456789abcdef0123456789abcdef"]),
    rule("datadog-key", "Datadog key", r"\bdd(?:pat|sat|app|ap)_[A-Za-z0-9_-]{30,}", "Datadog docs, Personal Access Tokens: identifiable prefixes")
        .positive(&[
            "ddpat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ddap_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["ddpat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qdpat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("dataiku-key", "Dataiku API key", r"\bdku[a-z]{2,3}-[A-Za-z0-9]{24,}", "Dataiku docs, Public API keys")
        .positive(&[
            "dkuaps-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "dkuaps-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["dkuaps-AAAAAAAAAAAAAAAAAAAAAAA", "qkuaps-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("datastax-astra-token", "DataStax Astra token", r"AstraCS:[A-Za-z0-9]{20,64}(?::[a-f0-9]{60,})?", "DataStax docs, Application tokens")
        .positive(&[
            "AstraCS:AAAAAAAAAAAAAAAAAAAAAAAA:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "AstraCS:aB3aB3aB3aB3aB3aB3aB3aB3:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["AstraCS:AAAAAAAAAAAAAAAAAAA", "qstraCS:AAAAAAAAAAAAAAAAAAAAAAAA:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("daytona-key", "Daytona API key", r"\bdtn_[a-f0-9]{60,}", "Daytona docs, API keys")
        .positive(&[
            "dtn_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "dtn_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["dtn_0123456789abcdef0123456789abcdef0123456789abcdef0123456789a", "qtn_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("dbt-cloud-token", "dbt Cloud token", r"\bdbt[cu]_[A-Za-z0-9_-]{32,}={0,2}", "dbt docs, Service and personal tokens")
        .positive(&[
            "dbtc_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "dbtu_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["dbtc_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qbtc_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("deepl-key", "DeepL API key", r"\b[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}:fx\b", "DeepL docs, Authentication")
        .positive(&[
            "01234567-89ab-cdef-0123-456789abcdef:fx", // gitleaks:allow
            "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:fx", // gitleaks:allow
        ])
        .negative(&["01234567-89ab-cdef-0123-456789abcdef:f", "q1234567-89ab-cdef-0123-456789abcdef:fx"]),
    rule("deepseek-key", "DeepSeek API key", r"\bsk-[a-f0-9]{32}\b", "DeepSeek docs, Your first API call")
        .positive(&[
            "sk-0123456789abcdef0123456789abcdef", // gitleaks:allow
            "sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["sk-0123456789abcdef0123456789abcde", "qk-0123456789abcdef0123456789abcdef"]),
    rule("defined-networking-key", "Defined Networking API key", r"dnkey-[A-Za-z0-9=_-]{26}-[A-Za-z0-9=_-]{40,}", "Defined Networking docs, API keys")
        .positive(&[
            "dnkey-AAAAAAAAAAAAAAAAAAAAAAAAAA-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "dnkey-A1B2C3D4E5A1B2C3D4E5A1B2C3-A1B2C3D4E5A1B2C3D4E5A1B2C3D4E5A1B2C3D4E5A1B2C3D4E5A1", // gitleaks:allow
        ])
        .negative(&["dnkey-AAAAAAAAAAAAAAAAAAAAAAAAAA-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qnkey-AAAAAAAAAAAAAAAAAAAAAAAAAA-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("deno-token", "Deno Deploy token", r"\bdd[opw]_[A-Za-z0-9]{32,}", "Deno Deploy docs, Access tokens")
        .positive(&[
            "ddp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ddo_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["ddp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qdp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("dependency-track-key", "Dependency-Track API key", r"\bodt_[A-Za-z0-9]{8}_[A-Za-z0-9]{30,}|\bodt_[A-Za-z0-9]{30,}", "Dependency-Track docs, REST API")
        .positive(&[
            "odt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "odt_aB3aB3aB_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["odt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qdt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("devcycle-key", "DevCycle SDK key", r"\bdvc_(?:server|client|mobile)_[A-Za-z0-9_-]{8,}", "DevCycle docs, Keys")
        .unless(check::is_a_name)
        .positive(&[
            "dvc_server_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "dvc_client_01234567_89ab_cdef_0123_456789abcdef_0123456", // gitleaks:allow
        ])
        .negative(&["dvc_server_AAAAAAA", "qvc_server_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("dfuse-key", "dfuse API key", r"\b(?:web|server|mobile)_[a-z0-9]{32}\b", "dfuse docs, API keys")
        .unless(check::is_a_name)
        .positive(&[
            "server_0123456789abcdef0123456789abcdef", // gitleaks:allow
            "web_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["server_0123456789abcdef0123456789abcde", "qerver_0123456789abcdef0123456789abcdef"]),
    rule("dify-dataset-key", "Dify dataset key", r"\bdataset-[A-Za-z0-9]{24}\b", "Dify docs, Knowledge API")
        .unless(check::is_a_name)
        .positive(&[
            "dataset-AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "dataset-aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["dataset-AAAAAAAAAAAAAAAAAAAAAAA", "qataset-AAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("digitalocean-token", "DigitalOcean token", r"do[a-z]_v1_[a-f0-9]{60,}", "DigitalOcean docs, Personal access tokens; OAuth and refresh tokens")
        .positive(&[
            "dop_v1_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "doo_v1_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "dor_v1_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "dos_v1_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
        ])
        .negative(&["dop_v1_0123456789abcdef0123456789abcdef0123456789abcdef0123456789a", "qop_v1_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("digitalocean-model-key", "DigitalOcean model access key", r"sk-do-[A-Za-z0-9_-]{40,}", "DigitalOcean docs, Serverless inference")
        .positive(&[
            "sk-do-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sk-do-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sk-do-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qk-do-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("digitalocean-spaces-key", "DigitalOcean Spaces key", r"\bDO(?:00|80)[A-Z0-9]{16}\b", "DigitalOcean docs, Spaces access keys")
        .positive(&[
            "DO00AAAAAAAAAAAAAAAA", // gitleaks:allow
            "DO80A1B2C3D4E5A1B2C3", // gitleaks:allow
        ])
        .negative(&["DO00AAAAAAAAAAAAAAA", "qO00AAAAAAAAAAAAAAAA"]),
    rule("discord-bot-token", "Discord bot token", r"[MNO][DTjz][AEIMQUYcgk][w-z0-5][A-Za-z0-9_-]{18,26}\.[A-Za-z0-9_-]{6,7}\.[A-Za-z0-9_-]{27,}", "Discord docs, Authentication; base64 of the bot's number, a time, a signature")
        .positive(&[
            "MTA1MDAwMDAwMDAwMDAwMDAw.AAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "NzE5aB3aB3aB3aB3aB3aB3aB.XaB3aB.aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["MTA1MDAwMDAwMDAwMDAwMDAw.AAAAAA.AAAAAAAAAAAAAAAAAAAA", "MTA1MDAwMDAwMDAwMDAwMDAw.AAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAA", "qTA1MDAwMDAwMDAwMDAwMDAw.AAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("discord-mfa-token", "Discord user token", r"\bmfa\.[A-Za-z0-9_-]{80,}", "observed: Discord user tokens with two factors")
        .positive(&[
            "mfa.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "mfa.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["mfa.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qfa.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("discord-webhook", "Discord webhook", r"discord(?:app)?\.com/api/(?:v[0-9]{1,2}/)?webhooks/[0-9]{16,20}/[A-Za-z0-9_-]{40,}", "Discord docs, Webhook resource")
        .positive(&[
            "discord.com/api/webhooks/123456789012345678/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "discordapp.com/api/v10/webhooks/1234567890123456789/aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["discord.com/api/webhooks/123456789012345678/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qiscord.com/api/webhooks/123456789012345678/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("django-secret-key", "Django secret key", r"django-insecure-[A-Za-z0-9!@#$%^&*()_=+-]{40,}", "Django source, get_random_secret_key")
        .positive(&[
            "django-insecure-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "django-insecure-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a!@#$%^&*()", // gitleaks:allow
        ])
        .negative(&["django-insecure-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qjango-insecure-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("dnsimple-token", "DNSimple token", r"dnsimple_[auo]_[A-Za-z0-9]{20,}", "DNSimple docs, API access tokens")
        .positive(&[
            "dnsimple_a_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "dnsimple_u_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["dnsimple_a_AAAAAAAAAAAAAAAAAAA", "qnsimple_a_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("docker-token", "Docker access token", r"dckr_[a-z]{3}_[A-Za-z0-9_-]{20,}", "Docker docs, Personal and organization access tokens")
        .positive(&[
            "dckr_pat_AAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "dckr_oat_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["dckr_pat_AAAAAAAAAAAAAAAAAAA", "qckr_pat_AAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("docker-swarm-token", "Docker Swarm token", r"SWMTKN-[0-9]-[a-z0-9]{40,80}-[a-z0-9]{20,}", "Docker docs, Swarm join tokens")
        .positive(&[
            "SWMTKN-1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "SWMTKN-1-a1b2c3d4e5a1b2c3d4e5a1b2c3d4e5a1b2c3d4e5a1b2c3d4e5-a1b2c3d4e5a1b2c3d4e5a1b2c", // gitleaks:allow
        ])
        .negative(&["SWMTKN-1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaaaaa", "qWMTKN-1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("docker-swarm-key", "Docker Swarm unlock key", r"SWMKEY-[0-9]-[A-Za-z0-9+/]{40,}={0,2}", "Docker docs, Swarm autolock")
        .positive(&[
            "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "SWMKEY-1-aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3", // gitleaks:allow
        ])
        .negative(&["SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("docker-config-auth", "Docker registry credentials", r#""auths"[ \t\r\n]{0,16}:[ \t\r\n]{0,16}\{[ \t\r\n]{0,64}"[^"\n]{1,120}"[ \t\r\n]{0,16}:[ \t\r\n]{0,16}\{[ \t\r\n]{0,64}(?:"(?:username|email)": ?"[^"\n]{1,64}",[ \t\r\n]{0,64})?"auth"[ \t\r\n]{0,16}:[ \t\r\n]{0,16}"[A-Za-z0-9+/]{8,}={0,2}"#, "Docker docs, config.json")
        .positive(&[
            "\"auths\":{\"ghcr.io\":{\"auth\":\"AAAAAAAAAAAAAAAAAAAAAAAA==", // gitleaks:allow
            "\"auths\": {\n\t\"https://index.docker.io/v1/\": {\n\t\t\"auth\": \"aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["\"auths\":{\"ghcr.io\":{\"auth\":\"AAAAAAA", ".auths\":{\"ghcr.io\":{\"auth\":\"AAAAAAAAAAAAAAAAAAAAAAAA=="]),
    rule("docker-hub-auth", "Docker Hub credentials", r#"docker\.io/v1/"[ \t\r\n]{0,16}:[ \t\r\n]{0,16}\{[ \t\r\n]{0,64}"auth"[ \t\r\n]{0,16}:[ \t\r\n]{0,16}"[A-Za-z0-9+/]{8,}={0,2}"#, "Docker docs, .dockercfg")
        .positive(&[
            "docker.io/v1/\": {\"auth\": \"AAAAAAAAAAAAAAAAAAAAAAAA==", // gitleaks:allow
            "docker.io/v1/\":{\n \"auth\" : \"aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["docker.io/v1/\": {\"auth\": \"AAAAAAA", "qocker.io/v1/\": {\"auth\": \"AAAAAAAAAAAAAAAAAAAAAAAA=="]),
    rule("doppler-token", "Doppler token", r"dp\.(?:ct|pt|sa|said|scim|audit)\.[A-Za-z0-9]{40,}", "Doppler docs, Token formats")
        .positive(&[
            "dp.pt.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "dp.ct.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "dp.scim.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "dp.audit.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["dp.pt.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qp.pt.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("doppler-service-token", "Doppler service token", r"dp\.st\.(?:[a-z0-9_-]{2,35}\.)?[A-Za-z0-9]{40,}", "Doppler docs, Service tokens")
        .positive(&[
            "dp.st.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "dp.st.dev.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "dp.st.prd_aws.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["dp.st.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qp.st.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("dotenv-vault-key", "Dotenv Vault key", r"dotenv://:key_[a-f0-9]{60,}", "Dotenv docs, DOTENV_KEY")
        .positive(&[
            "dotenv://:key_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "dotenv://:key_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["dotenv://:key_0123456789abcdef0123456789abcdef0123456789abcdef0123456789a", "dotenv://:qey_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("dotenvx-private-key", "Dotenvx private key", r#"DOTENV_PRIVATE_KEY[A-Z0-9_]{0,40}["']?[ ]?[=:][ ]?["']?[a-f0-9]{64}"#, "Dotenvx docs, .env.keys")
        .positive(&[
            "DOTENV_PRIVATE_KEY=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "DOTENV_PRIVATE_KEY_PRODUCTION=\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["DOTENV_PRIVATE_KEY=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde", "qOTENV_PRIVATE_KEY=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("dropbox-token", "Dropbox access token", r"\bsl\.(?:u\.)?[A-Za-z0-9_-]{100,}", "Dropbox docs, OAuth guide; short-lived tokens")
        .positive(&[
            "sl.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sl.u.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["sl.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "ql.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("dub-key", "Dub API key", r"\bdub_[A-Za-z0-9]{24}\b", "Dub docs, API keys")
        .unless(check::is_a_name)
        .positive(&[
            "dub_AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "dub_aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["dub_AAAAAAAAAAAAAAAAAAAAAAA", "qub_AAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("duffel-token", "Duffel access token", r"duffel_(?:test|live)_[A-Za-z0-9_=-]{30,}", "Duffel docs, Access tokens")
        .positive(&[
            "duffel_test_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "duffel_live_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB-_", // gitleaks:allow
        ])
        .negative(&["duffel_test_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "quffel_test_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("dynatrace-token", "Dynatrace token", r"dt0[a-zA-Z][0-9]{2}\.[A-Za-z0-9-]{8,40}\.[A-Za-z0-9]{60,}", "Dynatrace docs, Access tokens")
        .positive(&[
            "dt0c01.AAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "dt0s16.A1B2C3D4.A1B2C3D4E5A1B2C3D4E5A1B2C3D4E5A1B2C3D4E5A1B2C3D4E5A1B2C3D4E5A1B2", // gitleaks:allow
        ])
        .negative(&["dt0c01.AAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qt0c01.AAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("e2b-key", "E2B API key", r"\be2b_[a-f0-9]{36,}", "E2B docs, API key")
        .positive(&[
            "e2b_0123456789abcdef0123456789abcdef01234567", // gitleaks:allow
            "e2b_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["e2b_0123456789abcdef0123456789abcdef012", "q2b_0123456789abcdef0123456789abcdef01234567"]),
    rule("easypost-key", "EasyPost API key", r"\bEZ[AT]K[A-Za-z0-9]{50,}|EZ[AT]K[a-f0-9]{32}[A-Za-z0-9]{18,}", "EasyPost docs, API keys")
        .positive(&[
            "EZAKAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "EZTK0123456789abcdef0123456789abcdefaB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["EZAKAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qZAKAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("ebay-client-secret", "eBay client secret", r"(?:PRD|SBX)-[a-f0-9]{10,12}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}", "eBay docs, Application keys")
        .positive(&[
            "PRD-0123456789ab-0123-4567-89ab-cdef", // gitleaks:allow
            "SBX-aaaaaaaaaaaa-aaaa-bbbb-cccc-dddd", // gitleaks:allow
        ])
        .negative(&["PRD-0123456789ab-0123-4567-89ab-cde", "qRD-0123456789ab-0123-4567-89ab-cdef"]),
    rule("ebay-client-id", "eBay client id", r"-(?:PRD|SBX)-[a-f0-9]{8,12}-[a-f0-9]{8,12}", "eBay docs, Application keys")
        .positive(&[
            "-PRD-012345678-01234567", // gitleaks:allow
            "-SBX-aaaaaaaaa-aaaaaaaa", // gitleaks:allow
        ])
        .negative(&["-PRD-012345678-0123456", ".PRD-012345678-01234567"]),
    rule("ebay-oauth-token", "eBay OAuth token", r"v\^1\.1#i\^1#[A-Za-z0-9#^+/=]{40,}", "eBay docs, OAuth tokens")
        .positive(&[
            "v^1.1#i^1#AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "v^1.1#i^1#f^0#p^1#r^0#I^3#t^aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB=", // gitleaks:allow
        ])
        .negative(&["v^1.1#i^1#AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "q^1.1#i^1#AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("ecostruxure-it-key", "EcoStruxure IT API key", r"\bAK1[0-9A-Z/]{50,}", "EcoStruxure IT docs, API keys")
        .positive(&[
            "AK1/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "AK1/A1B2C3D4E5A1B2C3D4E5A1B2C3D4E5A1B2C3D4E5A1B2C3D4E5A1", // gitleaks:allow
        ])
        .negative(&["AK1/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qK1/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("edge-impulse-key", "Edge Impulse API key", r"\bei_[a-f0-9]{60,}", "Edge Impulse docs, API keys")
        .positive(&[
            "ei_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "ei_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["ei_0123456789abcdef0123456789abcdef0123456789abcdef0123456789a", "qi_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("edgedb-token", "Gel token", r"\b(?:edbt|nbwt)1?_[A-Za-z0-9_.-]{60,}", "Gel docs, Secret keys")
        .positive(&[
            "edbt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "nbwt1_eyJaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["edbt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qdbt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("elastic-cloud-key", "Elastic Cloud API key", r"\bessu_[A-Za-z0-9+/_-]{40,}={0,2}", "Elastic docs, Cloud API keys")
        .positive(&[
            "essu_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", // gitleaks:allow
            "essu_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["essu_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qssu_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="]),
    rule("elastic-api-key-header", "Elasticsearch API key header", r"ApiKey [A-Za-z0-9+/_-]{50,}={0,2}", "Elasticsearch docs, API key authentication")
        .positive(&[
            "ApiKey AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", // gitleaks:allow
            "ApiKey aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["ApiKey YOUR_API_KEY", "ApiKey AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qpiKey AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="]),
    rule("elastic-app-search-key", "Elastic App Search private key", r"\bprivate-[a-z0-9]{24}\b", "Elastic docs, App Search authentication")
        .unless(check::is_a_name)
        .positive(&[
            "private-aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "private-a1b2c3d4e5a1b2c3d4e5a1b2", // gitleaks:allow
        ])
        .negative(&["private-aaaaaaaaaaaaaaaaaaaaaaa", "qrivate-aaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("elevenlabs-key", "ElevenLabs API key", r"\bsk_[a-f0-9]{48}\b", "ElevenLabs docs, Authentication")
        .positive(&[
            "sk_0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "sk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["sk_0123456789abcdef0123456789abcdef0123456789abcde", "qk_0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("endor-labs-key", "Endor Labs API key", r"endr\+[A-Za-z0-9-]{12,}", "Endor Labs docs, API keys")
        .positive(&[
            "endr+AAAAAAAAAAAAAAAA", // gitleaks:allow
            "endr+aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["endr+AAAAAAAAAAA", "qndr+AAAAAAAAAAAAAAAA"]),
    rule("eos-private-key", "EOS private key", r"\bPVT_(?:K1|R1|WA)_[1-9A-HJ-NP-Za-km-z]{45,}", "EOSIO docs, Key formats")
        .positive(&[
            "PVT_K1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "PVT_R1_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["PVT_K1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qVT_K1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("exoscale-api-key", "Exoscale API key", r"\bEXO[a-f0-9]{24}\b", "Exoscale docs, IAM keys")
        .unless(check::is_a_name)
        .positive(&[
            "EXO0123456789abcdef01234567", // gitleaks:allow
            "EXOaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["EXO0123456789abcdef0123456", "EXOticVegetablesAndFruitsAr"]),
    rule("evernote-token", "Evernote developer token", r"S=s[0-9]{1,4}:U=[a-f0-9]{1,10}:E=[a-f0-9]{8,14}:C=[a-f0-9]{8,14}:P=[a-f0-9]{1,6}:A=[A-Za-z0-9_.-]{1,40}:V=[0-9]:H=[a-f0-9]{32}", "Evernote docs, Developer tokens")
        .positive(&[
            "S=s1:U=aaaaa:E=0123456789a:C=0123456789b:P=1cd:A=en-devtoken:V=2:H=0123456789abcdef0123456789abcdef", // gitleaks:allow
            "S=s123:U=1:E=aaaaaaaaaaa:C=aaaaaaaaaaa:P=185:A=my.app:V=2:H=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["S=s1:U=aaaaa:E=0123456789a:C=0123456789b:P=1cd:A=en-devtoken:V=2:H=0123456789abcdef0123456789abcde", "q=s1:U=aaaaa:E=0123456789a:C=0123456789b:P=1cd:A=en-devtoken:V=2:H=0123456789abcdef0123456789abcdef"]),
    rule("evervault-ciphertext", "Evervault encrypted value", r"ev:key:[0-9]:[A-Za-z0-9+/=]{20,400}:[A-Za-z0-9+/=]{4,8}:[A-Za-z0-9+/=]{4,8}", "Evervault docs, API keys")
        .positive(&[
            "ev:key:1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA:AAAAAA:BBBBBB", // gitleaks:allow
            "ev:key:1:aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a:aB3aB3:aB3aB3", // gitleaks:allow
        ])
        .negative(&["ev:key:1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA:AAAAAA:BBB", "qv:key:1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA:AAAAAA:BBBBBB"]),
    rule("facebook-graph-explorer-token", "Facebook Graph API Explorer token", r"EAACEdEose0cBA[A-Za-z0-9]{10,}", "Meta docs, Access tokens; the Explorer's application")
        .positive(&[
            "EAACEdEose0cBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "EAACEdEose0cBAaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3ZDZD", // gitleaks:allow
        ])
        .negative(&["EAACEdEose0cBAAAAAAAAAA", "qAACEdEose0cBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    // Base64 of binary data is full of EAA: without the letters of pages' and users' tokens, an escape (ZA to ZD) must follow.
    rule("facebook-access-token", "Facebook access token", r"\bEAA[CM][A-Za-z0-9]{100,}|\bEAA[A-Za-z0-9]{16,120}Z[A-D][A-Za-z0-9]{60,}", "Meta docs, Access tokens; base64 with `+`, `/` and `=` written as ZA to ZD")
        .positive(&[
            "EAACAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "EAAMaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
            "EAABaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3ZCaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aBZD", // gitleaks:allow
        ])
        .negative(&["EAABaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", "EAACAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qAACAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("facebook-app-token", "Facebook app access token", r"\b(?:[0-9]{15}|[0-9]{16})(?:\||%7[Cc]|%)[A-Za-z0-9_-]{27,40}\b", "Meta docs, App access tokens; the application's number and a secret")
        .positive(&[
            "123456789012345|AAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "1234567890123456%7CaB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["123456789012345|AAAAAAAAAAAAAAAAAAAAAAAAAA", "q23456789012345|AAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("fal-key", "fal key", r"\b[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}:[a-f0-9]{32}\b", "fal docs, Key-based authentication")
        .positive(&[
            "01234567-89ab-cdef-0123-456789abcdef:0123456789abcdef0123456789abcdef", // gitleaks:allow
            "01234567-89ab-cdef-0123-456789abcdef:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["01234567-89ab-cdef-0123-456789abcdef:0123456789abcdef0123456789abcde", "q1234567-89ab-cdef-0123-456789abcdef:0123456789abcdef0123456789abcdef"]),
    rule("fauna-key", "Fauna key", r"\bfnA[A-Z][A-Za-z0-9_-]{36,40}\b", "Fauna docs, Keys")
        .unless(check::is_a_name)
        .positive(&[
            "fnAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "fnAFaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["fnAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qnAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("featherless-key", "Featherless API key", r"\brc_[a-f0-9]{60,}", "Featherless docs, API keys")
        .positive(&[
            "rc_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "rc_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["rc_0123456789abcdef0123456789abcdef0123456789abcdef0123456789a", "qc_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("figma-token", "Figma token", r"\bfig(?:d|o|u|or|oh|ou|ur|uh|ph|da)_[A-Za-z0-9_-]{38,}", "Figma docs, Personal access tokens")
        .positive(&[
            "figd_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "figd_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB-_", // gitleaks:allow
            "figor_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["figd_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qigd_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("filecoin-key", "Filecoin exported key", r"7b2254797065223a22[a-f0-9]{100,}", "Lotus docs, Wallet export; hexadecimal of `{\"Type\":\"`")
        .positive(&[
            "7b2254797065223a220123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
            "7b2254797065223a22aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["7b2254797065223a220123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef012", "qb2254797065223a220123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]),
    rule("finage-key", "Finage API key", r"\bAPI_KEY[0-9A-Z]{32}\b", "Finage docs, API keys")
        .positive(&[
            "API_KEYAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "API_KEYA1B2C3D4E5A1B2C3D4E5A1B2C3D4E5A1", // gitleaks:allow
        ])
        .negative(&["API_KEYAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qPI_KEYAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("firebase-server-key", "Firebase Cloud Messaging server key", r"AAAA[A-Za-z0-9_-]{7}:APA91b[A-Za-z0-9_-]{100,}", "Firebase docs, Cloud Messaging server keys")
        .positive(&[
            "AAAAaB3aB3a:APA91baB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "AAAAAAAAAAA:APA91bAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["AAAAaB3aB3a:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "AAAAaB3aB3a:BPA91baB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB"]),
    rule("firebase-device-token", "Firebase device token", r"[A-Za-z0-9_-]{11}:APA91b[A-Za-z0-9_-]{100,}", "Firebase docs, Registration tokens")
        .positive(&[
            "aB3aB3aB3aB:APA91baB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "c_-aB3aB3aB:APA91bAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["aB3aB3aB3aB:APA91baB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", "aB3aB3aB3aB.APA91baB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB"]),
    rule("firecrawl-key", "Firecrawl API key", r"\bfc-[a-f0-9]{32}", "Firecrawl docs, Authentication")
        .positive(&[
            "fc-0123456789abcdef0123456789abcdef", // gitleaks:allow
            "fc-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["fc-0123456789abcdef0123456789abcde", "qc-0123456789abcdef0123456789abcdef"]),
    rule("fireworks-key", "Fireworks AI key", r"\bfw_[A-Za-z0-9]{22,24}\b", "Fireworks docs, API keys")
        .positive(&[
            "fw_AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "fw_aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["fw_AAAAAAAAAAAAAAAAAAAAA", "qw_AAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("fleetbase-key", "Fleetbase key", r"\bflb_(?:live|test)_[A-Za-z0-9]{20,}", "Fleetbase docs, API keys")
        .positive(&[
            "flb_live_AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "flb_test_aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["flb_live_AAAAAAAAAAAAAAAAAAA", "qlb_live_AAAAAAAAAAAAAAAAAAAA"]),
    rule("flexport-token", "Flexport token", r"shltm_[A-Za-z0-9_-]{30,}", "Flexport Logistics docs, Access tokens")
        .positive(&[
            "shltm_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "shltm_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB_-", // gitleaks:allow
        ])
        .negative(&["shltm_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qhltm_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("flutterwave-key", "Flutterwave key", r"FLW(?:PUBK|SECK)(?:_TEST)?-[A-Za-z0-9]{12,64}(?:-[A-Za-z0-9]{1,4})?|FLWSECK_TEST[a-f0-9]{12}", "Flutterwave docs, API keys")
        .positive(&[
            "FLWSECK_TEST-0123456789abcdef0123456789abcdef-X", // gitleaks:allow
            "FLWPUBK-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-X", // gitleaks:allow
            "FLWSECK_TEST-0123456789ab", // gitleaks:allow
        ])
        .negative(&["FLWSECK_TEST-0123456789a", "qLWSECK_TEST-0123456789abcdef0123456789abcdef-X"]),
    rule("fly-access-token", "Fly.io access token", r"\bfo1_[A-Za-z0-9_-]{40,}", "Fly.io docs, Access tokens")
        .positive(&[
            "fo1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "fo1_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB_-", // gitleaks:allow
        ])
        .negative(&["fo1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qo1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("fly-macaroon", "Fly.io macaroon", r"\b(?:fm1[a-z]_|fm2_|FlyV1 )[A-Za-z0-9+/_,-]{80,}={0,3}", "Fly.io docs, Macaroon tokens")
        .positive(&[
            "fm2_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "fm1r_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB==", // gitleaks:allow
            "fm1a_aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9", // gitleaks:allow
            "FlyV1 aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["fm2_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qm2_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("foursquare-key", "Foursquare API key", r"\bfsq3[A-Za-z0-9+/]{43}=", "Foursquare docs, API keys")
        .positive(&[
            "fsq3AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", // gitleaks:allow
            "fsq3aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3+xY/9aB3=", // gitleaks:allow
        ])
        .negative(&["fsq3AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qsq3AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]),
    rule("foursquare-client-credential", "Foursquare client id or secret", r#"\bclient_(?:id|secret)["']?[ ]{0,2}[:=][ ]{0,2}["']?[A-Z0-9]{48}\b"#, "Foursquare docs, Userless access")
        .positive(&[
            "client_id=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "client_secret: \"AB3AB3AB3AB3AB3AB3AB3AB3AB3AB3AB3AB3AB3AB3AB3AB3", // gitleaks:allow
        ])
        .negative(&["client_id=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "client_idx=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("frame-io-token", "Frame.io token", r"fio-u-[A-Za-z0-9_=-]{40,}", "Frame.io docs, Developer tokens")
        .positive(&[
            "fio-u-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "fio-u-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3-_==", // gitleaks:allow
        ])
        .negative(&["fio-u-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qio-u-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("freemius-key", "Freemius secret key", r#"["']secret_key["'][ \t]{0,8}=>[ \t]{0,8}["']sk_[!-!#-&(-~]{29}"#, "Freemius docs, WordPress SDK")
        .positive(&[
            "'secret_key' => 'sk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "\"secret_key\"=>\"sk_aB3aB3aB3aB3aB3aB3aB{}@#<>?~.", // gitleaks:allow
        ])
        .negative(&["'secret_key' => 'sk_your_key'", "'secret_key' => 'sk_AAAAAAAAAAAAAAAAAAAAAAAAAAAA", ".secret_key' => 'sk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("friendli-token", "Friendli token", r"\bflp_[A-Za-z0-9]{36,}", "Friendli docs, Personal access tokens")
        .positive(&[
            "flp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "flp_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["flp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qlp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("fullstory-key", "FullStory API key", r"\b(?:na1|eu1)\.[A-Za-z0-9+/]{40,}={0,2}", "FullStory docs, API keys")
        .positive(&[
            "na1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", // gitleaks:allow
            "eu1.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["na1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qa1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="]),
];
