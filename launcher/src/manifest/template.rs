//! What runs in a bottle: the kinds of agents that we know how to start.

use proxy::config::{Auth, AuthScheme, Dlp, OnMatch, Route};

use super::bottle::Provider;
use super::hint;
use super::image::ImageSource;

const KNOWN: [&str; 3] = ["claude", "command", "demo"];
const CLAUDE_TOKEN: &str = "BOT_BOTTLE_CLAUDE_OAUTH_TOKEN";
/// What the agent sees in place of a credential.
const PLACEHOLDER: &str = "bot-bottle-placeholder";

/// An `agent_provider` section, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    Claude {
        token: String,
    },
    Command {
        argv: Vec<String>,
    },
    /// The launcher's own agent, which tries to get out.
    Demo,
}

impl Template {
    pub(super) fn parse(written: &Provider) -> Result<Self, (String, Option<String>)> {
        let only = |what: &str, template: &str| {
            Err((
                format!("agent_provider.{what} has no meaning with the template `{template}`"),
                None,
            ))
        };
        match written.template.as_str() {
            "claude" if written.command.is_some() => only("command", "claude"),
            "claude" => Ok(Self::Claude {
                token: written
                    .auth_token
                    .clone()
                    .unwrap_or_else(|| CLAUDE_TOKEN.into()),
            }),
            "command" if written.auth_token.is_some() => only("auth_token", "command"),
            "command" => match &written.command {
                Some(argv) if argv.first().is_some_and(|program| !program.is_empty()) => {
                    Ok(Self::Command { argv: argv.clone() })
                }
                _ => Err((
                    "agent_provider: the template `command` needs the program to run".into(),
                    Some("write `command: [my-agent, --prompt, \"{prompt}\"]`".into()),
                )),
            },
            "demo" if written.command.is_some() || written.auth_token.is_some() => {
                only("command", "demo")
            }
            "demo" => Ok(Self::Demo),
            "" => Err((
                "agent_provider needs a `template`".into(),
                Some(hint::instead("", &KNOWN)),
            )),
            other => Err((
                format!(
                    "unknown template `{other}`: the templates are {}",
                    KNOWN.join(", ")
                ),
                hint::nearest(other, &KNOWN).map(|name| format!("did you mean `{name}`?")),
            )),
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Claude { .. } => "claude",
            Self::Command { .. } => "command",
            Self::Demo => "demo",
        }
    }

    /// What a container of this provider is made of, where its bottle does not say.
    pub fn image(&self) -> Option<ImageSource> {
        match self {
            Self::Claude { .. } => Some(ImageSource::BuiltIn {
                provider: "claude",
                text: include_str!("../providers/claude.Dockerfile"),
            }),
            Self::Command { .. } => None,
            Self::Demo => Some(ImageSource::Own),
        }
    }

    /// Routes that the provider owns; they stand before the bottle's own.
    pub fn routes(&self) -> Vec<Route> {
        match self {
            Self::Claude { token } => vec![Route {
                host: "api.anthropic.com".into(),
                auth: Some(Auth {
                    scheme: AuthScheme::Bearer,
                    token_ref: token.clone(),
                    name: None,
                }),
                dlp: Dlp {
                    outbound_on_match: Some(OnMatch::Redact),
                    ..Dlp::default()
                },
                ..Route::default()
            }],
            Self::Command { .. } | Self::Demo => Vec::new(),
        }
    }

    /// Variables that the agent needs to believe that it is logged in.
    pub fn environment(&self) -> Vec<(String, String)> {
        match self {
            Self::Claude { .. } => vec![("CLAUDE_CODE_OAUTH_TOKEN".into(), PLACEHOLDER.into())],
            Self::Command { .. } | Self::Demo => Vec::new(),
        }
    }

    /// The command line, or what it lacks. `system` is the body of the agent's manifest.
    pub fn argv(
        &self,
        prompt: Option<&str>,
        headless: bool,
        system: &str,
    ) -> Result<Vec<String>, &'static str> {
        const NO_PROMPT: &str = "this agent cannot start without a prompt; add --prompt TEXT";
        let text = |text: &str| text.to_owned();
        match self {
            Self::Claude { .. } => {
                let mut argv = vec![text("claude")];
                match (prompt, headless) {
                    (Some(prompt), true) => {
                        argv.extend(["-p", prompt, "--dangerously-skip-permissions"].map(text));
                    }
                    (None, true) => return Err(NO_PROMPT),
                    (Some(prompt), false) => argv.push(text(prompt)),
                    (None, false) => {}
                }
                if !system.is_empty() {
                    argv.extend(["--append-system-prompt", system].map(text));
                }
                Ok(argv)
            }
            Self::Command { argv } => {
                if prompt.is_none() && argv.iter().any(|argument| argument.contains("{prompt}")) {
                    return Err(NO_PROMPT);
                }
                let prompt = prompt.unwrap_or_default();
                Ok(argv
                    .iter()
                    .map(|argument| argument.replace("{prompt}", prompt))
                    .collect())
            }
            Self::Demo => Ok(vec![text("__demo-agent")]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let claude = Template::Claude {
            token: CLAUDE_TOKEN.into(),
        };
        assert_eq!(
            claude.argv(Some("fix it"), true, "Be brief.").unwrap(),
            [
                "claude",
                "-p",
                "fix it",
                "--dangerously-skip-permissions",
                "--append-system-prompt",
                "Be brief."
            ]
        );
        assert_eq!(claude.argv(None, false, "").unwrap(), ["claude"]);
        assert!(claude.argv(None, true, "").is_err());
        let command = Template::Command {
            argv: vec!["run".into(), "--p={prompt}".into()],
        };
        assert_eq!(
            command.argv(Some("$(x) {prompt}"), true, "").unwrap(),
            ["run", "--p=$(x) {prompt}"]
        );
        assert!(command.argv(None, true, "").is_err());
    }

    #[test]
    fn an_unknown_template_lists_the_known_ones() {
        let written: Provider = serde_saphyr::from_str("template: cluade").unwrap();
        let (message, hint) = Template::parse(&written).unwrap_err();
        assert_eq!(
            message,
            "unknown template `cluade`: the templates are claude, command, demo"
        );
        assert_eq!(hint.unwrap(), "did you mean `claude`?");
    }
}
