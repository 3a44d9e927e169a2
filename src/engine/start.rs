//! How an engine comes by its settings at its start: given ones, those of its registration, or a registration right now.

use super::config::{self, ConfigError, FileSettings, RunArgs, Settings};
use super::register::{RegisterArgs, RegisterError, Registration, register};
use super::wizard;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Name of the settings file in the home folder.
const FILE: &str = ".dsv-engine-config.yml";

/// The engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Registration.
    #[error("the engine could not be registered")]
    Register(#[from] RegisterError),
    /// The terminal.
    #[error("nothing could be asked at the terminal")]
    Terminal(#[source] std::io::Error),
}

impl StartError {
    /// Whether the same again, at once, would fail again and disturb others: a service manager should not restart it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Register(RegisterError::Taken(_)))
    }
}

/// Settings from flags, environment and file. Where a user's token is given and no key, the engine is registered first,
/// unless the settings file holds a registration of that name; `show` is called with what is shown only once.
pub async fn settings(
    mut args: RunArgs,
    env: impl Fn(&str) -> Option<String>,
    show: impl FnOnce(&Registration),
) -> Result<Settings, StartError> {
    let filled = |name: &str| env(name).filter(|text| !text.trim().is_empty());
    let path = args.config.clone().or_else(|| filled("DSV_CONFIG").map(PathBuf::from));
    let path = path.or_else(|| home_file(&env));
    let stored = path.clone().filter(|path| path.exists());
    let has_key = args.private_key.is_some() || args.private_key_file.is_some();
    let has_key = has_key
        || filled("DSV_PRIVATE_KEY")
            .or_else(|| filled("DSV_PRIVATE_KEY_FILE"))
            .is_some();
    if has_key || filled("DSV_TOKEN").is_none() {
        let known = config::read_file(stored.clone())?;
        if wizard::asks_for_settings(&args, &known, &env, wizard::is_terminal()) {
            wizard::ask_for_settings(&mut args, &known, &env, &mut std::io::stdin().lock())
                .map_err(StartError::Terminal)?;
        }
        args.config = args.config.or(stored);
        return Ok(Settings::load(args, &env)?);
    }
    let name = args
        .engine_name
        .clone()
        .or_else(|| filled("ENGINE_NAME"))
        .or_else(|| filled("DSV_ENGINE"));
    let known = config::read_file(stored.clone())?.engine_name;
    if known.is_none() || (name.is_some() && known != name) {
        let asked = RegisterArgs {
            engine_name: name,
            ca_file: args.ca_file.clone(),
            ..RegisterArgs::default()
        };
        let made = register(&asked, &env).await?;
        show(&made);
        if let Some(path) = &path
            && let Err(error) = store(path, &made, true)
        {
            // The engine works; only its next start will need the key.
            tracing::warn!(path = %path.display(), %error, "the registration could not be stored");
        }
        args.engine_name = Some(made.engine.clone());
        args.endpoint = args.endpoint.or(Some(made.endpoint.clone()));
        args.private_key = Some(made.private_key.clone());
    }
    args.config = args.config.or_else(|| path.filter(|path| path.exists()));
    Ok(Settings::load(args, &env)?)
}

/// `dsv-engine register`: registers and stores. Returns the registration, and where it is stored, if it is.
pub async fn register_and_store(
    mut args: RegisterArgs,
    env: impl Fn(&str) -> Option<String>,
) -> Result<(Registration, Option<PathBuf>), StartError> {
    if wizard::asks_for_registration(&args, &env, wizard::is_terminal()) {
        wizard::ask_for_registration(&mut args, &env, &mut std::io::stdin().lock()).map_err(StartError::Terminal)?;
    }
    let made = register(&args, &env).await?;
    let path = args.config.clone().or_else(|| home_file(&env));
    let stored = path.filter(|path| store(path, &made, false).is_ok());
    Ok((made, stored))
}

pub(super) fn home_file(env: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    env("HOME")
        .filter(|home| !home.is_empty())
        .map(|home| Path::new(&home).join(FILE))
}

/// Writes the settings file, readable by its owner only.
fn store(path: &Path, made: &Registration, replace: bool) -> std::io::Result<()> {
    let settings = FileSettings {
        endpoint: Some(made.endpoint.clone()),
        engine_name: Some(made.engine.clone()),
        private_key: Some(made.private_key.clone()),
        ca_file: made.ca_file.clone(),
        ..FileSettings::default()
    };
    let text = serde_saphyr::to_string(&settings).map_err(std::io::Error::other)?;
    if replace && path.exists() {
        std::fs::remove_file(path)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{EngineKey, RootHash};
    use std::os::unix::fs::PermissionsExt;

    fn made(name: &str) -> Registration {
        let key = EngineKey::generate(RootHash::from_bytes([9; 32]).unwrap(), "acme").unwrap();
        Registration {
            engine: name.into(),
            pool: "p".into(),
            endpoint: "api.example.com".into(),
            private_key: key.text(),
            ca_file: None,
        }
    }

    #[tokio::test]
    async fn a_stored_registration_is_used_again_and_a_key_wins_over_a_token() {
        let home = std::env::temp_dir().join(format!("dsv-engine-home-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&home).unwrap();
        let (stored, other) = (made("dc-1"), made("dc-2"));
        let path = home.join(FILE);
        store(&path, &stored, false).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(
            store(&path, &other, false).is_err(),
            "a registration is not overwritten"
        );
        let env = |more: &[(&str, &str)]| {
            let mut all = vec![("HOME".to_owned(), home.display().to_string())];
            all.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
            move |name: &str| all.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
        };
        let never = |_: &Registration| panic!("nothing is to be registered");
        // After a restart the stored registration is used.
        let token = [
            ("DSV_TOKEN", "t"),
            ("ENGINE_NAME", "dc-1"),
            ("DSV_TENANT", "127.0.0"),
            ("DSV_URL", "1:1"),
        ];
        let again = settings(RunArgs::default(), env(&token), never).await.unwrap();
        assert_eq!(again.key.text(), stored.private_key);
        // A key that is given wins.
        let key = other.private_key.reveal();
        let given = [
            ("DSV_TOKEN", "t"),
            ("DSV_PRIVATE_KEY", key),
            ("ENGINE_NAME", "dc-2"),
            ("DSV_ENDPOINT", "h"),
        ];
        let other_one = settings(RunArgs::default(), env(&given), never).await.unwrap();
        assert_eq!(other_one.key.text(), other.private_key);
        // Flags beat the file.
        let flag = RunArgs {
            endpoint: Some("flag.example.com".into()),
            ..RunArgs::default()
        };
        let flagged = settings(flag, env(&[]), never).await.unwrap();
        assert_eq!(flagged.endpoints[0].to_string(), "flag.example.com:443");
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn a_name_that_is_taken_is_no_reason_to_try_again() {
        let taken = StartError::Register(RegisterError::Taken("dc-1".into()));
        assert!(taken.is_final());
        let text = RegisterError::Taken("dc-1".into()).to_string();
        assert!(text.contains("DSV_PRIVATE_KEY") && text.contains("ENGINE_NAME"));
    }
}
