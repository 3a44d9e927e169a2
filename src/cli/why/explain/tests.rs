use super::*;
use crate::api::DynamicSecret;
use serde_json::json;

fn facts(pool: Seen<EnginePool>) -> Facts {
    let owner: DynamicSecret = serde_json::from_value(json!({
        "apiVersion": "dsv.dev/v1alpha1", "kind": "DynamicSecret",
        "metadata": {"name": "orders-app", "namespace": "shop", "generation": 2},
        "spec": {
            "pool": {"name": "orders", "namespace": "databases"},
            "linkConfig": {"linkType": "dynamic", "linkedSecret": "orders-db"},
            "grantPermissions": {"what": "SELECT", "where": "public.orders"}, "ttl": 1000,
        },
        "status": {"observedGeneration": 2, "conditions": [{
            "type": "Ready", "status": "False", "reason": "DatabaseUnreachable", "message": "no route",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]},
    }))
    .unwrap();
    Facts {
        owner,
        leases: Seen::Hidden,
        pool,
        engines: Seen::Hidden,
        events: Seen::Hidden,
    }
}

fn pool_with(server: &serde_json::Value) -> EnginePool {
    serde_json::from_value(json!({
        "apiVersion": "dsv.dev/v1alpha1", "kind": "EnginePool",
        "metadata": {"name": "orders", "namespace": "databases"},
        "spec": {},
        "status": {"conditions": [{
            "type": "Ready", "status": "True", "reason": "Connected", "message": "1 of 1 engines are connected",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }], "servers": [server]},
    }))
    .unwrap()
}

fn verdict_of(explanation: &Explanation, subject: &str) -> (Verdict, String) {
    let found = explanation.findings.iter().find(|f| f.subject == subject).unwrap();
    (found.verdict, found.text.clone())
}

#[test]
fn the_server_that_does_not_answer_is_named() {
    let server = json!({"linkedSecret": "orders-db", "ready": false, "address": "db:5432",
        "reason": "DatabaseUnreachable", "message": "no route"});
    let explanation = explain(&facts(Seen::Found(pool_with(&server))), Timestamp::UNIX_EPOCH);
    assert_eq!(
        explanation.next_step,
        "check host, port and network between engine and database"
    );
    assert_eq!(verdict_of(&explanation, "pool databases/orders").0, Verdict::Good);
    let (verdict, text) = verdict_of(&explanation, "base secret databases/orders-db");
    assert_eq!(
        (verdict, text.as_str()),
        (Verdict::Problem, "db:5432: DatabaseUnreachable: no route")
    );
}

#[test]
fn what_may_not_be_read_is_unknown_and_what_is_not_there_is_a_problem() {
    let hidden = explain(&facts(Seen::Hidden), Timestamp::UNIX_EPOCH);
    assert_eq!(verdict_of(&hidden, "pool databases/orders").0, Verdict::Unknown);
    let missing = explain(&facts(Seen::Missing), Timestamp::UNIX_EPOCH);
    assert_eq!(verdict_of(&missing, "pool databases/orders").0, Verdict::Problem);
    let other = json!({"linkedSecret": "other-db", "ready": true});
    let other = explain(&facts(Seen::Found(pool_with(&other))), Timestamp::UNIX_EPOCH);
    assert_eq!(
        verdict_of(&other, "base secret databases/orders-db").0,
        Verdict::Problem
    );
}

#[test]
fn a_workload_that_cannot_be_restarted_is_named() {
    let mut facts = facts(Seen::Hidden);
    let none = explain(&facts, Timestamp::UNIX_EPOCH);
    assert!(none.findings.iter().all(|finding| finding.subject != "restarts"));
    let status = facts.owner.status.get_or_insert_default();
    let reason = crate::api::conditions::Reason::RestartNotAllowed;
    let now = Timestamp::UNIX_EPOCH;
    conditions::set(
        &mut status.conditions,
        RESTARTED,
        "False",
        reason,
        "Deployment web",
        None,
        now,
    );
    let (verdict, text) = verdict_of(&explain(&facts, now), "restarts");
    assert_eq!(
        (verdict, text.as_str()),
        (Verdict::Problem, "RestartNotAllowed: Deployment web")
    );
}
