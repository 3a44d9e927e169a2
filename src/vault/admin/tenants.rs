//! The list of DSV tenants.

use super::frame::Section;
use super::view::{self, Part, Tone, text_in, time_in};
use super::{Answer, SYNCS, Visit};
use crate::api::DsvTenant;
use crate::vault::reply::Refusal;
use maud::{Markup, html};
use serde_json::Value;
use std::collections::HashMap;

/// `GET /admin/tenants`.
pub async fn list(visit: &Visit<'_>) -> Result<Answer, Refusal> {
    let name = visit.call.asked("name").unwrap_or_default();
    let only_active = visit.call.flag("active");
    let page = read(visit, (name, only_active), (Part::asked(visit.call), Part::TAKE)).await?;
    let states = states(visit).await?;
    let rows: Vec<Markup> = view::records(&page).iter().map(|model| row(model, &states)).collect();
    let heads = ["Name", "State", "Login", "Interval", "Last push"];
    let active = if only_active { "true" } else { "" };
    let body = html! {
        div.title {
            h1 { "DSV tenants" }
            @if visit.may("create", "dsv-tenants:new") { a.button.main href="/admin/tenants/new" { "New tenant" } }
        }
        form.filter method="get" action=(Section::Tenants.path()) role="search" {
            div.field { label for="name" { "Name contains" } input id="name" name="name" type="search" value=(name); }
            label.check { input type="checkbox" name="active" value="true" checked[only_active]; " Active only" }
            button type="submit" { "Show" }
        }
        (view::table("DSV tenants", &heads, &rows, "There is no tenant that you may see."))
        (Part::of(&page).links(Section::Tenants.path(), &[("name", name), ("active", active)]))
    };
    Ok(visit.page("DSV tenants", Section::Tenants, &body))
}

/// Tenants as the API lists them.
pub async fn read(
    visit: &Visit<'_>,
    (name, only_active): (&str, bool),
    (skip, take): (usize, usize),
) -> Result<Value, Refusal> {
    let query = [
        ("filter.nameSearch", name.to_owned()),
        ("filter.includeInactive", (!only_active).to_string()),
        ("sortBy[0].name", "tenantName".to_owned()),
        ("skip", skip.to_string()),
        ("take", take.to_string()),
    ];
    visit.get(&format!("{SYNCS}/tenant"), &query).await
}

/// What the operator found of each tenant, by its number: tone, word and sentence.
pub async fn states(visit: &Visit<'_>) -> Result<HashMap<String, (Tone, String, String)>, Refusal> {
    let all = visit.vault.all_of::<DsvTenant>(visit.call).await?;
    let known = all.iter().filter_map(|tenant| {
        let number = tenant.status.as_ref()?.number?;
        Some((number.to_string(), state_of(tenant)))
    });
    Ok(known.collect())
}

/// The same of one.
pub fn state_of(tenant: &DsvTenant) -> (Tone, String, String) {
    if !tenant.spec.is_active() {
        return (Tone::Off, "Inactive".to_owned(), "Nothing is pushed there.".to_owned());
    }
    let conditions = tenant.status.as_ref().map(|status| status.conditions.as_slice());
    view::ready(conditions.unwrap_or_default())
}

fn row(model: &Value, states: &HashMap<String, (Tone, String, String)>) -> Markup {
    let id = text_in(model, "dsvTenantId");
    let state = states.get(&id);
    html! {
        tr {
            th scope="row" { a href={ "/admin/tenants/" (id) } { (text_in(model, "tenantName")) } }
            td {
                @match state {
                    Some((tone, word, _)) => (view::state(*tone, word)),
                    None => (view::state(Tone::Waits, "Pending")),
                }
            }
            td { (view::or_dash(&text_in(model, "secretName"))) }
            td { (text_in(model, "syncInterval")) " min" }
            td { (view::ago(time_in(model, "lastSynced"))) }
        }
    }
}
