//! Transport security by libpq's words.

use super::failure::failure;
use crate::channel::frames::{Failure, FailureClass, ServerLogin, SslMode};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;
use tokio_postgres_rustls::MakeRustlsConnect;

/// The TLS side of a login; None for plain text. Reads the system's roots where no CA is given.
pub(super) fn connector(login: &ServerLogin) -> Result<Option<MakeRustlsConnect>, Failure> {
    if login.sslmode == SslMode::Disable {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let check = Arc::new(ServerCheck::new(login, Arc::clone(&provider))?);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(login, &format!("this build speaks no TLS version: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(check);
    let config = match (&login.client_certificate, &login.client_key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)
                .filter(|chain| !chain.is_empty())
                .ok_or_else(|| refused(login, "tls.crt holds no PEM certificate"))?;
            let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes())
                .map_err(|_| refused(login, "tls.key holds no PEM private key"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| refused(login, &format!("tls.crt and tls.key do not belong together: {error}")))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(refused(login, "tls.crt and tls.key come only together")),
    };
    Ok(Some(MakeRustlsConnect::new(config)))
}

fn refused(login: &ServerLogin, why: &str) -> Failure {
    let record = &login.record;
    failure(
        FailureClass::TlsRefused,
        format!("TLS to server {record}: {why}; correct the base secret"),
    )
}

fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .ok()
}

/// How a server's certificate is judged.
#[derive(Debug)]
struct ServerCheck {
    /// None: any certificate will do (`require` without a CA).
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// The certificates of the CA bundle. A server may present one of them itself: self-signed ones often are CAs too,
    /// which webpki does not take as a server's.
    pinned: Vec<CertificateDer<'static>>,
    /// Whether the name must fit.
    name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCheck {
    fn new(login: &ServerLogin, provider: Arc<CryptoProvider>) -> Result<Self, Failure> {
        // As in libpq: a CA that is given is used, also with `require`.
        let pinned = match &login.ca {
            Some(pem) => certificates(pem)
                .filter(|found| !found.is_empty())
                .ok_or_else(|| refused(login, "ca.crt holds no PEM certificate"))?,
            None => Vec::new(),
        };
        let mut roots = RootCertStore::empty();
        let chain = if login.ca.is_some() {
            for certificate in &pinned {
                // One that cannot be a trust anchor can still be pinned.
                let _ = roots.add(certificate.clone());
            }
            true
        } else if login.sslmode == SslMode::Require {
            false
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            true
        };
        let chain = if chain && !roots.is_empty() {
            let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
            Some(built.map_err(|error| refused(login, &format!("the CA certificates cannot be used: {error}")))?)
        } else if chain && pinned.is_empty() {
            return Err(refused(
                login,
                "no CA certificate: give ca.crt, or install the system's roots",
            ));
        } else {
            None
        };
        let name = login.sslmode == SslMode::VerifyFull;
        Ok(Self {
            chain,
            pinned,
            name,
            provider,
        })
    }

    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        self.pinned.iter().any(|ours| ours.as_ref() == certificate.as_ref())
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.is_pinned(end_entity) {
            if self.name {
                let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&parsed, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let Some(chain) = &self.chain else {
            return if self.pinned.is_empty() {
                Ok(ServerCertVerified::assertion())
            } else {
                Err(CertificateError::UnknownIssuer.into())
            };
        };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp, now) {
            // The chain is verified before the name, so this means: chain good, name not.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
