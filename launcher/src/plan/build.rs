//! From manifests to a [`Plan`].

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;

use proxy::config::{Ca, Egress, File as SidecarFile, ProxyAuth};
use proxy::policy::Policy;

use super::{Git, Plan, PlanError, Program};
use crate::backend::Chosen;
use crate::environment::{self, PROXY_USER};
use crate::manifest::{EnvValue, Template};
use crate::place::{Mount, PlaceError, Private, Workspace};
use crate::state::{Alias, BottleDir, Name, Slug, State};

/// The sidecar's own prefix (`proxy::secrets::PREFIX`) for credentials.
const CREDENTIAL: &str = "EGRESS_TOKEN_";
pub const PROXY_PASSWORD: &str = "BOT_BOTTLE_PROXY_TOKEN";
pub const SENSITIVE_PREFIXES: &str = "BOT_BOTTLE_SENSITIVE_PREFIXES";

/// What was chosen, from manifests or by the demo.
#[derive(Debug)]
pub struct Draft {
    pub agent: Name,
    pub agent_file: Option<PathBuf>,
    pub bottle: String,
    pub bottle_file: Option<PathBuf>,
    pub backend: Chosen,
    pub template: Template,
    pub system_prompt: String,
    pub prompt: Option<String>,
    pub headless: bool,
    pub workspace: PathBuf,
    pub env: BTreeMap<String, EnvValue>,
    /// With the line of the manifest.
    pub mounts: Vec<(u64, String)>,
    pub egress: Egress,
    pub git: Git,
    pub notes: Vec<String>,
}

pub fn build(draft: Draft, state: &State, private: &Private) -> Result<Plan, PlanError> {
    let slug = Slug::random(&draft.agent)?;
    let workspace = Workspace::parse(&draft.workspace, private)?;
    let mut mounts = Vec::new();
    for (line, text) in &draft.mounts {
        let mount = Mount::parse(text, private, &workspace)
            .map_err(|error| in_file(error, &draft.bottle_file, *line))?;
        mounts.push(mount);
    }
    let argv = draft
        .template
        .argv(
            draft.prompt.as_deref(),
            draft.headless,
            &draft.system_prompt,
        )
        .map_err(PlanError::Prompt)?;
    let program = match draft.template {
        Template::Demo => Program::Own(argv),
        Template::Claude { .. } | Template::Command { .. } => Program::Command(argv),
    };

    let mut env: BTreeMap<String, String> = draft.template.environment().into_iter().collect();
    let mut env_from_host = BTreeMap::new();
    for (name, value) in draft.env {
        match value {
            EnvValue::Plain(text) => {
                env.insert(name, text);
            }
            EnvValue::FromHost(variable) => {
                env_from_host.insert(name, variable);
            }
        }
    }

    let mut egress = draft.egress;
    egress.routes.splice(0..0, draft.template.routes());
    let mut credentials = BTreeMap::new();
    for auth in egress
        .routes
        .iter_mut()
        .filter_map(|route| route.auth.as_mut())
    {
        let own = format!("{CREDENTIAL}{}", auth.token_ref);
        credentials.insert(own.clone(), std::mem::replace(&mut auth.token_ref, own));
    }
    let policy = Policy::compile(&egress)?;

    let sensitive_prefixes = variable(SENSITIVE_PREFIXES);
    let known_secrets = match &sensitive_prefixes {
        Some(list) => matching(list),
        None => Default::default(),
    };
    let missing: Vec<String> = env_from_host
        .values()
        .chain(credentials.values())
        .filter(|name| variable(name).is_none())
        .cloned()
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    if !missing.is_empty() {
        let file = draft.bottle_file.unwrap_or_default();
        return Err(PlanError::MissingVariables {
            file,
            names: missing,
        });
    }

    let (run, logs, _) = BottleDir::planned(state, &slug);
    let sidecar = SidecarFile {
        bottle: slug.to_string(),
        listen: vec![format!("unix:{}", run.join("egress.sock").display())],
        proxy_auth: ProxyAuth::Basic {
            username: PROXY_USER.into(),
            password_ref: PROXY_PASSWORD.into(),
        },
        ca: Ca {
            certificate: run.join("ca.pem"),
            key: None,
        },
        audit: logs.join("audit.jsonl"),
        explain: Some("launcher why {id}".into()),
        approve: Some("launcher approve {id}".into()),
        confine: true,
        egress,
        ..SidecarFile::default()
    };
    Ok(Plan {
        alias: Alias::peek(&state.aliases()),
        slug,
        agent: draft.agent.to_string(),
        agent_file: draft.agent_file,
        bottle: draft.bottle,
        bottle_file: draft.bottle_file,
        backend: draft.backend.kind,
        strength: draft.backend.strength(),
        why: draft.backend.why,
        container: draft.backend.container,
        machine: draft.backend.machine,
        workspace,
        program,
        headless: draft.headless,
        mounts,
        env,
        env_from_host,
        credentials,
        known_secrets,
        sensitive_prefixes,
        git: draft.git,
        routes: policy.table(),
        policy: policy.hash().to_string(),
        sidecar,
        notes: draft.notes,
    })
}

fn in_file(error: PlaceError, file: &Option<PathBuf>, line: u64) -> PlaceError {
    let place = |text: String| match file {
        Some(file) => format!("{text} ({}:{line})", file.display()),
        None => text,
    };
    match error {
        PlaceError::Mount { text, source } => PlaceError::Mount {
            text: place(text),
            source,
        },
        PlaceError::MountRefused { text, reason } => PlaceError::MountRefused {
            text: place(text),
            reason,
        },
        other => other,
    }
}

/// A variable of the host that is set and not empty.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The host's variables that are secrets by the user's own rule.
fn matching(prefixes: &str) -> std::collections::BTreeSet<String> {
    let prefixes: Vec<&str> = prefixes
        .split(',')
        .map(str::trim)
        .filter(|prefix| !prefix.is_empty())
        .collect();
    env::vars_os()
        .filter_map(|(name, value)| {
            (!value.is_empty())
                .then(|| name.into_string().ok())
                .flatten()
        })
        .filter(|name| name != SENSITIVE_PREFIXES && environment::check_name(name).is_ok())
        .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        .collect()
}
