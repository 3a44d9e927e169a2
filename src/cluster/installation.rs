//! Who we are: the installation's id, its root key, the key that signs role comments.

use super::{Error, Intention, objects};
use crate::api::names::{INTERNAL_SECRET_TYPE, MANAGED_BY, OPERATOR, ROOT_SECRET, SIGNING_SECRET, base32_hash};
use crate::keys::{KeyError, RootKey, SecretText, SigningKey};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, ResourceExt};
use ring::hmac;

const KEY: &str = "key";
const HASH_KEY: &str = "hash-key";

/// What one installation is.
pub struct Installation {
    /// Part of every role comment: two installations on one PostgreSQL never take each other's roles.
    pub id: String,
    /// Signs the channel certificate; its hash is inside every engine key.
    pub root: RootKey,
    /// Signs role comments.
    pub signing: SigningKey,
    /// Keys the hash of delivered data.
    pub hash_key: hmac::Key,
}

/// Why we cannot say who we are.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] Error),
    /// A stored key cannot be used.
    #[error("Secret {0} in the operator's namespace does not hold a usable key; restore it from backup")]
    Key(&'static str, #[source] KeyError),
    /// A stored key is missing from its Secret.
    #[error("Secret {0} in the operator's namespace lacks its key {1}; restore it from backup")]
    Incomplete(&'static str, &'static str),
    /// The root key is gone while engines hold keys made from it: a new one would lock them all out.
    #[error(
        "Secret {ROOT_SECRET} is missing while {0} Engines have keys made from it; restore it from backup, or delete the Engines to begin anew"
    )]
    RootKeyMissing(usize),
}

/// The id: cluster, operator's namespace and release.
pub async fn id(client: &Client, home: &str, release: &str) -> Result<String, Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    let mut uids = Vec::new();
    for name in ["kube-system", home] {
        let namespace = api.get(name).await.to(|| format!("read namespace {name}"))?;
        uids.push(namespace.uid().unwrap_or_default());
    }
    let parts: Vec<&str> = uids.iter().map(String::as_str).chain([release]).collect();
    Ok(base32_hash(&parts))
}

/// Reads the installation's keys; makes them at the very first start. Made by POST, so of two replicas that start
/// together one makes and both read. `engines_with_keys` is asked only where there is no root key.
pub async fn load(
    client: &Client,
    home: &str,
    release: &str,
    engines_with_keys: impl AsyncFnOnce() -> Result<usize, Error>,
) -> Result<Installation, InstallationError> {
    let id = id(client, home, release).await?;
    let root = if let Some(secret) = objects::read::<Secret>(client, home, ROOT_SECRET).await? {
        secret
    } else {
        let keyed = engines_with_keys().await?;
        if keyed > 0 {
            return Err(InstallationError::RootKeyMissing(keyed));
        }
        let made = RootKey::generate().map_err(|e| InstallationError::Key(ROOT_SECRET, e))?;
        make_once(client, home, ROOT_SECRET, vec![(KEY, made.store())]).await?
    };
    let root = RootKey::load(&value(&root, ROOT_SECRET, KEY)?).map_err(|e| InstallationError::Key(ROOT_SECRET, e))?;
    let signing = if let Some(secret) = objects::read::<Secret>(client, home, SIGNING_SECRET).await? {
        secret
    } else {
        let made = SigningKey::generate().map_err(|e| InstallationError::Key(SIGNING_SECRET, e))?;
        let hash_key = SecretText::new(data_encoding::BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>()));
        make_once(
            client,
            home,
            SIGNING_SECRET,
            vec![(KEY, made.store()), (HASH_KEY, hash_key)],
        )
        .await?
    };
    let hash_key = value(&signing, SIGNING_SECRET, HASH_KEY)?;
    let signing = SigningKey::load(&value(&signing, SIGNING_SECRET, KEY)?)
        .map_err(|e| InstallationError::Key(SIGNING_SECRET, e))?;
    Ok(Installation {
        id,
        root,
        signing,
        hash_key: hmac::Key::new(hmac::HMAC_SHA256, hash_key.reveal().as_bytes()),
    })
}

async fn make_once(
    client: &Client,
    home: &str,
    name: &'static str,
    values: Vec<(&str, SecretText)>,
) -> Result<Secret, InstallationError> {
    let data = values
        .into_iter()
        .map(|(key, value)| (key.to_owned(), ByteString(value.reveal().as_bytes().to_vec())));
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(home.to_owned()),
            labels: Some([(MANAGED_BY.to_owned(), OPERATOR.to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some(INTERNAL_SECRET_TYPE.to_owned()),
        data: Some(data.collect()),
        ..Secret::default()
    };
    match objects::make(client, home, &secret).await {
        Ok(made) => Ok(made),
        Err(error) if error.is_conflict() => {
            let rival = objects::read::<Secret>(client, home, name).await?;
            rival.ok_or(InstallationError::Incomplete(name, KEY))
        }
        Err(error) => Err(error.into()),
    }
}

fn value(secret: &Secret, name: &'static str, key: &'static str) -> Result<SecretText, InstallationError> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    let text = bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
    text.map(SecretText::new)
        .ok_or(InstallationError::Incomplete(name, key))
}
