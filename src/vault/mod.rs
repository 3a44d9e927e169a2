//! The REST API in the dialect of DevOps Secrets Vault, on all replicas.
//!
//! Storage is Kubernetes itself: a tenant is a namespace, secrets are Secrets of a type of their own, pools, engines and
//! dynamic secrets are the custom resources. Lists come from watches that hold metadata only; values are read live. Nothing
//! here runs SQL, holds engines or decides about accounts: reading a dynamic secret makes a lease and waits for its status.

mod absent;
mod admin;
mod audit;
mod body;
mod bootstrap;
mod call;
mod caller;
mod config;
mod engines;
mod first;
mod groups;
mod ids;
mod index;
mod janitor;
mod kubernetes;
mod login;
pub mod openapi;
mod page;
mod path;
mod ping;
mod policies;
mod policy;
mod pools;
mod records;
mod reply;
mod roles;
mod secret_server;
mod secrets;
mod serve;
mod tenants;
mod time;
mod tls;
mod tokens;
mod users;

pub use audit::{Audit, ChainError, verify};
pub use reply::{Refusal, Reply};
pub use serve::{VaultError, run};

use crate::cluster::watched::Namespaces;
use crate::keys::SecretText;
use audit::Noting;
use call::Call;
use caller::{Caller, Compiled};
use http::StatusCode;
use index::Index;
use kube::Client;
use records::Known;
use secrets::{Listed, Shared, Space};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tenants::Tenant;
use tokens::Tokens;
use tokio::sync::Semaphore;

/// How long a login waits for its turn to be hashed.
const HASHING_WAIT: Duration = Duration::from_secs(10);

/// What the installer decided.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address to listen on.
    pub address: String,
    /// The operator's namespace.
    pub home: String,
    /// Name of the installation in it.
    pub release: String,
    /// Namespaces that are served; others are no tenants.
    pub served: Namespaces,
    /// Namespace that is meant where a host names none.
    pub default_tenant: Option<String>,
    /// Where engines dial.
    pub endpoints: Vec<String>,
    /// Names and addresses by which clients reach the API.
    pub names: Vec<String>,
    /// PEM files of the certificate and its key; without them the installation's own authority signs one.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The stream of what was done.
    pub audit: Arc<Audit>,
    /// Between two looks at whether something is to be pushed; no tenant's interval is shorter.
    pub sync_period: Duration,
}

/// The API of one replica.
pub struct Vault {
    client: Client,
    settings: Settings,
    /// Name of the installation in tokens.
    issuer: String,
    tokens: Tokens,
    namespaces: Index<tenants::Space>,
    records: Index<Known>,
    secrets: Index<Listed>,
    dynamic: Index<Listed>,
    /// Accounts that several reads share.
    shared: Shared,
    rules: RwLock<HashMap<String, Compiled>>,
    /// Passwords are hashed two at a time.
    hashing: Arc<Semaphore>,
    /// Whom the API server is asked about at once before he is let in: such calls cost nobody anything to make.
    reviewing: Semaphore,
    /// A hash that no password fits, for users who do not exist.
    nobody: SecretText,
}

impl Vault {
    fn is_ready(&self) -> bool {
        self.namespaces.is_filled() && self.records.is_filled() && self.secrets.is_filled() && self.dynamic.is_filled()
    }

    async fn until_ready(&self) {
        self.namespaces.until_filled().await;
        self.records.until_filled().await;
        self.secrets.until_filled().await;
        self.dynamic.until_filled().await;
    }

    fn tenant(&self, host: Option<&str>) -> Option<Tenant> {
        let found = tenants::resolve(&self.namespaces, self.settings.default_tenant.as_deref(), host);
        found.filter(|tenant| self.settings.served.has(&tenant.namespace))
    }

    /// The shortest ttl of a tenant's dynamic secrets, in seconds.
    fn min_ttl(&self, tenant: &Tenant) -> u64 {
        tenants::min_ttl(&self.namespaces, &tenant.namespace)
    }

    /// Refuses a call of which nobody could tell afterwards.
    fn can_note(&self) -> Result<(), Refusal> {
        self.settings.audit.check().map_err(|error| {
            tracing::error!(%error, "calls are refused, since the audit file takes nothing");
            Refusal::new(
                503,
                "this call could not be written to the audit file, so it is not answered; ask the administrator",
            )
        })
    }

    async fn answer(&self, call: &Call) -> Result<Reply, Refusal> {
        self.can_note()?;
        let mut noting = Noting::new(&self.settings.audit, call);
        let outcome = self.route(call, &mut noting.principal).await;
        noting.ended(&outcome);
        if let Err(refusal) = &outcome {
            tracing::debug!(
                method = %call.method,
                area = call.area,
                code = refusal.code,
                message = refusal.message,
                "a call was refused"
            );
        }
        match outcome {
            Err(refusal) if call.is_secret_server() => Ok(secret_server::shown(refusal)),
            other => other,
        }
    }

    async fn route(&self, call: &Call, principal: &mut String) -> Result<Reply, Refusal> {
        let is_served = openapi::serves(&call.method, &call.path, call.has_body());
        match (call.method.as_str(), call.area.as_str(), call.segments().as_slice()) {
            _ if !is_served => {}
            ("POST", "token", []) => return self.token(call).await,
            ("GET", "heartbeat", []) => return self.heartbeat(call).await,
            ("POST", "initialize", []) => return self.initialize(call).await,
            ("GET", "clients", ["bootstrap", _]) => return self.bootstrap(call).await,
            ("POST", "revoke", [_]) => return self.revoke_token(call).await,
            ("POST", secret_server::LOGIN, ["token"]) => return self.secret_server_token(call).await,
            _ => {}
        }
        let caller = self.caller(call).await?;
        caller.subject.clone_into(principal);
        if caller.is_kubernetes() && !["secrets", "pools", "engines"].contains(&call.area.as_str()) {
            return Err(Refusal::forbidden());
        }
        if !is_served {
            return Err(absent::refusal(call));
        }
        self.answer_known(call, &caller).await
    }

    /// Answers somebody who is known.
    async fn answer_known(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        match call.area.as_str() {
            secret_server::API => self.secret_server(call, caller).await,
            "secrets" => self.secrets(call, caller, Space::Secrets).await,
            "home" => self.secrets(call, caller, Space::Home).await,
            "pools" => self.pools(call, caller).await,
            "engines" => self.engines(call, caller).await,
            "users" => self.users(call, caller).await,
            "roles" => self.roles(call, caller).await,
            "clients" => self.clients(call, caller).await,
            "groups" => self.groups(call, caller).await,
            "audit" => {
                self.require(call, caller, "read", "audit")?;
                self.audit_lines(call)
            }
            "usage" => {
                self.require(call, caller, "read", "usage")?;
                self.usage(call)
            }
            "config" if call.path == "config" => self.config(call, caller),
            "config" => match call.rest.strip_prefix("policies") {
                Some(rest) => self.policies(call, caller, rest).await,
                None => Err(absent::refusal(call)),
            },
            _ => Err(absent::refusal(call)),
        }
    }
}

/// A refusal's status.
fn status_of_code(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The status of an answer.
fn status_of(outcome: &Result<Reply, Refusal>) -> u16 {
    match outcome {
        Ok(reply) => reply.status.as_u16(),
        Err(refusal) => refusal.code,
    }
}
