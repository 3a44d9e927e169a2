//! Attributes of a dynamic secret and the spec of a `DynamicSecret`: two views of one thing.

use super::kept::plain;
use crate::api::DynamicSecretSpec;
use crate::api::dynamic_secret::{Issuance, LinkConfig, Mode, PoolReference};
use crate::api::names::object_name;
use crate::api::permissions::GrantPermissions;
use crate::api::ttl::Span;
use crate::vault::path::SecretPath;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Attribute: how long one account serves several reads.
const SHARE_FOR: &str = "shareFor";

/// What is wrong: field and fault.
pub type Faults = Vec<(String, String)>;

/// What a dynamic secret's attributes say, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Path of the base secret.
    pub linked: SecretPath,
    /// Name of the pool, as it was given.
    pub pool: String,
    /// Seconds or a duration.
    pub ttl: Span,
    /// What may be done with what, as it was given.
    pub what: String,
    /// See `what`.
    pub target: String,
    /// Put in front of account names.
    pub user_prefix: Option<String>,
    /// Most open leases.
    pub max_leases: Option<i64>,
}

/// Whether the attributes are those of a dynamic secret.
pub fn is_dynamic(attributes: &Map<String, Value>) -> bool {
    attributes.contains_key("linkConfig")
}

/// Checks attributes; every fault is named at once.
pub fn check(attributes: &Map<String, Value>, min_ttl: u64) -> Result<Wanted, Faults> {
    let mut faults = Faults::new();
    let whole = Value::Object(attributes.clone());
    let mut text = |pointer: &str| {
        let value = whole
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .trim();
        if value.is_empty() {
            let field = format!("attributes{}", pointer.replace('/', "."));
            faults.push((field, "is required".to_owned()));
        }
        value.to_owned()
    };
    let link_type = text("/linkConfig/linkType");
    let linked = text("/linkConfig/linkedSecret");
    let pool = text("/pool");
    let what = text("/grantPermissions/what");
    let target = text("/grantPermissions/where");
    let mut fault = |field: &str, text: String| faults.push((format!("attributes.{field}"), text));
    if !link_type.is_empty() && link_type != "dynamic" {
        fault("linkConfig.linkType", "must be dynamic".into());
    }
    let path = SecretPath::parse(&linked);
    if let Err(error) = &path
        && !linked.is_empty()
    {
        fault("linkConfig.linkedSecret", error.to_string());
    }
    let ttl = attributes.get("ttl").and_then(span);
    match ttl.as_ref().and_then(Span::length) {
        None if attributes.get("ttl").is_none_or(Value::is_null) => fault("ttl", "is required".into()),
        None => fault("ttl", "must be a number of seconds".into()),
        Some(length) if length.as_secs() < min_ttl => fault("ttl", format!("must be at least {min_ttl} seconds")),
        Some(_) => {}
    }
    let user_prefix = attributes.get("userPrefix").filter(|value| !value.is_null());
    if user_prefix.is_some_and(|value| !value.is_string()) {
        fault("userPrefix", "must be a text".into());
    }
    let user_prefix = user_prefix.and_then(Value::as_str).filter(|prefix| !prefix.is_empty());
    let max_leases = attributes.get("maxLeases").filter(|value| !value.is_null());
    let most = max_leases.and_then(|value| plain(value).parse::<i64>().ok());
    if max_leases.is_some() && most.is_none_or(|most| most < 1) {
        fault("maxLeases", "must be a number from 1".into());
    }
    faults.extend(share_fault(attributes));
    match (path, ttl) {
        (Ok(linked), Some(ttl)) if faults.is_empty() => Ok(Wanted {
            linked,
            pool,
            ttl,
            what,
            target,
            user_prefix: user_prefix.map(str::to_owned),
            max_leases: most,
        }),
        _ => Err(faults),
    }
}

fn share_fault(attributes: &Map<String, Value>) -> Option<(String, String)> {
    let given = attributes.get(SHARE_FOR).is_some_and(|value| !value.is_null());
    let field = format!("attributes.{SHARE_FOR}");
    (given && share_for(attributes).is_none()).then(|| (field, "must be a number of seconds from 1".to_owned()))
}

/// How long one account serves several reads of one caller; none where each read makes its own.
pub fn share_for(attributes: &Map<String, Value>) -> Option<Duration> {
    let length = attributes.get(SHARE_FOR).and_then(span)?.length()?;
    (length >= Duration::from_secs(1)).then_some(length)
}

fn span(value: &Value) -> Option<Span> {
    match value {
        Value::Number(number) => number.as_i64().map(Span::Seconds),
        Value::String(text) => Some(Span::Text(text.trim().to_owned())),
        _ => None,
    }
}

/// Where DSV's short forms lead: a table of the schema `public`, or everything in a database that is named alone.
fn completed(target: &str, database: &str) -> String {
    if target.contains('.') {
        return target.to_owned();
    }
    if target == database {
        return format!("{target}.*.*");
    }
    if target == "*" {
        "*.*".to_owned()
    } else {
        format!("public.{target}")
    }
}

impl Wanted {
    /// The spec. `linked` is the object of the base secret, `database` the one that it names.
    pub fn spec(&self, linked: &str, database: &str) -> DynamicSecretSpec {
        DynamicSecretSpec {
            pool: PoolReference {
                name: object_name(&self.pool),
                namespace: None,
            },
            link_config: LinkConfig {
                link_type: "dynamic".to_owned(),
                linked_secret: linked.to_owned(),
            },
            grant_permissions: Some(GrantPermissions {
                what: self.what.clone(),
                target: completed(&self.target, database),
            }),
            grants: None,
            user_prefix: self.user_prefix.clone(),
            ttl: self.ttl.clone(),
            issuance: Some(Issuance {
                mode: Some(Mode::OnDemand),
                renew_before: None,
                overlap: None,
            }),
            target: None,
            suspend: None,
            deletion_policy: None,
            revocation: None,
            max_leases: self.max_leases,
            account: None,
        }
    }

    /// The spec in place of another: what only custom resources can say stays as it is.
    pub fn respec(&self, old: &DynamicSecretSpec, linked: &str, database: &str) -> DynamicSecretSpec {
        let new = self.spec(linked, database);
        DynamicSecretSpec {
            issuance: old.issuance.clone(),
            target: old.target.clone(),
            suspend: old.suspend,
            deletion_policy: old.deletion_policy,
            revocation: old.revocation.clone(),
            account: old.account.clone(),
            ..new
        }
    }
}

/// Attributes as they are shown: those that were given, with what the spec says now where it differs.
pub fn shown(given: &Map<String, Value>, spec: &DynamicSecretSpec, linked: &str) -> Map<String, Value> {
    let mut all = given.clone();
    let whole = Value::Object(given.clone());
    let given_text = |pointer: &str| whole.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let pool = given_text("/pool");
    let same_pool = object_name(pool) == spec.pool.name && spec.pool.namespace.is_none();
    let pool = if same_pool { pool } else { &spec.pool.name };
    all.insert("pool".into(), json!(pool));
    all.insert(
        "linkConfig".into(),
        json!({"linkType": spec.link_config.link_type, "linkedSecret": linked}),
    );
    if given.get("ttl").and_then(span).and_then(|ttl| ttl.length()) != spec.ttl.length() {
        let seconds = spec.ttl.length().map(|ttl| ttl.as_secs());
        all.insert("ttl".into(), json!(seconds));
    }
    let pairs = spec.pairs();
    if let [pair] = pairs.as_slice() {
        let target = given_text("/grantPermissions/where");
        let same = given_text("/grantPermissions/what") == pair.what
            && (target == pair.target
                || completed(target, target) == pair.target
                || completed(target, "") == pair.target);
        if !same {
            let pair = json!({"what": pair.what, "where": pair.target});
            all.insert("grantPermissions".into(), pair);
        }
    } else {
        let pairs: Vec<Value> = pairs
            .iter()
            .map(|pair| json!({"what": pair.what, "where": pair.target}))
            .collect();
        all.insert("grants".into(), json!(pairs));
        all.remove("grantPermissions");
    }
    match &spec.user_prefix {
        Some(prefix) => all.insert("userPrefix".into(), json!(prefix)),
        None => all.remove("userPrefix"),
    };
    match spec.max_leases {
        Some(most) => all.insert("maxLeases".into(), json!(most)),
        None => all.remove("maxLeases"),
    };
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> Map<String, Value> {
        let seed = json!({
            "grantPermissions": {"what": "SELECT", "where": "*.*"},
            "linkConfig": {"linkType": "dynamic", "linkedSecret": "db:postgresql:root"},
            "pool": "pool1",
            "ttl": 1000,
            "team": "shop",
        });
        seed.as_object().unwrap().clone()
    }

    #[test]
    fn what_is_given_comes_back_and_what_the_resource_says_wins() {
        let wanted = check(&seed(), 10).unwrap();
        let mut spec = wanted.spec("base", "postgres");
        assert_eq!(spec.mode(), Mode::OnDemand);
        assert_eq!(shown(&seed(), &spec, "db:postgresql:root"), seed());
        spec.ttl = Span::Text("1h".into());
        spec.user_prefix = Some("app_".into());
        let now = shown(&seed(), &spec, "other");
        assert_eq!(
            (now["ttl"].clone(), now["userPrefix"].clone()),
            (json!(3600), json!("app_"))
        );
        assert_eq!(now["linkConfig"]["linkedSecret"], "other");
        assert_eq!(now["team"], "shop");
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let faults = check(&Map::new(), 10).unwrap_err();
        let fields: Vec<&str> = faults.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "attributes.linkConfig.linkType",
                "attributes.linkConfig.linkedSecret",
                "attributes.pool",
                "attributes.grantPermissions.what",
                "attributes.grantPermissions.where",
                "attributes.ttl"
            ]
        );
        let mut wrong = seed();
        wrong["ttl"] = json!(9);
        wrong["linkConfig"] = json!({"linkType": "static", "linkedSecret": "a b"});
        wrong.insert("userPrefix".into(), json!(1));
        assert_eq!(check(&wrong, 10).unwrap_err().len(), 4);
        assert!(check(&seed(), 1001).is_err());
    }

    #[test]
    fn reads_share_an_account_only_where_it_is_asked_for() {
        let mut given = seed();
        assert_eq!(share_for(&given), None);
        for (value, length) in [(json!(60), 60), (json!("60"), 60), (json!("5m"), 300)] {
            given.insert(SHARE_FOR.into(), value);
            assert_eq!(share_for(&given), Some(Duration::from_secs(length)));
            assert!(check(&given, 10).is_ok());
        }
        for wrong in [json!(0), json!(-1), json!("soon"), json!(true)] {
            given.insert(SHARE_FOR.into(), wrong);
            assert_eq!(share_for(&given), None);
            assert_eq!(check(&given, 10).unwrap_err()[0].0, "attributes.shareFor");
        }
    }

    #[test]
    fn short_forms_are_completed() {
        for (given, database, full) in [
            ("*.*", "postgres", "*.*"),
            ("orders", "shop", "public.orders"),
            ("postgres", "postgres", "postgres.*.*"),
            ("s.t", "postgres", "s.t"),
            ("*", "postgres", "*.*"),
        ] {
            assert_eq!(completed(given, database), full);
        }
    }
}
