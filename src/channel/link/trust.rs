//! The outer TLS on the engine's side: verified where it can be, accepted with a log line where it cannot.
//!
//! The handshake inside authenticates the operator end to end, so an untrusted certificate here costs privacy of
//! nothing: what a machine in between sees is sealed already.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Which certificates the outer connection takes.
#[derive(Debug, Clone)]
pub struct OuterTrust {
    pub(super) config: Arc<ClientConfig>,
}

/// The trust settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The CA file.
    #[error("the CA file {} cannot be read as PEM certificates", path.display())]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// CA certificates given as text.
    #[error("the CA certificates of DSV_CA_CERT cannot be read as PEM")]
    CaText(#[source] rustls::pki_types::pem::Error),
    /// The CA file holds something else.
    #[error("the CA file {} holds no certificate", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// Nothing to verify with.
    #[error("trusted TLS is required, but this machine has no CA certificates; install them or give --ca-file")]
    NoRoots,
    /// The TLS library refuses.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

impl OuterTrust {
    /// The system's CA certificates and those of `ca_file`. With `required`, nothing else is accepted.
    pub fn new(ca_file: Option<&Path>, required: bool) -> Result<Self, TrustError> {
        Self::with(ca_file, None, required)
    }

    /// The same, with further CA certificates as PEM text.
    pub fn with(ca_file: Option<&Path>, ca_text: Option<&str>, required: bool) -> Result<Self, TrustError> {
        let mut roots = system_roots();
        if let Some(path) = ca_file {
            add_file(&mut roots, path)?;
        }
        for certificate in CertificateDer::pem_slice_iter(ca_text.unwrap_or_default().as_bytes()) {
            let certificate = certificate.map_err(TrustError::CaText)?;
            roots.add(certificate).map_err(TrustError::Tls)?;
        }
        if required && roots.is_empty() {
            return Err(TrustError::NoRoots);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = (!roots.is_empty())
            .then(|| WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build())
            .transpose()
            .map_err(|error| TrustError::Tls(rustls::Error::General(error.to_string())))?;
        let verifier = Verifier {
            inner: verifier,
            provider: provider.clone(),
            required,
            noticed: Mutex::default(),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TrustError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        // The websocket upgrade exists in HTTP/1.1 only.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// For other connections that take the same certificates.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "some of the system's CA certificates cannot be read"
        );
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TrustError> {
    let file = |source| TrustError::CaFile {
        path: path.to_owned(),
        source,
    };
    let mut added = 0;
    for certificate in CertificateDer::pem_file_iter(path).map_err(file)? {
        roots.add(certificate.map_err(file)?).map_err(TrustError::Tls)?;
        added += 1;
    }
    if added == 0 {
        Err(TrustError::NoCertificate { path: path.to_owned() })
    } else {
        Ok(())
    }
}

#[derive(Debug)]
struct Verifier {
    /// None if there is nothing to verify with.
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    required: bool,
    /// What was said already: once per server and finding, not on every reconnect.
    noticed: Mutex<HashSet<String>>,
}

impl Verifier {
    fn notice(&self, server: &ServerName<'_>, finding: &str) {
        let server = server.to_str();
        let new = self
            .noticed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(format!("{server} {finding}"));
        if new {
            tracing::warn!(
                %server,
                finding,
                "the server's TLS certificate is not trusted; going on, because the handshake inside authenticates the \
                 operator (--ca-file makes it trusted, --require-trusted-tls refuses it)"
            );
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let finding = match &self.inner {
            Some(inner) => match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
                Ok(verified) => return Ok(verified),
                Err(error) if self.required => return Err(error),
                Err(error) => error.to_string(),
            },
            None => "this machine has no CA certificates".to_owned(),
        };
        self.notice(server_name, &finding);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
