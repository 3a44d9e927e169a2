//! Signing in and out. A session is a cookie with 256 random bits, whose keyed hash names a record that every replica reads:
//! so it is over everywhere as soon as the record is gone, and who reads the records has no session.

use super::frame::{self, Section};
use super::{Answer, Visitor, csrf, home};
use crate::keys::{SecretText, keyed_hash, random_secret};
use crate::vault::Vault;
use crate::vault::body::Fields;
use crate::vault::call::Call;
use crate::vault::caller::Caller;
use crate::vault::ids::Kind;
use crate::vault::records::Live;
use crate::vault::reply::Refusal;
use crate::vault::status_of_code;
use crate::vault::tenants::Tenant;
use crate::vault::time;
use http::{HeaderMap, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};
use serde_json::{Map, json};

/// Name of the cookie of who is signed in. With this prefix browsers take it over HTTPS only.
const SESSION: &str = "__Secure-dsv-admin";
/// Of who is about to: the form for signing in is bound to it. Another name, since who follows a link from elsewhere comes
/// without his session's cookie, and must not lose it by that.
const VISIT: &str = "__Secure-dsv-visit";
/// How long a session lasts, like an access token.
const LIFE: SignedDuration = SignedDuration::from_hours(1);
/// Characters of a cookie.
const LENGTH: usize = 43;

/// The cookies of a request that may be ours.
#[derive(Debug, Default)]
pub struct Cookies {
    session: Option<SecretText>,
    visit: Option<SecretText>,
}

impl Cookies {
    /// Those of the headers.
    pub fn read(headers: &HeaderMap) -> Self {
        let texts = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let mut cookies = Self::default();
        for (name, value) in texts
            .flat_map(|text| text.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
        {
            let fits = value.len() == LENGTH && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
            let place = match name {
                SESSION if fits => &mut cookies.session,
                VISIT if fits => &mut cookies.visit,
                _ => continue,
            };
            place.get_or_insert_with(|| SecretText::new(value));
        }
        cookies
    }
}

/// Somebody who is signed in. No `Debug`: the record would show its Secret.
pub struct Session {
    /// Who.
    pub caller: Caller,
    /// Until when.
    pub ends: Timestamp,
    cookie: SecretText,
    record: Live,
}

impl Session {
    /// The value of the cookie.
    pub fn cookie(&self) -> &SecretText {
        &self.cookie
    }
}

fn cookie(name: &str, value: &str, life: SignedDuration) -> String {
    let seconds = life.as_secs();
    format!("{name}={value}; Path=/admin; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict")
}

impl Vault {
    /// The session of a cookie, if it has one that goes on and its user still may log in.
    pub(super) async fn session(&self, tenant: &Tenant, cookies: &Cookies) -> Result<Option<Session>, Refusal> {
        let Some(cookie) = cookies.session.clone() else {
            return Ok(None);
        };
        let name = keyed_hash(&self.tokens.hash_key(), &cookie);
        let Some(live) = self.record(tenant, Kind::Session, name.reveal()).await? else {
            return Ok(None);
        };
        let record = &live.record;
        let ends = record.time("expires").filter(|ends| time::now() < *ends);
        let since = (record.text("via"), record.created.as_second());
        let caller = self.still_caller(tenant, record.text("subject").to_owned(), since);
        Ok(caller.zip(ends).map(|(caller, ends)| Session {
            caller,
            ends,
            cookie,
            record: live,
        }))
    }

    async fn begin_session(&self, tenant: &Tenant, user: &Live) -> Result<SecretText, Refusal> {
        let cookie = random_secret();
        let subject = format!("users:{}", user.record.name);
        let until = time::now().saturating_add(LIFE).unwrap_or(Timestamp::MAX);
        let mut fields = Map::new();
        fields.insert("subject".into(), json!(subject));
        fields.insert("via".into(), json!(user.id));
        fields.insert("expires".into(), json!(time::text(until)));
        let name = keyed_hash(&self.tokens.hash_key(), &cookie);
        self.make_record(tenant, Kind::Session, name.reveal(), fields, (None, &subject))
            .await?;
        Ok(cookie)
    }
}

/// `GET /admin/sign-in`.
pub fn ask(vault: &Vault, visitor: &Visitor) -> Answer {
    form(vault, visitor, StatusCode::OK, None)
}

/// `POST /admin/sign-in`. Returns who signed in, too.
pub async fn sign_in(vault: &Vault, visitor: &Visitor) -> Result<(Answer, String), Refusal> {
    let call = &visitor.call;
    let fields = call.form()?;
    csrf::check(vault, visitor.cookies.visit.as_ref(), &fields, visitor.is_foreign)?;
    let user = match known(vault, call, &fields).await {
        Ok(user) => user,
        Err(refusal) => {
            let status = status_of_code(refusal.code);
            return Ok((form(vault, visitor, status, Some(&refusal)), String::new()));
        }
    };
    // Whoever had this browser before is out.
    if let Some(before) = vault.session(&call.tenant, &visitor.cookies).await? {
        vault.remove(&call.tenant, &before.record).await?;
    }
    let session = vault.begin_session(&call.tenant, &user).await?;
    let to = fields
        .text("to")?
        .filter(|to| is_page(to))
        .map_or_else(home, str::to_owned);
    let answer = Answer::to(to)
        .with_cookie(cookie(SESSION, session.reveal(), LIFE))
        .with_cookie(cookie(VISIT, "", SignedDuration::ZERO));
    Ok((answer, format!("users:{}", user.record.name)))
}

async fn known(vault: &Vault, call: &Call, fields: &Fields) -> Result<Live, Refusal> {
    let (name, password) = (fields.required("username")?, fields.required("password")?);
    vault
        .user_by_password(&call.tenant, name, SecretText::new(password))
        .await
}

/// `POST /admin/sign-out`.
pub async fn sign_out(vault: &Vault, tenant: &Tenant, session: &Session) -> Result<Answer, Refusal> {
    vault.remove(tenant, &session.record).await?;
    Ok(Answer::to("/admin/sign-in".to_owned()).with_cookie(cookie(SESSION, "", SignedDuration::ZERO)))
}

/// The way to the form, and from there back to where somebody wanted to go.
pub fn elsewhere(call: &Call) -> Answer {
    let wanted = format!("/{}", call.path);
    let is_useful = call.method == http::Method::GET && is_page(&wanted) && wanted != home();
    let back = if is_useful {
        format!("?to={wanted}")
    } else {
        String::new()
    };
    Answer::to(format!("/admin/sign-in{back}"))
}

/// Whether an address leads to a page of ours: somebody else may have written the link.
fn is_page(to: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/_-".contains(&b);
    super::is_page(to) && to.bytes().all(plain) && !to.starts_with("/admin/sign-")
}

fn form(vault: &Vault, visitor: &Visitor, status: StatusCode, refusal: Option<&Refusal>) -> Answer {
    let call = &visitor.call;
    let fresh = visitor.cookies.visit.is_none();
    let visit = visitor.cookies.visit.clone().unwrap_or_else(random_secret);
    let told = refusal.map(|refusal| match refusal.code {
        401 if refusal.message.contains("locked") => refusal.message.clone(),
        401 => "There is no such user, or the password is another one.".to_owned(),
        _ => refusal.message.clone(),
    });
    let sent = call.form().ok();
    let of = |name: &str| {
        let sent = sent.as_ref().and_then(|fields| fields.text(name).ok().flatten());
        sent.or_else(|| call.asked(name)).unwrap_or_default().to_owned()
    };
    let body = fields(
        &csrf::text(vault, &visit),
        (&of("username"), &of("to")),
        told.as_deref(),
    );
    let page = frame::bare("Sign in", &call.tenant.namespace, &body);
    let answer = Answer::page(status, page);
    if fresh {
        return answer.with_cookie(cookie(VISIT, visit.reveal(), LIFE));
    }
    answer
}

fn fields(csrf: &SecretText, (name, to): (&str, &str), told: Option<&str>) -> Markup {
    html! {
        @if let Some(told) = told { p.notice.bad role="alert" { (told) } }
        form.narrow method="post" action="/admin/sign-in" {
            input type="hidden" name=(csrf::FIELD) value=(csrf.reveal());
            @if is_page(to) { input type="hidden" name="to" value=(to); }
            div.field {
                label for="username" { "User" }
                input id="username" name="username" value=(name) autocomplete="username" autocapitalize="none"
                    spellcheck="false" required autofocus[name.is_empty()];
            }
            div.field {
                label for="password" { "Password" }
                input id="password" name="password" type="password" autocomplete="current-password" required
                    autofocus[!name.is_empty()];
            }
            div.actions { button.main type="submit" { "Sign in" } }
        }
        p.hint { "Users and passwords are those of the REST API. Signed in already? " a href=(Section::Overview.path()) { "Go to the overview" } "." }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_cookies_of_ours_are_read_and_the_first_counts() {
        let value = "a".repeat(LENGTH);
        let mut headers = HeaderMap::new();
        let text = format!(
            "x=1; {SESSION}={value}; {SESSION}={}; {VISIT}=short",
            "b".repeat(LENGTH)
        );
        headers.insert(header::COOKIE, text.parse().unwrap());
        let cookies = Cookies::read(&headers);
        assert_eq!(cookies.session.as_ref().map(SecretText::reveal), Some(value.as_str()));
        assert!(cookies.visit.is_none());
        assert!(!format!("{cookies:?}").contains("aaa"));
    }

    #[test]
    fn nobody_is_led_away_from_the_page_after_signing_in() {
        for (to, fits) in [
            ("/admin/leases", true),
            ("/admin/tenants/3/secrets", true),
            ("/admin", true),
            ("/admin/sign-out", false),
            ("/adminx", false),
            ("//evil.example/admin", false),
            ("https://evil.example/admin/", false),
            ("/admin/../v1/token", false),
            ("/admin/leases?x=y", false),
            ("/admin\\evil", false),
        ] {
            assert_eq!(is_page(to), fits, "{to}");
        }
    }

    #[test]
    fn a_cookie_stays_with_the_browser_and_with_this_page() {
        let text = cookie(SESSION, "v", LIFE);
        for part in ["Secure", "HttpOnly", "SameSite=Strict", "Path=/admin", "Max-Age=3600"] {
            assert!(text.contains(part), "{part}");
        }
    }
}
