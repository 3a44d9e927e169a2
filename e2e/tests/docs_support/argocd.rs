//! The health checks for Argo CD, run as Argo CD runs them: a Lua script sees one object and says how it is.

use std::collections::{BTreeMap, BTreeSet};

use dsv::api::conditions::{Reason, ReasonKind, set_ready};
use jiff::Timestamp;
use mlua::{Lua, LuaSerdeExt, Value as LuaValue};
use serde::Deserialize;
use serde_json::{Value, json};

use super::text::page;

const KINDS: [&str; 6] = [
    "EnginePool",
    "Engine",
    "DynamicSecret",
    "CredentialLease",
    "DsvTenant",
    "SecretSync",
];

#[derive(Deserialize)]
struct Patch {
    data: BTreeMap<String, String>,
}

/// What a check says of an object.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub struct Health {
    pub status: String,
    pub message: String,
}

fn scripts() -> BTreeMap<String, String> {
    let patch: Patch = serde_saphyr::from_str(&page("config/argocd/health.yaml")).unwrap();
    let scripts: BTreeMap<String, String> = patch
        .data
        .into_iter()
        .map(|(key, script)| {
            let kind = key.strip_prefix("resource.customizations.health.dsv.dev_");
            (
                kind.unwrap_or_else(|| panic!("Argo CD does not read {key}")).to_owned(),
                script,
            )
        })
        .collect();
    let with_a_check: BTreeSet<&str> = scripts.keys().map(String::as_str).collect();
    let definitions = dsv::api::definitions();
    let kinds: BTreeSet<&str> = definitions.iter().map(|one| one.spec.names.kind.as_str()).collect();
    assert_eq!(with_a_check, kinds, "each kind has a check");
    assert_eq!(kinds, KINDS.into());
    scripts
}

/// How an object is.
pub fn health(object: &Value) -> Health {
    let scripts = scripts();
    let script = &scripts[object["kind"].as_str().unwrap()];
    let lua = Lua::new();
    lua.globals().set("obj", lua.to_value(object).unwrap()).unwrap();
    let said: LuaValue = lua.load(script).eval().unwrap();
    lua.from_value(said).unwrap()
}

fn object(kind: &str, reason: Reason) -> Value {
    let mut conditions = Vec::new();
    set_ready(&mut conditions, reason, "because", Some(2), Timestamp::UNIX_EPOCH);
    json!({
        "kind": kind,
        "metadata": {"name": "orders", "generation": 2},
        "spec": {},
        "status": {"conditions": conditions},
    })
}

fn is(object: &Value, status: &str, message: &str) {
    let seen = health(object);
    assert!(
        seen.status == status && seen.message.starts_with(message),
        "{seen:?} instead of {status} {message:?} for {object}"
    );
}

#[test]
fn argo_cd_tells_every_reason_by_what_it_asks_of_whom() {
    for kind in KINDS {
        for &reason in Reason::EVERY {
            let expected = match reason.kind() {
                ReasonKind::Good => "Healthy",
                ReasonKind::Waiting => "Progressing",
                ReasonKind::Refused => "Degraded",
            };
            is(
                &object(kind, reason),
                expected,
                &format!("{}: because", reason.as_str()),
            );
        }
    }
}

#[test]
fn argo_cd_waits_for_the_operator_and_for_accounts_that_are_taken_back() {
    for kind in KINDS {
        let mut new = object(kind, Reason::Issued);
        new["status"] = json!({});
        is(&new, "Progressing", "The operator has not looked");
        let mut edited = object(kind, Reason::Issued);
        edited["metadata"]["generation"] = json!(3);
        is(&edited, "Progressing", "The operator has not looked");
        let mut going = object(kind, Reason::Issued);
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        is(&going, "Progressing", "Deleting");
    }
}

#[test]
fn argo_cd_knows_what_is_switched_off_and_what_waits_for_a_person() {
    let mut secret = object("DynamicSecret", Reason::Suspended);
    secret["spec"]["suspend"] = json!(true);
    is(&secret, "Suspended", "Suspended");
    let mut engine = object("Engine", Reason::Disabled);
    engine["spec"]["disabled"] = json!(true);
    is(&engine, "Suspended", "Disabled");
    let mut lease = object("CredentialLease", Reason::Blocked);
    lease["status"]["phase"] = json!("Blocked");
    is(&lease, "Degraded", "Blocked");
    let mut pool = object("EnginePool", Reason::Connected);
    let audited =
        json!({"type": "Audited", "status": "False", "reason": "ConfirmationNeeded", "message": "30 accounts"});
    pool["status"]["conditions"].as_array_mut().unwrap().push(audited);
    is(&pool, "Degraded", "ConfirmationNeeded: 30 accounts");
}
