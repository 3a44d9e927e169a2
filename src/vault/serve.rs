//! Starting the API: its watches, its certificate, its listener.

use super::admin;
use super::call::Call;
use super::reply::{Refusal, Reply};
use super::tenants::{self, Tenant};
use super::tls::{self, Certificate};
use super::tokens::{Tokens, TokensError};
use super::{Index, Settings, Vault, absent, bootstrap, janitor, openapi, records, secrets};
use crate::channel::listener::{ServeLimits, TlsListener, serve};
use crate::cluster::{self, installation};
use crate::keys::{HashError, hash_password, random_secret};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, header};
use kube::{Api, Client};
use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Passwords that are hashed at once: each takes 19 MiB and a core.
const HASHES: usize = 2;
/// Logins about which the API server is asked at once.
const REVIEWS: usize = 8;
/// Longest life of a call. A dynamic secret is given up long before.
pub const CALL_LIMIT: Duration = Duration::from_secs(40);

/// The API could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// Who we are.
    #[error("could not read what the installation is called")]
    Cluster(#[from] cluster::Error),
    /// The keys of tokens.
    #[error("could not load the keys of access tokens")]
    Tokens(#[from] TokensError),
    /// The certificate.
    #[error("could not make the certificate of the API")]
    Tls(#[from] tls::TlsError),
    /// The address.
    #[error("could not listen on {0}; choose another --api-addr")]
    Listen(String, #[source] std::io::Error),
    /// The hash of nobody.
    #[error("could not hash a password")]
    Hash(#[from] HashError),
}

/// Serves until `stop`.
pub async fn run(client: Client, settings: Settings, stop: CancellationToken) -> Result<(), VaultError> {
    let listener = TcpListener::bind(&settings.address).await;
    let listener = listener.map_err(|error| VaultError::Listen(settings.address.clone(), error))?;
    let address = listener.local_addr();
    let address = address.map_err(|error| VaultError::Listen(settings.address.clone(), error))?;
    let certificate = Certificate::load(&client, &settings).await?;
    let vault = Arc::new(start(client, settings).await?);
    let background = watches(&vault);
    let renewing = certificate.clone();
    let config = move || renewing.current();
    let listener = TlsListener::new(listener, config);
    let listener = listener.map_err(|error| VaultError::Listen(vault.settings.address.clone(), error))?;
    tracing::info!(%address, tenant = vault.settings.default_tenant, "the API listens");
    let app = openapi::routes().fallback(answer).with_state(vault.clone());
    tokio::select! {
        () = serve(listener, app, ServeLimits::default(), stop.clone()) => {}
        () = janitor::run(vault.clone()) => {}
        () = certificate.renew() => {}
    }
    for task in background {
        task.abort();
    }
    Ok(())
}

async fn start(client: Client, settings: Settings) -> Result<Vault, VaultError> {
    let issuer = installation::id(&client, &settings.home, &settings.release).await?;
    Ok(Vault {
        tokens: Tokens::load(&client, &settings.home).await?,
        client,
        settings,
        issuer,
        namespaces: Index::default(),
        records: Index::default(),
        secrets: Index::default(),
        dynamic: Index::default(),
        shared: secrets::Shared::default(),
        rules: RwLock::new(HashMap::new()),
        hashing: Arc::new(Semaphore::new(HASHES)),
        reviewing: Semaphore::new(REVIEWS),
        nobody: hash_password(&random_secret())?,
    })
}

fn watches(vault: &Vault) -> Vec<tokio::task::JoinHandle<()>> {
    let client = || vault.client.clone();
    let (home, served) = (&vault.settings.home, vault.settings.served.clone());
    vec![
        tokio::spawn(tenants::follow(vault.namespaces.clone(), Api::all(client()))),
        tokio::spawn(records::follow(vault.records.clone(), Api::namespaced(client(), home))),
        tokio::spawn(secrets::follow_kept(vault.secrets.clone(), client(), served)),
        tokio::spawn(secrets::follow_dynamic(vault.dynamic.clone(), Api::all(client()))),
    ]
}

async fn answer(State(vault): State<Arc<Vault>>, request: Request) -> Response {
    // A read ends with its connection, and a lease that was made for it is deleted. A write, once begun, goes on to its end
    // and to its line in the audit stream, whoever waits for it.
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD) && !is_bootstrap(request.uri().path());
    let broke = || Refusal::new(500, "this call could not be answered");
    if admin::is_page(request.uri().path()) {
        let work = async move { admin::answer(&vault, request).await };
        return if is_read {
            Box::pin(work).await
        } else {
            let done = tokio::spawn(work).await;
            done.unwrap_or_else(|_| broke().into_response())
        };
    }
    let work = async move { outcome(&vault, request).await };
    let limited = async move {
        if is_read {
            return tokio::time::timeout(CALL_LIMIT, work).await.ok();
        }
        let done = tokio::time::timeout(CALL_LIMIT, tokio::spawn(work)).await.ok()?;
        Some(done.unwrap_or_else(|_| Err(broke())))
    };
    match Box::pin(limited).await {
        Some(Ok(reply)) => reply.into_response(),
        Some(Err(refusal)) => refusal.into_response(),
        None => Refusal::new(504, "the call took too long").into_response(),
    }
}

/// A read that uses something up.
fn is_bootstrap(path: &str) -> bool {
    path.starts_with(&format!("/v1/{}", bootstrap::AREA))
}

/// The tenant that a request is for.
pub fn tenant(vault: &Vault, headers: &HeaderMap) -> Result<Tenant, Refusal> {
    if !vault.is_ready() {
        return Err(Refusal::new(503, "the API is starting; try again in a moment"));
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let none = || Refusal::new(404, "the host names no tenant, and there is no default tenant");
    vault.tenant(host).ok_or_else(none)
}

async fn outcome(vault: &Vault, request: Request) -> Result<Reply, Refusal> {
    let (parts, body) = request.into_parts();
    let tenant = tenant(vault, &parts.headers)?;
    let call = Call::read(parts, body, tenant).await?;
    if absent::is_login(&call.path) {
        return Err(absent::refusal(&call));
    }
    vault.answer(&call).await
}
