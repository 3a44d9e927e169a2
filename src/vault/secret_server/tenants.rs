//! DSV tenants as Secret Server registers them. Each is a `DsvTenant`.

use super::form::{Form, wrong};
use super::number;
use super::page::Page;
use super::secrets::is_login;
use crate::api::dsv_tenant::TenantCredentials;
use crate::api::names::{GIVEN_NAME, object_name};
use crate::api::ttl::Span;
use crate::api::{DsvTenant, DsvTenantSpec, SecretSync};
use crate::cluster::numbers::{self, Numbered, Numbers};
use crate::cluster::{Intention, objects};
use crate::plan::sync::due;
use crate::vault::Vault;
use crate::vault::call::Call;
use crate::vault::caller::Caller;
use crate::vault::reply::{Refusal, Reply};
use crate::vault::time;
use k8s_openapi::NamespaceResourceScope;
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::fmt::Debug;
use std::time::Duration;

/// Annotation of tenants: who changed what through this API, newest last, as JSON.
const AUDITS: &str = "dsv.dev/audits";
/// Changes that are kept.
const KEPT: usize = 50;

/// `GET …/tenant/stub`.
pub fn stub() -> Value {
    json!({
        "dsvTenantId": 0,
        "tenantName": "",
        "secretId": null,
        "secretName": "",
        "syncInterval": 60,
        "active": true,
        "dateAdded": null,
        "lastSynced": null,
    })
}

/// What people call a tenant.
pub fn given_name(tenant: &DsvTenant) -> String {
    let given = tenant.annotations().get(GIVEN_NAME).cloned();
    given.unwrap_or_else(|| tenant.name_any())
}

impl Vault {
    /// All objects of a kind in the caller's tenant, as they are now.
    pub(in crate::vault) async fn all_of<K>(&self, call: &Call) -> Result<Vec<K>, Refusal>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let mut all = self.every::<K>(call).await?;
        all.retain(|object| object.meta().deletion_timestamp.is_none());
        Ok(all)
    }

    /// The same with those that are being deleted.
    pub(in crate::vault) async fn every<K>(&self, call: &Call) -> Result<Vec<K>, Refusal>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let namespace = &call.tenant.namespace;
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let listed = api.list(&ListParams::default()).await;
        let listed = listed.to(|| format!("list {} in {namespace}", K::plural(&())))?;
        Ok(listed.items)
    }

    fn allow_tenant(&self, call: &Call, caller: &Caller, action: &str, name: &str) -> Result<(), Refusal> {
        self.require(call, caller, action, &format!("dsv-tenants:{name}"))
    }

    /// The tenant of a number, after asking whether the caller may.
    pub(in crate::vault) async fn dsv_tenant(
        &self,
        call: &Call,
        caller: &Caller,
        (id, action): (i64, &str),
    ) -> Result<DsvTenant, Refusal> {
        let numbers = self.numbers(call).await?;
        let found = match numbers.get(Numbered::Tenant, id) {
            None => None,
            Some(entry) => objects::read::<DsvTenant>(&self.client, &call.tenant.namespace, &entry.name).await?,
        };
        let found = found.filter(|tenant| tenant.metadata.deletion_timestamp.is_none());
        let name = found.as_ref().map_or_else(|| id.to_string(), given_name);
        self.allow_tenant(call, caller, action, &name)?;
        found.ok_or_else(|| Refusal::new(404, format!("there is no DSV tenant with the id {id}")))
    }

    /// `POST …/tenant`.
    pub(super) async fn add_tenant(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let form = Form::read(call)?;
        let name = form.text("tenantName")?.filter(|name| !name.trim().is_empty());
        let name = name.ok_or_else(|| wrong("tenantName", "is required"))?;
        self.allow_tenant(call, caller, "create", &name)?;
        let secret = form
            .number("secretId")?
            .ok_or_else(|| wrong("secretId", "is required"))?;
        let minutes = form.number("syncInterval")?;
        let minutes = minutes.ok_or_else(|| wrong("syncInterval", "is required"))?;
        let all = self.all_of::<DsvTenant>(call).await?;
        if all.iter().any(|tenant| given_name(tenant).eq_ignore_ascii_case(&name)) {
            return Err(wrong("tenantName", "is taken by another tenant"));
        }
        let secret_name = self.login_secret(call, caller, (secret, None), &all).await?;
        let spec = DsvTenantSpec {
            url: None,
            credentials: TenantCredentials { secret_name },
            sync_interval: Some(self.interval(minutes)?),
            // As in Secret Server: what nobody switched on is off.
            active: Some(form.flag("active")?.unwrap_or(false)),
            ca_bundle: None,
            proxy: None,
            requests_per_minute: None,
            max_in_flight: None,
        };
        let mut tenant = DsvTenant::new(&object_name(&name), spec);
        tenant.annotations_mut().insert(GIVEN_NAME.to_owned(), name.clone());
        note(&mut tenant, "Create", "the tenant was registered", &caller.subject);
        let made = objects::make(&self.client, &call.tenant.namespace, &tenant).await?;
        let what = (Numbered::Tenant, made.uid().unwrap_or_default(), made.name_any());
        let (home, namespace) = (&self.settings.home, &call.tenant.namespace);
        numbers::assign(&self.client, home, namespace, (what.0, &what.1, &what.2)).await?;
        self.reply(call, &made).await
    }

    /// `PUT …/tenant/{id}`: what is dirty is changed, and all of it is checked together.
    pub(super) async fn change_tenant(&self, call: &Call, caller: &Caller, id: &str) -> Result<Reply, Refusal> {
        let mut tenant = self.dsv_tenant(call, caller, (number(id)?, "update")).await?;
        let form = Form::read(call)?;
        let mut changed = Vec::new();
        if let Some(name) = form.text("tenantName")?.filter(|name| *name != given_name(&tenant)) {
            if name.trim().is_empty() {
                return Err(wrong("tenantName", "is required"));
            }
            let all = self.all_of::<DsvTenant>(call).await?;
            if all.iter().any(|other| given_name(other).eq_ignore_ascii_case(&name)) {
                return Err(wrong("tenantName", "is taken by another tenant"));
            }
            self.allow_tenant(call, caller, "update", &name)?;
            tenant.annotations_mut().insert(GIVEN_NAME.to_owned(), name);
            changed.push("tenantName");
        }
        if let Some(secret) = form.number("secretId")? {
            let all = self.all_of::<DsvTenant>(call).await?;
            let own = tenant.uid();
            tenant.spec.credentials.secret_name =
                self.login_secret(call, caller, (secret, own.as_deref()), &all).await?;
            changed.push("secretId");
        }
        if let Some(minutes) = form.number("syncInterval")? {
            tenant.spec.sync_interval = Some(self.interval(minutes)?);
            changed.push("syncInterval");
        }
        if let Some(active) = form.flag("active")? {
            tenant.spec.active = Some(active);
            changed.push("active");
        }
        if !changed.is_empty() {
            note(&mut tenant, "Update", &changed.join(", "), &caller.subject);
            tenant = objects::replace(&self.client, &call.tenant.namespace, &tenant).await?;
        }
        self.reply(call, &tenant).await
    }

    /// The Secret of a number, if it holds a login and no other tenant has it.
    async fn login_secret(
        &self,
        call: &Call,
        caller: &Caller,
        (id, own): (i64, Option<&str>),
        all: &[DsvTenant],
    ) -> Result<String, Refusal> {
        let source = self.source(call, caller, id).await?;
        let is_login = source.fields.as_deref().is_some_and(is_login);
        if !is_login {
            let fault = "must be a secret with the fields Client ID, Client Secret and Tenant URL";
            return Err(wrong("secretId", fault));
        }
        let taken = all
            .iter()
            .any(|tenant| tenant.spec.credentials.secret_name == source.object && tenant.uid().as_deref() != own);
        if taken {
            return Err(wrong("secretId", "is the login of another tenant already"));
        }
        Ok(source.object)
    }

    fn interval(&self, minutes: i64) -> Result<Span, Refusal> {
        let seconds = u64::try_from(minutes).ok().and_then(|minutes| minutes.checked_mul(60));
        let asked = seconds.map(Duration::from_secs);
        let asked = asked.filter(|length| length.as_secs() <= 10 * 365 * 24 * 3600);
        let asked = asked.ok_or_else(|| wrong("syncInterval", "must be a number of minutes"))?;
        match due::interval(Some(asked), self.settings.sync_period) {
            Ok(length) => Ok(Span::from(length)),
            Err(short) => Err(wrong(
                "syncInterval",
                &format!(
                    "is shorter than the timer's period; the minimum is {}",
                    due::told(&short.0)
                ),
            )),
        }
    }

    async fn reply(&self, call: &Call, tenant: &DsvTenant) -> Result<Reply, Refusal> {
        let syncs = self.all_of::<SecretSync>(call).await?;
        let numbers = self.numbers(call).await?;
        let mut model = self.model(tenant, &syncs, &numbers);
        let id = model.get("dsvTenantId").cloned().unwrap_or_default();
        model.insert("id".to_owned(), id);
        Ok(Reply::ok(model.into()))
    }

    fn model(&self, tenant: &DsvTenant, syncs: &[SecretSync], numbers: &Numbers) -> Map<String, Value> {
        let name = tenant.name_any();
        let pushed = syncs.iter().filter(|sync| sync.spec.tenant == name);
        let last = pushed
            .filter_map(|sync| Some(sync.status.as_ref()?.last_push.as_ref()?.0))
            .max();
        let secret = &tenant.spec.credentials.secret_name;
        let interval = tenant.spec.sync_interval.as_ref().and_then(Span::length);
        let interval = interval.unwrap_or(self.settings.sync_period).as_secs().div_ceil(60);
        let model = json!({
            "dsvTenantId": numbers.of(Numbered::Tenant, &tenant.uid().unwrap_or_default()),
            "tenantName": given_name(tenant),
            "secretId": numbers.of_name(Numbered::Source, &format!("secret/{secret}")),
            "secretName": self.path_of(&tenant.namespace().unwrap_or_default(), secret),
            "syncInterval": interval,
            "active": tenant.spec.is_active(),
            "dateAdded": tenant.creation_timestamp().map(|at| time::text(at.0)),
            "lastSynced": last.map(time::text),
        });
        model.as_object().cloned().unwrap_or_default()
    }

    /// Numbers, after everything that has none was given one: what was made with kubectl a moment ago.
    pub(super) async fn numbers_of(
        &self,
        call: &Call,
        (tenants, syncs): (&[DsvTenant], &[SecretSync]),
    ) -> Result<Numbers, Refusal> {
        let (home, namespace) = (&self.settings.home, &call.tenant.namespace);
        let named = |uid: Option<String>, name: String| (uid.unwrap_or_default(), name);
        let all: Vec<_> = tenants.iter().map(|one| named(one.uid(), one.name_any())).collect();
        numbers::assign_all(&self.client, home, namespace, (Numbered::Tenant, &all)).await?;
        let all: Vec<_> = syncs.iter().map(|one| named(one.uid(), one.name_any())).collect();
        Ok(numbers::assign_all(&self.client, home, namespace, (Numbered::Sync, &all)).await?)
    }

    /// `GET …/tenant`.
    pub(super) async fn list_tenants(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let asked = call.asked("filter.nameSearch").unwrap_or_default().to_lowercase();
        let all = call.flag("filter.includeInactive");
        let mut tenants = self.all_of::<DsvTenant>(call).await?;
        tenants.retain(|tenant| {
            let name = given_name(tenant);
            (all || tenant.spec.is_active())
                && name.to_lowercase().contains(&asked)
                && self.may(call, caller, "list", &format!("dsv-tenants:{name}"))
        });
        let syncs = self.all_of::<SecretSync>(call).await?;
        let numbers = self.numbers_of(call, (&tenants, &[])).await?;
        tenants.sort_by_key(|tenant| numbers.of(Numbered::Tenant, &tenant.uid().unwrap_or_default()));
        let records = tenants.iter().map(|tenant| self.model(tenant, &syncs, &numbers));
        Ok(Reply::ok(Page::read(call)?.of(records.collect())))
    }

    /// `GET …/tenant/{id}`.
    pub(super) async fn show_tenant(&self, call: &Call, caller: &Caller, id: &str) -> Result<Reply, Refusal> {
        let tenant = self.dsv_tenant(call, caller, (number(id)?, "read")).await?;
        self.reply(call, &tenant).await
    }

    /// `GET …/tenant/audits`.
    pub(super) async fn tenant_audits(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let wanted = call.asked("filter.tenantId").map(number).transpose()?;
        let asked = call.asked("filter.searchText").unwrap_or_default().to_lowercase();
        let numbers = self.numbers(call).await?;
        let mut records = Vec::new();
        for tenant in self.all_of::<DsvTenant>(call).await? {
            let name = given_name(&tenant);
            let id = numbers.of(Numbered::Tenant, &tenant.uid().unwrap_or_default());
            let may = self.may(call, caller, "read", &format!("dsv-tenants:{name}"));
            if !may || wanted.is_some() && id != wanted {
                continue;
            }
            for mut line in audits(&tenant) {
                line.insert("tenantName".to_owned(), json!(name));
                if Value::Object(line.clone()).to_string().to_lowercase().contains(&asked) {
                    records.push(line);
                }
            }
        }
        let date = |record: &Map<String, Value>| record.get("date").map(Value::to_string);
        records.sort_by_key(|record| std::cmp::Reverse(date(record)));
        Ok(Reply::ok(Page::read(call)?.of(records)))
    }
}

fn audits(tenant: &DsvTenant) -> Vec<Map<String, Value>> {
    let text = tenant.annotations().get(AUDITS);
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// Notes who changed what. Never a value.
fn note(tenant: &mut DsvTenant, action: &str, notes: &str, who: &str) {
    let mut all = audits(tenant);
    let line = json!({"action": action, "date": time::text(time::now()), "notes": notes, "userDisplayName": who});
    all.extend(line.as_object().cloned());
    let surplus = all.len().saturating_sub(KEPT);
    all.drain(..surplus);
    let text = serde_json::to_string(&all).unwrap_or_default();
    tenant.annotations_mut().insert(AUDITS.to_owned(), text);
}
