//! Who we are: the installation's id, its root key, the key that signs role comments.

use super::signing_keys::{self, SigningKeys};
use super::{Error, Intention, objects};
use crate::api::names::{INTERNAL_SECRET_TYPE, MANAGED_BY, OPERATOR, ROOT_SECRET, SIGNING_SECRET, base32_hash};
use crate::keys::{KeyError, RootHash, RootKey, SecretText, SigningKey, SigningPublicKey};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, ResourceExt};
use ring::hmac;

const KEY: &str = "key";

/// What one installation is.
pub struct Installation {
    /// Part of every role comment: two installations on one PostgreSQL never take each other's roles.
    pub id: String,
    /// Signs the channel certificate; its hash is inside every engine key.
    pub root: RootKey,
    /// Keys the hash of delivered data.
    pub hash_key: hmac::Key,
    pub(super) signing: SigningKeys,
}

impl Installation {
    /// Signs role comments. Another one after a rotation, so to be asked for each comment.
    pub fn signing(&self) -> SigningKey {
        self.signing.current()
    }

    /// Public halves of all keys that may have signed role comments, the present one first.
    pub fn signers(&self) -> Vec<SigningPublicKey> {
        self.signing.all()
    }
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
/// together one makes and both read. `engines_with_keys` is asked only where there is no root key. A lost signing key is
/// replaced by a new one: what the old one signed is still recognised, by the public halves in the server records.
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
    let signing = signing_keys::load(client, home).await?;
    Ok(Installation {
        id,
        root,
        hash_key: signing.hash_key(),
        signing,
    })
}

/// What engine keys pin: the hash of the root key, which is read and never made here.
pub async fn root_hash(client: &Client, home: &str) -> Result<RootHash, InstallationError> {
    let found = objects::read::<Secret>(client, home, ROOT_SECRET).await?;
    let root = found.ok_or(InstallationError::Incomplete(ROOT_SECRET, KEY))?;
    let key = RootKey::load(&value(&root, ROOT_SECRET, KEY)?).map_err(|e| InstallationError::Key(ROOT_SECRET, e))?;
    Ok(key.hash())
}

/// Puts the root key's and the signing key's Secrets back where one was deleted while we hold the keys. Never another key.
/// Returns the names of those that were put back.
pub async fn put_back(
    client: &Client,
    home: &str,
    installation: &Installation,
) -> Result<Vec<&'static str>, InstallationError> {
    let mut put_back = Vec::new();
    let all = [
        (ROOT_SECRET, vec![(KEY, installation.root.store())]),
        (SIGNING_SECRET, installation.signing.stored()),
    ];
    for (name, values) in all {
        if objects::read::<Secret>(client, home, name).await?.is_none() {
            make_once(client, home, name, values).await?;
            put_back.push(name);
        }
    }
    Ok(put_back)
}

/// Makes one of the installation's Secrets, or reads the one that a rival made in the same moment.
pub(super) async fn make_once(
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

/// One value of one of the installation's Secrets.
pub(super) fn value(secret: &Secret, name: &'static str, key: &'static str) -> Result<SecretText, InstallationError> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    let text = bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
    text.map(SecretText::new)
        .ok_or(InstallationError::Incomplete(name, key))
}
