//! Watches of DSV tenants and syncs, and what wakes them.

use super::listed::everywhere;
use super::{DSV_TENANTS, Filled, SECRET_SYNCS, watch};
use crate::api::names::credential;
use crate::api::secret_sync::SourceKind;
use crate::api::{DsvTenant, DynamicSecret, SecretSync};
use crate::control::context::Context;
use crate::control::definitions::definition;
use crate::telemetry::metrics::{Metrics, ObjectKind};
use k8s_openapi::api::core::v1::Secret;
use kube::api::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};

/// A cache and its stream.
pub(super) type Watched<K> = (Store<K>, futures::stream::BoxStream<'static, Result<K, watcher::Error>>);

pub(super) fn syncs(client: &Client, metrics: &Metrics, filled: &Filled) -> (Watched<DsvTenant>, Watched<SecretSync>) {
    let (tenants, tenant_stream) = watch(
        everywhere::<DsvTenant>(client),
        (filled, DSV_TENANTS),
        definition(metrics, ObjectKind::DsvTenant),
    );
    let (syncs, sync_stream) = watch(
        everywhere::<SecretSync>(client),
        (filled, SECRET_SYNCS),
        definition(metrics, ObjectKind::SecretSync),
    );
    ((tenants, tenant_stream), (syncs, sync_stream))
}

/// Syncs that push what this dynamic secret delivers: another credential is pushed at once.
pub(super) fn wake_syncs(ctx: &Context, namespace: Option<&str>, dynamic_secret: &str) {
    let pushes = |sync: &SecretSync| {
        let source = &sync.spec.source;
        sync.metadata.namespace.as_deref() == namespace
            && source.kind() == SourceKind::DynamicSecret
            && source.name == dynamic_secret
    };
    for sync in ctx.stores.secret_syncs.state_filter(pushes) {
        let _ = ctx.wakes.secret_syncs.send(ObjectRef::from_obj(sync.as_ref()));
    }
}

/// What else cares when a DSV tenant changes: its syncs.
pub fn dsv_tenant_changed(ctx: &Context, tenant: &DsvTenant) {
    let (namespace, name) = (tenant.namespace(), tenant.name_any());
    if ctx.stores.dsv_tenants.get(&ObjectRef::from_obj(tenant)).is_none() {
        ctx.lanes.forget(&tenant.uid().unwrap_or_default());
    }
    let of = |sync: &SecretSync| sync.namespace() == namespace && sync.spec.tenant == name;
    for sync in ctx.stores.secret_syncs.state_filter(of) {
        let _ = ctx.wakes.secret_syncs.send(ObjectRef::from_obj(sync.as_ref()));
    }
}

/// A credential came, changed or went: what failed for want of one is tried at once.
pub(super) fn sync_credential_changed(ctx: &Context, secret: &PartialObjectMeta<Secret>) {
    let owner = secret.annotations().get(credential::DYNAMIC_SECRET_UID);
    let namespace = secret.namespace();
    // From the syncs, of which there are few, to the owner: not through all dynamic secrets for each of their credentials.
    let pushes = |sync: &SecretSync| {
        let source = &sync.spec.source;
        let of = || ObjectRef::<DynamicSecret>::new(&source.name).within(namespace.as_deref().unwrap_or_default());
        let is_owner = |one: &DynamicSecret| one.metadata.uid.as_ref() == owner;
        source.kind() == SourceKind::DynamicSecret
            && sync.namespace() == namespace
            && ctx.stores.dynamic_secrets.get(&of()).is_some_and(|one| is_owner(&one))
    };
    for sync in ctx.stores.secret_syncs.state_filter(pushes) {
        if sync.status.as_ref().is_some_and(|status| status.failures.is_some()) {
            ctx.nudges.nudge(&sync.uid().unwrap_or_default());
        }
        let _ = ctx.wakes.secret_syncs.send(ObjectRef::from_obj(sync.as_ref()));
    }
}
