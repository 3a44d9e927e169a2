//! Making a lease: the record, and nothing else. The account is made by the lease's own controller, from the record.

use super::admission::within_limits;
use super::context::Context;
use super::hold::{Error, Halt, Hold};
use super::prepare::{Prepared, claim, labels, prepare};
use crate::api::conditions::Reason;
use crate::api::lease::{Claim, CredentialLeaseSpec, Maker};
use crate::api::names::{self, DYNAMIC_SECRET_LABEL, LEASE_FINALIZER};
use crate::api::{CredentialLease, DynamicSecret};
use crate::cluster::credential_secret::{self, LeaseIdentity};
use crate::cluster::{Intention, Parts, objects};
use crate::keys::PASSWORD_LENGTH;
use crate::plan::lease::SecretSeen;
use crate::plan::shape::{self, Login};
use crate::plan::template::Unfit;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, Resource, ResourceExt};
use std::collections::BTreeMap;

/// Name of the Secret that a dynamic secret delivers to.
pub fn target_name(owner: &DynamicSecret) -> String {
    owner
        .spec
        .target
        .as_ref()
        .and_then(|t| t.name.clone())
        .unwrap_or_else(|| owner.name_any())
}

/// What a decision to make a lease was based on.
#[derive(Debug, Clone, Copy)]
pub struct Basis {
    /// The serial that the lease must have.
    pub serial: i64,
    /// The highest serial that was known as delivered.
    pub delivered: i64,
    /// The serial of the live credential that was known; none where all seemed to have ended.
    pub current: Option<i64>,
}

/// What a live list shows of the leases of one dynamic secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Listed {
    /// One that this leader made is neither delivered nor over.
    on_the_way: bool,
    /// The highest serial.
    highest: i64,
    /// The highest serial that was delivered.
    delivered: i64,
    /// The highest serial that was delivered and lives.
    live: Option<i64>,
}

impl Basis {
    /// Whether what the decision was based on is not what there is: caches are told of things one after the other, and after a
    /// start one may be complete while another shows nothing yet.
    fn is_stale(&self, listed: &Listed, recorded: i64) -> bool {
        let newest = listed.live.filter(|serial| *serial >= self.delivered);
        listed.on_the_way
            || listed.highest.max(recorded) >= self.serial
            || listed.delivered > self.delivered
            || (newest.is_some() && newest != self.current)
    }
}

/// Makes the next lease of a dynamic secret. False where that was decided on an old view: nothing was made, and the caller
/// looks again in a moment.
pub async fn make(ctx: &Context, seen: &DynamicSecret, basis: Basis) -> Result<bool, Halt> {
    let serial = basis.serial;
    let prepared = prepare(ctx, seen).await?;
    if prepared.owner.resource_version() != seen.resource_version() {
        return Ok(false);
    }
    check_shape(&prepared)?;
    let target = target_name(&prepared.owner);
    check_target(ctx, &prepared.owner, &target, serial).await?;
    let Some(serial) = free_serial(ctx, &prepared.owner, basis).await? else {
        return Ok(false);
    };
    within_limits(ctx, &prepared, None, async || {
        let claim = claim(ctx, &prepared, serial, Some(target))?;
        post(ctx, &prepared.owner, claim).await
    })
    .await?;
    Ok(true)
}

/// A template that cannot be filled is told before anything is issued.
fn check_shape(prepared: &Prepared) -> Result<(), Hold> {
    // As long as real ones can be: what only just fits with shorter ones would be issued and taken back again and again.
    let (username, password) = ("u".repeat(names::MAX_ROLE_NAME), "p".repeat(PASSWORD_LENGTH));
    let login = Login {
        username: &username,
        password: &password,
        server: &prepared.base.login,
    };
    let shaped = shape::keys(login, prepared.owner.spec.target.as_ref());
    shaped.map(drop).map_err(|unfit| unfit_template(&unfit))
}

/// What to tell about a template that cannot be filled.
pub fn unfit_template((key, unfit): &(String, Unfit)) -> Hold {
    Hold::new(Reason::InvalidSpec, format!("spec.target.template, key {key}: {unfit}"))
}

/// The target must be absent or ours, seen live: nothing is issued that could not be delivered.
pub async fn check_target(ctx: &Context, owner: &DynamicSecret, target: &str, serial: i64) -> Result<(), Halt> {
    let namespace = owner.namespace().unwrap_or_default();
    let found: Option<PartialObjectMeta<Secret>> = credential_secret::look(&ctx.client, &namespace, target).await?;
    let next = LeaseIdentity {
        namespace: namespace.clone(),
        name: String::new(),
        uid: "none".into(),
        dynamic_secret_uid: owner.uid().unwrap_or_default(),
        serial,
    };
    match credential_secret::whose(found.as_ref().map(|f| &f.metadata), &next) {
        SecretSeen::Absent | SecretSeen::Older => Ok(()),
        _ => Err(occupied(&namespace, target, found.as_ref()).into()),
    }
}

/// Why the target cannot be written: another dynamic secret delivers there, or it is none of ours.
fn occupied(namespace: &str, target: &str, found: Option<&PartialObjectMeta<Secret>>) -> Hold {
    let choose = "choose another name in spec.target.name";
    let other = found.filter(|secret| {
        let managed = secret.labels().get(names::MANAGED_BY).map(String::as_str) == Some(names::OPERATOR);
        managed && secret.labels().contains_key(names::LEASE_LABEL)
    });
    match other.and_then(|secret| secret.annotations().get(names::credential::LEASE)) {
        Some(lease) => Hold::new(
            Reason::TargetShared,
            format!("Secret {namespace}/{target} holds the credential of another one (lease {lease}); {choose}"),
        ),
        None => Hold::new(
            Reason::TargetNotOurs,
            format!("Secret {namespace}/{target} exists and is not ours; rename or delete it, or {choose}"),
        ),
    }
}

/// The next serial by a live LIST; none where a lease is already on its way (the cache had not shown it yet).
async fn free_serial(ctx: &Context, owner: &DynamicSecret, basis: Basis) -> Result<Option<i64>, Error> {
    let namespace = owner.namespace().unwrap_or_default();
    let uid = owner.uid().unwrap_or_default();
    let api: Api<CredentialLease> = Api::namespaced(ctx.client.clone(), &namespace);
    let params = ListParams::default().labels(&format!("{DYNAMIC_SECRET_LABEL}={uid}"));
    let (mut leases, mut listed) = (Parts::of(api, params), Listed::default());
    while let Some(part) = leases
        .next()
        .await
        .to(|| format!("list the leases of {namespace}/{}", owner.name_any()))?
    {
        let now = ctx.now();
        for lease in &part {
            listed.note(lease, &ctx.me, now);
        }
    }
    let recorded = owner.status.as_ref().and_then(|s| s.last_serial).unwrap_or(0);
    Ok((!basis.is_stale(&listed, recorded)).then_some(basis.serial))
}

impl Listed {
    fn note(&mut self, lease: &CredentialLease, me: &Maker, now: Timestamp) {
        let Some(claim) = lease.claim().filter(|claim| claim.serial > 0) else {
            return;
        };
        let reported = lease.status.as_ref().is_some_and(|s| s.issued_at.is_some());
        let over = lease.metadata.deletion_timestamp.is_some() || now >= claim.expires_at.0;
        self.on_the_way |= !reported && !over && *claim.maker == *me;
        self.highest = self.highest.max(claim.serial);
        if reported {
            self.delivered = self.delivered.max(claim.serial);
        }
        if reported && !over {
            self.live = self.live.max(Some(claim.serial));
        }
    }
}

fn rotate_at(owner: &DynamicSecret) -> Option<BTreeMap<String, String>> {
    let value = owner.annotations().get(names::ROTATE_AT)?.clone();
    Some([(names::ROTATE_AT.to_owned(), value)].into())
}

/// Writes the lease: from here on the account is on the books. The name, which is returned, is the claim.
async fn post(ctx: &Context, owner: &DynamicSecret, claim: Claim) -> Result<String, Halt> {
    let (password, verifier) = ctx.password_stock.take().await;
    let namespace = owner.namespace().unwrap_or_default();
    let name = names::lease_name(&owner.name_any(), &claim.dynamic_secret_uid, claim.serial);
    let lease = CredentialLease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            labels: Some(labels(&claim)),
            finalizers: Some(vec![LEASE_FINALIZER.to_owned()]),
            owner_references: owner.controller_owner_ref(&()).map(|reference| vec![reference]),
            // What was asked for before this lease is answered by it; what is asked for from now on is not.
            annotations: rotate_at(owner),
            ..ObjectMeta::default()
        },
        spec: CredentialLeaseSpec {
            dynamic_secret: owner.name_any(),
            verifier: Some(verifier.as_str().to_owned()),
            target: None,
            ttl: None,
            bound_to: None,
            claim: Some(Box::new(claim)),
        },
        status: None,
    };
    ctx.still_leading()?;
    failpoint!("make.before", owner.name_any());
    ctx.passwords.keep(verifier.as_str(), password);
    let made = objects::make(&ctx.client, &namespace, &lease).await;
    failpoint!("make.posted", owner.name_any());
    match made {
        Ok(_) => Ok(name),
        Err(error) if error.is_conflict() || error.is_unknown() => {
            settle(ctx, &namespace, &name, verifier.as_str(), error).await?;
            Ok(name)
        }
        Err(error) => {
            ctx.passwords.forget(verifier.as_str());
            Err(error.into())
        }
    }
}

/// Finds out whether a POST without a clear answer made our lease: the same verifier is ours, anything else is not.
async fn settle(
    ctx: &Context,
    namespace: &str,
    name: &str,
    verifier: &str,
    error: crate::cluster::Error,
) -> Result<(), Halt> {
    let found: Option<CredentialLease> = objects::read(&ctx.client, namespace, name).await?;
    match found {
        Some(lease) if lease.verifier() == Some(verifier) => Ok(()),
        Some(_) => {
            ctx.passwords.forget(verifier);
            ctx.wake_lease(namespace, name);
            Ok(())
        }
        // The password is kept: the POST may still land.
        None => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASIS: Basis = Basis {
        serial: 3,
        delivered: 2,
        current: Some(2),
    };
    const SEEN: Listed = Listed {
        on_the_way: false,
        highest: 2,
        delivered: 2,
        live: Some(2),
    };

    #[test]
    fn what_was_decided_on_what_there_is_is_done() {
        assert!(!BASIS.is_stale(&SEEN, 2));
        // It ended meanwhile: another is needed all the more.
        assert!(!BASIS.is_stale(&Listed { live: None, ..SEEN }, 2));
        // A replaced one lives on, and the one that replaced it has ended.
        let ended = Basis { current: None, ..BASIS };
        assert!(!ended.is_stale(&Listed { live: Some(1), ..SEEN }, 2));
        let first = Basis {
            serial: 1,
            delivered: 0,
            current: None,
        };
        assert!(!first.is_stale(&Listed::default(), 0));
    }

    #[test]
    fn a_live_credential_that_the_cache_did_not_show_is_not_replaced() {
        let unseen = Basis { current: None, ..BASIS };
        assert!(unseen.is_stale(&SEEN, 2));
    }

    #[test]
    fn what_came_about_meanwhile_counts() {
        let on_the_way = Listed {
            on_the_way: true,
            ..SEEN
        };
        assert!(BASIS.is_stale(&on_the_way, 2));
        assert!(BASIS.is_stale(&Listed { highest: 3, ..SEEN }, 2));
        assert!(BASIS.is_stale(&SEEN, 3), "a serial that is recorded is taken");
        let old = Basis {
            delivered: 1,
            current: Some(1),
            ..BASIS
        };
        assert!(old.is_stale(&SEEN, 2));
    }
}
