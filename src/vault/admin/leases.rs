//! Dynamic secrets, their leases with the time that is left, and revocations that are held up.

use super::frame::Section;
use super::view::{self, Part, Tone};
use super::{Answer, Visit};
use crate::api::lease::Phase;
use crate::api::{CredentialLease, DynamicSecret};
use crate::vault::reply::Refusal;
use crate::vault::secrets::item::Item;
use jiff::Timestamp;
use kube::ResourceExt;
use maud::{Markup, html};
use std::collections::HashMap;

/// The dynamic secrets that the visitor may list, by path.
pub async fn secrets(visit: &Visit<'_>) -> Result<Vec<(String, DynamicSecret)>, Refusal> {
    let all = visit.vault.all_of::<DynamicSecret>(visit.call).await?.into_iter();
    let mut found: Vec<(String, DynamicSecret)> = all
        .map(|secret| (Item::of(&secret), secret))
        .filter(|(item, _)| !item.is_marked() && visit.may("list", &format!("secrets:{}", item.path)))
        .map(|(item, secret)| (item.path, secret))
        .collect();
    found.sort_by(|one, two| one.0.cmp(&two.0));
    Ok(found)
}

/// A lease, and the path of what it is an account of.
pub struct Seen {
    path: String,
    lease: CredentialLease,
}

impl Seen {
    /// Where it stands.
    pub fn phase(&self) -> Phase {
        let phase = self.lease.status.as_ref().and_then(|status| status.phase);
        phase.unwrap_or(Phase::Pending)
    }

    fn ends(&self) -> Option<Timestamp> {
        let of_status = self.lease.status.as_ref().and_then(|status| status.expires_at.as_ref());
        of_status
            .or(self.lease.claim().map(|claim| &claim.expires_at))
            .map(|end| end.0)
    }

    fn user(&self) -> &str {
        self.lease
            .status
            .as_ref()
            .and_then(|status| status.username.as_deref())
            .unwrap_or_default()
    }
}

/// The leases of dynamic secrets that the visitor may read: what is blocked first, then what ends first.
pub async fn leases(visit: &Visit<'_>) -> Result<Vec<Seen>, Refusal> {
    let secrets = visit.vault.all_of::<DynamicSecret>(visit.call).await?;
    let paths: HashMap<String, String> = secrets.iter().map(|one| (one.name_any(), Item::of(one).path)).collect();
    // Also those that are being deleted: that is how a lease is taken back.
    let all = visit.vault.every::<CredentialLease>(visit.call).await?.into_iter();
    let mut found: Vec<Seen> = all
        .map(|lease| Seen {
            path: paths
                .get(&lease.spec.dynamic_secret)
                .unwrap_or(&lease.spec.dynamic_secret)
                .clone(),
            lease,
        })
        .filter(|seen| visit.may("read", &format!("secrets:{}", seen.path)))
        .collect();
    found.sort_by_cached_key(|seen| (seen.phase() != Phase::Blocked, seen.ends(), seen.lease.name_any()));
    Ok(found)
}

/// `GET /admin/dynamic-secrets`.
pub async fn dynamic(visit: &Visit<'_>) -> Result<Answer, Refusal> {
    let all = secrets(visit).await?;
    let part = Part {
        skip: Part::asked(visit.call),
        total: all.len(),
    };
    let shown = all.iter().skip(part.skip).take(Part::TAKE);
    let rows: Vec<Markup> = shown.map(|(path, secret)| secret_row(visit, path, secret)).collect();
    let heads = ["Path", "State", "Mode", "Life", "Base secret", "Pool", "Next end"];
    let body = html! {
        h1 { "Dynamic secrets" }
        (view::table("Dynamic secrets", &heads, &rows, "There is no dynamic secret that you may see."))
        (part.links(Section::Dynamic.path(), &[]))
    };
    Ok(visit.page("Dynamic secrets", Section::Dynamic, &body))
}

fn secret_row(visit: &Visit<'_>, path: &str, secret: &DynamicSecret) -> Markup {
    let (spec, status) = (&secret.spec, secret.status.clone().unwrap_or_default());
    let (tone, word, message) = view::ready(&status.conditions);
    let life = spec
        .ttl
        .length()
        .map(|length| length.as_secs())
        .and_then(|seconds| i64::try_from(seconds).ok());
    html! {
        tr {
            th scope="row" { (path) }
            td { (view::state(tone, &word)) @if tone != Tone::Good { p.says { (message) } } }
            td { (view::spaced(&format!("{:?}", spec.mode()))) }
            td.short { (view::span(life.unwrap_or(0))) }
            td { (base_secret(visit, spec.pool.namespace.as_deref(), &spec.link_config.linked_secret)) }
            td { (spec.pool.name) }
            td { (view::left(status.expires_at.map(|end| end.0))) }
        }
    }
}

/// What people call a base secret: its path where it lies in this tenant.
pub fn base_secret(visit: &Visit<'_>, namespace: Option<&str>, object: &str) -> String {
    let own = &visit.call.tenant.namespace;
    if namespace.is_none_or(|namespace| namespace == own) {
        return visit.vault.path_of(own, object);
    }
    object.to_owned()
}

fn phase_state(phase: Phase) -> Markup {
    let (tone, word) = match phase {
        Phase::Pending => (Tone::Waits, "Pending"),
        Phase::Issued => (Tone::Good, "Issued"),
        Phase::Revoking => (Tone::Waits, "Revoking"),
        Phase::Blocked => (Tone::Bad, "Blocked"),
        Phase::Refused => (Tone::Bad, "Refused"),
    };
    view::state(tone, word)
}

/// `GET /admin/leases`.
pub async fn list(visit: &Visit<'_>) -> Result<Answer, Refusal> {
    let asked = visit.call.asked("secret").unwrap_or_default();
    let mut all = leases(visit).await?;
    all.retain(|seen| seen.path.contains(asked));
    let part = Part {
        skip: Part::asked(visit.call),
        total: all.len(),
    };
    let rows: Vec<Markup> = all.iter().skip(part.skip).take(Part::TAKE).map(row).collect();
    let heads = ["Dynamic secret", "Account", "State", "Time left", "Engine"];
    let body = html! {
        h1 { "Leases" }
        form.filter method="get" action=(Section::Leases.path()) role="search" {
            div.field {
                label for="secret" { "Dynamic secret contains" }
                input id="secret" name="secret" type="search" value=(asked);
            }
            button type="submit" { "Show" }
        }
        (view::table("Leases", &heads, &rows, "There is no open lease that you may see."))
        (part.links(Section::Leases.path(), &[("secret", asked)]))
        p.hint { "A lease is in this list until its account is proven gone." }
    };
    Ok(visit.page("Leases", Section::Leases, &body))
}

fn row(seen: &Seen) -> Markup {
    let status = seen.lease.status.clone().unwrap_or_default();
    html! {
        tr {
            th scope="row" { (seen.path) p.says { "lease " (seen.lease.name_any()) } }
            td.long { (view::or_dash(seen.user())) }
            td { (phase_state(seen.phase())) }
            td { (view::left(seen.ends())) }
            td { (view::or_dash(&status.issued_by.unwrap_or_default())) }
        }
    }
}

/// `GET /admin/blocked`.
pub async fn blocked(visit: &Visit<'_>) -> Result<Answer, Refusal> {
    let mut all = leases(visit).await?;
    all.retain(|seen| seen.phase() == Phase::Blocked);
    let part = Part {
        skip: Part::asked(visit.call),
        total: all.len(),
    };
    let shown: Vec<&Seen> = all.iter().skip(part.skip).take(Part::TAKE).collect();
    let body = html! {
        h1 { "Blocked revocations" }
        p.hint { "These accounts cannot log in any more, but something in the database keeps them from being dropped. It is tried again and again." }
        @if shown.is_empty() { p.empty { "Nothing is held up." } }
        @for seen in shown {
            section.card {
                h2 { (seen.path) }
                (held_up(seen))
            }
        }
        (part.links(Section::Blocked.path(), &[]))
    };
    Ok(visit.page("Blocked revocations", Section::Blocked, &body))
}

fn held_up(seen: &Seen) -> Markup {
    let status = seen.lease.status.clone().unwrap_or_default();
    let (_, _, message) = view::ready(&status.conditions);
    view::facts([
        ("Account", view::or_dash(seen.user())),
        ("Its end", view::left(seen.ends())),
        ("What holds it up", html! { span.lines { (message) } }),
        ("Lease", html! { (seen.lease.name_any()) }),
    ])
}
