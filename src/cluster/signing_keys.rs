//! The keys that sign role comments: the present one with its private half, and the public halves of all before it.
//!
//! A public half is in every server record before its private half signs anything, and it never leaves them. So the key can
//! be rotated, or lost with its Secret, and every role that it signed is still known as ours.

use super::installation::{Installation, InstallationError, make_once, value};
use super::objects;
use super::server_record::{self, signers_in, union};
use crate::api::names::{ROTATE_KEY, ROTATED_KEY, SIGNING_SECRET};
use crate::keys::{SecretText, SigningKey, SigningPublicKey};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Client, ResourceExt};
use ring::hmac;
use std::sync::{PoisonError, RwLock};

const KEY: &str = "key";
const HASH_KEY: &str = "hash-key";
const SIGNERS: &str = "signers";

/// The present key and the public halves of all.
pub(super) struct SigningKeys {
    held: RwLock<Held>,
    /// Keys the hash of delivered data; kept through rotations, or every Secret would look edited.
    hash_key: SecretText,
}

#[derive(Clone)]
struct Held {
    current: SigningKey,
    all: Vec<SigningPublicKey>,
}

impl SigningKeys {
    pub(super) fn current(&self) -> SigningKey {
        self.held().current
    }

    pub(super) fn all(&self) -> Vec<SigningPublicKey> {
        self.held().all
    }

    pub(super) fn hash_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.hash_key.reveal().as_bytes())
    }

    /// What the Secret holds.
    pub(super) fn stored(&self) -> Vec<(&'static str, SecretText)> {
        stored(&self.held(), &self.hash_key)
    }

    fn held(&self) -> Held {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on `current` signs. Those known before stay known.
    fn take(&self, current: SigningKey, more: &[SigningPublicKey]) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let first = union(&[current.public()], &held.all);
        *held = Held {
            current,
            all: union(&first, more),
        };
    }
}

fn stored(held: &Held, hash_key: &SecretText) -> Vec<(&'static str, SecretText)> {
    let all: Vec<String> = held.all.iter().map(ToString::to_string).collect();
    vec![
        (KEY, held.current.store()),
        (HASH_KEY, hash_key.clone()),
        (SIGNERS, SecretText::new(all.join("\n"))),
    ]
}

fn key_in(secret: &Secret) -> Result<SigningKey, InstallationError> {
    let stored = value(secret, SIGNING_SECRET, KEY)?;
    SigningKey::load(&stored).map_err(|error| InstallationError::Key(SIGNING_SECRET, error))
}

fn generate() -> Result<SigningKey, InstallationError> {
    SigningKey::generate().map_err(|error| InstallationError::Key(SIGNING_SECRET, error))
}

/// Reads the key, or makes one, and gathers the public halves of all that were ever used.
pub(super) async fn load(client: &Client, home: &str) -> Result<SigningKeys, InstallationError> {
    let known = server_record::note_signers(client, home, &[]).await?;
    let secret = if let Some(secret) = objects::read::<Secret>(client, home, SIGNING_SECRET).await? {
        secret
    } else {
        if !known.is_empty() {
            tracing::warn!(
                keys = known.len(),
                "Secret {SIGNING_SECRET} is gone, so another key signs from now on; what the old one signed is still recognised"
            );
        }
        let held = held(generate()?, &known);
        let hash_key = SecretText::new(data_encoding::BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>()));
        make_once(client, home, SIGNING_SECRET, stored(&held, &hash_key)).await?
    };
    let keys = SigningKeys {
        held: RwLock::new(held(key_in(&secret)?, &union(&signers_in(&secret), &known))),
        hash_key: value(&secret, SIGNING_SECRET, HASH_KEY)?,
    };
    server_record::note_signers(client, home, &keys.all()).await?;
    Ok(keys)
}

fn held(current: SigningKey, known: &[SigningPublicKey]) -> Held {
    let all = union(&[current.public()], known);
    Held { current, all }
}

/// Looks at the Secret: takes over a key that somebody put there, and rotates if the annotation asks for it. Returns whether
/// another key signs now. A conflict is an error, and the same again is right.
pub async fn follow(client: &Client, home: &str, installation: &Installation) -> Result<bool, InstallationError> {
    let keys = &installation.signing;
    let Some(secret) = objects::read::<Secret>(client, home, SIGNING_SECRET).await? else {
        return Ok(false);
    };
    let found = key_in(&secret)?;
    let asked = secret.annotations().get(ROTATE_KEY);
    if asked.is_some() && asked != secret.annotations().get(ROTATED_KEY) {
        rotate(client, home, installation, secret, found.public()).await?;
        return Ok(true);
    }
    if found.public() == keys.current().public() {
        return Ok(false);
    }
    let known = union(&signers_in(&secret), &[found.public()]);
    server_record::note_signers(client, home, &union(&known, &keys.all())).await?;
    keys.take(found, &known);
    Ok(true)
}

/// Another key signs from now on. First its public half goes into all records, then it goes into its Secret, then it signs.
async fn rotate(
    client: &Client,
    home: &str,
    installation: &Installation,
    mut secret: Secret,
    old: SigningPublicKey,
) -> Result<(), InstallationError> {
    let keys = &installation.signing;
    let made = generate()?;
    let before = union(&[made.public(), old], &union(&keys.all(), &signers_in(&secret)));
    server_record::note_signers(client, home, &before).await?;
    let held = held(made.clone(), &before);
    let data = secret.data.get_or_insert_default();
    for (name, value) in stored(&held, &keys.hash_key) {
        data.insert(name.to_owned(), ByteString(value.reveal().as_bytes().to_vec()));
    }
    if let Some(asked) = secret.annotations().get(ROTATE_KEY).cloned() {
        secret.annotations_mut().insert(ROTATED_KEY.to_owned(), asked);
    }
    objects::replace(client, home, &secret).await?;
    keys.take(made, &before);
    Ok(())
}
