//! One login and one question.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, SignatureScheme, WantsVerifier};
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

/// With an authority the connection is encrypted and the server verified. Without one it is as `sslmode` says: `require`
/// encrypts, as libpq does, and everything else is plain, so a server that wants more refuses.
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
    let tls = match (&credential.authority, credential.sslmode.as_deref()) {
        (Some(authority), _) => Some(verifying(authority)?),
        (None, Some("require")) => Some(encrypting()?),
        _ => None,
    };
    if let Some(tls) = tls {
        config.ssl_mode(SslMode::Require);
        let (client, connection) = config.connect(tls).await?;
        tokio::spawn(connection);
        return Ok(client);
    }
    config.ssl_mode(SslMode::Disable);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn verifying(authority: &str) -> Result<MakeRustlsConnect> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate?)?;
    }
    let config = builder()?.with_root_certificates(roots).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
    let provider = Arc::new(default_provider());
    Ok(ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?)
}

/// Without asking who the server is: whoever runs `kubectl dsv exec` has no authority to verify it with.
fn encrypting() -> Result<MakeRustlsConnect> {
    let anybody = Arc::new(Anybody(default_provider()));
    let config = builder()?
        .dangerous()
        .with_custom_certificate_verifier(anybody)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Takes every certificate.
#[derive(Debug)]
struct Anybody(CryptoProvider);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
