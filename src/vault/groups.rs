//! Groups of users and roles.

use super::Vault;
use super::call::Call;
use super::caller::Caller;
use super::ids::Kind;
use super::path::{Suffix, split};
use super::policies::listed;
use super::records::{Live, Record};
use super::reply::{Refusal, Reply};
use super::tenants::Tenant;
use super::users::{TAKEN, check_name};
use http::Method;
use serde_json::{Map, Value, json};

impl Vault {
    /// Everything below `/v1/groups`.
    pub(super) async fn groups(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let (text, suffix) = split(call.rest.trim_matches('/'), &call.method, call.has_body());
        let (name, members) = match text.strip_suffix("/members") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let (tenant, kind) = (&call.tenant, Kind::Group);
        let need = |action: &str| self.require(call, caller, action, &format!("groups:{name}"));
        match (&call.method, name, suffix) {
            (&Method::POST, "", _) => self.create_group(call, caller).await,
            (&Method::GET, "", _) => {
                let term = call.asked("searchTerm").unwrap_or_default().to_lowercase();
                let mut found = self.records(tenant, kind);
                found.retain(|(_, record)| {
                    record.name.to_lowercase().contains(&term)
                        && self.may(call, caller, "list", &format!("groups:{}", record.name))
                });
                listed(call, found, shown)
            }
            (&Method::POST | &Method::DELETE, _, _) if members => {
                need("update")?;
                let live = self.live_record(tenant, kind, name).await?;
                self.change_members(call, caller, live).await
            }
            (&Method::GET, _, Suffix::None) => {
                need("read")?;
                let live = self.live_record(tenant, kind, name).await?;
                Ok(Reply::ok(shown(&live.id, &live.record).into()))
            }
            (&Method::PUT, _, Suffix::Restore) => {
                need("update")?;
                self.restore_record(tenant, kind, name).await
            }
            (&Method::DELETE, _, _) => {
                need("delete")?;
                self.delete_record(tenant, kind, name, call.flag("force")).await
            }
            _ => Err(Refusal::new(405, "this method is not served here")),
        }
    }

    async fn create_group(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let body = call.fields()?;
        let name = body.required("groupname")?;
        check_name(name)?;
        self.require(call, caller, "create", &format!("groups:{name}"))?;
        let (members, errors) = self.existing(&call.tenant, body.list("members")?);
        let fields = [("members".to_owned(), json!(members))].into_iter().collect();
        let made = self
            .make_record(&call.tenant, Kind::Group, name, fields, (None, &caller.subject))
            .await?;
        let made = made.ok_or_else(|| Refusal::bad(TAKEN))?;
        let mut all = shown(&made.id, &made.record);
        all.insert("addedMemberNames".into(), json!(members));
        all.insert("errors".into(), errors.into());
        Ok(Reply::created(all.into()))
    }

    async fn change_members(&self, call: &Call, caller: &Caller, live: Live) -> Result<Reply, Refusal> {
        let body = call.fields()?;
        let named = body.list(if body.has("membernames") {
            "membernames"
        } else {
            "members"
        })?;
        let mut members = live.record.list("members");
        let removes = call.method == Method::DELETE;
        let mut answer = Map::new();
        if removes {
            members.retain(|member| !named.contains(member));
            answer.insert("removedMemberNames".into(), json!(named));
        } else {
            let (added, errors) = self.existing(&call.tenant, named);
            members.extend(
                added
                    .iter()
                    .filter(|name| !members.contains(name))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
            answer.insert("addedMemberNames".into(), json!(added));
            answer.insert("errors".into(), errors.into());
        }
        let fields = [("members".to_owned(), json!(members))].into_iter().collect();
        self.next_version(&call.tenant, live, (fields, None), &caller.subject)
            .await?;
        if removes {
            return Ok(Reply::nothing());
        }
        Ok(Reply::ok(answer.into()))
    }

    /// Who of them exists, and what is said of the others.
    fn existing(&self, tenant: &Tenant, named: Vec<String>) -> (Vec<String>, Map<String, Value>) {
        let exists = |name: &String| match name.split_once(':') {
            Some(("users", user)) => self.known(tenant, Kind::User, user).is_some(),
            Some(("roles", role)) => self.known(tenant, Kind::Role, role).is_some(),
            _ => self.known(tenant, Kind::User, name).is_some(),
        };
        let (known, unknown): (Vec<_>, Vec<_>) = named.into_iter().partition(exists);
        let errors = unknown
            .into_iter()
            .map(|name| (name, json!("unable to find item with specified identifier")));
        (known, errors.collect())
    }

    /// The names of the groups that somebody is in.
    pub(super) fn groups_with(&self, tenant: &Tenant, member: &str) -> Vec<String> {
        let full = if member.contains(':') {
            member.to_owned()
        } else {
            format!("users:{member}")
        };
        let groups = self.records(tenant, Kind::Group).into_iter();
        let with = groups.filter(|(_, group)| group.list("members").iter().any(|name| name == member || *name == full));
        with.map(|(_, group)| group.name).collect()
    }
}

fn shown(id: &str, record: &Record) -> Map<String, Value> {
    let mut all = record.common(id);
    let members = record.list("members");
    all.insert("groupName".into(), json!(record.name));
    all.insert("total".into(), json!(members.len()));
    all.insert("members".into(), json!(members));
    all.insert("metaData".into(), json!({}));
    all
}
