//! Callers whom Kubernetes knows: a ServiceAccount's token in, and what Kubernetes lets that account do, out.
//!
//! The API server is asked at each call, both who it is and what he may, so nobody has more here than with kubectl, and
//! nothing any longer. Policies are for DSV's own principals; what has no counterpart in Kubernetes is out of reach here.

use super::Vault;
use super::body::Fields;
use super::call::Call;
use super::caller::Caller;
use super::reply::{Refusal, Reply};
use super::secrets::Found;
use super::tenants::Tenant;
use super::time;
use crate::api::names::GROUP;
use crate::cluster::review::{self, Deed, Person};
use crate::keys::{Claims, SecretText, seal, unseal};
use futures::future::try_join_all;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// The audience that a token must have been made for.
pub const AUDIENCE: &str = "dsv.dev";
/// What `via` says in tokens of such callers.
const VIA: &str = "kubernetes";
/// Longest token that is looked at.
const MAX_TOKEN: usize = 16 * 1024;
/// How long a login waits until the API server may be asked for it.
const WAIT: Duration = Duration::from_secs(5);

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// Secrets.
    Secret,
    /// DynamicSecrets.
    Dynamic,
    /// CredentialLeases.
    Lease,
    /// EnginePools.
    Pool,
    /// Engines.
    Engine,
}

impl Thing {
    fn deed(self, verb: &'static str) -> Deed {
        let (group, resource) = match self {
            Self::Secret => ("", "secrets"),
            Self::Dynamic => (GROUP, "dynamicsecrets"),
            Self::Lease => (GROUP, "credentialleases"),
            Self::Pool => (GROUP, "enginepools"),
            Self::Engine => (GROUP, "engines"),
        };
        Deed { group, resource, verb }
    }

    /// What a DSV resource such as `secrets:a:b` may be.
    fn of(resource: &str) -> &'static [Self] {
        match resource.split(':').next().unwrap_or_default() {
            "secrets" => &[Self::Secret, Self::Dynamic],
            "pools" => &[Self::Pool],
            "engines" => &[Self::Engine],
            _ => &[],
        }
    }
}

/// What the API server lets a caller do in the tenant's namespace, as far as his call needs it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rights(BTreeSet<Deed>);

/// The verbs that an action of DSV needs. A change answers with the whole object, so it needs reading too.
fn verbs(action: &str) -> &'static [&'static str] {
    match action {
        "read" | "assign" => &["get"],
        "list" => &["list"],
        "create" => &["create"],
        "update" => &["update", "get"],
        "delete" => &["delete"],
        _ => &[],
    }
}

impl Rights {
    fn hold(&self, action: &str, thing: Thing) -> bool {
        let verbs = verbs(action);
        !verbs.is_empty() && verbs.iter().all(|verb| self.0.contains(&thing.deed(verb)))
    }

    /// Whether they allow an action on a resource that may be of several kinds, on one of them at least.
    pub fn allow(&self, action: &str, resource: &str) -> bool {
        Thing::of(resource).iter().any(|thing| self.hold(action, *thing))
    }
}

/// What is asked of the API server for a call.
fn questions(area: &str, method: &str) -> Vec<Deed> {
    let things: &[Thing] = match area {
        "secrets" => &[Thing::Secret, Thing::Dynamic],
        "pools" => &[Thing::Pool],
        "engines" => &[Thing::Engine],
        _ => &[],
    };
    let verbs: &'static [&'static str] = match method {
        "GET" => &["get", "list"],
        // A ping is a change of the engine.
        "POST" => &["create", "get", "update"],
        "PUT" => &["update", "get"],
        "DELETE" => &["delete", "get"],
        _ => &[],
    };
    let mut all: Vec<Deed> = things
        .iter()
        .flat_map(|thing| verbs.iter().map(|verb| thing.deed(verb)))
        .collect();
    if (area, method) == ("secrets", "GET") {
        all.push(Thing::Lease.deed("create"));
    }
    all
}

impl Caller {
    /// Whether he may do that to this kind of thing. Of DSV's own principals policies decide alone.
    pub fn holds(&self, action: &str, thing: Thing) -> bool {
        self.rights.as_ref().is_none_or(|rights| rights.hold(action, thing))
    }

    /// The same as a refusal.
    pub fn demand(&self, action: &str, thing: Thing) -> Result<(), Refusal> {
        if self.holds(action, thing) {
            return Ok(());
        }
        Err(Refusal::forbidden())
    }

    /// Whether Kubernetes knows him, and its rights count.
    pub fn is_kubernetes(&self) -> bool {
        self.rights.is_some()
    }
}

impl Found {
    /// Which kind of object it is.
    pub fn thing(&self) -> Thing {
        match self {
            Self::Kept(_) => Thing::Secret,
            Self::Dynamic(_) => Thing::Dynamic,
        }
    }
}

/// What he is called here. No user of DSV's own has a colon in his name.
fn subject(person: &Person) -> String {
    format!("users:{VIA}:{}", person.name)
}

/// When a token says that it ends, if it says that it is for us: the API server is not asked about others.
fn end_of(token: &str) -> Option<i64> {
    let mut parts = token.split('.');
    let (_, body, _) = (parts.next()?, parts.next()?, parts.next()?);
    let body = data_encoding::BASE64URL_NOPAD.decode(body.as_bytes()).ok()?;
    let claims: Value = serde_json::from_slice(&body).ok()?;
    let audience = claims.get("aud")?;
    let ours = |value: &Value| value.as_str() == Some(AUDIENCE);
    let meant = ours(audience) || audience.as_array().is_some_and(|all| all.iter().any(ours));
    claims.get("exp")?.as_i64().filter(|_| meant && parts.next().is_none())
}

impl Vault {
    /// The grant `kubernetes`: `jwt` is a ServiceAccount's token with the audience `dsv.dev`.
    pub(super) async fn by_kubernetes(&self, tenant: &Tenant, fields: &Fields) -> Result<Reply, Refusal> {
        let token = SecretText::new(fields.required("jwt")?);
        let end = Some(token.reveal()).filter(|text| text.len() <= MAX_TOKEN);
        let end = end.and_then(end_of).ok_or_else(Refusal::unauthenticated)?;
        let busy = || Refusal::new(503, "logins take too long at the moment; try again");
        let turn = tokio::time::timeout(WAIT, self.reviewing.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(busy()) };
        let person = self.holder(&token).await?;
        let sealed = seal(&self.tokens.hash_key(), &token, &tenant.uid);
        let sealed = sealed.ok_or_else(|| Refusal::new(500, "no access token can be made"))?;
        let left = end.saturating_sub(time::now().as_second());
        self.grant_for(tenant, subject(&person), (VIA.to_owned(), Some(sealed)), left)
            .await
    }

    async fn holder(&self, token: &SecretText) -> Result<Person, Refusal> {
        let asked = review::holder(&self.client, token, AUDIENCE).await;
        asked.map_err(unanswered)?.ok_or_else(Refusal::unauthenticated)
    }

    /// The caller of a token that stands for a ServiceAccount's, as Kubernetes sees him now.
    pub(super) async fn kubernetes_caller(
        &self,
        call: &Call,
        claims: &Claims,
        sealed: &str,
    ) -> Result<Caller, Refusal> {
        let token = unseal(&self.tokens.hash_key(), sealed, &call.tenant.uid);
        let token = token.ok_or_else(Refusal::unauthenticated)?;
        let person = self.holder(&token).await?;
        if subject(&person) != claims.sub {
            return Err(Refusal::unauthenticated());
        }
        let namespace = &call.tenant.namespace;
        let ask = |deed| {
            let person = &person;
            async move {
                let may = review::may(&self.client, person, namespace, deed).await;
                may.map(|may| may.then_some(deed))
            }
        };
        let asked = try_join_all(questions(&call.area, call.method.as_str()).into_iter().map(ask));
        let held = asked.await.map_err(unanswered)?;
        Ok(Caller {
            names: vec![claims.sub.clone()],
            subject: claims.sub.clone(),
            rights: Some(Rights(held.into_iter().flatten().collect()).into()),
        })
    }
}

/// Whoever cannot be asked about is not let in, and not told that he is nobody.
#[allow(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn unanswered(error: crate::cluster::Error) -> Refusal {
    tracing::warn!(error = &error as &dyn std::error::Error, "Kubernetes was not asked");
    Refusal::new(
        503,
        "the Kubernetes API server did not say who this is and what he may; try again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rights(deeds: &'static [(Thing, &'static str)]) -> Rights {
        Rights(deeds.iter().map(|(thing, verb)| thing.deed(verb)).collect())
    }

    #[test]
    fn an_action_needs_all_its_verbs_and_what_has_no_counterpart_is_denied() {
        let reader = rights(&[
            (Thing::Secret, "get"),
            (Thing::Dynamic, "update"),
            (Thing::Pool, "create"),
        ]);
        assert!(reader.allow("read", "secrets:a:b") && reader.allow("create", "pools:p"));
        assert!(!reader.hold("read", Thing::Dynamic), "of the other kind he may not");
        assert!(!reader.allow("update", "secrets:a"), "a change answers with the whole");
        for (action, resource) in [
            ("list", "secrets:a"),
            ("read", "engines:e"),
            ("read", "users:admin"),
            ("read", "config:policies:default:admin"),
            ("read", "audit"),
            ("create", "dsv-tenants:t"),
            ("", "secrets:a"),
            ("get", "secrets:a"),
        ] {
            assert!(!reader.allow(action, resource), "{action} {resource}");
        }
    }

    #[test]
    fn every_right_that_counts_is_asked_for() {
        for (area, method, action, resource) in [
            ("secrets", "GET", "read", "secrets:a"),
            ("secrets", "GET", "list", "secrets:a"),
            ("secrets", "POST", "create", "secrets:a"),
            ("secrets", "POST", "assign", "secrets:a"),
            ("secrets", "PUT", "update", "secrets:a"),
            ("secrets", "DELETE", "delete", "secrets:a"),
            ("pools", "POST", "create", "pools:a"),
            ("pools", "DELETE", "delete", "pools:a"),
            ("engines", "GET", "list", "engines:a"),
            ("engines", "POST", "update", "engines:a"),
            ("engines", "DELETE", "delete", "engines:a"),
        ] {
            let all = Rights(questions(area, method).into_iter().collect());
            assert!(all.allow(action, resource), "{method} {area}: {action}");
        }
        assert!(questions("secrets", "GET").contains(&Thing::Lease.deed("create")));
        assert!(questions("users", "GET").is_empty());
    }

    #[test]
    fn only_tokens_for_us_are_asked_about() {
        let token = |claims: &Value| {
            let body = data_encoding::BASE64URL_NOPAD.encode(claims.to_string().as_bytes());
            format!("head.{body}.signature")
        };
        assert_eq!(end_of(&token(&json!({"aud": ["dsv.dev"], "exp": 7}))), Some(7));
        assert_eq!(end_of(&token(&json!({"aud": "dsv.dev", "exp": 7}))), Some(7));
        for wrong in [
            token(&json!({"aud": ["https://kubernetes.default.svc"], "exp": 7})),
            token(&json!({"aud": ["dsv.dev"]})),
            token(&json!({"exp": 7})),
            token(&json!([])),
            format!("{}.x", token(&json!({"aud": "dsv.dev", "exp": 7}))),
            "a.b".to_owned(),
            String::new(),
        ] {
            assert_eq!(end_of(&wrong), None, "{wrong}");
        }
    }
}
