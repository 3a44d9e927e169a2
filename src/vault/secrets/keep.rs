//! Writing static secrets: create, update, delete, restore, rollback. Each write is one of exactly the version that was read.

use super::item::{Item, Stamp};
use super::kept::{Kept, is_base};
use super::{Asked, Found, attributes, base};
use crate::api::DynamicSecret;
use crate::cluster::objects;
use crate::vault::Vault;
use crate::vault::body::Fields;
use crate::vault::ids;
use crate::vault::kubernetes::Thing;
use crate::vault::path::SecretPath;
use crate::vault::reply::{Refusal, Reply, marked};
use crate::vault::time;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::{Map, Value};

/// Most bytes of one version's values, as JSON.
const MAX_DATA: usize = 64 * 1024;
/// Most bytes of attributes and description together.
const MAX_ANNOTATIONS: usize = 64 * 1024;

/// How often a dynamic secret is written again after the leader wrote to it in between.
const ATTEMPTS: usize = 5;

/// What a body says of a secret.
pub struct Content {
    pub data: Map<String, Value>,
    pub attributes: Map<String, Value>,
    pub description: String,
    pub overwrite: bool,
}

impl Content {
    pub fn read(fields: &Fields) -> Result<Self, Refusal> {
        let object = |key| fields.object(key).map(|found| found.cloned().unwrap_or_default());
        let content = Self {
            data: object("data")?,
            attributes: object("attributes")?,
            description: fields.text("description")?.unwrap_or_default().to_owned(),
            overwrite: fields.flag("overwrite"),
        };
        content.measured()
    }

    fn measured(self) -> Result<Self, Refusal> {
        let length = |map: &Map<String, Value>| serde_json::to_vec(map).map_or(usize::MAX, |bytes| bytes.len());
        if length(&self.data) > MAX_DATA {
            return Err(Refusal::new(413, format!("data is larger than {MAX_DATA} bytes")));
        }
        if length(&self.attributes) + self.description.len() > MAX_ANNOTATIONS {
            let message = format!("attributes and description are together larger than {MAX_ANNOTATIONS} bytes");
            return Err(Refusal::new(413, message));
        }
        Ok(self)
    }
}

fn exists() -> Refusal {
    Refusal::bad("error creating secret, secret at path already exists")
}

impl Vault {
    pub(super) async fn create(&self, asked: &Asked<'_>, text: &str) -> Result<Reply, Refusal> {
        let path = Self::new_place(asked, text)?;
        self.demand(asked, "create", path.as_str())?;
        let content = Content::read(&asked.call.fields()?)?;
        match self.at_path(asked, &path).await? {
            Some(found) if found.item(self).is_marked() => return Err(Refusal::marked("secret")),
            Some(_) => return Err(exists()),
            None => {}
        }
        let item = Item {
            id: ids::id(&asked.call.tenant.uid, asked.space.kind(), path.as_str()).to_string(),
            path: path.to_string(),
            attributes: content.attributes,
            description: content.description,
            record: Stamp::first(&asked.caller.subject),
        };
        if attributes::is_dynamic(&item.attributes) {
            asked.caller.demand("create", Thing::Dynamic)?;
            return self.create_dynamic(asked, item, &content.data).await;
        }
        asked.caller.demand("create", Thing::Secret)?;
        let kept = Kept::new(item, content.data, &asked.call.tenant.namespace);
        base::check(&kept)?;
        self.make_kept(asked, &kept, &path).await
    }

    pub(in crate::vault) async fn make_kept(
        &self,
        asked: &Asked<'_>,
        kept: &Kept,
        path: &SecretPath,
    ) -> Result<Reply, Refusal> {
        let tenant = &asked.call.tenant;
        let object = kept.compose(asked.space);
        for _ in 0..2 {
            match objects::make(&self.client, &tenant.namespace, &object).await {
                Ok(_) => {
                    self.secrets.until_seen(&tenant.namespace, &kept.item.id, None).await;
                    return Ok(Reply::created(kept.item.with(&kept.data)));
                }
                Err(error) if error.is_conflict() => {
                    if !self.clear_kept(&tenant.namespace, &kept.item.id).await? {
                        return Err(exists());
                    }
                }
                Err(error) if error.is_not_found() => return Err(Refusal::not_found()),
                Err(error) => return Err(error.into()),
            }
        }
        tracing::warn!(%path, "a path was taken again and again while it was made");
        Err(exists())
    }

    /// Deletes what was softly deleted long enough ago. Returns whether the name is free.
    async fn clear_kept(&self, namespace: &str, id: &str) -> Result<bool, Refusal> {
        let Some(found) = objects::read::<Secret>(&self.client, namespace, id).await? else {
            return Ok(true);
        };
        match Kept::of(found) {
            Some(kept) if kept.item.is_over() => {
                objects::delete(&self.client, &kept.object).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    pub(super) async fn update(&self, asked: &Asked<'_>, text: &str) -> Result<Reply, Refusal> {
        let (found, item) = self.find(asked, text, "update").await?;
        if item.is_marked() {
            return Err(Refusal::marked("secret"));
        }
        let content = Content::read(&asked.call.fields()?)?;
        match found {
            Found::Kept(kept) => self.update_kept(asked, *kept, content).await,
            Found::Dynamic(object) => self.update_dynamic(asked, &object, content).await,
        }
    }

    async fn update_kept(&self, asked: &Asked<'_>, mut kept: Kept, content: Content) -> Result<Reply, Refusal> {
        if attributes::is_dynamic(&content.attributes) {
            return Err(Refusal::bad(
                "a secret with data cannot become a dynamic one; create the dynamic secret at another path",
            ));
        }
        let was_base = kept.is_base();
        kept.push_history();
        if content.overwrite {
            kept.data = content.data;
            kept.item.description = content.description;
        } else {
            kept.data.extend(content.data);
            if !content.description.is_empty() {
                kept.item.description = content.description;
            }
        }
        if !content.attributes.is_empty() {
            kept.item.attributes = content.attributes;
        }
        kept.item.record = kept.item.record.next(&asked.caller.subject);
        if was_base && !is_base(&kept.item.attributes) {
            self.nobody_links(asked, &kept.object.name_any())?;
        }
        base::check(&kept)?;
        let kept = self.write_kept(asked, kept).await?;
        Ok(Reply::ok(kept.item.with(&kept.data)))
    }

    async fn write_kept(&self, asked: &Asked<'_>, mut kept: Kept) -> Result<Kept, Refusal> {
        let namespace = &asked.call.tenant.namespace;
        let before = kept.object.resource_version();
        let object = kept.compose(asked.space);
        kept.object = objects::replace(&self.client, namespace, &object).await?;
        self.secrets
            .until_seen(namespace, &kept.object.name_any(), before.as_deref())
            .await;
        Ok(kept)
    }

    /// A base secret that dynamic secrets link stays.
    fn nobody_links(&self, asked: &Asked<'_>, object: &str) -> Result<(), Refusal> {
        let linking = self.linking(&asked.call.tenant, object);
        if linking.is_empty() {
            return Ok(());
        }
        Err(Refusal::bad(format!(
            "dynamic secrets are linked to this secret: {}; delete them first",
            linking.join(", ")
        )))
    }

    pub(super) async fn delete(&self, asked: &Asked<'_>, text: &str) -> Result<Reply, Refusal> {
        let (found, item) = self.find(asked, text, "delete").await?;
        let force = asked.call.flag("force");
        if item.is_marked() && !force {
            return Err(Refusal::marked("secret"));
        }
        match found {
            Found::Kept(kept) => {
                self.nobody_links(asked, &kept.object.name_any())?;
                if force {
                    objects::delete(&self.client, &kept.object).await?;
                    let (namespace, name) = (&asked.call.tenant.namespace, kept.object.name_any());
                    let before = kept.object.resource_version();
                    self.secrets.until_seen(namespace, &name, before.as_deref()).await;
                    return Ok(Reply::nothing());
                }
                let mut kept = *kept;
                kept.item.record.deleted = Some(time::now());
                self.write_kept(asked, kept).await?;
            }
            Found::Dynamic(object) if force => return self.remove_dynamic(asked, &object).await,
            Found::Dynamic(object) => self.mark_dynamic(asked, &object, true).await?,
        }
        Ok(Reply::message(marked("secret")))
    }

    pub(super) async fn restore(&self, asked: &Asked<'_>, text: &str) -> Result<Reply, Refusal> {
        let (found, item) = self.find(asked, text, "update").await?;
        if !item.is_marked() {
            return Ok(Reply::nothing());
        }
        match found {
            Found::Kept(mut kept) => {
                kept.item.record.deleted = None;
                self.write_kept(asked, *kept).await?;
            }
            Found::Dynamic(object) => self.mark_dynamic(asked, &object, false).await?,
        }
        Ok(Reply::nothing())
    }

    pub(super) async fn rollback(&self, asked: &Asked<'_>, text: &str, number: u64) -> Result<Reply, Refusal> {
        let (found, item) = self.find(asked, text, "update").await?;
        if item.is_marked() {
            return Err(Refusal::marked("secret"));
        }
        let Found::Kept(kept) = found else {
            let Found::Dynamic(object) = found else {
                return Err(Refusal::not_found());
            };
            return self.rollback_dynamic(asked, &object, number).await;
        };
        let mut kept = *kept;
        let missing = || Refusal::new(404, format!("version {number} is not kept; the last ten versions are"));
        let (attributes, description, data) = kept.version(number).ok_or_else(missing)?;
        kept.push_history();
        kept.item.attributes = attributes;
        kept.item.description = description;
        kept.data = data;
        kept.item.record = kept.item.record.next(&asked.caller.subject);
        base::check(&kept)?;
        let kept = self.write_kept(asked, kept).await?;
        Ok(Reply::ok(kept.item.with(&kept.data)))
    }

    /// Writes a dynamic secret in place of what was seen. The leader writes finalizers and statuses of it too; that is no
    /// rival, so after a conflict the same is written again, unless spec, path or version have changed.
    pub(super) async fn replace_dynamic(
        &self,
        asked: &Asked<'_>,
        seen: &DynamicSecret,
        mut changed: DynamicSecret,
    ) -> Result<DynamicSecret, Refusal> {
        let (namespace, name) = (&asked.call.tenant.namespace, seen.name_any());
        for _ in 0..ATTEMPTS {
            let before = changed.resource_version();
            match objects::replace(&self.client, namespace, &changed).await {
                Ok(written) => {
                    self.dynamic.until_seen(namespace, &name, before.as_deref()).await;
                    return Ok(written);
                }
                Err(error) if error.is_conflict() => {
                    let fresh = objects::read::<DynamicSecret>(&self.client, namespace, &name).await?;
                    let same = |fresh: &DynamicSecret| fresh.spec == seen.spec && Item::of(fresh) == Item::of(seen);
                    let fresh = fresh.filter(same).ok_or(error)?;
                    changed.metadata.resource_version = fresh.metadata.resource_version;
                    changed.metadata.finalizers = fresh.metadata.finalizers;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Refusal::new(409, "this is changed all the time; try again"))
    }
}
