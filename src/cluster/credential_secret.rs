//! Credential Secrets: what is in one, whose it is, and writing or deleting it only while it is ours.

use super::{Error, Intention};
use crate::api::names::{LEASE_LABEL, MANAGED_BY, OPERATOR, credential};
use crate::api::target::TargetSecret;
use crate::plan::lease::SecretSeen;
use crate::plan::shape::Keys;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PartialObjectMeta, PostParams, Preconditions};
use kube::core::PartialObjectMetaExt;
use kube::{Api, Client, ResourceExt};
use ring::hmac;
use std::collections::BTreeMap;

/// Which lease a Secret is for.
#[derive(Debug, Clone)]
pub struct LeaseIdentity {
    /// Namespace of lease and Secret.
    pub namespace: String,
    /// Lease name.
    pub name: String,
    /// Lease UID.
    pub uid: String,
    /// UID of the dynamic secret.
    pub dynamic_secret_uid: String,
    /// Serial of the lease.
    pub serial: i64,
}

/// A credential to be delivered.
pub struct Credential<'a> {
    /// Whose.
    pub lease: &'a LeaseIdentity,
    /// Account name.
    pub username: &'a str,
    /// What the Secret holds.
    pub keys: Keys<'a>,
    /// Until when.
    pub expires_at: Timestamp,
    /// What the user wants the Secret to be like.
    pub target: Option<&'a TargetSecret>,
}

/// Whose a Secret is, as a lease sees it, from its metadata alone.
pub fn whose(meta: Option<&ObjectMeta>, lease: &LeaseIdentity) -> SecretSeen {
    let Some(meta) = meta else { return SecretSeen::Absent };
    let annotation = |key: &str| {
        meta.annotations
            .as_ref()
            .and_then(|all| all.get(key))
            .map(String::as_str)
    };
    let label = |key: &str| meta.labels.as_ref().and_then(|all| all.get(key)).map(String::as_str);
    let managed = label(MANAGED_BY) == Some(OPERATOR);
    if annotation(credential::LEASE_UID) == Some(lease.uid.as_str()) {
        let labelled = managed && label(LEASE_LABEL) == Some(lease.uid.as_str());
        return if labelled {
            SecretSeen::Ours
        } else {
            SecretSeen::Released
        };
    }
    let same_owner = annotation(credential::DYNAMIC_SECRET_UID) == Some(lease.dynamic_secret_uid.as_str());
    let serial = annotation(credential::REVISION).and_then(|text| text.parse::<i64>().ok());
    match serial {
        Some(serial) if managed && same_owner && label(LEASE_LABEL).is_some() && serial > 0 && lease.serial > 0 => {
            if serial > lease.serial {
                SecretSeen::Newer
            } else {
                SecretSeen::Older
            }
        }
        _ => SecretSeen::Foreign,
    }
}

/// The Secret's metadata as it is now (a quorum read).
pub async fn look(client: &Client, namespace: &str, name: &str) -> Result<Option<PartialObjectMeta<Secret>>, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    api.get_metadata_opt(name)
        .await
        .to(|| format!("read the metadata of secret {namespace}/{name}"))
}

/// Writes the credential: a new Secret where there is none, or in place of exactly the older version that was looked at.
/// Returns its metadata as written.
pub async fn deliver(
    client: &Client,
    name: &str,
    older: Option<&ObjectMeta>,
    credential: &Credential<'_>,
    key: &hmac::Key,
) -> Result<PartialObjectMeta<Secret>, Error> {
    let namespace = credential.lease.namespace.as_str();
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let mut secret = compose(name, credential, key);
    let written = match older {
        None => api.create(&PostParams::default(), &secret).await,
        Some(older) => {
            secret.metadata.resource_version.clone_from(&older.resource_version);
            secret.metadata.uid.clone_from(&older.uid);
            api.replace(name, &PostParams::default(), &secret).await
        }
    };
    let written = written.to(|| format!("write secret {namespace}/{name}"))?;
    Ok(written.metadata.into_response_partial())
}

/// Deletes the Secret only if it is still exactly the one that was looked at. Absent is success; changed is a conflict.
/// Returns whether it is gone: somebody's finalizer may hold it.
pub async fn delete(client: &Client, namespace: &str, name: &str, seen: &ObjectMeta) -> Result<bool, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let preconditions = Preconditions {
        uid: seen.uid.clone(),
        resource_version: seen.resource_version.clone(),
    };
    let params = DeleteParams {
        preconditions: Some(preconditions),
        ..DeleteParams::background()
    };
    match api.delete(name, &params).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(true),
        other => other
            .map(|answer| answer.is_right())
            .to(|| format!("delete secret {namespace}/{name}")),
    }
}

fn compose(name: &str, credential: &Credential<'_>, key: &hmac::Key) -> Secret {
    let keys = credential.keys.iter();
    let data: BTreeMap<_, _> = keys
        .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
        .collect();
    let lease = credential.lease;
    let wanted = credential.target;
    let mut labels = wanted.map(|t| t.labels.clone()).unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), OPERATOR.to_owned());
    labels.insert(LEASE_LABEL.to_owned(), lease.uid.clone());
    let mut annotations = wanted.map(|t| t.annotations.clone()).unwrap_or_default();
    annotations.extend([
        (credential::LEASE.to_owned(), lease.name.clone()),
        (credential::LEASE_UID.to_owned(), lease.uid.clone()),
        (
            credential::DYNAMIC_SECRET_UID.to_owned(),
            lease.dynamic_secret_uid.clone(),
        ),
        (credential::USERNAME.to_owned(), credential.username.to_owned()),
        (credential::REVISION.to_owned(), lease.serial.to_string()),
        (credential::EXPIRES_AT.to_owned(), whole_seconds(credential.expires_at)),
        (credential::DATA_HASH.to_owned(), hash(&data, key)),
    ]);
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(lease.namespace.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        type_: Some(
            wanted
                .and_then(|t| t.type_.clone())
                .unwrap_or_else(|| "Opaque".to_owned()),
        ),
        data: Some(data),
        ..Secret::default()
    }
}

/// RFC 3339 in whole seconds, rounded down: what a person reads.
pub fn whole_seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// Keyed hash of a Secret's data: shows an edit, tells nothing about the values.
pub fn hash(data: &BTreeMap<String, ByteString>, key: &hmac::Key) -> String {
    let mut context = hmac::Context::with_key(key);
    for (name, value) in data {
        for part in [name.as_bytes(), &value.0] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    data_encoding::BASE64URL_NOPAD.encode(context.sign().as_ref())
}

/// Whether the Secret's data is what was delivered. Reads the data; false also where it is gone.
pub async fn is_intact(client: &Client, namespace: &str, name: &str, key: &hmac::Key) -> Result<bool, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let Some(secret) = api
        .get_opt(name)
        .await
        .to(|| format!("read secret {namespace}/{name}"))?
    else {
        return Ok(false);
    };
    let recorded = secret.annotations().get(credential::DATA_HASH).cloned();
    Ok(recorded == Some(hash(&secret.data.unwrap_or_default(), key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(serial: i64) -> LeaseIdentity {
        LeaseIdentity {
            namespace: "shop".into(),
            name: format!("app-{serial}"),
            uid: format!("uid-{serial}"),
            dynamic_secret_uid: "ds".into(),
            serial,
        }
    }

    fn secret_of(serial: i64) -> ObjectMeta {
        let credential = Credential {
            lease: &lease(serial),
            username: "u",
            keys: [("password", "p".into())].into(),
            expires_at: Timestamp::UNIX_EPOCH,
            target: None,
        };
        let secret = compose("app", &credential, &hmac::Key::new(hmac::HMAC_SHA256, b"k"));
        secret.metadata
    }

    #[test]
    fn whose_a_secret_is_follows_uid_then_serial() {
        assert_eq!(whose(None, &lease(2)), SecretSeen::Absent);
        assert_eq!(whose(Some(&secret_of(2)), &lease(2)), SecretSeen::Ours);
        assert_eq!(whose(Some(&secret_of(1)), &lease(2)), SecretSeen::Older);
        assert_eq!(whose(Some(&secret_of(3)), &lease(2)), SecretSeen::Newer);
        assert_eq!(whose(Some(&ObjectMeta::default()), &lease(2)), SecretSeen::Foreign);
    }

    #[test]
    fn a_label_taken_off_releases_and_a_foreign_owner_is_foreign() {
        let mut released = secret_of(2);
        released.labels.as_mut().unwrap().remove(LEASE_LABEL);
        assert_eq!(whose(Some(&released), &lease(2)), SecretSeen::Released);
        let other = LeaseIdentity {
            dynamic_secret_uid: "other".into(),
            ..lease(3)
        };
        assert_eq!(whose(Some(&secret_of(2)), &other), SecretSeen::Foreign);
        let mut unmanaged = secret_of(1);
        unmanaged.labels.as_mut().unwrap().remove(MANAGED_BY);
        assert_eq!(whose(Some(&unmanaged), &lease(2)), SecretSeen::Foreign);
    }

    #[test]
    fn two_asked_for_leases_never_take_each_others_secret() {
        let asked = LeaseIdentity {
            uid: "other".into(),
            ..lease(0)
        };
        assert_eq!(whose(Some(&secret_of(0)), &asked), SecretSeen::Foreign);
    }
}
