//! Who calls, and whether he may.

use super::Vault;
use super::call::Call;
use super::ids::Kind;
use super::kubernetes::Rights;
use super::policy::{self, Ask, Rule};
use super::reply::Refusal;
use super::tenants::Tenant;
use super::time;
use std::sync::{Arc, PoisonError};

/// Somebody whose token holds.
#[derive(Debug, Clone)]
pub struct Caller {
    /// `users:<name>` or `roles:<name>`.
    pub subject: String,
    /// The same, and the groups he is in.
    pub names: Vec<String>,
    /// What Kubernetes lets him do, if it is Kubernetes that knows him; no policy counts for him then.
    pub rights: Option<Arc<Rights>>,
}

impl Caller {
    /// His name, if he is a user.
    pub fn user(&self) -> Option<&str> {
        self.subject.strip_prefix("users:")
    }
}

/// The rules of a tenant, compiled, as of a state of the records.
pub type Compiled = (u64, Arc<Vec<Rule>>);

impl Vault {
    /// Whose token it is. A token is void as soon as its login is gone, softly deleted or locked.
    pub(super) async fn caller(&self, call: &Call) -> Result<Caller, Refusal> {
        let token = call.token.as_deref().ok_or_else(Refusal::unauthenticated)?;
        let claims = self.checked(token, &call.tenant.uid).await?;
        if let Some(sealed) = &claims.sealed {
            return self.kubernetes_caller(call, &claims, sealed).await;
        }
        let since = (claims.via.as_str(), claims.iat);
        let caller = self.still_caller(&call.tenant, claims.sub, since);
        caller.ok_or_else(Refusal::unauthenticated)
    }

    /// The caller, if the login by which he came still counts: the id of its record, and the second when it was used.
    pub(super) fn still_caller(&self, tenant: &Tenant, subject: String, (via, since): (&str, i64)) -> Option<Caller> {
        let entry = self.records.get(&tenant.uid, via)?;
        let record = Some(&entry.value.record).filter(|record| record.is_live())?;
        let still = match (entry.value.kind, subject.split_once(':')) {
            // What was given out before the last change of the password is void.
            (Kind::User, Some(("users", name))) => {
                record.name == name && record.time("passwordChanged").is_none_or(|at| since >= at.as_second())
            }
            (Kind::Client, Some(("roles", role))) => {
                record.text("role") == role && self.known(tenant, Kind::Role, role).is_some()
            }
            _ => false,
        };
        still.then(|| self.named(tenant, subject))
    }

    fn named(&self, tenant: &Tenant, subject: String) -> Caller {
        let short = subject
            .split_once(':')
            .map(|(_, name)| name.to_owned())
            .unwrap_or_default();
        let mut names = vec![subject.clone()];
        for (_, group) in self.records(tenant, Kind::Group) {
            let members = group.list("members");
            let is_user = subject.starts_with("users:");
            if members
                .iter()
                .any(|member| *member == subject || (is_user && *member == short))
            {
                names.push(format!("groups:{}", group.name));
            }
        }
        Caller {
            subject,
            names,
            rights: None,
        }
    }

    /// Whether the tenant's policies let him.
    pub(super) fn may(&self, call: &Call, caller: &Caller, action: &str, resource: &str) -> bool {
        Self::allows(&self.rules(&call.tenant), call, caller, (action, resource))
    }

    pub(super) fn allows(rules: &[Rule], call: &Call, caller: &Caller, (action, resource): (&str, &str)) -> bool {
        if let Some(rights) = &caller.rights {
            return rights.allow(action, resource);
        }
        let ask = Ask {
            subjects: &caller.names,
            action,
            resource,
            remote: call.remote,
            now: time::now(),
        };
        policy::allows(rules, &ask)
    }

    /// The same as a refusal.
    pub(super) fn require(&self, call: &Call, caller: &Caller, action: &str, resource: &str) -> Result<(), Refusal> {
        if self.may(call, caller, action, resource) {
            return Ok(());
        }
        Err(Refusal::forbidden())
    }

    pub(super) fn rules(&self, tenant: &Tenant) -> Arc<Vec<Rule>> {
        let now = self.records.changes();
        let held = self
            .rules
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&tenant.uid)
            .cloned();
        if let Some((at, rules)) = held
            && at == now
        {
            return rules;
        }
        let mut rules = Vec::new();
        for (_, policy) in self.records(tenant, Kind::Policy) {
            let document = policy.fields.get("permissionDocument").and_then(|d| d.as_array());
            let document = document.map(Vec::as_slice).unwrap_or_default();
            match Rule::read(document, &policy.name) {
                Ok(read) => rules.extend(read),
                // Checked when it was written; whoever spoils it by hand locks everybody out, and lets nobody in.
                Err(error) => {
                    tracing::error!(policy = policy.name, %error, "a policy cannot be read, so everything is denied");
                    rules.extend(Rule::read(&[super::policies::deny_all()], &policy.name).unwrap_or_default());
                }
            }
        }
        let rules = Arc::new(rules);
        let mut all = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(tenant.uid.clone(), (now, rules.clone()));
        rules
    }
}
