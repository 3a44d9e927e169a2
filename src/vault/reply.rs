//! What callers are answered: JSON always, for failures too, with `code` before `message`, since clients compare the text.

use crate::cluster;
use crate::telemetry::logs::chain;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// Nothing of that name, whatever the kind.
const NOT_FOUND: &str = "unable to find item with specified identifier";

/// An answer that is no failure.
#[derive(Clone, PartialEq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The body; none for 204.
    pub body: Option<Value>,
}

/// The body may hold what a secret holds.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({})", self.status)
    }
}

impl Reply {
    /// 200.
    pub fn ok(body: Value) -> Self {
        Self {
            status: StatusCode::OK,
            body: Some(body),
        }
    }

    /// 201.
    pub fn created(body: Value) -> Self {
        Self {
            status: StatusCode::CREATED,
            body: Some(body),
        }
    }

    /// 204, without a body.
    pub fn nothing() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            body: None,
        }
    }

    /// 200 with a message.
    pub fn message(text: impl Into<String>) -> Self {
        Self::ok(json!({"message": text.into()}))
    }
}

/// A failure, as it is told. Never with a secret value in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// What went wrong, with the next step.
    pub message: String,
    /// The same by field.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, Vec<String>>,
}

impl Refusal {
    /// Any status.
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            errors: BTreeMap::new(),
        }
    }

    /// 400.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// 400 with what is wrong in which field.
    pub fn fields(faults: Vec<(String, String)>) -> Self {
        let text: Vec<String> = faults.iter().map(|(field, fault)| format!("{field} {fault}")).collect();
        let mut refusal = Self::bad(text.join("; "));
        for (field, fault) in faults {
            refusal.errors.entry(field).or_default().push(fault);
        }
        refusal
    }

    /// 404.
    pub fn not_found() -> Self {
        Self::new(404, NOT_FOUND)
    }

    /// 401, for whatever reason.
    pub fn unauthenticated() -> Self {
        Self::new(401, "unable to authenticate")
    }

    /// 403.
    pub fn forbidden() -> Self {
        Self::new(403, "Invalid permissions")
    }

    /// The second look at what is marked for deletion.
    pub fn marked(kind: &str) -> Self {
        Self::bad(marked(kind))
    }

    /// With one more field.
    #[must_use]
    pub fn with(mut self, field: &str, text: impl Into<String>) -> Self {
        self.errors.entry(field.to_owned()).or_default().push(text.into());
        self
    }
}

/// What is said of something that is softly deleted.
pub fn marked(kind: &str) -> String {
    format!("{kind} marked for deletion and will be removed in about 72 hours")
}

impl From<cluster::Error> for Refusal {
    fn from(error: cluster::Error) -> Self {
        tracing::warn!(error = %chain(&error), "a call could not be answered");
        if error.is_conflict() {
            return Self::new(
                409,
                "somebody else changed this at the same moment; read it and try again",
            );
        }
        if error.is_refused() {
            return Self::bad(format!(
                "Kubernetes refused to {}: {}",
                error.intention,
                error.status().map(|status| status.message.as_str()).unwrap_or_default()
            ));
        }
        Self::new(503, "the Kubernetes API server did not answer; try again")
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        match self.body {
            None => hardened(self.status.into_response()),
            Some(body) => json_response(self.status, body.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = super::status_of_code(self.code);
        let text = serde_json::to_string(&self).unwrap_or_else(|_| r#"{"code":500,"message":"internal"}"#.to_owned());
        json_response(status, text)
    }
}

fn json_response(status: StatusCode, text: String) -> Response {
    let mut response = hardened((status, text).into_response());
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Nobody on the way keeps an answer, and no browser takes it for anything else.
fn hardened(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::STRICT_TRANSPORT_SECURITY,
        HeaderValue::from_static("max-age=31536000"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_comes_before_the_message() {
        let text = serde_json::to_string(&Refusal::unauthenticated()).unwrap();
        assert_eq!(text, r#"{"code":401,"message":"unable to authenticate"}"#);
        let fields = Refusal::fields(vec![
            ("port".into(), "is missing".into()),
            ("host".into(), "is missing".into()),
        ]);
        assert_eq!(
            serde_json::to_string(&fields).unwrap(),
            r#"{"code":400,"message":"port is missing; host is missing","errors":{"host":["is missing"],"port":["is missing"]}}"#
        );
    }
}
