//! One call, read: where it comes from, whom it is for, what it asks.

use super::admin;
use super::body::{Fields, MAX_BODY};
use super::reply::Refusal;
use super::secret_server;
use super::tenants::Tenant;
use crate::channel::listener::Peer;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// How long a body may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(20);

/// One call.
pub struct Call {
    /// Method.
    pub method: Method,
    /// The decoded path after `/v1/`, without slashes around it.
    pub path: String,
    /// Its first segment.
    pub area: String,
    /// What follows the area, as it came.
    pub rest: String,
    /// Query values that are not empty.
    pub query: BTreeMap<String, String>,
    /// The token, without the word before it.
    pub token: Option<String>,
    /// Where the connection comes from.
    pub remote: Option<IpAddr>,
    /// Host and port as the caller wrote them.
    pub host: String,
    /// The tenant.
    pub tenant: Tenant,
    /// Whether the body is a form.
    is_form: bool,
    body: Bytes,
}

/// Neither token nor body, nor a path that may hold a refresh token.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({} {})", self.method, self.area)
    }
}

impl Call {
    /// Reads the body and takes the head apart.
    pub async fn read(parts: Parts, body: axum::body::Body, tenant: Tenant) -> Result<Self, Refusal> {
        let decoded = percent_decode_str(parts.uri.path()).decode_utf8();
        let decoded = decoded.map_err(|_| Refusal::bad("the path is not UTF-8"))?;
        let served = secret_server::path(&decoded);
        let path = served
            .as_deref()
            .or_else(|| dsv(&decoded))
            .or_else(|| admin::path(&decoded))
            .ok_or_else(Refusal::not_found)?;
        let (area, rest) = path.split_once('/').unwrap_or((path, ""));
        let remote = parts.extensions.get::<ConnectInfo<Peer>>();
        let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let query = pairs
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key.into_owned(), value.into_owned()));
        Ok(Self {
            area: area.to_owned(),
            rest: rest.to_owned(),
            path: path.trim_matches('/').to_owned(),
            query: query.collect(),
            token: token(&parts.headers),
            host: header_text(&parts.headers, &header::HOST).to_owned(),
            remote: remote.map(|ConnectInfo(Peer(address))| address.ip()),
            tenant,
            is_form: content_type(&parts.headers)?,
            body: read_body(body).await?,
            method: parts.method,
        })
    }

    /// Whether it is one of Secret Server's calls.
    pub fn is_secret_server(&self) -> bool {
        matches!(self.area.as_str(), secret_server::API | secret_server::LOGIN)
    }

    /// The body as it came.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// Whether there is a body.
    pub fn has_body(&self) -> bool {
        !self.body.is_empty()
    }

    /// The body as JSON.
    pub fn fields(&self) -> Result<Fields, Refusal> {
        if self.is_form {
            return Err(Refusal::new(
                415,
                "the body must be JSON; set Content-Type: application/json",
            ));
        }
        Fields::json(&self.body)
    }

    /// A call of the API that a page makes for whoever asked for the page. Its body is `body`, or none if that is null.
    pub fn inner(&self, method: Method, path: &str, query: &[(&str, String)], body: &Value) -> Self {
        let (area, rest) = path.split_once('/').unwrap_or((path, ""));
        let query = query.iter().filter(|(_, value)| !value.is_empty());
        let body = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        Self {
            method,
            area: area.to_owned(),
            rest: rest.to_owned(),
            path: path.to_owned(),
            query: query.map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
            token: None,
            remote: self.remote,
            host: self.host.clone(),
            tenant: self.tenant.clone(),
            is_form: false,
            body,
        }
    }

    /// The body as a form, as browsers send it.
    pub fn form(&self) -> Result<Fields, Refusal> {
        if !self.is_form {
            return Err(Refusal::new(415, "the body must be a form"));
        }
        Ok(Fields::form(&self.body))
    }

    /// The body as JSON or as a form.
    pub fn fields_or_form(&self) -> Result<Fields, Refusal> {
        if self.is_form {
            return Ok(Fields::form(&self.body));
        }
        Fields::json(&self.body)
    }

    /// The whole address of a path, as this caller reaches us.
    pub fn url_of(&self, path: &str) -> String {
        format!("https://{}{path}", self.host)
    }

    /// A query value.
    pub fn asked(&self, key: &str) -> Option<&str> {
        self.query.get(key).map(String::as_str)
    }

    /// A query value that says true.
    pub fn flag(&self, key: &str) -> bool {
        self.asked(key).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// What follows the area as segments without empty ones.
    pub fn segments(&self) -> Vec<&str> {
        self.rest.split('/').filter(|segment| !segment.is_empty()).collect()
    }
}

/// What follows `/v1/`, unless it looks like a call that is served elsewhere.
fn dsv(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v1/")?;
    let area = rest.split('/').next().unwrap_or_default();
    (![secret_server::API, secret_server::LOGIN, admin::AREA].contains(&area)).then_some(rest)
}

fn header_text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Bare, or behind `Bearer`; an empty header is none.
fn token(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let bare = match text.split_once(' ') {
        Some((word, token)) if word.eq_ignore_ascii_case("bearer") => token.trim(),
        None if !text.eq_ignore_ascii_case("bearer") => text,
        _ => return None,
    };
    (!bare.is_empty()).then(|| bare.to_owned())
}

/// Whether it is a form. Everything else counts as JSON, and is refused where it says that it is something else again.
fn content_type(headers: &HeaderMap) -> Result<bool, Refusal> {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = text.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    match kind.as_deref() {
        None | Some("" | "application/json" | "text/plain" | "application/octet-stream") => Ok(false),
        Some("application/x-www-form-urlencoded") => Ok(true),
        Some(_) => Err(Refusal::new(
            415,
            "the body must be JSON; set Content-Type: application/json",
        )),
    }
}

async fn read_body(body: axum::body::Body) -> Result<Bytes, Refusal> {
    let limited = Limited::new(body, MAX_BODY);
    match tokio::time::timeout(BODY_LIMIT, limited.collect()).await {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Refusal::new(413, format!("the body is larger than {MAX_BODY} bytes")))
        }
        Ok(Err(_)) => Err(Refusal::bad("the body ended early")),
        Err(_) => Err(Refusal::new(408, "the body took too long to arrive")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::reply::Reply;

    #[test]
    fn neither_token_nor_body_is_shown() {
        let call = Call {
            method: Method::POST,
            path: "revoke/path-secret".into(),
            area: "revoke".into(),
            rest: "path-secret".into(),
            query: BTreeMap::new(),
            token: Some("token-secret".into()),
            host: "h".into(),
            remote: None,
            tenant: Tenant {
                namespace: "t".into(),
                uid: "u".into(),
            },
            is_form: false,
            body: Bytes::from_static(b"{\"password\": \"body-secret\"}"),
        };
        let shown = format!(
            "{call:?} {:?} {:?}",
            call.fields().unwrap(),
            Reply::ok("reply-secret".into())
        );
        assert_eq!(shown, r#"Call(POST revoke) {"password"} Reply(200 OK)"#);
    }

    #[test]
    fn tokens_come_bare_and_behind_bearer() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, text.parse().unwrap());
            token(&headers)
        };
        assert_eq!(of("a.b.c").as_deref(), Some("a.b.c"));
        assert_eq!(of("Bearer a.b.c").as_deref(), Some("a.b.c"));
        assert_eq!(of("bearer  a.b.c ").as_deref(), Some("a.b.c"));
        assert_eq!((of(""), of("Bearer "), of("Basic abc")), (None, None, None));
    }
}
