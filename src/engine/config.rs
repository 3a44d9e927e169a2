//! What an engine is told at its start: by flags, which win over the environment, which wins over a file.

use crate::api::names::object_name;
use crate::channel::link::{Endpoint, EndpointError};
use crate::keys::{EngineKey, EngineKeyError, SecretText};
use crate::telemetry::logs::Format;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Between two looks for sessions that outlived their account. One look costs the server half a millisecond.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Arguments of `dsv-engine run`. Every one can be given by environment variable or file instead.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RunArgs {
    /// Operator to connect to: host, host:port or wss://host:port; several separated by commas [env: DSV_ENDPOINT]
    #[arg(long)]
    pub endpoint: Option<String>,
    /// Name of the Engine [env: ENGINE_NAME or DSV_ENGINE]
    #[arg(long)]
    pub engine_name: Option<String>,
    /// The engine's private key; better given by file or environment, where a list of processes does not show it
    /// [env: DSV_PRIVATE_KEY]
    #[arg(long, value_parser = secret, conflicts_with = "private_key_file")]
    pub private_key: Option<SecretText>,
    /// File with the engine's private key [env: DSV_PRIVATE_KEY_FILE]
    #[arg(long)]
    pub private_key_file: Option<PathBuf>,
    /// PEM file with CA certificates that are trusted besides the system's [env: DSV_CA_FILE]
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    /// Refuse a TLS certificate that is not trusted, although the handshake inside authenticates the operator
    /// [env: DSV_REQUIRE_TRUSTED_TLS=true]
    #[arg(long)]
    pub require_trusted_tls: bool,
    /// Address for /livez, /readyz and /metrics, such as 0.0.0.0:8081; none without it [env: DSV_HEALTH_ADDR]
    #[arg(long)]
    pub health_addr: Option<String>,
    /// Seconds between two looks for sessions that outlived their account, 1 to 3600 [env: DSV_SWEEP_EVERY] [default: 30]
    #[arg(long)]
    pub sweep_every: Option<String>,
    /// Form of the log lines [env: DSV_LOG_FORMAT] [default: text]
    #[arg(long, value_enum)]
    pub log_format: Option<Format>,
    /// YAML file with the same settings in camelCase: endpoint, engineName, privateKeyFile, ... [env: DSV_CONFIG]
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Ask at the terminal for what is not given
    #[arg(long)]
    pub wizard: bool,
}

#[allow(clippy::unnecessary_wraps, reason = "the form that clap asks for")]
pub(super) fn secret(text: &str) -> Result<SecretText, Infallible> {
    Ok(SecretText::new(text))
}

/// The file. Unknown names are errors: a mistyped setting must not be ignored silently.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) engine_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) private_key: Option<SecretText>,
    #[serde(skip_serializing)]
    pub(super) private_key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca_file: Option<PathBuf>,
    #[serde(skip_serializing)]
    pub(super) require_trusted_tls: Option<bool>,
    #[serde(skip_serializing)]
    pub(super) health_addr: Option<String>,
    #[serde(skip_serializing)]
    pub(super) sweep_every: Option<u64>,
    #[serde(skip_serializing)]
    pub(super) log_format: Option<Format>,
}

/// What an engine runs with.
#[derive(Debug)]
pub struct Settings {
    /// Operators, in the order in which they are tried.
    pub endpoints: Vec<Endpoint>,
    /// Name of the Engine.
    pub engine_name: String,
    /// Its key.
    pub key: EngineKey,
    /// Further CA certificates.
    pub ca_file: Option<PathBuf>,
    /// Whether an untrusted certificate ends the connection.
    pub require_trusted_tls: bool,
    /// Where to serve health and metrics.
    pub health_addr: Option<SocketAddr>,
    /// Between two looks for sessions that outlived their account.
    pub sweep_every: Duration,
    /// Form of the log lines.
    pub log_format: Format,
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Something is not given at all.
    #[error("the engine cannot start without {0}")]
    Missing(String),
    /// A file.
    #[error("the {what} {} cannot be read", path.display())]
    File {
        /// Which one.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The settings file's content. The text itself is not repeated: it may hold the key.
    #[error("the settings file {} is not understood: line {line}, column {column}: {what}", path.display())]
    Yaml {
        /// Where.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// An endpoint.
    #[error("an endpoint cannot be used")]
    Endpoint(#[source] EndpointError),
    /// The key.
    #[error("the private key cannot be used")]
    Key(#[source] EngineKeyError),
    /// Any other value.
    #[error("{setting} is {value:?}, but must be {expected}")]
    Value {
        /// Flag and variable.
        setting: &'static str,
        /// What was given.
        value: String,
        /// What is needed.
        expected: &'static str,
    },
}

impl Settings {
    /// Brings flags, environment and file together. `env` reads a variable; empty ones count as not set.
    pub fn load(args: RunArgs, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let env = |name: &str| {
            env(name)
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
        };
        let file = read_file(args.config.clone().or_else(|| env("DSV_CONFIG").map(PathBuf::from)))?;
        let endpoint = args.endpoint.or_else(|| env("DSV_ENDPOINT")).or(file.endpoint);
        let name = args
            .engine_name
            .or_else(|| env("ENGINE_NAME"))
            .or_else(|| env("DSV_ENGINE"))
            .or(file.engine_name);
        let from_env = || {
            pick(
                env("DSV_PRIVATE_KEY").map(SecretText::new),
                env("DSV_PRIVATE_KEY_FILE").map(Into::into),
            )
        };
        let key = pick(args.private_key, args.private_key_file)
            .or_else(from_env)
            .or_else(|| pick(file.private_key, file.private_key_file));
        let (endpoint, engine_name, key) = all_given(endpoint, name, key)?;
        let required = env("DSV_REQUIRE_TRUSTED_TLS")
            .map(|text| parse_bool(&text))
            .transpose()?;
        let health = args.health_addr.or_else(|| env("DSV_HEALTH_ADDR")).or(file.health_addr);
        let sweep = args.sweep_every.or_else(|| env("DSV_SWEEP_EVERY"));
        let sweep = sweep.or_else(|| file.sweep_every.map(|seconds| seconds.to_string()));
        let format = env("DSV_LOG_FORMAT").map(|text| parse_format(&text)).transpose()?;
        Ok(Self {
            endpoints: parse_endpoints(&endpoint)?,
            engine_name: parse_name(engine_name)?,
            key: EngineKey::parse(&key.read()?).map_err(ConfigError::Key)?,
            ca_file: args
                .ca_file
                .or_else(|| env("DSV_CA_FILE").map(PathBuf::from))
                .or(file.ca_file),
            require_trusted_tls: args.require_trusted_tls || required.or(file.require_trusted_tls).unwrap_or_default(),
            health_addr: health.map(|text| parse_address(&text)).transpose()?,
            sweep_every: sweep.map_or(Ok(SWEEP_EVERY), |text| parse_seconds(&text))?,
            log_format: args.log_format.or(format).or(file.log_format).unwrap_or_default(),
        })
    }
}

/// Where the private key comes from.
enum KeySource {
    Text(SecretText),
    File(PathBuf),
}

fn pick(text: Option<SecretText>, file: Option<PathBuf>) -> Option<KeySource> {
    text.map(KeySource::Text).or(file.map(KeySource::File))
}

impl KeySource {
    fn read(self) -> Result<SecretText, ConfigError> {
        match self {
            Self::Text(text) => Ok(text),
            Self::File(path) => read("private key file", path).map(SecretText::new),
        }
    }
}

fn all_given(
    endpoint: Option<String>,
    name: Option<String>,
    key: Option<KeySource>,
) -> Result<(String, String, KeySource), ConfigError> {
    let missing: Vec<&str> = [
        (endpoint.is_none(), "an endpoint (--endpoint or DSV_ENDPOINT)"),
        (name.is_none(), "its name (--engine-name or ENGINE_NAME)"),
        (
            key.is_none(),
            "its private key (--private-key-file, DSV_PRIVATE_KEY_FILE, DSV_PRIVATE_KEY or --private-key)",
        ),
    ]
    .into_iter()
    .filter_map(|(missing, what)| missing.then_some(what))
    .collect();
    match (endpoint, name, key) {
        (Some(endpoint), Some(name), Some(key)) => Ok((endpoint, name, key)),
        _ => Err(ConfigError::Missing(missing.join(" and "))),
    }
}

fn read(what: &'static str, path: PathBuf) -> Result<String, ConfigError> {
    std::fs::read_to_string(&path).map_err(|source| ConfigError::File { what, path, source })
}

pub(super) fn read_file(path: Option<PathBuf>) -> Result<FileSettings, ConfigError> {
    let Some(path) = path else {
        return Ok(FileSettings::default());
    };
    let text = read("settings file", path.clone())?;
    if text.trim().is_empty() {
        return Ok(FileSettings::default());
    }
    serde_saphyr::from_str(&text).map_err(|error| {
        let at = error.location();
        let (line, column) = at.map_or((0, 0), |at| (at.line(), at.column()));
        let what = "this is no setting, or its value has another form; see dsv-engine run --help";
        ConfigError::Yaml {
            path,
            line,
            column,
            what,
        }
    })
}

fn parse_endpoints(text: &str) -> Result<Vec<Endpoint>, ConfigError> {
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    let endpoints: Vec<Endpoint> = parts
        .map(Endpoint::from_str)
        .collect::<Result<_, _>>()
        .map_err(ConfigError::Endpoint)?;
    if endpoints.is_empty() {
        Err(ConfigError::Endpoint(EndpointError::Empty))
    } else {
        Ok(endpoints)
    }
}

fn parse_name(name: String) -> Result<String, ConfigError> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    if (1..=253).contains(&name.len()) && name.bytes().all(good) {
        return Ok(name);
    }
    // One that a DSV client gave: its Engine object has another name.
    let given = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if (1..=100).contains(&name.len()) && name.bytes().all(given) {
        return Ok(object_name(&name));
    }
    let expected = "the name of an Engine object: lower-case letters, digits, dashes and dots";
    Err(ConfigError::Value {
        setting: "--engine-name (ENGINE_NAME)",
        value: name,
        expected,
    })
}

fn parse_address(text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| ConfigError::Value {
        setting: "--health-addr (DSV_HEALTH_ADDR)",
        value: text.to_owned(),
        expected: "an address and a port, such as 0.0.0.0:8081",
    })
}

fn parse_seconds(text: &str) -> Result<Duration, ConfigError> {
    let seconds = text.parse().ok().filter(|seconds| (1..=3600).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| ConfigError::Value {
        setting: "--sweep-every (DSV_SWEEP_EVERY)",
        value: text.to_owned(),
        expected: "a number of seconds from 1 to 3600",
    })
}

fn parse_bool(text: &str) -> Result<bool, ConfigError> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(ConfigError::Value {
            setting: "DSV_REQUIRE_TRUSTED_TLS",
            value: text.to_owned(),
            expected: "true or false",
        }),
    }
}

fn parse_format(text: &str) -> Result<Format, ConfigError> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(ConfigError::Value {
            setting: "DSV_LOG_FORMAT",
            value: text.to_owned(),
            expected: "text or json",
        }),
    }
}

#[cfg(test)]
mod tests;
