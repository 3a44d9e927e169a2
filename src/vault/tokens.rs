//! The keys that sign access tokens and hash client secrets: one Secret in the operator's namespace, read by all replicas.

use super::Vault;
use super::reply::Refusal;
use super::time;
use crate::api::names::{INTERNAL_SECRET_TYPE, MANAGED_BY, OPERATOR};
use crate::cluster::{self, objects};
use crate::keys::{KeyError, SecretText, TokenKey, random_secret};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, ResourceExt};
use ring::hmac;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::Instant;

/// Name of the Secret.
pub const TOKEN_SECRET: &str = "dsv-tokens";
/// Annotation: when the present key was made.
const SINCE: &str = "dsv.dev/since";
const CURRENT: &str = "key";
const PREVIOUS: &str = "previous-key";
const HASH_KEY: &str = "hash-key";
/// How long a key signs. Tokens of the one before are taken for as long again, far longer than any of them lives.
const LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Between two looks at the Secret because of a token that names an unknown key: such tokens cost nothing to make.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// What is stored is no key.
    #[error(
        "Secret {TOKEN_SECRET} in the operator's namespace holds no usable key; delete it, and everybody logs in again"
    )]
    Key(#[from] KeyError),
    /// Something is missing from it.
    #[error("Secret {TOKEN_SECRET} in the operator's namespace lacks {0}; delete it, and everybody logs in again")]
    Incomplete(&'static str),
}

/// The keys that are known here.
pub struct Tokens {
    held: RwLock<Arc<Held>>,
    looked: Mutex<Instant>,
}

struct Held {
    current: TokenKey,
    previous: Option<TokenKey>,
    hash_key: hmac::Key,
    since: Timestamp,
}

impl Tokens {
    /// Reads the keys, or makes them at the very first start.
    pub async fn load(client: &Client, home: &str) -> Result<Self, TokensError> {
        let held = read_or_make(client, home).await?;
        Ok(Self {
            held: RwLock::new(Arc::new(held)),
            looked: Mutex::new(Instant::now()),
        })
    }

    fn held(&self) -> Arc<Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self, held: Held) {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(held);
    }

    /// Keys the hashes of client secrets and refresh tokens. It never changes.
    pub fn hash_key(&self) -> hmac::Key {
        self.held().hash_key.clone()
    }

    fn may_look(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = looked.elapsed() >= LOOK_AGAIN;
        if due {
            *looked = Instant::now();
        }
        due
    }
}

impl Vault {
    /// Signs with the present key, after changing it where it is old.
    pub(super) async fn sign(&self, claims: &crate::keys::Claims) -> Result<SecretText, Refusal> {
        let tokens = &self.tokens;
        if time::now().duration_since(tokens.held().since) >= LIFE {
            match rotate(&self.client, &self.settings.home).await {
                Ok(held) => tokens.take(held),
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the key of access tokens could not be changed; the old one goes on"
                ),
            }
        }
        let signed = tokens.held().current.sign(claims);
        signed.map_err(|error| Refusal::new(500, error.to_string()))
    }

    /// What a token says, where one of our keys signed it for this tenant.
    pub(super) async fn checked(&self, token: &str, audience: &str) -> Result<crate::keys::Claims, Refusal> {
        let id = TokenKey::named_by(token).map_err(|_| Refusal::unauthenticated())?;
        let tokens = &self.tokens;
        if !tokens.held().knows(&id)
            && tokens.may_look()
            && let Ok(held) = read_or_make(&self.client, &self.settings.home).await
        {
            tokens.take(held);
        }
        let held = tokens.held();
        let key = held.key(&id).ok_or_else(Refusal::unauthenticated)?;
        key.check(token, &self.issuer, audience)
            .map_err(|_| Refusal::unauthenticated())
    }
}

impl Held {
    fn key(&self, id: &str) -> Option<&TokenKey> {
        std::iter::once(&self.current)
            .chain(&self.previous)
            .find(|key| key.id() == id)
    }

    fn knows(&self, id: &str) -> bool {
        self.key(id).is_some()
    }

    fn of(secret: &Secret) -> Result<Self, TokensError> {
        let since = secret.annotations().get(SINCE).and_then(|text| text.parse().ok());
        let hash_key = value(secret, HASH_KEY).ok_or(TokensError::Incomplete(HASH_KEY))?;
        let previous = value(secret, PREVIOUS)
            .map(|stored| TokenKey::load(&stored))
            .transpose()?;
        Ok(Self {
            current: TokenKey::load(&value(secret, CURRENT).ok_or(TokensError::Incomplete(CURRENT))?)?,
            previous,
            hash_key: hmac::Key::new(hmac::HMAC_SHA256, hash_key.reveal().as_bytes()),
            since: since.unwrap_or(Timestamp::UNIX_EPOCH),
        })
    }
}

fn value(secret: &Secret, key: &str) -> Option<SecretText> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok().map(SecretText::new)
}

fn bytes(text: &SecretText) -> ByteString {
    ByteString(text.reveal().as_bytes().to_vec())
}

async fn read_or_make(client: &Client, home: &str) -> Result<Held, TokensError> {
    if let Some(found) = objects::read::<Secret>(client, home, TOKEN_SECRET).await? {
        return Held::of(&found);
    }
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(TOKEN_SECRET.to_owned()),
            namespace: Some(home.to_owned()),
            labels: Some([(MANAGED_BY.to_owned(), OPERATOR.to_owned())].into()),
            annotations: Some([(SINCE.to_owned(), time::now().to_string())].into()),
            ..ObjectMeta::default()
        },
        type_: Some(INTERNAL_SECRET_TYPE.to_owned()),
        data: Some(
            [
                (CURRENT.to_owned(), bytes(&TokenKey::generate()?.store())),
                (HASH_KEY.to_owned(), bytes(&random_secret())),
            ]
            .into(),
        ),
        ..Secret::default()
    };
    match objects::make(client, home, &secret).await {
        Ok(made) => Held::of(&made),
        // Another replica made it in the same moment.
        Err(error) if error.is_conflict() => {
            let found = objects::read::<Secret>(client, home, TOKEN_SECRET).await?;
            Held::of(&found.ok_or(TokensError::Incomplete(CURRENT))?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Another key signs from now on, unless another replica has just seen to it.
async fn rotate(client: &Client, home: &str) -> Result<Held, TokensError> {
    let Some(mut secret) = objects::read::<Secret>(client, home, TOKEN_SECRET).await? else {
        return read_or_make(client, home).await;
    };
    let found = Held::of(&secret)?;
    if time::now().duration_since(found.since) < LIFE {
        return Ok(found);
    }
    let made = TokenKey::generate()?;
    let data = secret.data.get_or_insert_default();
    data.insert(PREVIOUS.to_owned(), bytes(&found.current.store()));
    data.insert(CURRENT.to_owned(), bytes(&made.store()));
    secret
        .annotations_mut()
        .insert(SINCE.to_owned(), time::now().to_string());
    match objects::replace(client, home, &secret).await {
        Ok(written) => Held::of(&written),
        Err(error) if error.is_conflict() => read_or_make(client, home).await,
        Err(error) => Err(error.into()),
    }
}
