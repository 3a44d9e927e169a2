//! Sync maps as Secret Server has them: one secret at one path of one tenant. Each is a `SecretSync`.

use super::form::{Form, ids, wrong};
use super::number;
use super::page::Page;
use super::tenants::given_name;
use crate::api::conditions::{self, READY, Reason};
use crate::api::names::PUSH_AT;
use crate::api::secret_sync::{SourceKind, SyncSource};
use crate::api::{DsvTenant, SecretSync, SecretSyncSpec};
use crate::cluster::numbers::{Numbered, Numbers, source_name};
use crate::cluster::objects;
use crate::plan::sync::content;
use crate::vault::Vault;
use crate::vault::call::Call;
use crate::vault::caller::Caller;
use crate::vault::reply::{Refusal, Reply};
use crate::vault::time;
use kube::ResourceExt;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// How often a write is repeated after the leader wrote to the same object in between.
const ATTEMPTS: usize = 5;

impl Vault {
    fn allow_sync(&self, call: &Call, caller: &Caller, action: &str, id: i64) -> Result<(), Refusal> {
        self.require(call, caller, action, &format!("dsv-syncs:{id}"))
    }

    /// `POST …/add-sync`.
    pub(super) async fn add_sync(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        self.require(call, caller, "create", "dsv-syncs:new")?;
        let form = Form::read(call)?;
        let required = |name: &str, value: Option<i64>| value.ok_or_else(|| wrong(name, "is required"));
        let source = required("secretId", form.number("secretId")?)?;
        let tenant = required("dsvTenantId", form.number("dsvTenantId")?)?;
        let path = form.list("fieldNamesPath")?.filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| wrong("fieldNamesPath", "is required"))?;
        let found = self.source(call, caller, source).await?;
        let tenant = self.dsv_tenant(call, caller, (tenant, "read")).await;
        let tenant = tenant.map_err(|refusal| match refusal.code {
            404 => wrong("dsvTenantId", "is unknown"),
            _ => refusal,
        })?;
        let kind = if found.fields.is_some() {
            SourceKind::Secret
        } else {
            SourceKind::DynamicSecret
        };
        let spec = SecretSyncSpec {
            source: SyncSource {
                kind: Some(kind),
                name: found.object.clone(),
            },
            tenant: tenant.name_any(),
            path,
            fields: BTreeMap::new(),
            push_hidden: None,
            attributes: BTreeMap::new(),
            description: None,
            active: Some(form.flag("active")?.unwrap_or(false)),
            drift: None,
            deletion_policy: None,
        };
        check_path(&spec, &found)?;
        let sync = SecretSync::new(&format!("sync-{}", uuid::Uuid::new_v4()), spec);
        let made = objects::make(&self.client, &call.tenant.namespace, &sync).await?;
        let numbers = self.numbers_of(call, (&[], std::slice::from_ref(&made))).await?;
        Ok(Reply::ok(self.status_of(&made, &tenant, &numbers).into()))
    }

    /// `PUT …/sync/{id}`.
    pub(super) async fn change_sync(&self, call: &Call, caller: &Caller, id: &str) -> Result<Reply, Refusal> {
        let (id, form) = (number(id)?, Form::read(call)?);
        self.allow_sync(call, caller, "update", id)?;
        for _ in 0..ATTEMPTS {
            let (mut sync, tenant, numbers) = self.sync(call, id).await?;
            let source = numbers.of_name(Numbered::Source, &source_name(&sync.spec.source));
            let tenant_id = numbers.of(Numbered::Tenant, &tenant.uid().unwrap_or_default());
            let fixed = [
                ("secretId", form.number("secretId")?, source),
                ("dsvTenantId", form.number("dsvTenantId")?, tenant_id),
            ];
            for (name, asked, has) in fixed {
                if asked.is_some() && asked != has {
                    return Err(wrong(name, "of a sync map cannot change; add another sync map"));
                }
            }
            if let Some(source) = source {
                let found = self.source(call, caller, source).await?;
                if let Some(path) = form.list("fieldNamesPath")? {
                    sync.spec.path = path;
                }
                check_path(&sync.spec, &found)?;
            } else if form.list("fieldNamesPath")?.is_some() {
                return Err(wrong("fieldNamesPath", "cannot change while the source is gone"));
            }
            if let Some(active) = form.flag("active")? {
                sync.spec.active = Some(active);
            }
            match objects::replace(&self.client, &call.tenant.namespace, &sync).await {
                Ok(written) => return Ok(Reply::ok(self.status_of(&written, &tenant, &numbers).into())),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Refusal::new(409, "this is changed all the time; try again"))
    }

    /// `POST …/sync`: a push of each of these at once, also where nothing changed. Inactive ones are left as they are.
    pub(super) async fn push_syncs(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let mut shown = Vec::new();
        for id in ids(call)? {
            self.allow_sync(call, caller, "update", id)?;
            match self.ask_for_push(call, id).await {
                Ok(model) => shown.push(view(&model)),
                Err(refusal) if refusal.code == 404 => {}
                Err(refusal) => return Err(refusal),
            }
        }
        if shown.is_empty() {
            return Err(wrong("data", "holds no id of a sync map"));
        }
        Ok(Reply::ok(shown.into()))
    }

    async fn ask_for_push(&self, call: &Call, id: i64) -> Result<Map<String, Value>, Refusal> {
        let asked = format!("{} {}", time::now(), uuid::Uuid::new_v4());
        for _ in 0..ATTEMPTS {
            let (mut sync, tenant, numbers) = self.sync(call, id).await?;
            if !sync.spec.is_active() {
                return Ok(self.status_of(&sync, &tenant, &numbers));
            }
            sync.annotations_mut().insert(PUSH_AT.to_owned(), asked.clone());
            match objects::replace(&self.client, &call.tenant.namespace, &sync).await {
                Ok(written) => return Ok(self.status_of(&written, &tenant, &numbers)),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Refusal::new(409, "this is changed all the time; try again"))
    }

    /// The sync of a number, its tenant and all numbers.
    pub(in crate::vault) async fn sync(
        &self,
        call: &Call,
        id: i64,
    ) -> Result<(SecretSync, DsvTenant, Numbers), Refusal> {
        let unknown = || Refusal::new(404, format!("there is no sync map with the id {id}"));
        let numbers = self.numbers(call).await?;
        let entry = numbers.get(Numbered::Sync, id).ok_or_else(unknown)?;
        let namespace = &call.tenant.namespace;
        let found = objects::read::<SecretSync>(&self.client, namespace, &entry.name).await?;
        let found = found.filter(|sync| sync.metadata.deletion_timestamp.is_none());
        let sync = found.ok_or_else(unknown)?;
        let tenant = objects::read::<DsvTenant>(&self.client, namespace, &sync.spec.tenant).await?;
        let missing = || Refusal::new(404, "the tenant of this sync map is gone");
        Ok((sync, tenant.ok_or_else(missing)?, numbers))
    }

    /// `GET …/sync/status/{id}`.
    pub(super) async fn show_sync(&self, call: &Call, caller: &Caller, id: &str) -> Result<Reply, Refusal> {
        let id = number(id)?;
        self.allow_sync(call, caller, "read", id)?;
        let (sync, tenant, numbers) = self.sync(call, id).await?;
        Ok(Reply::ok(self.status_of(&sync, &tenant, &numbers).into()))
    }

    /// `GET …/sync/status`.
    pub(super) async fn list_syncs(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let wanted = |name: &str| call.asked(name).map(number).transpose();
        let (secret, tenant) = (wanted("filter.secretId")?, wanted("filter.tenantId")?);
        let inactive = call.flag("filter.includeInactive");
        let tenants = self.all_of::<DsvTenant>(call).await?;
        let syncs = self.all_of::<SecretSync>(call).await?;
        let numbers = self.numbers_of(call, (&tenants, &syncs)).await?;
        let mut models = Vec::new();
        for sync in &syncs {
            let id = numbers
                .of(Numbered::Sync, &sync.uid().unwrap_or_default())
                .unwrap_or_default();
            let Some(of) = tenants.iter().find(|tenant| tenant.name_any() == sync.spec.tenant) else {
                continue;
            };
            let model = self.status_of(sync, of, &numbers);
            let is = |field: &str, wanted: Option<i64>| {
                wanted.is_none() || model.get(field).and_then(Value::as_i64) == wanted
            };
            let shown = (inactive || sync.spec.is_active()) && is("secretId", secret) && is("tenantId", tenant);
            if shown && self.may(call, caller, "list", &format!("dsv-syncs:{id}")) {
                models.push((id, model));
            }
        }
        models.sort_by_key(|(id, _)| *id);
        let records = models.into_iter().map(|(_, model)| model).collect();
        Ok(Reply::ok(Page::read(call)?.of(records)))
    }

    /// `SyncStatusModel`.
    fn status_of(&self, sync: &SecretSync, tenant: &DsvTenant, numbers: &Numbers) -> Map<String, Value> {
        let status = sync.status.clone().unwrap_or_default();
        let namespace = sync.namespace().unwrap_or_default();
        let path = status.path.clone().unwrap_or_else(|| sync.spec.path.join(":"));
        let model = json!({
            "devOpsSyncMapId": numbers.of(Numbered::Sync, &sync.uid().unwrap_or_default()),
            "secretId": numbers.of_name(Numbered::Source, &source_name(&sync.spec.source)),
            "secretName": self.path_of(&namespace, &sync.spec.source.name),
            "tenantId": numbers.of(Numbered::Tenant, &tenant.uid().unwrap_or_default()),
            "tenantName": given_name(tenant),
            "devOpsSecretVaultPath": path.replace(':', "/"),
            "status": word(sync, tenant),
            "active": sync.spec.is_active(),
            "dateAdded": sync.creation_timestamp().map(|at| time::text(at.0)),
            "lastSyncTime": status.last_push.map(|at| time::text(at.0)),
            "nextSyncTime": status.next_push.map(|at| time::text(at.0)),
            "lastError": status.last_error,
        });
        model.as_object().cloned().unwrap_or_default()
    }
}

/// Told at once, with what the source has, instead of later in a status. A credential's fields are known when it is there.
fn check_path(spec: &SecretSyncSpec, source: &super::secrets::Source) -> Result<(), Refusal> {
    let Some(fields) = &source.fields else { return Ok(()) };
    match content::compose(spec, fields) {
        Ok(_) => Ok(()),
        Err(error) => Err(Refusal::bad(error.to_string()).with("fieldNamesPath", error.to_string())),
    }
}

/// The words of `status` are ours: Secret Server's are not documented.
fn word(sync: &SecretSync, tenant: &DsvTenant) -> &'static str {
    if !sync.spec.is_active() || !tenant.spec.is_active() {
        return "Inactive";
    }
    let status = sync.status.as_ref();
    let ready = status.and_then(|status| conditions::find(&status.conditions, READY));
    let unseen = status.is_none_or(|status| status.observed_generation != sync.metadata.generation);
    match ready {
        _ if unseen => "Pending",
        Some(ready) if ready.reason == Reason::Synced.as_str() => "Synced",
        Some(ready) if ready.reason == Reason::SourceMissing.as_str() => "SourceMissing",
        Some(ready) if ready.reason == Reason::Inactive.as_str() => "Pending",
        Some(_) => "Failed",
        None => "Pending",
    }
}

/// A model field by field, as forms have it.
fn view(model: &Map<String, Value>) -> Value {
    let fields: Map<String, Value> = model
        .iter()
        .map(|(name, value)| {
            (
                name.clone(),
                json!({"name": name, "label": label(name), "value": value}),
            )
        })
        .collect();
    Value::Object(fields)
}

/// `lastSyncTime` as `Last Sync Time`.
fn label(name: &str) -> String {
    let mut label = String::new();
    for (at, c) in name.chars().enumerate() {
        if at == 0 {
            label.extend(c.to_uppercase());
            continue;
        }
        if c.is_uppercase() {
            label.push(' ');
        }
        label.push(c);
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_has_a_label_for_each_field() {
        let model = json!({"lastSyncTime": null, "active": true})
            .as_object()
            .unwrap()
            .clone();
        let view = view(&model);
        assert_eq!(view["lastSyncTime"]["label"], "Last Sync Time");
        assert_eq!(
            view["active"],
            json!({"name": "active", "label": "Active", "value": true})
        );
    }
}
