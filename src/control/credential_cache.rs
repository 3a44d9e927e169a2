//! What is kept of credential Secrets: whose each is, and how far it has come. Their metadata is several times that, and there
//! is one for each live credential. No value of a Secret is ever here.

use crate::api::names::{LEASE_LABEL, MANAGED_BY, OPERATOR, credential};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PartialObjectMeta;
use kube::core::PartialObjectMetaExt;
use kube::runtime::reflector::Lookup;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use std::borrow::Cow;

/// A credential Secret as it was seen last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenCredential {
    /// Namespace.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// Resource version.
    pub version: Box<str>,
    /// UID of the lease whose credential it holds, as its label says; none where that was taken off.
    pub lease_uid: Option<Box<str>>,
    /// Its annotation says the same.
    pub is_annotated: bool,
    /// Name of that lease, as its annotation says.
    pub lease: Option<Box<str>>,
    /// When the credential ends.
    pub expires_at: Option<Timestamp>,
    /// Labelled as ours.
    pub managed: bool,
    /// Somebody deleted it.
    pub deleted: bool,
}

impl SeenCredential {
    fn of(secret: &PartialObjectMeta<Secret>) -> Self {
        let annotation = |key: &str| secret.annotations().get(key).map(String::as_str);
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        let meta = &secret.metadata;
        Self {
            namespace: text(&meta.namespace),
            name: text(&meta.name),
            version: text(&meta.resource_version),
            lease_uid: secret.labels().get(LEASE_LABEL).map(|uid| uid.as_str().into()),
            is_annotated: annotation(credential::LEASE_UID).is_some()
                && annotation(credential::LEASE_UID) == secret.labels().get(LEASE_LABEL).map(String::as_str),
            lease: annotation(credential::LEASE).map(Into::into),
            expires_at: annotation(credential::EXPIRES_AT).and_then(|end| end.parse().ok()),
            managed: secret.labels().get(MANAGED_BY).map(String::as_str) == Some(OPERATOR),
            deleted: meta.deletion_timestamp.is_some(),
        }
    }
}

impl SeenCredential {
    /// What of its metadata says that it is this lease's, with the version in which it does; none where it does not. Enough
    /// to delete exactly that version: nothing can have become of it meanwhile.
    pub fn of_lease(&self, uid: &str) -> Option<PartialObjectMeta<Secret>> {
        let is_its = self.managed && self.is_annotated && self.lease_uid.as_deref() == Some(uid);
        let metadata = || ObjectMeta {
            namespace: Some(self.namespace.to_string()),
            name: Some(self.name.to_string()),
            resource_version: Some(self.version.to_string()),
            labels: Some([(MANAGED_BY, OPERATOR), (LEASE_LABEL, uid)].map(owned).into()),
            annotations: Some([(credential::LEASE_UID, uid)].map(owned).into()),
            ..ObjectMeta::default()
        };
        is_its.then(|| metadata().into_response_partial())
    }
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

impl Lookup for SeenCredential {
    type DynamicType = ();

    fn kind((): &()) -> Cow<'_, str> {
        <Secret as Resource>::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        <Secret as Resource>::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        <Secret as Resource>::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        <Secret as Resource>::plural(&())
    }

    fn name(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.name))
    }

    fn namespace(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.namespace))
    }

    // Neither is needed to find it, and the cache would keep them once more.
    fn resource_version(&self) -> Option<Cow<'_, str>> {
        None
    }

    fn uid(&self) -> Option<Cow<'_, str>> {
        None
    }
}

/// Takes in what the watch shows.
pub fn reflect(writer: &mut Writer<SeenCredential>, event: &Event<PartialObjectMeta<Secret>>) {
    let seen = match event {
        Event::Apply(secret) => Event::Apply(SeenCredential::of(secret)),
        Event::Delete(secret) => Event::Delete(SeenCredential::of(secret)),
        Event::Init => Event::Init,
        Event::InitApply(secret) => Event::InitApply(SeenCredential::of(secret)),
        Event::InitDone => Event::InitDone,
    };
    writer.apply_watcher_event(&seen);
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::reflector::{self, ObjectRef};
    use serde_json::json;

    fn secret(version: &str) -> PartialObjectMeta<Secret> {
        serde_json::from_value(json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {
                "name": "orders", "namespace": "shop", "uid": "u1", "resourceVersion": version,
                "labels": {LEASE_LABEL: "lease-uid", MANAGED_BY: OPERATOR},
                "annotations": {credential::LEASE: "orders-1", credential::LEASE_UID: "lease-uid", credential::EXPIRES_AT: "2026-11-22T11:00:00Z"},
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_secret_is_found_by_its_name_as_it_was_seen_last() {
        let (store, mut writer) = reflector::store::<SeenCredential>();
        for event in [
            Event::Init,
            Event::InitApply(secret("7")),
            Event::InitDone,
            Event::Apply(secret("8")),
        ] {
            reflect(&mut writer, &event);
        }
        let seen = store.get(&ObjectRef::new("orders").within("shop")).unwrap();
        assert_eq!((&*seen.version, seen.lease.as_deref()), ("8", Some("orders-1")));
        assert_eq!(seen.lease_uid.as_deref(), Some("lease-uid"));
        assert_eq!(seen.expires_at, Some("2026-11-22T11:00:00Z".parse().unwrap()));
        assert!(seen.managed && !seen.deleted);
        let meta = seen.of_lease("lease-uid").unwrap().metadata;
        assert_eq!(meta.resource_version.as_deref(), Some("8"));
        assert!(seen.of_lease("another").is_none());
        reflect(&mut writer, &Event::Delete(secret("9")));
        assert!(store.get(&ObjectRef::new("orders").within("shop")).is_none());
    }
}
