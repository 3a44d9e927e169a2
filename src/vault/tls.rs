//! The certificate of the API: from files, or signed by an authority of the installation's own that clients can be told to
//! trust. All replicas share the authority and nothing else.

use super::{Settings, time};
use crate::api::names::{INTERNAL_SECRET_TYPE, MANAGED_BY, OPERATOR};
use crate::channel::listener;
use crate::cluster::{self, objects};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Secret with the authority: `ca.crt` is what clients trust.
pub const AUTHORITY_SECRET: &str = "dsv-api-ca";
const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
/// How long a replica's own certificate is valid.
const LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Between two certificates, and between two looks at the files.
const RENEW: Duration = Duration::from_hours(24);
/// How long the authority is valid.
const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// There is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The authority is spoiled.
    #[error(
        "Secret {AUTHORITY_SECRET} in the operator's namespace does not hold {0}; delete it, and clients trust the next one"
    )]
    Authority(&'static str),
    /// None could be made.
    #[error("a certificate for {0:?} cannot be made")]
    Made(Vec<String>, #[source] rcgen::Error),
    /// It cannot be used.
    #[error(transparent)]
    Used(#[from] listener::TlsError),
}

/// What is shown to clients now.
#[derive(Clone)]
pub struct Certificate {
    now: Arc<RwLock<Arc<ServerConfig>>>,
    source: Source,
}

#[derive(Clone)]
enum Source {
    Files(PathBuf, PathBuf),
    Authority { key: String, names: Vec<String> },
}

impl Source {
    fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        match self {
            Self::Files(certificate, key) => Ok(listener::from_files(certificate, key)?),
            Self::Authority { key, names } => signed(key, names),
        }
    }
}

impl Certificate {
    /// The files', or one that the authority signs; the authority is made at the very first start.
    pub async fn load(client: &Client, settings: &Settings) -> Result<Self, TlsError> {
        let source = match settings.certificate.clone() {
            Some((certificate, key)) => Source::Files(certificate, key),
            None => Source::Authority {
                key: authority(client, &settings.home).await?,
                names: settings.names.clone(),
            },
        };
        Ok(Self {
            now: Arc::new(RwLock::new(source.config()?)),
            source,
        })
    }

    /// For the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Renews it for ever. One that cannot be renewed stays, and the log says why.
    pub async fn renew(&self) {
        loop {
            tokio::time::sleep(RENEW).await;
            match self.source.config() {
                Ok(config) => *self.now.write().unwrap_or_else(PoisonError::into_inner) = config,
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the certificate of the API could not be renewed"
                ),
            }
        }
    }
}

/// The same in all replicas, so that the issuer's name and key are too.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "dsv-operator API");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

async fn authority(client: &Client, home: &str) -> Result<String, TlsError> {
    if let Some(found) = objects::read::<Secret>(client, home, AUTHORITY_SECRET).await? {
        return key_in(&found);
    }
    let failed = |source| TlsError::Made(Vec::new(), source);
    let pair = KeyPair::generate().map_err(failed)?;
    let mut params = authority_params();
    bound(&mut params, AUTHORITY_LIFE);
    let certificate = params.self_signed(&pair).map_err(failed)?;
    let data = [
        (CERTIFICATE.to_owned(), ByteString(certificate.pem().into_bytes())),
        (KEY.to_owned(), ByteString(pair.serialize_pem().into_bytes())),
    ];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(AUTHORITY_SECRET.to_owned()),
            namespace: Some(home.to_owned()),
            labels: Some([(MANAGED_BY.to_owned(), OPERATOR.to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some(INTERNAL_SECRET_TYPE.to_owned()),
        data: Some(data.into()),
        ..Secret::default()
    };
    match objects::make(client, home, &secret).await {
        Ok(made) => key_in(&made),
        // Another replica made it in the same moment.
        Err(error) if error.is_conflict() => {
            let found = objects::read::<Secret>(client, home, AUTHORITY_SECRET).await?;
            key_in(&found.ok_or(TlsError::Authority(KEY))?)
        }
        Err(error) => Err(error.into()),
    }
}

fn key_in(secret: &Secret) -> Result<String, TlsError> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(KEY));
    let text = bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
    text.ok_or(TlsError::Authority(KEY))
}

fn signed(authority: &str, names: &[String]) -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |source| TlsError::Made(names.to_vec(), source);
    let authority = KeyPair::from_pem(authority).map_err(failed)?;
    let issuer = Issuer::new(authority_params(), authority);
    let pair = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
    bound(&mut params, LIFE);
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&pair, &issuer).map_err(failed)?;
    let key = PrivatePkcs8KeyDer::from(pair.serialize_der());
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    Ok(listener::server_config(chain, key.into())?)
}

/// Valid from yesterday on, since clocks differ, for as long as that.
fn bound(params: &mut CertificateParams, life: SignedDuration) {
    let now = time::now();
    let day = |at: Timestamp| {
        let date = jiff::tz::Offset::UTC.to_datetime(at);
        let part = |number: i8| u8::try_from(number).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    params.not_before = day(now.saturating_sub(DAY).unwrap_or(now));
    params.not_after = day(now.saturating_add(life).unwrap_or(now));
}
