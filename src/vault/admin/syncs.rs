//! Syncs: which secret is kept in step at which path of which tenant, what came of it, and pushing at once.

use super::frame::Section;
use super::tenant::Tenant;
use super::view::{self, Field, Part, Tone, text_in, time_in};
use super::{Answer, SYNCS, Visit};
use crate::api::SecretSync;
use crate::api::secret_sync::{DriftPolicy, RemovalPolicy};
use crate::vault::body::Fields;
use crate::vault::reply::Refusal;
use crate::vault::status_of_code;
use http::{Method, StatusCode};
use maud::{Markup, html};
use serde_json::{Map, Value, json};

/// `GET /admin/syncs`.
pub async fn list(visit: &Visit<'_>) -> Result<Answer, Refusal> {
    let body = html! {
        h1 { "Syncs" }
        p.hint { "Secrets that are kept in step at DSV tenants. They are added on the page of a tenant." }
        (shown(visit, (Section::Syncs.path(), None)).await?)
    };
    Ok(visit.page("Syncs", Section::Syncs, &body))
}

/// Syncs as the API lists them, inactive ones too.
pub async fn read(visit: &Visit<'_>, tenant: Option<&str>, (skip, take): (usize, usize)) -> Result<Value, Refusal> {
    let query = [
        ("filter.tenantId", tenant.unwrap_or_default().to_owned()),
        ("filter.includeInactive", "true".to_owned()),
        ("skip", skip.to_string()),
        ("take", take.to_string()),
    ];
    visit.get(&format!("{SYNCS}/sync/status"), &query).await
}

/// The table of syncs, of one tenant or of all.
pub async fn shown(visit: &Visit<'_>, (address, tenant): (&str, Option<&str>)) -> Result<Markup, Refusal> {
    let page = read(visit, tenant, (Part::asked(visit.call), Part::TAKE)).await?;
    let rows: Vec<Markup> = view::records(&page)
        .iter()
        .map(|model| row(visit, model, tenant.is_none()))
        .collect();
    let heads = match tenant {
        Some(_) => ["Secret", "Path", "State", "Last push", "Next look", "Push"],
        None => ["Secret", "Tenant", "Path", "State", "Last push", "Push"],
    };
    Ok(html! {
        (view::table("Syncs", &heads, &rows, "There is no sync that you may see."))
        (Part::of(&page).links(address, &[]))
    })
}

/// The tone and the word of a sync's state.
pub fn state_of(model: &Value) -> (Tone, String) {
    let word = text_in(model, "status");
    let tone = match word.as_str() {
        "Synced" => Tone::Good,
        "Failed" | "SourceMissing" => Tone::Bad,
        "Inactive" => Tone::Off,
        _ => Tone::Waits,
    };
    (tone, view::spaced(&word))
}

fn row(visit: &Visit<'_>, model: &Value, with_tenant: bool) -> Markup {
    let id = text_in(model, "devOpsSyncMapId");
    let (tone, word) = state_of(model);
    let secret = text_in(model, "secretName");
    html! {
        tr {
            th scope="row" { a href={ "/admin/syncs/" (id) } { (secret) } }
            @if with_tenant { td { a href={ "/admin/tenants/" (text_in(model, "tenantId")) } { (text_in(model, "tenantName")) } } }
            td.long { (view::path(&text_in(model, "devOpsSecretVaultPath"))) }
            td { (view::state(tone, &word)) }
            td { (view::ago(time_in(model, "lastSyncTime"))) }
            @if !with_tenant { td { (view::left(time_in(model, "nextSyncTime").filter(|_| tone != Tone::Off))) } }
            td {
                @if may_change(visit, &id) && tone != Tone::Off {
                    (visit.button(&format!("/admin/syncs/{id}/push"), "Push now", &[]))
                }
            }
        }
    }
}

fn may_change(visit: &Visit<'_>, id: &str) -> bool {
    visit.may("update", &format!("dsv-syncs:{id}"))
}

async fn found(visit: &Visit<'_>, id: &str) -> Result<(SecretSync, Value), Refusal> {
    // Asks whether he may.
    let model = visit.get(&format!("{SYNCS}/sync/status/{id}"), &[]).await?;
    let number = text_in(&model, "devOpsSyncMapId")
        .parse()
        .map_err(|_| Refusal::not_found())?;
    let (sync, _, _) = visit.vault.sync(visit.call, number).await?;
    Ok((sync, model))
}

/// `GET /admin/syncs/{id}`.
pub async fn one(visit: &Visit<'_>, id: &str) -> Result<Answer, Refusal> {
    let (sync, model) = found(visit, id).await?;
    let path = sync.spec.path.join("/");
    Ok(shown_one(visit, (&sync, &model), &path, None))
}

fn shown_one(visit: &Visit<'_>, (sync, model): (&SecretSync, &Value), path: &str, refusal: Option<&Refusal>) -> Answer {
    let (id, secret) = (text_in(model, "devOpsSyncMapId"), text_in(model, "secretName"));
    let (tone, word) = state_of(model);
    let (base, may) = (format!("/admin/syncs/{id}"), may_change(visit, &id));
    let body = html! {
        div.title { h1 { (secret) } (view::state(tone, &word)) }
        (view::done(visit.call))
        @if may {
            div.actions {
                @if sync.spec.is_active() {
                    (visit.button(&format!("{base}/push"), "Push now", &[]))
                    (visit.button(&format!("{base}/active"), "Pause", &[("active", "false")]))
                } @else {
                    (visit.button(&format!("{base}/active"), "Activate", &[("active", "true")]))
                }
            }
        }
        (facts(sync, model))
        @if may {
            h2 { "Change the path" }
            (view::refused_form(refusal, &["secretId", "fieldNamesPath"]))
            form.wide method="post" action=(base) {
                (visit.token())
                (path_field(path, refusal))
                div.actions { button type="submit" { "Save" } }
            }
        }
    };
    let status = refusal.map_or(StatusCode::OK, |refusal| status_of_code(refusal.code));
    visit.page_with(status, &format!("Sync of {secret}"), Section::Syncs, &body)
}

fn facts(sync: &SecretSync, model: &Value) -> Markup {
    let status = sync.status.clone().unwrap_or_default();
    let drift = match sync.spec.drift.unwrap_or_default() {
        DriftPolicy::Report => "it is told and left alone",
        DriftPolicy::Overwrite => "it is overwritten",
    };
    let removal = match sync.spec.removal() {
        RemovalPolicy::Leave => "it stays at the tenant",
        RemovalPolicy::Delete => "it is deleted at the tenant",
        RemovalPolicy::SoftDelete => "it is deleted at the tenant and can be restored",
    };
    let (_, _, message) = view::ready(&status.conditions);
    let tenant = text_in(model, "tenantId");
    view::facts([
        (
            "Tenant",
            html! { a href={ "/admin/tenants/" (tenant) } { (text_in(model, "tenantName")) } },
        ),
        ("Path", html! { (text_in(model, "devOpsSecretVaultPath")) }),
        ("Result", view::or_dash(&message)),
        ("Last push", view::ago(status.last_push.map(|at| at.0))),
        ("Last look", view::ago(status.last_check.map(|at| at.0))),
        (
            "Next look",
            view::left(status.next_push.map(|at| at.0).filter(|_| sync.spec.is_active())),
        ),
        (
            "Version at the tenant",
            view::or_dash(&status.destination_version.unwrap_or_default()),
        ),
        ("Failures in a row", html! { (status.failures.unwrap_or(0)) }),
        ("If it is changed there", html! { (drift) }),
        ("If the source goes", html! { (removal) }),
        ("Added", view::at(time_in(model, "dateAdded"))),
        ("Number", html! { (text_in(model, "devOpsSyncMapId")) }),
    ])
}

fn path_field(path: &str, refusal: Option<&Refusal>) -> Markup {
    let field = Field {
        name: "path",
        label: "Path",
        hint: html! { "Parts with slashes between them, such as " code { "Demo/$domain/orders" } "; " code { "$name" }
        " stands for the value of that field, which must be no password." },
        fault: "fieldNamesPath",
    };
    field.with(refusal, |id, described, wrong| {
        html! {
            input id=(id) name=(id) value=(path) required spellcheck="false" aria-describedby=(described) aria-invalid=[wrong];
        }
    })
}

/// The parts of a path as people write it.
fn parts(path: &str) -> Vec<&str> {
    path.split('/').map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn dirty(fields: &[(&str, Value)]) -> Value {
    let wrapped = |(name, value): &(&str, Value)| ((*name).to_owned(), json!({"value": value, "dirty": true}));
    json!({"data": fields.iter().map(wrapped).collect::<Map<String, Value>>()})
}

/// `GET /admin/tenants/{id}/secrets/new`.
pub async fn new(visit: &Visit<'_>, tenant: &str) -> Result<Answer, Refusal> {
    let tenant = Tenant::read(visit, tenant).await?;
    asked_anew(visit, &tenant, ("", "", true), None).await
}

async fn asked_anew(
    visit: &Visit<'_>,
    tenant: &Tenant,
    (secret, path, active): (&str, &str, bool),
    refusal: Option<&Refusal>,
) -> Result<Answer, Refusal> {
    let page = visit.get("api/secrets", &[("take", "1000".to_owned())]).await?;
    let address = format!("/admin/tenants/{}/secrets", tenant.id());
    let field = Field {
        name: "secret",
        label: "Secret",
        hint: html! { "What is kept in step. Its values are not shown here." },
        fault: "secretId",
    };
    let body = html! {
        h1 { "Add a secret to " (tenant.name()) }
        (view::refused_form(refusal, &["secretId", "fieldNamesPath"]))
        form.wide method="post" action=(address) {
            (visit.token())
            (field.with(refusal, |id, described, wrong| html! {
                select id=(id) name=(id) required aria-describedby=(described) aria-invalid=[wrong] {
                    option value="" { "Choose one" }
                    @for one in view::records(&page) {
                        option value=(text_in(one, "id")) selected[text_in(one, "id") == secret] { (text_in(one, "name")) }
                    }
                }
            }))
            (path_field(path, refusal))
            label.check { input type="checkbox" name="active" value="true" checked[active]; " Active: it is pushed at once" }
            div.actions { button.main type="submit" { "Add" } a.button href=(address) { "Cancel" } }
        }
    };
    let status = refusal.map_or(StatusCode::OK, |refusal| status_of_code(refusal.code));
    let title = format!("{}: add a secret", tenant.name());
    Ok(visit.page_with(status, &title, Section::Tenants, &body))
}

/// `POST /admin/tenants/{id}/secrets`.
pub async fn make(visit: &Visit<'_>, tenant: &str, fields: &Fields) -> Result<Answer, Refusal> {
    let tenant = Tenant::read(visit, tenant).await?;
    let of = |name: &str| Ok::<_, Refusal>(fields.text(name)?.unwrap_or_default());
    let (secret, path, active) = (of("secret")?, of("path")?, of("active")? == "true");
    let number = |text: &str| text.parse::<i64>().map_or(Value::Null, Value::from);
    let body = dirty(&[
        ("secretId", number(secret)),
        ("dsvTenantId", number(&tenant.id())),
        ("fieldNamesPath", json!(parts(path))),
        ("active", json!(active)),
    ]);
    match visit.ask(Method::POST, &format!("{SYNCS}/add-sync"), &[], &body).await {
        Ok(made) => Ok(Answer::to(format!(
            "/admin/syncs/{}?done=made",
            text_in(&made, "devOpsSyncMapId")
        ))),
        Err(refusal) if refusal.code == 403 => Err(refusal),
        Err(refusal) => asked_anew(visit, &tenant, (secret, path, active), Some(&refusal)).await,
    }
}

/// `POST /admin/syncs/{id}`.
pub async fn change(visit: &Visit<'_>, id: &str, fields: &Fields) -> Result<Answer, Refusal> {
    let path = fields.text("path")?.unwrap_or_default();
    let body = dirty(&[("fieldNamesPath", json!(parts(path)))]);
    match visit.ask(Method::PUT, &format!("{SYNCS}/sync/{id}"), &[], &body).await {
        Ok(done) => Ok(Answer::to(format!(
            "/admin/syncs/{}?done=saved",
            text_in(&done, "devOpsSyncMapId")
        ))),
        Err(refusal) if refusal.code == 400 => {
            let (sync, model) = found(visit, id).await?;
            Ok(shown_one(visit, (&sync, &model), path, Some(&refusal)))
        }
        Err(refusal) => Err(refusal),
    }
}

/// `POST /admin/syncs/{id}/active`.
pub async fn switch(visit: &Visit<'_>, id: &str, fields: &Fields) -> Result<Answer, Refusal> {
    let active = fields.required("active")? == "true";
    let body = dirty(&[("active", json!(active))]);
    let done = visit
        .ask(Method::PUT, &format!("{SYNCS}/sync/{id}"), &[], &body)
        .await?;
    let word = if active { "on" } else { "off" };
    Ok(Answer::to(format!(
        "/admin/syncs/{}?done={word}",
        text_in(&done, "devOpsSyncMapId")
    )))
}

/// `POST /admin/syncs/{id}/push`.
pub async fn push(visit: &Visit<'_>, id: &str) -> Result<Answer, Refusal> {
    let number: i64 = id.parse().map_err(|_| Refusal::not_found())?;
    let shown = visit
        .ask(Method::POST, &format!("{SYNCS}/sync"), &[], &json!({"data": [number]}))
        .await?;
    // Inactive ones come back untouched.
    let was_active = shown.pointer("/0/active/value") == Some(&Value::Bool(true));
    let word = if was_active { "pushed" } else { "left" };
    Ok(Answer::to(format!("/admin/syncs/{number}?done={word}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_people_write_it() {
        assert_eq!(parts("/Demo/ $domain /orders/"), ["Demo", "$domain", "orders"]);
        assert!(parts(" / ").is_empty());
    }
}
