//! Writing dynamic secrets: a `DynamicSecret` in mode OnDemand, whose annotations keep what only this API can say.

use super::item::{Item, Stamp};
use super::keep::Content;
use super::kept::is_base;
use super::{Asked, Found, attributes};
use crate::api::names::{MANAGED_BY, OPERATOR, object_name};
use crate::api::{DynamicSecret, EnginePool, base_secret};
use crate::cluster::objects;
use crate::vault::Vault;
use crate::vault::reply::{Refusal, Reply};
use crate::vault::time;
use attributes::Wanted;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Annotation: the versions before the present one, oldest first.
const HISTORY: &str = "dsv.dev/versions";
/// Versions that are kept besides the present one.
const KEPT: usize = 9;
/// Most bytes of all former versions together.
const MAX_HISTORY: usize = 128 * 1024;

#[derive(Clone, Serialize, Deserialize)]
struct Former {
    attributes: Map<String, Value>,
    description: String,
    record: Stamp,
}

impl Vault {
    /// What is shown of a dynamic secret: what was given, with what the spec says now where somebody changed it.
    pub(super) fn dynamic_item(&self, object: &DynamicSecret) -> Item {
        let mut item = Item::of(object);
        let spec = &object.spec;
        let beside = object.namespace().unwrap_or_default();
        let pools = spec.pool.namespace.as_deref().unwrap_or(&beside);
        let linked = self.path_of(pools, &spec.link_config.linked_secret);
        item.attributes = attributes::shown(&item.attributes, spec, &linked);
        item
    }

    pub(super) fn dynamic_versions(&self, object: &DynamicSecret, count: usize) -> Vec<Value> {
        let present = self.dynamic_item(object);
        let former = history(object).into_iter().rev().map(|former| {
            let item = Item {
                attributes: former.attributes,
                description: former.description,
                record: former.record,
                ..present.clone()
            };
            item.with(&Map::new())
        });
        std::iter::once(present.with(&Map::new()))
            .chain(former)
            .take(count)
            .collect()
    }

    pub(super) async fn create_dynamic(
        &self,
        asked: &Asked<'_>,
        item: Item,
        data: &Map<String, Value>,
    ) -> Result<Reply, Refusal> {
        let (wanted, linked, database) = self.checked_attributes(asked, &item.attributes, data).await?;
        let mut object = DynamicSecret::new(&item.id, wanted.spec(&linked, &database));
        object.metadata.namespace = Some(asked.call.tenant.namespace.clone());
        object.labels_mut().insert(MANAGED_BY.to_owned(), OPERATOR.to_owned());
        object.annotations_mut().extend(item.annotations());
        let namespace = &asked.call.tenant.namespace;
        match objects::make(&self.client, namespace, &object).await {
            Ok(_) => {}
            Err(error) if error.is_conflict() => {
                return Err(Refusal::bad("error creating secret, secret at path already exists"));
            }
            Err(error) => return Err(error.into()),
        }
        self.dynamic.until_seen(namespace, &item.id, None).await;
        Ok(Reply::created(item.with(&Map::new())))
    }

    /// Attributes that can be served, with the object of the base secret and the database that it names.
    async fn checked_attributes(
        &self,
        asked: &Asked<'_>,
        given: &Map<String, Value>,
        data: &Map<String, Value>,
    ) -> Result<(Wanted, String, String), Refusal> {
        if asked.space == super::Space::Home {
            return Err(Refusal::bad("dynamic secrets lie below /v1/secrets, not in a home"));
        }
        let wanted = attributes::check(given, self.min_ttl(&asked.call.tenant)).map_err(Refusal::fields)?;
        if !data.is_empty() {
            return Err(Refusal::fields(vec![(
                "data".to_owned(),
                "must be empty in a dynamic secret".to_owned(),
            )]));
        }
        let (linked, database) = self.base_of(asked, &wanted).await?;
        let namespace = &asked.call.tenant.namespace;
        let pool = object_name(&wanted.pool);
        if objects::read::<EnginePool>(&self.client, namespace, &pool)
            .await?
            .is_none()
        {
            return Err(Refusal::bad("specified pool doesn't exist").with("attributes.pool", "names no pool"));
        }
        Ok((wanted, linked, database))
    }

    /// The base secret. Who links one gives accounts on its server to others, so he must be allowed to assign it, to
    /// read it or to change it.
    async fn base_of(&self, asked: &Asked<'_>, wanted: &Wanted) -> Result<(String, String), Refusal> {
        let path = wanted.linked.as_str();
        let allowed = ["assign", "read", "update"]
            .iter()
            .any(|action| self.permits(asked, action, path));
        if !allowed {
            return Err(Refusal::forbidden().with(
                "attributes.linkConfig.linkedSecret",
                "needs the permission to assign, read or update that secret",
            ));
        }
        let none =
            |text: &str| Refusal::fields(vec![("attributes.linkConfig.linkedSecret".to_owned(), text.to_owned())]);
        match self.at_path(asked, &wanted.linked).await? {
            Some(Found::Kept(kept)) if is_base(&kept.item.attributes) && !kept.item.is_marked() => {
                let login = base_secret::read(&kept.object).map_err(|error| none(&error.faults.join("; ")))?;
                Ok((kept.object.name_any(), login.database))
            }
            Some(_) => Err(none("is no base secret: its attributes need the type postgresql")),
            None => Err(none("names no secret")),
        }
    }

    pub(super) async fn update_dynamic(
        &self,
        asked: &Asked<'_>,
        object: &DynamicSecret,
        content: Content,
    ) -> Result<Reply, Refusal> {
        let present = self.dynamic_item(object);
        let mut item = present.clone();
        if !content.attributes.is_empty() {
            item.attributes = content.attributes;
        }
        if content.overwrite || !content.description.is_empty() {
            item.description = content.description;
        }
        if !attributes::is_dynamic(&item.attributes) {
            return Err(Refusal::bad(
                "a dynamic secret keeps its linkConfig; create an ordinary secret at another path",
            ));
        }
        self.write_version(asked, object, (&present, item), &content.data).await
    }

    async fn write_version(
        &self,
        asked: &Asked<'_>,
        object: &DynamicSecret,
        (present, mut item): (&Item, Item),
        data: &Map<String, Value>,
    ) -> Result<Reply, Refusal> {
        let mut changed = object.clone();
        if item.attributes != present.attributes {
            let (wanted, linked, database) = self.checked_attributes(asked, &item.attributes, data).await?;
            changed.spec = wanted.respec(&object.spec, &linked, &database);
        }
        item.record = present.record.next(&asked.caller.subject);
        let mut all = history(object);
        all.push(Former {
            attributes: present.attributes.clone(),
            description: present.description.clone(),
            record: present.record.clone(),
        });
        changed.annotations_mut().extend(item.annotations());
        changed.annotations_mut().insert(HISTORY.to_owned(), shortened(all));
        let written = self.replace_dynamic(asked, object, changed).await?;
        Ok(Reply::ok(self.dynamic_item(&written).with(&Map::new())))
    }

    pub(super) async fn rollback_dynamic(
        &self,
        asked: &Asked<'_>,
        object: &DynamicSecret,
        number: u64,
    ) -> Result<Reply, Refusal> {
        let present = self.dynamic_item(object);
        let former = history(object)
            .into_iter()
            .find(|former| former.record.version == number);
        let missing = || Refusal::new(404, format!("version {number} is not kept; the last ten versions are"));
        let former = former.ok_or_else(missing)?;
        let item = Item {
            attributes: former.attributes,
            description: former.description,
            ..present.clone()
        };
        self.write_version(asked, object, (&present, item), &Map::new()).await
    }

    /// Marks it for deletion, or takes that back. While it is marked it issues nothing, whoever asks.
    pub(super) async fn mark_dynamic(
        &self,
        asked: &Asked<'_>,
        object: &DynamicSecret,
        marked: bool,
    ) -> Result<(), Refusal> {
        let mut item = self.dynamic_item(object);
        item.record.deleted = marked.then(time::now);
        let mut changed = object.clone();
        changed.spec.suspend = marked.then_some(true);
        changed.annotations_mut().extend(item.annotations());
        self.replace_dynamic(asked, object, changed).await.map(|_| ())
    }

    /// Deletes it for good: its accounts are taken back at once.
    pub(super) async fn remove_dynamic(&self, asked: &Asked<'_>, object: &DynamicSecret) -> Result<Reply, Refusal> {
        objects::delete(&self.client, object).await?;
        let namespace = &asked.call.tenant.namespace;
        let before = object.resource_version();
        self.dynamic
            .until_seen(namespace, &object.name_any(), before.as_deref())
            .await;
        Ok(Reply::nothing())
    }
}

fn history(object: &DynamicSecret) -> Vec<Former> {
    let text = object.annotations().get(HISTORY);
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// As many of the newest as fit beside everything else in the annotations.
fn shortened(mut all: Vec<Former>) -> String {
    loop {
        let surplus = all.len().saturating_sub(KEPT);
        all.drain(..surplus);
        let text = serde_json::to_string(&all).unwrap_or_default();
        if text.len() <= MAX_HISTORY || all.is_empty() {
            return text;
        }
        all.remove(0);
    }
}
