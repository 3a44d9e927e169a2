//! What every page has around it: head, navigation, headers of the answer. The only place that knows the document's outline.

use super::csrf;
use crate::keys::SecretText;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use maud::{DOCTYPE, Markup, html};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// Where the stylesheet is.
pub const STYLE: &str = "/admin/style.css";
const SHEET: &str = include_str!("style.css");
/// Nothing but our own stylesheet and our own forms; no script at all.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The beginning of the sheet's hash: its address changes with it, so browsers keep it for good.
static SHEET_HASH: LazyLock<String> = LazyLock::new(|| {
    let mut text = data_encoding::HEXLOWER.encode(&Sha256::digest(SHEET));
    text.truncate(12);
    text
});

/// A part of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// What asks for attention.
    Overview,
    /// DSV tenants.
    Tenants,
    /// Syncs.
    Syncs,
    /// Pools and engines.
    Engines,
    /// Dynamic secrets.
    Dynamic,
    /// Leases.
    Leases,
    /// Revocations that are held up.
    Blocked,
    /// Calls.
    Audit,
}

impl Section {
    const ALL: [Self; 8] = [
        Self::Overview,
        Self::Tenants,
        Self::Syncs,
        Self::Engines,
        Self::Dynamic,
        Self::Leases,
        Self::Blocked,
        Self::Audit,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Tenants => "DSV tenants",
            Self::Syncs => "Syncs",
            Self::Engines => "Pools and engines",
            Self::Dynamic => "Dynamic secrets",
            Self::Leases => "Leases",
            Self::Blocked => "Blocked",
            Self::Audit => "Audit",
        }
    }

    /// Its address.
    pub fn path(self) -> &'static str {
        match self {
            Self::Overview => "/admin",
            Self::Tenants => "/admin/tenants",
            Self::Syncs => "/admin/syncs",
            Self::Engines => "/admin/engines",
            Self::Dynamic => "/admin/dynamic-secrets",
            Self::Leases => "/admin/leases",
            Self::Blocked => "/admin/blocked",
            Self::Audit => "/admin/audit",
        }
    }
}

/// Whose page it is.
pub struct Owner<'a> {
    /// His name.
    pub name: &'a str,
    /// What his forms hold.
    pub form: &'a SecretText,
    /// Whether he may read the audit stream.
    pub reads_audit: bool,
}

/// A page of somebody who is signed in.
pub fn page(title: &str, section: Section, tenant: &str, owner: &Owner<'_>, body: &Markup) -> Markup {
    let shown = Section::ALL
        .into_iter()
        .filter(|other| *other != Section::Audit || owner.reads_audit);
    document(
        title,
        tenant,
        &html! {
            header.top {
                (brand(tenant))
                form.who method="post" action="/admin/sign-out" {
                    input type="hidden" name=(csrf::FIELD) value=(owner.form.reveal());
                    span { "Signed in as " strong { (owner.name) } }
                    button type="submit" { "Sign out" }
                }
            }
            div.columns {
                nav.main aria-label="Main" {
                    ul {
                        @for other in shown {
                            li { a href=(other.path()) aria-current=[(other == section).then_some("page")] { (other.name()) } }
                        }
                    }
                }
                main id="main" tabindex="-1" { (body) }
            }
        },
    )
}

/// A page of nobody in particular.
pub fn bare(title: &str, tenant: &str, body: &Markup) -> Markup {
    document(
        title,
        tenant,
        &html! {
            header.top { (brand(tenant)) }
            main.bare id="main" tabindex="-1" {
                h1 { (title) }
                (body)
            }
        },
    )
}

fn brand(tenant: &str) -> Markup {
    html! {
        p.brand {
            "dsv-operator"
            @if !tenant.is_empty() { span.tenant { " tenant " strong { (tenant) } } }
        }
    }
}

fn document(title: &str, tenant: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) @if !tenant.is_empty() { " · " (tenant) } " · dsv-operator" }
                link rel="stylesheet" href={ (STYLE) "?v=" (*SHEET_HASH) };
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                (body)
            }
        }
    }
}

/// The stylesheet.
pub fn sheet() -> Response {
    let mut response = SHEET.into_response();
    let headers = response.headers_mut();
    harden(headers);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/css; charset=utf-8"),
    );
    let keep = HeaderValue::from_static("public, max-age=31536000, immutable");
    headers.insert(header::CACHE_CONTROL, keep);
    response
}

/// A page as an answer.
pub fn response(status: StatusCode, page: Markup) -> Response {
    let mut response = (status, page.into_string()).into_response();
    let headers = response.headers_mut();
    harden(headers);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    response
}

/// What keeps a page where it belongs: out of caches, frames and other sites' reach.
pub fn harden(headers: &mut HeaderMap) {
    let all = [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in all {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_escaped_and_nothing_inline_is_written() {
        let form = SecretText::new("f");
        let owner = Owner {
            name: "<b>x</b>",
            form: &form,
            reads_audit: false,
        };
        let body = html! { p { ("\"><script>alert(1)</script>") } };
        let text = page("<i>", Section::Leases, "<u>", &owner, &body).into_string();
        assert!(!text.contains("<script") && !text.contains("<b>") && !text.contains("<i>") && !text.contains("<u>"));
        assert!(!text.contains("style=") && !text.contains("onclick") && !text.contains("/admin/audit"));
        assert!(text.contains(r#"href="/admin/leases" aria-current="page""#), "{text}");
    }

    #[test]
    fn the_sheet_asks_nobody_for_anything() {
        assert!(!SHEET.contains("url(") && !SHEET.contains("@import"));
    }
}
