//! Questions at a terminal for what neither flags, environment nor file say. What is asked is written to standard error, so
//! that standard output has the result only. What the answers mean is not known here.

use super::config::{FileSettings, RunArgs};
use super::register::{RegisterArgs, is_complete};
use crate::keys::SecretText;
use std::io::{BufRead, IsTerminal, Result, Write};

/// Whether somebody can be asked.
pub(super) fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// The answer to a question; none where the thing is known, or nothing is answered.
fn answer(question: &str, is_known: bool, input: &mut impl BufRead) -> Result<Option<String>> {
    if is_known {
        return Ok(None);
    }
    write!(std::io::stderr(), "{question}: ")?;
    let mut line = String::new();
    input.read_line(&mut line)?;
    Ok(Some(line.trim().to_owned()).filter(|line| !line.is_empty()))
}

/// Whether it is asked for: where somebody wants it, and at a terminal also where something is missing.
pub(super) fn asks_for_registration(
    args: &RegisterArgs,
    env: &impl Fn(&str) -> Option<String>,
    terminal: bool,
) -> bool {
    args.wizard || (terminal && !is_complete(args, env))
}

/// Asks for what a registration needs and is not given.
pub(super) fn ask_for_registration(
    args: &mut RegisterArgs,
    env: &impl Fn(&str) -> Option<String>,
    input: &mut impl BufRead,
) -> Result<()> {
    let known = |name: &str| env(name).is_some();
    let has_host = args.endpoint.is_some();
    let has_tenant = has_host || args.tenant.is_some() || known("DSV_TENANT");
    args.tenant = answer("Tenant", has_tenant, input)?.or(args.tenant.take());
    let has_url = has_host || args.url.is_some() || known("DSV_URL");
    args.url = answer("Domain of the API", has_url, input)?.or(args.url.take());
    let named = args.engine_name.is_some() || known("ENGINE_NAME") || known("DSV_ENGINE");
    args.engine_name = answer("Engine name", named, input)?.or(args.engine_name.take());
    let pooled = args.pool_name.is_some() || known("DSV_POOL");
    args.pool_name = answer("Pool name (empty: a new one)", pooled, input)?.or(args.pool_name.take());
    let has_token = args.user_token.is_some() || known("DSV_TOKEN");
    let token = answer("Token of a user", has_token, input)?;
    args.user_token = token.map(SecretText::new).or(args.user_token.take());
    Ok(())
}

/// What a start needs, and whether it is known.
struct Known {
    endpoint: bool,
    name: bool,
    key: bool,
}

impl Known {
    fn of(args: &RunArgs, file: &FileSettings, env: &impl Fn(&str) -> Option<String>) -> Self {
        let given = |names: &[&str]| {
            names
                .iter()
                .any(|name| env(name).is_some_and(|text| !text.trim().is_empty()))
        };
        Self {
            endpoint: args.endpoint.is_some() || file.endpoint.is_some() || given(&["DSV_ENDPOINT"]),
            name: args.engine_name.is_some() || file.engine_name.is_some() || given(&["ENGINE_NAME", "DSV_ENGINE"]),
            key: args.private_key.is_some()
                || args.private_key_file.is_some()
                || file.private_key.is_some()
                || file.private_key_file.is_some()
                || given(&["DSV_PRIVATE_KEY", "DSV_PRIVATE_KEY_FILE"]),
        }
    }

    fn is_complete(&self) -> bool {
        self.endpoint && self.name && self.key
    }
}

/// The same for the start of an engine.
pub(super) fn asks_for_settings(
    args: &RunArgs,
    file: &FileSettings,
    env: &impl Fn(&str) -> Option<String>,
    terminal: bool,
) -> bool {
    args.wizard || (terminal && !Known::of(args, file, env).is_complete())
}

/// Asks for what a start needs and nothing says.
pub(super) fn ask_for_settings(
    args: &mut RunArgs,
    file: &FileSettings,
    env: &impl Fn(&str) -> Option<String>,
    input: &mut impl BufRead,
) -> Result<()> {
    let known = Known::of(args, file, env);
    args.endpoint = answer("Endpoint of the operator", known.endpoint, input)?.or(args.endpoint.take());
    args.engine_name = answer("Engine name", known.name, input)?.or(args.engine_name.take());
    let key = answer("Private key", known.key, input)?;
    args.private_key = key.map(SecretText::new).or(args.private_key.take());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wizard_asks_for_what_is_not_given() {
        let mut args = RegisterArgs {
            engine_name: Some("given".into()),
            ..RegisterArgs::default()
        };
        let mut input = "acme\nexample.com\n\nthe-token\n".as_bytes();
        ask_for_registration(&mut args, &|_| None, &mut input).unwrap();
        assert_eq!(
            (args.tenant.as_deref(), args.url.as_deref()),
            (Some("acme"), Some("example.com"))
        );
        assert_eq!(
            (args.engine_name.as_deref(), args.pool_name.as_deref()),
            (Some("given"), None)
        );
        assert_eq!(args.user_token, Some(SecretText::new("the-token")));
    }

    #[test]
    fn at_a_terminal_the_wizard_comes_by_itself_where_something_is_missing() {
        let (nothing, asked) = (
            RegisterArgs::default(),
            RegisterArgs {
                wizard: true,
                ..RegisterArgs::default()
            },
        );
        let empty = |_: &str| None;
        let full = |_: &str| Some("given".to_owned());
        assert!(asks_for_registration(&nothing, &empty, true) && asks_for_registration(&asked, &full, false));
        assert!(
            !asks_for_registration(&nothing, &empty, false),
            "a script is told what is missing"
        );
        assert!(!asks_for_registration(&nothing, &full, true));
    }

    #[test]
    fn a_start_asks_for_what_neither_flag_nor_environment_nor_file_says() {
        let file = FileSettings {
            endpoint: Some("stored.example.com".into()),
            ..FileSettings::default()
        };
        let env = |name: &str| (name == "ENGINE_NAME").then(|| "dc-1".to_owned());
        let mut args = RunArgs::default();
        assert!(asks_for_settings(&args, &file, &env, true), "the key is missing");
        assert!(!asks_for_settings(&args, &file, &env, false), "a script is told so");
        ask_for_settings(&mut args, &file, &env, &mut "the-key\nnever read\n".as_bytes()).unwrap();
        assert_eq!(args.private_key, Some(SecretText::new("the-key")));
        assert_eq!((args.endpoint.as_deref(), args.engine_name.as_deref()), (None, None));
        assert!(
            !asks_for_settings(&args, &file, &env, true),
            "nothing is missing any more"
        );
    }
}
