//! One login and one question.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::credential::Credential;

/// Logs in, asks, and leaves.
pub async fn ask(credential: &Credential, query: &str) -> Result<i64> {
    let client = log_in(credential).await.context("cannot log in")?;
    let row = client.query_one(query, &[]).await.context("the question was refused")?;
    Ok(row.try_get(0)?)
}

/// With an authority the connection is encrypted and the server verified; without one it is plain, and a server that wants
/// more refuses.
async fn log_in(credential: &Credential) -> Result<Client> {
    let mut config = Config::new();
    config
        .host(&credential.host)
        .port(credential.port)
        .user(&credential.username)
        .password(&credential.password)
        .dbname(&credential.database)
        .application_name("dsv-client")
        .connect_timeout(Duration::from_secs(10));
    if let Some(authority) = &credential.authority {
        config.ssl_mode(SslMode::Require);
        let (client, connection) = config.connect(tls(authority)?).await?;
        tokio::spawn(connection);
        return Ok(client);
    }
    config.ssl_mode(SslMode::Disable);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn tls(authority: &str) -> Result<MakeRustlsConnect> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
