//! What leases cost in memory, counted by the allocator and not timed. Whole programs are weighed by `make bench`.

#![allow(clippy::unwrap_used)]

use allocation_counter::measure;
use dsv::api::CredentialLease;
use dsv::api::lease::Claim;
use dsv::channel::frames::{MAX_REVOKE_BATCH, OwnedObjects, Revocation};
use dsv::control::cached_lease::Slimming;
use dsv::plan::lease::{Now, Observed, SecretSeen, Step, next};
use jiff::Timestamp;
use std::hint::black_box;
use std::sync::Arc;

/// Bytes of one live lease in the cache; it was 1420 when this was written. Ten thousand of them are 14 MiB.
const CACHED: u64 = 1480;

/// As the API server answers a lease that was issued, with one entry of its history for each of its three writes.
fn answered(number: usize) -> String {
    let fields = r#"{"f:metadata":{"f:finalizers":{".":{},"v:\"dsv.dev/revoke\"":{}},"f:labels":{".":{},"f:app.kubernetes.io/managed-by":{}}},"f:spec":{"f:claim":{}}}"#;
    let writer = |operation: &str| {
        format!(
            r#"{{"manager":"dsv-operator","operation":"{operation}","apiVersion":"dsv.dev/v1alpha1","time":"2026-11-22T10:00:00Z","fieldsType":"FieldsV1","fieldsV1":{fields}}}"#
        )
    };
    let uid = format!("0b29d7a4-6a5e-4f0e-9a53-{number:012}");
    format!(
        r#"{{"apiVersion":"dsv.dev/v1alpha1","kind":"CredentialLease","metadata":{{"name":"orders-reader-{number}","namespace":"shop",
        "uid":"{uid}","resourceVersion":"{number}","generation":1,"creationTimestamp":"2026-11-22T10:00:00Z","finalizers":["dsv.dev/revoke"],
        "labels":{{"app.kubernetes.io/managed-by":"dsv-operator","dsv.dev/dynamic-secret":"5f3a2c1e-1111-4222-8333-944445555666","dsv.dev/pool":"77aa2c1e-1111-4222-8333-944445555666"}},
        "ownerReferences":[{{"apiVersion":"dsv.dev/v1alpha1","kind":"DynamicSecret","name":"orders-reader","uid":"5f3a2c1e-1111-4222-8333-944445555666","controller":true,"blockOwnerDeletion":true}}],
        "managedFields":[{},{},{}]}},
        "spec":{{"dynamicSecret":"orders-reader","verifier":"SCRAM-SHA-256$4096:{}==${}=:{}=","claim":{{
        "maker":{{"holder":"dsv-operator-7d9f8b6c5-abcde_4b1d","term":3}},"dynamicSecretUid":"5f3a2c1e-1111-4222-8333-944445555666","serial":1,
        "server":"server-3f2a9c","pool":{{"namespace":"databases","name":"orders","uid":"77aa2c1e-1111-4222-8333-944445555666"}},
        "group":{{"name":"dsvg_mfrggzdfmztwq2lk","grants":[{{"what":"SELECT","where":"orders.public.orders"}}],"since":"2026-11-22T09:00:00Z"}},
        "userPrefix":"dsv_","fingerprint":"mfrggzdfmztwq2lkmfrggzdfmz","ttlSeconds":3600,"claimedAt":"2026-11-22T10:00:00Z",
        "issueDeadline":"2026-11-22T10:01:00Z","validUntil":"2026-11-22T11:00:00Z","expiresAt":"2026-11-22T11:00:00Z",
        "target":"orders-reader","ownedObjects":"Reassign"}}}},
        "status":{{"phase":"Issued","username":"dsv_orders_reader_mfrggzdfmztwq2lkmfrggzdfmz","issuedAt":"2026-11-22T10:00:01Z","expiresAt":"2026-11-22T11:00:00Z",
        "issuedBy":"orders-0","roleOid":16500,"secretVersion":"{number}","conditions":[{{"type":"Ready","status":"True","reason":"Issued",
        "message":"the account is issued","observedGeneration":1,"lastTransitionTime":"2026-11-22T10:00:01Z"}}]}}}}"#,
        writer("Update"),
        writer("Apply"),
        writer("Update"),
        "A".repeat(22),
        "A".repeat(43),
        "A".repeat(43),
    )
}

fn cached(slimming: &mut Slimming, number: usize) -> Arc<CredentialLease> {
    let mut lease = serde_json::from_str(&answered(number)).unwrap();
    slimming.slim(&mut lease);
    Arc::new(lease)
}

#[test]
fn a_thousand_live_leases_stay_below_their_ceiling() {
    let mut all = Vec::with_capacity(1000);
    let mut slimming = Slimming::default();
    let counted = measure(|| all.extend((0..1000).map(|number| cached(&mut slimming, number))));
    let each = u64::try_from(counted.bytes_current).unwrap() / 1000;
    assert!(
        each <= CACHED,
        "a live lease takes {each} bytes of the cache, and may take {CACHED}"
    );
    // The measure itself: a lease that is not slimmed is heavier.
    let mut whole: Vec<CredentialLease> = Vec::with_capacity(1);
    let heavy = measure(|| whole.push(serde_json::from_str(&answered(1)).unwrap()));
    assert!(u64::try_from(heavy.bytes_current).unwrap() > each + 1000, "{heavy:?}");
}

#[test]
fn a_decision_about_a_lease_allocates_nothing() {
    let lease = cached(&mut Slimming::default(), 1);
    let claim: &Claim = lease.claim().unwrap();
    let live = Observed {
        finalizer: true,
        claim: Some(claim),
        reported: true,
        secret: SecretSeen::Ours,
        ..Observed::default()
    };
    let at = |time: &str| Now {
        operator: time.parse().unwrap(),
        database: None,
    };
    let (during, after) = (at("2026-11-22T10:30:00Z"), at("2026-11-22T11:00:00Z"));
    let mut steps = None;
    let counted = measure(|| steps = Some((next(black_box(&live), during), next(black_box(&live), after))));
    assert_eq!(counted.count_total, 0, "{counted:?}");
    assert_eq!(steps, Some((Step::Wait(claim.expires_at.0), Step::DeleteSecret)));
}

#[test]
fn what_is_told_of_a_whole_batch_is_one_buffer() {
    let one = |number: usize| Revocation {
        lease_uid: format!("0b29d7a4-6a5e-4f0e-9a53-{number:012}"),
        role: "dsv_orders_reader_mfrggzdfmztwq2lkmfrggzdfmz".to_owned(),
        issue_deadline: Timestamp::UNIX_EPOCH,
        role_oid: Some(16_500),
        owned_objects: OwnedObjects::Reassign,
    };
    let batch: Vec<Revocation> = (0..MAX_REVOKE_BATCH).map(one).collect();
    let mut written = Vec::new();
    let counted = measure(|| written = serde_json::to_vec(&batch).unwrap());
    // A buffer that doubles, and nothing for each account.
    assert!(counted.count_total <= 16, "{counted:?} for {} bytes", written.len());
}
