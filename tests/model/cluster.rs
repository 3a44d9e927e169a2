//! The API server of the model: objects with UIDs and versions, and writes with the preconditions that the operator uses.

use dsv::api::dynamic_secret::{DeletionPolicy, Mode};
use dsv::api::lease::Claim;
use std::collections::BTreeMap;
use std::rc::Rc;

pub type Uid = u32;
pub type Verifier = u32;

/// Name of the one DynamicSecret.
pub const DYNAMIC: &str = "app";
/// Name of the Secret that it delivers to.
pub const TARGET: &str = "app-db";

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Meta {
    pub uid: Uid,
    pub version: u64,
    pub deleting: bool,
    pub finalizer: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    pub meta: Meta,
    pub name: String,
    pub owner: Option<Uid>,
    /// In the spec of the operator's own, in the status of those that somebody asked for.
    pub claim: Option<Rc<Claim>>,
    pub verifier: Option<Verifier>,
    /// For one that somebody asked for: the Secret, if one is to be made.
    pub wants: Option<String>,
    /// Value of the annotation that it was made for; 0: none.
    pub answers: u32,
    pub issued_at: Option<i64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub mode: Mode,
    pub ttl: i64,
    pub renew_before: i64,
    pub overlap: i64,
    /// Stands for base secret, pool, grants and prefix.
    pub print: u32,
    pub suspended: bool,
    pub policy: DeletionPolicy,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Status {
    pub last_serial: i64,
    pub delivered_serial: i64,
    pub answered: u32,
    pub failures: i64,
    pub last_failure: Option<i64>,
    pub failed_generation: u64,
    /// Names of the last five leases that ended.
    pub history: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Dynamic {
    pub meta: Meta,
    pub generation: u64,
    pub spec: Spec,
    /// Value of the annotation; 0: none.
    pub rotate_at: u32,
    pub status: Status,
}

/// What a Secret says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Naming {
    pub lease: Uid,
    pub dynamic: Uid,
    pub serial: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Secret {
    pub meta: Meta,
    /// None: somebody else's.
    pub names: Option<Naming>,
    pub labelled: bool,
    pub edited: bool,
    /// Written by a request that was long on its way.
    pub late: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Cluster {
    pub dynamic: Option<Dynamic>,
    pub leases: BTreeMap<String, Lease>,
    pub secrets: BTreeMap<String, Secret>,
    pub version: u64,
    uids: Uid,
}

#[derive(Debug, Clone)]
pub enum Write {
    PostLease(Lease),
    /// Finalizer and owner of exactly this version.
    HoldLease(Lease),
    /// Claim, verifier and report of exactly this version.
    LeaseStatus(Lease),
    DeleteLease(String, Uid),
    ReleaseLease(String, Meta),
    /// Finalizer of exactly this version, on or off.
    HoldDynamic(Meta),
    ReleaseDynamic(Meta),
    DynamicStatus(Dynamic),
    PostSecret(String, Naming),
    PutSecret(String, Meta, Naming),
    DeleteSecret(String, Meta),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Conflict,
    NotFound,
}

impl Cluster {
    pub fn fresh_uid(&mut self) -> Uid {
        self.uids += 1;
        self.uids
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    pub fn lease_of(&self, uid: Uid) -> Option<&Lease> {
        self.leases.values().find(|lease| lease.meta.uid == uid)
    }

    /// `late`: the request was long on its way.
    pub fn apply(&mut self, write: &Write, late: bool) -> Result<(), Refused> {
        match write {
            Write::PostLease(lease) => self.post_lease(lease.clone()),
            Write::HoldLease(lease) => self.lease(&lease.name, &lease.meta, |now| {
                now.meta.finalizer = true;
                now.owner = lease.owner;
            }),
            Write::LeaseStatus(lease) => self.lease(&lease.name, &lease.meta, |now| {
                now.claim.clone_from(&lease.claim);
                now.verifier = lease.verifier;
                now.issued_at = lease.issued_at;
            }),
            Write::DeleteLease(name, uid) => {
                self.delete_lease(name, *uid);
                Ok(())
            }
            Write::ReleaseLease(name, meta) => {
                self.lease(name, meta, |now| now.meta.finalizer = false)?;
                self.leases
                    .retain(|_, lease| !lease.meta.deleting || lease.meta.finalizer);
                Ok(())
            }
            Write::HoldDynamic(meta) => self.dynamic(meta, |now| now.meta.finalizer = true),
            Write::ReleaseDynamic(meta) => {
                self.dynamic(meta, |now| now.meta.finalizer = false)?;
                self.dynamic = self.dynamic.take().filter(|dynamic| !dynamic.meta.deleting);
                Ok(())
            }
            Write::DynamicStatus(dynamic) => self.dynamic(&dynamic.meta, |now| now.status = dynamic.status.clone()),
            Write::PostSecret(name, names) => {
                if self.secrets.contains_key(name) {
                    return Err(Refused::Conflict);
                }
                let uid = self.fresh_uid();
                self.put_secret(name, uid, Some(names.clone()), late);
                Ok(())
            }
            Write::PutSecret(name, meta, names) => {
                self.secret(name, meta)?;
                self.put_secret(name, meta.uid, Some(names.clone()), late);
                Ok(())
            }
            Write::DeleteSecret(name, meta) => {
                self.secret(name, meta)?;
                self.secrets.remove(name);
                Ok(())
            }
        }
    }

    pub fn post_lease(&mut self, mut lease: Lease) -> Result<(), Refused> {
        if self.leases.contains_key(&lease.name) {
            return Err(Refused::Conflict);
        }
        lease.meta.uid = self.fresh_uid();
        lease.meta.version = self.next_version();
        self.leases.insert(lease.name.clone(), lease);
        Ok(())
    }

    fn lease(&mut self, name: &str, meta: &Meta, change: impl FnOnce(&mut Lease)) -> Result<(), Refused> {
        let version = self.next_version();
        let now = self.leases.get_mut(name).ok_or(Refused::NotFound)?;
        check(&now.meta, meta)?;
        change(now);
        now.meta.version = version;
        Ok(())
    }

    /// Absent, or another one of the name, is success: what was meant is gone.
    pub fn delete_lease(&mut self, name: &str, uid: Uid) {
        let version = self.next_version();
        let Some(lease) = self.leases.get_mut(name).filter(|lease| lease.meta.uid == uid) else {
            return;
        };
        if !lease.meta.finalizer {
            self.leases.remove(name);
        } else if !lease.meta.deleting {
            lease.meta.deleting = true;
            lease.meta.version = version;
        }
    }

    fn dynamic(&mut self, meta: &Meta, change: impl FnOnce(&mut Dynamic)) -> Result<(), Refused> {
        let version = self.next_version();
        let now = self.dynamic.as_mut().ok_or(Refused::NotFound)?;
        check(&now.meta, meta)?;
        change(now);
        now.meta.version = version;
        Ok(())
    }

    fn secret(&mut self, name: &str, meta: &Meta) -> Result<(), Refused> {
        let now = self.secrets.get(name).ok_or(Refused::NotFound)?;
        check(&now.meta, meta)
    }

    fn put_secret(&mut self, name: &str, uid: Uid, names: Option<Naming>, late: bool) {
        let meta = Meta {
            uid,
            version: self.next_version(),
            ..Meta::default()
        };
        let secret = Secret {
            meta,
            labelled: names.is_some(),
            names,
            edited: false,
            late,
        };
        self.secrets.insert(name.to_owned(), secret);
    }

    // What people and the cluster's own controllers do.

    pub fn create_dynamic(&mut self, spec: Spec) {
        if self.dynamic.is_none() {
            let meta = Meta {
                uid: self.fresh_uid(),
                version: self.next_version(),
                ..Meta::default()
            };
            self.dynamic = Some(Dynamic {
                meta,
                generation: 1,
                spec,
                rotate_at: 0,
                status: Status::default(),
            });
        }
    }

    pub fn delete_dynamic(&mut self) {
        let version = self.next_version();
        if let Some(dynamic) = &mut self.dynamic {
            dynamic.meta.deleting = true;
            dynamic.meta.version = version;
        }
        self.dynamic = self.dynamic.take().filter(|dynamic| dynamic.meta.finalizer);
    }

    pub fn edit_dynamic(&mut self, edit: impl FnOnce(&mut Dynamic)) {
        let version = self.next_version();
        if let Some(dynamic) = &mut self.dynamic {
            let spec = dynamic.spec.clone();
            edit(dynamic);
            dynamic.generation += u64::from(dynamic.spec != spec);
            dynamic.meta.version = version;
        }
    }

    pub fn edit_secret(&mut self, name: &str, edit: impl FnOnce(&mut Secret)) {
        let version = self.next_version();
        if let Some(secret) = self.secrets.get_mut(name) {
            edit(secret);
            secret.meta.version = version;
        }
    }

    pub fn create_foreign_secret(&mut self, name: &str) {
        if !self.secrets.contains_key(name) {
            let uid = self.fresh_uid();
            self.put_secret(name, uid, None, false);
        }
    }

    /// Kubernetes' garbage collector: leases whose owner is gone.
    pub fn collect_garbage(&mut self) {
        let owner = self.dynamic.as_ref().map(|dynamic| dynamic.meta.uid);
        let orphans: Vec<_> = self
            .leases
            .values()
            .filter(|l| l.owner.is_some() && l.owner != owner)
            .cloned()
            .collect();
        for orphan in orphans {
            self.delete_lease(&orphan.name, orphan.meta.uid);
        }
    }
}

fn check(now: &Meta, meant: &Meta) -> Result<(), Refused> {
    let same = now.uid == meant.uid && now.version == meant.version;
    same.then_some(()).ok_or(Refused::Conflict)
}
