//! One DSV tenant: its tabs, and the form by which it is made and changed.

use super::frame::Section;
use super::view::{self, Field, text_in, time_in};
use super::{Answer, SYNCS, Visit, syncs, tenants};
use crate::api::DsvTenant;
use crate::plan::sync::due;
use crate::vault::body::Fields;
use crate::vault::reply::Refusal;
use crate::vault::secret_server::given_name;
use crate::vault::status_of_code;
use http::{Method, StatusCode};
use maud::{Markup, html};
use serde_json::{Map, Value, json};

/// Template of logins for DSV tenants.
const LOGIN: &str = "1";
/// Template of dynamic secrets, which hold no login.
const DYNAMIC: &str = "3";

/// A tenant as it is, and as the API shows it.
pub struct Tenant {
    object: DsvTenant,
    model: Value,
}

impl Tenant {
    /// Reads it, if the reader may.
    pub async fn read(visit: &Visit<'_>, id: &str) -> Result<Self, Refusal> {
        let model = visit.get(&format!("{SYNCS}/tenant/{id}"), &[]).await?;
        let number = text_in(&model, "dsvTenantId")
            .parse()
            .map_err(|_| Refusal::not_found())?;
        let caller = &visit.session.caller;
        let object = visit.vault.dsv_tenant(visit.call, caller, (number, "read")).await?;
        Ok(Self { object, model })
    }

    /// Its number.
    pub fn id(&self) -> String {
        text_in(&self.model, "dsvTenantId")
    }

    /// What people call it.
    pub fn name(&self) -> String {
        given_name(&self.object)
    }

    fn may_change(&self, visit: &Visit<'_>) -> bool {
        visit.may("update", &format!("dsv-tenants:{}", self.name()))
    }

    /// Its name and tabs.
    fn head(&self, current: &str) -> Markup {
        let base = format!("/admin/tenants/{}", self.id());
        let (tone, word, _) = tenants::state_of(&self.object);
        html! {
            div.title { h1 { (self.name()) } (view::state(tone, &word)) }
            nav.tabs aria-label="Tenant" {
                ul {
                    @for (name, end) in [("General", ""), ("Secrets", "/secrets"), ("Audit", "/audit")] {
                        li { a href={ (base) (end) } aria-current=[(name == current).then_some("page")] { (name) } }
                    }
                }
            }
        }
    }
}

/// `GET /admin/tenants/{id}`.
pub async fn general(visit: &Visit<'_>, id: &str) -> Result<Answer, Refusal> {
    let tenant = Tenant::read(visit, id).await?;
    let (model, status) = (&tenant.model, tenant.object.status.clone().unwrap_or_default());
    let (tone, word, message) = tenants::state_of(&tenant.object);
    let is_active = tenant.object.spec.is_active();
    let url = status
        .url
        .or_else(|| tenant.object.spec.url.clone())
        .unwrap_or_default();
    let facts = [
        ("State", html! { (view::state(tone, &word)) " " (message) }),
        ("Address", view::or_dash(&url)),
        ("Login", view::or_dash(&text_in(model, "secretName"))),
        ("Sync interval", html! { (text_in(model, "syncInterval")) " min" }),
        ("Number", html! { (tenant.id()) }),
        ("Registered", view::at(time_in(model, "dateAdded"))),
        ("Login tried", view::ago(status.checked_at.map(|at| at.0))),
        ("Last push", view::ago(time_in(model, "lastSynced"))),
    ];
    let base = format!("/admin/tenants/{}", tenant.id());
    let body = html! {
        (tenant.head("General"))
        (view::done(visit.call))
        (view::facts(facts))
        @if tenant.may_change(visit) {
            div.actions {
                a.button.main href={ (base) "/edit" } { "Edit" }
                @if is_active {
                    (visit.button(&format!("{base}/active"), "Pause", &[("active", "false")]))
                } @else {
                    (visit.button(&format!("{base}/active"), "Activate", &[("active", "true")]))
                }
            }
        }
    };
    Ok(visit.page(&tenant.name(), Section::Tenants, &body))
}

/// `GET /admin/tenants/{id}/secrets`.
pub async fn secrets(visit: &Visit<'_>, id: &str) -> Result<Answer, Refusal> {
    let tenant = Tenant::read(visit, id).await?;
    let base = format!("/admin/tenants/{}/secrets", tenant.id());
    let body = html! {
        (tenant.head("Secrets"))
        (view::done(visit.call))
        @if visit.may("create", "dsv-syncs:new") { div.actions { a.button.main href={ (base) "/new" } { "Add secret" } } }
        (syncs::shown(visit, (&base, Some(&tenant.id()))).await?)
    };
    Ok(visit.page(&format!("{}: secrets", tenant.name()), Section::Tenants, &body))
}

/// `GET /admin/tenants/{id}/audit`.
pub async fn audit(visit: &Visit<'_>, id: &str) -> Result<Answer, Refusal> {
    let tenant = Tenant::read(visit, id).await?;
    let query = [("filter.tenantId", tenant.id()), ("take", "1000".to_owned())];
    let page = visit.get(&format!("{SYNCS}/tenant/audits"), &query).await?;
    let rows: Vec<Markup> = view::records(&page)
        .iter()
        .map(|line| {
            html! {
                tr {
                    td { (view::at(time_in(line, "date"))) }
                    td { (text_in(line, "userDisplayName")) }
                    td { (text_in(line, "action")) }
                    td { (text_in(line, "notes")) }
                }
            }
        })
        .collect();
    let heads = ["Time", "Who", "Action", "Notes"];
    let body = html! {
        (tenant.head("Audit"))
        p.hint { "The last changes that were made through the API or this page, newest first." }
        (view::table("Changes", &heads, &rows, "Nothing was changed through the API or this page."))
    };
    Ok(visit.page(&format!("{}: audit", tenant.name()), Section::Tenants, &body))
}

/// What a form holds.
struct Form {
    name: String,
    secret: String,
    interval: String,
    active: bool,
}

impl Form {
    fn read(fields: &Fields) -> Result<Self, Refusal> {
        let of = |name: &str| Ok::<_, Refusal>(fields.text(name)?.unwrap_or_default().trim().to_owned());
        Ok(Self {
            name: of("name")?,
            secret: of("secret")?,
            interval: of("interval")?,
            active: of("active")? == "true",
        })
    }

    fn of(tenant: &Tenant) -> Self {
        Self {
            name: tenant.name(),
            secret: text_in(&tenant.model, "secretId"),
            interval: text_in(&tenant.model, "syncInterval"),
            active: tenant.object.spec.is_active(),
        }
    }

    /// As the API takes it; what is as in `before` is left out.
    fn body(&self, before: Option<&Self>) -> Value {
        let secret = self.secret.parse::<i64>().map_or(Value::Null, Value::from);
        // What is no number is told by the API, as the fault of this field.
        let interval = self
            .interval
            .parse::<i64>()
            .map_or_else(|_| json!(self.interval), Value::from);
        let mut data = Map::new();
        let mut put = |name: &str, value: Value, is_same: bool| {
            if !is_same {
                data.insert(name.to_owned(), json!({"value": value, "dirty": true}));
            }
        };
        put(
            "tenantName",
            json!(self.name),
            before.is_some_and(|b| b.name == self.name),
        );
        put("secretId", secret, before.is_some_and(|b| b.secret == self.secret));
        put(
            "syncInterval",
            interval,
            before.is_some_and(|b| b.interval == self.interval),
        );
        put(
            "active",
            json!(self.active),
            before.is_some_and(|b| b.active == self.active),
        );
        json!({"data": data})
    }
}

/// `GET /admin/tenants/new`.
pub async fn new(visit: &Visit<'_>) -> Result<Answer, Refusal> {
    let form = Form {
        name: String::new(),
        secret: String::new(),
        interval: "60".to_owned(),
        active: true,
    };
    asked_anew(visit, &form, None).await
}

async fn asked_anew(visit: &Visit<'_>, form: &Form, refusal: Option<&Refusal>) -> Result<Answer, Refusal> {
    let body = html! {
        h1 { "New tenant" }
        (inputs(visit, form, (Section::Tenants.path(), Section::Tenants.path(), "Create"), refusal).await?)
    };
    let status = refusal.map_or(StatusCode::OK, |refusal| status_of_code(refusal.code));
    Ok(visit.page_with(status, "New tenant", Section::Tenants, &body))
}

/// `POST /admin/tenants`.
pub async fn make(visit: &Visit<'_>, fields: &Fields) -> Result<Answer, Refusal> {
    let form = Form::read(fields)?;
    let sent = visit
        .ask(Method::POST, &format!("{SYNCS}/tenant"), &[], &form.body(None))
        .await;
    match sent {
        Ok(made) => Ok(Answer::to(format!(
            "/admin/tenants/{}?done=made",
            text_in(&made, "dsvTenantId")
        ))),
        Err(refusal) if refusal.code == 403 => Err(refusal),
        Err(refusal) => asked_anew(visit, &form, Some(&refusal)).await,
    }
}

/// `GET /admin/tenants/{id}/edit`.
pub async fn edit(visit: &Visit<'_>, id: &str) -> Result<Answer, Refusal> {
    let tenant = Tenant::read(visit, id).await?;
    if !tenant.may_change(visit) {
        return Err(Refusal::forbidden());
    }
    asked_again(visit, &tenant, &Form::of(&tenant), None).await
}

async fn asked_again(
    visit: &Visit<'_>,
    tenant: &Tenant,
    form: &Form,
    refusal: Option<&Refusal>,
) -> Result<Answer, Refusal> {
    let address = format!("/admin/tenants/{}", tenant.id());
    let body = html! {
        (tenant.head("General"))
        h2 { "Edit" }
        (inputs(visit, form, (&address, &address, "Save"), refusal).await?)
    };
    let status = refusal.map_or(StatusCode::OK, |refusal| status_of_code(refusal.code));
    Ok(visit.page_with(status, &format!("{}: edit", tenant.name()), Section::Tenants, &body))
}

/// `POST /admin/tenants/{id}`.
pub async fn change(visit: &Visit<'_>, id: &str, fields: &Fields) -> Result<Answer, Refusal> {
    let tenant = Tenant::read(visit, id).await?;
    let form = Form::read(fields)?;
    let body = form.body(Some(&Form::of(&tenant)));
    let sent = visit
        .ask(Method::PUT, &format!("{SYNCS}/tenant/{}", tenant.id()), &[], &body)
        .await;
    match sent {
        Ok(_) => Ok(Answer::to(format!("/admin/tenants/{}?done=saved", tenant.id()))),
        Err(refusal) if refusal.code == 403 => Err(refusal),
        Err(refusal) => asked_again(visit, &tenant, &form, Some(&refusal)).await,
    }
}

/// `POST /admin/tenants/{id}/active`.
pub async fn switch(visit: &Visit<'_>, id: &str, fields: &Fields) -> Result<Answer, Refusal> {
    let active = fields.required("active")? == "true";
    let body = json!({"data": {"active": {"value": active, "dirty": true}}});
    let done = visit
        .ask(Method::PUT, &format!("{SYNCS}/tenant/{id}"), &[], &body)
        .await?;
    let word = if active { "on" } else { "off" };
    Ok(Answer::to(format!(
        "/admin/tenants/{}?done={word}",
        text_in(&done, "dsvTenantId")
    )))
}

/// Number and name of the secrets that may hold a login, those made for it first.
async fn logins(visit: &Visit<'_>) -> Result<Vec<(String, String)>, Refusal> {
    let page = visit.get("api/secrets", &[("take", "1000".to_owned())]).await?;
    let template = |secret: &Value| text_in(secret, "secretTemplateId");
    let mut all: Vec<&Value> = view::records(&page)
        .iter()
        .filter(|one| template(one) != DYNAMIC)
        .collect();
    all.sort_by_key(|secret| template(secret) != LOGIN);
    Ok(all
        .iter()
        .map(|secret| (text_in(secret, "id"), text_in(secret, "name")))
        .collect())
}

async fn inputs(
    visit: &Visit<'_>,
    form: &Form,
    (action, back, label): (&str, &str, &str),
    refusal: Option<&Refusal>,
) -> Result<Markup, Refusal> {
    let logins = logins(visit).await?;
    let is_listed = logins.iter().any(|(id, _)| *id == form.secret);
    let least = due::told(&visit.vault.settings.sync_period);
    let name = Field {
        name: "name",
        label: "Name",
        hint: html! { "What people call it here." },
        fault: "tenantName",
    };
    let secret = Field {
        name: "secret",
        label: "Login",
        hint: html! { "A secret with the fields Client ID, Client Secret and Tenant URL. Its values are not shown here." },
        fault: "secretId",
    };
    let interval = Field {
        name: "interval",
        label: "Sync interval",
        hint: html! { "Minutes between two looks for changes; at least " (least) "." },
        fault: "syncInterval",
    };
    Ok(html! {
        (view::refused_form(refusal, &["tenantName", "secretId", "syncInterval"]))
        form.wide method="post" action=(action) {
            (visit.token())
            (name.with(refusal, |id, described, wrong| html! {
                input id=(id) name=(id) value=(form.name) required maxlength="200" aria-describedby=(described) aria-invalid=[wrong];
            }))
            (secret.with(refusal, |id, described, wrong| html! {
                select id=(id) name=(id) aria-describedby=(described) aria-invalid=[wrong] {
                    @if !is_listed { option value=(form.secret) selected { (if form.secret.is_empty() && label == "Create" { "Choose one" } else { "As it is" }) } }
                    @for (number, name) in &logins {
                        option value=(number) selected[*number == form.secret] { (name) }
                    }
                }
            }))
            (interval.with(refusal, |id, described, wrong| html! {
                input id=(id) name=(id) type="number" min="1" max="5256000" value=(form.interval) required aria-describedby=(described) aria-invalid=[wrong];
            }))
            label.check { input type="checkbox" name="active" value="true" checked[form.active]; " Active: secrets are pushed to it" }
            div.actions { button.main type="submit" { (label) } a.button href=(back) { "Cancel" } }
        }
    })
}
