//! The functions that run with a superuser's rights refuse whatever the caller could not do by himself.

use crate::functions::{oid_of, planter, with_functions};
use crate::where_they_matter;
use crate::world::{DROPPED, World};
use dsv::channel::frames::Account;
use e2e::postgres::Major;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

where_they_matter! {
    nothing_but_the_callers_own_accounts_is_touched
    no_account_is_made_that_the_caller_could_not_make
    nobody_else_may_call_them
}

/// What the login gets when it calls the functions that touch an account with this role.
async fn refused_by_each(caller: &Client, oid: u32, comment: &str) {
    for function in ["drop_accounts", "administer", "leave_groups"] {
        let sql = format!("SELECT dsv.{function}(ARRAY[$1::oid], ARRAY[$2::text])");
        let error = caller.query(&sql, &[&oid, &comment]).await.expect_err(function);
        assert_eq!(
            error.code(),
            Some(&SqlState::INSUFFICIENT_PRIVILEGE),
            "{function} of {oid}: {error:?}"
        );
    }
}

#[allow(clippy::too_many_lines, reason = "one attempt after the other")]
async fn nothing_but_the_callers_own_accounts_is_touched(major: Major) {
    let world = with_functions(major).await;
    let group = world.readers();
    let (mine, password) = world.account();
    let oid = world.issued(&group, &mine).await;
    let caller = world.as_issuer().await;
    let root = world.root().await;
    // Not all roles: other worlds make and drop theirs on the same server meanwhile.
    let roles = async |oids: &[u32]| {
        let query = "SELECT oid, to_jsonb(r)::text FROM pg_roles r WHERE oid = ANY ($1) ORDER BY oid";
        let rows = root.query(query, &[&oids]).await;
        let rows: Vec<(u32, String)> = rows.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
        rows
    };
    // Roles that look like an account of ours but for one thing, most of them put into our group as only the login can.
    let mut others = Vec::new();
    for (attributes, comment) in [
        ("LOGIN", Some("of somebody else")),
        ("LOGIN", None),
        ("SUPERUSER LOGIN", Some("dsv/1 kind=lease x")),
        ("CREATEROLE LOGIN", Some("dsv/1 kind=lease x")),
        ("LOGIN", Some("dsv/1 kind=lease x")),
    ] {
        let (looks, _) = world.account();
        root.batch_execute(&format!("CREATE ROLE \"{}\" {attributes}", looks.role))
            .await
            .unwrap();
        if let Some(comment) = comment {
            let sql = format!("COMMENT ON ROLE \"{}\" IS '{comment}'", looks.role);
            root.batch_execute(&sql).await.unwrap();
        }
        caller
            .batch_execute(&format!("GRANT \"{}\" TO \"{}\"", group.name, looks.role))
            .await
            .unwrap();
        others.push((oid_of(&world, &looks).await, comment.unwrap_or_default().to_owned()));
    }
    // An account that the functions made for another login, and which ours then puts into its own group as well.
    let mut second = World::on(std::sync::Arc::clone(&world.server)).await;
    second.database.clone_from(&world.database);
    second.install_functions().await;
    let (theirs, _) = second.account();
    let their_group = make_group(&second).await;
    let their_oid = made_directly(&second, &theirs, &their_group).await;
    caller
        .batch_execute(&format!("GRANT \"{}\" TO \"{}\"", group.name, theirs.role))
        .await
        .unwrap();
    others.push((their_oid, theirs.comment.clone()));
    let mut touchable: Vec<u32> = others.iter().map(|(oid, _)| *oid).collect();
    touchable.extend([oid, 10]);
    let before = roles(&touchable).await;
    assert_eq!(before.len(), touchable.len());
    for (other, comment) in &others {
        refused_by_each(&caller, *other, comment).await;
    }
    refused_by_each(&caller, 10, "dsv/1 kind=lease x").await;
    refused_by_each(&caller, oid, "dsv/1 kind=lease another comment").await;
    let together = format!("SELECT dsv.drop_accounts(ARRAY[{oid}, {their_oid}]::oid[], ARRAY[$1, $2])");
    caller
        .query(&together, &[&mine.comment, &theirs.comment])
        .await
        .unwrap_err();
    assert_eq!(roles(&touchable).await, before);
    world.try_as(&mine, &password).await.unwrap();
    let without_createrole = format!("ALTER ROLE {} NOCREATEROLE", world.issuer.user);
    root.batch_execute(&without_createrole).await.unwrap();
    refused_by_each(&caller, oid, &mine.comment).await;
    let with_createrole = format!("ALTER ROLE {} CREATEROLE", world.issuer.user);
    root.batch_execute(&with_createrole).await.unwrap();
    assert_eq!(world.revoke_one(&mine, Some(oid)).await, DROPPED);
}

/// A group role of the world's login, made by hand.
async fn make_group(world: &World) -> String {
    let name = format!("group_{}", world.issuer.user);
    let sql = format!("CREATE ROLE {name} NOLOGIN; COMMENT ON ROLE {name} IS 'dsv/1 kind=group by hand'");
    world.as_issuer().await.batch_execute(&sql).await.unwrap();
    name
}

/// SQL that makes this account.
pub fn call(account: &Account, group: &str) -> String {
    let comment = account.comment.replace('\'', "''");
    format!(
        "SELECT dsv.create_account('{}', '{}', '{}', NULL, '{group}', '{comment}', NULL, NULL, NULL)",
        account.role.replace('\'', "''"),
        account.verifier,
        account.valid_until
    )
}

async fn made_directly(world: &World, account: &Account, group: &str) -> u32 {
    let caller = world.as_issuer().await;
    caller.batch_execute(&call(account, group)).await.unwrap();
    oid_of(world, account).await
}

#[allow(clippy::too_many_lines, reason = "one attempt after the other")]
async fn no_account_is_made_that_the_caller_could_not_make(major: Major) {
    let world = with_functions(major).await;
    let group = make_group(&world).await;
    let (caller, root) = (world.as_issuer().await, world.root().await);
    let refused = |sql: String, why: &'static str| {
        let caller = &caller;
        async move {
            assert!(caller.batch_execute(&sql).await.is_err(), "{why}: {sql}");
        }
    };
    let (account, _) = world.account();
    let suffix = account.role.rsplit_once('_').unwrap().1.to_owned();
    for (name, why) in [
        ("plain", "no suffix"),
        ("x; DROP ROLE y; --", "SQL in the name"),
        (&format!("{}_{suffix}", "x".repeat(60)), "it would be cut"),
        (&format!("pg_{suffix}"), "a reserved name"),
        (&format!("x_{suffix}\n"), "a line's end behind the suffix"),
    ] {
        let odd = Account {
            role: name.to_owned(),
            ..account.clone()
        };
        refused(call(&odd, &group), why).await;
    }
    let mut odd = account.clone();
    for verifier in [
        "",
        "secret",
        "md53175bce1d3201d16594cebf9d7eb3f9d",
        "SCRAM-SHA-256$1:a$b:c",
    ] {
        verifier.clone_into(&mut odd.verifier);
        refused(call(&odd, &group), "no verifier").await;
    }
    let mut odd = account.clone();
    odd.comment = "mine".into();
    refused(call(&odd, &group), "no comment of ours").await;
    let endless = call(&account, &group).replace(&format!("'{}'", account.valid_until), "NULL");
    refused(endless, "no end").await;
    // Groups that are none, or not the caller's.
    let tag = &world.database;
    root.batch_execute(&format!(
        "CREATE ROLE theirs_{tag} NOLOGIN; COMMENT ON ROLE theirs_{tag} IS 'dsv/1 kind=group'; \
         CREATE ROLE strong_{tag} SUPERUSER NOLOGIN; COMMENT ON ROLE strong_{tag} IS 'dsv/1 kind=group'; \
         GRANT strong_{tag} TO {0} WITH ADMIN OPTION; \
         CREATE ROLE bare_{tag} NOLOGIN; GRANT bare_{tag} TO {0} WITH ADMIN OPTION; \
         CREATE ROLE person_{tag} LOGIN; COMMENT ON ROLE person_{tag} IS 'dsv/1 kind=lease'; \
         GRANT person_{tag} TO {0} WITH ADMIN OPTION",
        world.issuer.user
    ))
    .await
    .unwrap();
    for group in ["theirs", "strong", "bare", "person"] {
        refused(call(&account, &format!("{group}_{tag}")), group).await;
    }
    for group in ["pg_write_server_files", "pg_monitor", "nobody_has_this_name"] {
        refused(call(&account, group), group).await;
    }
    assert!(!world.exists(&account.role).await);

    // What looks like SQL in a name is a name.
    let odd = Account {
        role: format!("\"; DROP ROLE x; --'_{suffix}"),
        ..account.clone()
    };
    caller.batch_execute(&call(&odd, &group)).await.unwrap();
    assert!(world.exists(&odd.role).await && world.exists(&group).await);
    let oid = oid_of(&world, &odd).await;
    let drop = format!(
        "SET standard_conforming_strings = off; SELECT dsv.drop_accounts(ARRAY[{oid}::oid], ARRAY['{}'])",
        odd.comment
    );
    caller.batch_execute(&drop).await.unwrap();
    assert!(!world.exists(&odd.role).await && world.exists(&group).await);
}

async fn nobody_else_may_call_them(major: Major) {
    let world = with_functions(major).await;
    let (account, password) = world.account();
    world.issued(&world.readers(), &account).await;
    let session = world.try_as(&account, &password).await.unwrap();
    let other = planter(&world).await;
    for caller in [&session, &other] {
        for sql in [
            call(&account, "some_group"),
            "SELECT dsv.drop_accounts(ARRAY[10]::oid[], ARRAY['dsv/1 x'])".to_owned(),
            "SELECT dsv.administer(ARRAY[10]::oid[], ARRAY['dsv/1 x'])".to_owned(),
            "SELECT dsv.leave_groups(ARRAY[10]::oid[], ARRAY['dsv/1 x'])".to_owned(),
        ] {
            let error = caller.batch_execute(&sql).await.expect_err(&sql);
            assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{error}");
        }
    }
    let mine = world.as_issuer().await;
    for inner in ["SELECT dsv.check_caller()", "SELECT dsv.accounts_of_caller(NULL, NULL)"] {
        let error = mine.batch_execute(inner).await.expect_err(inner);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{error}");
    }
}
