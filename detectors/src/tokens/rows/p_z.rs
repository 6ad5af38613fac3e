//! The shapes of credentials whose provider's name begins with a letter from P to Z.

use super::check;
use super::{TokenRule, rule};

pub(super) const ROWS: &[TokenRule] = &[
    rule("packagist-token", "Packagist token", r"packagist_[a-z]{3}_[a-f0-9]{40,}", "Private Packagist docs, API authentication")
        .positive(&[
            "packagist_aaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "packagist_abb_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3a", // gitleaks:allow
        ])
        .negative(&["packagist_aaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qackagist_aaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("paddle-api-key", "Paddle API key", r"pdl_(?:live|sdbx)_apikey_[a-z0-9]{26}_[A-Za-z0-9]{10,}(?:_[A-Za-z0-9]{3})?", "Paddle developer docs, API keys")
        .positive(&[
            "pdl_live_apikey_aaaaaaaaaaaaaaaaaaaaaaaaaa_aaaaaaaaaa_aaa", // gitleaks:allow
            "pdl_sdbx_apikey_aaaaaaaaaaaaaaaaaaaaaaaaaa_aaaaaaaaaa", // gitleaks:allow
            "pdl_live_apikey_ab3ab3ab3ab3ab3ab3ab3ab3ab_aB3aB3aB3a_aB3", // gitleaks:allow
        ])
        .negative(&["pdl_live_apikey_aaaaaaaaaaaaaaaaaaaaaaaaaa_aaaaaaaa", "qdl_live_apikey_aaaaaaaaaaaaaaaaaaaaaaaaaa_aaaaaaaaaa_aaa"]),
    rule("paddle-webhook-secret", "Paddle notification secret", r"pdl_ntfset_[a-z0-9]{26}_[A-Za-z0-9+/]{20,}={0,2}", "Paddle developer docs, Verify webhook signatures")
        .positive(&[
            "pdl_ntfset_aaaaaaaaaaaaaaaaaaaaaaaaaa_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pdl_ntfset_ab3ab3ab3ab3ab3ab3ab3ab3ab_aB3aB3aB3aB3aB3aB3aB==", // gitleaks:allow
        ])
        .negative(&["pdl_ntfset_aaaaaaaaaaaaaaaaaaaaaaaaaa_aaaaaaaaaaaaaaaaaaa", "qdl_ntfset_aaaaaaaaaaaaaaaaaaaaaaaaaa_aaaaaaaaaaaaaaaaaaaa"]),
    rule("pagarme-api-key", "Pagar.me API key", r"\b[ae]k_(?:live|test)_[A-Za-z0-9]{28,}", "Pagar.me docs, API keys")
        .positive(&[
            "ak_live_aaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "ak_test_aaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "ak_live_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["ak_live_aaaaaaaaaaaaaaaaaaaaaaaaaaa", "qk_live_aaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("pagerduty-oauth-token", "PagerDuty OAuth token", r"pd(?:us|eu)\+_0X[A-Z0-9]{6,16}_[a-f0-9-]{36}", "PagerDuty developer docs, Obtain an app OAuth token")
        .positive(&[
            "pdus+_0XAAAAAA_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pdeu+_0XAAAAAA_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pdus+_0XAB3AB3_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["pdus+_0XAAAAAA_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qdus+_0XAAAAAA_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("pangea-token", "Pangea token", r"\bpt[sik]_[a-z2-7]{32,}", "Pangea docs, Tokens; GitHub secret scanning patterns")
        .positive(&[
            "pti_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pti_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab", // gitleaks:allow
        ])
        .negative(&["pti_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qti_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("particle-access-token", "Particle access token", r#"https://api\.particle\.io/v1/[A-Za-z0-9_/ "?&=:\\-]{0,200}(?:access_token=|Authorization: {1,4}Bearer {1,4})[A-Za-z0-9]{40,}"#, "Particle Device Cloud API reference, Authentication")
        .positive(&[
            "https://api.particle.io/v1/devices?access_token=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "https://api.particle.io/v1/devices -H \"Authorization: Bearer 0123456789012345678901234567890123456789", // gitleaks:allow
        ])
        .negative(&["https://api.particle.io/v1/devices?access_token=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "https://api.particle.io/v2/devices?access_token=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("particle-access-token-first", "Particle access token", r#"(?:access_token=|Authorization: {1,4}Bearer {1,4})[A-Za-z0-9]{40}[ "'\\\r\n\t]{1,8}https://api\.particle\.io/v1"#, "Particle Device Cloud API reference, Authentication")
        .positive(&[
            "access_token=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa https://api.particle.io/v1", // gitleaks:allow
            "Authorization: Bearer bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\" \\\n  https://api.particle.io/v1", // gitleaks:allow
        ])
        .negative(&["access_token=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa https://api.particle.io/v1", "access_token=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa https://api.example.io/v1"]),
    rule("paypal-oauth-token", "PayPal OAuth access token", r"\bA21AA[A-Za-z0-9_-]{80,}", "PayPal REST API docs, Get an access token")
        .positive(&[
            "A21AAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "A21AAaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["A21AAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "q21AAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("phpmailer-password", "Mail password in a PHPMailer script", r#"\$mail->Password {0,16}= {0,4}["'][^"'\r\n$<>]{7,128}["']"#, "PHPMailer README, A simple example")
        .positive(&[
            "$mail->Password = 'hunter2'", // gitleaks:allow
            "$mail->Password   = \"aaaaaaaaaaaa\"", // gitleaks:allow
        ])
        .negative(&["$mail->Password = 'secret'", "$mail->Password = $password;"]),
    rule("percy-token", "Percy project token", r"\b(?:web|app|auto|ss|vmw|res)_[a-f0-9]{64}\b", "BrowserStack Percy docs, Project token")
        .positive(&[
            "web_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "app_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", // gitleaks:allow
        ])
        .negative(&["web_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "wep_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("percy-token-env", "Percy project token", r#"PERCY_TOKEN=["']?[a-f0-9]{64}"#, "BrowserStack Percy docs, Environment variables")
        .positive(&[
            "PERCY_TOKEN=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "PERCY_TOKEN=ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3a", // gitleaks:allow
        ])
        .negative(&["PERCY_TOKEN=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qERCY_TOKEN=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("perplexity-api-key", "Perplexity API key", r"pplx-[A-Za-z0-9]{40,}", "Perplexity API docs, API keys")
        .positive(&[
            "pplx-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pplx-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["pplx-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qplx-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("persona-api-key", "Persona API key", r"persona_(?:production|sandbox)_[A-Za-z0-9_-]{20,}", "Persona docs, API keys")
        .positive(&[
            "persona_production_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "persona_sandbox_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "persona_production_aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["persona_production_aaaaaaaaaaaaaaaaaaa", "qersona_production_aaaaaaaaaaaaaaaaaaaa"]),
    rule("persona-webhook-secret", "Persona webhook secret", r"\bwbhsec_[A-Za-z0-9-]{20,}", "Persona docs, Webhooks")
        .positive(&[
            "wbhsec_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "wbhsec_aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["wbhsec_aaaaaaaaaaaaaaaaaaa", "qbhsec_aaaaaaaaaaaaaaaaaaaa"]),
    rule("photoroom-api-key", "Photoroom API key", r"(?:sandbox_)?sk_pr_[A-Za-z0-9_-]{1,64}_[a-fA-F0-9]{40,}", "Photoroom API docs, API keys")
        .positive(&[
            "sk_pr_default_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sandbox_sk_pr_my-app_0123456789012345678901234567890123456789", // gitleaks:allow
        ])
        .negative(&["sk_pr_default_gggggggggggggggggggggggggggggggggggggggg", "sk_px_default_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("pinecone-api-key", "Pinecone API key", r"pcsk_[A-Za-z0-9]{4,8}_[A-Za-z0-9]{50,}", "Pinecone docs, API keys")
        .positive(&[
            "pcsk_aaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pcsk_aB3a_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["pcsk_aaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qcsk_aaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("pinterest-access-token", "Pinterest access token", r"\bpin[ar]_[A-Za-z0-9_-]{20,}", "Pinterest developers, Authentication")
        .positive(&[
            "pina_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pina_aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["pina_aaaaaaaaaaaaaaaaaaa", "qina_aaaaaaaaaaaaaaaaaaaa"]),
    rule("plaid-access-token", "Plaid token", r"(?:access|public|link|processor|asset|payment)-(?:sandbox|development|production)-[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}", "Plaid API docs, Tokens")
        .positive(&[
            "access-sandbox-aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", // gitleaks:allow
            "payment-production-aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", // gitleaks:allow
            "access-sandbox-ab3ab3ab-ab3a-ab3a-ab3a-ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["access-sandbox-aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaa", "qccess-sandbox-aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"]),
    rule("plane-api-key", "Plane API key", r"plane_api_[a-f0-9]{32,}", "Plane developer docs, API authentication")
        .positive(&[
            "plane_api_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "plane_api_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab", // gitleaks:allow
        ])
        .negative(&["plane_api_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qlane_api_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("planetscale-token", "PlanetScale token or password", r"pscale_(?:tkn|oauth|pw|api|app|otkn)_[A-Za-z0-9_=.-]{30,}", "PlanetScale docs, Service tokens and passwords")
        .positive(&[
            "pscale_tkn_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pscale_otkn_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pscale_tkn_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["pscale_tkn_aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qscale_tkn_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("plex-token", "Plex token", r"X-Plex-Token(?:=|: |%3[Dd])[A-Za-z0-9_-]{20,}", "Plex support, Finding an authentication token")
        .positive(&[
            "X-Plex-Token=aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "X-Plex-Token: aB3-_aB3-_aB3-_aB3-_", // gitleaks:allow
        ])
        .negative(&["X-Plex-Token=aaaaaaaaaaaaaaaaaaa", "X-Plex-Tolen=aaaaaaaaaaaaaaaaaaaa"]),
    rule("polar-token", "Polar token", r"polar_(?:oat|pat|at_[uo]|at|rt_[uo]|rt|cs|crt|rc|ac|whs|cst|mst|usc|ci)_[A-Za-z0-9_-]{20,}", "Polar docs, Tokens")
        .positive(&[
            "polar_oat_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "polar_ci_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "polar_oat_aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["polar_oat_aaaaaaaaaaaaaaaaaaa", "qolar_oat_aaaaaaaaaaaaaaaaaaaa"]),
    rule("porkbun-api-key", "Porkbun API key", r"\b[ps]k1_[a-f0-9]{60,}", "Porkbun API docs, Authentication")
        .positive(&[
            "pk1_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pk1_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["pk1_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qk1_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("portainer-token", "Portainer access token", r"\bptr_[A-Za-z0-9+/]{43}=", "Portainer docs, API access")
        .positive(&[
            "ptr_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=", // gitleaks:allow
            "ptr_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a=", // gitleaks:allow
        ])
        .negative(&["ptr_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qtr_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa="]),
    rule("posthog-key", "PostHog key", r"\bph[cxsaret]_[A-Za-z0-9_-]{40,}", "PostHog docs, API keys")
        .positive(&[
            "pha_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pha_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["pha_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qha_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("postman-api-key", "Postman API key", r"PMAK-[A-Za-z0-9]{24}-[A-Za-z0-9]{30,}", "Postman learning center, API keys")
        .positive(&[
            "PMAK-aaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "PMAK-aB3aB3aB3aB3aB3aB3aB3aB3-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["PMAK-aaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qMAK-aaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("postman-collection-key", "Postman collection access key", r"PM[AB]T-[A-Z0-9]{26}", "Postman learning center, Collection access keys")
        .positive(&[
            "PMAT-AAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "PMAT-AB3AB3AB3AB3AB3AB3AB3AB3AB", // gitleaks:allow
        ])
        .negative(&["PMAT-AAAAAAAAAAAAAAAAAAAAAAAAA", "qMAT-AAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("prefect-api-key", "Prefect API key", r"\bpn[ub]_[A-Za-z0-9]{36,}", "Prefect docs, API keys")
        .positive(&[
            "pnb_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pnb_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["pnb_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qnb_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("prisma-connection-string", "Prisma connection string", r"prisma(?:\+postgres)?://[A-Za-z0-9._-]{3,80}(?::[0-9]{1,5})?/?\?api_key=[A-Za-z0-9_.=-]{20,}", "Prisma docs, Accelerate connection string")
        .positive(&[
            "prisma://accelerate.prisma-data.net/?api_key=aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "prisma+postgres://accelerate.prisma-data.net/?api_key=aB3_-aB3_-aB3_-aB3_-aB3_-aB3_-aB3_-aB3_-", // gitleaks:allow
        ])
        .negative(&["prisma://accelerate.prisma-data.net/?api_key=aaaaaaaaaaaaaaaaaaa", "prizma://accelerate.prisma-data.net/?api_key=aaaaaaaaaaaaaaaaaaaa"]),
    rule("promptlayer-api-key", "PromptLayer API key", r"\bpl_[a-f0-9]{32}\b", "PromptLayer docs, API keys")
        .positive(&[
            "pl_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pl_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab", // gitleaks:allow
        ])
        .negative(&["pl_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ql_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("proof-api-key", "Proof API key", r"\bprf_(?:[a-z]{2,6}_)?[A-Za-z0-9-]{16}[A-Za-z0-9_-]{4,}", "Proof developer docs, API keys")
        .positive(&[
            "prf_aa_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "prf_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "prf_ab_aB3aB3aB3aB3aB3aaB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["prf_aa_aaaaaaaaaaaaaaaaaaa", "qrf_aa_aaaaaaaaaaaaaaaaaaaa"]),
    rule("proxmox-api-token", "Proxmox VE API token", r"PVEAPIToken=[A-Za-z0-9._-]{1,64}@[A-Za-z0-9._-]{1,32}![A-Za-z0-9._-]{1,64}=[a-f0-9]{8}-[a-f0-9-]{27}", "Proxmox VE wiki, API tokens")
        .positive(&[
            "PVEAPIToken=root@pam!ci=aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", // gitleaks:allow
            "PVEAPIToken=bot@pve!monitor=01234567-0123-0123-0123-0123456789ab", // gitleaks:allow
        ])
        .negative(&["PVEAPIToken=root@pam!ci=UUID", "PVEAPIToken=root@pam=aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"]),
    rule("pubnub-key", "PubNub key", r"\b(?:pub|sub|sec)-c-[A-Za-z0-9]{8}-[A-Za-z0-9]{4}-[A-Za-z0-9]{4}-[A-Za-z0-9]{4}-[A-Za-z0-9]{12}", "PubNub docs, Keysets")
        .positive(&[
            "pub-c-aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", // gitleaks:allow
            "sec-c-aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", // gitleaks:allow
            "pub-c-aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["pub-c-aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaa", "qub-c-aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"]),
    rule("pubnub-secret-key", "PubNub secret key", r"\bsec-c-[A-Za-z0-9+/=-]{36,}", "PubNub docs, Access Manager keys")
        .positive(&[
            "sec-c-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sec-c-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["sec-c-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qec-c-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("pulumi-access-token", "Pulumi access token", r"\bpul-[a-z0-9]{40,}", "Pulumi docs, Access tokens")
        .positive(&[
            "pul-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pul-ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3a", // gitleaks:allow
        ])
        .negative(&["pul-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qul-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("pypi-token", "PyPI token", r"pypi-(?:AgE[A-Za-z0-9_-]{40,}|[A-Za-z0-9_-]{60,})", "PyPI docs, API tokens: a macaroon, which begins with AgE; without it, a longer body")
        .positive(&[
            "pypi-AgEIcHlwaS5vcmcAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "pypi-AgENdGVzdC5weXBpLm9yZwbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", // gitleaks:allow
            "pypi-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["pypi-", "pypi-AgEIcHlwaS5vcmc", "pypi-publish-action", "pipy-AgEIcHlwaS5vcmcAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("qdrant-management-key", "Qdrant Cloud key", r"\b[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}\|[A-Za-z0-9_-]{40,}", "Qdrant Cloud docs, Authentication")
        .positive(&[
            "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "ab3ab3ab-ab3a-ab3a-ab3a-ab3ab3ab3ab3|aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("qovery-api-token", "Qovery API token", r"\bqov_[A-Za-z0-9]{30,}", "Qovery docs, API tokens")
        .positive(&[
            "qov_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "qov_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["qov_aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "zov_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("qstash-token", "Upstash QStash token", r"eyJVc2VySUQiOi[A-Za-z0-9+/]{30,}={0,2}", "Upstash docs, QStash authentication; base64 of {\"UserID\":")
        .positive(&[
            "eyJVc2VySUQiOiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "eyJVc2VySUQiOiaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3==", // gitleaks:allow
        ])
        .negative(&["eyJVc2VySUQiOiaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qyJVc2VySUQiOiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("quicknode-api-key", "QuickNode API key", r"\bQN_[a-f0-9]{32}\b", "QuickNode docs, Console API keys")
        .positive(&[
            "QN_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "QN_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab", // gitleaks:allow
        ])
        .negative(&["QN_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qN_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("ramp-credential", "Ramp client credential", r"\bramp_(?:id|sec|tok)_[A-Za-z0-9]{36,}", "Ramp developer docs, Client credentials")
        .positive(&[
            "ramp_id_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "ramp_tok_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "ramp_id_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["ramp_id_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qamp_id_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("rapidapi-key", "RapidAPI key", r"\b[a-z0-9]{10}msh[a-z0-9]{10,18}p1[a-z0-9]{4,8}jsn[a-z0-9]{8,}", "observed: keys of the former Mashape, msh, p1 and jsn between lower-case letters and digits")
        .positive(&[
            "aaaaaaaaaamshaaaaaaaaaaaaaaap1aaaaaajsnaaaaaaaaaaa", // gitleaks:allow
            "0123456789msh0123456789abcdep1abcdefjsn0123456789ab", // gitleaks:allow
        ])
        .negative(&["aaaaaaaaaamshaaaaaaaaaaaaaaap2aaaaaajsnaaaaaaaaaaa", "aaaaaaaaaamshaaaaap1aaaaaajsnaaaaaaaaaaa"]),
    rule("rapyd-secret-key", "Rapyd key", r"\brsk_(?:[a-z0-9]{4,8}_)?[a-f0-9]{60,}", "Rapyd docs, Get your API keys")
        .positive(&[
            "rsk_aaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "rsk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "rsk_ab3a_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["rsk_aaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qsk_aaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("razorpay-key", "Razorpay key id", r"rzp_(?:live|test)_[A-Za-z0-9]{14,}", "Razorpay docs, API keys")
        .positive(&[
            "rzp_live_aaaaaaaaaaaaaa", // gitleaks:allow
            "rzp_test_aaaaaaaaaaaaaa", // gitleaks:allow
            "rzp_live_aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["rzp_live_aaaaaaaaaaaaa", "qzp_live_aaaaaaaaaaaaaa"]),
    rule("readme-api-key", "ReadMe API key", r"rdme_[a-z0-9]{60,}", "ReadMe docs, Authentication")
        .positive(&[
            "rdme_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "rdme_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["rdme_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qdme_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("rechargepayments-api-token", "Recharge Payments API token", r"\bsk_(?:test_)?[0-9]x[0-9]_[A-Fa-f0-9]{40,}", "Recharge API docs, Authentication")
        .positive(&[
            "sk_test_0x0_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sk_0x0_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sk_test_1x1_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sk_test_0x0_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qk_test_0x0_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("runpod-api-key", "RunPod API key", r"\brpa_[A-Z0-9]{40}[A-Za-z0-9]{4,}", "RunPod docs, API keys")
        .positive(&[
            "rpa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAaaaa", // gitleaks:allow
            "rpa_AB3AB3AB3AB3AB3AB3AB3AB3AB3AB3AB3AB3AB3AaB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["rpa_AAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qpa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAaaaa"]),
    rule("redirect-pizza-token", "redirect.pizza or RunPod token", r"\brpa_[A-Za-z0-9]{30,}", "redirect.pizza API docs, Authentication; RunPod docs, API keys")
        .positive(&[
            "rpa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "rpa_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["rpa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qpa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("render-api-key", "Render API key", r"\brnd_[A-Za-z0-9]{26,}", "Render docs, API keys")
        .positive(&[
            "rnd_aaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "rnd_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["rnd_aaaaaaaaaaaaaaaaaaaaaaaaa", "qnd_aaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("render-deploy-hook", "Render deploy hook", r"api\.render\.com/deploy/[a-z]{3,4}-[A-Za-z0-9]{8,40}\?key=[A-Za-z0-9_-]{8,}", "Render docs, Deploy hooks")
        .positive(&[
            "api.render.com/deploy/aaa-aaaaaaaa?key=aaaaaaaa", // gitleaks:allow
            "api.render.com/deploy/abb-aB3aB3aB?key=aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["api.render.com/deploy/aaa-aaaaaaaa?key=aaaaaaa", "api.qender.com/deploy/aaa-aaaaaaaa?key=aaaaaaaa"]),
    rule("replicate-api-token", "Replicate API token", r"\br8_[A-Za-z0-9]{37,}", "Replicate docs, API tokens")
        .positive(&[
            "r8_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "r8_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["r8_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "q8_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("requesty-api-key", "Requesty API key", r"rqsty-sk-[A-Za-z0-9+/_=-]{40,}", "Requesty docs, API keys")
        .positive(&[
            "rqsty-sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "rqsty-sk-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["rqsty-sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qqsty-sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("resend-api-key", "Resend API key", r"\bre_[A-Za-z0-9]{8}_[A-Za-z0-9]{20,}", "Resend docs, API keys")
        .unless(check::is_a_name)
        .positive(&[
            "re_aaaaaaaa_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "re_aB3aB3aB_aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["re_aaaaaaaa_aaaaaaaaaaaaaaaaaaa", "qe_aaaaaaaa_aaaaaaaaaaaaaaaaaaaa"]),
    rule("retell-api-key", "Retell AI API key", r"\bkey_[a-f0-9]{28}\b", "Retell AI docs, API keys")
        .positive(&[
            "key_aaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "key_ab3ab3ab3ab3ab3ab3ab3ab3ab3a", // gitleaks:allow
        ])
        .negative(&["key_aaaaaaaaaaaaaaaaaaaaaaaaaaa", "qey_aaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("retool-api-token", "Retool API token", r"\bretool_[0-9][0-9a-z]{25,}", "Retool docs, API tokens")
        .positive(&[
            "retool_0aaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "retool_1ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3a", // gitleaks:allow
        ])
        .negative(&["retool_0aaaaaaaaaaaaaaaaaaaaaaaa", "qetool_0aaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("revenuecat-sdk-key", "RevenueCat SDK key", r"\b(?:appl|goog|amzn|strp|rcb)_[A-Za-z]{27,32}\b", "RevenueCat docs, API keys")
        .positive(&[
            "appl_aaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "rcb_aaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "appl_aBbaBbaBbaBbaBbaBbaBbaBbaBb", // gitleaks:allow
        ])
        .negative(&["appl_aaaaaaaaaaaaaaaaaaaaaaaaaa", "qppl_aaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("riot-games-api-key", "Riot Games API key", r"RGAPI-[A-Za-z0-9_-]{36}", "Riot Games developer portal, API keys")
        .positive(&[
            "RGAPI-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "RGAPI-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["RGAPI-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qGAPI-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("robinhood-crypto-key", "Robinhood Crypto API key", r"rh-api-[A-Fa-f0-9]{8}-[A-Fa-f0-9]{4}-[A-Fa-f0-9]{4}-[A-Fa-f0-9]{4}-[A-Fa-f0-9]{12}", "Robinhood Crypto API docs, Authentication")
        .positive(&[
            "rh-api-aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", // gitleaks:allow
            "rh-api-aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["rh-api-aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaa", "rhqapi-aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"]),
    rule("roblox-security-cookie", "Roblox security cookie", r"WARNING:-DO-NOT-SHARE-THIS\.--Sharing-this-will-allow-someone-to-log-in-as-you-and-to-steal-your-ROBUX-and-items\.\|_[A-Za-z0-9_.-]{40,}", "observed: the value of .ROBLOSECURITY")
        .positive(&[
            "WARNING:-DO-NOT-SHARE-THIS.--Sharing-this-will-allow-someone-to-log-in-as-you-and-to-steal-your-ROBUX-and-items.|_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "WARNING:-DO-NOT-SHARE-THIS.--Sharing-this-will-allow-someone-to-log-in-as-you-and-to-steal-your-ROBUX-and-items.|_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["WARNING:-DO-NOT-SHARE-THIS.--Sharing-this-will-allow-someone-to-log-in-as-you-and-to-steal-your-ROBUX-and-items.|_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qARNING:-DO-NOT-SHARE-THIS.--Sharing-this-will-allow-someone-to-log-in-as-you-and-to-steal-your-ROBUX-and-items.|_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("rocketchat-webhook", "Rocket.Chat webhook", r"/hooks/[A-Za-z0-9]{17,24}/[A-Za-z0-9]{40,}", "Rocket.Chat docs, Integrations")
        .positive(&[
            "/hooks/aaaaaaaaaaaaaaaaa/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "/hooks/aB3aB3aB3aB3aB3aB/aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["/hooks/aaaaaaaaaaaaaaaaa/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qhooks/aaaaaaaaaaaaaaaaa/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("rootly-api-key", "Rootly API key", r"rootly_[a-f0-9]{60,}", "Rootly docs, API keys")
        .positive(&[
            "rootly_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "rootly_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["rootly_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qootly_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("rubygems-api-key", "RubyGems API key", r"rubygems_[a-z0-9]{42,}", "RubyGems guides, API key scopes")
        .positive(&[
            "rubygems_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "rubygems_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["rubygems_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qubygems_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("rainforest-pay-api-key", "Rainforest Pay API key", r"\bapikey_[a-f0-9]{64}\b", "Rainforest Pay docs, API keys")
        .positive(&[
            "apikey_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "apikey_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3a", // gitleaks:allow
        ])
        .negative(&["apikey_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qpikey_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("saladcloud-api-key", "SaladCloud API key", r"salad_cloud_[A-Za-z0-9]{1,12}_[A-Za-z0-9]{16,}", "SaladCloud docs, API keys")
        .positive(&[
            "salad_cloud_a_aaaaaaaaaaaaaaaa", // gitleaks:allow
            "salad_cloud_a_aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["salad_cloud_a_aaaaaaaaaaaaaaa", "qalad_cloud_a_aaaaaaaaaaaaaaaa"]),
    rule("salesforce-access-token", "Salesforce access token", r"\b00[A-Za-z0-9]{13}(?:!|%21)[A-Za-z0-9._-]{60,}", "Salesforce help, OAuth access tokens")
        .positive(&[
            "00aaaaaaaaaaaaa!aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "00aaaaaaaaaaaaa%21aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "00aB3aB3aB3aB3a!aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["00aaaaaaaaaaaaa!aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "q0aaaaaaaaaaaaa!aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("salesforce-consumer-key", "Salesforce consumer key", r"\b3MVG9[A-Za-z0-9._+/=-]{70,}", "Salesforce help, Connected app consumer key")
        .positive(&[
            "3MVG9aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "3MVG9aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["3MVG9aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qMVG9aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("salesforce-refresh-token", "Salesforce refresh token", r"\b5Aep861[A-Za-z0-9._=-]{60,}", "Salesforce help, OAuth refresh tokens")
        .positive(&[
            "5Aep861aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "5Aep861aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["5Aep861aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qAep861aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("salesforce-auth-url", "Salesforce DX auth URL", r"force://[A-Za-z0-9._=-]{1,160}:[A-Za-z0-9._=-]{0,128}:[A-Za-z0-9._=-]{20,200}@[A-Za-z0-9.-]{4,}", "Salesforce CLI reference, org login sfdx-url")
        .positive(&[
            "force://a::aaaaaaaaaaaaaaaaaaaa@aaaa", // gitleaks:allow
            "force://a::aB3aB3aB3aB3aB3aB3aB@aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["force://a::aaaa@aaa", "qorce://a::aaaa@aaaa"]),
    rule("samsara-api-token", "Samsara API token", r"samsara_api_[A-Za-z0-9]{20,}", "Samsara developer docs, API tokens")
        .positive(&[
            "samsara_api_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "samsara_api_aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["samsara_api_aaaaaaaaaaaaaaaaaaa", "qamsara_api_aaaaaaaaaaaaaaaaaaaa"]),
    rule("sanity-token", "Sanity API token", r"\bsk[A-Za-z0-9]{178}\b", "Sanity docs, API tokens; length observed")
        .positive(&[
            "skAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "skaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["skAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "slAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("scale-api-key", "Scale API key", r"\b(?:live|test)_(?:auth_)?[a-f0-9]{32}\b", "Scale docs, Authentication")
        .positive(&[
            "live_auth_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "test_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "live_auth_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab", // gitleaks:allow
        ])
        .negative(&["live_auth_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qive_auth_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("scalingo-api-token", "Scalingo API token", r"\btk-[a-z]{2}-[A-Za-z0-9_-]{48,}", "Scalingo docs, API tokens")
        .positive(&[
            "tk-aa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "tk-ab-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["tk-aa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qk-aa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("scrapegraphai-api-key", "ScrapeGraphAI API key", r"\bsgai-[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}", "ScrapeGraphAI docs, API keys")
        .positive(&[
            "sgai-aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", // gitleaks:allow
            "sgai-ab3ab3ab-ab3a-ab3a-ab3a-ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["sgai-aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaa", "qgai-aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"]),
    rule("scrapfly-api-key", "Scrapfly API key", r"\bscp-(?:live|test)-[a-f0-9]{32}", "Scrapfly docs, API keys")
        .positive(&[
            "scp-live-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "scp-test-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "scp-live-ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab", // gitleaks:allow
        ])
        .negative(&["scp-live-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qcp-live-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("sourcegraph-access-token", "Sourcegraph access token", r"\bsgp_(?:(?:[A-Fa-f0-9]{16}|local)_)?[A-Fa-f0-9]{40,}", "Sourcegraph docs, Access tokens")
        .positive(&[
            "sgp_aaaaaaaaaaaaaaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sgp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sgp_aB3aB3aB3aB3aB3a_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sgp_aaaaaaaaaaaaaaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qgp_aaaaaaaaaaaaaaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("sourcegraph-access-token-local", "Sourcegraph access token", r"\bsgp_[A-Fa-f0-9]{16}_local_[A-Fa-f0-9]{40,}", "Sourcegraph docs, Access tokens")
        .positive(&[
            "sgp_aaaaaaaaaaaaaaaa_local_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sgp_aB3aB3aB3aB3aB3a_local_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sgp_aaaaaaaaaaaaaaaa_local_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qgp_aaaaaaaaaaaaaaaa_local_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("segment-api-token", "Segment API token", r"\bsgp_[A-Za-z0-9]{64}\b", "Segment docs, Public API tokens")
        .positive(&[
            "sgp_xY7xY7xY7xY7xY7xY7xY7xY7xY7xY7xY7xY7xY7xY7xY7xY7xY7xY7xY7xY7xY7x", // gitleaks:allow
            "sgp_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", // gitleaks:allow
        ])
        .negative(&["sgp_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "qgp_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"]),
    rule("sendgrid-api-key", "SendGrid API key", r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43,}", "Twilio SendGrid docs, API keys: 22 and 43 characters")
        .positive(&[
            "SG.AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "SG.bbbbbbbbbb_bbbbbbbbbb-.ccccccccccccccccccccccccccccccccccccccccccc", // gitleaks:allow
            "SG.0000000000000000000000.11111111111111111111-1111111111111111111111", // gitleaks:allow
        ])
        .negative(&["SG.short.tooshort", "SG.AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "SG.AAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "SG AAAAAAAAAAAAAAAAAAAAAA AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("sentry-org-token", "Sentry organization token", r"sntrys_[A-Za-z0-9+/=_-]{60,}", "Sentry docs, Auth tokens")
        .positive(&[
            "sntrys_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sntrys_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["sntrys_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qntrys_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("sentry-user-token", "Sentry token", r"sntry[uia]_[A-Fa-f0-9]{60,}", "Sentry docs, Auth tokens")
        .positive(&[
            "sntrya_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sntrya_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["sntrya_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qntrya_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("settlemint-token", "SettleMint access token", r"\bsm_(?:aat|pat|sat)_[A-Za-z0-9]{16,}", "SettleMint docs, Access tokens")
        .positive(&[
            "sm_aat_aaaaaaaaaaaaaaaa", // gitleaks:allow
            "sm_sat_aaaaaaaaaaaaaaaa", // gitleaks:allow
            "sm_aat_aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sm_aat_aaaaaaaaaaaaaaa", "qm_aat_aaaaaaaaaaaaaaaa"]),
    rule("shippo-api-token", "Shippo API token", r"shippo_(?:live|test)_[A-Fa-f0-9]{40,}", "Shippo docs, API tokens")
        .positive(&[
            "shippo_live_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "shippo_test_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "shippo_live_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["shippo_live_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qhippo_live_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("shopify-token", "Shopify access token or secret", r"shp[a-z]{2,3}_[A-Fa-f0-9]{30,}", "Shopify dev docs, Access tokens")
        .positive(&[
            "shpaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "shpab_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["shpaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qhpaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("shopify-partner-token", "Shopify Partners API token", r"\bprtapi_[A-Fa-f0-9]{30,}", "Shopify dev docs, Partner API")
        .positive(&[
            "prtapi_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "prtapi_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["prtapi_aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qrtapi_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("signalwire-token", "SignalWire project token", r"\bPT[a-f0-9]{48}\b", "SignalWire docs, API credentials")
        .positive(&[
            "PTaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "PTab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["PTaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qTaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("slack-config-token", "Slack configuration token", r"xoxe\.xox[bp]-[0-9]-[A-Za-z0-9]{40,}", "Slack API docs, Configuration tokens")
        .positive(&[
            "xoxe.xoxb-0-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "xoxe.xoxb-1-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["xoxe.qoxb-0-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "xoxe.xqxb-0-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("slack-token", "Slack token", r"xox[a-eo-s]-[A-Za-z0-9-]{10}[A-Za-z0-9_-]{0,}|xapp-[A-Za-z0-9-]{20}[A-Za-z0-9_-]{0,}", "Slack API docs, Token types")
        .positive(&[
            "xoxb-000000000000-0000000000000-AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "xoxp-AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "xapp-1-AAAAAAAAAAA-0000000000000-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "xoxe-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["xoxb-", "xoxb-abc", "xoxz-AAAAAAAAAAAAAAAAAAAAAAAA", "foxb-000000000000-AAAAAAAA"]),
    rule("slack-workflow-token", "Slack workflow or export token", r"xwfp-[A-Za-z0-9-]{20}[A-Za-z0-9_-]{0,}", "Slack API docs, Token types")
        .positive(&[
            "xwfp-aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "xwfp-aB3aB3aB3aB3aB3aB3aBaB3aB3", // gitleaks:allow
        ])
        .negative(&["xwfp-aaaaaaaaaaaaaaaaaaa", "qwfp-aaaaaaaaaaaaaaaaaaaa"]),
    rule("slack-webhook", "Slack incoming webhook", r"hooks\.slack(?:-gov)?\.com/services/T[A-Za-z0-9_-]{4,16}/B[A-Za-z0-9_-]{4,16}/[Xx]{0,48}[A-WYZa-wyz0-9_-][A-Za-z0-9_-]{7,}", "Slack API docs, Incoming webhooks")
        .positive(&[
            "hooks.slack.com/services/T00000000/B00000000/aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "hooks.slack.com/services/TAAAAAAAAAA/BAAAAAAAAAA/AbC3AbC3AbC3AbC3AbC3AbC3", // gitleaks:allow
        ])
        .negative(&["hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX", "hooks.slack.com/services/your/webhook/url"]),
    rule("slack-webhook-loose", "Slack webhook", r"hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/[A-WYZa-wyz0-9+-][A-Za-z0-9+-]{20}[A-Za-z0-9+/_-]{0,}", "Slack API docs, Incoming webhooks; without the slashes, as samples are written")
        .positive(&[
            "hooks.slack-gov.com/services/aaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "hooks.slack.com/triggers/aaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "hooks.slack-gov.com/services/aaB3aB3aB3aB3aB3aB3aBaB3aB3", // gitleaks:allow
        ])
        .negative(&["hooks.slack-gov.com/services/aaaaaaaaaaaaaaaaaaaa", "qooks.slack-gov.com/services/aaaaaaaaaaaaaaaaaaaaa"]),
    rule("slack-workflow-webhook", "Slack workflow webhook", r"hooks\.slack(?:-gov)?\.com/workflows/[TEW][A-Za-z0-9]{4,16}/[A-Za-z0-9]{4,16}/[0-9]{4,24}/[Xx]{0,48}[A-WYZa-wyz0-9_-][A-Za-z0-9_-]{7,}", "Slack help, Workflow webhooks")
        .positive(&[
            "hooks.slack-gov.com/workflows/Eaaaa/aaaa/0000/aaaaaaaa", // gitleaks:allow
            "hooks.slack.com/workflows/Eaaaa/aaaa/0000/aaaaaaaa", // gitleaks:allow
            "hooks.slack-gov.com/workflows/EaB3a/aB3a/1131/aaB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["hooks.slack-gov.com/workflows/Eaaaa/aaaa/0000/aaaaaaa", "qooks.slack-gov.com/workflows/Eaaaa/aaaa/0000/aaaaaaaa"]),
    rule("slack-trigger-url", "Slack trigger URL", r"hooks\.slack(?:-gov)?\.com/triggers/[TEW][A-Za-z0-9]{4,16}/[0-9]{8,20}(?:/[A-Fa-f0-9]{16,})?", "Slack help, Workflow triggers")
        .positive(&[
            "hooks.slack-gov.com/triggers/Eaaaa/00000000/aaaaaaaaaaaaaaaa", // gitleaks:allow
            "hooks.slack.com/triggers/Eaaaa/00000000", // gitleaks:allow
            "hooks.slack-gov.com/triggers/EaB3a/11311311/aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["hooks.slack-gov.com/triggers/Eaaaa/00", "qooks.slack-gov.com/triggers/Eaaaa/00000000/aaaaaaaaaaaaaaaa"]),
    rule("snyk-token", "Snyk token", r"snyk_[a-z]{3}\.[A-Za-z0-9]{8}\.[A-Za-z0-9_-]{16,1000}(?:\.[A-Za-z0-9_-]{4,})?", "Snyk docs, Personal and service account tokens")
        .positive(&[
            "snyk_aaa.aaaaaaaa.aaaaaaaaaaaaaaaa.aaaa", // gitleaks:allow
            "snyk_aaa.aaaaaaaa.aaaaaaaaaaaaaaaa", // gitleaks:allow
            "snyk_abb.aB3aB3aB.aB3aB3aB3aB3aB3a.aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["snyk_aaa.aaaaaaaa.aaaaaaaaaaaaaaa", "qnyk_aaa.aaaaaaaa.aaaaaaaaaaaaaaaa.aaaa"]),
    rule("socket-api-token", "Socket API token", r"sktsec_[A-Za-z0-9_-]{40,}", "Socket docs, API tokens")
        .positive(&[
            "sktsec_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sktsec_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sktsec_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qktsec_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("sonar-token", "SonarQube token", r"\bsq[upabco]_[a-z0-9]{40,}", "SonarQube docs, Generating and using tokens")
        .positive(&[
            "sqa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sqa_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3a", // gitleaks:allow
        ])
        .negative(&["sqa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qqa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("sonarcloud-scoped-token", "SonarQube Cloud scoped token", r"\bsqco_[A-Za-z0-9]{50,}", "SonarQube Cloud docs, Scoped organization tokens")
        .positive(&[
            "sqco_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sqco_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["sqco_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qqco_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("sourcegraph-cody-token", "Sourcegraph Cody gateway token", r"\bsl[km]_[a-f0-9]{60,}", "Sourcegraph docs, Cody gateway")
        .positive(&[
            "slk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "slk_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["slk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qlk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("sourcegraph-dotcom-token", "Sourcegraph token", r"\bsg[ds]_[a-f0-9]{60,}", "Sourcegraph docs, Token formats")
        .positive(&[
            "sgd_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sgd_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["sgd_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qgd_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("sourcegraph-amp-token", "Sourcegraph Amp token", r"sgamp_[a-z]{2,8}_[A-Za-z0-9_]{40,}", "Sourcegraph Amp docs, Access tokens")
        .positive(&[
            "sgamp_aa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sgamp_ab_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sgamp_aa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qgamp_aa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("square-access-token", "Square access token", r"\bEAAA[B-Za-z0-9][A-Za-z0-9_-]{59}\b", "Square docs, Access tokens")
        .positive(&[
            "EAAAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "EAAAaaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["EAAAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qAAAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("square-oauth-credential", "Square credential", r"(?:sandbox-)?sq0[a-z]{3}-[A-Za-z0-9_-]{22,}", "Square docs, OAuth application credentials")
        .positive(&[
            "sandbox-sq0aaa-aaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sq0aaa-aaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sandbox-sq0abb-aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sandbox-sq0aaa-aaaaaaaaaaaaaaaaaaaaa", "sandbox-qq0aaa-aaaaaaaaaaaaaaaaaaaaaa"]),
    rule("stackhawk-api-key", "StackHawk API key", r"\bhawk\.[A-Za-z0-9_-]{20}\.[A-Za-z0-9_-]{20,}", "StackHawk docs, API keys")
        .positive(&[
            "hawk.aaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "hawk.aB3aB3aB3aB3aB3aB3aB.aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["hawk.aaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaa", "qawk.aaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaa"]),
    rule("stainless-api-key", "Stainless API key", r"stl_sk_[A-Za-z0-9_-]{24,}", "Stainless docs, API keys")
        .positive(&[
            "stl_sk_aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "stl_sk_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["stl_sk_aaaaaaaaaaaaaaaaaaaaaaa", "qtl_sk_aaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("statsig-key", "Statsig key", r"\b(?:secret|client|console)-[A-Za-z0-9]{40,}", "Statsig docs, API keys")
        .unless(check::is_a_name)
        .positive(&[
            "secret-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "console-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "secret-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["secret-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qecret-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("storyblok-personal-token", "Storyblok personal access token", r"[A-Za-z0-9]{22}tt-[0-9]{4,8}-[A-Za-z0-9_-]{18,}", "Storyblok docs, Personal access tokens")
        .positive(&[
            "aaaaaaaaaaaaaaaaaaaaaatt-0000-aaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "aB3aB3aB3aB3aB3aB3aB3att-1131-aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["aaaaaaaaaaaaaaaaaaaaaatt-0000-aaaaaaaaaaaaaaaaa", "#aaaaaaaaaaaaaaaaaaaaatt-0000-aaaaaaaaaaaaaaaaaa"]),
    rule("stripe-secret-key", "Stripe secret key", r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,}", "Stripe docs, API keys")
        .unless(check::is_a_name)
        .positive(&[
            "sk_live_AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sk_test_bbbbbbbbbbbbbbbbbbbbbbbb", // gitleaks:allow
            "rk_live_cccccccccccccccccccccccc", // gitleaks:allow
            "rk_test_51AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["sk_live_", "sk_live_AAAAAAAAAAAA", "pk_live_AAAAAAAAAAAAAAAAAAAAAAAA", "task_test_that_it_works_with_all_of_them"]),
    rule("paystack-secret-key", "Paystack secret key", r"\bsk_[a-z]{1,12}_[A-Za-z0-9]{40,}", "Paystack docs, API keys")
        .positive(&[
            "sk_a_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sk_a_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sk_a_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qk_a_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("stripe-key-other", "Stripe key", r"\b[rs]k_(?:prod|org_live|org_test)_[A-Za-z0-9]{10,}", "Stripe docs, API keys")
        .positive(&[
            "rk_prod_aaaaaaaaaa", // gitleaks:allow
            "rk_org_test_aaaaaaaaaa", // gitleaks:allow
            "rk_prod_aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["rk_prod_aaaaaaaaa", "qk_prod_aaaaaaaaaa"]),
    rule("stripe-publishable-key", "Stripe publishable key", r"\bpk_(?:test_[A-Za-z0-9]{28,}|live_(?:[A-Za-z0-9]{28,}|[a-z0-9][A-Za-z0-9]{19,}|[A-Z][a-z0-9][A-Za-z0-9]{18,}))", "Stripe docs, API keys")
        .positive(&[
            "pk_test_aaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pk_live_Aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pk_test_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["pk_test_aaaaaaaaaaaaaaaaaaaaaaaaaaa", "qk_test_aaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("stripe-client-secret", "Stripe client secret", r"\b(?:pi|seti|si|src|cs)_[A-Za-z0-9]{16,32}_secret_[A-Za-z0-9]{16,}", "Stripe docs, Payment intents")
        .positive(&[
            "pi_aaaaaaaaaaaaaaaa_secret_aaaaaaaaaaaaaaaa", // gitleaks:allow
            "cs_aaaaaaaaaaaaaaaa_secret_aaaaaaaaaaaaaaaa", // gitleaks:allow
            "pi_aB3aB3aB3aB3aB3a_secret_aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["pi_aaaaaaaaaaaaaaaa_secret_aaaaaaaaaaaaaaa", "qi_aaaaaaaaaaaaaaaa_secret_aaaaaaaaaaaaaaaa"]),
    rule("stripe-ephemeral-key", "Stripe ephemeral key", r"\be(?:ph)?k(?:ey)?_(?:live|test)_[A-Za-z0-9]{24,}", "Stripe docs, Ephemeral keys")
        .positive(&[
            "ek_live_AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ephkey_test_aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["ek_live_AAAAAAAAAAAAAAAAAAAAAAA", "ej_live_AAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("webhook-signing-secret", "Webhook signing secret (Stripe, Svix)", r"\bwhsec_[A-Za-z0-9+/]{24,}={0,2}", "Stripe docs, Webhook signatures; Standard Webhooks specification")
        .positive(&[
            "whsec_aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "whsec_aB3aB3aB3aB3aB3aB3aB3aB3==", // gitleaks:allow
        ])
        .negative(&["whsec_aaaaaaaaaaaaaaaaaaaaaaa", "qhsec_aaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("stytch-secret", "Stytch secret", r"\bsecret-(?:test|live)-[A-Za-z0-9_=-]{30,}", "Stytch docs, API secrets")
        .positive(&[
            "secret-test-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "secret-live-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "secret-test-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["secret-test-aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qecret-test-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("sumologic-collector-url", "Sumo Logic HTTP source URL", r"\.sumologic\.com/receiver/v1/http/[A-Za-z0-9_=-]{40,}", "Sumo Logic docs, HTTP logs source")
        .positive(&[
            ".sumologic.com/receiver/v1/http/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            ".sumologic.com/receiver/v1/http/aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&[".sumologic.com/receiver/v1/http/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qsumologic.com/receiver/v1/http/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("supabase-access-token", "Supabase access token", r"\bsbp_(?:oauth_|v0_)?[A-Za-z0-9]{40,}", "Supabase docs, Management API")
        .positive(&[
            "sbp_oauth_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sbp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sbp_oauth_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sbp_oauth_aaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qbp_oauth_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("supabase-api-key", "Supabase API key", r"\bsb_(?:secret|publishable)_[A-Za-z0-9_-]{22,}", "Supabase docs, API keys")
        .positive(&[
            "sb_secret_aaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sb_publishable_aaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sb_secret_aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sb_secret_aaaaaaaaaaaaaaaaaaaaa", "qb_secret_aaaaaaaaaaaaaaaaaaaaaa"]),
    rule("tableau-personal-access-token", "Tableau personal access token", r"[A-Za-z0-9+/]{22}==:[A-Za-z0-9]{32}\b", "Tableau help, Personal access tokens")
        .positive(&[
            "aaaaaaaaaaaaaaaaaaaaaa==:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "aB3aB3aB3aB3aB3aB3aB3a==:aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["aaaaaaaaaaaaaaaaaaaaaa==:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "#aaaaaaaaaaaaaaaaaaaaa==:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("tailscale-key", "Tailscale key", r"tskey-[a-z]{2,12}-[A-Za-z0-9_-]{12,}", "Tailscale docs, Auth keys and API access tokens")
        .positive(&[
            "tskey-aa-aaaaaaaaaaaa", // gitleaks:allow
            "tskey-ab-aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["tskey-aa-aaaaaaaaaaa", "qskey-aa-aaaaaaaaaaaa"]),
    rule("tailscale-key-legacy", "Tailscale key", r"tskey-[A-Za-z0-9]{12,}", "Tailscale docs, Auth keys")
        .positive(&[
            "tskey-aaaaaaaaaaaa", // gitleaks:allow
            "tskey-aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["tskey-aaaaaaaaaaa", "qskey-aaaaaaaaaaaa"]),
    rule("tally-api-key", "Tally API key", r"\btly-[A-Za-z0-9]{32,}", "Tally developer docs, API keys")
        .positive(&[
            "tly-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "tly-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["tly-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qly-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("taskade-token", "Taskade token", r"\btskdp_[A-Za-z0-9]{24,}", "Taskade developer docs, Personal access tokens")
        .positive(&[
            "tskdp_aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "tskdp_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["tskdp_aaaaaaaaaaaaaaaaaaaaaaa", "qskdp_aaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("tatum-api-key", "Tatum API key", r"\bt-[a-f0-9]{24}-[a-f0-9]{24}\b", "Tatum docs, API keys")
        .positive(&[
            "t-aaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "t-ab3ab3ab3ab3ab3ab3ab3ab3-ab3ab3ab3ab3ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["t-aaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaaaaaaaaa", "q-aaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("tavily-api-key", "Tavily API key", r"tvly-(?:dev-|prod-)?[A-Za-z0-9]{24}[A-Za-z0-9_-]{0,}", "Tavily docs, API keys")
        .positive(&[
            "tvly-dev-aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "tvly-aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "tvly-dev-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["tvly-dev-aaaaaaaaaaaaaaaaaaaaaaa", "qvly-dev-aaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("teamcity-token", "TeamCity token", r"eyJ0eXAiOiAiVENWMiJ9\.[A-Za-z0-9_-]{30,64}\.[A-Za-z0-9_-]{40,}", "TeamCity docs, Access tokens; header {\"typ\": \"TCV2\"}")
        .positive(&[
            "eyJ0eXAiOiAiVENWMiJ9.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "eyJ0eXAiOiAiVENWMiJ9.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["eyJ0eXAiOiAiVENWMiJ9.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaa", "qyJ0eXAiOiAiVENWMiJ9.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("teamwork-token", "Teamwork token", r"\btkn\.v1_[A-Za-z0-9+/_-]{40,}={0,2}", "Teamwork developer docs, API tokens")
        .positive(&[
            "tkn.v1_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "tkn.v1_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a==", // gitleaks:allow
        ])
        .negative(&["tkn.v1_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qkn.v1_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("telegram-bot-token", "Telegram bot token", r"(?:[0-9]{10}|[0-9]{9}|[0-9]{8}|[0-9]{7}|[0-9]{6}|[0-9]{5}):A[A-Z0-9_-][A-Za-z0-9_-]{32,}", "Telegram Bot API, Authorizing your bot")
        .positive(&[
            "0000000000:AAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "00000:AAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "1131131131:AAaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["0000000000:AAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "00000q0000:AAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("telnyx-api-key", "Telnyx API key", r"\bKEY[A-Za-z0-9][A-Za-z0-9_-]{54,59}\b", "Telnyx docs, API keys")
        .positive(&[
            "KEYaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "KEYaaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["KEYaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qEYaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("tencent-secret-id", "Tencent Cloud secret id", r"\b[AI]KID[A-Za-z0-9]{32,36}\b", "Tencent Cloud docs, API keys")
        .positive(&[
            "AKIDaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "AKIDaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["AKIDaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qKIDaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("thingsboard-access-token", "ThingsBoard device access token", r"thingsboard\.cloud/api/v1/[A-Za-z0-9]{20}", "ThingsBoard docs, HTTP device API")
        .positive(&[
            "thingsboard.cloud/api/v1/aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "thingsboard.cloud/api/v1/aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["thingsboard.cloud/api/v1/aaaaaaaaaaaaaaaaaaa", "qhingsboard.cloud/api/v1/aaaaaaaaaaaaaaaaaaaa"]),
    rule("thingsboard-provision-key", "ThingsBoard provisioning credential", r#""provisionDevice(?:Key|Secret)"[ \t]{0,4}:[ \t]{0,4}"[a-z0-9]{20}""#, "ThingsBoard docs, Device provisioning")
        .positive(&[
            "\"provisionDeviceKey\":\"aaaaaaaaaaaaaaaaaaaa\"", // gitleaks:allow
            "\"provisionDeviceSecret\":\"aaaaaaaaaaaaaaaaaaaa\"", // gitleaks:allow
            "\"provisionDeviceKey\":\"ab3ab3ab3ab3ab3ab3ab\"", // gitleaks:allow
        ])
        .negative(&["\"provisionDeviceKey\":\"aaaaaaaaaaaaaaaaaaaa", "qprovisionDeviceKey\":\"aaaaaaaaaaaaaaaaaaaa\""]),
    rule("thunderstore-token", "Thunderstore API token", r"\btss_[A-Za-z0-9]{20}[A-Za-z0-9_-]{0,}", "Thunderstore docs, Service accounts")
        .positive(&[
            "tss_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "tss_aB3aB3aB3aB3aB3aB3aBaB3aB3", // gitleaks:allow
        ])
        .negative(&["tss_aaaaaaaaaaaaaaaaaaa", "qss_aaaaaaaaaaaaaaaaaaaa"]),
    rule("tinybird-token", "Tinybird token", r"\bp\.eyJ[A-Za-z0-9_-]{20,1000}\.[A-Za-z0-9_-]{20,}", "Tinybird docs, Tokens")
        .positive(&[
            "p.eyJaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "p.eyJaB3aB3aB3aB3aB3aB3aB.aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["p.eyJaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaa", "q.eyJaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaa"]),
    rule("tines-webhook", "Tines webhook", r"\.tines\.com/webhook/[A-Za-z0-9]{24,40}/[A-Za-z0-9]{24,}", "Tines docs, Webhook action")
        .positive(&[
            ".tines.com/webhook/aaaaaaaaaaaaaaaaaaaaaaaa/aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            ".tines.com/webhook/aB3aB3aB3aB3aB3aB3aB3aB3/aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&[".tines.com/webhook/aaaaaaaaaaaaaaaaaaaaaaaa/aaaaaaaaaaaaaaaaaaaaaaa", "qtines.com/webhook/aaaaaaaaaaaaaaaaaaaaaaaa/aaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("together-api-key", "Together AI API key", r"\btgp_v1_[A-Za-z0-9_-]{40,}", "Together AI docs, API keys")
        .positive(&[
            "tgp_v1_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "tgp_v1_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["tgp_v1_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qgp_v1_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("tolgee-api-key", "Tolgee API key", r"\btgpa[tk]_[a-z0-9]{24,}", "Tolgee docs, API keys")
        .positive(&[
            "tgpak_aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "tgpak_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["tgpak_aaaaaaaaaaaaaaaaaaaaaaa", "qgpak_aaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("traceloop-api-key", "Traceloop API key", r"\btl_[a-f0-9]{64}\b", "Traceloop docs, API keys")
        .positive(&[
            "tl_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "tl_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3a", // gitleaks:allow
        ])
        .negative(&["tl_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ql_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("transifex-api-token", "Transifex API token", r"\b1/[a-f0-9]{40}\b", "Transifex docs, API tokens; 1/ and forty hex digits")
        .positive(&[
            "1/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "1/ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3a", // gitleaks:allow
        ])
        .negative(&["1/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "q/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("trello-token", "Trello token", r"\bATTA[a-f0-9]{60}[A-Za-z0-9]{0,}", "Atlassian developer docs, Trello token format")
        .positive(&[
            "ATTAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "ATTAab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3aB3aB3", // gitleaks:allow
        ])
        .negative(&["ATTAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qTTAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("trigger-dev-key", "Trigger.dev key", r"\btr_(?:dev|prod|stg|pat|oat|preview)_[A-Za-z0-9]{20,}", "Trigger.dev docs, API keys")
        .positive(&[
            "tr_dev_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "tr_preview_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "tr_dev_aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["tr_dev_aaaaaaaaaaaaaaaaaaa", "qr_dev_aaaaaaaaaaaaaaaaaaaa"]),
    rule("truenas-api-key", "TrueNAS API key", r#""params"[ \t]{0,4}:[ \t]{0,4}\[[ \t]{0,4}"[0-9]{1,6}-[A-Za-z0-9]{64}""#, "TrueNAS docs, WebSocket API authentication")
        .positive(&[
            "\"params\":[\"0-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"", // gitleaks:allow
            "\"params\":[\"1-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a\"", // gitleaks:allow
        ])
        .negative(&["\"params\":[\"0-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qparams\":[\"0-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""]),
    rule("trufflehog-key", "TruffleHog Enterprise credential", r"thog-(?:key-[a-f0-9]{16}|secret-[a-f0-9]{32})", "TruffleHog Enterprise docs, Scanner credentials")
        .positive(&[
            "thog-key-aaaaaaaaaaaaaaaa", // gitleaks:allow
            "thog-secret-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "thog-key-ab3ab3ab3ab3ab3a", // gitleaks:allow
        ])
        .negative(&["thog-key-aaaaaaaaaaaaaaa", "qhog-key-aaaaaaaaaaaaaaaa"]),
    rule("turbopuffer-api-key", "turbopuffer API key", r"\btpuf_[A-Za-z0-9]{24,}", "turbopuffer docs, API keys")
        .positive(&[
            "tpuf_aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "tpuf_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["tpuf_aaaaaaaaaaaaaaaaaaaaaaa", "qpuf_aaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("twelvelabs-api-key", "Twelve Labs API key", r"\btlk_[A-Z0-9]{24,}", "Twelve Labs docs, API keys")
        .positive(&[
            "tlk_AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "tlk_AB3AB3AB3AB3AB3AB3AB3AB3AB3AB3", // gitleaks:allow
        ])
        .negative(&["tlk_AAAAAAAAAAAAAAAAAAAAAAA", "qlk_AAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("twilio-key", "Twilio account or API key", r"\b(?:AC|SK)[A-Fa-f0-9]{32}\b", "Twilio docs, API keys")
        .positive(&[
            "ACaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "SKaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "ACaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["ACaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qCaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("twitch-stream-key", "Twitch stream key", r"\blive_[0-9]{8,12}_[A-Za-z0-9]{28,}", "Twitch help, Stream key")
        .positive(&[
            "live_00000000_aaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "live_11311311_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["live_00000000_aaaaaaaaaaaaaaaaaaaaaaaaaaa", "qive_00000000_aaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("twitch-irc-token", "Twitch chat token", r"\boauth:[a-z0-9]{30}\b", "Twitch developer docs, Chat authentication")
        .positive(&[
            "oauth:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "oauth:ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["oauth:aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qauth:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("twitter-bearer-token", "X (Twitter) bearer token", r"A{20}[A-Za-z0-9]{3,80}%[A-F0-9]{2}[A-Za-z0-9%]{8,}", "X developer docs, App-only bearer tokens")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAbbbbbbAAAAAAA%2Bcccccccccccccccccccccccccccccccccccccccc", // gitleaks:allow
            "AAAAAAAAAAAAAAAAAAAAANRIL%3Ddddddddddddddddddddddddddddddddddddddddd", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb%2B", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("twitter-bearer-token-plain", "X (Twitter) bearer token", r"\bA{20,23}[B-Zb-z0-9]{7}[A-Za-z0-9]{20,110}\b", "X developer docs, App-only bearer tokens")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAA0000000aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "AAAAAAAAAAAAAAAAAAAAbB3bB3baB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAA0000000aaaaaaaaaaaaaaaaaaa", "qAAAAAAAAAAAAAAAAAAA0000000aaaaaaaaaaaaaaaaaaaa"]),
    rule("typeform-token", "Typeform token", r"\btfp_[A-Za-z0-9_=.-]{40,}", "Typeform developer docs, Personal access tokens")
        .positive(&[
            "tfp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "tfp_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["tfp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qfp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("ubidots-token", "Ubidots token", r"\bBB(?:FF|US)-[A-Za-z0-9]{30,}", "Ubidots docs, API tokens")
        .positive(&[
            "BBFF-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "BBUS-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "BBFF-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["BBFF-aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qBFF-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("unkey-root-key", "Unkey root key", r"\bunkey_[A-Za-z0-9]{20,}", "Unkey docs, Root keys")
        .positive(&[
            "unkey_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "unkey_aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["unkey_aaaaaaaaaaaaaaaaaaa", "qnkey_aaaaaaaaaaaaaaaaaaaa"]),
    rule("unkey-key-id", "Unkey root key", r"\bunkey_[a-z0-9]{1,8}_[A-Za-z0-9]{20,}", "Unkey docs, Root keys")
        .positive(&[
            "unkey_a_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "unkey_a_aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["unkey_a_aaaaaaaaaaaaaaaaaaa", "qnkey_a_aaaaaaaaaaaaaaaaaaaa"]),
    rule("upcloud-api-token", "UpCloud API token", r"\bucat_[A-Z0-9a-z]{24,}", "UpCloud docs, API tokens")
        .positive(&[
            "ucat_aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "ucat_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["ucat_aaaaaaaaaaaaaaaaaaaaaaa", "qcat_aaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("upstage-api-key", "Upstage API key", r"\bup_[A-Za-z0-9]{29}\b", "Upstage docs, API keys")
        .positive(&[
            "up_aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "up_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["up_aaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("uptimerobot-api-key", "UptimeRobot API key", r"\b(?:ur|u|m)[0-9]{6,9}-[a-f0-9]{24}\b", "UptimeRobot docs, API keys")
        .positive(&[
            "ur000000-aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "m000000-aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "ur113113-ab3ab3ab3ab3ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["ur000000-aaaaaaaaaaaaaaaaaaaaaaa", "qr000000-aaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("valtown-token", "Val Town API token", r"\bvtwn_[A-Za-z0-9_-]{20,}", "Val Town docs, API tokens")
        .positive(&[
            "vtwn_aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "vtwn_aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["vtwn_aaaaaaaaaaaaaaaaaaa", "qtwn_aaaaaaaaaaaaaaaaaaaa"]),
    rule("vectara-api-key", "Vectara API key", r"\bz(?:ut|qt|wt)_[A-Za-z0-9_-]{30,}", "Vectara docs, API keys")
        .positive(&[
            "zut_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "zwt_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "zut_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["zut_aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qut_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("veracode-api-credential", "Veracode API credential", r"\bvera0[0-9]e?[is]-[a-f0-9]{32,}", "Veracode docs, API credentials")
        .positive(&[
            "vera00i-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "vera01i-ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab", // gitleaks:allow
        ])
        .negative(&["vera00i-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qera00i-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("vercel-blob-token", "Vercel Blob token", r"vercel_blob_rw_[A-Za-z0-9]{12,20}_[A-Za-z0-9]{24,}", "Vercel docs, Vercel Blob")
        .positive(&[
            "vercel_blob_rw_aaaaaaaaaaaa_aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "vercel_blob_rw_aB3aB3aB3aB3_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["vercel_blob_rw_aaaaaaaaaaaa_aaaaaaaaaaaaaaaaaaaaaaa", "qercel_blob_rw_aaaaaaaaaaaa_aaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("vercel-deploy-hook", "Vercel deploy hook", r"api\.vercel\.com/v1/integrations/deploy/prj_[A-Za-z0-9]{16,40}/[A-Za-z0-9]{8,}", "Vercel docs, Deploy hooks")
        .positive(&[
            "api.vercel.com/v1/integrations/deploy/prj_aaaaaaaaaaaaaaaa/aaaaaaaa", // gitleaks:allow
            "api.vercel.com/v1/integrations/deploy/prj_aB3aB3aB3aB3aB3a/aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["api.vercel.com/v1/integrations/deploy/prj_aaaaaaaaaaaaaaaa/aaaaaaa", "qpi.vercel.com/v1/integrations/deploy/prj_aaaaaaaaaaaaaaaa/aaaaaaaa"]),
    rule("vercel-edge-config", "Vercel Edge Config connection string", r"edge-config\.vercel\.com/ecfg_[A-Za-z0-9]{10,40}\?token=[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}", "Vercel docs, Edge Config")
        .positive(&[
            "edge-config.vercel.com/ecfg_aaaaaaaaaa?token=aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", // gitleaks:allow
            "edge-config.vercel.com/ecfg_aB3aB3aB3a?token=ab3ab3ab-ab3a-ab3a-ab3a-ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["edge-config.vercel.com/ecfg_aaaaaaaaaa?token=aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaa", "qdge-config.vercel.com/ecfg_aaaaaaaaaa?token=aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"]),
    rule("vercel-token", "Vercel token", r"\bvc[pirack]_[A-Za-z0-9_-]{40,}", "Vercel docs, Access tokens")
        .positive(&[
            "vca_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "vca_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["vca_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qca_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("victorops-endpoint", "Splunk On-Call endpoint", r"alert\.victorops\.com/integrations/[A-Za-z]{3,30}/[0-9]{6,10}/[a-z]{4,20}/[a-f0-9-]{36}", "Splunk On-Call docs, REST endpoint")
        .positive(&[
            "alert.victorops.com/integrations/aaa/000000/aaaa/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "alert.victorops.com/integrations/aBb/113113/abba/ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["alert.victorops.com/integrations/aaa/000000/aaaa/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qlert.victorops.com/integrations/aaa/000000/aaaa/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("vital-api-key", "Vital API key", r"\bsk_(?:us|eu)_[A-Za-z0-9-]{30}[A-Za-z0-9_-]{0,}", "Vital (Junction) docs, API keys")
        .positive(&[
            "sk_us_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sk_eu_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sk_us_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["sk_us_aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qk_us_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("voiceflow-api-key", "Voiceflow API key", r"\bVF\.(?:[A-Z]{2}\.)?[A-Fa-f0-9]{24}\.[A-Za-z0-9]{16,}", "Voiceflow docs, API keys")
        .positive(&[
            "VF.AA.aaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaa", // gitleaks:allow
            "VF.aaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaa", // gitleaks:allow
            "VF.AB.aB3aB3aB3aB3aB3aB3aB3aB3.aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["VF.AA.aaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaa", "qF.AA.aaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaa"]),
    rule("voyage-api-key", "Voyage AI API key", r"\bpa-[A-Za-z0-9][A-Za-z0-9_-]{42}\b", "Voyage AI docs, API keys")
        .unless(check::is_a_name)
        .positive(&[
            "pa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pa-aaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["pa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("wakatime-api-key", "WakaTime API key", r"\bwaka_(?:tok_|ref_|sec_)?[A-Za-z0-9-]{30,}", "WakaTime developers, Authentication")
        .positive(&[
            "waka_tok_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "waka_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "waka_tok_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["waka_tok_aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qaka_tok_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("wandb-api-key", "Weights & Biases API key", r"\bwandb_v[0-9]_[A-Za-z0-9_]{40,}", "Weights & Biases docs, API keys")
        .positive(&[
            "wandb_v0_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "wandb_v1_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["wandb_v0_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qandb_v0_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("warp-api-key", "Warp API key", r"\bwk-[0-9]\.[a-f0-9]{60,}", "Warp docs, API keys")
        .positive(&[
            "wk-0.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "wk-1.ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3", // gitleaks:allow
        ])
        .negative(&["wk-0.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qk-0.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("warpstream-key", "WarpStream key", r"\bak[is]_[a-f0-9]{64}\b", "WarpStream docs, API keys")
        .positive(&[
            "aki_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "aki_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3a", // gitleaks:allow
        ])
        .negative(&["aki_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qki_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("webex-bot-token", "Webex access token", r"\b[A-Za-z0-9]{64}_[A-Za-z0-9]{4}_[A-Fa-f0-9]{8}-[A-Fa-f0-9]{4}-[A-Fa-f0-9]{4}-[A-Fa-f0-9]{4}-[A-Fa-f0-9]{12}", "Webex developer docs, Bots")
        .positive(&[
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_aaaa_aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", // gitleaks:allow
            "aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a_aB3a_aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_aaaa_aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaa", "#aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_aaaa_aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"]),
    rule("webex-webhook", "Webex incoming webhook", r"webexapis\.com/v1/webhooks/incoming/[A-Za-z0-9_-]{40,}", "Webex app hub, Incoming webhooks")
        .positive(&[
            "webexapis.com/v1/webhooks/incoming/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "webexapis.com/v1/webhooks/incoming/aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["webexapis.com/v1/webhooks/incoming/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qebexapis.com/v1/webhooks/incoming/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("wechat-app-id", "WeChat app id", r"\bwx[a-f0-9]{16}\b", "WeChat Open Platform docs, AppID")
        .positive(&[
            "wxaaaaaaaaaaaaaaaa", // gitleaks:allow
            "wxab3ab3ab3ab3ab3a", // gitleaks:allow
        ])
        .negative(&["wxaaaaaaaaaaaaaaa", "qxaaaaaaaaaaaaaaaa"]),
    rule("wepay-token", "WePay token", r"\b(?:STAGE|PRODUCTION)_[a-f0-9]{64}", "WePay docs, Access tokens")
        .positive(&[
            "STAGE_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "PRODUCTION_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "STAGE_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3a", // gitleaks:allow
        ])
        .negative(&["STAGE_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qTAGE_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("wix-api-key", "Wix API key", r"IST\.eyJ[A-Za-z0-9_-]{20,1000}\.[A-Za-z0-9_-]{20,}", "Wix developer docs, API keys")
        .positive(&[
            "IST.eyJaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "IST.eyJaB3aB3aB3aB3aB3aB3aB.aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["IST.eyJaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaa", "qST.eyJaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaa"]),
    rule("woocommerce-key", "WooCommerce REST API key", r"\bc[ks]_[a-f0-9]{40}\b", "WooCommerce docs, REST API keys")
        .positive(&[
            "ck_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "ck_ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3a", // gitleaks:allow
        ])
        .negative(&["ck_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("workato-token", "Workato developer API token", r"\bwrka(?:[a-z]{2})?-eyJ[A-Za-z0-9_-]{8,1000}\.[A-Za-z0-9_-]{16,}", "Workato docs, Developer API clients")
        .positive(&[
            "wrka-eyJaaaaaaaa.aaaaaaaaaaaaaaaa", // gitleaks:allow
            "wrka-eyJaB3aB3aB.aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["wrka-eyJaaaaaaaa.aaaaaaaaaaaaaaa", "qrka-eyJaaaaaaaa.aaaaaaaaaaaaaaaa"]),
    rule("workos-api-key", "WorkOS API key", r"\bsk_(?:live|test)?_?a2V5X[A-Za-z0-9+/]{16,}={0,2}", "WorkOS docs, API keys; base64 of key_")
        .positive(&[
            "sk_a2V5Xaaaaaaaaaaaaaaaa", // gitleaks:allow
            "sk_a2V5XaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3==", // gitleaks:allow
        ])
        .negative(&["sk_a2V5Xaaaaaaaaaaaaaaa", "sl_a2V5Xaaaaaaaaaaaaaaaaaaaa"]),
    rule("xai-api-key", "xAI API key", r"\bxai-(?:token-)?[A-Za-z0-9_-]{60,}", "xAI docs, API keys")
        .positive(&[
            "xai-token-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "xai-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "xai-token-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["xai-token-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qai-token-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("xata-api-key", "Xata API key", r"\bxau_[A-Za-z0-9]{36,}", "Xata docs, API keys")
        .positive(&[
            "xau_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "xau_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["xau_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qau_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("xendit-api-key", "Xendit API key", r"\bxnd_(?:public_)?(?:development|production)_[A-Za-z0-9]{30,}", "Xendit docs, API keys")
        .positive(&[
            "xnd_public_development_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "xnd_production_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "xnd_public_development_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["xnd_public_development_aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qnd_public_development_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("yandex-api-key", "Yandex Cloud API key", r"\bAQVN[A-Za-z0-9_-]{35,}", "Yandex Cloud docs, API keys")
        .positive(&[
            "AQVNaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "AQVNaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["AQVNaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qQVNaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("yandex-iam-token", "Yandex Cloud IAM token", r"\bt1\.[A-Za-z0-9_=-]{6,1500}\.[A-Za-z0-9_-]{80,}={0,2}", "Yandex Cloud docs, IAM tokens")
        .positive(&[
            "t1.aaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "t1.aB3aB3.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB==", // gitleaks:allow
        ])
        .negative(&["t1.aaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "q1.aaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("yandex-session-cookie", "Yandex Cloud session", r"\bc1\.[A-Za-z0-9_=-]{16,1500}\.[A-Za-z0-9_-]{86,}={0,2}", "Yandex Cloud docs, Cookie format")
        .positive(&[
            "c1.aaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "c1.aB3aB3aB3aB3aB3a.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB==", // gitleaks:allow
        ])
        .negative(&["c1.aaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "q1.aaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("yandex-access-key", "Yandex Cloud static key", r"\bYC[MNOP][A-Za-z0-9_-]{37}\b", "Yandex Cloud docs, Static access keys")
        .positive(&[
            "YCMaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "YCMaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["YCMaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qCMaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("yandex-access-key-id", "Yandex Cloud static key id", r"\bYCAJ[A-Za-z0-9_-]{21}\b", "Yandex Cloud docs, Static access keys")
        .positive(&[
            "YCAJaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "YCAJaB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["YCAJaaaaaaaaaaaaaaaaaaaa", "qCAJaaaaaaaaaaaaaaaaaaaaa"]),
    rule("yandex-oauth-token", "Yandex OAuth token", r"\by[0-3]_[A-Za-z0-9_-]{55,}", "Yandex ID docs, OAuth tokens")
        .positive(&[
            "y0_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "y1_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["y0_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "q0_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("yandex-dictionary-key", "Yandex service key", r"\b(?:trnsl|dict|pdct)\.1\.1\.[0-9]{8}T[0-9]{6}Z\.[a-f0-9]{16}\.[a-f0-9]{40}", "Yandex Translate and Dictionary docs, API keys")
        .positive(&[
            "trnsl.1.1.00000000T000000Z.aaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pdct.1.1.00000000T000000Z.aaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "trnsl.1.1.11311311T113113Z.ab3ab3ab3ab3ab3a.ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3a", // gitleaks:allow
        ])
        .negative(&["trnsl.1.1.00000000T000000Z.aaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qrnsl.1.1.00000000T000000Z.aaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("ydc-api-key", "You.com API key", r"ydc-sk-[A-Za-z0-9-]{24,}", "You.com API docs, API keys")
        .positive(&[
            "ydc-sk-aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "ydc-sk-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["ydc-sk-aaaaaaaaaaaaaaaaaaaaaaa", "qdc-sk-aaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("zapier-webhook", "Zapier webhook", r"hooks\.zapier\.com/hooks/(?:catch|standard)/(?:[0-9]{4,12}/[A-Za-z0-9]{5,}|[A-Za-z0-9/]{16,})", "Zapier help, Webhooks")
        .positive(&[
            "hooks.zapier.com/hooks/catch/0000000/aaaaaaa", // gitleaks:allow
            "hooks.zapier.com/hooks/catch/aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["hooks.zapier.com/hooks/catch/0000000/aaa", "hooks.zapier.org/hooks/catch/0000000/aaaaaaa"]),
    rule("zenml-api-key", "ZenML API key", r"\bZEN(?:PRO)?KEY_[A-Za-z0-9+/=_-]{40,}", "ZenML docs, Service account keys")
        .positive(&[
            "ZENPROKEY_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "ZENKEY_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "ZENPROKEY_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["ZENPROKEY_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qENPROKEY_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("zhipu-api-key", "Zhipu (Z.ai) API key", r"\b[a-fA-F0-9]{32}\.[A-Za-z0-9]{16}\b", "Zhipu BigModel docs, API keys")
        .positive(&[
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaa", // gitleaks:allow
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.aaaaaaaaaaaaaaaa", // gitleaks:allow
            "ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab.aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaa", "qaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaa"]),
    rule("zoho-token", "Zoho OAuth token", r"\b1000\.[a-f0-9]{32}\.[a-f0-9]{32}", "Zoho accounts docs, OAuth tokens")
        .positive(&[
            "1000.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "1000.ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab.ab3ab3ab3ab3ab3ab3ab3ab3ab3ab3ab", // gitleaks:allow
        ])
        .negative(&["1000.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "q000.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("zoho-client-id", "Zoho OAuth client id", r"\b1000\.(?:[A-Z][A-Z0-9]{29}|[0-9][A-Z][A-Z0-9]{28}|[0-9]{2}[A-Z][A-Z0-9]{27}|[0-9]{3}[A-Z][A-Z0-9]{26})[A-Z0-9]{0,2}\b", "Zoho accounts docs, Self client")
        .positive(&[
            "1000.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "1000.000AAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "1000.AAB3AB3AB3AB3AB3AB3AB3AB3AB3AB", // gitleaks:allow
        ])
        .negative(&["1000.AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "q000.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("zoom-webhook", "Zoom chat webhook", r"integrations\.zoom\.us/chat/webhooks/incomingwebhook/[A-Za-z0-9_-]{16,}", "Zoom Marketplace, Incoming webhook")
        .positive(&[
            "integrations.zoom.us/chat/webhooks/incomingwebhook/aaaaaaaaaaaaaaaa", // gitleaks:allow
            "integrations.zoom.us/chat/webhooks/incomingwebhook/aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["integrations.zoom.us/chat/webhooks/incomingwebhook/aaaaaaaaaaaaaaa", "qntegrations.zoom.us/chat/webhooks/incomingwebhook/aaaaaaaaaaaaaaaa"]),
    rule("zuplo-api-key", "Zuplo API key", r"\bzpka_[A-Za-z0-9]{32}_[a-f0-9]{8}", "Zuplo docs, API key format")
        .checked(check::zuplo_crc32)
        .positive(&[
            "zpka_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_aaaaaaaa", // gitleaks:allow
            "zpka_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB_ab3ab3ab", // gitleaks:allow
        ])
        .negative(&["zpka_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_aaaaaaa", "qpka_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_aaaaaaaa"]),
];
