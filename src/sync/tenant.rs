//! The calls of DSV that a push consists of, with a token that is kept and renewed.

use super::transport::{Answer, PushError, Settings, Transport};
use crate::keys::SecretText;
use crate::plan::sync::content::{Content, Held};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// A token is renewed this long before its end.
const EARLY: Duration = Duration::from_secs(60);
/// Life of a token whose end is not told.
const SHORT: Duration = Duration::from_mins(5);

/// Client credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Client id.
    pub id: SecretText,
    /// Client secret.
    pub secret: SecretText,
}

/// One DSV tenant, logged in as one client.
pub struct Tenant {
    transport: Transport,
    login: Login,
    token: tokio::sync::Mutex<Option<(SecretText, Instant)>>,
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tenant")
    }
}

/// What a tenant has at a path.
pub enum TenantHolds {
    /// Nothing.
    Absent,
    /// This, in that version.
    Is(Held, String),
    /// Something softly deleted.
    Marked,
    /// The login may not read it.
    Unreadable,
}

impl Tenant {
    /// Nobody has logged in yet.
    pub fn new(settings: &Settings, login: Login) -> Result<Self, PushError> {
        Ok(Self {
            transport: Transport::new(settings)?,
            login,
            token: tokio::sync::Mutex::new(None),
        })
    }

    /// Logs in, if no token is valid.
    pub async fn log_in(&self) -> Result<(), PushError> {
        self.token().await.map(|_| ())
    }

    /// Logs in, whether or not a token is valid.
    pub async fn log_in_anew(&self) -> Result<(), PushError> {
        *self.token.lock().await = None;
        self.log_in().await
    }

    async fn token(&self) -> Result<SecretText, PushError> {
        let mut kept = self.token.lock().await;
        if let Some((token, until)) = kept.as_ref()
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        *kept = None;
        let body = json!({
            "grant_type": "client_credentials",
            "client_id": self.login.id.reveal(),
            "client_secret": self.login.secret.reveal(),
        });
        let body = Some(body.to_string().into_bytes());
        let answer = self.transport.send(Method::POST, "/v1/token", None, body).await?;
        let answer = answer.usual()?;
        match answer.status.as_u16() {
            200 => {}
            400 | 401 | 403 => return Err(PushError::Login),
            _ => return Err(PushError::Foreign("a login gets an unknown status")),
        }
        let told = object(&answer)?;
        let token = told.get("accessToken").and_then(Value::as_str);
        let token = token.ok_or(PushError::Foreign("its answer to a login has no token"))?;
        let life = told.get("expiresIn").and_then(Value::as_u64);
        let life = life.map_or(SHORT, Duration::from_secs);
        let until = Instant::now() + life.saturating_sub(EARLY).max(life / 2);
        let token = SecretText::new(token);
        *kept = Some((token.clone(), until));
        Ok(token)
    }

    /// One call. A token that is not taken any more is replaced once.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, PushError> {
        for attempt in 0..2 {
            let token = self.token().await?;
            let bytes = body.map(|body| body.to_string().into_bytes());
            let answer = self
                .transport
                .send(method.clone(), path, Some(token.reveal()), bytes)
                .await?;
            let answer = answer.usual()?;
            if answer.status != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            let mut kept = self.token.lock().await;
            if attempt == 0 && kept.as_ref().is_some_and(|(known, _)| *known == token) {
                *kept = None;
            }
        }
        Err(PushError::Login)
    }

    /// What is at a path.
    pub async fn read(&self, path: &str) -> Result<TenantHolds, PushError> {
        let answer = self.call(Method::GET, &place(path), None).await?;
        match answer.status.as_u16() {
            200 => held(&answer),
            404 => Ok(TenantHolds::Absent),
            403 => Ok(TenantHolds::Unreadable),
            400 if is_marked(&answer) => Ok(TenantHolds::Marked),
            status => Err(PushError::Refused("read", status)),
        }
    }

    /// Makes a secret; returns its version.
    pub async fn create(&self, content: &Content) -> Result<String, PushError> {
        let answer = self
            .call(Method::POST, &place(&content.path), Some(&body(content)))
            .await?;
        written(&answer, "create")
    }

    /// Writes a secret that is there; returns its version.
    pub async fn update(&self, content: &Content) -> Result<String, PushError> {
        let answer = self
            .call(Method::PUT, &place(&content.path), Some(&body(content)))
            .await?;
        written(&answer, "update")
    }

    /// Writes a secret that nobody may look at, or makes it.
    pub async fn write(&self, content: &Content) -> Result<String, PushError> {
        match self.update(content).await {
            Err(PushError::Refused(_, 404)) => self.create(content).await,
            other => other,
        }
    }

    /// Brings back what is softly deleted.
    pub async fn restore(&self, path: &str) -> Result<(), PushError> {
        let answer = self
            .call(Method::PUT, &format!("{}/restore", place(path)), None)
            .await?;
        match answer.status.as_u16() {
            200 | 204 => Ok(()),
            403 => Err(PushError::Forbidden("update")),
            status => Err(PushError::Refused("restore", status)),
        }
    }

    /// Deletes a secret, for good with `force`. Absent is success.
    pub async fn delete(&self, path: &str, force: bool) -> Result<(), PushError> {
        let path = format!("{}?force={force}", place(path));
        let answer = self.call(Method::DELETE, &path, None).await?;
        match answer.status.as_u16() {
            200 | 204 | 404 => Ok(()),
            400 if !force && is_marked(&answer) => Ok(()),
            403 => Err(PushError::Forbidden("delete")),
            status => Err(PushError::Refused("delete", status)),
        }
    }
}

/// Parts of a path have no character that means anything in a URL.
fn place(path: &str) -> String {
    format!("/v1/secrets/{}", path.replace(':', "/"))
}

fn body(content: &Content) -> Value {
    json!({
        "data": content.data,
        "description": content.description,
        "attributes": content.attributes,
        "overwrite": true,
    })
}

fn object(answer: &Answer) -> Result<Map<String, Value>, PushError> {
    match serde_json::from_slice(&answer.body) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(PushError::Foreign("its answer is no JSON object")),
    }
}

fn held(answer: &Answer) -> Result<TenantHolds, PushError> {
    let told = object(answer)?;
    let map = |name: &str| told.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let held = Held {
        data: map("data"),
        description: told
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        attributes: map("attributes"),
    };
    Ok(TenantHolds::Is(held, version(&told)))
}

/// A text in DSV, a number in some that speak like it.
fn version(told: &Map<String, Value>) -> String {
    match told.get("version") {
        Some(Value::String(text)) => text.chars().take(32).collect(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn is_marked(answer: &Answer) -> bool {
    let told = object(answer).unwrap_or_default();
    let message = told.get("message").and_then(Value::as_str).unwrap_or_default();
    message.contains("marked for deletion")
}

fn written(answer: &Answer, what: &'static str) -> Result<String, PushError> {
    match answer.status.as_u16() {
        200 | 201 => Ok(version(&object(answer)?)),
        403 => Err(PushError::Forbidden(what)),
        status => Err(PushError::Refused(what, status)),
    }
}
