//! What a pass sees: the source's fields, read now and kept nowhere, and what the tenant has.

use super::Trouble;
use crate::api::conditions::Reason;
use crate::api::names::{LEASE_LABEL, credential};
use crate::api::secret_sync::SourceKind;
use crate::api::{DynamicSecret, SecretSync};
use crate::cluster::objects;
use crate::control::context::Context;
use crate::control::hold::{Error, Hold};
use crate::plan::sync::content;
use crate::plan::sync::source::{self, Field};
use crate::plan::sync::step::There;
use crate::sync::{PushError, Tenant, TenantHolds};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use ring::hmac;
use std::collections::BTreeMap;

/// Annotation of the REST API's secrets: version, times and people.
const RECORD: &str = "dsv.dev/record";

/// A source as it is now.
pub enum Source {
    /// Its fields.
    There(Found),
    /// Deleted, or its credential has ended.
    Gone,
}

/// The fields of a source.
pub struct Found {
    /// All of them.
    pub fields: Vec<Field>,
    /// UID of what is numbered as the source.
    pub uid: String,
    /// Version of the Secret.
    pub version: Option<String>,
}

/// Reads the source.
pub async fn source(ctx: &Context, sync: &SecretSync) -> Result<Source, Trouble> {
    let namespace = sync.namespace().unwrap_or_default();
    let name = &sync.spec.source.name;
    match sync.spec.source.kind() {
        SourceKind::Secret => {
            let secret = objects::read::<Secret>(&ctx.client, &namespace, name).await?;
            let secret = secret.filter(|secret| !is_deleted(secret));
            let Some(secret) = secret else { return Ok(Source::Gone) };
            let uid = secret.uid().unwrap_or_default();
            Ok(Source::There(found(&secret, uid)?))
        }
        SourceKind::DynamicSecret => {
            let Some((owner, secret)) = credential(ctx, sync).await? else {
                return Ok(Source::Gone);
            };
            let end = end_of(secret.annotations());
            if end.is_some_and(|end| ctx.now() >= end) {
                return Ok(Source::Gone);
            }
            Ok(Source::There(found(&secret, owner.uid().unwrap_or_default())?))
        }
    }
}

fn found(secret: &Secret, uid: String) -> Result<Found, Hold> {
    let data: BTreeMap<String, Vec<u8>> = secret
        .data
        .iter()
        .flatten()
        .map(|(key, bytes)| (key.clone(), bytes.0.clone()))
        .collect();
    let fields = source::fields(secret.type_.as_deref(), &data, secret.annotations());
    Ok(Found {
        fields: fields.map_err(|error| Hold::new(Reason::InvalidSpec, error.to_string()))?,
        uid,
        version: secret.resource_version(),
    })
}

/// Marked for deletion, by Kubernetes or by the REST API, where it can be restored for a while.
fn is_deleted(secret: &Secret) -> bool {
    let record = secret.annotations().get(RECORD);
    let record = record.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    let softly = record.is_some_and(|record| record.get("deleted").is_some_and(|at| !at.is_null()));
    softly || secret.metadata.deletion_timestamp.is_some()
}

/// The credential that a dynamic secret delivers now.
async fn credential(ctx: &Context, sync: &SecretSync) -> Result<Option<(DynamicSecret, Secret)>, Error> {
    let namespace = sync.namespace().unwrap_or_default();
    let owner = objects::read::<DynamicSecret>(&ctx.client, &namespace, &sync.spec.source.name).await?;
    let Some(owner) = owner else { return Ok(None) };
    let name = owner.status.as_ref().and_then(|status| status.binding.as_ref());
    let Some(name) = name.map(|binding| binding.name.clone()) else {
        return Ok(None);
    };
    let secret = objects::read::<Secret>(&ctx.client, &namespace, &name).await?;
    let ours = |secret: &Secret| {
        secret.labels().contains_key(LEASE_LABEL)
            && secret.annotations().get(credential::DYNAMIC_SECRET_UID) == owner.metadata.uid.as_ref()
    };
    Ok(secret.filter(ours).map(|secret| (owner, secret)))
}

fn end_of(annotations: &BTreeMap<String, String>) -> Option<Timestamp> {
    annotations.get(credential::EXPIRES_AT)?.parse().ok()
}

/// Version and end of the credential of a sync's dynamic secret, as the caches know them; none for other sources.
fn cached(ctx: &Context, sync: &SecretSync) -> Option<(Option<String>, Option<Timestamp>)> {
    if sync.spec.source.kind() != SourceKind::DynamicSecret {
        return None;
    }
    let namespace = sync.namespace()?;
    let owner: ObjectRef<DynamicSecret> = ObjectRef::new(&sync.spec.source.name).within(&namespace);
    let owner = ctx.stores.dynamic_secrets.get(&owner);
    let name = owner.and_then(|owner| Some(owner.status.as_ref()?.binding.as_ref()?.name.clone()));
    let secret = name.and_then(|name| ctx.stores.credentials.get(&ObjectRef::new(&name).within(&namespace)));
    let version = secret.as_ref().map(|secret| secret.version.to_string());
    let end = secret.and_then(|secret| secret.expires_at);
    Some((version, end))
}

/// Whether the credential is another one than was looked at last, or gone while it is still at the tenant.
pub fn is_rotated(ctx: &Context, sync: &SecretSync, now: Timestamp) -> bool {
    let Some((version, end)) = cached(ctx, sync) else {
        return false;
    };
    let status = sync.status.as_ref();
    let known = status.and_then(|status| status.source_version.clone());
    let is_there = status.is_some_and(|status| status.hash.is_some());
    let over = version.is_none() || end.is_some_and(|end| now >= end);
    if over { is_there } else { version != known }
}

/// When the credential ends.
pub fn credential_end(ctx: &Context, sync: &SecretSync) -> Option<Timestamp> {
    cached(ctx, sync)?.1
}

/// What the tenant has at a path, as a hash.
pub async fn there(
    client: &Tenant,
    path: &str,
    (key, uid): (&hmac::Key, &str),
    with_attributes: bool,
) -> Result<There, PushError> {
    Ok(match client.read(path).await? {
        TenantHolds::Absent => There::Absent,
        TenantHolds::Marked => There::Marked,
        TenantHolds::Unreadable => There::Unreadable,
        TenantHolds::Is(held, version) => There::Is {
            hash: content::hash_held(key, uid, &held, with_attributes),
            version,
        },
    })
}
