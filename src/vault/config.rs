//! The configuration document of a tenant: what its policies say, in one piece. Nothing of it is kept as such, so it is changed
//! policy by policy.

use super::Vault;
use super::call::Call;
use super::caller::Caller;
use super::ids::Kind;
use super::reply::{Refusal, Reply};
use serde_json::{Value, json};

impl Vault {
    /// `GET /v1/config`: of the policies those that the caller may read.
    pub(super) fn config(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        self.require(call, caller, "read", "config")?;
        let mut policies = self.records(&call.tenant, Kind::Policy);
        policies.retain(|(_, policy)| self.may(call, caller, "read", &format!("config:policies:{}", policy.name)));
        let documents = policies
            .iter()
            .filter_map(|(_, policy)| policy.fields.get("permissionDocument")?.as_array());
        let statements: Vec<&Value> = documents.flatten().collect();
        Ok(Reply::ok(json!({
            "tenantName": call.tenant.namespace,
            "permissionDocument": statements,
            "settings": {},
        })))
    }
}
