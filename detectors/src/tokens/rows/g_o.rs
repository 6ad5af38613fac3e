//! The shapes of credentials whose provider's name begins with a letter from G to O.

use super::check;
use super::{TokenRule, rule};

pub(super) const ROWS: &[TokenRule] = &[
    rule("gandi-api-key", "Gandi API key", r"Authorization: Apikey [A-Za-z0-9]{24,}", "Gandi API reference, Authentication")
        .positive(&[
            "Authorization: Apikey AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "Authorization: Apikey aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["Authorization: Apikey AAAAAAAAAAAAAAAAAAAAAAA", "Quthorization: Apikey AAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("gemini-exchange-key", "Gemini exchange API key", r"\b(?:account|master)-[A-Za-z0-9]{20}\b", "Gemini REST API reference, Authentication")
        .unless(check::is_a_name)
        .positive(&[
            "account-AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "master-aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "account-aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["account-AAAAAAAAAAAAAAAAAAA", "qccount-AAAAAAAAAAAAAAAAAAAA"]),
    rule("getresponse-api-key", "GetResponse API key", r"X-Auth-Token: api-key [A-Za-z0-9]{26,}", "GetResponse API reference, Authentication")
        .positive(&[
            "X-Auth-Token: api-key AAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "X-Auth-Token: api-key aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["X-Auth-Token: api-key AAAAAAAAAAAAAAAAAAAAAAAAA", "Q-Auth-Token: api-key AAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("gitbook-token", "GitBook API token", r"gb_api_[A-Za-z0-9]{32,}", "GitBook developer docs, Authentication")
        .positive(&[
            "gb_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "gb_api_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["gb_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qb_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("gitea-oauth-secret", "Gitea OAuth2 client secret", r"\bgto_[a-z2-7]{52,}", "Gitea, models/auth/oauth2.go: `gto_` and 32 bytes in base32")
        .positive(&[
            "gto_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "gto_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["gto_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qto_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("token-authorization-header", "Gitea or GitHub token in a header", r"[Aa]uthorization: token [a-f0-9]{40}\b", "Gitea docs, API usage; GitHub tokens before 2021")
        .positive(&[
            "Authorization: token aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "Authorization: token a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["Authorization: token aaaaaaaaaaaaaaaaaaa", "Quthorization: token aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("github-fine-grained-token", "GitHub fine-grained token", r"github_pat_[A-Za-z0-9_]{36}[A-Za-z0-9_-]{0,}", "GitHub docs, About authentication: 22 characters, `_`, 59 characters; half of it is telling enough")
        .positive(&[
            "github_pat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "github_pat_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["github_pat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qithub_pat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("github-token-classic", "GitHub token (classic)", r"gh[oprsu]_[A-Za-z0-9]{36}[A-Za-z0-9_-]{0,}", "GitHub blog, Behind GitHub's new authentication token formats")
        .checked(check::github_crc32)
        .positive(&[
            "gho_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "gho_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["gho_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qho_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("github-app-token-jwt", "GitHub App installation token with a JWT", r"ghs_[A-Za-z0-9]{1,24}_eyJ[A-Za-z0-9_-]{16,512}\.[A-Za-z0-9_-]{16,2048}\.[A-Za-z0-9_-]{16,1024}", "GitHub changelog 2026-04-24, New format for GitHub App installation tokens")
        .positive(&[
            "ghs_a_eyJAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAA", // gitleaks:allow
            "ghs_aB3aB3a_eyJaB3aB3aB3aB3aB3aB3aB3a.aB3aB3aB3aB3aB3aB3aB3a.aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["ghs_a_ey", "ghs_short"]),
    rule("github-app-token-v1", "GitHub App installation token (before 2021)", r"\bv1\.[a-f0-9]{40}\b", "GitHub docs, Authenticating with GitHub Apps (2020)")
        .positive(&[
            "v1.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "v1.a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["v1.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "q1.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("github-basic-token", "GitHub token in a URL", r"\b[a-f0-9]{40}:x-oauth-basic\b", "GitHub docs, Git over HTTPS with OAuth tokens")
        .positive(&[
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:x-oauth-basic", // gitleaks:allow
            "a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3:x-oauth-basic", // gitleaks:allow
        ])
        .negative(&["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:x-oauth-basi", "qaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:x-oauth-basic"]),
    rule("github-installation-url", "GitHub App token in a URL", r"x-access-token:[A-Za-z0-9_.-]{20,}@", "GitHub docs, Authenticating as an installation: HTTP-based Git access")
        .positive(&[
            "x-access-token:AAAAAAAAAAAAAAAAAAAA@", // gitleaks:allow
            "x-access-token:aB3aB3aB3aB3aB3aB3aB3aB@", // gitleaks:allow
        ])
        .negative(&["x-access-token:AAAAAAAAAAAAAAAAAAAA", "q-access-token:AAAAAAAAAAAAAAAAAAAA@"]),
    rule("github-runner-registration", "GitHub Actions runner registration token", r"--token A[A-Z2-7]{28}\b", "GitHub docs, Adding self-hosted runners")
        .positive(&[
            "--token AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "--token AB3B3B3B3B3B3B3B3B3B3B3B3B3B3", // gitleaks:allow
        ])
        .negative(&["--token AAAAAAAAAAAAAAAAAAAAAAAAAAAA", " -token AAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("github-copilot-token", "GitHub Copilot session token", r"\btid=[a-f0-9]{32};[A-Za-z0-9=;._:/-]{0,64}exp=[0-9]{10}", "observed: the Copilot editor plugins' session token")
        .positive(&[
            "tid=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa;exp=0000000000", // gitleaks:allow
            "tid=a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3;aB3aB3exp=3333333333", // gitleaks:allow
        ])
        .negative(&["tid=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa;exp=000000000", "qid=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa;exp=0000000000"]),
    rule("github-secret-scanning-sample", "GitHub secret scanning sample token", r"secret_scanning_[a-f0-9]{32,40}_[A-Za-z0-9]{5,}", "GitHub docs, Supported secret scanning patterns: sample token")
        .positive(&[
            "secret_scanning_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_AAAAA", // gitleaks:allow
            "secret_scanning_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3_aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["secret_scanning_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_AAAA", "qecret_scanning_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_AAAAA"]),
    rule("gitalk-client-secret", "Gitalk OAuth client secret", r#"client(?:Secret|_secret)['"]?[ ]{0,4}:[ ]{0,4}['"][a-f0-9]{40}['"]"#, "Gitalk readme, options clientID and clientSecret")
        .positive(&[
            "clientSecret:\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"", // gitleaks:allow
            "client_secret\"    :    \"a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3\"", // gitleaks:allow
            "clientSecret\"    :    \"a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3\"", // gitleaks:allow
        ])
        .negative(&["clientSecret:\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qlientSecret:\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""]),
    rule("gitlab-pipeline-trigger-token", "GitLab pipeline trigger token", r"glptt-[A-Za-z0-9_-]{20,}", "GitLab docs, Token overview: prefixes")
        .positive(&[
            "glptt-AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "glptt-aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["glptt-AAAAAAAAAAAAAAAAAAA", "qlptt-AAAAAAAAAAAAAAAAAAAA"]),
    rule("gitlab-personal-access-token", "GitLab personal access token", r"glpat-[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2}\.?[0-9a-z]{7,9})?", "GitLab docs, Token overview: prefixes and routable tokens")
        .positive(&[
            "glpat-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", // gitleaks:allow
            "glpat-aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "glpat-aB3aB3aB3aB3aB3aB3aB3aB.a3.a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["qlpat-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", "glpat-AAAAAAAAAAAAAAAAAA"]),
    rule("gitlab-deploy-token", "GitLab deploy token", r"gldt-[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2}\.?[0-9a-z]{7,9})?", "GitLab docs, Token overview: prefixes and routable tokens")
        .positive(&[
            "gldt-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", // gitleaks:allow
            "gldt-aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "gldt-aB3aB3aB3aB3aB3aB3aB3aB.a3.a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["qldt-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", "gldt-AAAAAAAAAAAAAAAAAA"]),
    rule("gitlab-runner-registration-token", "GitLab runner registration token", r"glrtr-[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2}\.?[0-9a-z]{7,9})?", "GitLab docs, Token overview: prefixes and routable tokens")
        .positive(&[
            "glrtr-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", // gitleaks:allow
            "glrtr-aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "glrtr-aB3aB3aB3aB3aB3aB3aB3aB.a3.a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["qlrtr-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", "glrtr-AAAAAAAAAAAAAAAAAA"]),
    rule("gitlab-runner-authentication-token", "GitLab runner authentication token", r"glrt-[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2}\.?[0-9a-z]{7,9})?", "GitLab docs, Token overview: prefixes and routable tokens")
        .positive(&[
            "glrt-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", // gitleaks:allow
            "glrt-aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "glrt-aB3aB3aB3aB3aB3aB3aB3aB.a3.a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["qlrt-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", "glrt-AAAAAAAAAAAAAAAAAA"]),
    rule("gitlab-feed-token", "GitLab feed token", r"glft-[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2}\.?[0-9a-z]{7,9})?", "GitLab docs, Token overview: prefixes and routable tokens")
        .positive(&[
            "glft-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", // gitleaks:allow
            "glft-aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "glft-aB3aB3aB3aB3aB3aB3aB3aB.a3.a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["qlft-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", "glft-AAAAAAAAAAAAAAAAAA"]),
    rule("gitlab-scim-token", "GitLab SCIM token", r"glsoat-[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2}\.?[0-9a-z]{7,9})?", "GitLab docs, Token overview: prefixes and routable tokens")
        .positive(&[
            "glsoat-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", // gitleaks:allow
            "glsoat-aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "glsoat-aB3aB3aB3aB3aB3aB3aB3aB.a3.a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["qlsoat-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", "glsoat-AAAAAAAAAAAAAAAAA"]),
    rule("gitlab-incoming-mail-token", "GitLab incoming mail token", r"glimt-[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2}\.?[0-9a-z]{7,9})?", "GitLab docs, Token overview: prefixes and routable tokens")
        .positive(&[
            "glimt-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", // gitleaks:allow
            "glimt-aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "glimt-aB3aB3aB3aB3aB3aB3aB3aB.a3.a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["qlimt-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", "glimt-AAAAAAAAAAAAAAAAAA"]),
    rule("gitlab-agent-for-kubernetes-token", "GitLab agent for Kubernetes token", r"glagent-[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2}\.?[0-9a-z]{7,9})?", "GitLab docs, Token overview: prefixes and routable tokens")
        .positive(&[
            "glagent-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", // gitleaks:allow
            "glagent-aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "glagent-aB3aB3aB3aB3aB3aB3aB3aB.a3.a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["qlagent-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", "glagent-AAAAAAAAAAAAAAAAA"]),
    rule("gitlab-feature-flags-client-token", "GitLab feature flags client token", r"glffct-[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2}\.?[0-9a-z]{7,9})?", "GitLab docs, Token overview: prefixes and routable tokens")
        .positive(&[
            "glffct-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", // gitleaks:allow
            "glffct-aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "glffct-aB3aB3aB3aB3aB3aB3aB3aB.a3.a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["qlffct-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", "glffct-AAAAAAAAAAAAAAAAA"]),
    rule("gitlab-oauth-application-secret", "GitLab OAuth application secret", r"gloas-[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2}\.?[0-9a-z]{7,9})?", "GitLab docs, Token overview: prefixes and routable tokens")
        .positive(&[
            "gloas-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", // gitleaks:allow
            "gloas-aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "gloas-aB3aB3aB3aB3aB3aB3aB3aB.a3.a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["qloas-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", "gloas-AAAAAAAAAAAAAAAAAA"]),
    rule("gitlab-workspace-token", "GitLab workspace token", r"glwt-[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2}\.?[0-9a-z]{7,9})?", "GitLab docs, Token overview: prefixes and routable tokens")
        .positive(&[
            "glwt-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", // gitleaks:allow
            "glwt-aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "glwt-aB3aB3aB3aB3aB3aB3aB3aB.a3.a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["qlwt-AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", "glwt-AAAAAAAAAAAAAAAAAA"]),
    rule("gitlab-job-token", "GitLab CI/CD job token", r"glcbt-(?:[A-Za-z0-9]{1,5}_)?[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2}\.?[0-9a-z]{7,9})?", "GitLab docs, Token overview: prefixes")
        .positive(&[
            "glcbt-a_AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", // gitleaks:allow
            "glcbt-aB3aB3aB3aB3aB3aB3aB3aB.a3.a3a3a3a3a", // gitleaks:allow
            "glcbt-AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["qlcbt-a_AAAAAAAAAAAAAAAAAAAA.aaaaaaaaa", "glcbt-a_AAAAAAAAAAAAAAAAA"]),
    rule("gitlab-runner-registration", "GitLab runner registration token (legacy)", r"GR1348941[A-Za-z0-9_-]{20,}", "GitLab docs, Token overview: prefixes")
        .positive(&[
            "GR1348941AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "GR1348941aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["GR1348941AAAAAAAAAAAAAAAAAAA", "QR1348941AAAAAAAAAAAAAAAAAAAA"]),
    rule("gitlab-session-cookie", "GitLab session cookie", r"_gitlab_session=[0-9a-z]{32,}", "GitLab docs, Cookies used for authentication")
        .positive(&[
            "_gitlab_session=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "_gitlab_session=a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["_gitlab_session=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", " gitlab_session=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("gitlab-ci-url", "GitLab job token in a URL", r"gitlab-ci-token:[A-Za-z0-9_.-]{20,}@", "GitLab docs, CI/CD job token: git clone")
        .positive(&[
            "gitlab-ci-token:AAAAAAAAAAAAAAAAAAAA@", // gitleaks:allow
            "gitlab-ci-token:aB3aB3aB3aB3aB3aB3aB3aB@", // gitleaks:allow
        ])
        .negative(&["gitlab-ci-token:AAAAAAAAAAAAAAAAAAAA", "qitlab-ci-token:AAAAAAAAAAAAAAAAAAAA@"]),
    rule("gitlab-header-token", "GitLab token in a header", r"P(?:RIVATE-TOKEN|rivate-Token): {0,2}[A-Za-z0-9][A-Za-z0-9-]{19}\b", "GitLab docs, REST API authentication; tokens before prefixes")
        .positive(&[
            "PRIVATE-TOKEN:aAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "Private-Token:  aaB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "PRIVATE-TOKEN:  aaB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["PRIVATE-TOKEN:aAAAAAAAAAAAAAAAAAA", "QRIVATE-TOKEN:aAAAAAAAAAAAAAAAAAAA"]),
    rule("gitlab-url-token", "GitLab token in a query", r"[?&](?:private|feed)_token=[A-Za-z0-9_-]{20,}", "GitLab docs, REST API authentication, feed tokens")
        .positive(&[
            "&private_token=AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "&feed_token=aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "&private_token=aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["&private_token=AAAAAAAAAAAAAAAAAAA", "&qrivate_token=AAAAAAAAAAAAAAAAAAAA"]),
    rule("gitpod-token", "Gitpod personal access token", r"gitpod_pat_[A-Za-z0-9_.-]{20,}", "Gitpod docs, Access tokens")
        .positive(&[
            "gitpod_pat_AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "gitpod_pat_aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["gitpod_pat_AAAAAAAAAAAAAAAAAAA", "qitpod_pat_AAAAAAAAAAAAAAAAAAAA"]),
    rule("gocardless-token", "GoCardless access token", r"\b(?:live|sandbox)_[A-Za-z0-9_=-]{40}\b", "GoCardless API reference, Making requests")
        .unless(check::is_a_name)
        .positive(&[
            "live_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sandbox_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["live_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qive_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "live_preview_of_the_document_in_the_browser"]),
    rule("godaddy-api-key", "GoDaddy API key and secret", r"sso-key [A-Za-z0-9_]{8,64}:[A-Za-z0-9]{16,}", "GoDaddy developer docs, Getting started")
        .positive(&[
            "sso-key AAAAAAAA:AAAAAAAAAAAAAAAA", // gitleaks:allow
            "sso-key aB3aB3aB3aB3aB:aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sso-key AAAAAAAA:AAAAAAAAAAAAAAA", "qso-key AAAAAAAA:AAAAAAAAAAAAAAAA"]),
    // Glued to a letter only with the longer prefix that all in use have.
    rule("google-api-key", "Google API key", r"(?:AIzaSy[A-Za-z0-9_-]{33,}|\bAIza[A-Za-z0-9_-]{35,})", "Google Cloud docs, API keys")
        .positive(&[
            "AIzaSyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "AIzaaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "AIzaSyaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["AIzaSyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "QIzaSyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("google-bound-api-key", "Google API key bound to a service account", r"\bAQ\.Ab8[A-Za-z0-9_-]{40,}", "Google Cloud docs, API keys bound to service accounts")
        .positive(&[
            "AQ.Ab8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "AQ.Ab8aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["AQ.Ab8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "QQ.Ab8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("google-oauth-client-secret", "Google OAuth client secret", r"GOCSPX-[A-Za-z0-9_-]{20,}", "Google Identity docs, OAuth 2.0 client secrets")
        .positive(&[
            "GOCSPX-AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "GOCSPX-aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["GOCSPX-AAAAAAAAAAAAAAAAAAA", "QOCSPX-AAAAAAAAAAAAAAAAAAAA"]),
    // Not the id that the Google Cloud SDK publishes in its sources, which begins with `6q`.
    rule("google-oauth-client-id", "Google OAuth client id", r"(?:[0-9]{13}|[0-9]{12}|[0-9]{11}|[0-9]{10}|[0-9]{6})-(?:[0-57-9A-Za-z_][A-Za-z0-9_]{31}|6[0-9A-Za-pr-z_][A-Za-z0-9_]{30})\.apps\.googleusercontent\.com", "Google Identity docs, OAuth 2.0 client ids")
        .positive(&[
            "0000000000000-aAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.apps.googleusercontent.com", // gitleaks:allow
            "33333333333-6aaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3.apps.googleusercontent.com", // gitleaks:allow
            "000000-6aAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.apps.googleusercontent.com", // gitleaks:allow
        ])
        .negative(&["0000000000000-aAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.apps.googleusercontent.co", "0000000000000 aAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.apps.googleusercontent.com"]),
    rule("google-oauth-access-token", "Google OAuth access token", r"ya29\.[A-Za-z0-9_.-]{30,}", "Google Identity docs, Using OAuth 2.0: access tokens")
        .positive(&[
            "ya29.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ya29.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["ya29.AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qa29.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("google-oauth-refresh-token", "Google OAuth refresh token", r"\b1//0[A-Za-z0-9_-]{40,}", "Google Identity docs, Using OAuth 2.0: refresh tokens")
        .positive(&[
            "1//0AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "1//0aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["1//0AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "1 /0AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("google-oauth-code", "Google OAuth authorization code", r"\b4/0A[A-Za-z0-9_-]{50,}", "Google Identity docs, Using OAuth 2.0: authorization codes")
        .positive(&[
            "4/0AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "4/0AaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["4/0AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "4 0AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("google-refresh-token-json", "Google application default credentials", r#""refresh_token\\?" {0,2}: {0,2}\\?"1//[A-Za-z0-9_-]{20,}\\?""#, "Google Cloud docs, Application Default Credentials")
        .positive(&[
            "\"refresh_token\":\"1//AAAAAAAAAAAAAAAAAAAA\"", // gitleaks:allow
            "\"refresh_token\\\"  :  \\\"1//aB3aB3aB3aB3aB3aB3aB3aB\\\"", // gitleaks:allow
        ])
        .negative(&["\"refresh_token\":\"1//AAAAAAAAAAAAAAAAAAAA", "\"qefresh_token\":\"1//AAAAAAAAAAAAAAAAAAAA\""]),
    rule("google-service-account-key-id", "Google service account key file", r#"private_key_id\\?" {0,4}: {0,4}\\?"[a-f0-9]{40}\\?""#, "Google Cloud docs, Service account keys: JSON key file")
        .positive(&[
            "private_key_id\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"", // gitleaks:allow
            "private_key_id\\\"    :    \\\"a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3\\\"", // gitleaks:allow
        ])
        .negative(&["private_key_id\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qrivate_key_id\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""]),
    rule("google-recaptcha-key", "Google reCAPTCHA key", r"\b6L[a-f][A-Za-z0-9_-]{5}AAAAA[A-Za-z0-9_-]{27,}", "observed: site and secret keys hold the account's number in base64")
        .positive(&[
            "6LaAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "6LaaB3aBAAAAAaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["6LaAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "6QaAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("google-storage-hmac-key", "Google Cloud Storage HMAC access id", r"(?:GOOG1E[A-Z0-9]{18,}|\bGOOG[A-Z0-9]{20}\b)", "Cloud Storage docs, HMAC keys")
        .positive(&[
            "GOOG1EAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "GOOGB3B3B3B3B3B3B3B3B3B3", // gitleaks:allow
            "GOOG1EB3B3B3B3B3B3B3B3B3B3B", // gitleaks:allow
        ])
        .negative(&["GOOG1EAAAAAAAAAAAAAAAAA", "QOOG1EAAAAAAAAAAAAAAAAAA"]),
    rule("google-signed-url", "Google Cloud Storage signed URL", r"X-Goog-Signature=[a-f0-9]{128,}", "Cloud Storage docs, Signed URLs")
        .positive(&[
            "X-Goog-Signature=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "X-Goog-Signature=a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["X-Goog-Signature=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "Q-Goog-Signature=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("google-chat-webhook", "Google Chat webhook", r"chat\.googleapis\.com/v1/spaces/[A-Za-z0-9_-]{6,64}/messages\?key=[A-Za-z0-9_-]{20,64}&(?:amp;)?token=[A-Za-z0-9_%-]{20,}", "Google Chat docs, Incoming webhooks")
        .positive(&[
            "chat.googleapis.com/v1/spaces/AAAAAA/messages?key=AAAAAAAAAAAAAAAAAAAA&amp;token=AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "chat.googleapis.com/v1/spaces/aB3aB3aB3aB3/messages?key=aB3aB3aB3aB3aB3aB3aB3aB3aB&amp;token=aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "chat.googleapis.com/v1/spaces/AAAAAA/messages?key=AAAAAAAAAAAAAAAAAAAA&token=AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["chat.googleapis.com/v1/spaces/AAAAAA/messages?key=AAAAAAAAAAAAAAAAAAAA&amp;token=AAAAAAAAAAAAAAAAAAA", "qhat.googleapis.com/v1/spaces/AAAAAA/messages?key=AAAAAAAAAAAAAAAAAAAA&amp;token=AAAAAAAAAAAAAAAAAAAA"]),
    rule("google-calendar-secret-address", "Google Calendar secret address", r"/private-[a-f0-9]{32}/basic(?:\.ics)?\b", "Google Calendar help, Secret address in iCal format")
        .positive(&[
            "/private-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/basic.ics", // gitleaks:allow
            "/private-a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3/basic", // gitleaks:allow
            "/private-a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3/basic.ics", // gitleaks:allow
        ])
        .negative(&[" private-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/basic.ics", "/private-aaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("google-session-cookie", "Google account session cookie", r"\bg\.a000[A-Za-z0-9_-]{60,}", "observed: value of the cookies __Secure-1PSID and SID")
        .positive(&[
            "g.a000AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "g.a000aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["g.a000AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "q.a000AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("gradle-publish-key", "Gradle plugin portal key", r"gradle\.publish\.(?:key|secret) {0,2}= {0,2}[A-Za-z0-9]{20,}", "Gradle docs, Publishing plugins to the portal")
        .positive(&[
            "gradle.publish.key=AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "gradle.publish.secret  =  aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "gradle.publish.key  =  aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["gradle.publish.key=AAAAAAAAAAAAAAAAAAA", "qradle.publish.key=AAAAAAAAAAAAAAAAAAAA"]),
    rule("gradle-repository-password", "Gradle repository credentials", r#"credentials {0,4}\{[ \t\r\n]{1,64}(?:username|setUsername)[ =(]{1,3}['"][^'"\n\r]{1,64}['"][ \t)\r\n]{1,64}(?:password|setPassword)[ =(]{1,3}['"][^'"$<{\n\r ]{6,128}['"]"#, "Gradle docs, Declaring repositories: password credentials")
        .positive(&[
            "credentials{ username \"a\" password \"AAAAAA\"", // gitleaks:allow
            "credentials    {       setUsername   \"aB3aB3a\"       password   \"aB3aB3aB3aB3\"", // gitleaks:allow
            "credentials{ setUsername \"a\" setPassword \"AAAAAA\"", // gitleaks:allow
        ])
        .negative(&["credentials{ username \"a\" password \"AAAAAA", "qredentials{ username \"a\" password \"AAAAAA\""]),
    rule("grafana-service-account-token", "Grafana service account token", r"glsa_[A-Za-z0-9]{32}(?:_[A-Fa-f0-9]{8})?", "Grafana docs, Service account tokens")
        .checked(check::grafana_service_account)
        .positive(&[
            "glsa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA_AAAAAAAA", // gitleaks:allow
            "glsa_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "glsa_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB_aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["qlsa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA_AAAAAAAA", "glsa_AAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("grafana-cloud-token", "Grafana Cloud access policy token", r"glc_[A-Za-z0-9+/]{32,}={0,2}", "Grafana Cloud docs, Access policy tokens")
        .checked(check::grafana_cloud)
        .positive(&[
            "glc_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "glc_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB==", // gitleaks:allow
        ])
        .negative(&["glc_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qlc_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("grafana-api-key", "Grafana API key (legacy)", r"eyJrIjoi[A-Za-z0-9+/_-]{40,}={0,2}", "Grafana docs, API keys: base64 of {\"k\":")
        .checked(check::grafana_cloud)
        .positive(&[
            "eyJrIjoiAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "eyJrIjoiaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a==", // gitleaks:allow
        ])
        .negative(&["eyJrIjoiAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qyJrIjoiAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("graphql-hive-token", "GraphQL Hive access token", r"\bhv[opu]1/[A-Za-z0-9+/]{40,}={0,2}", "GraphQL Hive docs, Access tokens")
        .positive(&[
            "hvo1/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "hvo1/aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a==", // gitleaks:allow
        ])
        .negative(&["hvo1/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qvo1/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("groq-api-key", "Groq API key", r"gsk_[A-Za-z0-9]{40,}", "Groq docs, API keys")
        .positive(&[
            "gsk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "gsk_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["gsk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qsk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("growthbook-secret-key", "GrowthBook secret key", r"secret_(?:admin|readonly|user)_[A-Za-z0-9]{20,}", "GrowthBook docs, API authentication")
        .positive(&[
            "secret_admin_AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "secret_readonly_aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "secret_user_AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["secret_admin_AAAAAAAAAAAAAAAAAAA", "qecret_admin_AAAAAAAAAAAAAAAAAAAA"]),
    rule("guardian-api-key", "API key in a query", r"[?&]api-key=[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b", "The Guardian Open Platform, Access; Helius docs, Authentication")
        .positive(&[
            "&api-key=AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
            "&api-key=aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["&api-key=AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAA", "&qpi-key=AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA"]),
    rule("harness-token", "Harness token", r"\b[ps]at\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{20,}", "Harness docs, Manage API keys")
        .positive(&[
            "pat.AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "pat.aB3aB3aB3aB3aB3aB3aB3a.aB3aB3aB3aB3aB3aB3aB3aB3.aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["pat.AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAA", "qat.AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAA"]),
    rule("vault-token", "Vault token", r"hv[bsr]\.[A-Za-z0-9_-]{20,}", "HashiCorp Vault docs, Tokens")
        .positive(&[
            "hvb.AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "hvb.aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["hvb.AAAAAAAAAAAAAAAAAAA", "qvb.AAAAAAAAAAAAAAAAAAAA"]),
    rule("vault-batch-token-legacy", "Vault batch token (before 1.10)", r"\bb\.AAAAA[A-Za-z0-9_-]{60,}", "HashiCorp Vault docs, Batch tokens")
        .positive(&[
            "b.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "b.AAAAAaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["b.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "q.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("vault-token-legacy", "Vault token (before 1.10)", r"(?:\bs\.[A-Za-z0-9]{24}\b|\br\.[A-Za-z0-9]{24}\b)", "HashiCorp Vault docs, Tokens before 1.10")
        .unless(check::is_a_name)
        .positive(&[
            "s.0000000000CCCCCCCCCCdddd", // gitleaks:allow
            "r.AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "s.aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["s.AAAAAAAAAAAAAAAAAAAAAAA", "q.AAAAAAAAAAAAAAAAAAAAAAAA", "s.getElementsByClassNameOf"]),
    rule("vault-unseal-key", "Vault unseal key", r"(?:Unseal|Recovery) Key [0-9]{1,2}: [A-Za-z0-9+/]{43,}={0,2}", "HashiCorp Vault docs, vault operator init")
        .positive(&[
            "Unseal Key 0: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "Recovery Key 33: aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a==", // gitleaks:allow
            "Unseal Key 33: aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a==", // gitleaks:allow
        ])
        .negative(&["Unseal Key 0: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "Qnseal Key 0: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("vault-header-token", "Vault, Consul or Nomad token in a header", r"X-(?:Vault|Consul|Nomad)-Token: {0,2}[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b", "HashiCorp docs, HTTP API authentication")
        .positive(&[
            "X-Vault-Token:AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
            "X-Consul-Token:  aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
            "X-Nomad-Token:AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["X-Vault-Token:AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAA", "Q-Vault-Token:AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA"]),
    rule("boundary-token", "HashiCorp Boundary token", r"\bat_[A-Za-z0-9]{10}_[A-Za-z0-9]{60,}", "HashiCorp Boundary docs, Auth tokens")
        .positive(&[
            "at_AAAAAAAAAA_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "at_aB3aB3aB3a_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["at_AAAAAAAAAA_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qt_AAAAAAAAAA_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("terraform-cloud-token", "HCP Terraform API token", r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,}", "HCP Terraform docs, API tokens")
        .positive(&[
            "AAAAAAAAAAAAAA.atlasv1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "aB3aB3aB3aB3aB.atlasv1.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAA.atlasv1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAA atlasv1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("hasura-admin-secret", "Hasura admin secret", r#"[Xx]-[Hh]asura-[Aa]dmin-[Ss]ecret['"]?[=:] {0,2}['"]?[A-Za-z0-9]{32,}"#, "Hasura docs, Securing the endpoint: x-hasura-admin-secret")
        .positive(&[
            "X-Hasura-Admin-Secret:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "X-Hasura-Admin-Secret\":  \"aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["X-Hasura-Admin-Secret:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "Q-Hasura-Admin-Secret:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("helicone-api-key", "Helicone API key", r"[sp]k-helicone-[A-Za-z0-9-]{27,}", "Helicone docs, API keys")
        .positive(&[
            "pk-helicone-AAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "pk-helicone-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["pk-helicone-AAAAAAAAAAAAAAAAAAAAAAAAAA", "qk-helicone-AAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("heroku-api-key", "Heroku API key", r"HRKU-[A-Za-z0-9_-]{36,}", "Heroku changelog 2024, New API key format")
        .positive(&[
            "HRKU-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "HRKU-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["HRKU-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "QRKU-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("hex-token", "Hex API token", r"hxt[pw]_[a-f0-9]{64,}", "Hex docs, API authentication")
        .positive(&[
            "hxtp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "hxtp_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["hxtp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qxtp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("highnote-api-key", "Highnote API key", r"[rs]k_(?:live|test)_a2V5Xz[A-Za-z0-9+/]{20,}={0,2}", "Highnote docs, API keys: base64 of key_")
        .positive(&[
            "rk_live_a2V5XzAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "rk_test_a2V5XzaB3aB3aB3aB3aB3aB3aB3aB==", // gitleaks:allow
            "rk_live_a2V5XzaB3aB3aB3aB3aB3aB3aB3aB==", // gitleaks:allow
        ])
        .negative(&["qk_live_a2V5XzAAAAAAAAAAAAAAAAAAAA", "rk_live_a2V5", "sk_live_short"]),
    rule("honeybadger-api-key", "Honeybadger API key", r"\bhb[pux]_[A-Za-z0-9]{30,}", "Honeybadger docs, API keys")
        .positive(&[
            "hbp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "hbp_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["hbp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qbp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("honeycomb-api-key", "Honeycomb API key", r"\bhc[a-z](?:i[ck]|[lm]k)_[A-Za-z0-9]{26,}", "Honeycomb docs, API key format")
        .positive(&[
            "hcaic_AAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "hcalk_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "hcaic_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["hcaic_AAAAAAAAAAAAAAAAAAAAAAAAA", "qcaic_AAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("hubspot-access-token", "HubSpot private app token", r"\bpat-(?:na|eu|ap)[0-9]-[0-9a-zA-Z]{8}-[0-9a-zA-Z]{4}-[0-9a-zA-Z]{4}-[0-9a-zA-Z]{4}-[0-9a-zA-Z]{12}\b", "HubSpot docs, Private apps")
        .positive(&[
            "pat-na0-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
            "pat-eu0-aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
            "pat-ap0-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["pat-na0-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAA", "qat-na0-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA"]),
    rule("hubspot-personal-access-key", "HubSpot personal access key", r"\bCiR(?:uYT|ldT|hcD)[A-Za-z0-9+/_-]{60,}={0,2}", "HubSpot docs, Personal access key: base64 of a message that begins with the region")
        .positive(&[
            "CiRuYTAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "CiRldTaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3==", // gitleaks:allow
            "CiRhcDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["CiRuYTAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "QiRuYTAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("hubspot-api-key", "HubSpot API key in a query", r"[?&]hapikey=[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}", "HubSpot docs, API key authentication (legacy)")
        .positive(&[
            "&hapikey=AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
            "&hapikey=aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["&hapikey=AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAA", "&qapikey=AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA"]),
    // Glued to a letter only if there are no digits, as in all that were seen: three letters stand in any base64url.
    rule("huggingface-token", "HuggingFace token", r"(?:\bhf_[A-Za-z0-9]{30,}|hf_[A-Za-z]{34,}|api_org_[A-Za-z0-9]{30,})", "Hugging Face docs, User access tokens")
        .positive(&[
            "hf_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "hf_aBaBaBaBaBaBaBaBaBaBaBaBaBaBaBaBaBaBa", // gitleaks:allow
            "api_org_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["hf_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qf_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("huggingface-oauth-token", "HuggingFace OAuth token", r"\bhf_(?:oauth|jwt)_[A-Za-z0-9_.-]{30,}", "Hugging Face docs, Sign in with HF")
        .positive(&[
            "hf_oauth_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "hf_jwt_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
            "hf_oauth_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["hf_oauth_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qf_oauth_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("hyperswitch-api-key", "Hyperswitch API key", r"\b(?:pk_)?(?:snd|prd|dev)_[A-Za-z0-9]{64}\b|\bpk_(?:snd|prd)_[a-f0-9]{32}\b", "Hyperswitch docs, API keys")
        .positive(&[
            "pk_snd_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "prd_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "pk_prd_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["pk_snd_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qk_snd_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("ibm-cloud-service-key", "IBM Cloud API key id", r"\bApiKey-[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b", "IBM Cloud docs, Managing API keys")
        .positive(&[
            "ApiKey-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
            "ApiKey-aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["ApiKey-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAA", "QpiKey-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA"]),
    rule("ibm-cos-hmac-secret", "IBM Cloud Object Storage HMAC secret", r#""secret_access_key" {0,2}: {0,2}"[a-f0-9]{48}""#, "IBM Cloud Object Storage docs, HMAC credentials")
        .positive(&[
            "\"secret_access_key\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"", // gitleaks:allow
            "\"secret_access_key\"  :  \"a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3\"", // gitleaks:allow
        ])
        .negative(&["\"secret_access_key\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "\"qecret_access_key\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""]),
    rule("iex-cloud-token", "IEX Cloud API token", r"\b(?:T[sp]k|[sp]k)_[a-f0-9]{32}\b", "IEX Cloud docs, API tokens")
        .positive(&[
            "Tpk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pk_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
            "Tpk_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["Tpk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "Qpk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("ifttt-webhook", "IFTTT webhook", r"maker\.ifttt\.com/trigger/[A-Za-z0-9_{}-]{1,64}/(?:json/)?with/key/[A-Za-z0-9_-]{20,}", "IFTTT docs, Webhooks service")
        .positive(&[
            "maker.ifttt.com/trigger/a/json/with/key/AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "maker.ifttt.com/trigger/aB3aB3a/with/key/aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "maker.ifttt.com/trigger/aB3aB3a/json/with/key/aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["maker.ifttt.com/trigger/a/json/with/key/AAAAAAAAAAAAAAAAAAA", "qaker.ifttt.com/trigger/a/json/with/key/AAAAAAAAAAAAAAAAAAAA"]),
    rule("imagekit-key", "ImageKit key", r"\b(?:private|public)_[A-Za-z0-9+/]{27}=", "ImageKit docs, API keys")
        .positive(&[
            "private_AAAAAAAAAAAAAAAAAAAAAAAAAAA=", // gitleaks:allow
            "public_aB3aB3aB3aB3aB3aB3aB3aB3aB3=", // gitleaks:allow
            "private_aB3aB3aB3aB3aB3aB3aB3aB3aB3=", // gitleaks:allow
        ])
        .negative(&["private_AAAAAAAAAAAAAAAAAAAAAAAAAAA", "qrivate_AAAAAAAAAAAAAAAAAAAAAAAAAAA="]),
    rule("imagga-api-key", "Imagga API key", r"\bacc_[a-f0-9]{15}\b", "Imagga docs, Authentication")
        .positive(&[
            "acc_aaaaaaaaaaaaaaa", // gitleaks:allow
            "acc_a3a3a3a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["acc_aaaaaaaaaaaaaa", "qcc_aaaaaaaaaaaaaaa"]),
    rule("imgur-client-id", "Imgur client id", r"Client-ID [a-f0-9]{15}\b", "Imgur API docs, Authorization")
        .positive(&[
            "Client-ID aaaaaaaaaaaaaaa", // gitleaks:allow
            "Client-ID a3a3a3a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["Client-ID aaaaaaaaaaaaaa", "Qlient-ID aaaaaaaaaaaaaaa"]),
    rule("infisical-service-token", "Infisical service token", r"\bst\.[a-f0-9]{24}\.[a-f0-9]{32}\.[a-f0-9]{32}", "Infisical docs, Service tokens")
        .positive(&[
            "st.aaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "st.a3a3a3a3a3a3a3a3a3a3a3a3.a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3.a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["st.qaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "st.aaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaa"]),
    rule("influxdb-token", "InfluxDB API token", r"\bToken [A-Za-z0-9_-]{86}==", "InfluxDB docs, API authentication")
        .positive(&[
            "Token AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", // gitleaks:allow
            "Token aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB==", // gitleaks:allow
        ])
        .negative(&["Token AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "Qoken AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="]),
    rule("influxdb3-token", "InfluxDB 3 token", r"\bapiv3_[A-Za-z0-9_-]{60,}", "InfluxDB 3 docs, Admin tokens")
        .positive(&[
            "apiv3_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "apiv3_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["apiv3_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qpiv3_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("infobip-api-key", "Infobip API key", r"\bApp [a-fA-F0-9]{32}-[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b", "Infobip docs, API authentication")
        .positive(&[
            "App AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
            "App aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB-aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["App AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAA", "Qpp AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA"]),
    rule("infracost-api-key", "Infracost API key", r"\bico-[A-Za-z0-9]{32}\b", "Infracost docs, API keys")
        .positive(&[
            "ico-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ico-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["ico-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qco-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("infura-project-url", "Infura endpoint", r"infura\.io/(?:ws/)?v3/[a-f0-9]{32}\b", "Infura docs, Endpoints")
        .positive(&[
            "infura.io/ws/v3/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "infura.io/v3/a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
            "infura.io/ws/v3/a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["infura.io/ws/v3/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qnfura.io/ws/v3/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("inngest-signing-key", "Inngest signing key", r"signkey-[a-z]{2,12}-[a-f0-9]{32,}", "Inngest docs, Signing keys")
        .positive(&[
            "signkey-aa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "signkey-aaaaaaaa-a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["signkey-aa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qignkey-aa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("instagram-access-token", "Instagram access token", r"\bIG(?:QV|QW|AA)[A-Za-z0-9_-]{50,}", "Meta docs, Instagram API access tokens")
        .positive(&[
            "IGQVAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "IGQWaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
            "IGAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["IGQVAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "QGQVAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("intercom-access-token", "Intercom access token", r"dG9rO[g-v][A-Za-z0-9+/_-]{40,}={0,2}", "Intercom docs, Authentication: base64 of tok:")
        .positive(&[
            "dG9rOgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "dG9rOgaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a==", // gitleaks:allow
        ])
        .negative(&["dG9rOgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qG9rOgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("intra42-client-secret", "42 Intra client id or secret", r"[su]-s4t2(?:ud|af)-[a-fA-F0-9]{64}", "42 API docs, Getting started")
        .positive(&[
            "s-s4t2ud-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "s-s4t2af-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "s-s4t2ud-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["s-s4t2ud-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "q-s4t2ud-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("ionic-token", "Ionic token", r"\bion_[A-Za-z0-9]{42,}", "Ionic Appflow docs, Personal access tokens")
        .positive(&[
            "ion_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ion_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["ion_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qon_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("ipregistry-key", "Ipregistry key", r"\bira_[A-Za-z0-9]{32,}", "Ipregistry docs, API keys")
        .positive(&[
            "ira_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ira_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["ira_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qra_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("iterative-studio-token", "DVC Studio access token", r"\bisat_[A-Za-z0-9]{32,}", "DVC Studio docs, Client access tokens")
        .positive(&[
            "isat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "isat_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["isat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qsat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("jdbc-connection-string", "JDBC connection string with password", r#"jdbc:(?:[a-z0-9:+]{3,32}//(?:[^:/@<>{}$ \t\r\n"'`]{1,64}:[^@/<>{}$ \t\r\n"'`]{3,128}@[A-Za-z0-9_.-]{2,}|[^<>{}$ \t\r\n"'`]{1,256}[?&;](?:password|Password|PASSWORD|pwd|Pwd|PWD)=[^&;<>{}$ \t\r\n"'`]{3,128})|oracle:[a-z0-9]{2,8}:[A-Za-z0-9_]{1,64}/[^@/<>{}$ \t\r\n"'`]{3,128}@[A-Za-z0-9_./-]{2,})"#, "JDBC 4.3 specification, URLs; drivers' manuals")
        .positive(&[
            "jdbc:aaa//a:AAA@AA", // gitleaks:allow
            "jdbc:a3a3a3a3a//aB3aB3a&pwd=aB3aB3aB3", // gitleaks:allow
            "jdbc:oracle:aa:a/AAA@AA", // gitleaks:allow
        ])
        .negative(&["jdbc:aaa//a:AAA@A", "qdbc:aaa//a:AAA@AA"]),
    // A letter early on: decimal numbers of 34 digits are no tokens.
    rule("jenkins-crumb", "Jenkins crumb", r#"Jenkins-Crumb['"]?[:=] {0,2}['"]?[a-f0-9]{32,}"#, "Jenkins docs, CSRF protection")
        .positive(&[
            "Jenkins-Crumb:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "Jenkins-Crumb\":  \"a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["Jenkins-Crumb:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "Qenkins-Crumb:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("jenkins-secret", "Jenkins encrypted secret", r"\{AQAAABAAAA[A-Za-z0-9+/]{20,}={0,2}\}", "Jenkins docs, Storing secrets: hudson.util.Secret")
        .positive(&[
            "{AQAAABAAAAAAAAAAAAAAAAAAAAAAAA}", // gitleaks:allow
            "{AQAAABAAAAaB3aB3aB3aB3aB3aB3aB3aB==}", // gitleaks:allow
        ])
        .negative(&["{AQAAABAAAAAAAAAAAAAAAAAAAAAAAA", "{QQAAABAAAAAAAAAAAAAAAAAAAAAAAA}"]),
    rule("jenkins-setup-password", "Jenkins setup password", r"proceed to installation:[\r\n\t *]{1,64}[a-f0-9]{32}\b", "Jenkins docs, Unlocking Jenkins")
        .positive(&[
            "proceed to installation: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "proceed to installation:       a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["proceed to installation: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qroceed to installation: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("jetbrains-permanent-token", "JetBrains permanent token", r"\bperm[:-][A-Za-z0-9+/=_-]{2,96}\.[A-Za-z0-9+/=_-]{2,96}\.[A-Za-z0-9]{24,}", "JetBrains Hub and YouTrack docs, Permanent tokens")
        .positive(&[
            "perm-AA.AA.AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "perm-aB3aB3aB.aB3aB3aB.aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["perm-AA.AA.AAAAAAAAAAAAAAAAAAAAAAA", "qerm-AA.AA.AAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("jina-api-key", "Jina AI API key", r"jina_[A-Za-z0-9_-]{52,}", "Jina AI docs, API keys")
        .positive(&[
            "jina_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "jina_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["jina_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaAAAAAAAAAAAAAAAAAAA", "qina_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaAAAAAAAAAAAAAAAAAAAA"]),
    rule("jumpcloud-api-key", "JumpCloud API key", r"\bjca_[A-Za-z0-9]{36,}", "JumpCloud docs, API keys")
        .positive(&[
            "jca_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "jca_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["jca_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qca_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("jupyter-token", "Jupyter server token", r"[?&]token=[a-f0-9]{48}\b", "Jupyter Server docs, Security")
        .positive(&[
            "&token=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "&token=a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["&token=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "&qoken=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("jwk-private-key", "JSON Web Key, private part", r#""d" {0,2}: {0,2}"(?:[A-Za-z0-9_-]{43}|[A-Za-z0-9_-]{64}|[A-Za-z0-9_-]{86}|[A-Za-z0-9_-]{88}|[A-Za-z0-9_-]{171}|[A-Za-z0-9_-]{342}|[A-Za-z0-9_-]{512}|[A-Za-z0-9_-]{683})""#, "RFC 7517 and 7518: member d")
        .positive(&[
            "\"d\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"", // gitleaks:allow
            "\"d\"  :  \"aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3\"", // gitleaks:allow
            "\"d\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"", // gitleaks:allow
        ])
        .negative(&["\"d\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "\"q\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\""]),
    rule("kaggle-api-token", "Kaggle API token", r"KGAT_[a-f0-9]{32,}", "Kaggle docs, API tokens")
        .positive(&[
            "KGAT_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "KGAT_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["KGAT_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "QGAT_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("kaggle-json", "Kaggle API credentials", r#""username": {0,2}"[^"\n]{1,64}", {0,2}"key": {0,2}"[a-f0-9]{32}""#, "Kaggle docs, API credentials: kaggle.json")
        .positive(&[
            "\"username\":\"a\",\"key\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"", // gitleaks:allow
            "\"username\":  \"aB3aB3a\",  \"key\":  \"a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3\"", // gitleaks:allow
        ])
        .negative(&["\"username\":\"a\",\"key\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "\"qsername\":\"a\",\"key\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""]),
    rule("kagi-api-key", "Kagi API key", r"Authorization: Bot [A-Za-z0-9_-]{11}\.[A-Za-z0-9_-]{43,}", "Kagi API docs, Authentication")
        .positive(&[
            "Authorization: Bot AAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "Authorization: Bot aB3aB3aB3aB.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["Authorization: Bot AAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "Quthorization: Bot AAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("keygen-token", "Keygen token", r"\b(?:admin|user|prod|envr|activ|lic|dev)-[a-f0-9]{60,70}v[0-9]", "Keygen API reference, Tokens")
        .positive(&[
            "admin-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaav0", // gitleaks:allow
            "envr-a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3v0", // gitleaks:allow
            "dev-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaav0", // gitleaks:allow
        ])
        .negative(&["admin-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaav", "qdmin-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaav0"]),
    rule("kerberos-hash", "Kerberos ticket for cracking", r"\$krb5(?:asrep|tgs|pa)\$[A-Za-z0-9*@._:/$\\-]{40,}", "hashcat wiki, Example hashes")
        .positive(&[
            "$krb5asrep$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "$krb5tgs$aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "$krb5pa$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["$krb5asrep$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "$qrb5asrep$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("kickbox-api-key", "Kickbox API key", r"\b(?:live|test)_[a-f0-9]{64}\b", "Kickbox docs, API authentication")
        .positive(&[
            "live_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "test_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
            "live_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["live_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qive_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("kimi-api-key", "Kimi API key", r"\bsk-kimi-[A-Za-z0-9_-]{32,}", "Moonshot AI docs, Kimi for coding")
        .positive(&[
            "sk-kimi-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sk-kimi-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["sk-kimi-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qk-kimi-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("kit-api-key", "Kit API key", r"\bkit_[a-f0-9]{32}\b", "Kit developer docs, API keys")
        .positive(&[
            "kit_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "kit_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["kit_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qit_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("klarna-api-key", "Klarna API key", r"klarna_(?:live|test|playground)_(?:api|client)_[A-Za-z0-9!?*()#$/+=_-]{20,}", "Klarna docs, API keys")
        .positive(&[
            "klarna_live_api_AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "klarna_test_client_aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "klarna_playground_client_AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["klarna_live_api_AAAAAAAAAAAAAAAAAAA", "qlarna_live_api_AAAAAAAAAAAAAAAAAAAA"]),
    rule("klaviyo-api-key", "Klaviyo private API key", r"\bpk_(?:[A-Za-z0-9]{6}_)?[a-z0-9]{34}\b", "Klaviyo docs, Obtain API credentials")
        .positive(&[
            "pk_AAAAAA_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pk_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
            "pk_aB3aB3_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["pk_AAAAAA_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qk_AAAAAA_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("knock-token", "Knock service token", r"\bknock_st_[A-Za-z0-9_-]{20,}", "Knock docs, Service tokens")
        .positive(&[
            "knock_st_AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "knock_st_aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["knock_st_AAAAAAAAAAAAAAAAAAA", "qnock_st_AAAAAAAAAAAAAAAAAAAA"]),
    rule("kolide-api-key", "Kolide API key", r"\bk2sk_v[0-9]_[A-Za-z0-9_-]{20,}", "Kolide docs, API keys")
        .positive(&[
            "k2sk_v0_AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "k2sk_v0_aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["k2sk_v0_AAAAAAAAAAAAAAAAAAA", "q2sk_v0_AAAAAAAAAAAAAAAAAAAA"]),
    rule("kong-konnect-token", "Kong Konnect token", r"\b[ks]pat_[A-Za-z0-9]{40,}", "Kong Konnect docs, Personal and system account access tokens")
        .positive(&[
            "kpat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "kpat_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["kpat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qpat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("kontent-ai-token", "Kontent.ai API key", r"ew0KICAiYWxnIjog[A-Za-z0-9_-]{8,512}\.[A-Za-z0-9_-]{20,2048}\.[A-Za-z0-9_-]{20,}", "observed: JWTs whose header has line breaks")
        .positive(&[
            "ew0KICAiYWxnIjogAAAAAAAA.AAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ew0KICAiYWxnIjogaB3aB3aB3aB3aB.aB3aB3aB3aB3aB3aB3aB3aB3aB.aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["ew0KICAiYWxnIjogAAAAAAAA.AAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAA", "qw0KICAiYWxnIjogAAAAAAAA.AAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAA"]),
    rule("kubernetes-bootstrap-token", "Kubernetes bootstrap token", r#"(?:--token[ =]|\btoken: ['"]?)[a-z0-9]{6}\.[a-z0-9]{16}\b"#, "Kubernetes docs, Authenticating with bootstrap tokens")
        .positive(&[
            "--token aaaaaa.aaaaaaaaaaaaaaaa", // gitleaks:allow
            "token: \"a3a3a3.a3a3a3a3a3a3a3a3", // gitleaks:allow
            "--token a3a3a3.a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["--token aaaaaa.aaaaaaaaaaaaaaa", " -token aaaaaa.aaaaaaaaaaaaaaaa"]),
    rule("kubernetes-client-key", "Kubernetes client key", r#"client-key-data['"]?: {0,2}['"]?LS0t[A-Za-z0-9+/]{60,}={0,2}"#, "Kubernetes docs, Organizing cluster access using kubeconfig files")
        .positive(&[
            "client-key-data:LS0tAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "client-key-data\":  \"LS0taB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3==", // gitleaks:allow
        ])
        .negative(&["qlient-key-data:LS0tAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "client-key-data:", "client-key-data: LS0t"]),
    // Shorter values are those of the documentation's samples.
    rule("kubernetes-secret", "Kubernetes Secret manifest", r#"kind: ['"]?Secret['"]?\r?\n[^\x00]{0,400}\ndata:\r?\n {1,8}[A-Za-z0-9_.-]{1,64}: {1,4}['"]?[A-Za-z0-9+/=]{12,}"#, "Kubernetes docs, Secrets")
        .positive(&[
            "kind: Secret\n\ndata:\n a: AAAAAAAAAAAAAAAA", // gitleaks:allow
            "kind: \"Secret\"\r\naB3aB3\ndata:\r\n aB3aB3a:    \"aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["kind: Secret\n\ndata:\n a: AAAAAAAAAAA", "qind: Secret\n\ndata:\n a: AAAAAAAAAAAAAAAA"]),
    rule("lambda-cloud-key", "Lambda Cloud API key", r"\bsecret_[a-z0-9-]{1,40}_[a-f0-9]{32}\.[A-Za-z0-9]{32,}", "Lambda Cloud API docs, API keys")
        .positive(&[
            "secret_a_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "secret_a3a3a3a_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["secret_a_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qecret_a_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("langsmith-api-key", "LangSmith API key", r"lsv2_[a-z]{2}_[A-Za-z0-9]{32}(?:_[a-fA-F0-9]{10})?", "LangSmith docs, API keys")
        .positive(&[
            "lsv2_aa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA_AAAAAAAAAA", // gitleaks:allow
            "lsv2_aa_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "lsv2_aa_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB_aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["qsv2_aa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA_AAAAAAAAAA", "lsv2_aa_AAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("langsmith-api-key-legacy", "LangSmith API key (legacy)", r"\bls__[a-f0-9]{32}\b", "LangSmith docs, API keys before 2024")
        .positive(&[
            "ls__aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "ls__a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["ls__aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qs__aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("langfuse-key", "Langfuse key", r"\b[sp]k-lf-[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}", "Langfuse docs, API authentication")
        .positive(&[
            "pk-lf-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
            "pk-lf-aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["pk-lf-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAA", "qk-lf-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA"]),
    rule("langwatch-api-key", "LangWatch API key", r"\bsk-lw-[A-Za-z0-9]{40,}", "LangWatch docs, API keys")
        .positive(&[
            "sk-lw-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sk-lw-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sk-lw-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qk-lw-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("laravel-app-key", "Laravel application key", r"APP_KEY=base64:[A-Za-z0-9+/]{43}=", "Laravel docs, Encryption")
        .positive(&[
            "APP_KEY=base64:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", // gitleaks:allow
            "APP_KEY=base64:aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a=", // gitleaks:allow
        ])
        .negative(&["APP_KEY=base64:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "QPP_KEY=base64:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]),
    rule("lark-app-id", "Lark app id", r"\bcli_[A-Za-z0-9]{16}\b", "Lark and Feishu docs, App credentials")
        .positive(&[
            "cli_AAAAAAAAAAAAAAAA", // gitleaks:allow
            "cli_aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["cli_AAAAAAAAAAAAAAA", "qli_AAAAAAAAAAAAAAAA"]),
    rule("lark-access-token", "Lark access token", r"\b[atu]-(?:[a-f0-9]{40}|g[A-Za-z0-9]{36,})\b", "Lark and Feishu docs, Access tokens")
        .positive(&[
            "a-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "a-gAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["a-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "a-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "q-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("lark-webhook", "Lark bot webhook", r"open\.(?:feishu\.cn|larksuite\.com)/open-apis/bot/(?:v2/)?hook/[A-Za-z0-9-]{20,}", "Lark and Feishu docs, Custom bots")
        .positive(&[
            "open.feishu.cn/open-apis/bot/v2/hook/AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "open.larksuite.com/open-apis/bot/v2/hook/aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "open.larksuite.com/open-apis/bot/hook/AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["open.feishu.cn/open-apis/bot/v2/hook/AAAAAAAAAAAAAAAAAAA", "qpen.feishu.cn/open-apis/bot/v2/hook/AAAAAAAAAAAAAAAAAAAA"]),
    rule("launchdarkly-key", "LaunchDarkly key", r"\b(?:sdk|api|mob|rel)-[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}", "LaunchDarkly docs, API access tokens, SDK keys")
        .positive(&[
            "sdk-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
            "mob-aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
            "rel-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["sdk-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAA", "qdk-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA"]),
    rule("letta-api-key", "Letta API key", r"\bsk-let-[A-Za-z0-9+/=_-]{40,}", "Letta docs, API keys")
        .positive(&[
            "sk-let-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sk-let-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sk-let-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qk-let-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("lichess-token", "Lichess token", r"\bli[po]_[A-Za-z0-9]{16}[A-Za-z0-9_]{0,64}", "Lichess API docs, Personal API access tokens")
        .positive(&[
            "lio_AAAAAAAAAAAAAAAA", // gitleaks:allow
            "lio_aB3aB3aB3aB3aB3aaB3aB3", // gitleaks:allow
        ])
        .negative(&["lio_AAAAAAAAAAAAAAA", "qio_AAAAAAAAAAAAAAAA"]),
    rule("lightdash-token", "Lightdash token", r"\bld(?:pat|svc)_[a-f0-9]{32,}", "Lightdash docs, Personal access tokens")
        .positive(&[
            "ldpat_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "ldsvc_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a", // gitleaks:allow
            "ldpat_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["ldpat_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qdpat_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("lightspeed-token", "Lightspeed personal access token", r"\blsxs_[a-z]{2}_[A-Za-z0-9]{20,}", "Lightspeed docs, Personal tokens")
        .positive(&[
            "lsxs_aa_AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "lsxs_aa_aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["lsxs_aa_AAAAAAAAAAAAAAAAAAA", "qsxs_aa_AAAAAAAAAAAAAAAAAAAA"]),
    rule("line-channel-access-token", "LINE channel access token", r"[A-Za-z0-9+/]{64}w1cDnyilFU=", "LINE developers docs, Channel access tokens; all long-lived ones end so")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAw1cDnyilFU=", // gitleaks:allow
            "aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aw1cDnyilFU=", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAw1cDnyilFU", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAq1cDnyilFU="]),
    rule("linear-api-key", "Linear API key", r"lin_api_[A-Za-z0-9]{32,}", "Linear docs, API: personal API keys")
        .positive(&[
            "lin_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "lin_api_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["lin_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qin_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("linear-oauth-token", "Linear OAuth token", r"lin_(?:oauth|refresh)_[A-Za-z0-9]{32,}", "Linear docs, OAuth 2.0 authentication")
        .positive(&[
            "lin_oauth_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "lin_refresh_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "lin_oauth_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["lin_oauth_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qin_oauth_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("linear-webhook-secret", "Linear webhook secret", r"lin_wh_[A-Za-z0-9]{20,}", "Linear docs, Webhooks")
        .positive(&[
            "lin_wh_AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "lin_wh_aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["lin_wh_AAAAAAAAAAAAAAAAAAA", "qin_wh_AAAAAAAAAAAAAAAAAAAA"]),
    rule("linkedin-client-secret", "LinkedIn client secret", r"WPL_AP[0-9]\.[A-Za-z0-9]{12,24}\.[A-Za-z0-9+/]{6,16}={0,2}", "observed: client secrets since 2023")
        .positive(&[
            "WPL_AP0.AAAAAAAAAAAA.AAAAAA", // gitleaks:allow
            "WPL_AP0.aB3aB3aB3aB3aB3aB3.aB3aB3aB3aB3==", // gitleaks:allow
        ])
        .negative(&["WPL_AP0.AAAAAAAAAAAA.AAAAA", "QPL_AP0.AAAAAAAAAAAA.AAAAAA"]),
    rule("linkedin-access-token", "LinkedIn access token", r"\bAQ[U-X][A-Za-z0-9_-]{196,}", "LinkedIn docs, Authorization code flow")
        .positive(&[
            "AQVAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "AQVaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["AQVAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "QQVAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("linkedin-session-cookie", "LinkedIn session cookie", r"\bli_at=AQ[A-Za-z0-9_-]{80,}", "observed: cookie li_at")
        .positive(&[
            "li_at=AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "li_at=AQaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["li_at=AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qi_at=AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("liveblocks-key", "Liveblocks key", r"\b[sp]k_(?:dev|prod)_[A-Za-z0-9_-]{40,}", "Liveblocks docs, API keys")
        .positive(&[
            "pk_dev_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "pk_prod_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "pk_dev_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["pk_dev_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qk_dev_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("llama-cloud-key", "LlamaCloud API key", r"\bllx-[A-Za-z0-9]{40,}", "LlamaIndex docs, LlamaCloud API key")
        .positive(&[
            "llx-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "llx-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["llx-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qlx-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("lob-api-key", "Lob API key", r"\b(?:live|test)_(?:pub_[a-f0-9]{31}|[a-f0-9]{35})\b", "Lob docs, API keys")
        .positive(&[
            "live_pub_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "test_pub_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a", // gitleaks:allow
            "test_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["live_pub_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qive_pub_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("localstack-token", "LocalStack auth token", r"\bls-[A-Za-z0-9]{8}-[A-Za-z0-9]{4}-[A-Za-z0-9]{4}-[A-Za-z0-9]{4}-[A-Za-z0-9]{12}\b", "LocalStack docs, Auth token")
        .positive(&[
            "ls-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
            "ls-aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["ls-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAA", "qs-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA"]),
    rule("locationiq-token", "LocationIQ access token", r"\bpk\.[a-f0-9]{32}\b", "LocationIQ docs, Access tokens")
        .positive(&[
            "pk.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pk.a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["pk.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qk.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("loggly-token", "Loggly customer token", r"loggly\.com/(?:inputs|bulk)/[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}", "Loggly docs, HTTP endpoint")
        .positive(&[
            "loggly.com/inputs/AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
            "loggly.com/bulk/aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
            "loggly.com/inputs/aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["loggly.com/inputs/AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAA", "qoggly.com/inputs/AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA"]),
    rule("logicmonitor-bearer-token", "LogicMonitor token", r"\blm[ab]_[A-Za-z0-9+/=^()\[\]{}!~@$*-]{40,}", "LogicMonitor docs, API tokens")
        .positive(&[
            "lma_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "lma_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["lma_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qma_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("logicmonitor-lmv1-token", "LogicMonitor LMv1 authorization", r"LMv1 [A-Za-z0-9]{16,32}:[A-Za-z0-9+/=]{24,128}:[0-9]{13}", "LogicMonitor docs, LMv1 authentication")
        .positive(&[
            "LMv1 AAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAAAA:0000000000000", // gitleaks:allow
            "LMv1 aB3aB3aB3aB3aB3aB3aB3a:aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3:3333333333333", // gitleaks:allow
        ])
        .negative(&["LMv1 AAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAAAA:000000000000", "QMv1 AAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAAAA:0000000000000"]),
    rule("logz-io-token", "Logz.io shipping token", r"logz\.io:80[0-9]{2}/?\?token=[A-Za-z]{32}", "Logz.io docs, Bulk upload over HTTPS")
        .positive(&[
            "logz.io:8000?token=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "logz.io:8033/?token=aBaBaBaBaBaBaBaBaBaBaBaBaBaBaBaB", // gitleaks:allow
        ])
        .negative(&["logz.io:8000?token=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qogz.io:8000?token=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("pydantic-logfire-token", "Logfire token", r"\bpylf_v[0-9]_[a-z]{2}_[A-Za-z0-9]{30,}", "Logfire docs, Write and read tokens")
        .positive(&[
            "pylf_v0_aa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "pylf_v0_aa_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["pylf_v0_aa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qylf_v0_aa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("luma-api-key", "Luma AI API key", r"\bluma-[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}", "Luma AI docs, API keys")
        .positive(&[
            "luma-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
            "luma-aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["luma-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAA", "quma-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA"]),
    rule("macaroon-v1", "Macaroon", r"MDA[x-z][A-Za-z0-9]{2}xvY2F0aW9uI[A-Za-z0-9+/_-]{40,}={0,2}", "libmacaroons, format version 1; Matrix tokens before 2021")
        .positive(&[
            "MDAxAAxvY2F0aW9uIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "MDAxaBxvY2F0aW9uIaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a==", // gitleaks:allow
        ])
        .negative(&["MDAxAAxvY2F0aW9uIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "QDAxAAxvY2F0aW9uIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("magic-link-key", "Magic API key", r"\b[sp]k_(?:live|test)_[A-F0-9]{16}\b", "Magic docs, API keys")
        .positive(&[
            "pk_live_AAAAAAAAAAAAAAAA", // gitleaks:allow
            "pk_test_B3B3B3B3B3B3B3B3", // gitleaks:allow
            "pk_live_B3B3B3B3B3B3B3B3", // gitleaks:allow
        ])
        .negative(&["pk_live_AAAAAAAAAAAAAAA", "qk_live_AAAAAAAAAAAAAAAA"]),
    rule("mailchimp-api-key", "Mailchimp API key", r"\b[a-f0-9]{32}-us[0-9]{1,2}\b", "Mailchimp Marketing API docs, API keys")
        .positive(&[
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-us0", // gitleaks:allow
            "a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3-us33", // gitleaks:allow
        ])
        .negative(&["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-us", "qaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-us0"]),
    rule("mailersend-token", "MailerSend API token", r"mlsn\.[A-Za-z0-9]{30,}", "MailerSend docs, API tokens")
        .positive(&[
            "mlsn.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "mlsn.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["mlsn.AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qlsn.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("mailersend-smtp-password", "MailerSend SMTP password", r"\bmssp\.[A-Za-z0-9]{7}\.[A-Za-z0-9]{12,24}\.[A-Za-z0-9]{7}", "MailerSend docs, SMTP relay")
        .positive(&[
            "mssp.AAAAAAA.AAAAAAAAAAAA.AAAAAAA", // gitleaks:allow
            "mssp.aB3aB3a.aB3aB3aB3aB3aB3aB3.aB3aB3a", // gitleaks:allow
        ])
        .negative(&["mssp.AAAAAAA.AAAAAAAAAAAA.AAAAAA", "qssp.AAAAAAA.AAAAAAAAAAAA.AAAAAAA"]),
    rule("mailgun-key", "Mailgun API key", r"\b(?:pub)?key-[A-Za-z0-9]{32}\b", "Mailgun docs, API keys")
        .positive(&[
            "pubkey-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "key-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "pubkey-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["pubkey-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qubkey-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("mailgun-signing-key", "Mailgun API or signing key", r"\b[a-f0-9]{32}-[a-f0-9]{8}-[a-f0-9]{8}\b", "Mailgun docs, API keys since 2018")
        .positive(&[
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaa-aaaaaaaa", // gitleaks:allow
            "a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3-a3a3a3a3-a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaa-aaaaaaa", "qaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaa-aaaaaaaa"]),
    rule("make-webhook", "Make webhook", r"hook\.(?:[a-z]{2}[0-9]\.)?(?:make|integromat)\.com/[a-z0-9]{32}", "Make docs, Webhooks")
        .positive(&[
            "hook.aa0.make.com/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "hook.make.com/a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
            "hook.integromat.com/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
        ])
        .negative(&["hook.aa0.make.com/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qook.aa0.make.com/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("mandrill-api-key", "Mandrill API key", r"\bmd-[A-Za-z0-9_-]{22}\b", "Mailchimp Transactional docs, API keys since 2022")
        .unless(check::is_a_name)
        .positive(&[
            "md-AAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "md-aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["md-AAAAAAAAAAAAAAAAAAAAA", "qd-AAAAAAAAAAAAAAAAAAAAAA", "md-button-toggle-grouping"]),
    rule("mapbox-token", "Mapbox token", r"[pst]k\.eyJ[A-Za-z0-9_-]{30,512}\.[A-Za-z0-9_-]{20,}", "Mapbox docs, Access tokens")
        .positive(&[
            "pk.eyJAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "pk.eyJaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3.aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["pk.eyJAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAA", "qk.eyJAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAA"]),
    rule("mapbox-token-legacy", "Mapbox token (any payload)", r"\b[pst]k\.[A-Za-z0-9]{60}\.[A-Za-z0-9]{22}\b", "Mapbox docs, Access tokens")
        .positive(&[
            "pk.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "pk.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3.aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["pk.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAA", "qk.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAA"]),
    rule("mapillary-token", "Mapillary token", r"\bMLY\|[0-9]{10,20}\|[a-f0-9]{32}", "Mapillary docs, API v4 tokens")
        .positive(&[
            "MLY|0000000000|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "MLY|3333333333333333|a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["MLY|0000000000|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "QLY|0000000000|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("matrix-access-token", "Matrix access token", r"\bsyt_[A-Za-z0-9+/=_-]{2,128}_[A-Za-z]{20}_[A-Za-z0-9]{6}", "Synapse, tokens since 1.34")
        .positive(&[
            "syt_AA_AAAAAAAAAAAAAAAAAAAA_AAAAAA", // gitleaks:allow
            "syt_aB3aB3aB_aBaBaBaBaBaBaBaBaBaB_aB3aB3", // gitleaks:allow
        ])
        .negative(&["syt_AA_AAAAAAAAAAAAAAAAAAAA_AAAAA", "qyt_AA_AAAAAAAAAAAAAAAAAAAA_AAAAAA"]),
    rule("matrix-mas-token", "Matrix Authentication Service token", r"\bm(?:at|ar|ct|cr|pt|ut)_[A-Za-z0-9]{30}_[A-Za-z0-9]{6}\b", "Matrix Authentication Service, token formats")
        .positive(&[
            "mat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA_AAAAAA", // gitleaks:allow
            "mcr_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3_aB3aB3", // gitleaks:allow
            "mut_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA_AAAAAA", // gitleaks:allow
        ])
        .negative(&["mat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA_AAAAA", "qat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA_AAAAAA"]),
    rule("mattermost-webhook", "Mattermost webhook", r"/hooks/[a-z0-9]{26}\b", "Mattermost docs, Incoming webhooks")
        .positive(&[
            "/hooks/aaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "/hooks/a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["/hooks/aaaaaaaaaaaaaaaaaaaaaaaaa", " hooks/aaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("maxmind-license-key", "MaxMind license key", r"[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk", "MaxMind release notes 2023, New license key format")
        .positive(&[
            "AAAAAA_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA_mmk", // gitleaks:allow
            "aB3aB3_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB_mmk", // gitleaks:allow
        ])
        .negative(&["AAAAAA_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA_mm", "AAAAAA AAAAAAAAAAAAAAAAAAAAAAAAAAAAA_mmk"]),
    rule("mem0-api-key", "Mem0 API key", r"\bm0-[A-Za-z0-9]{40}\b", "Mem0 docs, API keys")
        .unless(check::is_a_name)
        .positive(&[
            "m0-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "m0-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["m0-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "q0-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("meraki-api-key", "Cisco Meraki API key", r#"X-Cisco-Meraki-API-Key['"]?: {0,2}['"]?[a-f0-9]{40}\b"#, "Cisco Meraki docs, Authorization")
        .positive(&[
            "X-Cisco-Meraki-API-Key:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "X-Cisco-Meraki-API-Key\":  \"a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["X-Cisco-Meraki-API-Key:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "Q-Cisco-Meraki-API-Key:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("mercado-pago-token", "Mercado Pago access token", r"(?:APP_USR|\bTEST)-[0-9]{10,20}-[0-9]{6}-[a-f0-9_]{32,36}-[0-9]{5,12}", "Mercado Pago docs, Credentials")
        .positive(&[
            "APP_USR-0000000000-000000-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-00000", // gitleaks:allow
            "TEST-3333333333333333-333333-a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3-33333333333", // gitleaks:allow
            "APP_USR-3333333333333333-333333-a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3-33333333333", // gitleaks:allow
        ])
        .negative(&["APP_USR-0000000000-000000-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0000", "QPP_USR-0000000000-000000-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-00000"]),
    rule("mercado-pago-key", "Mercado Pago public key", r"APP_USR-[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}", "Mercado Pago docs, Credentials")
        .positive(&[
            "APP_USR-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
            "APP_USR-aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["APP_USR-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAA", "QPP_USR-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA"]),
    rule("mercado-pago-refresh-token", "Mercado Pago refresh token", r"\bTG-[a-f0-9]{24}-[0-9]{6,12}", "Mercado Pago docs, OAuth")
        .positive(&[
            "TG-aaaaaaaaaaaaaaaaaaaaaaaa-000000", // gitleaks:allow
            "TG-a3a3a3a3a3a3a3a3a3a3a3a3-333333333333", // gitleaks:allow
        ])
        .negative(&["TG-aaaaaaaaaaaaaaaaaaaaaaaa-00000", "QG-aaaaaaaaaaaaaaaaaaaaaaaa-000000"]),
    rule("mercury-api-token", "Mercury API token", r"mercury_[a-z]{4,20}_[a-z]{2,8}_[A-Za-z0-9]{20,}(?:_yrucrem)?", "Mercury API docs, Authentication")
        .positive(&[
            "mercury_aaaa_aa_AAAAAAAAAAAAAAAAAAAA_yrucrem", // gitleaks:allow
            "mercury_aaaaaaaaaa_aaaaaaaa_aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "mercury_aaaaaaaaaa_aaaaaaaa_aB3aB3aB3aB3aB3aB3aB3aB_yrucrem", // gitleaks:allow
        ])
        .negative(&["qercury_aaaa_aa_AAAAAAAAAAAAAAAAAAAA_yrucrem", "mercury_aaaa_aa_AAAAAAAAAAAAA"]),
    rule("mergify-application-key", "Mergify application key", r"mergify_(?:application|ci)_key_[A-Za-z0-9_-]{40,}", "Mergify docs, Application keys")
        .positive(&[
            "mergify_application_key_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "mergify_ci_key_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "mergify_application_key_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["mergify_application_key_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qergify_application_key_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("messagebird-header-key", "MessageBird access key", r"AccessKey (?:live_|test_)?[A-Za-z0-9]{25}\b", "MessageBird docs, API authentication")
        .positive(&[
            "AccessKey live_AAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "AccessKey test_aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "AccessKey AAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["AccessKey live_AAAAAAAAAAAAAAAAAAAAAAAA", "AccessKey qive_AAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("messagebird-api-key", "MessageBird API key", r"\blive_[A-Za-z0-9]{25}\b", "MessageBird docs, API access")
        .unless(check::is_a_name)
        .positive(&[
            "live_AAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "live_aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["live_AAAAAAAAAAAAAAAAAAAAAAAA", "qive_AAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("meta-llama-api-key", "Llama API key", r"\bLLM\|[0-9]{10,20}\|[A-Za-z0-9_-]{20,}", "Meta docs, Llama API keys")
        .positive(&[
            "LLM|0000000000|AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "LLM|3333333333333333|aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["LLM|0000000000|AAAAAAAAAAAAAAAAAAA", "QLM|0000000000|AAAAAAAAAAAAAAAAAAAA"]),
    rule("metabase-api-key", "Metabase API key", r"\bmb_[A-Za-z0-9+/]{43}=", "Metabase docs, API keys")
        .positive(&[
            "mb_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", // gitleaks:allow
            "mb_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a=", // gitleaks:allow
        ])
        .negative(&["mb_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qb_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]),
    rule("microsoft-teams-webhook", "Microsoft Teams webhook", r"(?:https://[a-zA-Z0-9-]{1,64}\.)?webhook\.office\.com/webhookb[0-9]/[A-Za-z0-9-]{36}@[A-Za-z0-9-]{36}/IncomingWebhook/[A-Za-z0-9]{20,64}/[A-Za-z0-9-]{36,}", "Microsoft Teams docs, Incoming webhooks")
        .positive(&[
            "https://a.webhook.office.com/webhookb0/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA@AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/IncomingWebhook/AAAAAAAAAAAAAAAAAAAA/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "webhook.office.com/webhookb0/aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3@aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3/IncomingWebhook/aB3aB3aB3aB3aB3aB3aB3aB3aB/aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
            "https://aB3aB3a.webhook.office.com/webhookb0/aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3@aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3/IncomingWebhook/aB3aB3aB3aB3aB3aB3aB3aB3aB/aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["https://a.webhook.office.com/webhookb0/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA@AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/IncomingWebhook/AAAAAAAAAAAAAAAAAAAA/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "https://a.qebhook.office.com/webhookb0/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA@AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/IncomingWebhook/AAAAAAAAAAAAAAAAAAAA/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("microsoft-outlook-webhook", "Microsoft 365 connector webhook", r"outlook\.office(?:365)?\.com/webhook/[A-Za-z0-9-]{36}@[A-Za-z0-9-]{36}/[A-Za-z]{4,32}/[A-Za-z0-9]{20,64}/[A-Za-z0-9-]{36,}", "Microsoft 365 connectors for groups, Webhook URLs")
        .positive(&[
            "outlook.office365.com/webhook/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA@AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/AAAA/AAAAAAAAAAAAAAAAAAAA/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "outlook.office.com/webhook/aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3@aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3/aBaBaBaBaB/aB3aB3aB3aB3aB3aB3aB3aB3aB/aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
            "outlook.office365.com/webhook/aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3@aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3/aBaBaBaBaB/aB3aB3aB3aB3aB3aB3aB3aB3aB/aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["outlook.office365.com/webhook/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA@AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/AAAA/AAAAAAAAAAAAAAAAAAAA/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qutlook.office365.com/webhook/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA@AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/AAAA/AAAAAAAAAAAAAAAAAAAA/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("power-automate-url", "Power Automate or Logic Apps trigger", r"(?:logic\.azure\.com|api\.powerplatform\.com)(?::443)?/(?:powerautomate/automations/direct/)?workflows/[A-Za-z0-9]{32}/triggers/[A-Za-z0-9_%.-]{1,64}/[a-z/]{2,24}\?[A-Za-z0-9_.=%/&;+-]{0,256}sig=[A-Za-z0-9_%-]{40,}", "Microsoft docs, Logic Apps: endpoints for request triggers")
        .positive(&[
            "logic.azure.com:443/powerautomate/automations/direct/workflows/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/triggers/a/aa?sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "api.powerplatform.com:443/powerautomate/automations/direct/workflows/aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB/triggers/aB3aB3a/aaaaaaaa?aB3aB3sig=aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "api.powerplatform.com/workflows/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/triggers/a/aa?sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["logic.azure.com:443/powerautomate/automations/direct/workflows/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/triggers/a/aa?sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qogic.azure.com:443/powerautomate/automations/direct/workflows/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/triggers/a/aa?sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("microsoft-account-refresh-token", "Microsoft account refresh token", r"\bM\.[CR][0-9]{1,4}_[A-Z0-9]{2,4}\.[A-Za-z0-9*!$.-]{60,}", "observed: Microsoft account refresh tokens")
        .positive(&[
            "M.C0_AA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "M.C3333_B3B3.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["M.C0_AA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "Q.C0_AA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("xbox-token", "Xbox Live authorization", r"XBL[0-9]\.0 x=[0-9-]{1,25};[A-Za-z0-9_.+/=-]{100,}", "Microsoft docs, Xbox Live service authentication")
        .positive(&[
            "XBL0.0 x=0;AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "XBL0.0 x=3333333;aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["XBL0.0 x=0;AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "QBL0.0 x=0;AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("midtrans-key", "Midtrans key", r"(?:SB-)?Mid-(?:server|client)-[A-Za-z0-9_-]{10,}", "Midtrans docs, API authorization")
        .positive(&[
            "SB-Mid-server-AAAAAAAAAA", // gitleaks:allow
            "Mid-server-aB3aB3aB3aB3a", // gitleaks:allow
            "Mid-client-AAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["SB-Mid-server-AAAAAAAAA", "SB-Qid-server-AAAAAAAAAA"]),
    rule("mindee-api-key", "Mindee API key", r"\bmd_[A-Za-z0-9]{32,}", "Mindee docs, API keys")
        .positive(&[
            "md_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "md_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["md_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qd_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("minimax-api-key", "MiniMax API key", r"\bsk-api-[A-Za-z0-9_-]{60,}", "MiniMax docs, API keys")
        .positive(&[
            "sk-api-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sk-api-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["sk-api-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qk-api-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("mintlify-api-key", "Mintlify API key", r"\bmint_(?:dsc_)?[A-Za-z0-9]{22,}", "Mintlify docs, API keys")
        .positive(&[
            "mint_dsc_AAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "mint_aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "mint_dsc_aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["mint_dsc_AAAAAAAAAAAAAAAAAAAAA", "qint_dsc_AAAAAAAAAAAAAAAAAAAAAA"]),
    rule("miro-access-token", "Miro access token", r"eyJtaXJvLm9yaWdpbiI6[A-Za-z0-9+/_-]{8,}={0,2}(?:_[A-Za-z0-9_-]{20,64})?", "Miro docs, Access tokens: base64 of {\"miro.origin\":")
        .positive(&[
            "eyJtaXJvLm9yaWdpbiI6AAAAAAAA_AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "eyJtaXJvLm9yaWdpbiI6aB3aB3aB3aB==", // gitleaks:allow
            "eyJtaXJvLm9yaWdpbiI6aB3aB3aB3aB==_aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["qyJtaXJvLm9yaWdpbiI6AAAAAAAA_AAAAAAAAAAAAAAAAAAAA", "eyJtaXJvLm9yaWdpbiI6AAAA"]),
    rule("modal-token", "Modal token", r"\b[aw][ks]-[A-Za-z0-9]{22}\b", "Modal docs, Tokens")
        .positive(&[
            "ak-AAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ak-aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["ak-AAAAAAAAAAAAAAAAAAAAA", "qk-AAAAAAAAAAAAAAAAAAAAAA"]),
    rule("mollie-api-key", "Mollie API key", r"\btest_[A-Za-z0-9]{30}\b", "Mollie docs, Authentication; keys that begin with `live_` are those of other providers too")
        .unless(check::is_a_name)
        .positive(&[
            "test_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "test_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["test_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qest_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "test_returnsNothingWhenNothingWasAs"]),
    rule("mollie-access-token", "Mollie access token", r"\baccess_[A-Za-z0-9]{30}\b", "Mollie docs, Authentication")
        .unless(check::is_a_name)
        .positive(&[
            "access_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "access_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["access_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qccess_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("momento-api-key", "Momento API key", r"eyJlbmRwb2ludCI6I[A-Za-z0-9+/_-]{40,}={0,2}", "Momento docs, API keys: base64 of {\"endpoint\":")
        .positive(&[
            "eyJlbmRwb2ludCI6IAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "eyJlbmRwb2ludCI6IaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a==", // gitleaks:allow
        ])
        .negative(&["eyJlbmRwb2ludCI6IAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qyJlbmRwb2ludCI6IAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("mongodb-atlas-client-secret", "MongoDB Atlas service account secret", r"mdb_sa_sk_[A-Za-z0-9_-]{32,}", "MongoDB Atlas docs, Service accounts")
        .positive(&[
            "mdb_sa_sk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "mdb_sa_sk_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["mdb_sa_sk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qdb_sa_sk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("mongodb-atlas-client-id", "MongoDB Atlas service account id", r"mdb_sa_id_[a-f0-9]{24,}", "MongoDB Atlas docs, Service accounts")
        .positive(&[
            "mdb_sa_id_aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "mdb_sa_id_a3a3a3a3a3a3a3a3a3a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["mdb_sa_id_aaaaaaaaaaaaaaaaaaaaaaa", "qdb_sa_id_aaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("monnify-api-key", "Monnify API key", r"\bMK_(?:TEST|PROD)_[A-Z0-9]{10}\b", "Monnify docs, API keys")
        .positive(&[
            "MK_TEST_AAAAAAAAAA", // gitleaks:allow
            "MK_PROD_B3B3B3B3B3", // gitleaks:allow
            "MK_TEST_B3B3B3B3B3", // gitleaks:allow
        ])
        .negative(&["MK_TEST_AAAAAAAAA", "QK_TEST_AAAAAAAAAA"]),
    rule("mono-toss-key", "Mono or Toss Payments key", r"\b(?:live|test)_g?[spc]k_[A-Za-z0-9]{20,}", "Mono docs and Toss Payments docs, API keys")
        .positive(&[
            "live_ck_AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "test_gck_aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "live_gck_aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["live_ck_AAAAAAAAAAAAAAAAAAA", "qive_ck_AAAAAAAAAAAAAAAAAAAA"]),
    rule("mysql-password-hash", "MySQL password hash", r"'\*[A-F0-9]{40}'", "MySQL docs, mysql_native_password")
        .positive(&[
            "'*AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'", // gitleaks:allow
            "'*B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3'", // gitleaks:allow
        ])
        .negative(&["'*AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "'*QAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'"]),
    rule("medusa-api-key", "Medusa or thirdweb key", r"\b[sp]k_[a-f0-9]{64}\b", "Medusa docs, API keys")
        .positive(&[
            "pk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pk_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["pk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("n8n-api-key", "n8n API key", r"n8n_api_[A-Za-z0-9]{32,}", "n8n docs, API authentication (before JWTs)")
        .positive(&[
            "n8n_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "n8n_api_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["n8n_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "q8n_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("nats-nkey-seed", "NATS nkey seed", r"\bS[ACNOUX]A[A-P][A-Z2-7]{54}\b", "NATS docs, NKeys")
        .positive(&[
            "SAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "SAAAB3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3", // gitleaks:allow
        ])
        .negative(&["SAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "QAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("naver-cloud-key", "Naver Cloud key", r"\bncp_(?:iam|sts)_[A-Za-z0-9]{16,}", "Naver Cloud Platform docs, API authentication keys")
        .positive(&[
            "ncp_iam_AAAAAAAAAAAAAAAA", // gitleaks:allow
            "ncp_sts_aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "ncp_iam_aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["ncp_iam_AAAAAAAAAAAAAAA", "qcp_iam_AAAAAAAAAAAAAAAA"]),
    rule("neon-api-key", "Neon API key", r"\bnapi_[A-Za-z0-9]{40,}", "Neon docs, API keys")
        .positive(&[
            "napi_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "napi_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["napi_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qapi_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("neon-password", "Neon database password", r"\bnpg_[A-Za-z0-9]{12,}", "observed: passwords of Neon roles since 2025")
        .positive(&[
            "npg_AAAAAAAAAAAA", // gitleaks:allow
            "npg_aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["npg_AAAAAAAAAAA", "qpg_AAAAAAAAAAAA"]),
    rule("neptune-api-token", "Neptune API token", r"eyJhcGlfYWRkcmVzcyI6[A-Za-z0-9+/_-]{40,}={0,2}", "Neptune docs, API token: base64 of {\"api_address\":")
        .positive(&[
            "eyJhcGlfYWRkcmVzcyI6AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "eyJhcGlfYWRkcmVzcyI6aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a==", // gitleaks:allow
        ])
        .negative(&["eyJhcGlfYWRkcmVzcyI6AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qyJhcGlfYWRkcmVzcyI6AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("netbird-token", "NetBird token", r"\bnbp_[A-Za-z0-9]{30,}", "NetBird docs, Access tokens")
        .positive(&[
            "nbp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "nbp_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["nbp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qbp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("netlify-token", "Netlify token", r"\bnf[bcopu]_[A-Za-z0-9]{36,}", "Netlify blog, New token format")
        .positive(&[
            "nfb_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "nfb_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["nfb_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qfb_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("netlify-build-hook", "Netlify build hook", r"api\.netlify\.com/build_hooks/[a-f0-9]{24}", "Netlify docs, Build hooks")
        .positive(&[
            "api.netlify.com/build_hooks/aaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "api.netlify.com/build_hooks/a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["api.netlify.com/build_hooks/aaaaaaaaaaaaaaaaaaaaaaa", "qpi.netlify.com/build_hooks/aaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("neverbounce-api-key", "NeverBounce API key", r"\bprivate_[a-f0-9]{32}\b", "NeverBounce docs, Authentication")
        .positive(&[
            "private_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "private_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["private_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qrivate_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("new-relic-license-key", "New Relic license key", r"\b[A-Za-z0-9]{36}NRAL", "New Relic docs, New Relic API keys")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAANRAL", // gitleaks:allow
            "aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3NRAL", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAANRA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAQRAL"]),
    rule("new-relic-license-key-legacy", "New Relic license key", r#"license_key: {1,8}['"]?(?:eu01xx[a-f0-9]{34}|[a-f0-9]{40})\b"#, "New Relic docs, Agent configuration: license_key in newrelic.yml")
        .positive(&[
            "license_key: 0123456789abcdef0123456789abcdef01234567", // gitleaks:allow
            "license_key:  'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "license_key: eu01xx0123456789abcdef0123456789abcdef01", // gitleaks:allow
        ])
        .negative(&["license_key: 0123456789abcdef0123456789abcdef0123456", "licence_key: 0123456789abcdef0123456789abcdef01234567"]),
    rule("new-relic-mobile-token", "New Relic mobile app token", r"\b[A-Za-z0-9]{42}-NRMA", "New Relic docs, Mobile app tokens")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA-NRMA", // gitleaks:allow
            "aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3-NRMA", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA-NRM", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA NRMA"]),
    rule("new-relic-user-key", "New Relic user key", r"NRAK-[A-Za-z0-9]{27,}", "New Relic docs, New Relic API keys")
        .positive(&[
            "NRAK-AAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "NRAK-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["NRAK-AAAAAAAAAAAAAAAAAAAAAAAAAA", "QRAK-AAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("new-relic-admin-key", "New Relic admin key", r"NRAA-[A-Za-z0-9]{27,}", "New Relic docs, New Relic API keys")
        .positive(&[
            "NRAA-AAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "NRAA-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["NRAA-AAAAAAAAAAAAAAAAAAAAAAAAAA", "QRAA-AAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("new-relic-rest-key", "New Relic REST API key", r"NRRA-[A-Za-z0-9]{27,}", "New Relic docs, New Relic API keys")
        .positive(&[
            "NRRA-AAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "NRRA-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["NRRA-AAAAAAAAAAAAAAAAAAAAAAAAAA", "QRRA-AAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("new-relic-insights-key", "New Relic Insights key", r"NRI[IQ]-[A-Za-z0-9_-]{25,}", "New Relic docs, New Relic API keys")
        .positive(&[
            "NRII-AAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "NRII-aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["NRII-AAAAAAAAAAAAAAAAAAAAAAAA", "QRII-AAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("new-relic-browser-key", "New Relic browser key", r"NR(?:JS|BR)-[a-f0-9]{19,}", "New Relic docs, New Relic API keys")
        .positive(&[
            "NRJS-aaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "NRBR-a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
            "NRJS-a3a3a3a3a3a3a3a3a3a3a3", // gitleaks:allow
        ])
        .negative(&["NRJS-aaaaaaaaaaaaaaaaaa", "QRJS-aaaaaaaaaaaaaaaaaaa"]),
    rule("new-relic-private-location-key", "New Relic private location key", r"NRSP-[A-Za-z0-9]{32,}", "New Relic docs, Synthetics private locations")
        .positive(&[
            "NRSP-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "NRSP-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["NRSP-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "QRSP-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("new-relic-pixie-key", "Pixie key", r"\bpx-(?:api|dep)-[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}", "Pixie docs, API keys, Deploy keys")
        .positive(&[
            "px-api-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
            "px-dep-aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
            "px-api-aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["px-api-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAA", "px-qpi-AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA"]),
    rule("ngrok-token", "ngrok token", r"\b[123][A-Za-z0-9]{26}_[0-9][A-Za-z0-9]{20}\b", "ngrok docs, Authtokens and API keys")
        .positive(&[
            "1AAAAAAAAAAAAAAAAAAAAAAAAAA_0AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "1aB3aB3aB3aB3aB3aB3aB3aB3aB_0aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["1AAAAAAAAAAAAAAAAAAAAAAAAAA_0AAAAAAAAAAAAAAAAAAA", "1AAAAAAAAAAAAAAAAAAAAAAAAAA 0AAAAAAAAAAAAAAAAAAAA"]),
    rule("ngrok-token-legacy", "ngrok token in a command or its configuration", r"(?:ngrok (?:config add-)?authtoken|\bauthtoken:) {1,2}[A-Za-z0-9_]{30,}", "ngrok docs, Agent configuration file: authtoken")
        .positive(&[
            "ngrok config add-authtoken AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ngrok authtoken  aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
            "authtoken: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["ngrok config add-authtoken AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qgrok config add-authtoken AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("nightfall-api-key", "Nightfall API key", r"\bNF-[A-Za-z0-9]{32}\b", "Nightfall docs, API keys")
        .positive(&[
            "NF-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "NF-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["NF-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "QF-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("nomic-api-key", "Nomic API key", r"\bnk-[A-Za-z0-9_-]{43}\b", "Nomic Atlas docs, API keys")
        .positive(&[
            "nk-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "nk-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["nk-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qk-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("notion-token", "Notion token", r"ntn_[A-Za-z0-9]{40,}", "Notion docs, Changes of 2024: token prefix")
        .positive(&[
            "ntn_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ntn_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["ntn_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qtn_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("notion-token-legacy", "Notion token (before 2024)", r"\bsecret_[A-Za-z0-9]{43}\b", "Notion docs, Authorization")
        .unless(check::is_a_name)
        .positive(&[
            "secret_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "secret_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["secret_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qecret_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("notion-session-cookie", "Notion session token", r"\bv0[23]%3A[a-z_]{4,40}%3A[A-Za-z0-9_-]{60,}", "observed: cookie token_v2")
        .positive(&[
            "v02%3Aaaaa%3AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "v02%3Aaaaaaaaaaa%3AaB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["v02%3Aaaaa%3AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "q02%3Aaaaa%3AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("npm-token", "npm token", r"npm_[A-Za-z0-9]{36,}", "GitHub blog, npm has a new access token format")
        .checked(check::github_crc32)
        .positive(&[
            "npm_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "npm_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["npm_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qpm_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("npmrc-auth-token", "npm token in its configuration", r#"_authToken {0,2}= {0,2}['"]?[A-Za-z0-9_+/.~-]{20,}={0,2}"#, "npm docs, npmrc: auth related configuration")
        .positive(&[
            "_authToken=AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "_authToken  =  \"aB3aB3aB3aB3aB3aB3aB3aB==", // gitleaks:allow
        ])
        .negative(&["_authToken=AAAAAAAAAAAAAAAAAAA", " authToken=AAAAAAAAAAAAAAAAAAAA"]),
    rule("npmrc-password", "npm credentials in its configuration", r#":_(?:auth|password) {0,2}= {0,2}['"]?[A-Za-z0-9+/]{12,}={0,2}"#, "npm docs, npmrc: auth related configuration")
        .positive(&[
            ":_auth=AAAAAAAAAAAA", // gitleaks:allow
            ":_password  =  \"aB3aB3aB3aB3aB3==", // gitleaks:allow
            ":_auth  =  \"aB3aB3aB3aB3aB3==", // gitleaks:allow
        ])
        .negative(&[":_auth=AAAAAAAAAAA", " _auth=AAAAAAAAAAAA"]),
    rule("ntlm-hash", "NTLM hashes", r"\b[a-fA-F0-9]{32}:[a-fA-F0-9]{32}:::", "observed: output of pwdump, secretsdump and the like")
        .positive(&[
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA:::", // gitleaks:allow
            "aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB:aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB:::", // gitleaks:allow
        ])
        .negative(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA::", "QAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA:::"]),
    rule("yarn-auth-token", "npm token in Yarn's configuration", r#"npmAuthToken: {1,2}['"]?[A-Za-z0-9_+/.~-]{20,}={0,2}"#, "Yarn docs, yarnrc: npmAuthToken")
        .positive(&[
            "npmAuthToken: AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "npmAuthToken:  \"aB3aB3aB3aB3aB3aB3aB3aB==", // gitleaks:allow
        ])
        .negative(&["npmAuthToken: AAAAAAAAAAAAAAAAAAA", "qpmAuthToken: AAAAAAAAAAAAAAAAAAAA"]),
    rule("nuget-api-key", "NuGet API key", r"\boy2[a-z0-9]{43}\b", "NuGet docs, Scoped API keys")
        .positive(&[
            "oy2aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "oy2a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["oy2aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qy2aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("nuget-config-password", "NuGet configuration password", r#"<add {1,4}key {0,2}= {0,2}"(?:ClearText)?Password" {1,4}value {0,2}= {0,2}"[^"%$<>{\r\n]{8,512}""#, "NuGet docs, nuget.config: packageSourceCredentials")
        .positive(&[
            "<add key=\"ClearTextPassword\" value=\"AAAAAAAA\"", // gitleaks:allow
            "<add    key  =  \"Password\"    value  =  \"aB3aB3aB3aB3aB\"", // gitleaks:allow
            "<add    key  =  \"ClearTextPassword\"    value  =  \"aB3aB3aB3aB3aB\"", // gitleaks:allow
        ])
        .negative(&["<add key=\"ClearTextPassword\" value=\"AAAAAAAA", "<qdd key=\"ClearTextPassword\" value=\"AAAAAAAA\""]),
    rule("nvidia-api-key", "NVIDIA API key", r"nvapi-[A-Za-z0-9_-]{40,}", "NVIDIA NGC docs, API keys")
        .positive(&[
            "nvapi-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "nvapi-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["nvapi-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qvapi-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("nx-cloud-token", "Nx Cloud access token", r#"nxCloudAccessToken": {0,2}"[A-Za-z0-9+/]{40,}={0,2}"#, "Nx docs, Access tokens")
        .positive(&[
            "nxCloudAccessToken\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "nxCloudAccessToken\":  \"aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a==", // gitleaks:allow
        ])
        .negative(&["nxCloudAccessToken\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qxCloudAccessToken\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("nylas-api-key", "Nylas API key", r"\bnyk_v[0-9]_[A-Za-z0-9]{32,}", "Nylas docs, API keys")
        .positive(&[
            "nyk_v0_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "nyk_v0_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["nyk_v0_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qyk_v0_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("oci-preauthenticated-url", "Oracle Cloud pre-authenticated request", r"oraclecloud\.com/p/[A-Za-z0-9_-]{30,128}/n/[A-Za-z0-9_-]{1,64}/b/", "Oracle Cloud docs, Object Storage pre-authenticated requests")
        .positive(&[
            "oraclecloud.com/p/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/n/a/b/", // gitleaks:allow
            "oraclecloud.com/p/aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3/n/aB3aB3a/b/", // gitleaks:allow
        ])
        .negative(&["oraclecloud.com/p/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/n/a/b", "qraclecloud.com/p/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/n/a/b/"]),
    rule("octopus-api-key", "Octopus Deploy API key", r"\bAPI-[A-Z0-9]{25,32}\b", "Octopus Deploy docs, How to create an API key")
        .positive(&[
            "API-AAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "API-B3B3B3B3B3B3B3B3B3B3B3B3B3B3B3B", // gitleaks:allow
        ])
        .negative(&["API-AAAAAAAAAAAAAAAAAAAAAAAA", "QPI-AAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("oculus-token", "Oculus access token", r"\bOC\|[0-9]{10,20}\|[A-Za-z0-9]{20,}", "Meta Horizon docs, Server-to-server basics")
        .positive(&[
            "OC|0000000000|AAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "OC|3333333333333333|aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["OC|0000000000|AAAAAAAAAAAAAAAAAAA", "QC|0000000000|AAAAAAAAAAAAAAAAAAAA"]),
    rule("okta-api-token", "Okta API token", r"SSWS {1,4}[A-Za-z0-9_-]{30,}", "Okta docs, Create an API token")
        .positive(&[
            "SSWS AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "SSWS  aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["SSWS AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "QSWS AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    // After a quotation mark or the like: base64url is full of `-00`.
    rule("omise-key", "Omise key", r"\b[sp]key_(?:test_)?[a-z0-9]{19}\b", "Omise docs, Authentication")
        .positive(&[
            "pkey_test_aaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "pkey_a3a3a3a3a3a3a3a3a3a", // gitleaks:allow
            "pkey_test_a3a3a3a3a3a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["pkey_test_aaaaaaaaaaaaaaaaaa", "qkey_test_aaaaaaaaaaaaaaaaaaa"]),
    rule("onesignal-api-key", "OneSignal API key", r"\bos_v2_[a-z]{2,8}_[a-z2-7]{60,}", "OneSignal docs, Keys and ids")
        .positive(&[
            "os_v2_aa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "os_v2_aaaaaaaa_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["os_v2_aa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qs_v2_aa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("onfido-api-token", "Onfido API token", r"\bapi_(?:live|sandbox|test)(?:_[a-z]{2})?\.(?:[A-Za-z0-9_-]{20,64}|[A-Za-z0-9_-]{8,19}\.[A-Za-z0-9_-]{16,})", "Onfido docs, API tokens")
        .unless(check::is_a_name)
        .positive(&[
            "api_live_aa.AAAAAAAA.AAAAAAAAAAAAAAAA", // gitleaks:allow
            "api_sandbox.aB3aB3aB3aB3aB.aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["api_test.AAAAAAAA", "qpi_live_aa.AAAAAAAA.AAAAAAAAAAAAAAAA", "api_live_aa.AAAAAA"]),
    rule("openai-project-key", "OpenAI project key", r"sk-proj-[A-Za-z0-9_-]{40,}", "observed since 2024: base64url with T3BlbkFJ in the middle")
        .positive(&[
            "sk-proj-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sk-proj-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sk-proj-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qk-proj-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    // Glued to a letter only where 48 characters are all: hashes follow `task-` and `disk-`.
    rule("openai-api-key", "OpenAI API key", r"(?:sk-(?:svcacct|admin|None|service)-[A-Za-z0-9_-]{40,}|sk-[A-Za-z0-9_-]{20}T3BlbkFJ[A-Za-z0-9_-]{20,}|\bsk-[A-Za-z0-9]{48}[A-Za-z0-9_-]{0,}|sk-[A-Za-z0-9]{48}\b)", "OpenAI docs, Authentication; 48 characters at first, service account and admin keys later")
        .positive(&[
            "sk-svcacct-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sk-service-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
            "sk-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["sk-svcacct-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qk-svcacct-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("openai-session-token", "OpenAI session key", r"\bsess-[A-Za-z0-9]{40}\b", "observed: session keys of the platform's pages")
        .unless(check::is_a_name)
        .positive(&[
            "sess-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sess-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sess-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qess-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("openai-ephemeral-key", "OpenAI ephemeral key", r"\bek_[a-f0-9]{32,}", "OpenAI docs, Realtime API: client secrets")
        .positive(&[
            "ek_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", // gitleaks:allow
            "ek_a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a", // gitleaks:allow
        ])
        .negative(&["ek_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "qk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
    rule("openai-refresh-token", "OpenAI refresh token", r"\brt_[A-Za-z0-9_-]{40,128}\.[A-Za-z0-9_-]{40,}", "observed: Codex auth.json")
        .positive(&[
            "rt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "rt_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a.aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["rt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("openai-organization-id", "OpenAI organization id", r"\borg-[A-Za-z0-9]{24}\b", "OpenAI docs, Organizations")
        .unless(check::is_a_name)
        .positive(&[
            "org-AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "org-aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["org-AAAAAAAAAAAAAAAAAAAAAAA", "qrg-AAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("openpipe-api-key", "OpenPipe API key", r"\bopk_[A-Za-z0-9]{32,}", "OpenPipe docs, API keys")
        .positive(&[
            "opk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "opk_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["opk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qpk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("openrouter-api-key", "OpenRouter API key", r"sk-or-(?:v[0-9]-)?[A-Za-z0-9]{32,}", "OpenRouter docs, Authentication")
        .positive(&[
            "sk-or-v0-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sk-or-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "sk-or-v0-aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["sk-or-v0-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qk-or-v0-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("openshift-token", "OpenShift token", r"\bsha256~[A-Za-z0-9_-]{43}", "OpenShift docs, OAuth access tokens")
        .positive(&[
            "sha256~AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "sha256~aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3a", // gitleaks:allow
        ])
        .negative(&["sha256~AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qha256~AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("open-vsx-token", "Open VSX token", r"\bovsx(?:at|p)_[A-Za-z0-9-]{32,}", "Open VSX wiki, Access tokens")
        .positive(&[
            "ovsxat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ovsxp_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "ovsxat_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["ovsxat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qvsxat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("opsgenie-api-key", "Opsgenie API key", r"GenieKey [0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b", "Opsgenie docs, API key authentication")
        .positive(&[
            "GenieKey AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA", // gitleaks:allow
            "GenieKey aB3aB3aB-aB3a-aB3a-aB3a-aB3aB3aB3aB3", // gitleaks:allow
        ])
        .negative(&["GenieKey AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAA", "QenieKey AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA"]),
    rule("orbit-api-token", "Orbit API token", r"\bobu_[A-Za-z0-9_-]{32,}", "Orbit docs, API authentication")
        .positive(&[
            "obu_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "obu_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["obu_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qbu_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("ory-token", "Ory token", r"\bory_(?:pat|wak|apikey|st|at|rt|ac|lo)_[A-Za-z0-9_.-]{24,}", "Ory docs, API keys, Session and OAuth2 tokens")
        .positive(&[
            "ory_pat_AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ory_at_aB3aB3aB3aB3aB3aB3aB3aB3aB3", // gitleaks:allow
            "ory_lo_AAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["ory_pat_AAAAAAAAAAAAAAAAAAAAAAA", "qry_pat_AAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("outline-api-key", "Outline API key", r"\bol_(?:api|whs|at|rt)_[A-Za-z0-9]{32,}", "Outline docs, API authentication")
        .positive(&[
            "ol_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ol_at_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
            "ol_rt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
        ])
        .negative(&["ol_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "ql_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
    rule("overmind-api-key", "Overmind API key", r"\bovm_api_[A-Za-z0-9]{32,}", "Overmind docs, API keys")
        .positive(&[
            "ovm_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", // gitleaks:allow
            "ovm_api_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB", // gitleaks:allow
        ])
        .negative(&["ovm_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "qvm_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]),
];
