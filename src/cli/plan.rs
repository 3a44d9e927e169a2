//! `kubectl dsv plan`: what an account of a dynamic secret would be, as SQL. Nothing is sent to any database.

use super::connect::Cluster;
use super::preflight;
use super::rotate::existing;
use super::{Error, Output, show};
use crate::api::DynamicSecret;
use crate::api::dynamic_secret::AccountOptions;
use crate::api::grants::Grant;
use crate::api::names::role_name;
use crate::api::pool::ServerStatus;
use crate::api::ttl::Span;
use crate::channel::frames::{Account, AccountSettings, Group};
use crate::keys::{Password, Verifier};
use crate::postgres::preview;
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use serde_json::json;

/// Stands for the UID of a lease that does not exist.
const NO_LEASE: &str = "00000000-0000-0000-0000-000000000000";
/// Stands for a comment that only the operator can sign.
const COMMENT: &str = "dsv/1 kind=account …";
/// Stands for a group role whose name is not settled yet.
const NO_GROUP: &str = "dsvg_…";
/// Stands for what is made for each account anew.
const VERIFIER: &str = "SCRAM-SHA-256$…";
/// How long an account may take to come about.
const DEADLINE: SignedDuration = SignedDuration::from_secs(60);

struct Plan {
    server: Option<ServerStatus>,
    group: String,
    role: String,
    grants: Vec<Grant>,
    sql: Vec<String>,
}

/// Runs the command.
pub async fn run(cluster: &Cluster, name: &str, output: Output) -> Result<(), Error> {
    let secrets: Api<DynamicSecret> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let asked = existing(&secrets, &cluster.namespace, name).await?;
    let server = match preflight::server(cluster, &asked).await {
        Ok(server) => Some(server),
        Err(error) => {
            show::remark(&format!("the server is not known here: {}", error.sentence()));
            None
        }
    };
    let plan = Plan::of(name, &asked, server, Timestamp::now())?;
    if output == Output::Table {
        return show::print(&plan.script());
    }
    let grants: Vec<_> = plan
        .grants
        .iter()
        .map(|grant| json!({"what": grant.what(), "where": grant.target.to_string()}))
        .collect();
    show::print_value(
        output,
        &json!({"group": plan.group, "role": plan.role, "grants": grants, "sql": plan.sql,
                "server": plan.server.and_then(|server| server.address)}),
    )
}

impl Plan {
    fn of(name: &str, asked: &DynamicSecret, server: Option<ServerStatus>, now: Timestamp) -> Result<Self, Error> {
        let wrong = |error: &dyn std::fmt::Display| Error::Refused(format!("DynamicSecret {name}: {error}"));
        let grants = asked
            .spec
            .pairs()
            .into_iter()
            .map(|pair| Grant::parse(&pair.what, &pair.target));
        let grants = grants.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error))?;
        let role = role_name(asked.spec.prefix(), name, NO_LEASE);
        let role = role.ok_or_else(|| wrong(&"its account can have no name"))?;
        // The one that was made last is that of the present grants.
        let group = asked.status.as_ref().and_then(|status| status.groups.last());
        let group = group.map_or_else(|| NO_GROUP.to_owned(), |group| group.name.clone());
        let ttl = asked
            .spec
            .ttl
            .length()
            .and_then(|ttl| SignedDuration::try_from(ttl).ok());
        let ttl = ttl.unwrap_or_default();
        let ahead = |length: SignedDuration| now.saturating_add(length).unwrap_or(Timestamp::MAX);
        let verifier = Verifier::of(&Password::generate());
        let account = Account {
            lease_uid: NO_LEASE.to_owned(),
            role: role.clone(),
            verifier: verifier.as_str().to_owned(),
            comment: COMMENT.to_owned(),
            valid_until: ahead(ttl),
            issue_deadline: ahead(ttl.min(DEADLINE)),
            settings: asked.spec.account.as_ref().map(settings).unwrap_or_default(),
        };
        let carrier = Group {
            name: group.clone(),
            comment: COMMENT.to_owned(),
            signers: Vec::new(),
            grants: Vec::new(),
        };
        let version = server
            .as_ref()
            .and_then(|server| server.version.as_deref())
            .and_then(major);
        let sql = preview(&carrier, &account, version.is_none_or(|major| major >= 16));
        let sql = sql.map_err(|failure| wrong(&failure.message))?;
        Ok(Self {
            sql: sql
                .replace(verifier.as_str(), VERIFIER)
                .split("; ")
                .map(str::to_owned)
                .collect(),
            server,
            group,
            role,
            grants,
        })
    }

    fn script(&self) -> String {
        let place = self.server.as_ref().and_then(|server| server.address.as_deref());
        let mut lines = vec![format!("-- on {}", place.unwrap_or("a server that is not known here"))];
        lines.push(format!(
            "-- once, and again where a right is missing: group role {}",
            self.group
        ));
        for grant in &self.grants {
            lines.push(format!("--   {grant}"));
        }
        lines.push("-- for each account, in one transaction; the name ends with the lease's UID".to_owned());
        lines.push("BEGIN;".to_owned());
        lines.extend(self.sql.iter().map(|statement| format!("{statement};")));
        lines.push("COMMIT;".to_owned());
        lines.join("\n")
    }
}

/// `16.4` and `16.4 (Debian …)` are of 16.
fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn settings(options: &AccountOptions) -> AccountSettings {
    let milliseconds = |span: &Option<Span>| {
        let length = span.as_ref().and_then(Span::length);
        length.and_then(|length| i64::try_from(length.as_millis()).ok())
    };
    AccountSettings {
        connection_limit: options.connection_limit,
        statement_timeout_ms: milliseconds(&options.statement_timeout),
        idle_in_transaction_timeout_ms: milliseconds(&options.idle_in_transaction_timeout),
        search_path: options.search_path.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> DynamicSecret {
        serde_json::from_value(json!({
            "apiVersion": "dsv.dev/v1alpha1", "kind": "DynamicSecret", "metadata": {"name": "orders"},
            "spec": {
                "pool": {"name": "p"}, "linkConfig": {"linkType": "dynamic", "linkedSecret": "db"},
                "grantPermissions": {"what": "select, insert", "where": "public.orders"}, "ttl": 600, "userPrefix": "shop_",
                "account": {"connectionLimit": 3, "searchPath": ["o'dd"]},
            },
        }))
        .unwrap()
    }

    fn server(version: &str) -> ServerStatus {
        ServerStatus {
            address: Some("db.example.com:5432".into()),
            version: Some(version.into()),
            ..ServerStatus::default()
        }
    }

    #[test]
    fn the_plan_is_what_an_engine_runs_without_the_verifier() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let plan = Plan::of("orders", &asked(), Some(server("18.1")), now).unwrap();
        let text = plan.script();
        for part in [
            "-- on db.example.com:5432",
            "--   SELECT, INSERT on public.orders",
            "CREATE ROLE \"shop_orders_",
            "PASSWORD 'SCRAM-SHA-256$…' VALID UNTIL '2030-01-01",
            "CONNECTION LIMIT 3",
            "WITH INHERIT TRUE, SET FALSE;",
            "SET search_path = \"o'dd\";",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("4096:"), "{text}");
        let old = Plan::of("orders", &asked(), Some(server("15.9 (Debian 15.9-1)")), now).unwrap();
        assert!(old.script().contains("IN ROLE \"dsvg_…\""), "{}", old.script());
    }

    #[test]
    fn what_cannot_be_granted_is_said() {
        let mut wrong = asked();
        wrong.spec.grant_permissions.as_mut().unwrap().what = "DROP".into();
        let Err(error) = Plan::of("orders", &wrong, None, Timestamp::UNIX_EPOCH) else {
            panic!("there is a plan");
        };
        assert!(
            error.sentence().contains("`DROP` is not a privilege"),
            "{}",
            error.sentence()
        );
    }
}
