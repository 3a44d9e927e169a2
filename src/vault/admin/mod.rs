//! The page for people, below `/admin`: HTML that the server writes, with one stylesheet and no script.
//!
//! Nothing is decided here. Each page shows what the functions behind the REST API's calls give the same principal, and each
//! form makes such a call; so whoever may not do something there may not do it here. No value of a secret is ever read.

mod audit;
mod csrf;
mod engines;
mod frame;
mod leases;
mod overview;
mod session;
mod syncs;
mod tenant;
mod tenants;
mod view;

use super::Vault;
use super::call::Call;
use super::reply::Refusal;
use super::{serve, status_of_code};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use frame::{Owner, Section};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use maud::{Markup, html};
use serde_json::Value;
use session::{Cookies, Session};

/// Area of the page's own calls.
pub const AREA: &str = "admin";
/// Where the calls about syncs lie.
const SYNCS: &str = "api/devops-secrets-vault";

/// Whether a page is asked for, and no call of the API.
pub fn is_page(path: &str) -> bool {
    path.strip_prefix("/admin")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Area and rest of a page's address; none for another address.
pub fn path(decoded: &str) -> Option<&str> {
    is_page(decoded).then(|| decoded.trim_start_matches('/'))
}

fn home() -> String {
    Section::Overview.path().to_owned()
}

/// Somebody who asks for a page, signed in or not.
struct Visitor {
    call: Call,
    cookies: Cookies,
    /// Another site's page makes the browser ask.
    is_foreign: bool,
}

/// Somebody who asks for a page and is signed in.
struct Visit<'a> {
    vault: &'a Vault,
    call: &'a Call,
    session: &'a Session,
}

/// What comes of it.
struct Answer {
    status: StatusCode,
    content: Content,
    cookies: Vec<String>,
}

enum Content {
    Page(Markup),
    Elsewhere(String),
}

impl Answer {
    fn page(status: StatusCode, page: Markup) -> Self {
        Self {
            status,
            content: Content::Page(page),
            cookies: Vec::new(),
        }
    }

    /// The browser asks for another page, also after a form was sent.
    fn to(address: String) -> Self {
        Self {
            status: StatusCode::SEE_OTHER,
            content: Content::Elsewhere(address),
            cookies: Vec::new(),
        }
    }

    fn with_cookie(mut self, cookie: String) -> Self {
        self.cookies.push(cookie);
        self
    }

    /// A page of nobody in particular that says what is refused.
    fn refused(refusal: &Refusal, tenant: &str) -> Self {
        let status = status_of_code(refusal.code);
        Self::page(status, frame::bare(&title_of(status), tenant, &view::refused(refusal)))
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = match self.content {
            Content::Page(page) => frame::response(self.status, page),
            Content::Elsewhere(address) => {
                let mut response = self.status.into_response();
                frame::harden(response.headers_mut());
                // Addresses of ours are made of names and numbers; one that is no header value leads nowhere.
                if let Ok(address) = HeaderValue::from_str(&address) {
                    response.headers_mut().insert(header::LOCATION, address);
                }
                response
            }
        };
        for cookie in self
            .cookies
            .iter()
            .filter_map(|cookie| HeaderValue::from_str(cookie).ok())
        {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }
}

fn title_of(status: StatusCode) -> String {
    match status {
        StatusCode::FORBIDDEN => "Not allowed".to_owned(),
        StatusCode::NOT_FOUND => "Not found".to_owned(),
        _ => "Not done".to_owned(),
    }
}

/// Answers whatever is asked below `/admin`.
pub async fn answer(vault: &Vault, request: Request) -> Response {
    if request.uri().path() == frame::STYLE {
        return frame::sheet();
    }
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(serve::CALL_LIMIT, outcome(vault, parts, body)).await {
        Ok(Ok(answer)) => answer.into_response(),
        Ok(Err(refusal)) => Answer::refused(&refusal, "").into_response(),
        Err(_) => Answer::refused(&Refusal::new(504, "this took too long; try again"), "").into_response(),
    }
}

async fn outcome(vault: &Vault, parts: Parts, body: axum::body::Body) -> Result<Answer, Refusal> {
    let (cookies, is_foreign) = (Cookies::read(&parts.headers), csrf::is_foreign(&parts.headers));
    let tenant = serve::tenant(vault, &parts.headers)?;
    let visitor = Visitor {
        call: Call::read(parts, body, tenant).await?,
        cookies,
        is_foreign,
    };
    vault.can_note()?;
    let mut principal = String::new();
    let answer = match page(vault, &visitor, &mut principal).await {
        Ok(answer) => answer,
        Err(refusal) => Answer::refused(&refusal, &visitor.call.tenant.namespace),
    };
    vault
        .settings
        .audit
        .note(&visitor.call, &principal, answer.status.as_u16());
    Ok(answer)
}

/// Whoever is not signed in gets to the form for that, whatever he asks for.
async fn page(vault: &Vault, visitor: &Visitor, principal: &mut String) -> Result<Answer, Refusal> {
    let call = &visitor.call;
    let is_read = matches!(call.method, Method::GET | Method::HEAD);
    if !is_read && call.method != Method::POST {
        return Err(Refusal::new(405, "this method is not served here"));
    }
    if call.segments() == ["sign-in"] {
        if is_read {
            return Ok(session::ask(vault, visitor));
        }
        let (answer, who) = session::sign_in(vault, visitor).await?;
        *principal = who;
        return Ok(answer);
    }
    let Some(session) = vault.session(&call.tenant, &visitor.cookies).await? else {
        return Ok(session::elsewhere(call));
    };
    session.caller.subject.clone_into(principal);
    let visit = Visit {
        vault,
        call,
        session: &session,
    };
    let shown = if is_read {
        visit.shown().await
    } else {
        visit.sent(visitor.is_foreign).await
    };
    Ok(shown.unwrap_or_else(|refusal| visit.refused(&refusal)))
}

impl Visit<'_> {
    async fn shown(&self) -> Result<Answer, Refusal> {
        match self.call.segments().as_slice() {
            [] => overview::page(self).await,
            ["tenants"] => tenants::list(self).await,
            ["tenants", "new"] => tenant::new(self).await,
            ["tenants", id] => tenant::general(self, id).await,
            ["tenants", id, "edit"] => tenant::edit(self, id).await,
            ["tenants", id, "secrets"] => tenant::secrets(self, id).await,
            ["tenants", id, "secrets", "new"] => syncs::new(self, id).await,
            ["tenants", id, "audit"] => tenant::audit(self, id).await,
            ["syncs"] => syncs::list(self).await,
            ["syncs", id] => syncs::one(self, id).await,
            ["engines"] => engines::page(self).await,
            ["dynamic-secrets"] => leases::dynamic(self).await,
            ["leases"] => leases::list(self).await,
            ["blocked"] => leases::blocked(self).await,
            ["audit"] => audit::page(self),
            _ => Err(Refusal::new(404, "there is no such page")),
        }
    }

    async fn sent(&self, is_foreign: bool) -> Result<Answer, Refusal> {
        let fields = self.call.form()?;
        csrf::check(self.vault, Some(self.session.cookie()), &fields, is_foreign)?;
        match self.call.segments().as_slice() {
            ["sign-out"] => session::sign_out(self.vault, &self.call.tenant, self.session).await,
            ["tenants"] => tenant::make(self, &fields).await,
            ["tenants", id] => tenant::change(self, id, &fields).await,
            ["tenants", id, "active"] => tenant::switch(self, id, &fields).await,
            ["tenants", id, "secrets"] => syncs::make(self, id, &fields).await,
            ["syncs", id] => syncs::change(self, id, &fields).await,
            ["syncs", id, "active"] => syncs::switch(self, id, &fields).await,
            ["syncs", id, "push"] => syncs::push(self, id).await,
            ["engines", name, "ping"] => engines::ping(self, name).await,
            _ => Err(Refusal::new(404, "there is no such form")),
        }
    }

    /// Asks the API, as the same principal. What changes something is noted under the API's own address, too: who looks for
    /// changes finds them all in one place.
    async fn ask(&self, method: Method, path: &str, query: &[(&str, String)], body: &Value) -> Result<Value, Refusal> {
        let changes = method != Method::GET;
        let call = self.call.inner(method, path, query, body);
        let caller = &self.session.caller;
        let outcome = self.vault.answer_known(&call, caller).await;
        if changes {
            let status = super::status_of(&outcome);
            self.vault.settings.audit.note(&call, &caller.subject, status);
        }
        Ok(outcome?.body.unwrap_or_default())
    }

    async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Refusal> {
        self.ask(Method::GET, path, query, &Value::Null).await
    }

    fn may(&self, action: &str, resource: &str) -> bool {
        self.vault.may(self.call, &self.session.caller, action, resource)
    }

    fn page(&self, title: &str, section: Section, body: &Markup) -> Answer {
        self.page_with(StatusCode::OK, title, section, body)
    }

    fn page_with(&self, status: StatusCode, title: &str, section: Section, body: &Markup) -> Answer {
        let form = csrf::text(self.vault, self.session.cookie());
        let owner = Owner {
            name: self.session.caller.user().unwrap_or(&self.session.caller.subject),
            form: &form,
            reads_audit: self.may("read", "audit"),
        };
        Answer::page(
            status,
            frame::page(title, section, &self.call.tenant.namespace, &owner, body),
        )
    }

    /// A page that says what is refused, in the frame.
    fn refused(&self, refusal: &Refusal) -> Answer {
        let status = status_of_code(refusal.code);
        let title = title_of(status);
        let body = html! { h1 { (title) } (view::refused(refusal)) };
        self.page_with(status, &title, self.section(), &body)
    }

    /// Which part of the navigation an address belongs to.
    fn section(&self) -> Section {
        match self.call.segments().first() {
            Some(&"tenants") => Section::Tenants,
            Some(&"syncs") => Section::Syncs,
            Some(&"engines") => Section::Engines,
            Some(&"dynamic-secrets") => Section::Dynamic,
            Some(&"leases") => Section::Leases,
            Some(&"blocked") => Section::Blocked,
            Some(&"audit") => Section::Audit,
            _ => Section::Overview,
        }
    }

    /// What every form of this session holds.
    fn token(&self) -> Markup {
        let text = csrf::text(self.vault, self.session.cookie());
        html! { input type="hidden" name=(csrf::FIELD) value=(text.reveal()); }
    }

    /// A form that is only a button. `fields` are sent along.
    fn button(&self, action: &str, label: &str, fields: &[(&str, &str)]) -> Markup {
        html! {
            form.inline method="post" action=(action) {
                (self.token())
                @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
                button type="submit" { (label) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_lie_below_admin_and_nowhere_else() {
        for (address, found) in [
            ("/admin", Some("admin")),
            ("/admin/", Some("admin/")),
            ("/admin/tenants/1", Some("admin/tenants/1")),
            ("/administrator", None),
            ("/v1/admin", None),
        ] {
            assert_eq!(path(address), found, "{address}");
        }
    }
}
