//! The audit stream of this replica.

use super::frame::Section;
use super::view;
use super::{Answer, Visit};
use crate::vault::reply::Refusal;
use http::Method;
use maud::{Markup, html};
use serde_json::Value;

/// Lines of one page.
const LINES: &str = "100";

/// `GET /admin/audit`.
pub fn page(visit: &Visit<'_>) -> Result<Answer, Refusal> {
    let (call, caller) = (visit.call, &visit.session.caller);
    visit.vault.require(call, caller, "read", "audit")?;
    let of = |name: &'static str| (name, call.asked(name).unwrap_or_default().to_owned());
    let filters = [of("principal"), of("path"), of("startDate"), of("endDate")];
    let mut query = filters.to_vec();
    query.extend([("limit", LINES.to_owned()), of("cursor")]);
    let inner = call.inner(Method::GET, "audit", &query, &Value::Null);
    let found = visit.vault.audit_lines(&inner)?.body.unwrap_or_default();
    let lines = found
        .get("data")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let rows: Vec<Markup> = lines.iter().map(row).collect();
    let heads = ["Time (UTC)", "Who", "From", "Call", "Answer"];
    let [principal, path, start, end] = &filters;
    let body = html! {
        h1 { "Audit" }
        p.hint { "Calls that this replica answered since it started, newest first. The whole stream is in the audit file." }
        form.filter method="get" action=(Section::Audit.path()) role="search" {
            @for ((name, value), label, kind) in [(principal, "Who", "search"), (path, "Address", "search"), (start, "From", "date"), (end, "To", "date")] {
                div.field { label for=(name) { (label) } input id=(name) name=(name) type=(kind) value=(value); }
            }
            button type="submit" { "Show" }
        }
        (view::table("Audit", &heads, &rows, "There is no such line."))
        (older(&filters, &view::text_in(&found, "cursor")))
    };
    Ok(visit.page("Audit", Section::Audit, &body))
}

fn older(filters: &[(&str, String)], cursor: &str) -> Markup {
    if cursor.is_empty() {
        return Markup::default();
    }
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(filters.iter().filter(|(_, value)| !value.is_empty()));
    text.append_pair("cursor", cursor);
    html! {
        nav.pager aria-label="Pages" { a href={ (Section::Audit.path()) "?" (text.finish()) } { "Older" } }
    }
}

fn row(line: &Value) -> Markup {
    let status = line.get("status").and_then(Value::as_u64).unwrap_or(0);
    let (tone, word) = match status {
        0..400 => (view::Tone::Good, "Done"),
        400..500 => (view::Tone::Waits, "Refused"),
        _ => (view::Tone::Bad, "Failed"),
    };
    html! {
        tr {
            td { (view::moment(view::time_in(line, "time"))) }
            td { (view::or_dash(&view::text_in(line, "principal"))) }
            td { (view::text_in(line, "remote")) }
            td.long { (view::text_in(line, "action")) " " (view::text_in(line, "path")) }
            td { (view::state(tone, &format!("{word} ({status})"))) }
        }
    }
}
