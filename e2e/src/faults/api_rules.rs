//! Which requests to the API server go wrong, and how.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is not passed on; the client gets this status, as the API server words it.
    Refuse { code: u16, retry_after: Option<u32> },
    /// It takes effect, and the connection breaks before the answer.
    Lost,
    /// The connection breaks before it takes effect.
    Cut,
    /// It is passed on this much later.
    Late(Duration),
}

/// Which requests, and how often.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Empty: every method that writes.
    methods: Vec<Method>,
    /// Plurals such as `secrets` or `credentialleases/status`; empty: all of our kinds and Secrets.
    resources: Vec<String>,
    /// How often each different request (method, path) meets it.
    times: u32,
    answer: Answer,
    /// Beginnings of watches instead of writes.
    watches: bool,
}

impl Rule {
    /// Each watch that begins meets it `times` times.
    pub fn watches(answer: Answer, times: u32) -> Self {
        Self {
            watches: true,
            ..Self::writes(answer, times)
        }
    }

    /// Each write of a credential's life (leases, dynamic secrets, Secrets; not leadership and Events) meets it `times` times.
    pub fn writes(answer: Answer, times: u32) -> Self {
        Self {
            methods: Vec::new(),
            resources: Vec::new(),
            times,
            answer,
            watches: false,
        }
    }

    /// Only this one, as `POST credentialleases`.
    #[must_use]
    pub fn only(mut self, method: &Method, resource: &str) -> Self {
        self.methods.push(method.clone());
        self.resources.push(resource.to_owned());
        self
    }

    fn fits(&self, method: &Method, resource: &str) -> bool {
        let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let method_fits = if self.methods.is_empty() {
            writes.contains(method)
        } else {
            self.methods.contains(method)
        };
        let base = resource.split('/').next().unwrap_or_default();
        let resource_fits = if self.resources.is_empty() {
            ["secrets", "credentialleases", "dynamicsecrets"].contains(&base)
        } else {
            self.resources.iter().any(|wanted| wanted == resource)
        };
        method_fits && resource_fits
    }
}

/// The rules in force, and who met them already.
#[derive(Debug, Default)]
pub struct Rules {
    all: Vec<Rule>,
    seen: BTreeMap<(usize, String), u32>,
    /// Requests that met a rule.
    pub met: u64,
}

impl Rules {
    pub fn add(&mut self, rule: Rule) {
        self.all.push(rule);
    }

    /// What becomes of the request, which counts as met.
    pub fn meet<B>(&mut self, request: &Request<B>) -> Option<Answer> {
        let (method, path) = (request.method(), request.uri().path());
        let watch = is_watch(request);
        let resource = resource(path).unwrap_or_default();
        let fits = |rule: &Rule| {
            if rule.watches {
                watch
            } else {
                rule.fits(method, &resource)
            }
        };
        let at = self.all.iter().position(fits)?;
        let rule = self.all.get(at)?;
        let times = self.seen.entry((at, format!("{method} {path}"))).or_default();
        if *times >= rule.times {
            return None;
        }
        *times += 1;
        self.met += 1;
        Some(rule.answer)
    }
}

/// Whether the request begins a watch.
pub fn is_watch<B>(request: &Request<B>) -> bool {
    request.uri().query().is_some_and(|query| query.contains("watch=true"))
}

/// Plural and subresource of a namespaced object's or collection's path, as `secrets` or `credentialleases/status`.
fn resource(path: &str) -> Option<String> {
    let mut parts = path.split('/').skip_while(|part| *part != "namespaces").skip(2);
    let plural = parts.next()?;
    Some(match parts.nth(1) {
        Some(subresource) => format!("{plural}/{subresource}"),
        None => plural.to_owned(),
    })
}

/// A refusal as the API server words it.
pub fn refusal(code: u16, retry_after: Option<u32>) -> Result<Response<Bytes>> {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        410 => "Expired",
        _ => "Unknown",
    };
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "the fault proxy refuses this request",
        "reason": reason,
        "code": code,
        "details": retry_after.map(|seconds| json!({"retryAfterSeconds": seconds})),
    });
    let mut answer = Response::builder()
        .status(StatusCode::from_u16(code)?)
        .header("content-type", "application/json");
    if let Some(seconds) = retry_after {
        answer = answer.header("retry-after", seconds);
    }
    Ok(answer.body(Bytes::from(status.to_string()))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn request(method: Method, path: &str) -> Request<()> {
        Request::builder().method(method).uri(path).body(()).unwrap()
    }

    #[test]
    fn each_request_meets_a_rule_as_often_as_it_says() {
        let answer = Answer::Refuse {
            code: 503,
            retry_after: None,
        };
        let mut rules = Rules::default();
        rules.add(Rule::writes(answer, 1));
        let lease = "/apis/dsv.dev/v1alpha1/namespaces/shop/credentialleases";
        assert_eq!(rules.meet(&request(Method::GET, lease)), None);
        assert_eq!(rules.meet(&request(Method::POST, lease)), Some(answer));
        assert_eq!(rules.meet(&request(Method::POST, lease)), None);
        let secret = "/api/v1/namespaces/shop/secrets/app";
        assert_eq!(rules.meet(&request(Method::PUT, secret)), Some(answer));
        let record = "/apis/coordination.k8s.io/v1/namespaces/dsv-system/leases/dsv-operator";
        assert_eq!(rules.meet(&request(Method::PUT, record)), None);
        assert_eq!(rules.met, 2);
    }

    #[test]
    fn resources_are_told_apart_by_their_subresource() {
        let name = |path| resource(path).unwrap();
        assert_eq!(
            name("/apis/dsv.dev/v1alpha1/namespaces/a/credentialleases/x/status"),
            "credentialleases/status"
        );
        assert_eq!(name("/api/v1/namespaces/a/secrets/x"), "secrets");
        assert_eq!(name("/api/v1/namespaces/a/secrets"), "secrets");
        assert_eq!(resource("/apis/dsv.dev/v1alpha1/credentialleases"), None);
    }
}
