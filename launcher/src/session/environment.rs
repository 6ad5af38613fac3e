//! The environments of the sidecar and of the agent, whole: neither inherits anything.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use proxy::secrets::{ALLOW_TIMEOUT, CANARY};

use super::{Options, SessionError};
use crate::environment::{self, AGENT_HOME, AGENT_USER};
use crate::operator::TOKEN_VARIABLE;
use crate::plan::{PROXY_PASSWORD, Plan, PlanError, SENSITIVE_PREFIXES, variable};
use crate::state::Alias;

/// What a thief would look for; one of them is the canary's name in the agent's environment.
const PLAUSIBLE: [&str; 8] = [
    "DEPLOY_KEY",
    "INTERNAL_API_TOKEN",
    "PROD_DB_PASSWORD",
    "REGISTRY_TOKEN",
    "RELEASE_SIGNING_SECRET",
    "SERVICE_ACCOUNT_KEY",
    "STAGING_API_SECRET",
    "VAULT_UNSEAL_KEY",
];

/// Made for one bottle, and gone with it.
pub struct Secrets {
    pub proxy: String,
    /// Of the control API, for the operator.
    pub control: String,
    /// Name and value.
    pub canary: (String, String),
}

impl Secrets {
    pub fn generate(plan: &Plan) -> Result<Self, SessionError> {
        let free: Vec<&str> = PLAUSIBLE
            .iter()
            .copied()
            .filter(|name| !plan.env.contains_key(*name) && !plan.env_from_host.contains_key(*name))
            .collect();
        let choice = usize::from(random::<1>()?[0]) % free.len().max(1);
        let name = free.get(choice).copied().unwrap_or("BACKUP_KEY");
        Ok(Self {
            proxy: HEXLOWER.encode(&random::<32>()?),
            control: HEXLOWER.encode(&random::<32>()?),
            canary: (name.to_owned(), HEXLOWER.encode(&random::<20>()?)),
        })
    }
}

pub fn sidecar(
    plan: &Plan,
    secrets: &Secrets,
    options: &Options,
) -> Result<Vec<(String, String)>, SessionError> {
    let mut env = BTreeMap::new();
    for name in &plan.known_secrets {
        // Unset since the plan was made: there is nothing to look for.
        if let Some(value) = variable(name) {
            env.insert(name.clone(), value);
        }
    }
    if let Some(patience) = variable(ALLOW_TIMEOUT) {
        env.insert(ALLOW_TIMEOUT.to_owned(), patience);
    }
    if let Some(prefixes) = &plan.sensitive_prefixes {
        env.insert(SENSITIVE_PREFIXES.to_owned(), prefixes.clone());
    }
    for (name, host) in &plan.credentials {
        env.insert(name.clone(), required(plan, host)?);
    }
    env.extend(options.sidecar_env.iter().cloned());
    // Last: nothing that was read from the host may stand in their place.
    env.insert(PROXY_PASSWORD.to_owned(), secrets.proxy.clone());
    env.insert(TOKEN_VARIABLE.to_owned(), secrets.control.clone());
    env.insert(CANARY.to_owned(), secrets.canary.1.clone());
    Ok(env.into_iter().collect())
}

pub fn agent(
    plan: &Plan,
    alias: &Alias,
    secrets: &Secrets,
    options: &Options,
) -> Result<Vec<(String, String)>, SessionError> {
    let mut env = BTreeMap::from([
        (
            "LANG".to_owned(),
            variable("LANG").unwrap_or_else(|| "C.UTF-8".into()),
        ),
        ("PATH".to_owned(), environment::PATH.to_owned()),
        (
            "TERM".to_owned(),
            variable("TERM").unwrap_or_else(|| "dumb".into()),
        ),
    ]);
    if let Some(colours) = variable("COLORTERM") {
        env.insert("COLORTERM".into(), colours);
    }
    env.extend(plan.env.clone());
    for (name, host) in &plan.env_from_host {
        env.insert(name.clone(), required(plan, host)?);
    }
    env.extend(options.agent_env.iter().cloned());
    let (name, value) = &secrets.canary;
    env.insert(name.clone(), value.clone());
    env.insert("HOME".into(), AGENT_HOME.into());
    env.insert("USER".into(), AGENT_USER.into());
    env.insert("LOGNAME".into(), AGENT_USER.into());
    env.extend(environment::network(alias.address, &secrets.proxy));
    Ok(env.into_iter().collect())
}

fn required(plan: &Plan, host: &str) -> Result<String, SessionError> {
    variable(host).ok_or_else(|| {
        PlanError::MissingVariables {
            file: plan.bottle_file.clone().unwrap_or_default(),
            names: vec![host.to_owned()],
        }
        .into()
    })
}

fn random<const N: usize>() -> Result<[u8; N], SessionError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| SessionError::Random(error.to_string()))?;
    Ok(bytes)
}
