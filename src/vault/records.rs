//! Principals, policies, refresh tokens and sessions: one Secret each in the operator's namespace, out of every tenant's reach.
//!
//! What is not secret stands in an annotation, so that the metadata watch knows it; a hash stands in the data and is read
//! live. Names are claimed by POST, changes are writes of the version that was read.

use super::Vault;
use super::ids::{self, Kind};
use super::index::Index;
use super::reply::{Refusal, marked};
use super::tenants::Tenant;
use super::time;
use crate::api::names::{MANAGED_BY, OPERATOR};
use crate::cluster::objects;
use crate::keys::SecretText;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Label: what kind of record a Secret is.
pub const RECORD_LABEL: &str = "dsv.dev/record";
/// Label: UID of the tenant's namespace.
pub const TENANT_LABEL: &str = "dsv.dev/tenant";
/// Type of the Secrets that hold records.
pub const RECORD_TYPE: &str = "dsv.dev/record";
/// Annotation: the record.
const RECORD: &str = "dsv.dev/record";
/// Annotation: the versions before it, oldest first.
const HISTORY: &str = "dsv.dev/versions";
/// Key of the data: what a login is compared with.
const HASH: &str = "hash";
/// Versions that are kept besides the present one.
const KEPT: usize = 9;

/// A user, role, group, client, policy, refresh token or session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its name in its kind.
    pub name: String,
    /// Counts its changes.
    pub version: u64,
    /// When it was made.
    pub created: Timestamp,
    /// By whom.
    pub created_by: String,
    /// When it was changed last.
    pub last_modified: Timestamp,
    /// By whom.
    pub last_modified_by: String,
    /// When it was softly deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Timestamp>,
    /// What its kind adds.
    #[serde(default)]
    pub fields: Map<String, Value>,
}

impl Record {
    /// A text field; empty where there is none.
    pub fn text(&self, name: &str) -> &str {
        self.fields.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A list of texts.
    pub fn list(&self, name: &str) -> Vec<String> {
        let all = self.fields.get(name).and_then(Value::as_array);
        all.into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    }

    /// A number; 0 where there is none.
    pub fn number(&self, name: &str) -> i64 {
        self.fields.get(name).and_then(Value::as_i64).unwrap_or_default()
    }

    /// A time.
    pub fn time(&self, name: &str) -> Option<Timestamp> {
        self.text(name).parse().ok()
    }

    /// Not softly deleted.
    pub fn is_live(&self) -> bool {
        self.deleted.is_none()
    }

    /// What every stored thing shows.
    pub fn common(&self, id: &str) -> Map<String, Value> {
        let all = json!({
            "id": id,
            "version": self.version.to_string(),
            "created": time::text(self.created),
            "createdBy": self.created_by,
            "lastModified": time::text(self.last_modified),
            "lastModifiedBy": self.last_modified_by,
        });
        match all {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// A record as the index knows it.
#[derive(Debug)]
pub struct Known {
    /// Its kind.
    pub kind: Kind,
    /// Itself.
    pub record: Record,
}

/// A record as it was just read, to be changed.
#[derive(Debug)]
pub struct Live {
    /// Itself.
    pub record: Record,
    /// Versions before it, oldest first.
    pub history: Vec<Record>,
    /// Id and name of the object.
    pub id: String,
    kind: Kind,
    secret: Secret,
}

impl Live {
    fn of(kind: Kind, secret: Secret) -> Option<Self> {
        let read = |name: &str| secret.annotations().get(name);
        let record: Record = serde_json::from_str(read(RECORD)?).ok()?;
        let history = read(HISTORY).and_then(|text| serde_json::from_str(text).ok());
        Some(Self {
            record,
            history: history.unwrap_or_default(),
            id: secret.name_any(),
            kind,
            secret,
        })
    }

    /// What a login is compared with.
    pub fn hash(&self) -> Option<SecretText> {
        let bytes = self.secret.data.as_ref()?.get(HASH)?;
        String::from_utf8(bytes.0.clone()).ok().map(SecretText::new)
    }

    /// The present version and those before it, newest first.
    pub fn versions(&self) -> Vec<Record> {
        std::iter::once(self.record.clone())
            .chain(self.history.iter().rev().cloned())
            .collect()
    }
}

/// The operator's own Secrets that are records, by their tenant.
pub async fn follow(index: Index<Known>, api: Api<PartialObjectMeta<Secret>>) {
    let ours = watcher::Config::default().labels(RECORD_LABEL);
    index.follow(api, ours, read).await;
}

fn read(secret: &PartialObjectMeta<Secret>) -> Option<(String, Known)> {
    let kind = Kind::of(secret.labels().get(RECORD_LABEL)?)?;
    let tenant = secret.labels().get(TENANT_LABEL)?.clone();
    let record: Record = serde_json::from_str(secret.annotations().get(RECORD)?).ok()?;
    // The name of the object is the claim to the name: whoever writes another into it has none.
    let own = ids::id(&tenant, kind, &record.name).to_string();
    (own == secret.name_any()).then_some((tenant, Known { kind, record }))
}

impl Vault {
    /// All live records of a kind, by name.
    pub(super) fn records(&self, tenant: &Tenant, kind: Kind) -> Vec<(String, Record)> {
        let all = self.records.all(&tenant.uid);
        let mut found: Vec<(String, Record)> = all
            .iter()
            .filter(|entry| entry.value.kind == kind && entry.value.record.is_live())
            .map(|entry| (entry.object.clone(), entry.value.record.clone()))
            .collect();
        found.sort_by(|one, two| one.1.name.cmp(&two.1.name));
        found
    }

    /// A live record, at most a second old.
    pub(super) fn known(&self, tenant: &Tenant, kind: Kind, name: &str) -> Option<Record> {
        let id = ids::id(&tenant.uid, kind, name).to_string();
        let entry = self.records.get(&tenant.uid, &id)?;
        entry.value.record.is_live().then(|| entry.value.record.clone())
    }

    /// A record as it is now, softly deleted or not.
    pub(super) async fn record(&self, tenant: &Tenant, kind: Kind, name: &str) -> Result<Option<Live>, Refusal> {
        let id = ids::id(&tenant.uid, kind, name).to_string();
        let found = objects::read::<Secret>(&self.client, &self.settings.home, &id).await?;
        let ours = |secret: &Secret| secret.labels().get(RECORD_LABEL).map(String::as_str) == Some(kind.word());
        let live = found.filter(ours).and_then(|secret| Live::of(kind, secret));
        Ok(live.filter(|live| !live.record.deleted.is_some_and(time::is_over)))
    }

    /// The same, where it must be there and not be deleted.
    pub(super) async fn live_record(&self, tenant: &Tenant, kind: Kind, name: &str) -> Result<Live, Refusal> {
        let found = self.record(tenant, kind, name).await?.ok_or_else(Refusal::not_found)?;
        if found.record.is_live() {
            return Ok(found);
        }
        Err(Refusal::marked(kind.word()))
    }

    /// Makes a record. None where the name is taken.
    pub(super) async fn make_record(
        &self,
        tenant: &Tenant,
        kind: Kind,
        name: &str,
        fields: Map<String, Value>,
        (hash, by): (Option<&SecretText>, &str),
    ) -> Result<Option<Live>, Refusal> {
        let now = time::now();
        let record = Record {
            name: name.to_owned(),
            version: 0,
            created: now,
            created_by: by.to_owned(),
            last_modified: now,
            last_modified_by: by.to_owned(),
            deleted: None,
            fields,
        };
        let secret = self.compose(tenant, kind, &record, hash);
        for _ in 0..2 {
            match objects::make(&self.client, &self.settings.home, &secret).await {
                Ok(made) => {
                    self.records.until_seen(&tenant.uid, &made.name_any(), None).await;
                    return Ok(Live::of(kind, made));
                }
                Err(error) if error.is_conflict() => {
                    if !self.clear_away(tenant, kind, name).await? {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Deletes what was softly deleted long enough ago. Returns whether the name is free.
    async fn clear_away(&self, tenant: &Tenant, kind: Kind, name: &str) -> Result<bool, Refusal> {
        let id = ids::id(&tenant.uid, kind, name).to_string();
        let Some(found) = objects::read::<Secret>(&self.client, &self.settings.home, &id).await? else {
            return Ok(true);
        };
        let live = Live::of(kind, found);
        match live {
            Some(live) if live.record.deleted.is_some_and(time::is_over) => {
                objects::delete(&self.client, &live.secret).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn compose(&self, tenant: &Tenant, kind: Kind, record: &Record, hash: Option<&SecretText>) -> Secret {
        let labels = [
            (MANAGED_BY, OPERATOR),
            (RECORD_LABEL, kind.word()),
            (TENANT_LABEL, tenant.uid.as_str()),
        ];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let text = serde_json::to_string(record).unwrap_or_default();
        Secret {
            metadata: ObjectMeta {
                name: Some(ids::id(&tenant.uid, kind, &record.name).to_string()),
                namespace: Some(self.settings.home.clone()),
                labels: Some(labels.into()),
                annotations: Some([(RECORD.to_owned(), text)].into()),
                ..ObjectMeta::default()
            },
            type_: Some(RECORD_TYPE.to_owned()),
            data: hash.map(|hash| [(HASH.to_owned(), ByteString(hash.reveal().as_bytes().to_vec()))].into()),
            ..Secret::default()
        }
    }

    /// Writes a changed record as its next version; the present one joins the history.
    pub(super) async fn next_version(
        &self,
        tenant: &Tenant,
        mut live: Live,
        (fields, hash): (Map<String, Value>, Option<&SecretText>),
        by: &str,
    ) -> Result<Live, Refusal> {
        live.history.push(live.record.clone());
        let surplus = live.history.len().saturating_sub(KEPT);
        live.history.drain(..surplus);
        live.record.version += 1;
        live.record.last_modified = time::now();
        by.clone_into(&mut live.record.last_modified_by);
        live.record.fields = fields;
        if let Some(hash) = hash {
            let data = live.secret.data.get_or_insert_default();
            data.insert(HASH.to_owned(), ByteString(hash.reveal().as_bytes().to_vec()));
        }
        self.write(tenant, live).await
    }

    /// Writes the record in place, without another version.
    pub(super) async fn write(&self, tenant: &Tenant, mut live: Live) -> Result<Live, Refusal> {
        let record = serde_json::to_string(&live.record).unwrap_or_default();
        let history = serde_json::to_string(&live.history).unwrap_or_default();
        let annotations = live.secret.annotations_mut();
        annotations.insert(RECORD.to_owned(), record);
        annotations.insert(HISTORY.to_owned(), history);
        let before = live.secret.resource_version();
        let written = objects::replace(&self.client, &self.settings.home, &live.secret).await?;
        self.records.until_seen(&tenant.uid, &live.id, before.as_deref()).await;
        Live::of(live.kind, written).ok_or_else(Refusal::not_found)
    }

    /// Deletes it: softly first, so that it can be restored, or for good with `force`. Returns what is said.
    pub(super) async fn delete_record(
        &self,
        tenant: &Tenant,
        kind: Kind,
        name: &str,
        force: bool,
    ) -> Result<super::Reply, Refusal> {
        let found = self.record(tenant, kind, name).await?.ok_or_else(Refusal::not_found)?;
        if force {
            self.remove(tenant, &found).await?;
            return Ok(super::Reply::nothing());
        }
        if !found.record.is_live() {
            return Err(Refusal::marked(kind.word()));
        }
        let mut found = found;
        found.record.deleted = Some(time::now());
        self.write(tenant, found).await?;
        Ok(super::Reply::message(marked(kind.word())))
    }

    /// Deletes the object.
    pub(super) async fn remove(&self, tenant: &Tenant, live: &Live) -> Result<(), Refusal> {
        objects::delete(&self.client, &live.secret).await?;
        let before = live.secret.resource_version();
        self.records.until_seen(&tenant.uid, &live.id, before.as_deref()).await;
        Ok(())
    }

    /// Takes a soft deletion back.
    pub(super) async fn restore_record(
        &self,
        tenant: &Tenant,
        kind: Kind,
        name: &str,
    ) -> Result<super::Reply, Refusal> {
        let mut found = self.record(tenant, kind, name).await?.ok_or_else(Refusal::not_found)?;
        if found.record.deleted.take().is_some() {
            self.write(tenant, found).await?;
        }
        Ok(super::Reply::nothing())
    }
}
