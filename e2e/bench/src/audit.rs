//! What was asked of the API server, read from its own audit log.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use e2e::objects::text;
use e2e::stack::Stack;
use serde_json::Value;

const OPERATOR: &str = "system:serviceaccount:dsv-system:dsv-operator";

/// One answered request of the operator; leadership is left out, which costs the same whatever happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub verb: String,
    /// Plural and subresource, as `credentialleases/status`.
    pub resource: String,
    pub code: i64,
}

impl Request {
    pub fn is_write(&self) -> bool {
        !["get", "list", "watch"].contains(&self.verb.as_str())
    }

    fn of(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        let ours = text(&event, "/user/username") == OPERATOR && text(&event, "/stage") == "ResponseComplete";
        if !ours || text(&event, "/objectRef/apiGroup") == "coordination.k8s.io" {
            return None;
        }
        let resource = text(&event, "/objectRef/resource");
        let subresource = text(&event, "/objectRef/subresource");
        Some(Self {
            verb: text(&event, "/verb"),
            resource: if subresource.is_empty() {
                resource
            } else {
                format!("{resource}/{subresource}")
            },
            code: event.pointer("/responseStatus/code").and_then(Value::as_i64)?,
        })
    }
}

/// The audit log of a stack's own API server.
pub struct AuditLog(PathBuf);

impl AuditLog {
    pub fn of(stack: &Stack) -> Result<Self> {
        let plane = stack.cluster().control_plane();
        let plane = plane.context("counting requests needs a control plane of our own; unset E2E_KUBECONFIG")?;
        Ok(Self(plane.dir().join("audit.log")))
    }

    /// Where it ends now: what is asked later is written behind.
    pub fn end(&self) -> Result<u64> {
        Ok(std::fs::metadata(&self.0)?.len())
    }

    /// The operator's requests since then.
    pub fn since(&self, from: u64) -> Result<Vec<Request>> {
        let mut file = File::open(&self.0)?;
        file.seek(SeekFrom::Start(from))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(text.lines().filter_map(Request::of).collect())
    }
}

/// How often each kind was asked, as `create secrets`, most often first.
pub fn kinds(requests: &[Request]) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for request in requests {
        *counts
            .entry(format!("{} {}", request.verb, request.resource))
            .or_default() += 1;
    }
    let mut kinds: Vec<_> = counts.into_iter().collect();
    kinds.sort_by_key(|(_, times)| Reverse(*times));
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(user: &str, verb: &str, reference: &str) -> String {
        format!(
            r#"{{"stage":"ResponseComplete","verb":"{verb}","user":{{"username":"{user}"}},"objectRef":{reference},"responseStatus":{{"code":200}}}}"#
        )
    }

    #[test]
    fn requests_of_the_operator_are_told_from_those_of_others_and_from_leadership() {
        let status = r#"{"resource":"credentialleases","subresource":"status","apiGroup":"dsv.dev"}"#;
        let found = Request::of(&event(OPERATOR, "update", status)).unwrap();
        assert_eq!((found.resource.as_str(), found.code), ("credentialleases/status", 200));
        assert!(found.is_write());
        let secret = r#"{"resource":"secrets"}"#;
        assert!(!Request::of(&event(OPERATOR, "get", secret)).unwrap().is_write());
        assert_eq!(Request::of(&event("dsv-admin", "create", secret)), None);
        let leadership = r#"{"resource":"leases","apiGroup":"coordination.k8s.io"}"#;
        assert_eq!(Request::of(&event(OPERATOR, "update", leadership)), None);
        assert_eq!(Request::of("half a li"), None);
    }

    #[test]
    fn kinds_are_counted() {
        let request = |verb: &str| Request {
            verb: verb.to_owned(),
            resource: "secrets".to_owned(),
            code: 200,
        };
        let all = [request("get"), request("create"), request("get")];
        assert_eq!(
            kinds(&all),
            [("get secrets".to_owned(), 2), ("create secrets".to_owned(), 1)]
        );
    }
}
