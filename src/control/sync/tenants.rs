//! The controller of DSV tenants: whether the login works, and the client that syncs share.

use super::Trouble;
use crate::api::conditions::{self, READY, Reason, ReasonKind};
use crate::api::ttl::Span;
use crate::api::{DsvTenant, DsvTenantSpec};
use crate::cluster::numbers::Numbered;
use crate::cluster::{objects, status};
use crate::control::context::Context;
use crate::control::hold::{Error, Hold};
use crate::control::lease::until_then;
use crate::keys::SecretText;
use crate::plan::sync::due;
use crate::plan::sync::source::{self, Field};
use crate::sync::{Login, Settings, Tenant};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Requests to one tenant in a minute, where it says nothing else.
const PACE: u32 = 600;
/// Between two looks at a tenant whose login works.
const LOOK: Duration = Duration::from_mins(5);
/// Between two looks at one whose login does not.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Slugs under which a credentials Secret may have its fields.
const ID: [&str; 3] = ["client-id", "clientid", "id"];
const SECRET: [&str; 3] = ["client-secret", "clientsecret", "secret"];
const AUTHORITIES: [&str; 2] = ["ca-bundle", "ca-crt"];
const PROXY_USER: [&str; 1] = ["proxy-username"];
const PROXY_PASSWORD: [&str; 1] = ["proxy-password"];
const URL: [&str; 4] = ["tenant-url", "tenanturl", "tenant", "url"];

/// How often the syncs of a tenant look for changes.
pub fn interval(ctx: &Context, spec: &DsvTenantSpec) -> Result<Duration, Hold> {
    let asked = spec.sync_interval.as_ref().and_then(Span::length);
    due::interval(asked, ctx.settings.sync_period).map_err(|short| {
        Hold::new(
            Reason::InvalidSpec,
            format!("{short}; correct the tenant's spec.syncInterval"),
        )
    })
}

/// One pass over one tenant.
pub async fn reconcile(tenant: Arc<DsvTenant>, ctx: Arc<Context>) -> Result<Action, Error> {
    ctx.still_leading()?;
    if tenant.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let (namespace, uid) = (tenant.namespace().unwrap_or_default(), tenant.uid().unwrap_or_default());
    let known = tenant.status.as_ref().and_then(|status| status.number);
    if let Err(hold) = ctx.serves(&namespace) {
        report(&ctx, &tenant, known, (&hold, None)).await?;
        return Ok(Action::await_change());
    }
    let number = if let Some(number) = known {
        number
    } else {
        let name = tenant.name_any();
        let what = (Numbered::Tenant, uid.as_str(), name.as_str());
        ctx.lanes.number(&ctx, &namespace, what).await?
    };
    let (hold, url) = match looked_at(&ctx, &tenant).await {
        Ok(url) => (Hold::new(Reason::Connected, "the login works"), Some(url)),
        Err(Trouble::Hold(hold)) => (hold, None),
        Err(Trouble::Push(error)) => {
            ctx.lanes.failed(&uid, &error, ctx.now());
            (Hold::from(&error), None)
        }
        Err(Trouble::Error(error)) => return Err(error),
    };
    report(&ctx, &tenant, Some(number), (&hold, url)).await?;
    match hold.reason.kind() {
        ReasonKind::Good => {
            ctx.lanes.answered(&uid, &ctx.wakes);
            Ok(Action::requeue(LOOK))
        }
        _ if hold.reason == Reason::Inactive => Ok(Action::await_change()),
        _ => {
            let now = ctx.now();
            let until = ctx.lanes.closed_until(&uid).map(|(then, _)| until_then(now, then));
            Ok(Action::requeue(until.unwrap_or(LOOK_AGAIN).max(Duration::from_secs(1))))
        }
    }
}

/// Returns the URL.
async fn looked_at(ctx: &Context, tenant: &DsvTenant) -> Result<String, Trouble> {
    if !tenant.spec.is_active() {
        return Err(Hold::new(Reason::Inactive, "spec.active is false, so nothing is pushed there").into());
    }
    interval(ctx, &tenant.spec)?;
    let (client, url) = connect(ctx, tenant).await?;
    ctx.still_leading()?;
    match ctx.lanes.closed_until(&tenant.uid().unwrap_or_default()) {
        Some((until, why)) if until > ctx.now() => return Err(why.into()),
        // A token from before is no sign of life.
        Some(_) => client.log_in_anew().await?,
        None => client.log_in().await?,
    }
    Ok(url)
}

async fn report(
    ctx: &Context,
    tenant: &DsvTenant,
    number: Option<i64>,
    (hold, url): (&Hold, Option<String>),
) -> Result<(), Error> {
    let now = ctx.now();
    let interval = interval(ctx, &tenant.spec).ok();
    let mut became_ready = false;
    status::amend(&ctx.client, tenant, |tenant| {
        let generation = tenant.metadata.generation;
        let before = tenant.status.clone();
        let status = tenant.status.get_or_insert_default();
        let ready = conditions::find(&status.conditions, READY);
        let was_ready = ready.is_some_and(|ready| ready.status == "True");
        became_ready = !was_ready && hold.reason.kind() == ReasonKind::Good;
        status.number = number;
        status.observed_generation = generation;
        status.interval_seconds = interval.and_then(|length| i64::try_from(length.as_secs()).ok());
        if url.is_some() {
            status.url.clone_from(&url);
        }
        conditions::set_ready(&mut status.conditions, hold.reason, &hold.message, generation, now);
        if before.as_ref() == Some(status) {
            return false;
        }
        status.checked_at = Some(Time(now));
        true
    })
    .await?;
    if became_ready {
        ctx.told_no_more(&tenant.uid().unwrap_or_default());
        nudge(ctx, tenant);
    } else if hold.reason.kind() == ReasonKind::Refused {
        ctx.tell(tenant, hold.reason, &hold.message, EventType::Warning).await;
    }
    Ok(())
}

/// What failed while the tenant did goes on at once.
fn nudge(ctx: &Context, tenant: &DsvTenant) {
    let (namespace, name) = (tenant.namespace(), tenant.name_any());
    let of = |sync: &crate::api::SecretSync| sync.namespace() == namespace && sync.spec.tenant == name;
    for sync in ctx.stores.secret_syncs.state_filter(of) {
        if waits_for_it(&sync) {
            ctx.nudges.nudge(&sync.uid().unwrap_or_default());
        }
        let _ = ctx
            .wakes
            .secret_syncs
            .send(kube::runtime::reflector::ObjectRef::from_obj(sync.as_ref()));
    }
}

/// Whether a sync failed, or rested while the tenant was switched off or away.
fn waits_for_it(sync: &crate::api::SecretSync) -> bool {
    let Some(status) = &sync.status else { return true };
    let ready = conditions::find(&status.conditions, READY).map(|ready| ready.reason.as_str());
    let waiting = [
        Reason::Inactive,
        Reason::TenantMissing,
        Reason::TenantUnreachable,
        Reason::TenantBusy,
    ];
    status.failures.is_some() || waiting.iter().any(|reason| ready == Some(reason.as_str()))
}

/// The client of a tenant, made anew when its spec or its credentials change.
pub(super) async fn client(ctx: &Context, tenant: &DsvTenant) -> Result<Arc<Tenant>, Trouble> {
    connect(ctx, tenant).await.map(|(client, _)| client)
}

async fn connect(ctx: &Context, tenant: &DsvTenant) -> Result<(Arc<Tenant>, String), Trouble> {
    let Credentials {
        login,
        url,
        authorities,
        proxy_login,
        version,
    } = credentials(ctx, tenant).await?;
    let made_of = format!("{:?} {version}", tenant.metadata.generation);
    let settings = Settings {
        url: url.clone(),
        ca_bundle: tenant.spec.ca_bundle.clone().or(authorities),
        proxy: tenant.spec.proxy.clone(),
        proxy_login,
        requests_per_minute: tenant
            .spec
            .requests_per_minute
            .and_then(|pace| u32::try_from(pace).ok())
            .unwrap_or(PACE),
        allowed: ctx.settings.sync_allowed.clone(),
    };
    let uid = tenant.uid().unwrap_or_default();
    let client = ctx.lanes.client(&uid, &made_of, || Tenant::new(&settings, login))?;
    Ok((client, url))
}

/// What the credentials Secret holds.
struct Credentials {
    login: Login,
    url: String,
    authorities: Option<String>,
    proxy_login: Option<Login>,
    /// Version of the Secret.
    version: String,
}

/// Read now, and kept nowhere but in the client.
async fn credentials(ctx: &Context, tenant: &DsvTenant) -> Result<Credentials, Trouble> {
    let namespace = tenant.namespace().unwrap_or_default();
    ctx.serves(&namespace)?;
    let name = &tenant.spec.credentials.secret_name;
    let invalid = |message: String| Hold::new(Reason::CredentialsInvalid, message);
    let secret = objects::read::<Secret>(&ctx.client, &namespace, name).await?;
    let missing = || invalid(format!("there is no Secret {name} in this namespace; create it"));
    let secret = secret.ok_or_else(missing)?;
    let data: BTreeMap<String, Vec<u8>> = secret
        .data
        .iter()
        .flatten()
        .map(|(key, bytes)| (key.clone(), bytes.0.clone()))
        .collect();
    let fields = source::fields(secret.type_.as_deref(), &data, secret.annotations());
    let fields = fields.map_err(|error| invalid(error.to_string()))?;
    let lacking = |what: &str| invalid(format!("Secret {name} lacks the field {what}"));
    let id = pick(&fields, &ID).ok_or_else(|| lacking("client-id"))?;
    let client_secret = pick(&fields, &SECRET).ok_or_else(|| lacking("client-secret"))?;
    let url = tenant.spec.url.clone().or_else(|| pick(&fields, &URL));
    let url = url.ok_or_else(|| lacking("tenant-url, and spec.url is not set"))?;
    let url = if url.contains("://") {
        url
    } else {
        format!("https://{url}")
    };
    let login = Login {
        id: SecretText::new(id),
        secret: SecretText::new(client_secret),
    };
    let proxy_login = pick(&fields, &PROXY_USER).map(|user| Login {
        id: SecretText::new(user),
        secret: SecretText::new(pick(&fields, &PROXY_PASSWORD).unwrap_or_default()),
    });
    let version = format!(
        "{} {}",
        secret.uid().unwrap_or_default(),
        secret.resource_version().unwrap_or_default()
    );
    Ok(Credentials {
        login,
        url,
        authorities: pick(&fields, &AUTHORITIES),
        proxy_login,
        version,
    })
}

fn pick(fields: &[Field], slugs: &[&str]) -> Option<String> {
    let mut found = slugs
        .iter()
        .filter_map(|slug| fields.iter().find(|field| field.slug == *slug)?.text());
    found
        .find(|text| !text.trim().is_empty())
        .map(|text| text.trim().to_owned())
}
