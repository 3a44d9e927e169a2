//! Policies: `/v1/config/policies`.

use super::Vault;
use super::call::Call;
use super::caller::Caller;
use super::ids::{self, Kind};
use super::page::{Page, Sorting};
use super::path::SecretPath;
use super::policy::Rule;
use super::records::{Live, Record};
use super::reply::{Refusal, Reply};
use http::Method;
use serde_json::{Map, Value, json};

/// Most policies of a tenant.
const MOST: usize = 1000;
/// Shortest and longest path, and longest text, as the stock CLI has them.
const PATH: std::ops::RangeInclusive<usize> = 3..=500;
const MAX_TEXT: usize = 2000;

/// The policies of a new tenant: everything for the first administrator.
pub fn defaults(admin: &str) -> Vec<(&'static str, Value)> {
    let everything = json!([{
        "id": "default-admin",
        "description": "Default Admin Permissions",
        "subjects": [admin],
        "actions": ["<.*>"],
        "resources": ["<.*>"],
        "effect": "allow",
        "conditions": {},
    }]);
    vec![("default:admin", everything)]
}

/// A statement that denies everything to everybody.
pub fn deny_all() -> Value {
    json!({"subjects": ["<.*>"], "actions": ["<.*>"], "resources": ["<.*>"], "effect": "deny"})
}

impl Vault {
    /// Everything below `/v1/config/policies`; `rest` is what follows it.
    pub(super) async fn policies(&self, call: &Call, caller: &Caller, rest: &str) -> Result<Reply, Refusal> {
        let rest = rest.trim_matches('/');
        if rest.is_empty() {
            return match call.method {
                Method::POST => self.create_policy(call, caller).await,
                Method::GET => self.list_policies(call, caller),
                _ => Err(Refusal::new(405, "name a policy")),
            };
        }
        let (text, suffix) = super::path::split(rest, &call.method, call.has_body());
        let path = SecretPath::parse(text).map_err(|error| Refusal::bad(error.to_string()))?;
        let path = path.as_str();
        let need = |action: &str| self.require(call, caller, action, &format!("config:policies:{path}"));
        let (tenant, kind) = (&call.tenant, Kind::Policy);
        match (&call.method, suffix) {
            (&Method::GET, super::path::Suffix::None) => {
                need("read")?;
                let live = self.live_record(tenant, kind, path).await?;
                Ok(Reply::ok(shown(&live.id, &live.record).into()))
            }
            (&Method::GET, super::path::Suffix::Version(count)) => {
                need("read")?;
                let live = self.live_record(tenant, kind, path).await?;
                Ok(versions(&live, count, shown))
            }
            (&Method::PUT, super::path::Suffix::None) => {
                need("update")?;
                let document = document(call, path)?;
                let live = self.live_record(tenant, kind, path).await?;
                self.change_policy(call, caller, live, document).await
            }
            (&Method::PUT, super::path::Suffix::Rollback(number)) => {
                need("update")?;
                let live = self.live_record(tenant, kind, path).await?;
                let old = live.versions().into_iter().find(|record| record.version == number);
                let old = old.ok_or_else(|| Refusal::new(404, format!("version {number} is not kept")))?;
                let document = old.fields.get("permissionDocument").cloned().unwrap_or_default();
                self.change_policy(call, caller, live, document).await
            }
            (&Method::PUT, super::path::Suffix::Restore) => {
                need("update")?;
                self.restore_record(tenant, kind, path).await
            }
            (&Method::DELETE, _) => {
                need("delete")?;
                self.delete_record(tenant, kind, path, call.flag("force")).await
            }
            _ => Err(Refusal::new(405, "this method is not served here")),
        }
    }

    async fn change_policy(&self, call: &Call, caller: &Caller, live: Live, document: Value) -> Result<Reply, Refusal> {
        let fields = [("permissionDocument".to_owned(), document)].into_iter().collect();
        let written = self
            .next_version(&call.tenant, live, (fields, None), &caller.subject)
            .await?;
        Ok(Reply::ok(shown(&written.id, &written.record).into()))
    }

    async fn create_policy(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let fields = call.fields()?;
        let path = SecretPath::parse(fields.required("path")?).map_err(|error| Refusal::bad(error.to_string()))?;
        let path = path.as_str();
        if !PATH.contains(&path.len()) {
            let fault = format!("must be {} to {} characters long", PATH.start(), PATH.end());
            return Err(Refusal::fields(vec![("path".to_owned(), fault)]));
        }
        self.require(call, caller, "create", &format!("config:policies:{path}"))?;
        if self.records(&call.tenant, Kind::Policy).len() >= MOST {
            return Err(Refusal::bad(format!("a tenant has at most {MOST} policies")));
        }
        let fields = [("permissionDocument".to_owned(), document(call, path)?)]
            .into_iter()
            .collect();
        let made = self
            .make_record(&call.tenant, Kind::Policy, path, fields, (None, &caller.subject))
            .await?;
        let made = made.ok_or_else(|| Refusal::bad("error creating policy, policy at path already exists"))?;
        Ok(Reply::created(shown(&made.id, &made.record).into()))
    }

    fn list_policies(&self, call: &Call, caller: &Caller) -> Result<Reply, Refusal> {
        let term = call
            .asked("searchTerm")
            .unwrap_or_default()
            .replace('/', ":")
            .to_lowercase();
        let mut found = self.records(&call.tenant, Kind::Policy);
        found.retain(|(_, record)| {
            record.name.to_lowercase().contains(&term)
                && self.may(call, caller, "list", &format!("config:policies:{}", record.name))
        });
        listed(call, found, shown)
    }
}

/// The statements of a body, checked.
fn document(call: &Call, path: &str) -> Result<Value, Refusal> {
    let fields = call.fields()?;
    let text = fields.required("policy")?;
    if text.len() > MAX_TEXT {
        return Err(Refusal::fields(vec![(
            "policy".to_owned(),
            format!("must not be longer than {MAX_TEXT} characters"),
        )]));
    }
    let wrong = |fault: &str| Refusal::fields(vec![("policy".to_owned(), fault.to_owned())]);
    let read: Value = match fields.text("serialization")?.unwrap_or("json") {
        "json" => serde_json::from_str(text).map_err(|_| wrong("is no JSON"))?,
        "yaml" | "yml" => serde_saphyr::from_str(text).map_err(|_| wrong("is no YAML"))?,
        _ => {
            return Err(Refusal::fields(vec![(
                "serialization".to_owned(),
                "must be json or yaml".to_owned(),
            )]));
        }
    };
    let statements = read.get("permissionDocument").and_then(Value::as_array);
    let statements = statements.ok_or_else(|| wrong("needs a list permissionDocument"))?;
    Rule::read(statements, path).map_err(|error| wrong(&error.to_string()))?;
    let numbered = statements.iter().enumerate().map(|(number, statement)| {
        let mut statement = statement.clone();
        if let Some(all) = statement.as_object_mut()
            && all.get("id").is_none_or(|id| id.as_str().is_none_or(str::is_empty))
        {
            let id = ids::id(&call.tenant.uid, Kind::Policy, &format!("{path}\0{number}"));
            all.insert("id".to_owned(), json!(id.to_string()));
        }
        statement
    });
    Ok(Value::Array(numbered.collect()))
}

fn shown(id: &str, record: &Record) -> Map<String, Value> {
    let mut all = record.common(id);
    all.insert("path".into(), json!(record.name));
    let document = record.fields.get("permissionDocument").cloned();
    all.insert("permissionDocument".into(), document.unwrap_or_else(|| json!([])));
    all
}

/// The most recent versions.
pub fn versions(live: &Live, count: u64, shown: impl Fn(&str, &Record) -> Map<String, Value>) -> Reply {
    let count = usize::try_from(count.max(1)).unwrap_or(usize::MAX);
    let all = live.versions();
    let all: Vec<Value> = all
        .iter()
        .take(count)
        .map(|record| shown(&live.id, record).into())
        .collect();
    Reply::ok(json!({"data": all}))
}

/// A page of records.
pub fn listed(
    call: &Call,
    mut found: Vec<(String, Record)>,
    shown: impl Fn(&str, &Record) -> Map<String, Value>,
) -> Result<Reply, Refusal> {
    let (page, sorting) = (Page::read(call)?, Sorting::read(call)?);
    sorting.sort(&mut found, |(_, record)| {
        (Some(record.created).filter(|_| !sorting.by_name), record.name.clone())
    });
    let (items, mut envelope) = page.cut(found, sorting);
    let data: Vec<Value> = items.iter().map(|(id, record)| shown(id, record).into()).collect();
    envelope.insert("data".to_owned(), json!(data));
    Ok(Reply::ok(envelope.into()))
}
