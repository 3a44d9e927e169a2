//! Registering an engine with the token of a user: the API makes its key, shows it once, and keeps the public half.

use super::config::secret;
use crate::channel::link::{DialError, Endpoint, EndpointError, OuterTrust, Proxies, TrustError, secured};
use crate::keys::SecretText;
use axum::body::Body;
use http::header;
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Longest answer that is read.
const MAX_ANSWER: usize = 64 * 1024;
/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// Arguments of `dsv-engine register`. Every one but the last two can be given by environment variable instead.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RegisterArgs {
    /// Tenant: the left-most label of the API's host name [env: DSV_TENANT]
    #[arg(long)]
    pub tenant: Option<String>,
    /// The rest of it, such as example.com or example.com:8443 [env: DSV_URL]
    #[arg(long)]
    pub url: Option<String>,
    /// Host of the API, or host:port, in place of --tenant and --url
    #[arg(long, conflicts_with_all = ["tenant", "url"])]
    pub endpoint: Option<String>,
    /// Access token of a user who may create engines, as `dsv auth` prints it; better given by environment, where a list
    /// of processes does not show it [env: DSV_TOKEN]
    #[arg(long, value_parser = secret)]
    pub user_token: Option<SecretText>,
    /// Name of the new engine [env: ENGINE_NAME or DSV_ENGINE]
    #[arg(long)]
    pub engine_name: Option<String>,
    /// Name of an existing pool; without it a pool with a random name is made [env: DSV_POOL]
    #[arg(long)]
    pub pool_name: Option<String>,
    /// PEM file with CA certificates that are trusted besides the system's [env: DSV_CA_FILE, or the text in DSV_CA_CERT]
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    /// Ask at the terminal for what is not given
    #[arg(long)]
    pub wizard: bool,
    /// File to which the registration is written, if it does not exist [default: ~/.dsv-engine-config.yml]
    #[arg(long)]
    pub config: Option<PathBuf>,
}

/// What came of it. `Debug` does not show the key.
#[derive(Debug)]
pub struct Registration {
    /// Name of the engine.
    pub engine: String,
    /// Its pool.
    pub pool: String,
    /// Where it dials.
    pub endpoint: String,
    /// Its private key.
    pub private_key: SecretText,
    /// CA certificates that the API was trusted by.
    pub ca_file: Option<PathBuf>,
}

impl Registration {
    /// What is shown once.
    pub fn text(&self) -> String {
        format!(
            "engine: {}\npool: {}\nendpoint: {}\nprivateKey: {}\nStore the private key now: nobody can show it again.",
            self.engine,
            self.pool,
            self.endpoint,
            self.private_key.reveal()
        )
    }
}

/// Nothing was registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Something is not given.
    #[error("an engine cannot be registered without {0}")]
    Missing(String),
    /// The host.
    #[error("the address of the API cannot be used")]
    Address(#[source] EndpointError),
    /// Certificates.
    #[error("the API's certificate cannot be checked")]
    Trust(#[from] TrustError),
    /// The way there.
    #[error(
        "the API cannot be reached; the token is sent only to a server whose certificate is trusted, so give --ca-file for a private authority"
    )]
    Dial(#[from] DialError),
    /// The conversation.
    #[error("the API did not answer")]
    Http(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It said no.
    #[error("the API refused with {code}: {message}")]
    Refused {
        /// Status.
        code: u16,
        /// What it said.
        message: String,
    },
    /// The name is taken.
    #[error(
        "an engine called {0} exists already. Either start it with its own private key (DSV_PRIVATE_KEY, or the \
         settings file of its registration), or register under another name (ENGINE_NAME)"
    )]
    Taken(String),
    /// An answer that nobody expects.
    #[error("the API answered without {0}")]
    Answer(&'static str),
}

/// Registers an engine.
pub async fn register(
    args: &RegisterArgs,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Registration, RegisterError> {
    let filled = |name: &str| {
        env(name)
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
    };
    let (host, token, engine) = all_given(args, &filled)?;
    let ca_file = args
        .ca_file
        .clone()
        .or_else(|| filled("DSV_CA_FILE").map(PathBuf::from));
    let api = Api {
        endpoint: Endpoint::from_str(&host).map_err(RegisterError::Address)?,
        // Unlike the channel, which authenticates the operator inside, this carries a token in the open.
        trust: OuterTrust::with(ca_file.as_deref(), filled("DSV_CA_CERT").as_deref(), true)?,
        token: &token,
    };
    let pool = match args.pool_name.clone().or_else(|| filled("DSV_POOL")) {
        Some(pool) => pool,
        None => api.make_pool().await?,
    };
    let made = api.post("engines", &json!({"name": engine, "poolName": pool})).await;
    let made = match made {
        Err(RegisterError::Refused { message, .. }) if message.contains("already exists") => {
            return Err(RegisterError::Taken(engine));
        }
        other => other?,
    };
    let text = |key: &str, what: &'static str| {
        let value = made.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        value.map(str::to_owned).ok_or(RegisterError::Answer(what))
    };
    Ok(Registration {
        engine,
        pool,
        endpoint: text("endpoint", "an endpoint")?,
        private_key: SecretText::new(text("privateKey", "a private key")?),
        ca_file,
    })
}

/// Whether nothing more need be asked for.
pub(super) fn is_complete(args: &RegisterArgs, env: &impl Fn(&str) -> Option<String>) -> bool {
    let filled = |name: &str| env(name).filter(|text| !text.trim().is_empty());
    all_given(args, &filled).is_ok()
}

/// Host, token and name; what is missing is named at once.
fn all_given(
    args: &RegisterArgs,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<(String, SecretText, String), RegisterError> {
    let token = args
        .user_token
        .clone()
        .or_else(|| env("DSV_TOKEN").map(SecretText::new));
    let engine = args.engine_name.clone().or_else(|| env("ENGINE_NAME"));
    let found = (host(args, env), token, engine.or_else(|| env("DSV_ENGINE")));
    let missing = [
        (
            found.0.is_none(),
            "the API's address (--tenant and --url, or DSV_TENANT and DSV_URL)",
        ),
        (found.1.is_none(), "a user's token (DSV_TOKEN or --user-token)"),
        (found.2.is_none(), "the engine's name (--engine-name or ENGINE_NAME)"),
    ];
    let missing = missing
        .into_iter()
        .filter_map(|(missing, what)| missing.then_some(what));
    let missing: Vec<&str> = missing.collect();
    match found {
        (Some(host), Some(token), Some(engine)) => Ok((host, token, engine)),
        _ => Err(RegisterError::Missing(missing.join(" and "))),
    }
}

fn host(args: &RegisterArgs, env: &impl Fn(&str) -> Option<String>) -> Option<String> {
    if let Some(endpoint) = &args.endpoint {
        return Some(endpoint.clone());
    }
    let tenant = args.tenant.clone().or_else(|| env("DSV_TENANT"))?;
    let url = args.url.clone().or_else(|| env("DSV_URL"))?;
    let bare = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    Some(format!("{tenant}.{}", bare.trim_end_matches('/')))
}

struct Api<'a> {
    endpoint: Endpoint,
    trust: OuterTrust,
    token: &'a SecretText,
}

impl Api<'_> {
    async fn make_pool(&self) -> Result<String, RegisterError> {
        let name = format!("pool-{:08x}", rand::random::<u32>());
        self.post("pools", &json!({"name": name})).await?;
        Ok(name)
    }

    async fn post(&self, what: &str, body: &Value) -> Result<Value, RegisterError> {
        let late = |_| RegisterError::Http("it took too long".into());
        tokio::time::timeout(CALL_LIMIT, self.call(what, body))
            .await
            .map_err(late)?
    }

    async fn call(&self, what: &str, body: &Value) -> Result<Value, RegisterError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| RegisterError::Http(error);
        let stream = secured(&self.endpoint, &self.trust, &Proxies::from_env()).await?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| failed(error.into()))?;
        tokio::spawn(connection);
        let request = http::Request::post(format!("/v1/{what}"))
            .header(header::HOST, self.endpoint.to_string())
            .header(header::AUTHORIZATION, self.token.reveal())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .map_err(|error| failed(error.into()))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| failed(error.into()))?;
        let code = answer.status();
        let bytes = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(failed)?;
        let read: Value = serde_json::from_slice(&bytes.to_bytes()).unwrap_or_default();
        if code.is_success() {
            return Ok(read);
        }
        let message = read
            .get("message")
            .and_then(Value::as_str)
            .unwrap_or("it is no API of this kind");
        Err(RegisterError::Refused {
            code: code.as_u16(),
            message: message.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(args: &RegisterArgs, env: &[(&str, &str)]) -> Option<String> {
        host(args, &|name| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_address_comes_from_tenant_and_url_or_from_the_endpoint() {
        let env = [("DSV_TENANT", "acme"), ("DSV_URL", "https://example.com:8443/")];
        assert_eq!(
            found(&RegisterArgs::default(), &env).as_deref(),
            Some("acme.example.com:8443")
        );
        let flag = RegisterArgs {
            tenant: Some("127.0.0".into()),
            url: Some("1:18443".into()),
            ..RegisterArgs::default()
        };
        assert_eq!(found(&flag, &env).as_deref(), Some("127.0.0.1:18443"));
        let endpoint = RegisterArgs {
            endpoint: Some("api.example.com".into()),
            ..RegisterArgs::default()
        };
        assert_eq!(found(&endpoint, &env).as_deref(), Some("api.example.com"));
        assert_eq!(found(&RegisterArgs::default(), &[]), None);
    }

    #[tokio::test]
    async fn all_that_is_missing_is_named_at_once() {
        let error = register(&RegisterArgs::default(), |_| None)
            .await
            .unwrap_err()
            .to_string();
        for part in ["DSV_TENANT", "DSV_TOKEN", "ENGINE_NAME"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_key_is_in_what_is_shown_once_and_nowhere_else() {
        let made = Registration {
            engine: "e".into(),
            pool: "p".into(),
            endpoint: "h".into(),
            private_key: SecretText::new("dsvk1.secret"),
            ca_file: None,
        };
        assert!(made.text().contains("privateKey: dsvk1.secret"));
        assert!(!format!("{made:?}").contains("dsvk1.secret"));
    }
}
