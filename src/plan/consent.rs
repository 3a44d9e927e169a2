//! Consent: may this request use this pool? One access rule must admit the whole of it.
//!
//! Asked anew, on objects read fresh, each time a lease is made.

use crate::api::grants::{Grant, GrantError};
use crate::api::pool::{AccessRule, EnginePoolSpec};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use std::collections::BTreeMap;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Namespace of the asker.
    pub namespace: &'a str,
    /// Labels of that namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Name of the base secret.
    pub linked_secret: &'a str,
    /// Completed grants.
    pub grants: &'a [Grant],
    /// Prefix, or "".
    pub user_prefix: &'a str,
    /// Ttl.
    pub ttl: SignedDuration,
    /// Leases that the namespace already has open in the pool.
    pub open_leases: i64,
}

/// Why a request is not admitted: the first thing that would have to change, from the rule that came closest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No rule is for the namespace, or there is no such pool: the same words, since strangers need not know which.
    #[error(
        "no access entry of the pool selects namespace {0}, or there is no such pool; check spec.pool, or ask the pool's owner to add an entry"
    )]
    Namespace(String),
    /// The base secret is not listed.
    #[error("the pool's access entry for this namespace does not list linked secret {0}")]
    LinkedSecret(String),
    /// A grant lies in none of the rule's.
    #[error("the pool's access entry for this namespace does not contain the grant {0}; it admits {1}")]
    Grant(String, String),
    /// The prefix is not listed.
    #[error("the pool's access entry for this namespace does not list userPrefix \"{0}\"; it lists {1}")]
    UserPrefix(String, String),
    /// The ttl is too long.
    #[error("ttl {0} is longer than the {1} that the pool's access entry for this namespace admits")]
    Ttl(String, String),
    /// A rule cannot be read.
    #[error("the pool's access entry cannot be read: {0}")]
    Rule(GrantError),
    /// As many leases as admitted are open.
    #[error(
        "namespace has {0} open leases in the pool, which is as many as the pool's access entry admits ({1}); one more is issued when one ends"
    )]
    Leases(i64, i64),
}

/// Whether the request is admitted. `database` is the base secret's, which completes the rule's grants.
pub fn admit(pool_namespace: &str, spec: &EnginePoolSpec, database: &str, request: &Request<'_>) -> Result<(), Denied> {
    if request.namespace == pool_namespace {
        return Ok(());
    }
    let mut closest = Denied::Namespace(request.namespace.to_owned());
    let mut rank = 0;
    for rule in spec
        .access
        .iter()
        .filter(|rule| selects(&rule.namespace_selector, request.namespace_labels))
    {
        match admits(rule, database, request) {
            Ok(()) => return Ok(()),
            Err(denied) => {
                let came = distance(&denied);
                if came >= rank {
                    rank = came;
                    closest = denied;
                }
            }
        }
    }
    Err(closest)
}

/// Whether the base secret is any of the asker's business: some rule for its namespace lists it. Asked before the Secret is
/// read, or the answer would tell strangers which Secrets there are and what is in them.
pub fn admit_link(
    pool_namespace: &str,
    spec: &EnginePoolSpec,
    namespace: (&str, &BTreeMap<String, String>),
    linked_secret: &str,
) -> Result<(), Denied> {
    let (name, labels) = namespace;
    if name == pool_namespace {
        return Ok(());
    }
    let mut rules = spec
        .access
        .iter()
        .filter(|rule| selects(&rule.namespace_selector, labels))
        .peekable();
    if rules.peek().is_none() {
        return Err(Denied::Namespace(name.to_owned()));
    }
    if rules.any(|rule| rule.linked_secrets.iter().any(|listed| listed == linked_secret)) {
        Ok(())
    } else {
        Err(Denied::LinkedSecret(linked_secret.to_owned()))
    }
}

fn distance(denied: &Denied) -> u8 {
    match denied {
        Denied::Namespace(_) => 0,
        Denied::LinkedSecret(_) => 1,
        Denied::Rule(_) | Denied::Grant(..) => 2,
        Denied::UserPrefix(..) => 3,
        Denied::Ttl(..) => 4,
        Denied::Leases(..) => 5,
    }
}

fn admits(rule: &AccessRule, database: &str, request: &Request<'_>) -> Result<(), Denied> {
    if !rule.linked_secrets.iter().any(|name| name == request.linked_secret) {
        return Err(Denied::LinkedSecret(request.linked_secret.to_owned()));
    }
    let mut wide = Vec::new();
    for pair in &rule.grants {
        wide.push(pair.parse().map_err(Denied::Rule)?.complete(database));
    }
    if let Some(outside) = request
        .grants
        .iter()
        .find(|grant| !wide.iter().any(|w| grant.lies_in(w)))
    {
        return Err(Denied::Grant(
            outside.to_string(),
            list(wide.iter().map(Grant::to_string)),
        ));
    }
    if !rule.user_prefixes.iter().any(|prefix| prefix == request.user_prefix) {
        let listed = list(rule.user_prefixes.iter().map(|prefix| format!("\"{prefix}\"")));
        return Err(Denied::UserPrefix(request.user_prefix.to_owned(), listed));
    }
    check_limits(rule, request)
}

fn check_limits(rule: &AccessRule, request: &Request<'_>) -> Result<(), Denied> {
    // A limit that cannot be read admits nothing: the schema refuses it, so only a tampered object has one.
    let longest = rule.max_ttl.as_ref().map(|span| span.length().unwrap_or_default());
    if let Some(longest) = longest.and_then(|l| SignedDuration::try_from(l).ok())
        && request.ttl > longest
    {
        return Err(Denied::Ttl(format!("{:#}", request.ttl), format!("{longest:#}")));
    }
    match rule.max_leases {
        Some(most) if request.open_leases >= most => Err(Denied::Leases(request.open_leases, most)),
        _ => Ok(()),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        "nothing".to_owned()
    } else {
        items.join("; ")
    }
}

/// Whether a label selector selects these labels, with Kubernetes' meaning. An operator that we do not know selects nothing.
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector
            .match_expressions
            .iter()
            .flatten()
            .all(|expression| holds(expression, labels))
}

fn holds(expression: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&expression.key);
    let listed = |v: &String| expression.values.iter().flatten().any(|known| known == v);
    match expression.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::permissions::GrantPermissions;
    use crate::api::ttl::Span;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn pool() -> EnginePoolSpec {
        let rule = AccessRule {
            namespace_selector: LabelSelector {
                match_labels: Some(labels(&[("team", "shop")])),
                ..LabelSelector::default()
            },
            linked_secrets: vec!["orders-db".into()],
            grants: vec![GrantPermissions {
                what: "SELECT, INSERT".into(),
                target: "orders.public.*".into(),
            }],
            user_prefixes: vec!["shop_".into()],
            max_ttl: Some(Span::Text("1h".into())),
            max_leases: Some(2),
        };
        EnginePoolSpec {
            engines: None,
            access: vec![rule],
        }
    }

    fn keep<T>(value: T) -> &'static T {
        Box::leak(Box::new(value))
    }

    fn grants(what: &str, database: &str) -> &'static [Grant] {
        keep([Grant::parse(what, "public.orders").unwrap().complete(database)])
    }

    fn ask(change: impl FnOnce(&mut Request<'static>)) -> Result<(), Denied> {
        let mut request = Request {
            namespace: "shop",
            namespace_labels: keep(labels(&[("team", "shop")])),
            linked_secret: "orders-db",
            grants: grants("SELECT", "orders"),
            user_prefix: "shop_",
            ttl: SignedDuration::from_secs(3600),
            open_leases: 1,
        };
        change(&mut request);
        admit("databases", &pool(), "orders", &request)
    }

    #[test]
    fn a_request_within_one_entry_is_admitted() {
        assert_eq!(ask(|_| ()), Ok(()));
    }

    #[test]
    fn a_base_secret_is_read_only_for_whom_it_is_listed() {
        let (shop, other) = (labels(&[("team", "shop")]), labels(&[]));
        let link = |namespace: (&str, &BTreeMap<String, String>), secret: &str| {
            admit_link("databases", &pool(), namespace, secret)
        };
        assert_eq!(link(("shop", &shop), "orders-db"), Ok(()));
        assert_eq!(link(("databases", &other), "any"), Ok(()));
        assert!(matches!(link(("shop", &shop), "any"), Err(Denied::LinkedSecret(_))));
        assert!(matches!(
            link(("other", &other), "orders-db"),
            Err(Denied::Namespace(_))
        ));
    }

    #[test]
    fn each_limit_alone_refuses() {
        assert!(matches!(
            ask(|r| r.namespace_labels = keep(labels(&[("team", "other")]))),
            Err(Denied::Namespace(_))
        ));
        assert!(matches!(
            ask(|r| r.linked_secret = "other-db"),
            Err(Denied::LinkedSecret(_))
        ));
        assert!(matches!(
            ask(|r| r.grants = grants("DELETE", "orders")),
            Err(Denied::Grant(..))
        ));
        assert!(matches!(
            ask(|r| r.grants = grants("SELECT", "postgres")),
            Err(Denied::Grant(..))
        ));
        assert!(matches!(ask(|r| r.user_prefix = "shop"), Err(Denied::UserPrefix(..))));
        assert!(matches!(ask(|r| r.user_prefix = ""), Err(Denied::UserPrefix(..))));
        assert!(matches!(
            ask(|r| r.ttl = SignedDuration::from_secs(3601)),
            Err(Denied::Ttl(..))
        ));
        assert!(matches!(ask(|r| r.open_leases = 2), Err(Denied::Leases(2, 2))));
    }

    #[test]
    fn the_pools_own_namespace_needs_no_entry() {
        assert_eq!(
            ask(|r| {
                r.namespace = "databases";
                r.linked_secret = "any";
            }),
            Ok(())
        );
    }

    #[test]
    fn two_entries_do_not_add_up() {
        let mut spec = pool();
        let mut second = spec.access[0].clone();
        second.linked_secrets = vec!["other-db".into()];
        second.user_prefixes = vec!["x_".into()];
        spec.access.push(second);
        let team = labels(&[("team", "shop")]);
        let request = Request {
            namespace: "shop",
            namespace_labels: &team,
            linked_secret: "other-db",
            grants: &[],
            user_prefix: "shop_",
            ttl: SignedDuration::ZERO,
            open_leases: 0,
        };
        assert!(matches!(
            admit("databases", &spec, "orders", &request),
            Err(Denied::UserPrefix(..))
        ));
    }

    #[test]
    fn an_entry_without_lists_admits_nothing() {
        let mut spec = pool();
        spec.access[0].grants.clear();
        let team = labels(&[("team", "shop")]);
        let grants = [Grant::parse("SELECT", "public.orders").unwrap().complete("orders")];
        let request = Request {
            namespace: "shop",
            namespace_labels: &team,
            linked_secret: "orders-db",
            grants: &grants,
            user_prefix: "shop_",
            ttl: SignedDuration::ZERO,
            open_leases: 0,
        };
        assert!(matches!(
            admit("databases", &spec, "orders", &request),
            Err(Denied::Grant(..))
        ));
    }

    #[test]
    fn selectors_mean_what_kubernetes_means() {
        let expression = |operator: &str, values: &[&str]| LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "tier".into(),
                operator: operator.into(),
                values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
            }]),
            ..LabelSelector::default()
        };
        let gold = labels(&[("tier", "gold")]);
        let none = labels(&[]);
        assert!(selects(&LabelSelector::default(), &none));
        assert!(selects(&expression("In", &["gold"]), &gold) && !selects(&expression("In", &["gold"]), &none));
        assert!(selects(&expression("NotIn", &["gold"]), &none) && !selects(&expression("NotIn", &["gold"]), &gold));
        assert!(selects(&expression("Exists", &[]), &gold) && selects(&expression("DoesNotExist", &[]), &none));
        assert!(!selects(&expression("Near", &["gold"]), &gold));
    }
}
