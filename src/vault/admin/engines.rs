//! Pools and their engines, with the last sign of life of each.

use super::frame::Section;
use super::view;
use super::{Answer, Visit, leases};
use crate::api::{Engine, EnginePool};
use crate::vault::pools::name_of;
use crate::vault::reply::Refusal;
use http::Method;
use kube::ResourceExt;
use maud::{Markup, html};
use serde_json::Value;

/// The pools that the visitor may list.
pub async fn pools(visit: &Visit<'_>) -> Result<Vec<EnginePool>, Refusal> {
    let mut all = visit.vault.all_of::<EnginePool>(visit.call).await?;
    all.retain(|pool| visit.may("list", &format!("pools:{}", name_of(pool))));
    all.sort_by_cached_key(name_of);
    Ok(all)
}

/// The engines that the visitor may list.
pub async fn engines(visit: &Visit<'_>) -> Result<Vec<Engine>, Refusal> {
    let mut all = visit.vault.all_of::<Engine>(visit.call).await?;
    all.retain(|engine| visit.may("list", &format!("engines:{}", name_of(engine))));
    all.sort_by_cached_key(|engine| (engine.spec.pool.clone(), name_of(engine)));
    Ok(all)
}

/// `GET /admin/engines`.
pub async fn page(visit: &Visit<'_>) -> Result<Answer, Refusal> {
    shown(visit, None).await
}

/// `POST /admin/engines/{name}/ping`.
pub async fn ping(visit: &Visit<'_>, name: &str) -> Result<Answer, Refusal> {
    let asked = visit
        .ask(Method::POST, &format!("engines/{name}/ping"), &[], &Value::Null)
        .await;
    let notice = match asked {
        Ok(answer) => {
            let message = view::text_in(&answer, "message");
            html! { p.notice.good role="status" { (name) ": " (message) } }
        }
        Err(refusal) if [503, 504].contains(&refusal.code) => view::refused(&refusal),
        Err(refusal) => return Err(refusal),
    };
    shown(visit, Some(notice)).await
}

async fn shown(visit: &Visit<'_>, notice: Option<Markup>) -> Result<Answer, Refusal> {
    let (pools, engines) = (pools(visit).await?, engines(visit).await?);
    let pool_rows: Vec<Markup> = pools.iter().map(pool_row).collect();
    let engine_rows: Vec<Markup> = engines.iter().map(|engine| engine_row(visit, engine, &pools)).collect();
    let servers: Vec<Markup> = pools.iter().flat_map(|pool| server_rows(visit, pool)).collect();
    let body = html! {
        h1 { "Pools and engines" }
        @if let Some(notice) = notice { (notice) }
        h2 { "Pools" }
        (view::table("Pools", &["Pool", "State", "Engines connected", "Open leases"], &pool_rows, "There is no pool that you may see."))
        h2 { "Engines" }
        (view::table("Engines", &["Engine", "Pool", "State", "Heartbeat", "Version", "Ping"], &engine_rows, "There is no engine that you may see."))
        @if !servers.is_empty() {
            h2 { "Database servers" }
            (view::table("Database servers", &["Base secret", "Pool", "State", "Address", "PostgreSQL"], &servers, ""))
        }
    };
    Ok(visit.page("Pools and engines", Section::Engines, &body))
}

fn pool_row(pool: &EnginePool) -> Markup {
    let status = pool.status.clone().unwrap_or_default();
    let (tone, word, message) = view::ready(&status.conditions);
    html! {
        tr {
            th scope="row" { (name_of(pool)) }
            td { (view::state(tone, &word)) @if tone != view::Tone::Good { p.says { (message) } } }
            td { (status.connected_engines.unwrap_or(0)) " of " (status.engines.unwrap_or(0)) }
            td { (status.open_leases.unwrap_or(0)) }
        }
    }
}

fn engine_row(visit: &Visit<'_>, engine: &Engine, pools: &[EnginePool]) -> Markup {
    let status = engine.status.clone().unwrap_or_default();
    let (tone, word, message) = view::ready(&status.conditions);
    let name = name_of(engine);
    let pool = pools.iter().find(|pool| pool.name_any() == engine.spec.pool);
    html! {
        tr {
            th scope="row" { (name) }
            td { (pool.map_or_else(|| engine.spec.pool.clone(), name_of)) }
            td { (view::state(tone, &word)) @if tone != view::Tone::Good { p.says { (message) } } }
            td { (view::ago(status.last_heartbeat.map(|at| at.0))) }
            td { (view::or_dash(&status.version.unwrap_or_default())) }
            td {
                @if visit.may("read", &format!("engines:{name}")) {
                    (visit.button(&format!("/admin/engines/{name}/ping"), "Ping", &[]))
                }
            }
        }
    }
}

fn server_rows(visit: &Visit<'_>, pool: &EnginePool) -> Vec<Markup> {
    let servers = pool
        .status
        .as_ref()
        .map(|status| status.servers.as_slice())
        .unwrap_or_default();
    let row = |server: &crate::api::pool::ServerStatus| {
        let reason = server.reason.clone().unwrap_or_default();
        html! {
            tr {
                th scope="row" { (leases::base_secret(visit, None, &server.linked_secret)) }
                td { (name_of(pool)) }
                td {
                    @if server.ready {
                        (view::state(view::Tone::Good, "Ready"))
                    } @else {
                        (view::state(view::Tone::of(&reason), &view::spaced(&reason)))
                        p.says { (server.message.clone().unwrap_or_default()) }
                    }
                }
                td { (view::or_dash(&server.address.clone().unwrap_or_default())) }
                td { (view::or_dash(&server.version.clone().unwrap_or_default())) }
            }
        }
    };
    servers.iter().map(row).collect()
}
